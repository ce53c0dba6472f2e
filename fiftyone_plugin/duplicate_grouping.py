"""From pairs to groups: shots, quality of the members, kinds, risk and keepers."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.constraints import Constraints
from ..brain.grouping import UNGROUPED, assign_roles, group_pairs, group_risk, number_parts
from ..brain.keeper import choose_keepers
from ..brain.neighbors import Pairs
from ..brain.same_shot import EXACT, NEAR, SAME_OBJECT, SHOT_THRESHOLD, shot_labels
from .duplicate_settings import GroupingSettings, keeper_policy
from .duplicate_shots import ShotTask, compare_shots
from .duplicate_store import MEASURING, SIMILAR, DuplicateFields, Outcome
from .engine.local import Job, Progress, stream
from .fingerprints import FingerprintMethod, ObjectFingerprintMethod, read_fields
from .item_fields import read_items
from .keeper_facts import keeper_scores
from .steps import in_stage, shares
from .stored_pairs import Verified
from .vectors import VectorTable

__all__ = ["GroupingTask", "Members", "group_and_measure", "keeper_policy"]


@dataclass(frozen=True)
class GroupingTask:
    """Pairs to be grouped; their rows are those of the table.

    Attributes:
        scores: ``(p,)`` float32 score of each pair as the same shot; NaN where it was not compared. Filled in.
        constraints: what reviewers have decided.
        verified: what a matcher said of the pairs.
    """

    samples: foc.SampleCollection
    key: str
    table: VectorTable
    pairs: Pairs
    scores: np.ndarray
    threshold: float
    settings: GroupingSettings
    num_workers: int
    constraints: Constraints = field(default_factory=Constraints)
    verified: Verified | None = None

    @property
    def names(self) -> DuplicateFields:
        """Where the results go."""
        return DuplicateFields(self.key, self.settings.place)


@dataclass(frozen=True)
class Members:
    """The members of all groups.

    Attributes:
        rows: ``(m,)`` rows of the table.
        ids: their ids.
        digests: equal for equal pictures; None where there is none.
        measures: what keeper scores are made of; None where the picture could not be measured.
        failed: reason by id of those.
    """

    rows: np.ndarray
    ids: list[str]
    digests: list[str | None]
    measures: list[dict[str, float] | None]
    failed: dict[str, str]


def group_and_measure(task: GroupingTask, total: int) -> Generator[Progress, None, Outcome]:
    """Groups, measures the members, tells their shots apart and chooses keepers."""
    settings, pairs, near = task.settings, task.pairs, task.settings.kind == NEAR
    if near:
        linked = pairs.similarity >= np.float32(task.threshold)
        yield from in_stage(_compare(task, linked, {}), total, 0.7, 0.85, "Comparing pictures")
    labels = group_pairs(
        len(task.table.ids),
        pairs,
        task.threshold,
        max_diameter=settings.diameter(task.threshold),
        vectors=task.table.matrix if settings.needs_vectors(pairs, task.threshold) else None,
        links=task.scores >= SHOT_THRESHOLD if near else None,
        constraints=task.constraints,
    )
    rows, begin = np.flatnonzero(labels != UNGROUPED), 0.85 if near else 0.7
    members = yield from in_stage(_measure(task, rows), total, begin, begin + 0.1, "Measuring duplicates")
    shots = np.where(labels == UNGROUPED, UNGROUPED, 0).astype(np.int32)
    if not settings.shots and not near:
        shots[:] = UNGROUPED
    elif not near:
        digests = dict(zip(members.rows.tolist(), members.digests, strict=True))
        inside = (labels[pairs.i] == labels[pairs.j]) & (labels[pairs.i] != UNGROUPED)
        yield from in_stage(_compare(task, inside, digests), total, 0.8, 0.95, "Comparing pictures")
        shots = _shots(task, labels, inside)
    quality = np.full(len(labels), -np.inf)
    quality[members.rows] = _scores(task, members)
    return Outcome(
        task.table.ids,
        assign_roles(labels, quality, vectors=task.table.matrix, keepers=_keepers(task, labels, quality, members.rows)),
        _kinds(labels, shots, members),
        shots,
        group_risk(
            labels, pairs, task.threshold, shots=shots, verified=None if task.verified is None else task.verified.sure
        ),
        quality,
        members.failed,
        task.table.homes,
    )


def _compare(task: GroupingTask, chosen: np.ndarray, digests: Mapping[int, str | None]) -> Generator[float, None, None]:
    table, settings = task.table, task.settings
    shots = ShotTask(task.samples, settings.place, table.ids, table.homes, task.num_workers)
    yield from compare_shots(shots, task.pairs, task.scores, chosen, digests)


def _shots(task: GroupingTask, labels: np.ndarray, inside: np.ndarray) -> np.ndarray:
    compared = np.flatnonzero(inside & np.isfinite(task.scores))
    ends = np.stack([task.pairs.i[compared], task.pairs.j[compared]], axis=1)
    rows, renumbered = np.unique(ends, return_inverse=True)
    parts = np.arange(len(labels), dtype=np.int64)
    found = shot_labels(len(rows), renumbered.reshape(-1, 2), task.scores[compared])
    parts[rows] = len(labels) + found
    return number_parts(labels, parts)


def _measure(task: GroupingTask, rows: np.ndarray) -> Generator[float, None, Members]:
    """Decodes the members of groups that were not measured yet."""
    ids = [task.table.ids[row] for row in rows]
    if not ids:
        return Members(rows, [], [], [], {})
    homes: dict[str, list[str]] = {}
    for item_id in ids:
        homes.setdefault(task.table.homes.get(item_id, item_id), []).append(item_id)
    view = fov.make_optimized_select_view(task.samples, list(homes))
    place = task.settings.place
    method: Any = (
        FingerprintMethod(MEASURING, task.key, "pixels", measure=True)
        if place.patches_field is None
        else ObjectFingerprintMethod(MEASURING, task.key, place, homes)
    )
    job = Job(view, method, f"{task.key}_images", "Measuring duplicates", batch_size=64, num_workers=task.num_workers)
    summary = yield from shares(stream(job))
    names = [task.names.name("digest"), task.names.name("measures")]
    if place.patches_field is None:
        facts = read_fields(task.samples, ids, names)
    else:
        facts = {item.id: item.values for item in read_items(view, place, names)}
    digests, measures = ([facts.get(item_id, (None, None))[column] for item_id in ids] for column in (0, 1))
    failed = {}
    for item_id, found in zip(ids, measures, strict=True):
        reason = summary.failed.get(task.table.homes.get(item_id, item_id))
        if found is None and reason is not None:
            failed[item_id] = reason
    return Members(rows, ids, digests, measures, failed)


def _scores(task: GroupingTask, members: Members) -> np.ndarray:
    homes = [task.table.homes.get(item_id, item_id) for item_id in members.ids]
    return keeper_scores(task.samples, homes, members.measures, task.settings.keeper, task.settings.keeper_rule)


def _keepers(task: GroupingTask, labels: np.ndarray, quality: np.ndarray, rows: np.ndarray) -> np.ndarray:
    diverse = task.settings.keeper_rule == "diverse"
    keepers = np.zeros(len(labels), bool)
    keepers[rows] = choose_keepers(
        labels[rows],
        quality[rows],
        rule_keep=task.settings.keep,
        vectors=task.table.matrix[rows] if diverse else None,
    )
    return keepers


def _kinds(labels: np.ndarray, shots: np.ndarray, members: Members) -> list[str]:
    """The loosest kind that each group needs."""
    groups = int(labels.max(initial=UNGROUPED)) + 1
    digests: list[set[str | None]] = [set() for _ in range(groups)]
    for row, digest in zip(members.rows, members.digests, strict=True):
        digests[labels[row]].add(digest)
    least, most = np.full(groups, np.iinfo(np.int32).max), np.full(groups, UNGROUPED)
    np.minimum.at(least, labels[members.rows], shots[members.rows])
    np.maximum.at(most, labels[members.rows], shots[members.rows])
    kinds = []
    for group, found in enumerate(digests):
        if len(found) == 1 and None not in found:
            kinds.append(EXACT)
        elif least[group] == UNGROUPED:
            kinds.append(SIMILAR)
        else:
            kinds.append(NEAR if most[group] == 0 else SAME_OBJECT)
    return kinds
