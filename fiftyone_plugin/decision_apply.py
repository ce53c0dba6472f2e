"""Acting on decisions: what is to be dropped is deleted, after a dry run and a typed confirmation."""

import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import fiftyone.core.collections as foc
import fiftyone.core.odm as foo

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .decision_export import decision_table, read_files
from .decision_log import Decision, DecisionLog, Links
from .decision_members import DROP, Member, ReviewedRun, open_run
from .decision_rules import Draft, form_group
from .decisions import APPLIED, note_details, now
from .engine.local import Progress
from .own_files import dataset_folder, written_aside
from .runs import RunSummary
from .steps import plain_function

METHOD = "apply_decisions"

_CHUNK = 5_000
_SHOWN = 5


@dataclass
class Deletion:
    """What is to be deleted, and what speaks against it.

    Attributes:
        members: images or objects to delete.
        files: file by sample id, of the images.
        left: remaining members by number of their group.
        refusals: why it must not be done.
        notices: what the user should know.
    """

    members: list[Member]
    files: dict[str, str]
    left: dict[int, list[Member]]
    refusals: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def apply_decisions_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    dry_run: bool = True,
    confirm: str | None = None,
    delete_files: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Deletes from the dataset what a reviewer decided to drop: samples, or labels where objects were compared.

    Only what decisions on this run dropped is deleted, and only while it still bears its tag ``duplicate:drop``. The
    dry run, which is the default, changes nothing and tells what would go, and why it would be refused. A table of what
    is deleted is kept. Afterwards the decisions cannot be undone any more.

    Args:
        samples: a dataset or view; only its samples are deleted.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects``.
        dry_run: only tell what would be deleted.
        confirm: the name of the dataset, typed: without it nothing is deleted.
        delete_files: also delete the image files, which nothing brings back; for images only.

    Returns:
        What was, or would be, done: ``counts`` has ``drop``, ``groups`` that lose members, members that are ``kept`` in
        them and ``megabytes`` of files; ``details`` their ``bytes``, the ``refusals`` and some ``examples``.

    Raises:
        ConfigError: unless it is a dry run: the name is missing or wrong; a group would lose all its members, or,
            having changed since, all that were kept; what is to be dropped is in no group any more, or marked so by no
            decision in the log; or a file would be deleted that a remaining sample of any dataset uses.
    """
    started = time.perf_counter()
    run = open_run(samples, key)
    view = image_samples(samples)
    yield Progress(0, 1, label="Looking at what would be deleted")
    log = DecisionLog(run.dataset)
    with log.locked():
        plan = plan_deletion(view, run, delete_files)
        summary = _report(run, plan, dry_run, delete_files)
        if not dry_run and plan.members:
            _check(run, plan, confirm)
            yield from _delete(run, plan, log, summary, delete_files)
    summary.seconds = time.perf_counter() - started
    yield Progress(1, 1, label="Done")
    return summary


apply_decisions = plain_function(apply_decisions_steps)


def plan_deletion(view: foc.SampleCollection, run: ReviewedRun, delete_files: bool) -> Deletion:
    """What would be deleted from a view; reads only."""
    inside = None if view._dataset is view else set(view.values("id"))
    marked = [one for one in run.of_decision("drop") if inside is None or one.sample_id in inside]
    members = [one for one in marked if DROP in one.tags]
    going = {one.id for one in members}
    numbers = {one["group"] for one in members if one["group"] is not None}
    left: dict[int, list[Member]] = {number: [] for number in sorted(numbers)}
    for one in run.of_groups(numbers):
        if one.id not in going:
            left[one["group"]].append(one)
    plan = Deletion(members, read_files(run, [one.sample_id for one in members]), left)
    if spared := len(marked) - len(members):
        plan.notices.append(f"{spared:,} lost their tag {DROP} since they were decided on, and stay")
    if by_hand := _tagged_only(run, inside):
        plan.notices.append(
            f"{len(by_hand):,} images bear the tag {DROP}, or objects with it, that no decision on run {run.key!r} "
            f"gave; they stay, e.g. {by_hand[0]}"
        )
    _refuse(run, plan, delete_files)
    return plan


def _tagged_only(run: ReviewedRun, inside: set[str] | None) -> list[str]:
    """Files with members of groups that are tagged as dropped, though not by a decision on this run."""
    condition = {run.name("group"): {"$gte": 0}, "tags": DROP, run.name("decision"): {"$ne": "drop"}}
    if run.place.patches_field is not None:
        condition = {run.place.path("")[:-1]: {"$elemMatch": condition}}
    found = run.dataset._sample_collection.find(condition, {"filepath": 1})
    return [one["filepath"] for one in found if inside is None or str(one["_id"]) in inside]


def _refuse(run: ReviewedRun, plan: Deletion, delete_files: bool) -> None:
    emptied = [number for number, members in plan.left.items() if not members]
    if emptied:
        plan.refusals.append(f"groups {_some(emptied)} would lose all their members; keep one of each")
    alone = [one for one in plan.members if one["group"] is None]
    if alone:
        plan.refusals.append(
            f"{len(alone):,} are to be dropped but in no group any more, e.g. {_named(plan, alone[0])}, so nobody has "
            "seen what they are duplicates of; undo those decisions, or take their tags off"
        )
    runs = _dropped_in(run)
    unseen = [one for one in plan.members if one.id not in runs]
    if unseen:
        plan.refusals.append(
            f"{len(unseen):,} are marked as dropped but no reviewer decided it, e.g. {_named(plan, unseen[0])}; decide "
            f"on their groups, e.g. {_some(sorted({one['group'] for one in unseen if one['group'] is not None}))}, "
            f"or take the tag {DROP} off"
        )
    if unkept := _unkept(run, plan, runs):
        plan.refusals.append(
            f"groups {_some(unkept)} have changed since they were decided on, and nothing that was kept is left in "
            "them; decide on them again"
        )
    _refuse_files(run, plan, delete_files)


def _refuse_files(run: ReviewedRun, plan: Deletion, delete_files: bool) -> None:
    if delete_files and run.place.patches_field is not None:
        plan.refusals.append("objects have no files of their own; use delete_files=False")
    elif delete_files:
        for file, owner in _used_elsewhere(run, plan):
            plan.refusals.append(f"{file} is also used by {owner}; use delete_files=False, or remove it there first")


def _dropped_in(run: ReviewedRun) -> dict[str, str]:
    """Which run each member was last decided to be dropped in, by its id; those whose last decision is another lack."""
    log, name = DecisionLog(run.dataset), run.name("decision")
    found: dict[str, str] = {}
    for decision in log.decisions(run.key):
        for changes in log.changes(decision):
            found |= {one.id: decision.run_time for one in changes if one.after.get(name) == "drop"}
            for one in changes:
                if name in one.after and one.after[name] != "drop":
                    found.pop(one.id, None)
    return found


def _unkept(run: ReviewedRun, plan: Deletion, runs: dict[str, str]) -> list[int]:
    """Groups in which nothing is left that a reviewer, or the search which was reviewed, chose to keep."""
    stale = {one["group"] for one in plan.members if runs.get(one.id, run.time) != run.time}

    def kept(number: int, one: Member) -> bool:
        return one["decision"] == "keep" or (one["role"] == "keeper" and number not in stale)

    return [number for number, left in plan.left.items() if left and not any(kept(number, one) for one in left)]


def _some(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_SHOWN])) + (", ..." if len(numbers) > _SHOWN else "")


def _named(plan: Deletion, one: Member) -> str:
    return f"{one.id} ({plan.files.get(one.sample_id)})"


def _used_elsewhere(run: ReviewedRun, plan: Deletion) -> Iterator[tuple[str, str]]:
    """Files to be deleted that a remaining sample of any dataset uses, one per dataset."""
    database, files = foo.get_db_conn(), sorted(set(plan.files.values()))
    gone = {one.sample_id for one in plan.members}
    for dataset in database["datasets"].find({}, {"name": 1, "sample_collection_name": 1}):
        collection = dataset.get("sample_collection_name") or ""
        # The others belong to views of patches, frames and clips, which vanish with what they show.
        if not collection.startswith("samples."):
            continue
        own = collection == run.dataset._sample_collection_name
        for start in range(0, len(files), _CHUNK):
            query = {"filepath": {"$in": files[start : start + _CHUNK]}}
            users = database[collection].find(query, {"filepath": 1})
            other = next((one for one in users if not own or str(one["_id"]) not in gone), None)
            if other is not None:
                yield other["filepath"], f"sample {other['_id']} of dataset {dataset['name']!r}"
                break


def _report(run: ReviewedRun, plan: Deletion, dry_run: bool, delete_files: bool) -> RunSummary:
    things = run.place.things
    # Objects have no files of their own: their images stay.
    files = set(plan.files.values()) if run.place.patches_field is None else set()
    size = sum(os.path.getsize(file) for file in files if os.path.isfile(file))
    counts = {
        "drop": len(plan.members),
        "groups": len(plan.left),
        "kept": sum(map(len, plan.left.values())),
        "megabytes": round(size / 1e6),
    }
    examples = [plan.files.get(one.sample_id) for one in plan.members[:_SHOWN]]
    details = {"key": run.key, "dry_run": dry_run, "bytes": size, "refusals": plan.refusals, "examples": examples}
    notices = list(plan.notices)
    if not plan.members:
        notices.append(f"no {things} are decided to be dropped, so there is nothing to delete")
    elif dry_run:
        fate = "deleted, files as well" if delete_files else "removed from the dataset; files stay"
        notices.append(f"dry run: {len(plan.members):,} {things} would be {fate}")
        notices += [f"refused as it stands: {reason}" for reason in plan.refusals]
    return RunSummary(None, METHOD, counts, details=details, notices=notices)


def _check(run: ReviewedRun, plan: Deletion, confirm: str | None) -> None:
    if plan.refusals:
        raise ConfigError("; ".join(plan.refusals))
    if confirm != run.dataset.name:
        raise ConfigError(
            f"confirm={confirm!r}: this deletes {len(plan.members):,} {run.place.things}; pass the dataset's name, "
            f"confirm={run.dataset.name!r}, to do so"
        )


def _delete(
    run: ReviewedRun, plan: Deletion, log: DecisionLog, summary: RunSummary, delete_files: bool
) -> Generator[Progress, None, None]:
    moment = now()
    table = dataset_folder(run.dataset, "applied") / f"{run.key}_{moment:%Y%m%d_%H%M%S_%f}.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(table) as stream:
        stream.write(decision_table(image_samples(run.dataset), run, "csv").encode())
    ids = [one.id for one in plan.members]
    last = log.last(run.key)
    earlier = dict(last.totals) if last else {}
    totals = {**earlier, "decisions": 0, "drop": max(earlier.get("drop", 0) - len(ids), 0)}
    # Before anything goes: if it is killed half-way, undo must not pretend to bring back what is gone.
    log.append(_entry(run, log, len(ids), moment, totals), [], Links())
    for start in range(0, len(ids), _CHUNK):
        yield Progress(start, len(ids), label="Deleting")
        _delete_items(run, ids[start : start + _CHUNK])
        log.renew()
    remaining = [one for members in plan.left.values() for one in members]
    draft = Draft(run, remaining)
    for number, members in plan.left.items():
        # Whose keeper is gone cannot be measured against it; how like it is to the new one is not known.
        form_group(draft, members, number, lambda _: {})
    run.write(draft.changes(), log.renew)
    if delete_files:
        summary.failed |= _unlink(plan.files)
    facts = {"time": moment.isoformat(), "deleted": len(ids), "files": delete_files, "table": str(table)}
    note_details(run, totals, applied=facts)
    summary.details["table"] = str(table)
    summary.notices.append(
        f"{len(ids):,} {run.place.things} were deleted; {table} lists all groups as they were before"
    )


def _delete_items(run: ReviewedRun, ids: Sequence[str]) -> None:
    if run.place.patches_field is None:
        run.dataset.delete_samples(list(ids))
    else:
        run.dataset.delete_labels(ids=list(ids), fields=run.place.patches_field)


def _unlink(files: dict[str, str]) -> dict[str, str]:
    failed = {}
    # Two samples may have shown the same file.
    for file, sample_id in {file: sample_id for sample_id, file in files.items()}.items():
        try:
            os.unlink(file)
        except OSError as error:
            failed[sample_id] = f"{file} could not be deleted ({error.strerror or error})"
    return failed


def _entry(run: ReviewedRun, log: DecisionLog, deleted: int, moment: datetime, totals: dict[str, int]) -> Decision:
    counts = {"changed": deleted, "keep": 0, "drop": deleted, "reject": 0, "by_hand": 0, "tagged": 0, "untagged": 0}
    return Decision(log.next_sequence(), run.key, APPLIED, (), (), (), None, moment, run.time, counts, totals)
