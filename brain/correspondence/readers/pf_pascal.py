"""PF-PASCAL (Ham et al., "Proposal Flow", arXiv:1703.07144): 1,351 pairs of 20 categories, mostly from like viewpoints.

Layout: ``PF-dataset-PASCAL/Annotations/CATEGORY/IMAGE.mat`` holds ``kps`` (NaN where hidden) and ``bbox`` (corners);
``PF-dataset-PASCAL/JPEGImages`` the pictures. The lists of pairs in use come from Rocco et al. ("Convolutional neural
network architecture for geometric matching", arXiv:1703.05593) and Han et al. ("SCNet", arXiv:1705.04043):
``{train,val,test}_pairs_pf_pascal.csv`` in that folder, or ``{trn,val,test}_pairs.csv`` beside it, with source, target
and number of the category in the first three columns. The places that some lists repeat in further columns are not
read: the annotations have them, and the keypoints that only one picture shows.
"""

from __future__ import annotations

import csv
import os
import zlib
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from ...errors import ConfigError, ImageError
from ...images import image_size
from ..keypoint_groups import KeypointGroups, groups_from_couples
from .files import chosen, read_text, reading
from .records import KeypointData, KeypointImage, KeypointPair

SPLITS = ("train", "val", "test")
# fmt: off
CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
_INNER = "PF-dataset-PASCAL"


def read_pf_pascal(folder: str | os.PathLike, split: str = "test") -> KeypointData:
    """One split of the data set. Its PCK takes the image, not the box, for its threshold.

    The training list has every pair a second time for its mirror image (1 in the column ``flip``); those are left out.

    Args:
        folder: ``PF-dataset-PASCAL``, or the folder that it lies in.
        split: ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        the pictures that occur in pairs, and the pairs in the order of the list. Keypoints have neither names nor
        sides: every slot is a part group of its own.

    Raises:
        ConfigError: the split is unknown, or a file is missing or broken; it names the file.
    """
    inner = _dataset_folder(Path(folder))
    listing = _listing(inner, chosen("split", split, SPLITS))
    images: dict[tuple[str, str], KeypointImage] = {}
    groups: dict[str, KeypointGroups] = {}
    pairs = []
    with reading(listing, "a list of pairs of PF-PASCAL"):
        rows = _rows(listing)
    for row in rows:
        with reading(listing, "a list of pairs of PF-PASCAL"):
            names, category = [Path(entry).stem for entry in row[:2]], _category(row[2])
        for name in names:
            if (category, name) not in images:
                images[category, name] = _image(inner, category, name)
        source, target = (images[category, name] for name in names)
        if source.names != target.names:
            raise ConfigError(f"{listing}: the annotations of {names[0]} and {names[1]} differ in their keypoints")
        groups.setdefault(category, groups_from_couples(source.names, []))
        pairs.append(KeypointPair(source, target, split, category))
    return KeypointData(tuple(images.values()), tuple(pairs), groups)


def _dataset_folder(folder: Path) -> Path:
    inner = folder if (folder / "Annotations").is_dir() else folder / _INNER
    if not (inner / "Annotations").is_dir():
        raise ConfigError(f"{folder}: neither it nor its {_INNER} has Annotations; give the unpacked data set")
    return inner


def _listing(inner: Path, split: str) -> Path:
    short = "trn" if split == "train" else split
    places = [
        inner / f"{split}_pairs_pf_pascal.csv",
        inner / f"{short}_pairs.csv",
        inner.parent / f"{short}_pairs.csv",
    ]
    for place in places:
        if place.is_file():
            return place
    raise ConfigError(f"{places[0]}: the list of pairs is missing, and so is {places[-1].name} beside {inner.name}")


def _rows(listing: Path) -> list[list[str]]:
    """Rows below the header, without those of mirror images."""
    rows = [row for row in csv.reader(read_text(listing).splitlines()) if row]
    header = [name.strip().lower() for name in rows[0]] if rows else []
    flip = header.index("flip") if "flip" in header else None
    return [row for row in rows[1:] if flip is None or row[flip].strip() in ("0", "")]


def _category(number: str) -> str:
    """By its number from 1, in the alphabetical order of PASCAL VOC."""
    if not 1 <= int(number) <= len(CATEGORIES):
        raise ConfigError(f"{number} is no category; they are numbered 1 to {len(CATEGORIES)}")
    return CATEGORIES[int(number) - 1]


def _image(inner: Path, category: str, name: str) -> KeypointImage:
    file, picture = inner / "Annotations" / category / f"{name}.mat", inner / "JPEGImages" / f"{name}.jpg"
    with reading(file, "an annotation of PF-PASCAL"):
        try:
            content = loadmat(file)
        except (OSError, NotImplementedError, MatReadError, zlib.error) as error:
            raise ConfigError(f"{file}: cannot be read ({error}); unpack the data set anew") from error
        keypoints = np.asarray(content["kps"], np.float64)
        left, top, right, bottom = np.asarray(content["bbox"], np.float64).ravel()
        visible: np.ndarray = np.asarray(np.isfinite(keypoints).all(1))
        try:
            height, width = image_size(picture)
        except ImageError as error:
            raise ConfigError(f"{file}: its picture cannot be used: {error}") from error
        return KeypointImage(
            id=f"{category}/{name}",
            path=picture,
            size_wh=(width, height),
            box=(left, top, right - left, bottom - top),
            category=category,
            keypoints=np.where(visible[:, None], keypoints, np.nan),
            visible=visible,
            names=tuple(str(slot) for slot in range(len(keypoints))),
        )
