"""SPair-71k (Min et al., arXiv:1908.10543): 70,958 pairs of 18 categories, with viewpoints.

Layout: ``Layout/{large,small}/{trn,val,test}.txt`` lists the pairs, one a line (``000001-SOURCE-TARGET:category``);
``ImageAnnotation/CATEGORY/IMAGE.json`` holds size, box, azimuth and the keypoints by slot; ``JPEGImages/CATEGORY`` the
pictures. All keypoints of a picture are read, not only those that a pair shares, which geometry-aware points and KAP
need.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigError
from ...pair_sampling import AZIMUTH_BINS
from ..keypoint_groups import KeypointGroups, known_groups
from .files import chosen, existing, read_json, read_text, reading
from .records import KeypointData, KeypointImage, KeypointPair

SPLITS = ("trn", "val", "test")
SIZES = ("large", "small")
# As many as the richest category has.
SLOTS = 30


def read_spair71k(folder: str | os.PathLike, split: str = "test", size: str = "large") -> KeypointData:
    """One split of the data set.

    Args:
        folder: the unpacked ``SPair-71k``.
        split: ``"trn"``, ``"val"`` or ``"test"``.
        size: ``"large"`` has all pairs, ``"small"`` a part of them.

    Returns:
        the pictures that occur in pairs, the pairs in the order of the list, and the groups of each category, with 30
        slots for every category.

    Raises:
        ConfigError: an option is unknown, or a file is missing or broken; it names the file.
    """
    folder = Path(folder)
    listing = folder / "Layout" / chosen("size", size, SIZES) / f"{chosen('split', split, SPLITS)}.txt"
    images: dict[tuple[str, str], KeypointImage] = {}
    groups: dict[str, KeypointGroups] = {}
    pairs = []
    for line in filter(None, (line.strip() for line in read_text(listing).splitlines())):
        with reading(listing, "a list of pairs of SPair-71k"):
            names, category = _parts(line)
            if category not in groups:
                groups[category] = known_groups("spair71k", category).resized(SLOTS)
        for name in names:
            if (category, name) not in images:
                images[category, name] = _image(folder, category, name, groups[category])
        source, target = (images[category, name] for name in names)
        pairs.append(KeypointPair(source, target, split, category))
    return KeypointData(tuple(images.values()), tuple(pairs), groups)


def _parts(line: str) -> tuple[list[str], str]:
    """Names of source and target, and the category."""
    numbered, _, category = line.partition(":")
    _, *names = numbered.split("-")
    if len(names) != 2 or not all(names) or not category:
        raise ConfigError(f"{line!r} is no pair; a line reads NUMBER-SOURCE-TARGET:CATEGORY")
    return names, category


def _image(folder: Path, category: str, name: str, groups: KeypointGroups) -> KeypointImage:
    file = folder / "ImageAnnotation" / category / f"{name}.json"
    content = read_json(file)
    with reading(file, "an image annotation of SPair-71k"):
        left, top, right, bottom = (float(side) for side in content["bndbox"])
        keypoints = _keypoints(content["kps"])
        return KeypointImage(
            id=f"{category}/{name}",
            path=existing(folder / "JPEGImages" / category / f"{name}.jpg"),
            size_wh=(int(content["image_width"]), int(content["image_height"])),
            box=(left, top, right - left, bottom - top),
            category=category,
            keypoints=keypoints,
            visible=np.isfinite(keypoints).all(1),
            names=groups.names,
            azimuth=_azimuth(content.get("azimuth_id")),
        )


def _keypoints(places: Mapping[str, Any]) -> np.ndarray:
    keypoints = np.full((SLOTS, 2), np.nan)
    for slot, place in places.items():
        if not 0 <= int(slot) < SLOTS:
            raise ConfigError(f"keypoint slot {slot} is none of 0 to {SLOTS - 1}")
        if place is not None:
            x, y = place
            keypoints[int(slot)] = float(x), float(y)
            if not np.isfinite(keypoints[int(slot)]).all():
                raise ConfigError(f"keypoint {slot} lies at {place}; correct it, or make it null where it is hidden")
    return keypoints


def _azimuth(value: Any) -> int | None:
    if value is None:
        return None
    if not 0 <= int(value) < AZIMUTH_BINS:
        raise ConfigError(f"azimuth_id {value} is none of 0 to {AZIMUTH_BINS - 1}")
    return int(value)
