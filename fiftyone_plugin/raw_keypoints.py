"""Labels with keypoints as the database has them, bit for bit: names, places, and two of them exchanged.

A label is a ``Keypoints`` or ``Keypoint`` in one of the forms that :mod:`.keypoint_inputs` reads; None stands for no
label.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import bson
import numpy as np

from .keypoint_inputs import KeypointsInput

RawLabel = Mapping[str, Any] | None


def reader_values(value: RawLabel, reader: KeypointsInput) -> dict[str, Any]:
    """A label as the reader takes it."""
    if value is None:
        return dict.fromkeys(reader.paths)
    single, objects = "points" in value, _objects(value)
    columns = [[one.get(name) for one in objects] for name in ("label", "points")]
    return dict(zip(reader.paths, [column[0] for column in columns] if single else columns, strict=True))


def seen_names(value: RawLabel, names: Sequence[str]) -> set[str]:
    """Names of the points that can be seen."""
    objects = [one for one in _objects(value) if one.get("points")]
    if _by_label(objects):
        return {one["label"] for one in objects if _is_place(one["points"][0])}
    return {name for name, point in zip(names, objects[0]["points"], strict=False) if _is_place(point)}


def _is_place(point: Any) -> bool:
    return all(value is not None and np.isfinite(value) for value in point or (None,))


def _by_label(objects: Sequence[Mapping[str, Any]]) -> bool:
    """Whether each object is one point and its label the name of it, see :mod:`.keypoint_inputs`."""
    return all(one.get("label") and len(one["points"]) == 1 for one in objects)


def exchanged(value: RawLabel, chosen: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, Any] | None:
    """A label with some couples exchanged."""
    changed = copy.deepcopy(value)
    objects = [one for one in _objects(changed) if one.get("points")]
    if _by_label(objects):
        # A place keeps its object, and gets the name of the other side.
        renamed = {name: other for a, b in chosen for name, other in ((a, b), (b, a))}
        for one in objects:
            one["label"] = renamed.get(one["label"], one["label"])
    else:
        for a, b in chosen:
            _swap(objects[0], names.index(a), names.index(b))
    return changed


def _swap(one: dict[str, Any], i: int, j: int) -> None:
    """Exchanges two points of an object with all that is said of them: whatever has a value per point."""
    size = len(one["points"])
    for name, values in one.items():
        if name != "tags" and isinstance(values, list) and len(values) == size:
            values[i], values[j] = values[j], values[i]


def places_stamp(value: RawLabel) -> bytes:
    """What must be the same wherever the label stands: names and places."""
    return packed([[one.get("label"), one.get("points")] for one in _objects(value)])


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a ``Keypoints`` or ``Keypoint`` label."""
    if value is None:
        return []
    return [value] if "points" in value else list(value.get("keypoints") or ())


def packed(value: Any) -> bytes:
    """A value of the database to be compared bit by bit; unlike itself, NaN then equals NaN."""
    return bson.encode({"value": value})
