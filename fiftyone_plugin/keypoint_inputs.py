"""Keypoints of the user's own: read from a field of a dataset, named by its skeleton, with their mirror partners.

A field holds ``Keypoints`` or one ``Keypoint`` per image, in either of two forms: one object whose points stand in the
order of the skeleton, NaN where a point cannot be seen; or one object per point, whose label is the point's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.correspondence.keypoint_groups import (
    KeypointGroups,
    groups_from_couples,
    groups_from_names,
    parse_couples,
)
from ..brain.errors import ConfigError
from .provenance import value_stamp


@dataclass(frozen=True, eq=False)
class ImageKeypoints:
    """The keypoints of one image.

    Attributes:
        places: ``(x, y)`` relative to the image by name; points that cannot be seen are left out.
        names: all names, in their order, those of unseen points among them.
        category: what the object is; None where the label names the point instead, or nothing.
    """

    places: Mapping[str, tuple[float, float]]
    names: tuple[str, ...]
    category: str | None = None


@dataclass(frozen=True, eq=False)
class PairKeypoints:
    """The K keypoint slots of a pair.

    Attributes:
        source, target: ``(K, 2)`` float64 relative to their images; NaN where a point is not annotated.
        groups: names, mirror partners and part groups of the slots.
        category: of the object in the source; empty where it is not known.
        annotated: whether the target has keypoints at all, so that matches can be judged.
    """

    source: np.ndarray
    target: np.ndarray
    groups: KeypointGroups
    category: str
    annotated: bool


class KeypointsInput:
    """Reads the keypoints of a field.

    Args:
        samples: a flat collection that has the field.
        field: of ``Keypoints`` or ``Keypoint`` labels.
        couples: names of mirror partners, in pairs or as text (``left ear = right ear; ...``); None finds them in the
            names of the keypoints.
        skeletons_of: datasets whose skeletons are asked for names, the first that has one for the field counting; the
            samples' own dataset is asked first.

    Raises:
        ConfigError: there is no such field, it holds something else, or a couple names no keypoint of the skeleton.
    """

    def __init__(
        self,
        samples: foc.SampleCollection,
        field: str,
        couples: Sequence[Sequence[str]] | str | None = None,
        skeletons_of: Sequence[fo.Dataset] = (),
    ) -> None:
        self.field = field
        document = getattr(samples.get_field(field), "document_type", None)
        if document not in (fo.Keypoints, fo.Keypoint):
            there = samples.get_field_schema(embedded_doc_type=(fo.Keypoints, fo.Keypoint))
            hint = f"fields with keypoints: {', '.join(there)}" if there else "the dataset has none with keypoints"
            raise ConfigError(
                f"keypoints={field!r} is no field with keypoints of dataset {samples._dataset.name!r}; {hint} "
                "(create_pairs copies those that its option fields names)"
            )
        self._single = document is fo.Keypoint
        root = field if self._single else f"{field}.keypoints"
        self.paths = [f"{root}.label", f"{root}.points"]
        self.skeleton = _skeleton([samples._dataset, *skeletons_of], field)
        self.couples = _couples(couples)
        if self.skeleton and self.couples:
            groups_from_couples(self.skeleton, self.couples)
        self._groups = lru_cache(maxsize=1000)(self._make_groups)

    def read(self, values: Mapping[str, Any]) -> ImageKeypoints | None:
        """The keypoints of one image, given the values at :attr:`paths`; None where it has none.

        Raises:
            ConfigError: the keypoints cannot be told apart, or do not fit the skeleton.
        """
        labels, points = (values[path] for path in self.paths)
        if self._single:
            labels, points = [labels], [points]
        objects = [(label, some) for label, some in zip(labels or [], points or [], strict=True) if some]
        if not objects:
            return None
        if all(label and len(some) == 1 for label, some in objects):
            return self._by_label([(label, some[0]) for label, some in objects])
        if len(objects) > 1:
            raise ConfigError(
                f"{self.field}: {len(objects)} objects with keypoints in one image; keep one of them, or make pairs of "
                "pictures of one object each"
            )
        return self._by_order(*objects[0])

    def stamp(self, values: Mapping[str, Any]) -> str:
        """Hash of all that :meth:`read` and :meth:`pair` depend on."""
        return value_stamp([[values[path] for path in self.paths], self.skeleton or (), self.couples or ()])

    def pair(self, source: ImageKeypoints, target: ImageKeypoints | None) -> PairKeypoints:
        """The slots of a pair: the skeleton's where there is one, else all names of both images.

        Raises:
            ConfigError: a name cannot be used.
        """
        theirs = () if target is None else target.names
        names = self.skeleton or tuple(dict.fromkeys([*source.names, *theirs]))
        return PairKeypoints(
            _placed(source.places, names),
            _placed({} if target is None else target.places, names),
            self._groups(names),
            source.category or "",
            bool(target is not None and target.places),
        )

    def _by_label(self, objects: Sequence[tuple[str, Any]]) -> ImageKeypoints:
        names = [label for label, _ in objects]
        twice = [name for index, name in enumerate(names) if name in names[:index]]
        if twice:
            raise ConfigError(f"{self.field}: the keypoint {twice[0]!r} stands twice in one image; delete one of them")
        unknown = [name for name in names if self.skeleton and name not in self.skeleton]
        if unknown:
            raise ConfigError(f"{self.field}: the skeleton has no keypoint {unknown[0]!r}; correct the label")
        return ImageKeypoints(_seen(names, [point for _, point in objects]), tuple(names))

    def _by_order(self, label: str | None, points: Sequence[Any]) -> ImageKeypoints:
        names = self.skeleton or tuple(str(slot) for slot in range(len(points)))
        if len(names) != len(points):
            raise ConfigError(
                f"{self.field}: {len(points)} points, but its skeleton names {len(names)}; use NaN for unseen points"
            )
        return ImageKeypoints(_seen(names, points), names, label)

    def _make_groups(self, names: tuple[str, ...]) -> KeypointGroups:
        read = groups_from_names(names)
        if self.couples is None:
            return read
        couples = [couple for couple in self.couples if all(name in names for name in couple)]
        parts = list(read.parts)
        grouped = {name for part in parts for name in part}
        parts += [couple for couple in couples if not grouped & set(couple)]
        return groups_from_couples(names, couples, parts)


def _couples(given: Sequence[Sequence[str]] | str | None) -> tuple[tuple[str, str], ...] | None:
    """Couples as pairs of names.

    Raises:
        ConfigError: a couple does not have two names.
    """
    if given is None:
        return None
    pairs = parse_couples(given) if isinstance(given, str) else [tuple(couple) for couple in given]
    wrong = [pair for pair in pairs if len(pair) != 2 or not all(isinstance(name, str) for name in pair)]
    if wrong:
        raise ConfigError(f"couples: {wrong[0]!r} is no couple; give two names, such as ('left ear', 'right ear')")
    return tuple((first, second) for first, second in pairs)


def _skeleton(datasets: Sequence[fo.Dataset], field: str) -> tuple[str, ...] | None:
    """The labels of the skeleton for a field, or of the default one."""
    for dataset in datasets:
        found = dataset.skeletons.get(field) or dataset.default_skeleton
        if found is not None and found.labels:
            return tuple(found.labels)
    return None


def _seen(names: Sequence[str], points: Sequence[Any]) -> dict[str, tuple[float, float]]:
    places = {}
    for name, point in zip(names, points, strict=True):
        x, y = (np.nan if value is None else float(value) for value in point or (None, None))
        if np.isfinite(x) and np.isfinite(y):
            places[name] = (x, y)
    return places


def _placed(places: Mapping[str, tuple[float, float]], names: Sequence[str]) -> np.ndarray:
    missing = (np.nan, np.nan)
    return np.array([places.get(name, missing) for name in names], np.float64).reshape(-1, 2)
