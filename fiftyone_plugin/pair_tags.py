"""A reviewer's word on pairs as tags on both slices, with undo: whatever the words are.

The tags are the truth: a tag that is put on or taken off by hand in the App counts as said. A pair is decided if either
of its slices bears a tag; where several stand, the last of the words holds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import fiftyone as fo
import fiftyone.core.collections as foc
from bson import ObjectId
from pymongo import UpdateOne

from ..brain.errors import ConfigError
from .decision_log import Change, Decision, DecisionLog, Links, now
from .pairs import check_pairs, flat_pairs, read_pairs

CLEAR = "clear"


@dataclass(frozen=True)
class PairTags:
    """The words of a review.

    Attributes:
        key: of the log of the pair dataset under which they are kept; one that no run can have.
        tags: tag by word.
    """

    key: str
    tags: Mapping[str, str]

    def decide(self, pairs: fo.Dataset, pair_ids: Sequence[str], word: str) -> None:
        """Says a word of pairs, in place of any other, or ``"clear"``: none.

        Raises:
            ConfigError: there is no such pair, or no such word.
        """
        check_pairs(pairs)
        if word != CLEAR and word not in self.tags:
            raise ConfigError(f"action={word!r} is unknown; use one of {', '.join((*self.tags, CLEAR))}")
        dataset = pairs._root_dataset
        log = DecisionLog(dataset)
        with log.locked():
            changes = self._changes(dataset, list(dict.fromkeys(pair_ids)), word)
            log.append(self._decision(log, word, pair_ids, self.verdicts(dataset)), changes, Links())
            _write(dataset, changes)

    def undo(self, pairs: fo.Dataset) -> list[str]:
        """Takes the latest word back; again for the one before it.

        Tags that somebody has changed by hand since are left as they are now where that undoes the word, too.

        Returns:
            the ``pair_id`` of each pair that it was about.

        Raises:
            ConfigError: there is none to undo.
        """
        check_pairs(pairs)
        dataset = pairs._root_dataset
        log = DecisionLog(dataset)
        with log.locked():
            last = log.last(self.key)
            if last is None:
                raise ConfigError(f"there is no decision on pairs of dataset {dataset.name!r} to undo")
            for changes in log.changes(last):
                _write(dataset, [change.reversed() for change in changes])
            log.remove(last)
        return list(last.members)

    def verdicts(self, pairs: foc.SampleCollection) -> dict[str, str]:
        """The word by ``pair_id``, of the decided pairs of a pair dataset or of a view of it."""
        flat, found = flat_pairs(pairs), {}
        for word, tag in self.tags.items():
            found |= dict.fromkeys(flat.match_tags(tag).distinct("pair_id"), word)
        return found

    def progress(self, pairs: fo.Dataset) -> dict[str, int]:
        """How far a review is: ``pairs``, how many have each word, and ``undoable`` decisions."""
        said = list(self.verdicts(pairs).values())
        counts = {word: said.count(word) for word in self.tags}
        undoable = len(DecisionLog(pairs._root_dataset).decisions(self.key))
        return {"pairs": pairs.count(), **counts, "undoable": undoable}

    def _changes(self, dataset: fo.Dataset, pair_ids: list[str], word: str) -> list[Change]:
        rows = {row.pair_id: row for row in read_pairs(dataset.match({"pair_id": {"$in": pair_ids}}))}
        missing = [pair_id for pair_id in pair_ids if pair_id not in rows]
        if missing:
            raise ConfigError(f"dataset {dataset.name!r} has no pair {missing[0]!r}; it may have been deleted")
        members = [member.id for pair_id in pair_ids for member in (rows[pair_id].source, rows[pair_id].target)]
        tags = dict(zip(*flat_pairs(dataset).select(members).values(["id", "tags"]), strict=True))
        return list(_tag_changes(tags, self.tags.get(word), set(self.tags.values())))

    def _decision(self, log: DecisionLog, word: str, pair_ids: Sequence[str], before: Mapping[str, str]) -> Decision:
        wanted = None if word == CLEAR else word
        counts = {"changed": sum(before.get(pair_id) != wanted for pair_id in pair_ids)}
        return Decision(log.next_sequence(), self.key, word, (), (), tuple(pair_ids), None, now(), "", counts, {})


def _tag_changes(tags: Mapping[str, Sequence[str] | None], wanted: str | None, own: set[str]) -> Iterable[Change]:
    for sample_id, some in tags.items():
        there = set(some or ()) & own
        added = () if wanted is None or wanted in there else (wanted,)
        removed = tuple(sorted(there - {wanted}))
        if added or removed:
            yield Change(sample_id, sample_id, added=added, removed=removed)


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
