"""Clusters of the same object: from vectors of images, or of objects in images, to numbered clusters."""

import time
from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import Any, Literal

import fiftyone.core.collections as foc
import numpy as np

from ..brain.clusters import ClusterMethod, Clusters, ClusterSettings, ClusterSimilarity, cluster
from ..brain.constraints import Constraints
from ..brain.errors import ConfigError
from ..brain.nearest import knn_steps
from .cluster_store import (
    METHOD,
    NO_LABEL,
    Clustered,
    ClusterFields,
    check_cluster_key,
    clear_earlier,
    declare_clusters,
    kept_names,
    write_clusters,
)
from .cluster_verification import regions_verifier
from .dataset_io import image_samples
from .decisions import constraints_of
from .duplicate_store import nothing_to_compare, update_record
from .engine.local import Progress
from .item_fields import Item, Place, read_items
from .runs import RunSummary, register_run
from .steps import in_stage, plain_function
from .vectors import VectorTable, read_vectors

Verification = Literal["none", "regions"]
VERIFICATIONS: tuple[Verification, ...] = ("none", "regions")


def cluster_objects_steps(
    samples: foc.SampleCollection,
    key: str = "objects",
    *,
    embeddings: str = "ffa",
    patches_field: str | None = None,
    method: ClusterMethod = "agglomerative",
    similarity: ClusterSimilarity = "reciprocal",
    threshold: float | None = None,
    min_size: int = 2,
    max_diameter: float | None = None,
    neighbours: int = 30,
    pictures: int = 8,
    verify: Verification = "none",
    truth_field: str | None = None,
    device: str = "auto",
) -> Generator[Progress, None, RunSummary]:
    """Clusters images, or objects in images, that show the very same thing.

    Results are ``<key>_cluster``, ``_size``, ``_confidence``, ``_outlier``, ``_category``, ``_name``, ``_decision`` and
    ``_error``: fields of the samples, or attributes of each detection in ``patches_field``, so that the same object in
    different scenes comes together. What a reviewer decided on clusters of this key (confirmed, merged, split,
    rejected) is honoured when it is run again, and a cluster that mostly persists keeps its name. Results of an earlier
    run with this key are replaced; neither vectors nor indexes are changed.

    Args:
        samples: a dataset or view; of a grouped dataset all image slices.
        key: name of the run and prefix of its fields.
        embeddings: field with one vector per sample, or attribute of each detection, e.g. made by ``compute_ffa``.
        patches_field: the Detections whose objects are clustered; None clusters whole images.
        method: ``"agglomerative"`` (average linkage), ``"hdbscan"`` or ``"components"`` (linked images, no wider than
            ``max_diameter``).
        similarity: by what images are compared: ``"reciprocal"`` (how many of their nearest neighbours they share),
            ``"local_scaling"`` (cosine in units of the distance to their neighbours) or the plain ``"cosine"``.
        threshold: least similarity, of that kind, at which clusters join; None chooses it from the data and says why.
        min_size: members of the smallest cluster.
        max_diameter: largest ``1 - similarity`` within a cluster, for ``"components"`` only; None sets no limit.
        neighbours: nearest neighbours that are compared; objects with more images may fall into several clusters.
        pictures: about how many images an object has, for ``"reciprocal"``; objects with more than twice as many may
            fall into several clusters.
        verify: ``"regions"`` looks at the pictures a second time, with the model that made the vectors, and compares
            near neighbours region by region, which takes somewhat longer than making the vectors; ``"none"`` does not.
        truth_field: field (or attribute of each detection) with the true identity; the summary then has the adjusted
            Rand index against it.
        device: where vectors are compared, and a model runs: ``"auto"``, ``"cpu"``, ``"cuda"`` ...

    Returns:
        What was done; ``counts`` has ``clusters``, ``members``, ``outliers`` and ``largest``, ``details`` the threshold
        and the index.

    Raises:
        ConfigError: an option cannot work, nothing has a vector, or vectors differ in length.
        ModelError: ``verify="regions"``, and the model of the vectors cannot be loaded.
    """
    started = time.perf_counter()
    settings = ClusterSettings(method, similarity, threshold, min_size, max_diameter, neighbours, pictures)
    if verify not in VERIFICATIONS:
        raise ConfigError(f"verify={verify!r} is unknown; use one of {', '.join(VERIFICATIONS)}")
    place = Place(patches_field)
    samples = image_samples(samples)
    place.check(samples)
    check_cluster_key(samples, key, place)
    _check_truth(samples, place, truth_field)
    total = samples.count() if patches_field is None else samples.count(place.path("id"))
    if not total:
        return nothing_to_compare(METHOD)
    table = yield from in_stage(read_vectors(samples, embeddings, place=place), total, 0.0, 0.3, "Reading vectors")
    look = None if verify == "none" else regions_verifier(samples, table, embeddings, place, device)
    constraints = reviewed_constraints(samples, key, table.ids)
    steps = knn_steps(table.matrix, neighbours, device=device)
    nearest = yield from in_stage(steps, total, 0.3, 0.6, "Comparing vectors")
    label = "Clustering" if look is None else "Comparing regions and clustering"
    yield Progress(int(0.6 * total), total, label=label)
    found = cluster(table.matrix, settings, constraints=constraints, verify=look, neighbours=nearest)
    fields = ClusterFields(key, place)
    clustered = _clustered(samples, fields, table, found)
    own = {"embeddings": embeddings, "patches_field": patches_field, "verify": verify, "truth_field": truth_field}
    config = own | asdict(settings)
    yield Progress(int(0.9 * total), total, label="Writing clusters")
    clear_earlier(samples, key, place)
    update_record(samples, key, status="interrupted")
    where_from = {"method": METHOD, "run": key, "clustering": method, "threshold": found.threshold}
    declare_clusters(samples, fields, config | where_from)
    write_clusters(samples, fields, clustered)
    summary = RunSummary(key, METHOD, failed=dict(table.missing))
    summary.counts = {"total": total, "done": len(table.ids), "skipped": 0, "failed": len(table.missing)}
    summary.counts |= clustered.counts()
    summary.details = _details(samples, place, truth_field, table, found, constraints)
    summary.notices = _notices(summary, fields, embeddings)
    summary.seconds = time.perf_counter() - started
    summary.images_per_second = len(table.ids) / summary.seconds
    register_run(samples, summary, config)
    yield Progress(total, total, label="Done")
    return summary


cluster_objects = plain_function(cluster_objects_steps)


def reviewed_constraints(samples: foc.SampleCollection, key: str, ids: Sequence[str]) -> Constraints:
    """What a reviewer decided on the clusters of a key, by row of ``ids``; of items that are gone nothing."""
    together, apart = constraints_of(samples, key)
    row_of = {item_id: row for row, item_id in enumerate(ids)}

    def rows(chosen: Sequence[str]) -> list[int]:
        return [row_of[item_id] for item_id in chosen if item_id in row_of]

    return Constraints.from_sets(
        [rows(chosen) for chosen in together], [(rows(first), rows(second)) for first, second in apart]
    )


def _clustered(samples: foc.SampleCollection, fields: ClusterFields, table: VectorTable, found: Clusters) -> Clustered:
    def item(item_id: str) -> Item:
        return Item(item_id, table.homes.get(item_id, item_id), ())

    return Clustered(
        items=[item(item_id) for item_id in table.ids],
        label=found.label,
        confidence=found.confidence,
        outlier=found.outlier,
        names=kept_names(samples, fields, table.ids, found.label),
        failed=[(item(item_id), reason) for item_id, reason in table.missing.items()],
    )


def _check_truth(samples: foc.SampleCollection, place: Place, truth_field: str | None) -> None:
    if truth_field is not None and samples.get_field(place.path(truth_field)) is None:
        own = "field" if place.patches_field is None else f"attribute of {place.patches_field!r}"
        raise ConfigError(f"truth_field={truth_field!r}: dataset {samples._dataset.name!r} has no such {own}")


def truth_scores(
    samples: foc.SampleCollection, place: Place, truth_field: str, ids: Sequence[str], label: np.ndarray
) -> dict[str, Any]:
    """How well clusters agree with true identities; each item outside clusters counts as a cluster of its own.

    Args:
        ids: items that were clustered.
        label: ``(n,)`` their clusters, -1 for none.

    Returns:
        ``ari``, the adjusted Rand index (None where fewer than two items have a true identity), and ``ari_items``, the
        number of items that have one.
    """
    from sklearn.metrics import adjusted_rand_score

    truth = {item.id: item.values[0] for item in read_items(samples, place, [truth_field])}
    rows = [row for row, item_id in enumerate(ids) if truth.get(item_id) is not None]
    if len(rows) < 2:
        return {"ari": None, "ari_items": len(rows)}
    alone = label == NO_LABEL
    own = np.where(alone, label.max(initial=NO_LABEL) + 1 + np.cumsum(alone), label)
    return {
        "ari": float(adjusted_rand_score([str(truth[ids[row]]) for row in rows], own[rows])),
        "ari_items": len(rows),
    }


def _details(
    samples: foc.SampleCollection,
    place: Place,
    truth_field: str | None,
    table: VectorTable,
    found: Clusters,
    constraints: Constraints,
) -> dict[str, Any]:
    details = {
        "threshold": None if found.threshold is None else float(found.threshold),
        "threshold_reason": found.reason,
        "must_links": len(constraints.must),
        "cannot_links": len(constraints.cannot),
    }
    if truth_field is not None:
        details |= truth_scores(samples, place, truth_field, table.ids, found.label)
    return details


def _notices(summary: RunSummary, fields: ClusterFields, embeddings: str) -> list[str]:
    details, counts, things = summary.details, summary.counts, fields.place.things
    at = "" if details["threshold"] is None else f" at threshold {details['threshold']:.4f}"
    notices = [
        f"{counts['clusters']:,} clusters of {counts['members']:,} {things}{at} ({details['threshold_reason']}); "
        f"{counts['outliers']:,} {things} are in none"
    ]
    if details.get("ari") is not None:
        notices.append(f"adjusted Rand index {details['ari']:.3f} against {details['ari_items']:,} true identities")
    elif "ari" in details:
        notices.append("no adjusted Rand index: fewer than two of them have a true identity")
    if links := details["must_links"] + details["cannot_links"]:
        notices.append(f"{links:,} links from decisions of reviewers were honoured")
    if summary.failed:
        notices.append(
            f"{len(summary.failed):,} {things} have no usable vector in {embeddings!r} and were left out; "
            f"{fields.path('error')} says why"
        )
    return notices
