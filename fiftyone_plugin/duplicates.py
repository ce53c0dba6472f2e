"""Near duplicates and images of the same object: from vectors in a field to groups with a keeper each."""

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.keeper import KeeperPolicy
from ..brain.neighbors import Pairs, mutual_knn_pairs_steps, radius_pairs_steps
from ..brain.thresholds import neighbour_profile
from .dataset_io import image_samples
from .duplicate_grouping import (
    GroupingSettings,
    GroupingTask,
    SearchMethod,
    group_and_measure,
    in_stage,
    keeper_policy,
)
from .duplicate_store import (
    DuplicateFields,
    StoredPairs,
    check_key,
    declare_groups,
    find_record,
    group_counts,
    load_pairs,
    nothing_to_compare,
    update_record,
    write_outcome,
)
from .engine.local import Progress
from .runs import RunSummary, register_run
from .steps import plain_function
from .vectors import VectorTable, check_vector_field, read_vectors

METHOD = "find_duplicates"

# Vectors of a field whose cosines moved by more than this are not the vectors that were searched.
_SAME_VECTORS = 1e-3


def find_duplicates_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    embeddings: str = "ffa",
    threshold: float | None = None,
    method: SearchMethod = "threshold",
    k: int = 10,
    max_diameter: float | None = None,
    keeper: KeeperPolicy | Mapping[str, float] | None = None,
    device: str = "auto",
    num_workers: int = 2,
) -> Generator[Progress, None, RunSummary]:
    """Finds groups of near duplicates, or of images of the same object, among the samples of a view.

    Similarity is the raw cosine of the vectors: nothing is centred, and neither vectors nor indexes are changed.
    Results are the fields ``<key>_group``, ``_size``, ``_role``, ``_of``, ``_similarity``, ``_kind``, ``_quality`` and
    ``_error``. Samples outside the view are left alone, except that results of an earlier run with this key are
    cleared, because its group numbers mean nothing any more. Pairs somewhat below the threshold are kept with the run
    record, so that :func:`regroup_duplicates` can move the threshold without a new search.

    Args:
        samples: a dataset or view; of a grouped dataset all image slices.
        key: name of the run and prefix of its fields.
        embeddings: field with one vector per sample, e.g. made by ``compute_ffa``.
        threshold: least cosine of a pair; None chooses it from the density of the data (see
            :meth:`.brain.thresholds.NeighbourProfile.suggest`) and says why in the summary and the run record.
        method: ``"threshold"``: every pair above the threshold is a link; ``"mutual_knn"``: only if, besides, each is
            among the ``k`` nearest of the other.
        k: see ``method``.
        max_diameter: largest cosine distance between any two images of a group, so that chains of near neighbours
            do not melt into one group; None is twice the distance of the threshold, 2 sets no limit.
        keeper: weights by which the image to keep is chosen in each group; see :class:`.brain.keeper.KeeperPolicy`.
        device: where similarities are computed: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        num_workers: threads that decode the members of groups to measure their quality.

    Returns:
        What was done; ``counts`` has ``groups``, ``duplicates`` and ``largest``, ``details`` the threshold.

    Raises:
        ConfigError: an option cannot work, no sample has a vector, or vectors differ in length.
    """
    started = time.perf_counter()
    settings = GroupingSettings(embeddings, threshold, method, k, max_diameter, keeper_policy(keeper))
    samples = image_samples(samples)
    check_key(samples, key, METHOD)
    total = samples.count()
    if not total:
        return nothing_to_compare(METHOD)
    check_vector_field(samples, embeddings)
    table = yield from in_stage(read_vectors(samples, embeddings), total, 0.0, 0.3, "Reading vectors")
    found = yield from in_stage(_search(table, settings, device), total, 0.3, 0.7, "Comparing vectors")
    task = GroupingTask(samples, key, table.ids, table.matrix, found.pairs, found.threshold, settings, num_workers)
    declare_groups(samples, key, _info(task))
    outcome = yield from group_and_measure(task, total)
    outcome = replace(outcome, failed=table.missing | outcome.failed)
    yield Progress(int(0.95 * total), total, label="Writing groups")
    update_record(samples, key, status="interrupted")
    write_outcome(samples, key, outcome)
    stored, _ = StoredPairs.compact(table.ids, found.pairs)
    summary = RunSummary(key, METHOD, seconds=time.perf_counter() - started, failed=dict(outcome.failed))
    summary.images_per_second = len(table.ids) / summary.seconds
    summary.counts = {"total": total, "done": len(table.ids), "skipped": 0, "failed": len(table.missing)}
    summary.counts |= group_counts(outcome.groups)
    summary.details = _details(task, found.reason)
    summary.notices = _notices(summary, task, len(table.missing))
    register_run(samples, summary, settings.config(), results=stored.to_results())
    yield Progress(total, total, label="Done")
    return summary


def regroup_duplicates_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    threshold: float | None = None,
    max_diameter: float | None = None,
    keeper: KeeperPolicy | Mapping[str, float] | None = None,
    num_workers: int = 2,
) -> Generator[Progress, None, RunSummary]:
    """Forms the groups of a run anew from the pairs that it kept, without searching again.

    The groups of the whole run change, also where ``samples`` is only a part of what it ran on.

    Args:
        samples: the dataset of the run, or a view of it.
        key: key of a run of ``find_duplicates``.
        threshold: new threshold; None keeps the present one. It may be lower than that of the run as long as pairs
            were kept (``details["pairs_kept_down_to"]`` of the run record).
        max_diameter: as for ``find_duplicates``; None keeps the run's setting.
        keeper: new weights; None keeps the present ones.
        num_workers: threads that measure images which were in no group before.

    Returns:
        What the groups are now; only samples that are in any kept pair count as ``total``.

    Raises:
        ConfigError: no such run, a threshold below the pairs that were kept, or vectors that changed since.
    """
    started = time.perf_counter()
    record = find_record(samples, key)
    stored = load_pairs(samples, record)
    old = GroupingSettings.from_config(record["config"])
    settings = replace(
        old,
        threshold=record["details"]["threshold"] if threshold is None else threshold,
        max_diameter=old.max_diameter if max_diameter is None else max_diameter,
        keeper=old.keeper if keeper is None else keeper_policy(keeper),
    )
    if settings.threshold < stored.pairs.threshold:
        raise ConfigError(
            f"threshold={settings.threshold:g} is below {stored.pairs.threshold:g}, down to which run {key!r} kept "
            f"pairs; run find_duplicates with threshold={settings.threshold:g}"
        )
    samples = image_samples(samples._dataset)
    total = len(stored.ids)
    table, pairs = yield from in_stage(
        _reload(samples, stored, settings.embeddings), total, 0.0, 0.3, "Reading vectors"
    )
    task = GroupingTask(samples, key, table.ids, table.matrix, pairs, settings.threshold, settings, num_workers)
    outcome = yield from group_and_measure(task, total)
    update_record(samples, key, status="interrupted")
    declare_groups(samples, key, _info(task))
    write_outcome(samples, key, outcome, replace_all=False)
    counts = group_counts(outcome.groups)
    details = record["details"] | _details(
        task, "given" if threshold is not None else record["details"]["threshold_reason"]
    )
    update_record(
        samples, key, status="completed", config=settings.config(), counts=record["counts"] | counts, details=details
    )
    yield Progress(total, total, label="Done")
    summary = RunSummary(key, METHOD, {"total": total, "done": len(table.ids), "skipped": 0, "failed": 0} | counts)
    summary.seconds, summary.details, summary.failed = time.perf_counter() - started, details, dict(outcome.failed)
    summary.notices = _notices(summary, task, 0)
    return summary


find_duplicates = plain_function(find_duplicates_steps)
regroup_duplicates = plain_function(regroup_duplicates_steps)


@dataclass(frozen=True)
class _Found:
    pairs: Pairs
    threshold: float
    reason: str


def _search(table: VectorTable, settings: GroupingSettings, device: str) -> Generator[float, None, _Found]:
    profile = neighbour_profile(table.matrix)
    threshold, reason = (settings.threshold, "given") if settings.threshold is not None else profile.suggest()
    if settings.method == "mutual_knn":
        search = partial(mutual_knn_pairs_steps, table.matrix, settings.k, device=device)
    else:
        search = partial(radius_pairs_steps, table.matrix, device=device)
    floor = profile.floor(threshold)
    try:
        pairs = yield from search(threshold=floor)
    except ConfigError:
        if floor >= threshold:
            raise
        # Pairs below the threshold are a convenience; too many of them must not spoil the search itself.
        pairs = yield from search(threshold=threshold)
    return _Found(pairs, float(threshold), reason)


def _reload(
    samples: foc.SampleCollection, stored: StoredPairs, path: str
) -> Generator[float, None, tuple[VectorTable, Pairs]]:
    """Vectors of the samples in stored pairs, and the pairs renumbered to those that still exist.

    Raises:
        ConfigError: the vectors are not those of the search.
    """
    table = yield from read_vectors(samples, path, stored.ids)
    row_of = {sample_id: row for row, sample_id in enumerate(table.ids)}
    new = np.array([row_of.get(sample_id, -1) for sample_id in stored.ids], np.int32)
    pairs = stored.pairs
    i, j = new[pairs.i], new[pairs.j]
    alive = (i >= 0) & (j >= 0)
    pairs = Pairs(i[alive], j[alive], pairs.similarity[alive], pairs.threshold)
    for start in range(0, len(pairs), 4096):
        part = slice(start, start + 4096)
        a, b = table.matrix[pairs.i[part]], table.matrix[pairs.j[part]]
        cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        if np.abs(cosine - pairs.similarity[part]).max(initial=0.0) > _SAME_VECTORS:
            raise ConfigError(
                f"the vectors in {path!r} have changed since they were searched; run find_duplicates again"
            )
    return table, pairs


def _info(task: GroupingTask) -> dict[str, Any]:
    """What ``field.info`` says of where the groups come from."""
    settings = task.settings.config()
    return {**settings, "method": METHOD, "run": task.key, "search": settings["method"], "threshold": task.threshold}


def _details(task: GroupingTask, reason: str) -> dict[str, Any]:
    return {
        "threshold": float(task.threshold),
        "threshold_reason": reason,
        "max_diameter": task.settings.diameter(task.threshold),
        "pairs": len(task.pairs.at_least(task.threshold)),
        "pairs_kept": len(task.pairs),
        "pairs_kept_down_to": float(task.pairs.threshold),
        "fields": list(DuplicateFields(task.key).shown),
    }


def _notices(summary: RunSummary, task: GroupingTask, missing: int) -> list[str]:
    path, notices = task.settings.embeddings, []
    reason = summary.details["threshold_reason"]
    notices.append(f"{summary.counts['groups']:,} groups at threshold {task.threshold:.4f} ({reason})")
    if missing:
        notices.append(
            f"{missing:,} samples have no usable vector in {path!r} and were left out; "
            f"{DuplicateFields(task.key).error} says why"
        )
    if unmeasured := len(summary.failed) - missing:
        notices.append(
            f"{unmeasured:,} images in groups could not be decoded, so another one of their group is kept if there is "
            f"any; {DuplicateFields(task.key).error} says why"
        )
    if not summary.counts["groups"] and len(task.pairs):
        best = float(task.pairs.similarity.max())
        notices.append(f"the most similar pair is at {best:.4f}; a threshold below that gives groups")
    return notices
