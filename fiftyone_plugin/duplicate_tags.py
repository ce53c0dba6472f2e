"""Tagging what to keep and what to drop by the roles of a whole search, through the log of decisions."""

import time
from collections.abc import Generator
from typing import Any

import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .decision_log import Decision, DecisionLog
from .decision_members import DROP, KEEP, Member, ReviewedRun, open_run
from .decision_rules import Draft, Plan, Request
from .decisions import decision_log, record, undo_decision
from .engine.local import Progress
from .runs import RunSummary
from .steps import plain_function

METHOD = "tag_duplicates"

# What each action decides: role → decision; members with another role get none.
TAG_ACTIONS: dict[str, dict[str, str]] = {
    "drop_duplicates": {"keeper": "keep", "duplicate": "drop"},
    "drop_only": {"duplicate": "drop"},
    "keep_only": {"keeper": "keep"},
    "keep_all": {"keeper": "keep", "duplicate": "keep"},
}

TAG_ACTION_LABELS: dict[str, str] = {
    "drop_duplicates": "Keep the best of each group, drop the others",
    "drop_only": "Mark only what to drop",
    "keep_only": "Mark only what to keep",
    "keep_all": "Keep all: these are no duplicates",
}

_CHUNK = 10_000


def tag_duplicates_steps(
    samples: foc.SampleCollection, key: str = "dup", *, action: str = "drop_duplicates"
) -> Generator[Progress, None, RunSummary]:
    """Tags the members of all groups by their role in a duplicate run: ``duplicate:keep`` and ``duplicate:drop``.

    It is one decision on all groups at once, see :func:`.decisions.decide`. Running it again changes nothing. Tags that
    an earlier decision gave and that no longer fit the roles (after another threshold, say) are replaced. Tags that
    somebody gave by hand are a decision: they stay, and what bears one gets no contrary tag. What is changed is
    recorded, so that :func:`undo_duplicate_tags` can take back just that.

    Args:
        samples: a dataset or view; only its samples are tagged, or, where objects were compared, their labels.
        key: key of a run of ``find_duplicates`` or ``find_exact_duplicates``.
        action: ``"drop_duplicates"``: keep the keepers, drop the duplicates; ``"drop_only"`` and ``"keep_only"``: only
            one of the two tags; ``"keep_all"``: keep every member of a group.

    Returns:
        What was done; ``counts`` has ``keep`` and ``drop`` (tags added), ``replaced`` (tags of earlier decisions
        removed) and ``by_hand`` (members whose tags were respected). ``key`` is None where nothing had to be done.

    Raises:
        ConfigError: no such run, one of clusters, or an unknown action.
    """
    if action not in TAG_ACTIONS:
        raise ConfigError(f"action={action!r} is unknown; use one of {', '.join(TAG_ACTIONS)}")
    started = time.perf_counter()
    run = open_run(samples, key)
    if not run.has("role"):
        raise ConfigError(f"run {key!r} holds clusters, which have no keepers; decide on them one by one with decide()")
    run.declare("decision", "tagged")
    sample_ids = image_samples(samples).values("id")
    log = DecisionLog(run.dataset)
    with log.locked():
        members = yield from _read(run, log, sample_ids)
        planned = _plan(run, members, TAG_ACTIONS[action])
        summary = RunSummary(None, METHOD, _counts(planned, len(members)), details={"key": key, "action": action})
        if not planned.changes:
            summary.notices.append("all tags are in place already, so nothing was changed")
            return summary
        decision = record(run, log, Request(action, ()), planned)
    summary.key = key
    summary.details["sequence"] = decision.sequence
    summary.seconds = time.perf_counter() - started
    yield Progress(len(sample_ids), len(sample_ids), label="Done")
    return summary


def undo_duplicate_tags_steps(samples: foc.SampleCollection, key: str = "dup") -> Generator[Progress, None, RunSummary]:
    """Takes back the last decision on a key, as a rule a :func:`tag_duplicates`; repeat it to go further back.

    The whole decision is undone, also outside the view. Tags that were there before it, or that were given by hand,
    stay.

    Args:
        samples: the dataset, or a view of it.
        key: the key of the duplicate run that was tagged.

    Returns:
        What was done; ``counts`` has ``untagged`` and ``restored`` tags and ``left``, the decisions that can be undone
        still.

    Raises:
        ConfigError: there is nothing to undo, or a later decision on another key builds on it.
    """
    yield Progress(0, 1, label="Removing tags")
    undone = _undo(samples, key)
    left = len(decision_log(samples, key))
    counts = {"untagged": undone.counts["tagged"], "restored": undone.counts["untagged"], "left": left}
    yield Progress(1, 1, label="Done")
    return RunSummary(
        None,
        "undo_duplicate_tags",
        {"total": undone.counts["changed"], **counts},
        details={"key": key, "undone": undone.action},
    )


tag_duplicates = plain_function(tag_duplicates_steps)
undo_duplicate_tags = plain_function(undo_duplicate_tags_steps)


def undoable_actions(samples: foc.SampleCollection, key: str | None = None) -> list[dict[str, Any]]:
    """The decisions that can be undone, the latest last, optionally of one key only, in the form of run records."""
    return [
        {
            "config": {"key": decision.key, "action": decision.action, "sequence": decision.sequence},
            "counts": dict(decision.counts),
            "timestamp": decision.time,
        }
        for decision in decision_log(samples, key)
    ]


def _undo(samples: foc.SampleCollection, key: str) -> Decision:
    keys = sorted({decision.key for decision in decision_log(samples)})
    undone = undo_decision(samples, key) if key in keys else None
    if undone is None:
        hint = f"; there are decisions on {', '.join(map(repr, keys))}" if keys else ""
        raise ConfigError(f"no tags of duplicate run {key!r} are left to undo{hint}")
    return undone


def _read(run: ReviewedRun, log: DecisionLog, sample_ids: list[str]) -> Generator[Progress, None, list[Member]]:
    members: list[Member] = []
    for start in range(0, len(sample_ids), _CHUNK):
        yield Progress(start, len(sample_ids), label="Tagging duplicates")
        members += run.of_samples(sample_ids[start : start + _CHUNK])
        log.renew()
    return members


def _plan(run: ReviewedRun, members: list[Member], action: dict[str, str]) -> Plan:
    draft = Draft(run, members)
    for member in members:
        draft.decide(member, action.get(member["role"]))
    return Plan(draft.changes(), by_hand=draft.by_hand)


def _counts(planned: Plan, total: int) -> dict[str, int]:
    added = [tag for change in planned.changes for tag in change.added]
    return {
        "total": total,
        "keep": added.count(KEEP),
        "drop": added.count(DROP),
        "replaced": sum(len(change.removed) for change in planned.changes),
        "by_hand": planned.by_hand,
    }
