"""How duplicate groups are stored: the fields of a key, its run record, and the pairs that the record keeps."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np
from bson import ObjectId
from pymongo import UpdateMany

from ..brain.errors import ConfigError
from ..brain.grouping import UNGROUPED, Groups
from ..brain.same_shot import EXACT, NEAR, SAME_OBJECT
from .dataset_io import FieldSpec, check_field_name, declare_fields, readable_and_internal, show_in_sidebar
from .group_table import DUPLICATE_METHODS, group_fields, run_place
from .item_fields import Place, clear_items, write_items
from .runs import RunSummary, check_run_key, list_records, load_record, load_results
from .stored_pairs import StoredPairs

METHODS = DUPLICATE_METHODS

# The computation by which find_duplicates measures the members of groups; it has a run record of its own.
MEASURING = "measure_images"

KEEPER, DUPLICATE, UNIQUE = "keeper", "duplicate", "unique"

# Groups whose pictures are not equal and were not looked at any closer.
SIMILAR = "similar"
GROUP_KINDS = (EXACT, NEAR, SAME_OBJECT, SIMILAR)

_CHUNK, _LABEL_CHUNK = 10_000, 2_000

_IMAGES = Place()


@dataclass(frozen=True)
class DuplicateFields:
    """The fields that belong to a key: of the samples, or attributes of the objects that were compared.

    Every field has an attribute that is its path: ``DuplicateFields("dup").role`` is ``"dup_role"``.
    """

    key: str
    place: Place = field(default_factory=Place)

    def __getattr__(self, name: str) -> str:
        if name not in _DESCRIPTIONS:
            raise AttributeError(name)
        return self.place.path(self.name(name))

    def name(self, name: str) -> str:
        """The name of a field, without the label field that it may be an attribute of."""
        return f"{self.key}_{name}"

    @property
    def shown(self) -> dict[str, FieldSpec]:
        """The fields that hold a result, by path."""
        return {path: spec for name in _SHOWN for path, spec in self.spec(name).items()}

    @property
    def results(self) -> list[str]:
        """The names of the fields that a run writes; decisions of reviewers are not among them."""
        return [self.name(name) for name in _SHOWN if name != "decision"]

    def spec(self, name: str) -> dict[str, FieldSpec]:
        """The specification of one field, by path."""
        return {getattr(self, name): FieldSpec(*_DESCRIPTIONS[name], internal=name in _INTERNAL)}

    def of_samples(self) -> "DuplicateFields":
        """The fields of that key that samples have, whatever was compared."""
        return DuplicateFields(self.key)


_DESCRIPTIONS: dict[str, tuple[type, str]] = {
    "group": (fo.IntField, "Number of the duplicate group; 0 is the largest. Empty outside groups"),
    "size": (fo.IntField, "Members of the duplicate group; 1 outside groups"),
    "role": (fo.StringField, "keeper (the best of its group, or one of them), duplicate, or unique"),
    "of": (fo.StringField, "Id of the keeper that this is a duplicate of; empty for all but duplicates"),
    "similarity": (fo.FloatField, "Raw cosine to the keeper; 1 for the keeper itself and for exact copies"),
    "kind": (
        fo.StringField,
        "exact: all pictures of the group are identical; near: they are one shot; same_object: they are several shots; "
        "similar: they are not identical, and were not looked at any closer",
    ),
    "shot": (fo.IntField, "Number of the shot within the group; 0 has the most pictures"),
    "risk": (fo.FloatField, "How doubtful the group is, from 0 to 1: weak links, chains, several shots"),
    "quality": (fo.FloatField, "Keeper score; the highest of the group is kept"),
    "decision": (fo.StringField, "What a reviewer decided: keep, drop or reject"),
    "error": (fo.StringField, "Why this one could not be compared or measured"),
    "digest": (fo.StringField, "Digest by which exact copies are recognised"),
    "measures": (fo.DictField, "Resolution, sharpness, exposure and file size that the keeper score is made of"),
    "provenance": (fo.StringField, "Hash of the file and settings behind digest and measures; lets a re-run skip them"),
}
_SHOWN = ("group", "size", "role", "of", "similarity", "kind", "shot", "risk", "quality", "decision", "error")

# The reasons of failures join the readable fields once there are any.
_INTERNAL = ("error", "digest", "measures", "provenance")


@dataclass(frozen=True)
class Outcome:
    """What a search found, ready to be written.

    Attributes:
        ids: what was compared; ``groups``, ``shots`` and ``quality`` have a row for each.
        groups: their groups and roles.
        kinds: one of :data:`GROUP_KINDS` for each group.
        shots: number of the shot within the group; -1 outside groups and where shots were not told apart.
        risk: of each group, in [0, 1].
        quality: keeper score; minus infinity where the picture was not measured.
        failed: reason by id of those that could not be compared or measured.
        homes: sample by id of objects; empty for images.
    """

    ids: Sequence[str]
    groups: Groups
    kinds: Sequence[str]
    shots: np.ndarray
    risk: np.ndarray
    quality: np.ndarray
    failed: Mapping[str, str]
    homes: Mapping[str, str] = field(default_factory=dict)

    def home(self, item_id: str) -> str:
        """The sample of an image or object."""
        return self.homes.get(item_id, item_id)


def check_key(samples: foc.SampleCollection, key: str, method: str, place: Place = _IMAGES) -> None:
    """Refuses a key that is no name, or whose run or fields belong to somebody else.

    Raises:
        ConfigError: see above.
    """
    if not isinstance(key, str):
        raise ConfigError(f"key={key!r} must be a name such as 'dup'")
    check_field_name(samples, key, "key")
    check_run_key(samples, key, method)
    names = DuplicateFields(key, place)
    for path in (getattr(names, name) for name in _DESCRIPTIONS):
        existing = samples._dataset.get_field(path)
        if existing is not None and (existing.info or {}).get("method") not in (method, MEASURING):
            raise ConfigError(
                f"field {path!r} of dataset {samples._dataset.name!r} was not made by {method} and would be "
                "overwritten; choose another key"
            )


def nothing_to_compare(method: str) -> RunSummary:
    """The summary of a run on an empty view, which leaves no record."""
    return RunSummary(None, method, {"total": 0}, notices=["the view has no samples, so there is nothing to compare"])


def declare_groups(samples: foc.SampleCollection, key: str, info: Mapping[str, Any], place: Place = _IMAGES) -> None:
    """Declares the fields of a key, with provenance, puts them in the sidebar and indexes them for the views."""
    names, dataset = DuplicateFields(key, place), samples._dataset
    declare_fields(samples, names.shown, dict(info))
    show_in_sidebar(samples, *readable_and_internal(names.shown))
    for path in (names.group, names.role, names.size):
        dataset.create_index(path)
    shape = group_fields({"key": key, "method": info["method"], "config": {"patches_field": place.patches_field}})
    # One for the table of all groups, one for the order in which they are shown: sorting a large dataset without it
    # would hit the database's memory limit.
    dataset.create_index(shape.table_index)
    dataset.create_index(shape.order)


def write_outcome(
    samples: foc.SampleCollection, key: str, outcome: Outcome, *, place: Place = _IMAGES, replace_all: bool = True
) -> None:
    """Writes groups and roles, one update per member of a group with all fields at once.

    Args:
        outcome: what to write.
        place: where it goes.
        replace_all: whatever took no part loses what an earlier run of the same key wrote, because its group numbers
            mean nothing now; samples without such values are not touched. False leaves all others as they are.
    """
    names, dataset = DuplicateFields(key, place), samples._dataset
    if replace_all:
        for marker in ("role", "error"):
            clear_items(dataset, place, names.results, names.name(marker))
    outside = np.flatnonzero(outcome.groups.group == UNGROUPED) if replace_all else range(len(outcome.ids))
    unique = {**dict.fromkeys(names.results), names.name("role"): UNIQUE, names.name("size"): 1}
    _write_equal(dataset, place, [outcome.ids[row] for row in outside], outcome, unique)
    write_items(dataset, place, _member_rows(names, outcome))
    errors = [(item, outcome.home(item), {names.name("error"): text}) for item, text in outcome.failed.items()]
    write_items(dataset, place, errors)
    if errors and place.patches_field is None:
        show_in_sidebar(samples, [names.error])


def _member_rows(names: DuplicateFields, outcome: Outcome) -> Iterator[tuple[str, str, dict[str, Any]]]:
    groups = outcome.groups
    for row in np.flatnonzero(groups.group != UNGROUPED):
        group, item_id = int(groups.group[row]), outcome.ids[row]
        shot, quality = int(outcome.shots[row]), float(outcome.quality[row])
        values = {
            "group": group,
            "size": int(groups.size[row]),
            "role": str(groups.role[row]),
            "of": outcome.ids[groups.of[row]] if groups.role[row] == DUPLICATE else None,
            "similarity": float(groups.similarity[row]),
            "kind": outcome.kinds[group],
            "shot": None if shot == UNGROUPED else shot,
            "risk": float(outcome.risk[group]),
            "quality": quality if np.isfinite(quality) else None,
        }
        yield item_id, outcome.home(item_id), {names.name(name): value for name, value in values.items()}


def clear_other_place(samples: foc.SampleCollection, key: str, place: Place) -> None:
    """Clears what an earlier run of the same key wrote elsewhere: about images, if this one is about objects ..."""
    record = load_record(samples, key)
    if record is not None and record["method"] == "find_duplicates" and run_place(record) != place:
        names = DuplicateFields(key, run_place(record))
        for marker in ("role", "error"):
            clear_items(samples._dataset, names.place, names.results, names.name(marker))


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


def save_scores(samples: foc.SampleCollection, key: str, stored: StoredPairs) -> None:
    """Keeps what was learnt about the pairs of a run since it was stored; what it compared stays."""
    results = load_results(samples, key)
    if results is not None:
        data = {**results, **stored.to_results()}
        samples.save_run_results(key, samples.init_run_results(key, data=data), cache=False)
        _cached_pairs.cache_clear()


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


def _write_equal(
    dataset: fo.Dataset, place: Place, ids: Sequence[str], outcome: Outcome, values: Mapping[str, Any]
) -> None:
    """Sets the same values in many images or objects."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    size = _CHUNK if place.patches_field is None else _LABEL_CHUNK
    for start in range(0, len(ids), size):
        chunk = ids[start : start + size]
        where = {"_id": {"$in": [ObjectId(item_id) for item_id in {outcome.home(item_id) for item_id in chunk}]}}
        if place.patches_field is None:
            update = UpdateMany(where, {"$set": {**values, "last_modified_at": now}})
        else:
            slots = {f"{place.patches_field}.detections.$[one].{name}": value for name, value in values.items()}
            chosen = [{"one._id": {"$in": [ObjectId(item_id) for item_id in chunk]}}]
            update = UpdateMany(where, {"$set": {**slots, "last_modified_at": now}}, array_filters=chosen)
        dataset._bulk_write([update])
