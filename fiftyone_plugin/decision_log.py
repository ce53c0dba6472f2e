"""The log of decisions: an entry each, in a store that belongs to the dataset, with all that undoing it takes."""

import threading
import time
import uuid
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import bson
import fiftyone as fo
import fiftyone.core.odm as foo
from bson import ObjectId
from fiftyone.factory.repos.execution_store import MongoExecutionStoreRepo
from fiftyone.operators.store import ExecutionStore
from fiftyone.operators.store.clone import register_cloneable_store

from ..brain.errors import ConfigError

# FiftyOne deletes the store with its dataset; a clone of the dataset takes it along.
STORE = "selfsame_decisions"
register_cloneable_store(STORE)

# About 200 bytes a change before compression: well below the 16 MB of a database document.
_CHANGES_PER_PART = 20_000

# A decision takes milliseconds. One that takes longer renews its lease; a killed process loses it after this time.
_LEASE_SECONDS, _WAIT_SECONDS = 60, 90
_LOCK = "lock"

_THREAD_LOCKS: dict[Any, threading.RLock] = defaultdict(threading.RLock)


@dataclass(frozen=True)
class Change:
    """What a decision changes in one image or object.

    Attributes:
        id: id of the sample, or of the label.
        sample_id: id of the sample.
        before, after: values by field name, of those that change.
        added, removed: tags that it puts on and takes off.
    """

    id: str
    sample_id: str
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def reversed(self) -> "Change":
        """The change that takes this one back."""
        return Change(self.id, self.sample_id, self.after, self.before, self.removed, self.added)


@dataclass(frozen=True)
class Links:
    """What a decision says about who belongs together.

    Attributes:
        together: sets of ids that are one object or picture.
        apart: pairs of sets of ids; none of the one belongs to any of the other.
        strangers: sets of ids of which no two belong together.
    """

    together: Sequence[Sequence[str]] = ()
    apart: Sequence[tuple[Sequence[str], Sequence[str]]] = ()
    strangers: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Decision:
    """One decision of a reviewer, as the log tells it.

    Attributes:
        sequence: number of the decision in the dataset, over all keys; a number is used again after an undo.
        key: key of the run that was reviewed.
        action: what was decided.
        groups: numbers of the groups that it was about, as they were then.
        result: numbers of the groups that came of them.
        members: ids of the images or objects that were chosen.
        name: the name that was given.
        time: when, in UTC.
        run_time: which run the group numbers belong to.
        counts: ``changed`` members, of these now ``keep``, ``drop`` or ``reject``, and ``by_hand``: those that kept the
            contrary tag that somebody had given them; ``tagged`` and ``untagged``: tags put on and taken off.
        totals: ``decisions`` that can be undone, and members that are ``keep``, ``drop`` and ``reject``, after it.
    """

    sequence: int
    key: str
    action: str
    groups: tuple[int, ...]
    result: tuple[int, ...]
    members: tuple[str, ...]
    name: str | None
    time: datetime
    run_time: str
    counts: Mapping[str, int]
    totals: Mapping[str, int]


class DecisionLog:
    """The log of one dataset. Entries are numbered; a long one is spread over several documents."""

    def __init__(self, dataset: fo.Dataset) -> None:
        self._id = dataset._doc.id
        self._store = ExecutionStore.create(STORE, dataset_id=self._id)
        # The store has no query for "the last entry"; its index on the keys has.
        self._documents = foo.get_db_conn()[MongoExecutionStoreRepo.COLLECTION_NAME]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One decision at a time: among the threads of this process, and among all processes.

        Raises:
            ConfigError: another process has been at work for too long.
        """
        with _THREAD_LOCKS[self._id]:
            token = uuid.uuid4().hex
            give_up = time.monotonic() + _WAIT_SECONDS
            while not self._store.set_if_absent(_LOCK, token, ttl=_LEASE_SECONDS):
                now = datetime.now(timezone.utc)
                stale = {**self._entries(), "key": _LOCK, "expires_at": {"$lt": now}}
                if not self._documents.delete_one(stale).deleted_count:
                    if time.monotonic() > give_up:
                        raise ConfigError("another process is still writing decisions on this dataset; try again later")
                    time.sleep(0.01)
            try:
                yield
            finally:
                self._documents.delete_one({**self._entries(), "key": _LOCK, "value": token})

    def renew(self) -> None:
        """Keeps the lock for as long again."""
        self._store.update_ttl(_LOCK, _LEASE_SECONDS)

    def next_sequence(self) -> int:
        """The number of the next entry."""
        last = self._documents.find_one({**self._entries(), "key": {"$lt": ":"}}, {"key": 1}, sort=[("key", -1)])
        return int(last["key"].split("/")[0]) + 1 if last else 1

    def append(self, decision: Decision, changes: Sequence[Change], links: Links) -> None:
        """Writes an entry; it exists once all of it is written."""
        parts = [
            changes[start : start + _CHANGES_PER_PART] for start in range(0, max(len(changes), 1), _CHANGES_PER_PART)
        ]
        for number in reversed(range(len(parts))):
            value: dict[str, Any] = {"part": number, "key": decision.key, "changes": _pack(map(_row, parts[number]))}
            if number == 0:
                value |= {name: getattr(decision, name) for name in _STORED}
                value |= {"parts": len(parts), "links": _pack_links(links)}
            self._store.set(f"{decision.sequence:08d}/{number:04d}", value)

    def last(self, key: str) -> Decision | None:
        """The latest decision on a key."""
        document = self._documents.find_one(self._first_parts(key), _WITHOUT_BULK, sort=[("key", -1)])
        return None if document is None else _decision(document)

    def decisions(self, key: str | None = None) -> list[Decision]:
        """All decisions, or those on a key, oldest first."""
        return [_decision(document) for document in self._find(self._first_parts(key), _WITHOUT_BULK)]

    def later_members(self, decision: Decision) -> Iterator[tuple[str, set[str]]]:
        """Key and ids of what was changed by each part of the decisions after this one."""
        query = {**self._entries(), "key": {"$gt": f"{decision.sequence:08d}/:", "$lt": ":"}}
        for document in self._find(query, {"value.key": 1, "value.changes": 1}):
            yield document["value"]["key"], {str(row[0]) for row in _unpack(document["value"]["changes"])}

    def changes(self, decision: Decision) -> Iterator[list[Change]]:
        """What a decision changed, part by part."""
        for key in self._keys(decision):
            yield [_change(row) for row in _unpack(self._store.get(key)["changes"])]

    def links(self, key: str) -> Iterator[Links]:
        """What each decision on a key says about who belongs together, oldest first."""
        for document in self._find(self._first_parts(key), {"value.links": 1}):
            yield _unpack_links(document["value"]["links"])

    def remove(self, decision: Decision) -> None:
        """Deletes an entry, after it was undone; first its first part, without which it does not exist."""
        for key in self._keys(decision):
            self._store.delete(key)

    def _keys(self, decision: Decision) -> list[str]:
        query = {**self._entries(), "key": {"$gte": f"{decision.sequence:08d}/", "$lt": f"{decision.sequence:08d}/:"}}
        return [document["key"] for document in self._find(query, {"key": 1})]

    def _entries(self) -> dict[str, Any]:
        return {"store_name": STORE, "dataset_id": self._id}

    def _first_parts(self, key: str | None) -> dict[str, Any]:
        query = {**self._entries(), "key": {"$lt": ":"}, "value.part": 0}
        return query if key is None else {**query, "value.key": key}

    def _find(self, query: Mapping[str, Any], projection: Mapping[str, int]) -> Iterator[dict[str, Any]]:
        yield from self._documents.find(query, projection).sort("key", 1)


_STORED = ("key", "action", "groups", "result", "members", "name", "time", "run_time", "counts", "totals")
_WITHOUT_BULK = {"value.changes": 0, "value.links": 0}


def now() -> datetime:
    """UTC to milliseconds, as the database keeps it."""
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


def _decision(document: Mapping[str, Any]) -> Decision:
    value = {name: document["value"][name] for name in _STORED}
    value |= {name: tuple(value[name]) for name in ("groups", "result", "members")}
    return Decision(int(document["key"].split("/")[0]), **value)


def _row(change: Change) -> list[Any]:
    ids = [ObjectId(change.id), None if change.id == change.sample_id else ObjectId(change.sample_id)]
    return [*ids, dict(change.before), dict(change.after), list(change.added), list(change.removed)]


def _change(row: Sequence[Any]) -> Change:
    item_id, sample_id, before, after, added, removed = row
    return Change(str(item_id), str(sample_id or item_id), before, after, tuple(added), tuple(removed))


def _pack(rows: Any) -> bytes:
    return zlib.compress(bson.encode({"rows": list(rows)}), 1)


def _unpack(data: bytes) -> list[Any]:
    return bson.decode(zlib.decompress(data))["rows"]


def _pack_links(links: Links) -> bytes:
    def packed(ids: Sequence[str]) -> bytes:
        return b"".join(ObjectId(member_id).binary for member_id in ids)

    rows = [
        [packed(ids) for ids in links.together],
        [[packed(ids) for ids in pair] for pair in links.apart],
        [packed(ids) for ids in links.strangers],
    ]
    return _pack(rows)


def _unpack_links(data: bytes) -> Links:
    def ids(packed: bytes) -> list[str]:
        return [packed[start : start + 12].hex() for start in range(0, len(packed), 12)]

    together, apart, strangers = _unpack(data)
    return Links([ids(one) for one in together], [(ids(a), ids(b)) for a, b in apart], [ids(one) for one in strangers])
