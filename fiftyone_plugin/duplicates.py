"""Near duplicates and pictures of the same object: from vectors in a field to groups with a keeper each."""

import time
from collections.abc import Generator, Mapping
from dataclasses import replace

import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from ..brain.keeper import KeeperPolicy
from ..brain.neighbors import Pairs
from .dataset_io import image_samples
from .duplicate_grouping import GroupingTask, group_and_measure
from .duplicate_report import describe, group_info, group_notices, search_notices
from .duplicate_search import check_cosines, earlier_search, ids_to_cover, reviewed, search_steps
from .duplicate_settings import Engine, GroupingSettings, LinkKind, SearchMethod, keeper_policy
from .duplicate_store import (
    check_key,
    clear_other_place,
    declare_groups,
    find_record,
    group_counts,
    load_pairs,
    nothing_to_compare,
    save_scores,
    update_record,
    write_outcome,
)
from .engine.local import Progress
from .runs import RunSummary, register_run
from .steps import in_stage, plain_function
from .stored_pairs import Compared, StoredPairs, vector_stamps
from .vectors import VectorTable, check_vector_field, read_vectors

METHOD = "find_duplicates"

# Vectors of a field whose cosines moved by more than this are not the vectors that were searched.
_SAME_VECTORS = 1e-3


def find_duplicates_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    embeddings: str = "ffa",
    patches_field: str | None = None,
    threshold: float | None = None,
    method: SearchMethod = "threshold",
    k: int = 10,
    max_diameter: float | None = None,
    kind: LinkKind = "same_object",
    engine: Engine = "auto",
    incremental: bool = False,
    keeper: KeeperPolicy | Mapping[str, float] | None = None,
    keeper_rule: str = "quality",
    keep: int = 1,
    shots: bool = True,
    device: str = "auto",
    num_workers: int = 2,
) -> Generator[Progress, None, RunSummary]:
    """Finds groups of near duplicates, or of pictures of the same object, among the images or objects of a view.

    Similarity is the raw cosine of the vectors: nothing is centred, and neither vectors nor indexes are changed.
    Results are the fields ``<key>_group``, ``_size``, ``_role``, ``_of``, ``_similarity``, ``_kind``, ``_shot``,
    ``_risk``, ``_quality`` and ``_error`` of the samples, or with ``patches_field`` attributes of each of its
    detections. Whatever is outside the view is left alone, except that results of an earlier run with this key are
    cleared, because its group numbers mean nothing any more. Pairs somewhat below the threshold are kept with the run
    record, so that :func:`regroup_duplicates` can move the threshold without a new search. What reviewers decided under
    this key is honoured: who was confirmed to belong together is one group, who was rejected is not.

    Args:
        samples: a dataset or view; of a grouped dataset all image slices.
        key: name of the run and prefix of its fields.
        embeddings: field with one vector per sample, e.g. made by ``compute_ffa``; with ``patches_field`` the attribute
            of its detections that holds their vectors.
        patches_field: compare the objects of this Detections field instead of the images.
        threshold: least cosine of a pair; None chooses it from earlier decisions or from the data (see
            :func:`.brain.thresholds.suggest_threshold`) and says why in the summary and the run record.
        method: ``"threshold"``: every pair above the threshold is a link; ``"mutual_knn"``: only if, besides, each is
            among the ``k`` nearest of the other.
        k: see ``method``.
        max_diameter: largest cosine distance between any two members of a group, so that chains of near neighbours
            do not melt into one group; None is twice the distance of the threshold, 2 sets no limit.
        kind: ``"same_object"``: all links count; ``"near"``: only those between pictures of one shot (re-encoded,
            resized, cropped, recoloured, the next frame of a burst), which takes a look at every picture of a pair.
        engine: ``"exact"``: compares all with all; ``"faiss"``: approximate, with measured recall; ``"auto"``: exact
            below 300,000 images or on a GPU, else faiss if it is installed.
        incremental: compare only what the last search with this key has not seen, or whose vector has changed; the
            other pairs are those of that search, whose images or objects are covered, too. Without a threshold, that
            of the last search stays.
        keeper: weights by which the one to keep is chosen in each group; see :class:`.brain.keeper.KeeperPolicy`.
        keeper_rule: what ranks the members of a group; one of ``KEEPER_RULES``.
        keep: how many to keep in each group.
        shots: tell the shots within a group apart; every member is decoded once more.
        device: where similarities are computed: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        num_workers: threads that decode the members of groups.

    Returns:
        What was done; ``counts`` has ``groups``, ``duplicates`` and ``largest``, ``details`` the threshold, the
        histogram of nearest-neighbour similarity and the number of groups of each kind.

    Raises:
        ConfigError: an option cannot work, nothing has a vector, or vectors differ in length.
    """
    started = time.perf_counter()
    settings = GroupingSettings(
        embeddings, threshold, method, k, max_diameter, keeper_policy(keeper), patches_field, kind, engine, keeper_rule,
        keep, shots,
    )  # fmt: skip
    samples, place = image_samples(samples), settings.place
    check_vector_field(samples, embeddings, place)
    check_key(samples, key, METHOD, place)
    earlier, obstacle = earlier_search(samples, key, settings) if incremental else (None, "")
    ids = None if earlier is None else ids_to_cover(samples, place, earlier)
    if earlier is not None:
        samples = image_samples(samples._dataset)
    total = samples.count(place.path("id")) if ids is None else len(ids)
    if not total:
        return nothing_to_compare(METHOD)
    reading = read_vectors(samples, embeddings, ids, place=place)
    table = yield from in_stage(reading, total, 0.0, 0.3, "Reading vectors")
    constraints = reviewed(samples, key, table.row_of)
    search = search_steps(table, settings, device, constraints, earlier)
    found = yield from in_stage(search, total, 0.3, 0.7, "Comparing vectors")
    task = GroupingTask(
        samples, key, table, found.pairs, found.scores, found.threshold, found.settings, num_workers, constraints
    )
    declare_groups(samples, key, group_info(task, METHOD), place)
    outcome = yield from group_and_measure(task, total)
    outcome = replace(outcome, failed=table.missing | outcome.failed)
    yield Progress(int(0.95 * total), total, label="Writing groups")
    update_record(samples, key, status="interrupted")
    clear_other_place(samples, key, place)
    write_outcome(samples, key, outcome, place=place)
    summary = RunSummary(key, METHOD, seconds=time.perf_counter() - started, failed=dict(outcome.failed))
    summary.images_per_second = len(table.ids) / summary.seconds
    summary.counts = {"total": total, "done": len(table.ids), "skipped": 0, "failed": len(table.missing)}
    summary.counts |= group_counts(outcome.groups)
    summary.details = describe(task, outcome, found.reason) | found.facts()
    summary.notices = group_notices(summary, task, len(table.missing)) + search_notices(found, incremental, obstacle)
    stored, _ = StoredPairs.compact(table.ids, found.pairs, found.scores)
    results = stored.to_results() | Compared(table.ids, vector_stamps(table.matrix)).to_results()
    register_run(samples, summary, found.settings.config(), results=results)
    yield Progress(total, total, label="Done")
    return summary


def regroup_duplicates_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    threshold: float | None = None,
    max_diameter: float | None = None,
    keeper: KeeperPolicy | Mapping[str, float] | None = None,
    keeper_rule: str | None = None,
    keep: int | None = None,
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
        keeper_rule, keep: as for ``find_duplicates``; None keeps the run's setting.
        num_workers: threads that measure images which were in no group before.

    Returns:
        What the groups are now; only images or objects that are in any kept pair count as ``total``.

    Raises:
        ConfigError: no such run, a threshold below the pairs that were kept, or vectors that changed since.
    """
    started = time.perf_counter()
    record = find_record(samples, key)
    stored = load_pairs(samples, record)
    old = GroupingSettings.from_config(record["config"])
    given = {"max_diameter": max_diameter, "keeper_rule": keeper_rule, "keep": keep}
    settings = replace(
        old,
        threshold=record["details"]["threshold"] if threshold is None else threshold,
        keeper=old.keeper if keeper is None else keeper_policy(keeper),
        **{name: value for name, value in given.items() if value is not None},
    )
    if settings.threshold < stored.pairs.threshold:
        raise ConfigError(
            f"threshold={settings.threshold:g} is below {stored.pairs.threshold:g}, down to which run {key!r} kept "
            f"pairs; run find_duplicates with threshold={settings.threshold:g}"
        )
    samples, place = image_samples(samples._dataset), settings.place
    total = len(stored.ids)
    reading = read_vectors(samples, settings.embeddings, stored.ids, place=place)
    table = yield from in_stage(reading, total, 0.0, 0.3, "Reading vectors")
    pairs, scores = stored.onto(table.row_of)
    _check_same_vectors(table, pairs, settings.embeddings)
    constraints = reviewed(samples, key, table.row_of)
    verified = stored.verified_onto(table.row_of)
    task = GroupingTask(
        samples, key, table, pairs, scores, settings.threshold, settings, num_workers, constraints, verified
    )
    outcome = yield from group_and_measure(task, total)
    update_record(samples, key, status="interrupted")
    declare_groups(samples, key, group_info(task, METHOD), place)
    write_outcome(samples, key, outcome, place=place, replace_all=False)
    save_scores(samples, key, StoredPairs.compact(table.ids, pairs, scores, verified)[0])
    counts = group_counts(outcome.groups)
    reason = "given" if threshold is not None else record["details"]["threshold_reason"]
    details = record["details"] | describe(task, outcome, reason)
    update_record(
        samples, key, status="completed", config=settings.config(), counts=record["counts"] | counts, details=details
    )
    yield Progress(total, total, label="Done")
    summary = RunSummary(key, METHOD, {"total": total, "done": len(table.ids), "skipped": 0, "failed": 0} | counts)
    summary.seconds, summary.details, summary.failed = time.perf_counter() - started, details, dict(outcome.failed)
    summary.notices = group_notices(summary, task, 0)
    return summary


find_duplicates = plain_function(find_duplicates_steps)
regroup_duplicates = plain_function(regroup_duplicates_steps)


def _check_same_vectors(table: VectorTable, pairs: Pairs, path: str) -> None:
    if not check_cosines(table.matrix, pairs, _SAME_VECTORS):
        raise ConfigError(f"the vectors in {path!r} have changed since they were searched; run find_duplicates again")
