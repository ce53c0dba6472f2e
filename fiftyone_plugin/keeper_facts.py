"""What the choice of keepers needs to know of samples besides their pictures: order, dates, labels, foreground."""

import re
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ImageError
from ..brain.keeper import KeeperPolicy
from .dataset_io import image_samples
from .fingerprints import quality_of, read_fields
from .mask_store import as_foreground, read_mask

# FiftyOne's own dates say when the database was written, not when a picture was taken.
_BOOKKEEPING = ("created_at", "last_modified_at")

# Names of fields that are likely to say when a picture was taken; EXIF calls it DateTimeOriginal.
_CAPTURE = re.compile(r"captur|taken|shot|original|exif|(?<![a-z])(date|time)", re.IGNORECASE)

# Masks and regions of ours: they say nothing about the work that went into a sample's labels.
_COMPUTED = ("compute_foreground", "compute_claid_regions", "search_by_object")

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
        rule: one of :data:`.brain.keeper.KEEPER_RULES`. ``"first"`` goes by the order of the dataset, whatever the
            view; ``"newest"`` by the first date field that has values and is not FiftyOne's own, those named like a
            date of capture before others, else by when samples were added; ``"most_labels"`` by all label fields but
            those that Selfsame computed.

    Returns:
        ``(n,)`` float64, more is better; minus infinity for what could not be measured, whatever the rule.
    """
    qualities = [quality_of(one) for one in measures]
    if rule in ("quality", "diverse"):
        foreground = _foreground_shares(samples, sample_ids) if policy.foreground else None
        labels = _label_counts(samples, sample_ids, filled=True) if policy.labels else None
        return policy.score(qualities, foreground=foreground, labels=labels)
    if rule == "first":
        everything = image_samples(samples._dataset).values("id")
        order = {sample_id: place for place, sample_id in enumerate(everything)}
        scores = np.array([0.0 - order.get(sample_id, len(order)) for sample_id in sample_ids], np.float64)
    elif rule == "largest":
        scores = np.array([0.0 if one is None else float(one.pixels) for one in qualities], np.float64)
    elif rule == "newest":
        scores = _dates(samples, sample_ids)
    else:
        scores = _label_counts(samples, sample_ids, filled=False)
    scores[[one is None for one in qualities]] = -np.inf
    return scores


def _dates(samples: foc.SampleCollection, sample_ids: Sequence[str]) -> np.ndarray:
    fields = [*_date_fields(samples), "created_at"]
    found = read_fields(samples, list(dict.fromkeys(sample_ids)), fields)
    used = next((at for at in range(len(fields)) if any(values[at] is not None for values in found.values())), 0)
    moments = [found[sample_id][used] if sample_id in found else None for sample_id in sample_ids]
    return np.array([_seconds(moment) for moment in moments], np.float64)


def _date_fields(samples: foc.SampleCollection) -> list[str]:
    """Dates of the samples themselves, those that are likely to say when a picture was taken first."""
    labels = samples.get_field_schema(embedded_doc_type=fo.Label)
    paths = samples.get_field_schema(ftype=(fo.DateTimeField, fo.DateField), flat=True)
    own = [path for path in paths if path not in _BOOKKEEPING and path.split(".")[0] not in labels]
    return sorted(own, key=lambda path: _CAPTURE.search(path) is None)


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
        if (field.info or {}).get("method") in _COMPUTED:
            continue
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
    """``(n,)`` share of each image that its foreground mask covers; 0 where there is no mask.

    Masks are opened only where the share that is stored beside them is missing.
    """
    schema = samples.get_field_schema(embedded_doc_type=fo.Segmentation)
    made = [name for name, field in schema.items() if (field.info or {}).get("method") == "compute_foreground"]
    if not made:
        return np.zeros(len(sample_ids))
    wanted, shares = list(dict.fromkeys(sample_ids)), {}
    if samples.has_field(stored := f"{made[-1]}_fraction"):
        shares = {sample_id: share for sample_id, (share,) in read_fields(samples, wanted, [stored]).items()}
    missing = [sample_id for sample_id in wanted if shares.get(sample_id) is None]
    masks = read_fields(samples, missing, [f"{made[-1]}.mask", f"{made[-1]}.mask_path"])
    shares |= {sample_id: 0.0 for sample_id in missing}
    shares |= {sample_id: _share(*values) for sample_id, values in masks.items()}
    return np.array([shares[sample_id] for sample_id in sample_ids], np.float64)


def _share(mask: np.ndarray | None, path: str | None) -> float:
    try:
        inside = as_foreground(mask) if mask is not None else read_mask(path) if path else np.zeros(1, bool)
    except ImageError:
        return 0.0
    return float(inside.mean())
