"""Agreement of foreground masks with ground truth: intersection over union and the co-segmentation measures."""

from collections.abc import Iterable

import numpy as np

from ..errors import ConfigError

# A soft mask counts as foreground above this value, as in FFA's own rule for patches.
FOREGROUND_LEVEL = 0.5


def binarise(mask: np.ndarray, level: float = FOREGROUND_LEVEL) -> np.ndarray:
    """``(H, W)`` bool: where a mask is foreground.

    Args:
        mask: ``(H, W)`` bool; floating point in [0, 1], foreground above ``level``; or integers, foreground where
            not 0 (the usual meaning of label and 0/255 images).
        level: threshold for floating-point masks.
    """
    mask = np.asarray(mask)
    if mask.dtype == bool:
        return mask
    return mask > level if np.issubdtype(mask.dtype, np.floating) else mask != 0


def iou(predicted: np.ndarray, truth: np.ndarray, *, level: float = FOREGROUND_LEVEL) -> float:
    """Intersection over union of two masks, also called the Jaccard index; 1 if both are empty.

    Args:
        predicted: ``(H, W)`` mask in any form that :func:`binarise` takes.
        truth: ``(H, W)`` likewise; the measure is symmetric.
        level: threshold for floating-point masks.

    Returns:
        A number in [0, 1].

    Raises:
        ConfigError: the masks differ in size.
    """
    predicted, truth = _pair(predicted, truth, level)
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def pixel_precision(predicted: np.ndarray, truth: np.ndarray, *, level: float = FOREGROUND_LEVEL) -> float:
    """Share of pixels labelled alike, foreground and background together.

    This is what the co-segmentation literature prints as "P"; since background counts, read it beside the IoU.
    1 for an image without pixels.

    Raises:
        ConfigError: the masks differ in size.
    """
    predicted, truth = _pair(predicted, truth, level)
    return float(np.mean(predicted == truth)) if predicted.size else 1.0


def mean_iou(pairs: Iterable[tuple[np.ndarray, np.ndarray]], *, level: float = FOREGROUND_LEVEL) -> float:
    """Mean over images of :func:`iou`, so that a small object counts as much as a large one; NaN for no pair.

    Args:
        pairs: ``(predicted, truth)`` masks, each as :func:`iou` takes them.
        level: threshold for floating-point masks.

    Raises:
        ConfigError: the masks of a pair differ in size.
    """
    values = [iou(predicted, truth, level=level) for predicted, truth in pairs]
    return float(np.mean(values)) if values else float("nan")


def _pair(predicted: np.ndarray, truth: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    if np.shape(predicted) != np.shape(truth):
        raise ConfigError(f"masks differ in size: {np.shape(predicted)} and {np.shape(truth)}; resize one to the other")
    return binarise(predicted, level), binarise(truth, level)
