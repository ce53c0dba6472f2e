"""The members of reviewed groups, images or objects: read by group or id, and changed in batches of equal changes."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
from bson import ObjectId
from pymongo import UpdateMany

from ..brain.errors import ConfigError
from .dataset_io import FieldSpec, declare_fields, show_in_sidebar
from .decision_log import Change
from .group_table import CLUSTER_METHOD, find_group_record, run_place
from .item_fields import Place

KEEP, DROP, REJECT = "duplicate:keep", "duplicate:drop", "duplicate:reject"

# Decision → its tag.
TAGS: dict[str, str] = {"keep": KEEP, "drop": DROP, "reject": REJECT}

# What a decision may read and change of a member, besides its tags.
_RESULTS = ("group", "size", "role", "of", "similarity", "kind", "shot", "risk", "quality", "digest")
_CLUSTER_RESULTS = ("confidence", "outlier", "category", "name")
_NAMES = (*_RESULTS, *_CLUSTER_RESULTS, "decision", "tagged")

_OWN_FIELDS = {
    "decision": FieldSpec(fo.StringField, "What a reviewer decided: keep, drop or reject"),
    "tagged": FieldSpec(
        fo.StringField, "Which of its tags a decision gave; any other was given by hand", internal=True
    ),
    "name": FieldSpec(fo.StringField, "Name that a reviewer gave to the group"),
}

_WRITE_CHUNK, _LABEL_CHUNK = 10_000, 500


@dataclass(frozen=True)
class Member:
    """One image or object as it is now.

    Attributes:
        id: id of the sample, or of the label.
        sample_id: id of the sample.
        tags: its tags.
        values: what the run and earlier decisions say of it: ``group``, ``role``, ``decision`` ...; None where empty.
        ours: field name → tag, for tags that decisions on any key gave it.
    """

    id: str
    sample_id: str
    tags: tuple[str, ...]
    values: Mapping[str, Any]
    ours: Mapping[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name)


@dataclass(frozen=True)
class ReviewedRun:
    """A run with groups, of images or of objects, and where its fields are."""

    dataset: fo.Dataset
    record: Mapping[str, Any]
    place: Place

    @property
    def key(self) -> str:
        return self.record["key"]

    @property
    def time(self) -> str:
        """Which run the group numbers belong to; to milliseconds, which is what the database keeps."""
        return self.record["timestamp"].replace(tzinfo=None).isoformat(timespec="milliseconds")

    def name(self, short: str) -> str:
        """The name of a field of the run: ``dup_role``; that of the group's number may be ``objects_cluster``."""
        if short == "group" and self.record["method"] == CLUSTER_METHOD:
            short = "cluster"
        return f"{self.key}_{short}"

    def path(self, short: str) -> str:
        """Where that field is in the dataset."""
        return self.place.path(self.name(short))

    def has(self, short: str) -> bool:
        """Whether the dataset has that field."""
        return self.dataset.get_field(self.path(short)) is not None

    @cached_property
    def names(self) -> dict[str, str]:
        """Short name → name, of the fields that are there."""
        return {short: self.name(short) for short in _NAMES if self.has(short)}

    @cached_property
    def tagged_names(self) -> list[str]:
        """The fields in which the decisions on any key say which tags they gave."""
        names = [f"{key}_tagged" for key in self.dataset.list_runs()]
        return [name for name in names if self.dataset.get_field(self.place.path(name)) is not None]

    def declare(self, *shorts: str) -> None:
        """Makes sure that the fields of decisions exist and are indexed."""
        missing = [short for short in shorts if not self.has(short)]
        if missing:
            info = {"method": self.record["method"], "run": self.key}
            declare_fields(self.dataset, {self.path(short): _OWN_FIELDS[short] for short in missing}, info)
            self.__dict__.pop("names", None)
            self.__dict__.pop("tagged_names", None)
            if self.place.patches_field is None:
                shown = [self.path(short) for short in missing if not _OWN_FIELDS[short].internal]
                show_in_sidebar(self.dataset, shown, [self.path("tagged")] if "tagged" in missing else [])
        if "tagged" in missing:
            self.dataset.create_index(self.path("decision"))

    def of_groups(self, groups: Iterable[int]) -> list[Member]:
        """All members of some groups."""
        numbers = [int(group) for group in groups]
        return list(self._read({self.path("group"): {"$in": numbers}}, [f"$$label.{self.name('group')}", numbers]))

    def of_ids(self, ids: Iterable[str]) -> list[Member]:
        """Images or objects by id; those that are gone are missing."""
        wanted = [ObjectId(member_id) for member_id in ids]
        return list(self._read({self.place.path("_id"): {"$in": wanted}}, ["$$label._id", wanted]))

    def of_decision(self, decision: str) -> list[Member]:
        """All with a decision, whatever group they are in."""
        chosen = [f"$$label.{self.name('decision')}", [decision]]
        return list(self._read({self.path("decision"): decision}, chosen)) if self.has("decision") else []

    def of_samples(self, sample_ids: Sequence[str]) -> list[Member]:
        """Those in some samples that the run has compared."""
        query = {"_id": {"$in": [ObjectId(sample_id) for sample_id in sample_ids]}, self.path("size"): {"$ne": None}}
        return list(self._read(query, None))

    def new_group(self) -> int:
        """A number that no group has."""
        path = self.path("group")
        last = self.dataset._sample_collection.find_one({path: {"$gte": 0}}, {path: 1}, sort=[(path, -1)])
        numbers = [] if last is None else list(_at(last, path.split(".")))
        return max((number for number in numbers if number is not None), default=-1) + 1

    def write(self, changes: Iterable[Change], renew: Callable[[], None] = lambda: None) -> None:
        """Carries out changes; equal ones together.

        Args:
            renew: called now and then when there is much to write.
        """
        batches: dict[Any, list[Change]] = {}
        for change in changes:
            what = tuple(sorted(change.after.items())), change.added, change.removed
            batches.setdefault(what, []).append(change)
        size = _WRITE_CHUNK if self.place.patches_field is None else _LABEL_CHUNK
        operations, ids = [], []
        for (after, added, removed), batch in batches.items():
            for start in range(0, len(batch), size):
                chunk = batch[start : start + size]
                operations.append(self._update(chunk, dict(after), added, removed))
                ids += [change.sample_id for change in chunk]
                if len(ids) >= _WRITE_CHUNK:
                    self.dataset._bulk_write(operations, ids=ids)
                    operations, ids = [], []
                    renew()
        if operations:
            self.dataset._bulk_write(operations, ids=ids)

    def _read(self, query: Mapping[str, Any], chosen: list[Any] | None) -> Iterator[Member]:
        """Reads straight from the database: a view would take ten times as long for a handful of members."""
        wanted = ["_id", "tags", *self.names.values(), *self.tagged_names]
        samples = self.dataset._sample_collection
        if self.place.patches_field is None:
            for document in samples.find(query, dict.fromkeys(wanted, 1)):
                yield self._member(document, document["_id"])
            return
        root = self.place.path("")[:-1]
        compared = {"$ne": [{"$ifNull": [f"$$label.{self.name('size')}", None]}, None]}
        condition = {"$in": chosen} if chosen is not None else compared
        labels = {"$filter": {"input": f"${root}", "as": "label", "cond": condition}}
        slim = {"$map": {"input": labels, "as": "label", "in": {name: f"$$label.{name}" for name in wanted}}}
        for document in samples.aggregate([{"$match": query}, {"$project": {"labels": slim}}]):
            for label in document["labels"] or ():
                yield self._member(label, document["_id"])

    def _member(self, document: Mapping[str, Any], sample_id: ObjectId) -> Member:
        values = {short: document.get(name) for short, name in self.names.items()}
        ours = {name: document[name] for name in self.tagged_names if document.get(name)}
        return Member(str(document["_id"]), str(sample_id), tuple(document.get("tags") or ()), values, ours)

    def _update(
        self, changes: Sequence[Change], after: Mapping[str, Any], added: Sequence[str], removed: Sequence[str]
    ) -> UpdateMany:
        values = {name: {"$literal": value} for name, value in after.items()}
        query = {"_id": {"$in": list({ObjectId(change.sample_id) for change in changes})}}
        if self.place.patches_field is None:
            stage = {**values, **_tags("$tags", added, removed)}
        else:
            root, ids = self.place.path("")[:-1], [ObjectId(change.id) for change in changes]
            changed = {"$mergeObjects": ["$$label", {**values, **_tags("$$label.tags", added, removed)}]}
            chosen = {"$cond": [{"$in": ["$$label._id", ids]}, changed, "$$label"]}
            stage = {root: {"$map": {"input": f"${root}", "as": "label", "in": chosen}}}
        return UpdateMany(query, [{"$set": {**stage, "last_modified_at": "$$NOW"}}])


def open_run(samples: foc.SampleCollection, key: str) -> ReviewedRun:
    """The run whose groups are to be reviewed, in the whole dataset.

    Raises:
        ConfigError: there is no such run (the message lists those there are), or it did not complete.
    """
    if not isinstance(samples, foc.SampleCollection):
        raise ConfigError(f"samples must be a FiftyOne dataset or view, not {type(samples).__name__}")
    dataset = samples._root_dataset
    record = find_group_record(dataset, key)
    return ReviewedRun(dataset, record, run_place(record))


def _tags(path: str, added: Sequence[str], removed: Sequence[str]) -> dict[str, Any]:
    """The update of a list of tags, which may be absent; nothing where no tag changes."""
    if not added and not removed:
        return {}
    tags = {"$ifNull": [path, []]}
    kept = {"$filter": {"input": tags, "as": "tag", "cond": {"$not": [{"$in": ["$$tag", list(removed)]}]}}}
    new = {"$filter": {"input": list(added), "as": "tag", "cond": {"$not": [{"$in": ["$$tag", tags]}]}}}
    return {"tags": {"$concatArrays": [kept, new]}}


def _at(value: Any, path: Sequence[str]) -> Iterator[Any]:
    """All values at a path of a document, through lists."""
    if isinstance(value, list):
        for element in value:
            yield from _at(element, path)
    elif not path:
        yield value
    elif isinstance(value, Mapping) and path[0] in value:
        yield from _at(value[path[0]], path[1:])
