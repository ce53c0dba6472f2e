"""Pairs of pictures with all keypoints of either, and which of them show the object from opposite sides."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..brain.correspondence.keypoint_groups import (
    KeypointGroups,
    groups_from_couples,
    groups_from_names,
    groups_from_table,
)
from ..brain.correspondence.views import IDENTITY, MIRROR, View
from ..brain.errors import ConfigError
from ..brain.pair_sampling import AZIMUTH_BINS
from .manifest import Item, Manifest

# Rendered sets have this file beside the folder of their keypoints.
GROUPS_FILE = "keypoint_groups.json"

# By how much the layout of one picture's keypoints must fit better than its mirror image, as a share of their spread,
# to say which way an object faces.
CLEAR_LAYOUT = 0.05


@dataclass(frozen=True, eq=False)
class Question:
    """The K keypoints of a source picture to be found in a target.

    Attributes:
        source, target: the pictures.
        part: part of the data set, whose keypoints have the names of ``groups``.
        groups: partners and part groups of the keypoints.
        points: ``(K, 2)`` ``(x, y)`` in pixels of the source; NaN where it does not show them.
        targets: ``(K, 2)`` the same in the target.
        target_view: how the target is turned; its points are those of the turned picture.
        azimuth_difference: in eighths of a circle, 0 to 4; None where azimuths are not known.
        mirror_gain: by how many eighths of a circle the mirrored source is nearer to the target's azimuth than the
            source itself; None where azimuths are not known.
    """

    source: Item
    target: Item
    part: str
    groups: KeypointGroups
    points: np.ndarray
    targets: np.ndarray
    target_view: View = IDENTITY
    azimuth_difference: int | None = None
    mirror_gain: int | None = None

    @property
    def shown(self) -> np.ndarray:
        """``(K,)`` bool: visible in the source."""
        return np.isfinite(self.points).all(1)

    @property
    def found(self) -> np.ndarray:
        """``(K,)`` bool: visible in the target."""
        return np.isfinite(self.targets).all(1)

    @property
    def can_swap(self) -> np.ndarray:
        """``(K,)`` bool: visible in both, and the target shows the left-right partner, too."""
        partners = self.groups.permutation
        return self.shown & self.found & (partners != np.arange(len(partners))) & self.found[partners]

    @property
    def category(self) -> str:
        """Within which figures of categories are taken."""
        return self.target.category or self.part

    @cached_property
    def pose(self) -> int:
        """Which way the target faces: 1 as the mirrored source does, -1 as the source itself, 0 neither clearly.

        By the azimuths where they are known, otherwise by the layout of the keypoints.
        """
        if self.mirror_gain is not None:
            return int(np.sign(self.mirror_gain))
        gain = _layout_gain(self)
        return int(np.sign(gain)) if abs(gain) >= CLEAR_LAYOUT else 0


def read_questions(manifest: Manifest) -> list[Question]:
    """One question for each pair of a manifest that has ``shared`` keypoints, from its first picture to the second.

    Raises:
        ConfigError: a pair names no item, or the tables of partners and groups do not fit.
    """
    items = {item.id: item for item in manifest.items}
    groups = _groups(manifest)
    questions = []
    for pair in manifest.pairs:
        if not pair.get("shared"):
            continue
        missing = [pair[end] for end in ("a", "b") if pair[end] not in items]
        if missing:
            raise ConfigError(f"{manifest.folder}: a pair names {missing[0]!r}, which is no item")
        source, target = items[pair["a"]], items[pair["b"]]
        part = str(pair.get("part", target.group))
        turns = [item.extra.get("azimuth_bin") for item in (source, target)]
        known = None not in turns
        questions.append(
            Question(
                source,
                target,
                part,
                groups[part],
                places(source, groups[part].names),
                places(target, groups[part].names),
                azimuth_difference=_apart(turns[0], turns[1]) if known else None,
                mirror_gain=_apart(turns[0], turns[1]) - _apart(-turns[0], turns[1]) if known else None,
            )
        )
    return questions


def mirror_questions(questions: Iterable[Question], sizes: Mapping[str, tuple[int, int]]) -> list[Question]:
    """Each source picture and its own mirror image, in which left and right have changed places: the pose is known.

    Args:
        questions: whose sources to take, each once.
        sizes: height and width of the pictures by the id of their item.
    """
    made = {}
    for one in questions:
        mirrored = MIRROR.points(one.points, sizes[one.source.id])[one.groups.permutation]
        made[one.source.id] = Question(
            one.source, one.source, one.part, one.groups, one.points, mirrored, MIRROR, mirror_gain=1
        )
    return [one for one in made.values() if one.can_swap.any()]


def places(item: Item, names: Sequence[str]) -> np.ndarray:
    """``(K, 2)`` where an item shows keypoints; NaN where it does not."""
    known = item.extra.get("keypoints", {})
    return np.array([known.get(name, (np.nan, np.nan)) for name in names], float).reshape(-1, 2)


def _groups(manifest: Manifest) -> dict[str, KeypointGroups]:
    """Keypoints of each part: from the table beside a rendered set, else by partners as told and groups by name."""
    table = manifest.folder.parent / GROUPS_FILE
    if table.is_file():
        entries: dict[str, Any] = next(iter(json.loads(table.read_text("utf-8")).values()))
        return {part: groups_from_table(entry) for part, entry in entries.items()}
    names: dict[str, dict[str, None]] = {}
    for item in manifest.items:
        names.setdefault(str(item.group), {}).update(dict.fromkeys(item.extra.get("keypoints", {})))
    partners = manifest.extra.get("left_right_partners", {})
    return {part: _told(list(known), partners.get(part, ())) for part, known in names.items()}


def _told(names: Sequence[str], couples: Iterable[Sequence[str]]) -> KeypointGroups:
    annotated = [couple for couple in couples if set(couple) <= set(names)]
    return groups_from_couples(names, annotated, groups_from_names(names).parts)


def _apart(first: int, second: int) -> int:
    turn = abs(first - second) % AZIMUTH_BINS
    return min(turn, AZIMUTH_BINS - turn)


def _layout_gain(question: Question) -> float:
    """How much better the mirrored source, partners exchanged, fits the target than the source does; 0 if unknown."""
    partners = question.groups.permutation
    usable = question.shown & question.shown[partners] & question.found
    target = question.targets[usable]
    plain, mirrored = (
        _residual(source[usable], target)
        for source in (question.points, MIRROR.points(question.points, (0, 0))[partners])
    )
    return plain - mirrored


def _residual(source: np.ndarray, target: np.ndarray) -> float:
    """Share of the spread that the best scale and shift leave over, as a root; 0 of fewer than three points.

    Without a rotation: an animal seen from above is mirrored by no more than a turn, and descriptors notice turns.
    """
    if len(source) < 3:
        return 0.0
    first, second = (points - points.mean(0) for points in (source, target))
    spread = (first**2).sum() * (second**2).sum()
    return float(np.sqrt(1 - min(1.0, max(0.0, (first * second).sum()) ** 2 / spread))) if spread else 0.0
