"""AP-10K (Yu et al., arXiv:2108.12617): animals of 54 species in 23 families, as a benchmark of correspondence.

The benchmark is that of Zhang et al., "Telling Left from Right" (arXiv:2311.17034): pairs within a species, across the
species of a family, and across families. Its lists follow the order in which a folder happened to be listed, and a
random generator without a seed, so that nobody can make them anew. :func:`read_ap10k` makes lists by the same rules
that come out the same everywhere (pictures by their numbers, pairs by :mod:`.pairing`); figures on them are
comparable with each other, not to the digit with published ones. Who has the folder that the authors' preparation
leaves behind reads its own lists with :func:`read_prepared_ap10k`.

Visibility 1 (occluded) counts as visible, as the data set means it.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from ...errors import ConfigError
from ..keypoint_groups import KeypointGroups, known_groups
from .coco import coco_images
from .files import chosen, existing, read_json, read_text, reading
from .pairing import pairs_by_lot
from .records import KeypointData, KeypointImage, KeypointPair

SPLITS = ("train", "val", "test")
SETTINGS = ("intra-species", "cross-species", "cross-family")

# Keypoints that a picture must show, and a pair share.
LEAST_KEYPOINTS = 3
_TEST, _VAL = 30, 20
# Training pairs within a species, for each of its pictures.
_TRAIN_PAIRS = 50
# Pairs of a family across its species, and of each two families.
_CROSS_SPECIES = {"val": 400, "test": 900}
_CROSS_FAMILY = {"val": 20, "test": 30}
# Category of pairs across families.
ALL = "all"

_FILES = tuple(f"ap10k-{part}-split1.json" for part in ("train", "val", "test"))

Entry = TypeVar("Entry")


def read_ap10k(
    folder: str | os.PathLike,
    split: str = "test",
    setting: str = "intra-species",
    *,
    crowded: Iterable[int] = (),
    seed: int = 0,
) -> KeypointData:
    """One split of the benchmark, made from the data set as it is downloaded.

    Args:
        folder: the unpacked ``ap-10k``, with ``annotations/ap10k-{train,val,test}-split1.json`` and ``data``.
        split: ``"train"`` (within species alone), ``"val"`` or ``"test"``; the benchmark's own, not the data set's.
        setting: ``"intra-species"``, ``"cross-species"`` or ``"cross-family"``.
        crowded: numbers of the pictures that show many animals, to be left out as the benchmark does
            (:func:`crowded_images` reads its list); without them the benchmark is another one.
        seed: of the lot.

    Returns:
        the pictures of the split, by number, and the pairs; their category is the species, the family, or ``"all"``.

    Raises:
        ConfigError: an option is unknown, or a file is missing or broken; it names the file.
    """
    _check(split, setting)
    parts: dict[str, list[KeypointImage]] = {}
    for species, members in _by(_eligible(Path(folder), frozenset(crowded)), "category").items():
        parts[species] = split_species(members)[split]
    images = sorted(itertools.chain.from_iterable(parts.values()), key=lambda image: image.id)
    drawn = {"intra-species": _intra_species, "cross-species": _cross_species, "cross-family": _cross_family}
    pairs = [
        KeypointPair(source, target, split, category)
        for category, source, target in drawn[setting](images, split, seed)
    ]
    return KeypointData(tuple(images), tuple(pairs), _groups(images))


def split_species(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """The pictures of one species by split: the last 30 are ``"test"``, up to 20 before them ``"val"``, the first ones
    ``"train"``; a rare species has no others than test pictures."""
    test = len(entries) - min(_TEST, len(entries))
    val = test - min(_VAL, test)
    return {"train": list(entries[:val]), "val": list(entries[val:test]), "test": list(entries[test:])}


def crowded_images(path: str | os.PathLike) -> frozenset[int]:
    """Numbers of pictures from a list with one on each line, leading zeros or not (``ap-10k_is_crowd.txt``).

    Raises:
        ConfigError: the file is missing, or a line is no number.
    """
    path = Path(path)
    with reading(path, "a list of numbers of pictures"):
        return frozenset(int(line) for line in read_text(path).split())


def read_prepared_ap10k(folder: str | os.PathLike, split: str = "test", setting: str = "intra-species") -> KeypointData:
    """One split of the benchmark with the very lists that its authors' preparation has left behind.

    Args:
        folder: ``ap-10k`` with ``PairAnnotation``, ``ImageAnnotation`` and ``JPEGImages``, the latter two by family and
            species.
        split: as of :func:`read_ap10k`.
        setting: as of :func:`read_ap10k`.

    Returns:
        the pictures that occur in pairs, and the pairs by their file names.

    Raises:
        ConfigError: an option is unknown, or a file is missing or broken; it names the file.
    """
    _check(split, setting)
    folder = Path(folder)
    ending = "" if setting == "intra-species" else "_" + setting.replace("-", "_")
    lists = folder / "PairAnnotation" / f"{'trn' if split == 'train' else split}{ending}"
    files = sorted(lists.glob("*.json"))
    if not files:
        raise ConfigError(f"{lists}: there are no lists of pairs; prepare the benchmark, or use read_ap10k")
    images: dict[Path, KeypointImage] = {}
    pairs = []
    for file in files:
        content = read_json(file)
        with reading(file, "a pair of the prepared AP-10K"):
            ends = [_annotation(folder, content[key]) for key in ("src_json_path", "trg_json_path")]
        for end in ends:
            if end not in images:
                images[end] = _prepared_image(folder, end)
        source, target = (images[end] for end in ends)
        category = {"intra-species": source.category, "cross-species": source.supercategory}.get(setting, ALL)
        pairs.append(KeypointPair(source, target, split, category))
    return KeypointData(tuple(images.values()), tuple(pairs), _groups(images.values()))


def _check(split: str, setting: str) -> None:
    chosen("split", split, SPLITS)
    if chosen("setting", setting, SETTINGS) != "intra-species" and split == "train":
        raise ConfigError(f"split='train' has no {setting} pairs; train within species, or use val or test")


def _eligible(folder: Path, crowded: frozenset[int]) -> list[KeypointImage]:
    """The first animal of every picture that is not crowded, if it shows enough; by the pictures' numbers."""
    found: dict[int, KeypointImage] = {}
    for file in (folder / "annotations" / name for name in _FILES):
        content = read_json(file)
        with reading(file, "annotations of AP-10K"):
            paths = {row["id"]: folder / "data" / row["file_name"] for row in content["images"]}
            first: dict[int, Mapping[str, Any]] = {}
            for row in content["annotations"]:
                first.setdefault(row["image_id"], row)
            kept = [row for number, row in first.items() if int(number) not in crowded]
            for row, image in zip(kept, coco_images(_with(content, kept), paths), strict=True):
                found.setdefault(int(row["image_id"]), _numbered(image, int(row["image_id"])))
    return [found[number] for number in sorted(found) if found[number].visible.sum() >= LEAST_KEYPOINTS]


def _with(content: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The file with these annotations alone; none of them is a crowd in COCO's sense, a mask of many."""
    names = known_groups("ap10k").names
    return {
        "images": content["images"],
        "categories": [{**row, "keypoints": names} for row in content["categories"]],
        "annotations": [{**row, "iscrowd": 0} for row in annotations],
    }


def _numbered(image: KeypointImage, number: int) -> KeypointImage:
    """Named by its picture, of which it is the only animal here."""
    return replace(image, id=f"{number:012d}")


def _annotation(folder: Path, stored: str) -> Path:
    """Where an image annotation lies in this folder; the lists hold the path from where they were made."""
    family, species, name = Path(stored).parts[-3:]
    return folder / "ImageAnnotation" / family / species / name


def _prepared_image(folder: Path, file: Path) -> KeypointImage:
    family, species = file.parts[-3:-1]
    row = read_json(file)
    with reading(file, "an image annotation of the prepared AP-10K"):
        number = int(file.stem)
        names = known_groups("ap10k").names
        content = {
            "images": [{"id": number, "width": row["width"], "height": row["height"]}],
            "categories": [{"id": 0, "name": species, "supercategory": family, "keypoints": names}],
            "annotations": [{**row, "image_id": number, "category_id": 0, "iscrowd": 0}],
        }
        picture = existing(folder / "JPEGImages" / family / species / f"{file.stem}.jpg")
        (image,) = coco_images(content, {number: picture})
        return _numbered(image, number)


def _by(images: Iterable[KeypointImage], attribute: str) -> dict[str, list[KeypointImage]]:
    """Pictures by category or supercategory, in alphabetical order."""
    found: dict[str, list[KeypointImage]] = defaultdict(list)
    for image in images:
        found[getattr(image, attribute)].append(image)
    return {name: found[name] for name in sorted(found)}


Drawn = Iterator[tuple[str, KeypointImage, KeypointImage]]


def _intra_species(images: Sequence[KeypointImage], split: str, seed: int) -> Drawn:
    """All pairs of each species, of training pictures a part."""
    for species, members in _by(images, "category").items():
        most = _TRAIN_PAIRS * len(members) if split == "train" else None
        for source, target in pairs_by_lot(members, least_common=LEAST_KEYPOINTS, most=most, seed=seed):
            yield species, source, target


def _cross_species(images: Sequence[KeypointImage], split: str, seed: int) -> Drawn:
    """A part of the pairs of different species of each family."""
    for family, members in _by(images, "supercategory").items():
        most = _CROSS_SPECIES[split]
        for source, target in pairs_by_lot(members, least_common=LEAST_KEYPOINTS, most=most, seed=seed, across=True):
            yield family, source, target


def _cross_family(images: Sequence[KeypointImage], split: str, seed: int) -> Drawn:
    """A part of the pairs of each two families."""
    families = _by(images, "supercategory").values()
    most = _CROSS_FAMILY[split]
    for one, other in itertools.combinations(families, 2):
        for source, target in pairs_by_lot(one, other, least_common=LEAST_KEYPOINTS, most=most, seed=seed):
            yield ALL, source, target


def _groups(images: Iterable[KeypointImage]) -> dict[str, KeypointGroups]:
    return dict.fromkeys(sorted({image.category for image in images}), known_groups("ap10k"))
