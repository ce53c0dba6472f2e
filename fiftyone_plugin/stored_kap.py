"""KAP of a run: from the detections that it kept of each pair, for without similarity maps nobody can tell them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..brain.metrics.kap import KapResult, KapSamples, kap

# Fields of the pairs, after the key: whether each detection is the true place, and its score.
LABELS, SCORES = "kap_labels", "kap_scores"


def kap_values(samples: KapSamples | None) -> dict[str, list[Any] | None]:
    """The detections of a pair as values of :data:`LABELS` and :data:`SCORES`; None where there are none."""
    if samples is None:
        return {LABELS: None, SCORES: None}
    return {LABELS: samples.labels.tolist(), SCORES: samples.scores.tolist()}


def stored_kap(
    key: str, values: Sequence[Mapping[str, Any]], categories: Sequence[str], alpha: float
) -> KapResult | None:
    """KAP of pairs.

    Args:
        key: of the run.
        values: of each pair, the fields of detections among them.
        categories: of each pair.
        alpha: that the run was made with.

    Returns:
        None where the run kept no detections of any of the pairs.
    """
    names = [f"{key}_{short}" for short in (LABELS, SCORES)]
    kept = []
    for category, own in zip(categories, values, strict=True):
        labels, scores = (own[name] for name in names)
        if labels is not None and scores is not None:
            kept.append((category, KapSamples(np.array(labels, bool), np.array(scores, np.float64))))
    return kap(kept, alpha) if kept else None
