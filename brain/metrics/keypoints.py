"""Percentage of correct keypoints (PCK), per point and per image, and mistakes between left and right.

A predicted point is correct if it lies nearer to the true one than a threshold, a share ``alpha`` of the longer side of
the target's bounding box (Yang and Ramanan, "Articulated human detection with flexible mixtures of parts", PAMI 2013).
The literature averages the verdicts in two ways that differ by several points of a percent, so both are given and no
PCK should be shown without saying which one it is: values that carry their flavour with them come from :mod:`.pck`,
which is built on the verdicts and averages here.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError


@dataclass(frozen=True)
class PCKScores:
    """Shares of correct points; NaN where there is no point.

    Attributes:
        per_point: over all points of all pairs together.
        per_image: mean over pairs of the share within each pair.
        n_points: points that were judged.
        n_images: pairs with at least one such point.
    """

    per_point: float
    per_image: float
    n_points: int
    n_images: int


def share_text(alpha: float) -> str:
    """A share as it stands in labels, with no more digits than tell it from any other: ``0.1``, ``0.00001``, ``1``."""
    return np.format_float_positional(float(alpha), trim="-")


def pck_threshold(box_wh: tuple[float, float], alpha: float = 0.1) -> float:
    """Largest error of a correct point, in pixels: ``alpha * max(width, height)``.

    Args:
        box_wh: width and height in pixels of the target's bounding box, or of the target image where no box is known.
        alpha: share of the longer side.

    Raises:
        ConfigError: the box has no extent or ``alpha`` is not positive.
    """
    longer = float(max(box_wh))
    if not (np.isfinite(longer) and longer > 0):
        raise ConfigError(f"a box of {box_wh[0]}×{box_wh[1]} pixels has no extent; correct it or leave it out")
    if not alpha > 0:
        raise ConfigError(f"alpha={alpha} must be positive")
    return alpha * longer


def correct_points(predictions: np.ndarray, targets: np.ndarray, threshold: float) -> np.ndarray:
    """Which predictions of one pair are correct.

    Args:
        predictions: ``(N, 2)`` predicted points ``(x, y)`` in pixels of the target image; one that is not finite is
            wrong.
        targets: ``(N, 2)`` true points; points that cannot be seen in both images must be left out.
        threshold: in pixels; a prediction at exactly this distance is wrong.

    Returns:
        ``(N,)`` bool. Any subset of these verdicts, such as that of the geometry-aware points, can be given to
        :func:`pck_scores`.

    Raises:
        ConfigError: shapes disagree, or a target is not finite.
    """
    return point_distances(predictions, targets) < threshold


def point_distances(predictions: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """``(N,)`` float64 Euclidean distances in pixels; infinite where a prediction is not finite.

    Args:
        predictions: ``(N, 2)`` points ``(x, y)``.
        targets: ``(N, 2)``.

    Raises:
        ConfigError: shapes disagree, or a target is not finite.
    """
    predictions, targets = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if targets.ndim != 2 or targets.shape[1] != 2 or predictions.shape != targets.shape:
        raise ConfigError(
            f"predictions of shape {predictions.shape} for targets of shape {targets.shape}; both are (N, 2)"
        )
    if not np.isfinite(targets).all():
        raise ConfigError("a target is not finite; leave out the points that cannot be seen")
    distances = np.linalg.norm(predictions - targets, axis=1)
    return np.where(np.isfinite(distances), distances, np.inf)


def pck_scores(verdicts: Iterable[np.ndarray]) -> PCKScores:
    """Averages verdicts over points and over pairs.

    Args:
        verdicts: per pair the ``(N,)`` bool of :func:`correct_points`; a pair without points is skipped.
    """
    judged = [np.asarray(one, bool) for one in verdicts if len(one)]
    if not judged:
        return PCKScores(float("nan"), float("nan"), 0, 0)
    points = np.concatenate(judged)
    shares = [one.mean() for one in judged]
    return PCKScores(float(points.mean()), float(np.mean(shares)), len(points), len(judged))


def swapped_points(predictions: np.ndarray, targets: np.ndarray, partners: np.ndarray) -> np.ndarray:
    """Which predictions lie nearer to the left-right partner of a point than to the point itself.

    No threshold is involved: a prediction far from both counts as a swap if it is on the partner's side, so guessing
    gives about one half.

    Args:
        predictions: ``(N, 2)`` predicted points ``(x, y)`` in pixels of the target image.
        targets: ``(N, 2)`` true points.
        partners: ``(N, 2)`` where the partners truly are in the target image (left ear for right ear); all of them
            visible.

    Returns:
        ``(N,)`` bool.

    Raises:
        ConfigError: shapes disagree, or a target or partner is not finite.
    """
    own = point_distances(predictions, targets)
    return point_distances(predictions, partners) < own
