"""What the choice of keepers needs to know of samples besides their pictures: order, dates, labels, foreground."""

from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ImageError
from ..brain.keeper import KeeperPolicy
from .fingerprints import quality_of, read_fields
from .mask_store import as_foreground, read_mask

# FiftyOne's own dates say when the database was written, not when a picture was taken.
_BOOKKEEPING = ("created_at", "last_modified_at")

# Labels that hold many, by the list that holds them.
_LISTS: dict[type, str] = {
    fo.Detections: "detections",
    fo.Classifications: "classifications",
    fo.Keypoints: "keypoints",
    fo.Polylines: "polylines",
}


def keeper_scores(
    samples: foc.SampleCollection,
    sample_ids: Sequence[str],
    measures: Sequence[dict[str, float] | None],
    policy: KeeperPolicy,
    rule: str,
) -> np.ndarray:
    """Scores by which the keepers of groups are chosen.

    Args:
        samples: flat collection with the samples.
        sample_ids: n sample ids; those of objects repeat.
        measures: stored technical measures of the n images or objects; None where a file could not be measured.
        policy: weights, for the rules ``"quality"`` and ``"diverse"``.
        rule: one of :data:`.brain.keeper.KEEPER_RULES`. ``"newest"`` goes by the first date field of the dataset that
            is not FiftyOne's own, else by when samples were added.

    Returns:
        ``(n,)`` float64, more is better; minus infinity for what could not be measured, whatever the rule.
    """
    qualities = [quality_of(one) for one in measures]
    if rule in ("quality", "diverse"):
        foreground = _foreground_shares(samples, sample_ids) if policy.foreground else None
        labels = _label_counts(samples, sample_ids, filled=True) if policy.labels else None
        return policy.score(qualities, foreground=foreground, labels=labels)
    if rule == "first":
        order = {sample_id: place for place, sample_id in enumerate(samples.values("id"))}
        scores = np.array([-float(order.get(sample_id, len(order))) for sample_id in sample_ids], np.float64)
    elif rule == "largest":
        scores = np.array([0.0 if one is None else float(one.pixels) for one in qualities], np.float64)
    elif rule == "newest":
        scores = _dates(samples, sample_ids)
    else:
        scores = _label_counts(samples, sample_ids, filled=False)
    scores[[one is None for one in qualities]] = -np.inf
    return scores


def _dates(samples: foc.SampleCollection, sample_ids: Sequence[str]) -> np.ndarray:
    schema = samples.get_field_schema(ftype=(fo.DateTimeField, fo.DateField))
    fields = [name for name in schema if name not in _BOOKKEEPING] or ["created_at"]
    found = read_fields(samples, list(dict.fromkeys(sample_ids)), fields[:1])
    return np.array([_seconds(found.get(sample_id, (None,))[0]) for sample_id in sample_ids], np.float64)


def _seconds(moment: Any) -> float:
    """Seconds since 1970; no date is older than any."""
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    if isinstance(moment, date):
        return datetime(moment.year, moment.month, moment.day, tzinfo=timezone.utc).timestamp()
    return np.finfo(np.float64).min


def _label_counts(samples: foc.SampleCollection, sample_ids: Sequence[str], *, filled: bool) -> np.ndarray:
    """``(n,)`` labels of each sample over all its label fields; with ``filled`` the share of fields that have any."""
    schema = samples.get_field_schema(embedded_doc_type=fo.Label)
    paths = []
    for name, field in schema.items():
        inner = next((part for kind, part in _LISTS.items() if issubclass(field.document_type, kind)), None)
        paths.append(f"{name}.id" if inner is None else f"{name}.{inner}.id")
    if not paths:
        return np.zeros(len(sample_ids))
    found = read_fields(samples, list(dict.fromkeys(sample_ids)), paths)
    counts = {
        sample_id: [len(value) if isinstance(value, list) else int(value is not None) for value in values]
        for sample_id, values in found.items()
    }
    totals = {
        sample_id: sum(map(bool, own)) / len(paths) if filled else float(sum(own)) for sample_id, own in counts.items()
    }
    return np.array([totals.get(sample_id, 0.0) for sample_id in sample_ids], np.float64)


def _foreground_shares(samples: foc.SampleCollection, sample_ids: Sequence[str]) -> np.ndarray:
    """``(n,)`` share of each image that its foreground mask covers; 0 where there is no mask."""
    schema = samples.get_field_schema(embedded_doc_type=fo.Segmentation)
    made = [name for name, field in schema.items() if (field.info or {}).get("method") == "compute_foreground"]
    if not made:
        return np.zeros(len(sample_ids))
    wanted = list(dict.fromkeys(sample_ids))
    found = read_fields(samples, wanted, [f"{made[-1]}.mask", f"{made[-1]}.mask_path"])
    shares = {sample_id: _share(*values) for sample_id, values in found.items()}
    return np.array([shares.get(sample_id, 0.0) for sample_id in sample_ids], np.float64)


def _share(mask: np.ndarray | None, path: str | None) -> float:
    try:
        inside = as_foreground(mask) if mask is not None else read_mask(path) if path else np.zeros(1, bool)
    except ImageError:
        return 0.0
    return float(inside.mean())
