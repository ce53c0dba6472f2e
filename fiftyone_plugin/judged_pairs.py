"""Matches and annotations of a pair as the metrics of keypoints take them, in pixels of the target."""

import numpy as np

from ..brain.metrics.pck import EvaluatedPair, ThresholdKind
from .keypoint_inputs import PairKeypoints


def evaluated_pair(
    keypoints: PairKeypoints,
    predictions: np.ndarray,
    image_hw: tuple[int, int],
    mask: np.ndarray | None,
    threshold: ThresholdKind,
    *,
    category: str | None = None,
    azimuth_difference: int | None = None,
) -> EvaluatedPair | None:
    """A pair to be judged.

    Args:
        keypoints: the K slots of the pair.
        predictions: ``(K, 2)`` places in the target, relative to it; NaN where there is none.
        image_hw: height and width of the target.
        mask: ``(H, W)`` bool of the object in the target; None where nothing marks it.
        threshold: what errors are measured by.
        category: of the objects; None takes that of the keypoints.
        azimuth_difference: in eighths of a turn, 0 to 4; None where it is not known.

    Returns:
        the pair; None where the target is not annotated, or has no box while the threshold is a share of that.
    """
    box = None if mask is None else box_wh(mask)
    if not keypoints.annotated or (threshold == "box" and box is None):
        return None
    image_wh = float(image_hw[1]), float(image_hw[0])
    return EvaluatedPair(
        predictions=np.asarray(predictions) * image_wh,
        targets=keypoints.target * image_wh,
        source_visible=np.isfinite(keypoints.source).all(1),
        target_visible=np.isfinite(keypoints.target).all(1),
        groups=keypoints.groups.group_ids,
        box_wh=box,
        image_wh=image_wh,
        category=keypoints.category if category is None else category,
        azimuth_difference=azimuth_difference,
    )


def box_wh(mask: np.ndarray) -> tuple[float, float] | None:
    """Width and height in pixels of what a mask marks; None where it marks nothing."""
    if not mask.any():
        return None
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)
