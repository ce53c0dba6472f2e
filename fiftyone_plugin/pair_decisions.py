"""A reviewer's word on whether pairs match, and what follows for groups and clusters; see :mod:`.pair_tags`."""

from collections.abc import Iterator, Sequence

import fiftyone as fo
import fiftyone.core.collections as foc

from .decision_log import Links
from .pair_tags import CLEAR, PairTags
from .pairs import check_pairs, derived_pairs

ACCEPT, REJECT = "accept", "reject"
ACTIONS = (ACCEPT, REJECT, CLEAR)

# What a decision stands for in the tags of both slices; where both stand, the rejection holds.
TAGS = {ACCEPT: "match:accept", REJECT: "match:reject"}

_REVIEW = PairTags("pairs:review", TAGS)


def decide_pairs(pairs: fo.Dataset, pair_ids: Sequence[str], action: str) -> None:
    """Says of pairs that both images show the same object, or that they do not, or takes that back.

    Args:
        pairs: a pair dataset, or a view of it.
        pair_ids: the pairs, by their ``pair_id``.
        action: ``"accept"``, ``"reject"`` or ``"clear"``.

    Raises:
        ConfigError: it holds no pairs, a pair is not in it, or the action is unknown.
    """
    _REVIEW.decide(pairs, pair_ids, action)


def undo_pair_decision(pairs: fo.Dataset) -> list[str]:
    """Takes the latest decision back; again for the one before it.

    Tags that somebody has changed by hand since are left as they are now where that undoes the decision, too.

    Returns:
        the ``pair_id`` of each pair that it was about.

    Raises:
        ConfigError: there is no decision to undo.
    """
    return _REVIEW.undo(pairs)


def pair_verdicts(pairs: foc.SampleCollection) -> dict[str, str]:
    """``"accept"`` or ``"reject"`` by ``pair_id``, of the decided pairs of a pair dataset or of a view of it."""
    return _REVIEW.verdicts(pairs)


def pair_progress(pairs: fo.Dataset) -> dict[str, int]:
    """How far a review is: ``pairs``, ``accepted``, ``rejected`` and ``undoable`` decisions."""
    found = _REVIEW.progress(pairs)
    names = {ACCEPT: "accepted", REJECT: "rejected"}
    return {names.get(name, name): value for name, value in found.items()}


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
