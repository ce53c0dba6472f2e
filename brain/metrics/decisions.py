"""Yes-or-no decisions by a score: precision, recall, F1, average precision, and the threshold of the best F1."""

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError


@dataclass(frozen=True)
class DecisionFigures:
    """How good decisions are on the positive class.

    Attributes:
        precision: share of the positive answers that are right; 0 where there is none.
        recall: share of the positives that were found; 0 where there is none.
        f1: harmonic mean of both.
    """

    precision: float
    recall: float
    f1: float


def decision_figures(decided: np.ndarray, truth: np.ndarray) -> DecisionFigures:
    """Precision, recall and F1.

    Args:
        decided: ``(n,)`` bool answers.
        truth: ``(n,)`` bool.

    Raises:
        ConfigError: they differ in length.
    """
    decided, truth = _same_length(np.asarray(decided, bool), np.asarray(truth, bool))
    hits, answers, positives = (int(np.count_nonzero(x)) for x in (decided & truth, decided, truth))
    return DecisionFigures(
        hits / answers if answers else 0.0,
        hits / positives if positives else 0.0,
        2 * hits / (answers + positives) if answers + positives else 0.0,
    )


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall curve as a sum of steps; equal scores are one step. NaN without positives.

    Args:
        scores: ``(n,)``, higher is more certain.
        truth: ``(n,)`` bool.

    Raises:
        ConfigError: they differ in length.
    """
    scores, truth = _same_length(np.asarray(scores, np.float64), np.asarray(truth, bool))
    if not truth.any():
        return float("nan")
    hits, answers = _steps(scores, truth)[1:]
    recall = np.diff(hits / truth.sum(), prepend=0.0)
    return float(np.sum(recall * hits / answers))


def best_f1_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The threshold (``score >= threshold`` is positive) of the highest F1, in the middle of its gap between scores.

    Of equal F1 the highest threshold is taken. Below the lowest score there is no gap: then it is that score itself.

    Args:
        scores: ``(n,)``, n at least 1.
        truth: ``(n,)`` bool.

    Raises:
        ConfigError: they differ in length, or there is no positive.
    """
    scores, truth = _same_length(np.asarray(scores, np.float64), np.asarray(truth, bool))
    if not truth.any():
        raise ConfigError("no positive among the labels: a threshold cannot be chosen on them")
    levels, hits, answers = _steps(scores, truth)
    best = int(np.argmax(2 * hits / (answers + truth.sum())))
    return float(levels[best] if best + 1 == len(levels) else (levels[best] + levels[best + 1]) / 2)


def _steps(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores, the highest first; positives, and answers, at or above each."""
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(truth[order])
    last = np.flatnonzero(np.append(ordered[:-1] != ordered[1:], True))
    return ordered[last], hits[last], last + 1


def _same_length(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.shape != b.shape or a.ndim != 1:
        raise ConfigError(f"answers of shape {a.shape} and labels of shape {b.shape} do not belong together")
    return a, b
