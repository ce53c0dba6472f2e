"""The map of the Objects panel: at most a few thousand points in a plane, and the cluster that each is in."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import fiftyone as fo
import fiftyone.core.view as fov
import numpy as np

from ...brain.errors import ConfigError
from ..group_table import group_fields, run_place
from ..item_fields import read_items
from .group_pages import DatasetHandle

MAX_POINTS = 5000

# UMAP's neighbourhoods take some points; below that the plane of largest variance has to do.
_MIN_UMAP = 16

# Points: item ids, sample ids, (n, 2) float32 coordinates.
Points = tuple[list[str], list[str], np.ndarray]


def read_map(dataset: fo.Dataset, record: Mapping[str, Any]) -> dict[str, Any]:
    """The map of a clustering as plain data.

    The points are those of the visualization run of the same vectors, if there is one; else the plane of largest
    variance of the vectors. Of many points a random sample is shown.

    Returns:
        ``x``, ``y``, ``cluster`` (-1 outside clusters) and ``samples`` (sample ids), one entry per point; ``names`` by
        cluster; ``text``: what is shown; ``can_compute``: whether :func:`compute_map` would give a better map.

    Raises:
        ConfigError: the vectors cannot be read.
    """
    map_key = _visualization(dataset, record)
    stamp = str(record["timestamp"]) if map_key is None else str(dataset.get_brain_info(map_key).timestamp)
    ids, samples, points = _cached_points(DatasetHandle(dataset), record["key"], map_key, stamp)
    clusters = _clusters(dataset, record, samples)
    label = [clusters.get(item, -1) for item in ids]
    shown = f"{len(ids):,} of the points" if len(ids) == MAX_POINTS else f"{len(ids):,} points"
    how = f"map {map_key!r}" if map_key else "plane of largest variance"
    return {
        "x": np.round(points[:, 0].astype(float), 4).tolist(),
        "y": np.round(points[:, 1].astype(float), 4).tolist(),
        "cluster": label,
        "samples": samples,
        "names": cluster_names(dataset, record),
        "text": f"{shown}, {how}",
        "can_compute": map_key is None and len(ids) >= _MIN_UMAP,
    }


def compute_map(dataset: fo.Dataset, record: Mapping[str, Any]) -> str:
    """Computes a UMAP of at most :data:`MAX_POINTS` of a run's vectors, as FiftyOne's visualization run ``<key>_map``.

    Returns:
        its brain key.

    Raises:
        ConfigError: the key belongs to another kind of run, or there are too few vectors.
    """
    import fiftyone.brain as fob

    key, place = f"{record['key']}_map", run_place(record)
    if dataset.has_brain_run(key):
        if _visualization(dataset, record) != key:
            raise ConfigError(f"brain key {key!r} is taken by another run; delete or rename that one")
        dataset.delete_brain_run(key)
    ids, samples, _ = _vectors(dataset, record)
    if len(ids) < _MIN_UMAP:
        raise ConfigError(f"{len(ids)} vectors are too few for a map; it takes {_MIN_UMAP}")
    view = fov.make_optimized_select_view(dataset, sorted(set(samples)))
    fob.compute_visualization(
        view,
        patches_field=place.patches_field,
        embeddings=record["config"]["embeddings"],
        brain_key=key,
        method="umap",
        seed=51,
        progress=False,
    )
    return key


def cluster_names(
    dataset: fo.Dataset, record: Mapping[str, Any], clusters: Sequence[int] | None = None
) -> dict[int, str]:
    """Names that a reviewer gave, by number of the cluster; of all clusters or of some."""
    fields = group_fields(record)
    if fields.name is None or clusters == []:
        return {}
    wanted: dict[str, Any] = {fields.name: {"$gt": ""}}
    if clusters is not None:
        wanted[fields.number] = {"$in": list(clusters)}
    unwind = [] if fields.place.patches_field is None else [{"$unwind": f"${fields.place.patches_field}.detections"}]
    names = {"_id": f"${fields.number}", "name": {"$first": f"${fields.name}"}}
    paths = {fields.number: 1, fields.name: 1}
    pipeline = [{"$match": wanted}, {"$project": paths}, *unwind, {"$match": wanted}, {"$group": names}]
    rows = dataset._sample_collection.aggregate(pipeline)
    return {int(row["_id"]): row["name"] for row in rows if row["_id"] is not None}


def _visualization(dataset: fo.Dataset, record: Mapping[str, Any]) -> str | None:
    """The visualization run that fits: that of the panel itself, else the last one of the same vectors, else the last
    one that does not say of which vectors it is."""
    wanted = record["config"]["embeddings"].split(".")[-1]
    own, fitting = f"{record['key']}_map", {}
    for key in dataset.list_brain_runs(type="visualization"):
        config = dataset.get_brain_info(key).config
        field = str(getattr(config, "embeddings_field", None) or "").split(".")[-1]
        if getattr(config, "patches_field", None) == run_place(record).patches_field and field in (wanted, ""):
            fitting[key] = field
    same = [key for key, field in fitting.items() if field == wanted]
    return own if own in fitting else next(reversed(same or list(fitting)), None)


@lru_cache(maxsize=2)
def _cached_points(handle: DatasetHandle, key: str, map_key: str | None, stamp: str) -> Points:
    """The panel asks after each decision; ``stamp`` makes a new run a new entry."""
    if map_key is not None:
        return _map_points(handle.dataset, map_key)
    from ..runs import load_record

    record = load_record(handle.dataset, key)
    if record is None:
        raise ConfigError(f"there is no run {key!r} any more; choose another")
    ids, samples, matrix = _vectors(handle.dataset, record)
    return ids, samples, _plane(matrix)


def _map_points(dataset: fo.Dataset, map_key: str) -> Points:
    results = dataset.load_brain_results(map_key)
    labels, samples = getattr(results, "label_ids", None), np.asarray(results.sample_ids)
    ids = samples if labels is None else np.asarray(labels)
    rows = np.arange(len(ids))
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_POINTS, replace=False))
    points = np.asarray(results.points, np.float32)[rows, :2]
    return [str(item) for item in ids[rows]], [str(sample) for sample in samples[rows]], points


def _vectors(dataset: fo.Dataset, record: Mapping[str, Any]) -> Points:
    """Ids, sample ids and ``(n, d)`` vectors of at most :data:`MAX_POINTS` items, from random samples."""
    view = dataset.take(MAX_POINTS, seed=51) if len(dataset) > MAX_POINTS else dataset
    found = []
    for item in read_items(view, run_place(record), [record["config"]["embeddings"].split(".")[-1]]):
        if item.values[0] is not None:
            found.append((item.id, item.sample_id, np.asarray(item.values[0], np.float32).ravel()))
        if len(found) == MAX_POINTS:
            break
    if not found:
        raise ConfigError(f"there are no vectors in {record['config']['embeddings']!r} any more")
    ids, samples, vectors = zip(*found, strict=True)
    return list(ids), list(samples), np.stack(vectors)


def _plane(matrix: np.ndarray) -> np.ndarray:
    """``(n, 2)`` coordinates in the plane of largest variance of unit vectors."""
    unit = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-12)
    unit = unit - unit.mean(axis=0)
    _, directions = np.linalg.eigh(unit.T @ unit)
    plane = unit @ directions[:, -2:][:, ::-1]
    return plane if plane.shape[1] == 2 else np.column_stack([plane, np.zeros(len(plane))])


def _clusters(dataset: fo.Dataset, record: Mapping[str, Any], samples: Sequence[str]) -> dict[str, int]:
    """Cluster by item, as they are now, of the items of some samples."""
    fields = group_fields(record)
    number = fields.number.split(".")[-1]
    view = fov.make_optimized_select_view(dataset, sorted(set(samples)))
    return {item.id: item.values[0] for item in read_items(view, fields.place, [number]) if item.values[0] is not None}
