"""How duplicate groups are stored: the fields of a key, its run record, and the pairs that the record keeps."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np
from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from ..brain.errors import ConfigError
from ..brain.grouping import UNGROUPED, Groups
from ..brain.neighbors import Pairs
from .dataset_io import FieldSpec, check_field_name, declare_fields, readable_and_internal, show_in_sidebar
from .runs import RunSummary, check_run_key, list_records, load_record, load_results

METHODS = ("find_exact_duplicates", "find_duplicates")

# The computation by which find_duplicates measures the members of groups; it has a run record of its own.
MEASURING = "measure_images"

KEEPER, DUPLICATE, UNIQUE = "keeper", "duplicate", "unique"
EXACT, SIMILAR = "exact", "similar"

_ID_BYTES = 12
_CHUNK = 10_000


@dataclass(frozen=True)
class DuplicateFields:
    """The names of the fields that belong to a key."""

    key: str

    def __getattr__(self, name: str) -> str:
        if name not in _DESCRIPTIONS:
            raise AttributeError(name)
        return f"{self.key}_{name}"

    @property
    def shown(self) -> dict[str, FieldSpec]:
        """The fields that hold a result, by path."""
        return {path: spec for name in _SHOWN for path, spec in self.spec(name).items()}

    def spec(self, name: str) -> dict[str, FieldSpec]:
        """The specification of one field, by path."""
        return {f"{self.key}_{name}": FieldSpec(*_DESCRIPTIONS[name], internal=name in _INTERNAL)}


_DESCRIPTIONS: dict[str, tuple[type, str]] = {
    "group": (fo.IntField, "Number of the duplicate group; 0 is the largest. Empty outside groups"),
    "size": (fo.IntField, "Images in the duplicate group; 1 outside groups"),
    "role": (fo.StringField, "keeper (best image of its group), duplicate, or unique"),
    "of": (fo.StringField, "Id of the keeper that this image is a duplicate of; empty for all but duplicates"),
    "similarity": (fo.FloatField, "Raw cosine to the keeper; 1 for the keeper itself and for exact copies"),
    "kind": (fo.StringField, "exact: all images of the group are identical; similar: they are not"),
    "quality": (
        fo.FloatField,
        "Keeper score of resolution, sharpness, exposure and file size; the highest is kept",
    ),
    "error": (fo.StringField, "Why this sample could not be compared or measured"),
    "digest": (fo.StringField, "Digest by which exact copies are recognised"),
    "measures": (fo.DictField, "Resolution, sharpness, exposure and file size that the keeper score is made of"),
    "provenance": (fo.StringField, "Hash of the file and settings behind digest and measures; lets a re-run skip them"),
}
_SHOWN = ("group", "size", "role", "of", "similarity", "kind", "quality", "error")

# The reasons of failures join the readable fields once there are any.
_INTERNAL = ("error", "digest", "measures", "provenance")


@dataclass(frozen=True)
class StoredPairs:
    """The pairs of a run, over the samples that are in any pair.

    Attributes:
        ids: sample id of each row that ``pairs`` refers to.
        pairs: all pairs down to ``pairs.threshold``.
    """

    ids: list[str]
    pairs: Pairs

    def to_results(self) -> dict[str, str]:
        """JSON-able form for the results of a run."""
        ids = b"".join(ObjectId(sample_id).binary for sample_id in self.ids)
        return {"ids": base64.b64encode(ids).decode(), "pairs": base64.b64encode(self.pairs.to_bytes()).decode()}

    @classmethod
    def from_results(cls, data: Mapping[str, str]) -> "StoredPairs":
        """The inverse of :meth:`to_results`."""
        raw = base64.b64decode(data["ids"])
        ids = [raw[start : start + _ID_BYTES].hex() for start in range(0, len(raw), _ID_BYTES)]
        return cls(ids, Pairs.from_bytes(base64.b64decode(data["pairs"])))

    @classmethod
    def compact(cls, ids: Sequence[str], pairs: Pairs) -> tuple["StoredPairs", np.ndarray]:
        """Drops samples without any pair; also returns the rows that are left."""
        rows, renumbered = np.unique(np.concatenate([pairs.i, pairs.j]), return_inverse=True)
        i, j = renumbered.astype(np.int32).reshape(2, -1)
        return cls([ids[row] for row in rows], Pairs(i, j, pairs.similarity, pairs.threshold)), rows


@dataclass(frozen=True)
class Outcome:
    """What a search found, ready to be written.

    Attributes:
        ids: the samples that were compared; ``groups``, ``kinds`` and ``quality`` have a row for each.
        groups: their groups and roles.
        kinds: ``"exact"``, ``"similar"`` or None (outside groups).
        quality: keeper score; minus infinity where the file was not measured.
        failed: reason by id of samples that could not be compared or measured.
    """

    ids: Sequence[str]
    groups: Groups
    kinds: Sequence[str | None]
    quality: np.ndarray
    failed: Mapping[str, str]


def check_key(samples: foc.SampleCollection, key: str, method: str) -> None:
    """Refuses a key that is no name, or whose run or fields belong to somebody else.

    Raises:
        ConfigError: see above.
    """
    if not isinstance(key, str):
        raise ConfigError(f"key={key!r} must be a name such as 'dup'")
    check_field_name(samples, key, "key")
    check_run_key(samples, key, method)
    for name in _DESCRIPTIONS:
        field = samples._dataset.get_field(f"{key}_{name}")
        if field is not None and (field.info or {}).get("method") not in (method, MEASURING):
            raise ConfigError(
                f"field {field.name!r} of dataset {samples._dataset.name!r} was not made by {method} and would be "
                "overwritten; choose another key"
            )


def nothing_to_compare(method: str) -> RunSummary:
    """The summary of a run on an empty view, which leaves no record."""
    return RunSummary(None, method, {"total": 0}, notices=["the view has no samples, so there is nothing to compare"])


def declare_groups(samples: foc.SampleCollection, key: str, info: Mapping[str, Any]) -> None:
    """Declares the fields of a key, with provenance, puts them in the sidebar and indexes them for the views."""
    names = DuplicateFields(key)
    declare_fields(samples, names.shown, dict(info))
    show_in_sidebar(samples, *readable_and_internal(names.shown))
    dataset = samples._dataset
    for field in (names.group, names.role, names.size):
        dataset.create_index(field)
    # The order in which groups are shown; without it, sorting a large dataset would hit the database's memory limit.
    dataset.create_index([(names.group, 1), (names.role, -1), (names.similarity, -1)])


def write_outcome(samples: foc.SampleCollection, key: str, outcome: Outcome, *, replace_all: bool = True) -> None:
    """Writes groups and roles, one update per sample with all fields at once.

    Args:
        outcome: what to write.
        replace_all: samples that took no part lose what an earlier run of the same key wrote, because its group numbers
            mean nothing now; samples without such values are not touched. False leaves all others as they are.
    """
    names, dataset = DuplicateFields(key), samples._dataset
    groups = outcome.groups
    blank = dict.fromkeys(names.shown)
    if replace_all:
        touched = {"$or": [{names.role: {"$ne": None}}, {names.error: {"$ne": None}}]}
        dataset._bulk_write([UpdateMany(touched, {"$set": {**blank, "last_modified_at": _now()}})])
    rows = np.flatnonzero(groups.group == UNGROUPED) if replace_all else range(len(outcome.ids))
    _update_many(dataset, [outcome.ids[row] for row in rows], {**blank, names.role: UNIQUE, names.size: 1})
    values = {
        outcome.ids[row]: {
            names.group: int(groups.group[row]),
            names.size: int(groups.size[row]),
            names.role: str(groups.role[row]),
            names.of: outcome.ids[groups.of[row]] if groups.role[row] == DUPLICATE else None,
            names.similarity: float(groups.similarity[row]),
            names.kind: outcome.kinds[row],
            names.quality: float(outcome.quality[row]) if np.isfinite(outcome.quality[row]) else None,
        }
        for row in np.flatnonzero(groups.group != UNGROUPED)
    }
    for sample_id, reason in outcome.failed.items():
        values.setdefault(sample_id, {})[names.error] = reason
    _update_each(dataset, values)
    if outcome.failed:
        show_in_sidebar(samples, [names.error])


def group_counts(groups: Groups) -> dict[str, int]:
    """``groups``, ``duplicates`` (members that are not keepers) and ``largest`` group, for summaries and forms."""
    grouped = groups.group != UNGROUPED
    return {
        "groups": int(groups.group.max(initial=UNGROUPED)) + 1,
        "duplicates": int((groups.role == DUPLICATE).sum()),
        "largest": int(groups.size[grouped].max(initial=0)),
    }


def list_keys(samples: foc.SampleCollection, *, method: str | None = None) -> list[str]:
    """Keys that hold duplicate groups, the latest run last; optionally of one of :data:`METHODS`."""
    records = [record for record in list_records(samples) if record["method"] in METHODS]
    return [record["key"] for record in records if method in (None, record["method"])]


def find_record(samples: foc.SampleCollection, key: str) -> dict[str, Any]:
    """The run record of a complete duplicate search.

    Raises:
        ConfigError: there is none under this key (the message lists those that exist), or it did not complete.
    """
    if not isinstance(samples, foc.SampleCollection):
        raise ConfigError(f"samples must be a FiftyOne dataset or view, not {type(samples).__name__}")
    record = load_record(samples, key) if isinstance(key, str) else None
    if record is None or record["method"] not in METHODS:
        existing = list_keys(samples)
        hint = f"there are {', '.join(map(repr, existing))}" if existing else "run find_duplicates first"
        raise ConfigError(f"dataset {samples._dataset.name!r} has no duplicate groups under key {key!r}; {hint}")
    if record["status"] != "completed":
        raise ConfigError(f"the run of {record['method']} with key {key!r} did not complete; run it again")
    return record


def load_pairs(samples: foc.SampleCollection, record: Mapping[str, Any]) -> StoredPairs:
    """The pairs that a run of ``find_duplicates`` kept.

    Raises:
        ConfigError: the run keeps none because it found exact duplicates, or they were deleted.
    """
    key = record["key"]
    if record["method"] != "find_duplicates":
        raise ConfigError(f"key {key!r} holds exact duplicates, which have no threshold; use a key of find_duplicates")
    return _cached_pairs(_DatasetHandle(samples._dataset), key, str(record["timestamp"]))


class _DatasetHandle:
    """Lets a dataset be part of a cache key: equal for the same dataset in the database."""

    def __init__(self, dataset: fo.Dataset) -> None:
        self.dataset = dataset
        self._id = str(dataset._doc.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _DatasetHandle) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)


@lru_cache(maxsize=2)
def _cached_pairs(handle: _DatasetHandle, key: str, timestamp: str) -> StoredPairs:
    """Forms ask at every keystroke; the timestamp makes a new run a new entry."""
    results = load_results(handle.dataset, key)
    if results is None:
        raise ConfigError(f"run {key!r} has lost its pairs; run find_duplicates again")
    return StoredPairs.from_results(results)


def update_record(samples: foc.SampleCollection, key: str, **changes: Any) -> None:
    """Changes entries of a run record in place, if there is one; its results stay."""
    if load_record(samples, key) is None:
        return
    dataset = samples._dataset
    config = dataset.get_run_info(key).config
    for name, value in changes.items():
        setattr(config, name, value)
    dataset.update_run_config(key, config)


def _update_many(dataset: fo.Dataset, ids: Sequence[str], values: Mapping[str, Any]) -> None:
    """Sets the same values in the given samples."""
    update = {"$set": {**values, "last_modified_at": _now()}}
    for start in range(0, len(ids), _CHUNK):
        chunk = [ObjectId(sample_id) for sample_id in ids[start : start + _CHUNK]]
        dataset._bulk_write([UpdateMany({"_id": {"$in": chunk}}, update)])


def _update_each(dataset: fo.Dataset, values: Mapping[str, Mapping[str, Any]]) -> None:
    now = _now()
    operations = [
        UpdateOne({"_id": ObjectId(sample_id)}, {"$set": {**fields, "last_modified_at": now}})
        for sample_id, fields in values.items()
    ]
    for start in range(0, len(operations), _CHUNK):
        dataset._bulk_write(operations[start : start + _CHUNK])


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(tzinfo=None)
