"""Two older ways of sorting keypoint errors, as published, beside our own of :mod:`.keypoint_errors`.

- *ECCV 2022*: Aygün and Mac Aodha, "Demystifying Unsupervised Semantic Correspondence Estimation": counts of jitter,
  miss and swap, which overlap.
- *coco-analyze*: Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation" (ICCV 2017,
  arXiv:1707.05388): good, jitter, inversion, swap and miss, by similarity to the keypoints of all objects. What it
  calls a swap is with another object; its inversion is our ``swap_mirror``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import ConfigError
from .keypoints import point_distances

CocoType = Literal["good", "jitter", "inversion", "swap", "miss"]
COCO_TYPES: tuple[CocoType, ...] = get_args(CocoType)

# Of COCO's 17 keypoints in its order: nose, then couples of eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
COCO_SIGMAS = (0.026, *(s for s in (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089) for _ in range(2)))

# Similarity from which a prediction is good, and from which it belongs to a keypoint at all.
_GOOD, _CLOSE = 0.85, 0.5


@dataclass(frozen=True)
class Eccv22Counts:
    """Predictions of a pair, counted as in the ECCV 2022 analysis. Jitter and miss overlap, so they do not add up.

    Attributes:
        points: judged.
        correct: at most T from the own place.
        correct_exclusive: so, and the own place is the nearest: PCK†.
        jitter: from T to less than 2 T.
        miss: no true place of the pair within T.
        swap: another true place is the nearest, and within T.
    """

    points: int
    correct: int
    correct_exclusive: int
    jitter: int
    miss: int
    swap: int


def eccv22_counts(predictions: np.ndarray, targets: np.ndarray, threshold: float) -> Eccv22Counts:
    """Counts of one pair.

    Args:
        predictions: ``(N, 2)`` predicted points; one that is not finite is a miss and nothing else.
        targets: ``(N, 2)`` true points; keypoints that the target does not show must be left out.
        threshold: T, in the same pixels.

    Raises:
        ConfigError: shapes disagree, or a target is not finite.
    """
    predictions, targets = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    own = point_distances(predictions, targets)
    distances = np.linalg.norm(predictions[:, None] - targets, axis=-1)
    least = np.where(np.isfinite(distances), distances, np.inf).min(1, initial=np.inf)
    counts = {
        "correct": own <= threshold,
        "correct_exclusive": (own <= threshold) & (own <= least),
        "jitter": (own >= threshold) & (own < 2 * threshold),
        "miss": least > threshold,
        "swap": (least < own) & (least <= threshold),
    }
    return Eccv22Counts(points=len(targets), **{name: int(np.count_nonzero(hit)) for name, hit in counts.items()})


def keypoint_similarity(points: np.ndarray, places: np.ndarray, areas: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """``exp(-d² / (2 a (2 σ)²))``, COCO's similarity of a point to a true place.

    Args:
        points, places: ``(..., 2)``, in pixels.
        areas: ``(...)`` a, of the object in square pixels.
        sigmas: ``(...)`` σ of the keypoint, as a share of the root of the area.

    Returns:
        ``(...)`` float64 in [0, 1]; 0 where a point or a place is not finite.
    """
    squared = ((np.asarray(points, np.float64) - np.asarray(places, np.float64)) ** 2).sum(-1)
    similarity = np.exp(-squared / (2 * np.asarray(areas) * (2 * np.asarray(sigmas)) ** 2))
    return np.where(np.isfinite(squared), similarity, 0.0)


def coco_types(
    predictions: np.ndarray,
    places: np.ndarray,
    areas: np.ndarray,
    partners: np.ndarray,
    sigmas: np.ndarray | float,
    *,
    own: int = 0,
) -> np.ndarray:
    """Sorts the K predicted keypoints of one object by what they lie nearest to in COCO's similarity.

    ``good``: the own keypoint, above 0.85. ``jitter``: the own one, from 0.5. ``inversion``: the mirrored keypoint of
    the same object. ``swap``: the same or the mirrored keypoint of another object. ``miss``: nothing from 0.5. Of equal
    similarities the first in this order counts.

    Args:
        predictions: ``(K, 2)``; NaN where the detector gave none. (Stored as (0, 0), as COCO does, such points would be
            misses, or matches of whatever lies in the corner.)
        places: ``(M, K, 2)`` keypoints of the M annotated objects; NaN where not annotated.
        areas: ``(M,)`` of the objects in square pixels.
        partners: ``(K,)`` int slots of the mirror partners; the slot itself where there is none.
        sigmas: ``(K,)`` or one for all; :data:`COCO_SIGMAS` for COCO's persons.
        own: which of the objects the predictions belong to.

    Returns:
        ``(K,)`` object array of names; None where there is no prediction, or the own keypoint is not annotated.

    Raises:
        ConfigError: shapes disagree, or an area or sigma is not positive.
    """
    predictions, places = np.asarray(predictions, np.float64), np.asarray(places, np.float64)
    partners = np.asarray(partners, int)
    k = len(predictions)
    if predictions.shape != (k, 2) or places.shape[1:] != (k, 2) or partners.shape != (k,):
        raise ConfigError(
            f"predictions {predictions.shape}, places {places.shape} and partners {partners.shape} do not fit;"
            " they are (K, 2), (M, K, 2) and (K,)"
        )
    sigmas = np.broadcast_to(np.asarray(sigmas, np.float64), (k,))
    areas = np.asarray(areas, np.float64)[:, None]
    if not ((areas > 0).all() and (sigmas > 0).all()):
        raise ConfigError("areas of objects and sigmas of keypoints must be positive")
    straight = keypoint_similarity(predictions, places, areas, sigmas)
    mirrored = keypoint_similarity(predictions, places[:, partners], areas, sigmas[partners])
    mirrored[:, partners == np.arange(k)] = 0.0
    others = np.delete(np.maximum(straight, mirrored), own, axis=0).max(0, initial=0.0)
    rivals = np.stack([straight[own], mirrored[own], others])
    best, value = rivals.argmax(0), rivals.max(0)
    names = np.array(["jitter", "inversion", "swap"], object)[best]
    names[(best == 0) & (value > _GOOD)] = "good"
    names[value < _CLOSE] = "miss"
    names[~np.isfinite(predictions).all(1) | ~np.isfinite(places[own]).all(1)] = None
    return names
