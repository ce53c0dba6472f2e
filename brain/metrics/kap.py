"""Keypoint average precision (KAP): also charges for confident matches to things that are not there.

Source: Mariotti et al., "Improving Semantic Correspondence with Viewpoint-Guided Spherical Maps" (CVPR 2024,
arXiv:2312.13216) and its release. PCK asks only for keypoints that both images show. KAP asks for all that the source
shows: the similarity at the true place must be higher than that at any other place, and than that of keypoints which
the target does not show at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from .decisions import average_precision
from .keypoints import share_text


@dataclass(frozen=True, eq=False)
class KapSamples:
    """Detections of one pair, keypoint by keypoint, the positive before the negative.

    Attributes:
        labels: ``(m,)`` bool, whether the detection is the true place.
        scores: ``(m,)`` float64 in [0, 1], similarity within the pair.
    """

    labels: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class KapResult:
    """A KAP.

    Attributes:
        alpha: share of the longer side of the target's box within which a cell is the true place.
        value: mean over the categories that have one, in [0, 1]; NaN without any.
        per_category: of each category; NaN where it has no positive.
        n_samples: detections of all categories.
        n_positives: those at true places.
    """

    alpha: float
    value: float
    per_category: Mapping[str, float]
    n_samples: int
    n_positives: int

    @property
    def label(self) -> str:
        """In words: ``KAP@0.1 per category, box threshold``."""
        return f"KAP@{share_text(self.alpha)} per category, box threshold"

    def __str__(self) -> str:
        return f"{self.label}: {100 * self.value:.1f} % ({self.n_positives} of {self.n_samples} samples positive)"

    def as_row(self) -> dict[str, Any]:
        """For a table: the flavour in words, the value and the counts."""
        row = {"metric": self.label, "alpha": self.alpha, "value": self.value}
        return row | {"n_samples": self.n_samples, "n_positives": self.n_positives}


def kap_samples(
    similarity: np.ndarray,
    targets: np.ndarray,
    target_visible: np.ndarray,
    radius: float,
    cell: float,
    *,
    reference: float = 0.0,
) -> KapSamples:
    """Detections of a pair for one ``alpha``.

    The similarities of all its keypoints are scaled together to [0, 1]. A keypoint that the target shows gives its
    highest similarity at the true place (positive) and elsewhere (negative); one that it does not show, its highest
    similarity (negative).

    Args:
        similarity: ``(n, h, w)`` of the n keypoints that the source shows to the cells of the target; a cell that shows
            nothing of the picture has ``-inf``.
        targets: ``(n, 2)`` true points in pixels of the target's canvas; not read where not visible.
        target_visible: ``(n,)`` bool.
        radius: ``alpha`` times the longer side of the target's box, in pixels of the canvas; a cell is a true place
            if its reference point is nearer than this, and the nearest cell always is.
        cell: side of a cell in pixels.
        reference: of the point of a cell from which it is measured, from its upper left corner along both axes, in
            pixels; the release measures from the corner itself.

    Raises:
        ConfigError: shapes disagree, ``radius`` is not positive, or a visible target is not finite.
    """
    similarity, targets = np.asarray(similarity, np.float64), np.asarray(targets, np.float64)
    visible = np.asarray(target_visible, bool)
    n = len(similarity)
    if similarity.ndim != 3 or targets.shape != (n, 2) or visible.shape != (n,):
        raise ConfigError(
            f"similarity {similarity.shape}, targets {targets.shape} and visibility {visible.shape} do not fit;"
            " they are (n, h, w), (n, 2) and (n,)"
        )
    if not radius > 0:
        raise ConfigError(f"radius={radius} must be positive: a share of the longer side of the target's box")
    if not np.isfinite(targets[visible]).all():
        raise ConfigError("a target that is visible has no finite place")
    scores = _scaled(similarity).reshape(n, -1)
    at_place = _true_cells(targets, visible, similarity.shape[1:], radius, cell, reference)
    hits, rivals = (np.where(part, scores, -np.inf).max(1, initial=-np.inf) for part in (at_place, ~at_place))
    # Per keypoint: the positive, which one that is hidden lacks, and the negative, which a true place that fills the
    # whole picture leaves no room for.
    both = np.stack([hits, rivals], 1)
    kept = np.isfinite(both)
    labels = np.broadcast_to([True, False], both.shape)
    return KapSamples(labels[kept], both[kept])


def kap(samples: Iterable[tuple[str, KapSamples]], alpha: float) -> KapResult:
    """KAP of pairs: average precision (steps, ties together) of each category's samples, then the mean.

    Args:
        samples: category and detections of each pair, all for this ``alpha``.
        alpha: stated in the result.
    """
    pooled: dict[str, list[KapSamples]] = {}
    for category, one in samples:
        pooled.setdefault(category, []).append(one)
    values, n_samples, n_positives = {}, 0, 0
    for category in sorted(pooled):
        labels = np.concatenate([one.labels for one in pooled[category]])
        scores = np.concatenate([one.scores for one in pooled[category]])
        values[category] = average_precision(scores, labels)
        n_samples += len(labels)
        n_positives += int(labels.sum())
    known = [value for value in values.values() if np.isfinite(value)]
    mean = float(np.mean(known)) if known else float("nan")
    return KapResult(alpha, mean, values, n_samples, n_positives)


def _scaled(similarity: np.ndarray) -> np.ndarray:
    """To [0, 1] by the least and the greatest of all; cells that show nothing get 0, and so does a constant."""
    finite = np.isfinite(similarity)
    if not finite.any():
        return np.zeros(similarity.shape)
    low, high = similarity[finite].min(), similarity[finite].max()
    return np.where(finite, (similarity - low) / (high - low or 1.0), 0.0)


def _true_cells(
    targets: np.ndarray, visible: np.ndarray, grid_hw: tuple[int, ...], radius: float, cell: float, reference: float
) -> np.ndarray:
    """``(n, h * w)`` bool; no cell of a keypoint that is not visible."""
    rows, columns = (np.arange(size) * cell + reference for size in grid_hw)
    places = np.where(visible[:, None], targets, 0.0)
    squares = (rows - places[:, 1:]) ** 2
    squared = (squares[:, :, None] + ((columns - places[:, :1]) ** 2)[:, None, :]).reshape(len(targets), -1)
    near = squared < radius**2
    near[np.arange(len(near)), squared.argmin(1)] = True
    return near & visible[:, None]
