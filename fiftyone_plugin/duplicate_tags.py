"""Tagging what to keep and what to drop, with an undo of any depth; nothing is ever deleted."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone.core.collections as foc
import fiftyone.core.view as fov

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .duplicate_store import DUPLICATE, KEEPER, DuplicateFields, find_record
from .engine.local import Progress
from .runs import RunSummary, list_records, load_results, register_run
from .steps import plain_function

METHOD = "tag_duplicates"

KEEP, DROP = "duplicate:keep", "duplicate:drop"

# What each action does: role → tag; samples with another role get none.
TAG_ACTIONS: dict[str, dict[str, str]] = {
    "drop_duplicates": {KEEPER: KEEP, DUPLICATE: DROP},
    "drop_only": {DUPLICATE: DROP},
    "keep_only": {KEEPER: KEEP},
    "keep_all": {KEEPER: KEEP, DUPLICATE: KEEP},
}

TAG_ACTION_LABELS: dict[str, str] = {
    "drop_duplicates": "Keep the best of each group, drop the others",
    "drop_only": "Mark only what to drop",
    "keep_only": "Mark only what to keep",
    "keep_all": "Keep all: these are no duplicates",
}

_CHUNK = 10_000

# Tag → ids of samples.
TagSets = dict[str, set[str]]


@dataclass(frozen=True)
class TagChange:
    """One action: exactly which tags it put on which samples, and which of earlier actions it took off.

    Attributes:
        sequence: number of the action in the dataset, over all keys.
        run_key: where it is recorded.
        key: the duplicate run that it followed.
    """

    sequence: int
    run_key: str
    key: str
    added: TagSets
    removed: TagSets

    @property
    def touched(self) -> set[str]:
        """All samples that the action changed."""
        return set().union(*self.added.values(), *self.removed.values())


def tag_duplicates_steps(
    samples: foc.SampleCollection, key: str = "dup", *, action: str = "drop_duplicates"
) -> Generator[Progress, None, RunSummary]:
    """Tags the samples of a view by their role in a duplicate run: ``duplicate:keep`` and ``duplicate:drop``.

    Running it again changes nothing. Tags that an earlier action put on the view's samples and that no longer fit
    their roles (after another threshold, say) are replaced. Tags that somebody put there by hand are a decision: they
    stay, and such a sample gets no contrary tag. Each action that changes anything is recorded with the exact samples,
    so that :func:`undo_duplicate_tags` can take back just that.

    Args:
        samples: a dataset or view; only its samples are tagged.
        key: key of a run of ``find_duplicates`` or ``find_exact_duplicates``.
        action: ``"drop_duplicates"``: keep the keepers, drop the duplicates; ``"drop_only"`` and ``"keep_only"``: only
            one of the two tags; ``"keep_all"``: keep every member of a group.

    Returns:
        What was done; ``counts`` has ``keep`` and ``drop`` (tags added), ``replaced`` (tags of earlier actions removed)
        and ``by_hand`` (samples whose tags were respected). ``key`` is None where nothing had to be done.

    Raises:
        ConfigError: no such run, or an unknown action.
    """
    if action not in TAG_ACTIONS:
        raise ConfigError(f"action={action!r} is unknown; use one of {', '.join(TAG_ACTIONS)}")
    started = time.perf_counter()
    find_record(samples, key)
    samples = image_samples(samples)
    ids, roles, tags = samples.exists(DuplicateFields(key).role).values(["id", DuplicateFields(key).role, "tags"])
    yield Progress(0, len(ids), label="Tagging duplicates")
    history = list(_history(samples))
    ours = _present(history)
    added, removed, by_hand = _plan(ids, roles, tags, TAG_ACTIONS[action], ours)
    counts = {
        "total": len(ids),
        "keep": len(added[KEEP]),
        "drop": len(added[DROP]),
        "replaced": len(removed[KEEP]) + len(removed[DROP]),
        "by_hand": by_hand,
    }
    summary = RunSummary(None, METHOD, counts, details={"key": key, "action": action})
    if not any([*added.values(), *removed.values()]):
        summary.notices.append("all tags are in place already, so nothing was changed")
        return summary
    sequence = history[-1].sequence + 1 if history else 1
    summary.key = f"{key}_tags_{sequence}"
    # Recorded first: should the tagging be killed half-way, undo still knows all that it may have to take back.
    change = {"added": _lists(added), "removed": _lists(removed)}
    register_run(samples, summary, {"key": key, "action": action, "sequence": sequence}, results=change)
    _apply(samples, add=added, remove=removed)
    summary.seconds = time.perf_counter() - started
    yield Progress(len(ids), len(ids), label="Done")
    return summary


def undo_duplicate_tags_steps(samples: foc.SampleCollection, key: str = "dup") -> Generator[Progress, None, RunSummary]:
    """Takes back the last action of :func:`tag_duplicates` on a key; repeat it to go further back.

    The whole action is undone, also outside the view. Tags that were there before it, or that were given by hand, stay.

    Args:
        samples: the dataset, or a view of it.
        key: the key of the duplicate run that was tagged.

    Returns:
        What was done; ``counts`` has ``untagged`` and ``restored`` tags and ``left``, the actions that can be undone
        still.

    Raises:
        ConfigError: there is nothing to undo, or a later action on another key builds on it.
    """
    samples = image_samples(samples)
    history = list(_history(samples))
    own = [change for change in history if change.key == key]
    if not own:
        keys = sorted({change.key for change in history})
        hint = f"; there are actions on {', '.join(map(repr, keys))}" if keys else ""
        raise ConfigError(f"no tags of duplicate run {key!r} are left to undo{hint}")
    last = own[-1]
    for later in history[history.index(last) + 1 :]:
        if later.touched & last.touched:
            raise ConfigError(
                f"later tags of duplicate run {later.key!r} are on the same samples; undo those first: "
                f"undo_duplicate_tags(dataset, {later.key!r})"
            )
    yield Progress(0, len(last.touched), label="Removing tags")
    whole = image_samples(samples._dataset)
    _apply(whole, add=last.removed, remove=last.added)
    samples._dataset.delete_run(last.run_key)
    counts = {
        "total": len(last.touched),
        "untagged": sum(map(len, last.added.values())),
        "restored": sum(map(len, last.removed.values())),
        "left": len(own) - 1,
    }
    yield Progress(len(last.touched), len(last.touched), label="Done")
    return RunSummary(None, "undo_duplicate_tags", counts, details={"key": key, "undone": last.run_key})


tag_duplicates = plain_function(tag_duplicates_steps)
undo_duplicate_tags = plain_function(undo_duplicate_tags_steps)


def undoable_actions(samples: foc.SampleCollection, key: str | None = None) -> list[dict[str, Any]]:
    """Records of the tag actions that can be undone, the latest last; optionally of one key only."""
    records = list_records(samples, method=METHOD)
    records.sort(key=lambda record: record["config"]["sequence"])
    return [record for record in records if key in (None, record["config"]["key"])]


def _history(samples: foc.SampleCollection) -> Iterator[TagChange]:
    """All actions that were not undone, oldest first."""
    for record in undoable_actions(samples):
        change = load_results(samples, record["key"]) or {}
        added, removed = (
            {tag: set(change.get(part, {}).get(tag, ())) for tag in (KEEP, DROP)} for part in ("added", "removed")
        )
        yield TagChange(record["config"]["sequence"], record["key"], record["config"]["key"], added, removed)


def _present(history: Sequence[TagChange]) -> TagSets:
    """Which tags are there because of our actions."""
    ours: TagSets = {KEEP: set(), DROP: set()}
    for change in history:
        for tag, ids in ours.items():
            ids -= change.removed[tag]
            ids |= change.added[tag]
    return ours


def _plan(
    ids: Sequence[str],
    roles: Sequence[str],
    tags: Sequence[Sequence[str] | None],
    action: Mapping[str, str],
    ours: TagSets,
) -> tuple[TagSets, TagSets, int]:
    """Tags to add, tags of earlier actions to remove, and the number of samples left to a decision made by hand."""
    added: TagSets = {KEEP: set(), DROP: set()}
    removed: TagSets = {KEEP: set(), DROP: set()}
    by_hand = 0
    for sample_id, role, current in zip(ids, roles, tags, strict=True):
        wanted = action.get(role)
        present = {KEEP, DROP}.intersection(current or ())
        decided = {tag for tag in present if sample_id not in ours[tag]}
        if wanted is not None and decided - {wanted}:
            by_hand += 1
            wanted = None
        for tag in present - decided - {wanted}:
            removed[tag].add(sample_id)
        if wanted is not None and wanted not in present:
            added[wanted].add(sample_id)
    return added, removed, by_hand


def _apply(samples: foc.SampleCollection, *, add: TagSets, remove: TagSets) -> None:
    """Only samples that lack (or have) the tag are written."""
    for tag, ids in remove.items():
        for view in _chunks(samples, ids):
            view.untag_samples(tag)
    for tag, ids in add.items():
        for view in _chunks(samples, ids):
            view.tag_samples(tag)


def _chunks(samples: foc.SampleCollection, ids: set[str]) -> Iterator[foc.SampleCollection]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _CHUNK):
        yield fov.make_optimized_select_view(samples, ordered[start : start + _CHUNK])


def _lists(sets: TagSets) -> dict[str, list[str]]:
    return {tag: sorted(ids) for tag, ids in sets.items()}
