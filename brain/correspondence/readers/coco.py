"""Keypoints in COCO's format (Lin et al., arXiv:1405.0312): persons of COCO itself, and whatever is stored alike.

Every annotated object is an entry of its own, in the picture that it shares with others. COCO has no pairs; they are
drawn by lot from objects of one category, in a way that anybody can repeat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..keypoint_groups import KeypointGroups, groups_from_names
from .files import existing, read_json, reading
from .pairing import pairs_by_lot
from .records import KeypointData, KeypointImage, KeypointPair


def read_coco_keypoints(
    annotations: str | os.PathLike,
    images: str | os.PathLike,
    split: str = "",
    *,
    groups: Mapping[str, KeypointGroups] | None = None,
    least_common: int = 3,
    most_pairs: int | None = 1000,
    seed: int = 0,
) -> KeypointData:
    """Objects with keypoints, and pairs of them.

    Crowds, and objects without a labelled keypoint, are left out.

    Args:
        annotations: the JSON file, such as ``annotations/person_keypoints_val2017.json``.
        images: the folder of its pictures, such as ``val2017``.
        split: name given to it; empty takes that of the annotation file.
        groups: part groups and partners by category; None reads them off the names of the keypoints.
        least_common: keypoints that both objects of a pair must show.
        most_pairs: pairs of each category, by lot; None takes all.
        seed: of the lot.

    Raises:
        ConfigError: a file is missing or broken; it names the file.
    """
    file, folder = Path(annotations), Path(images)
    content = read_json(file)
    with reading(file, "keypoints in COCO's format"):
        names = keypoint_names(content)
        known = {category: groups_from_names(own) for category, own in names.items()} | dict(groups or {})
        found = [
            image
            for image in coco_images(content, {row["id"]: folder / row["file_name"] for row in content["images"]})
            if image.visible.any()
        ]
    pairs = []
    for category in sorted(names):
        members = [image for image in found if image.category == category]
        drawn = pairs_by_lot(members, least_common=least_common, most=most_pairs, seed=seed)
        pairs += [KeypointPair(source, target, split or file.stem, category) for source, target in drawn]
    return KeypointData(tuple(found), tuple(pairs), known)


def keypoint_names(content: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the keypoints of each category that has some."""
    return {
        str(row["name"]): tuple(str(name) for name in row["keypoints"])
        for row in content["categories"]
        if row.get("keypoints")
    }


def coco_images(content: Mapping[str, Any], paths: Mapping[int, Path]) -> Iterator[KeypointImage]:
    """The annotated objects of a file in COCO's format, in its order; crowds are left out.

    A keypoint is visible if its ``v`` is 1 (occluded) or 2.

    Args:
        content: of the file.
        paths: of the pictures by their ids.
    """
    pictures = {row["id"]: row for row in content["images"]}
    categories = {row["id"]: row for row in content["categories"]}
    names = keypoint_names(content)
    for row in content["annotations"]:
        category = categories[row["category_id"]]
        if row.get("iscrowd") or str(category["name"]) not in names:
            continue
        picture = pictures[row["image_id"]]
        keypoints, visible = _keypoints(row["keypoints"])
        x, y, width, height = (float(value) for value in row["bbox"])
        yield KeypointImage(
            id=str(row["id"]),
            path=existing(paths[row["image_id"]]),
            size_wh=(int(picture["width"]), int(picture["height"])),
            box=(x, y, width, height),
            category=str(category["name"]),
            keypoints=keypoints,
            visible=visible,
            names=names[str(category["name"])],
            supercategory=str(category.get("supercategory", "")),
        )


def _keypoints(flat: Any) -> tuple[np.ndarray, np.ndarray]:
    rows = np.asarray(flat, np.float64).reshape(-1, 3)
    visible = rows[:, 2] >= 1
    return np.where(visible[:, None], rows[:, :2], np.nan), visible
