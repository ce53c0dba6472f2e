"""A reviewer's word on pairs: tags on both slices, a log with undo, and what follows for groups and clusters.

The tags are the truth: a tag that is put on or taken off by hand in the App counts as a decision. A pair is decided
if either of its slices bears a tag; where both tags stand, ``match:reject`` holds.
"""

from collections.abc import Iterator, Mapping, Sequence

import fiftyone as fo
import fiftyone.core.collections as foc
from bson import ObjectId
from pymongo import UpdateOne

from ..brain.errors import ConfigError
from .decision_log import Change, Decision, DecisionLog, Links, now
from .pairs import check_pairs, derived_pairs, flat_pairs, read_pairs

ACCEPT, REJECT, CLEAR = "accept", "reject", "clear"
ACTIONS = (ACCEPT, REJECT, CLEAR)

# What a decision stands for in the tags of both slices.
TAGS = {ACCEPT: "match:accept", REJECT: "match:reject"}

# Decisions on pairs are kept in the log of the pair dataset under this key, which no run can have.
_KEY = "pairs:review"


def decide_pairs(pairs: fo.Dataset, pair_ids: Sequence[str], action: str) -> None:
    """Says of pairs that both images show the same object, or that they do not, or takes that back.

    Args:
        pairs: a pair dataset, or a view of it.
        pair_ids: the pairs, by their ``pair_id``.
        action: ``"accept"``, ``"reject"`` or ``"clear"``.

    Raises:
        ConfigError: it holds no pairs, a pair is not in it, or the action is unknown.
    """
    check_pairs(pairs)
    if action not in ACTIONS:
        raise ConfigError(f"action={action!r} is unknown; use one of {', '.join(ACTIONS)}")
    dataset = pairs._root_dataset
    log = DecisionLog(dataset)
    with log.locked():
        changes = _changes(dataset, list(dict.fromkeys(pair_ids)), action)
        before = pair_verdicts(dataset)
        log.append(_decision(log, action, pair_ids, before), changes, Links())
        _write(dataset, changes)


def undo_pair_decision(pairs: fo.Dataset) -> list[str]:
    """Takes the latest decision back; again for the one before it.

    Tags that somebody has changed by hand since are left as they are now where that undoes the decision, too.

    Returns:
        the ``pair_id`` of each pair that it was about.

    Raises:
        ConfigError: there is no decision to undo.
    """
    check_pairs(pairs)
    dataset = pairs._root_dataset
    log = DecisionLog(dataset)
    with log.locked():
        last = log.last(_KEY)
        if last is None:
            raise ConfigError(f"there is no decision on pairs of dataset {dataset.name!r} to undo")
        for changes in log.changes(last):
            _write(dataset, [change.reversed() for change in changes])
        log.remove(last)
    return list(last.members)


def pair_verdicts(pairs: foc.SampleCollection) -> dict[str, str]:
    """``"accept"`` or ``"reject"`` by ``pair_id``, of the decided pairs of a pair dataset or of a view of it."""
    flat, found = flat_pairs(pairs), {}
    for action in (ACCEPT, REJECT):
        found |= dict.fromkeys(flat.match_tags(TAGS[action]).distinct("pair_id"), action)
    return found


def pair_progress(pairs: fo.Dataset) -> dict[str, int]:
    """How far a review is: ``pairs``, ``accepted``, ``rejected`` and ``undoable`` decisions."""
    verdicts = list(pair_verdicts(pairs).values())
    return {
        "pairs": pairs.count(),
        "accepted": verdicts.count(ACCEPT),
        "rejected": verdicts.count(REJECT),
        "undoable": len(DecisionLog(pairs._root_dataset).decisions(_KEY)),
    }


def pair_links(dataset: fo.Dataset) -> list[Links]:
    """What the decisions on pairs say about who belongs together in the dataset that the pairs were made of.

    Pair datasets that were made of two datasets say nothing about either.

    Returns:
        one for each pair dataset, the oldest first; ids of original samples, some of which may be gone.
    """
    return [links for links in map(_links_of, _own_pairs(dataset)) if links.together or links.apart]


def _own_pairs(dataset: fo.Dataset) -> Iterator[fo.Dataset]:
    for name in derived_pairs(dataset):
        pairs = fo.load_dataset(name)
        info = check_pairs(pairs)
        if info.origin_id == info.target_origin_id:
            yield pairs


def _links_of(pairs: fo.Dataset) -> Links:
    verdicts = pair_verdicts(pairs)
    ends = _ends(pairs, list(verdicts))
    together = [ends[pair_id] for pair_id, action in verdicts.items() if action == ACCEPT and pair_id in ends]
    apart = [ends[pair_id] for pair_id, action in verdicts.items() if action == REJECT and pair_id in ends]
    return Links(together, [([one], [other]) for one, other in apart])


def _ends(pairs: fo.Dataset, pair_ids: list[str]) -> dict[str, tuple[str, str]]:
    if not pair_ids:
        return {}
    view = pairs.match({"pair_id": {"$in": pair_ids}})
    rows = zip(*view.values(["pair_id", "source_id", "target_id"]), strict=True)
    return {pair_id: (one, other) for pair_id, one, other in rows}


def _changes(dataset: fo.Dataset, pair_ids: list[str], action: str) -> list[Change]:
    rows = {row.pair_id: row for row in read_pairs(dataset.match({"pair_id": {"$in": pair_ids}}))}
    missing = [pair_id for pair_id in pair_ids if pair_id not in rows]
    if missing:
        raise ConfigError(f"dataset {dataset.name!r} has no pair {missing[0]!r}; it may have been deleted")
    members = [member.id for pair_id in pair_ids for member in (rows[pair_id].source, rows[pair_id].target)]
    tags = dict(zip(*flat_pairs(dataset).select(members).values(["id", "tags"]), strict=True))
    wanted = TAGS.get(action)
    changes = []
    for member in members:
        now_there = set(tags[member] or ()) & set(TAGS.values())
        added = () if wanted is None or wanted in now_there else (wanted,)
        removed = tuple(sorted(now_there - {wanted}))
        if added or removed:
            changes.append(Change(member, member, added=added, removed=removed))
    return changes


def _decision(log: DecisionLog, action: str, pair_ids: Sequence[str], before: Mapping[str, str]) -> Decision:
    verdicts = [before.get(pair_id) for pair_id in pair_ids]
    counts = {"changed": sum(verdict != (None if action == CLEAR else action) for verdict in verdicts)}
    return Decision(log.next_sequence(), _KEY, action, (), (), tuple(pair_ids), None, now(), "", counts, {})


def _write(dataset: fo.Dataset, changes: Sequence[Change]) -> None:
    operations = []
    for change in changes:
        where = {"_id": ObjectId(change.id)}
        if change.removed:
            operations.append(UpdateOne(where, {"$pull": {"tags": {"$in": list(change.removed)}}}))
        if change.added:
            operations.append(UpdateOne(where, {"$addToSet": {"tags": {"$each": list(change.added)}}}))
    if operations:
        dataset._bulk_write(operations)
