"""A reviewer's decisions on groups and clusters: made, undone to any depth, listed, and counted."""

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone.core.collections as foc
import fiftyone.core.odm as foo
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import ConfigError
from .decision_links import replay
from .decision_log import Change, Decision, DecisionLog, now
from .decision_members import TAGS, ReviewedRun, open_run
from .decision_rules import ACTIONS, Plan, Request, plan
from .item_fields import read_items
from .pair_decisions import pair_links

# The entry of the log after which nothing can be undone: what was to be dropped is gone.
APPLIED = "apply"

_TAKES_MEMBERS = ("keep_chosen", "reject", "split")

# What an undo restores although the groups were formed anew since: it does not depend on their numbers.
_LASTING = ("decision", "tagged")


def decide(
    samples: foc.SampleCollection,
    key: str,
    action: str,
    *,
    groups: Sequence[int],
    members: Sequence[str] = (),
    name: str | None = None,
) -> Decision:
    """Makes a decision on some groups of a run: sets tags and ``<key>_decision``, and changes groups, at once.

    The tags are ``duplicate:keep``, ``duplicate:drop`` and ``duplicate:reject``, of samples or, where objects were
    compared, of labels. A contrary tag that somebody gave by hand stands, unless this very member was chosen.
    Everything is recorded, so that :func:`undo_decision` can take back exactly this. Nothing is deleted.

    Args:
        samples: the dataset of the run, or a view of it; whole groups are decided on, also outside the view.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects``.
        action: ``"keep_best"``: the keepers stay, the others go; ``"keep_all"``; ``"keep_chosen"``: ``members`` stay,
            the others go; ``"keep_shots"``: the best of each shot stays; ``"reject"``: these are no group, or, with
            ``members``, those do not belong to it and leave it; ``"split"``: ``members`` form a group of their own;
            ``"merge"``: all ``groups`` become one; ``"confirm"``: the groups are right as they are; ``"name"``: they
            get a name.
        groups: numbers of groups.
        members: ids of samples (of labels, where objects were compared) in these groups.
        name: the name for ``"name"``; empty takes it away.

    Returns:
        The decision as the log has it. The same decision twice in a row is made once.

    Raises:
        ConfigError: an unknown action, a group or member that is not there, or a group that would lose all members.
    """
    request = _request(action, groups, members, name)
    run = open_run(samples, key)
    run.declare("decision", "tagged", *(["name"] if action == "name" else []))
    log = DecisionLog(run.dataset)
    with log.locked():
        found = run.of_groups(request.groups)
        _check_members(request, {member.id for member in found})
        planned = plan(run, request, found, lambda ids: _vectors(run, ids, found))
        last = log.last(key)
        if not planned.changes and last is not None and _repeats(last, request, run):
            return last
        return record(run, log, request, planned)


def undo_decision(samples: foc.SampleCollection, key: str) -> Decision | None:
    """Takes back the last decision on a run; repeat it to go further back.

    Earlier tags and values are restored. After a new search under the same key, only tags and decisions are: the groups
    are others now.

    Args:
        samples: the dataset of the run, or a view of it.
        key: key of the run.

    Returns:
        The decision that was taken back; None where there is none left.

    Raises:
        ConfigError: a later decision on another key changed the same images or objects and must be undone first; or the
            decisions were applied.
    """
    run = open_run(samples, key)
    log = DecisionLog(run.dataset)
    with log.locked():
        last = log.last(key)
        if last is None:
            return None
        if last.action == APPLIED:
            raise ConfigError(
                f"the decisions on run {key!r} were applied on {last.time:%Y-%m-%d %H:%M} UTC: what was deleted then "
                "cannot be brought back, so earlier decisions cannot be undone"
            )
        _check_later(log, last)
        for changes in log.changes(last):
            backwards = [change.reversed() for change in changes]
            if last.run_time != run.time:
                backwards = [_lasting(run, change) for change in backwards]
            run.write(backwards, log.renew)
        log.remove(last)
        before = log.last(key)
        note_details(run, before.totals if before else _NO_TOTALS)
    return last


def decision_log(samples: foc.SampleCollection, key: str | None = None) -> list[Decision]:
    """All decisions on a run that were not undone, oldest first; without a key those on any run."""
    return DecisionLog(samples._root_dataset).decisions(key)


def review_progress(samples: foc.SampleCollection, key: str) -> dict[str, int]:
    """How far the review is.

    Returns:
        ``groups`` there are, ``decided`` ones (any member has a decision), members that are ``keep``, ``drop`` and
        ``reject``, and decisions that are ``undoable``.
    """
    run = open_run(samples, key)
    group, decision = run.path("group"), run.path("decision")
    parts: list[Any] = []
    if run.place.patches_field is not None:
        root = run.place.path("")[:-1]
        slim = {f"{root}.{run.name(name)}": 1 for name in ("group", "decision")}
        parts = [{"$project": slim}, {"$unwind": f"${root}"}]

    def matching(condition: Mapping[str, Any]) -> list[Any]:
        return [{"$match": condition}, *parts, {"$match": condition}]

    collection = run.dataset._sample_collection
    decided = {"$max": {"$toInt": {"$gt": [f"${decision}", None]}}}
    per_group = {"$group": {"_id": f"${group}", "decided": decided}}
    summed = {"$group": {"_id": None, "groups": {"$sum": 1}, "decided": {"$sum": "$decided"}}}
    counts = {"groups": 0, "decided": 0, **dict.fromkeys(TAGS, 0)}
    for row in collection.aggregate([*matching({group: {"$gte": 0}}), per_group, summed]):
        counts |= {name: row[name] for name in ("groups", "decided")}
    if run.has("decision"):
        per_decision = {"$group": {"_id": f"${decision}", "members": {"$sum": 1}}}
        rows = collection.aggregate([*matching({decision: {"$in": list(TAGS)}}), per_decision])
        counts |= {row["_id"]: row["members"] for row in rows}
    return {**counts, "undoable": _totals(DecisionLog(run.dataset).last(key))["decisions"]}


def constraints_of(
    samples: foc.SampleCollection, key: str
) -> tuple[list[list[str]], list[tuple[list[str], list[str]]]]:
    """What the decisions on a run, and those on pairs of its images, say about who belongs together, for grouping anew.

    Where decisions contradict each other, the later one holds; so the sets never do. A word on a pair is more exact
    than one on a group: it overrules those.

    Returns:
        sets of ids that belong together, and pairs of sets that do not; ids of samples, or of labels where objects were
        compared. Ids may be gone from the dataset.
    """
    dataset = samples._root_dataset
    return replay([*DecisionLog(dataset).links(key), *pair_links(dataset)])


def record(run: ReviewedRun, log: DecisionLog, request: Request, planned: Plan) -> Decision:
    """Writes a planned decision, the log first: if it is killed half-way, undo knows all that may have to go back."""
    last = log.last(run.key)
    decision = Decision(
        sequence=log.next_sequence(),
        key=run.key,
        action=request.action,
        groups=request.groups,
        result=planned.result,
        members=request.members,
        name=request.name,
        time=now(),
        run_time=run.time,
        counts=_counts(run, planned),
        totals=_add_up(run, _totals(last), planned.changes),
    )
    log.append(decision, planned.changes, planned.links)
    run.write(planned.changes, log.renew)
    note_details(run, decision.totals)
    return decision


def _request(action: str, groups: Sequence[int], members: Sequence[str], name: str | None) -> Request:
    if action not in ACTIONS:
        raise ConfigError(f"action={action!r} is unknown; use one of {', '.join(ACTIONS)}")
    numbers = tuple(dict.fromkeys(_whole(group) for group in groups))
    if not numbers:
        raise ConfigError(f"groups={groups!r} names no group; give the numbers of those to decide on")
    if members and action not in _TAKES_MEMBERS:
        raise ConfigError(f"{action} decides on whole groups; members go with {', '.join(_TAKES_MEMBERS)} only")
    if name is not None and (action != "name" or not isinstance(name, str)):
        raise ConfigError(f"name={name!r} must be text, and goes with the action 'name' only")
    return Request(action, numbers, tuple(dict.fromkeys(members)), name)


def _whole(group: Any) -> int:
    if isinstance(group, bool) or not isinstance(group, int | np.integer) or group < 0:
        raise ConfigError(f"groups: {group!r} is no number of a group")
    return int(group)


def _check_members(request: Request, there: set[str]) -> None:
    strangers = [member for member in request.members if member not in there]
    if strangers:
        numbers = ", ".join(map(str, request.groups))
        raise ConfigError(f"{strangers[0]!r} is no member of group {numbers}; look at the group again")


def _check_later(log: DecisionLog, last: Decision) -> None:
    touched: set[str] | None = None
    for key, ids in log.later_members(last):
        if touched is None:
            touched = {change.id for changes in log.changes(last) for change in changes}
        if key != last.key and touched & ids:
            raise ConfigError(
                f"later decisions on run {key!r} are about the same members; undo those first: "
                f"undo_decision(dataset, {key!r})"
            )


def _repeats(last: Decision, request: Request, run: ReviewedRun) -> bool:
    same = (last.action, last.groups, last.members, last.name) == (
        request.action,
        request.groups,
        request.members,
        request.name,
    )
    return same and last.run_time == run.time


def _lasting(run: ReviewedRun, change: Change) -> Change:
    names = {run.name(short) for short in _LASTING} | set(run.tagged_names)
    after = {name: value for name, value in change.after.items() if name in names}
    return Change(change.id, change.sample_id, {}, after, change.added, change.removed)


def _counts(run: ReviewedRun, planned: Plan) -> dict[str, int]:
    name = run.name("decision")
    after = [change.after.get(name) for change in planned.changes]
    return {
        "changed": len(planned.changes),
        **{decision: after.count(decision) for decision in TAGS},
        "by_hand": planned.by_hand,
        "tagged": sum(len(change.added) for change in planned.changes),
        "untagged": sum(len(change.removed) for change in planned.changes),
    }


_NO_TOTALS = dict.fromkeys(("decisions", *TAGS), 0)


def _totals(last: Decision | None) -> dict[str, int]:
    return dict(last.totals) if last else dict(_NO_TOTALS)


def _add_up(run: ReviewedRun, totals: dict[str, int], changes: Sequence[Change]) -> dict[str, int]:
    name = run.name("decision")
    for change in changes:
        if name in change.after:
            for value, step in ((change.before[name], -1), (change.after[name], 1)):
                if value in TAGS:
                    totals[value] += step
    return {**totals, "decisions": totals["decisions"] + 1}


def note_details(run: ReviewedRun, totals: Mapping[str, int], **more: Any) -> None:
    """Puts counts into the run's record; only those, because another process may have changed the rest."""
    document = run.dataset._doc.runs[run.key]
    details = {"decisions": dict(totals), **more}
    document.config.setdefault("details", {}).update(details)
    update = {"$set": {f"config.details.{name}": value for name, value in details.items()}}
    foo.get_db_conn()["runs"].update_one({"_id": document.id}, update)


def _vectors(run: ReviewedRun, ids: Sequence[str], members: Sequence[Any]) -> dict[str, np.ndarray]:
    """Vectors by id, of those that have one in the field that the run compared."""
    path = run.record["config"].get("embeddings")
    if not isinstance(path, str) or run.dataset.get_field(run.place.path(path)) is None:
        return {}
    wanted = set(ids)
    sample_ids = {member.sample_id for member in members if member.id in wanted}
    view = fov.make_optimized_select_view(run.dataset, sorted(sample_ids))
    items = read_items(view, run.place, [path])
    return {item.id: np.asarray(item.values[0]) for item in items if item.id in wanted and item.values[0] is not None}
