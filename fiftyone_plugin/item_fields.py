"""Results of images as sample fields, or of objects as attributes of detections: read and written by id in batches."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from ..brain.errors import ConfigError

_WRITE_CHUNK = 5_000
_READ_CHUNK = 2_000


@dataclass(frozen=True)
class Place:
    """Where the results of a run stand.

    Attributes:
        patches_field: the Detections whose attributes they are; None for fields of the samples.
    """

    patches_field: str | None = None

    @property
    def things(self) -> str:
        """What the items are, for messages."""
        return "images" if self.patches_field is None else "objects"

    def path(self, name: str) -> str:
        """The path of a result in the dataset."""
        return name if self.patches_field is None else f"{self.patches_field}.detections.{name}"

    def check(self, samples: foc.SampleCollection) -> None:
        """Refuses a ``patches_field`` without detections.

        Raises:
            ConfigError: there is no such field, or it holds something else; those that would do are listed.
        """
        if self.patches_field is None:
            return
        there = list(samples._dataset.get_field_schema(embedded_doc_type=fo.Detections))
        if self.patches_field not in there:
            hint = f"fields with detections: {', '.join(there)}" if there else "the dataset has no detections"
            raise ConfigError(f"patches_field={self.patches_field!r} is no field with detections; {hint}")


@dataclass(frozen=True)
class Item:
    """One image or object; ``values`` as asked for, ``id`` is that of the sample or of the label."""

    id: str
    sample_id: str
    values: tuple[Any, ...]


def read_items(samples: foc.SampleCollection, place: Place, names: Sequence[str]) -> Generator[Item, None, None]:
    """All items of a view with some of their values, in the order of the view; vectors are as cheap as numbers.

    Args:
        samples: a dataset or flat view; labels that it filters out, and samples deleted meanwhile, are not read.
        names: names of sample fields, or of attributes of each detection; None stands where there is no such field.
    """
    known = [name for name in names if samples.get_field(place.path(name)) is not None]
    paths = [place.path(name) for name in ("id", *known)]
    spots = [known.index(name) + 1 if name in known else None for name in names]
    ids = samples.values("id")
    for start in range(0, len(ids), _READ_CHUNK):
        chunk = ids[start : start + _READ_CHUNK]
        part = fov.make_optimized_select_view(samples, chunk)
        found = {row[0]: row[1:] for row in zip(*part.values(["id", *paths]), strict=True)}
        for sample_id in chunk:
            columns = found.get(sample_id, ())
            rows = [columns] if place.patches_field is None else zip(*(column or () for column in columns), strict=True)
            for row in rows if columns else ():
                yield Item(row[0], sample_id, tuple(None if spot is None else row[spot] for spot in spots))


def write_items(dataset: fo.Dataset, place: Place, rows: Iterable[tuple[str, str, Mapping[str, Any]]]) -> None:
    """Sets values; items that are gone are ignored.

    Args:
        rows: item id, id of its sample, value by name. Objects of one image that follow each other are written at once,
            which saves rewriting the image's document, and its index entries, for each of them.
    """
    now, operations, ids = _now(), [], []
    for sample_id, group in groupby(rows, key=lambda row: row[1]):
        operations.append(_update(place, sample_id, list(group), now))
        ids.append(sample_id)
        if len(operations) == _WRITE_CHUNK:
            dataset._bulk_write(operations, ids=ids)
            operations, ids = [], []
    if operations:
        dataset._bulk_write(operations, ids=ids)


def fill_samples(dataset: fo.Dataset, sample_ids: Sequence[str], values: Mapping[str, Any]) -> None:
    """Sets the same values in the given samples."""
    update = {"$set": {**values, "last_modified_at": _now()}}
    for start in range(0, len(sample_ids), _WRITE_CHUNK):
        chunk = [ObjectId(sample_id) for sample_id in sample_ids[start : start + _WRITE_CHUNK]]
        dataset._bulk_write([UpdateMany({"_id": {"$in": chunk}}, update)])


def clear_items(dataset: fo.Dataset, place: Place, names: Sequence[str], marker: str) -> None:
    """Empties the values ``names`` of all items of the dataset; samples where ``marker`` is empty are not touched."""
    slots = names if place.patches_field is None else [f"{place.patches_field}.detections.$[].{name}" for name in names]
    update = {"$set": {**dict.fromkeys(slots), "last_modified_at": _now()}}
    dataset._bulk_write([UpdateMany({place.path(marker): {"$ne": None}}, update)])


def _update(
    place: Place, sample_id: str, rows: Sequence[tuple[str, str, Mapping[str, Any]]], now: datetime
) -> UpdateOne:
    query = {"_id": ObjectId(sample_id)}
    if place.patches_field is None:
        values = {name: value for _, _, own in rows for name, value in own.items()}
        return UpdateOne(query, {"$set": {**values, "last_modified_at": now}})
    labels: dict[str, Any] = {}
    chosen = []
    for number, (item_id, _, own) in enumerate(rows):
        labels |= {f"{place.patches_field}.detections.$[n{number}].{name}": value for name, value in own.items()}
        chosen.append({f"n{number}._id": ObjectId(item_id)})
    return UpdateOne(query, {"$set": {**labels, "last_modified_at": now}}, array_filters=chosen)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)
