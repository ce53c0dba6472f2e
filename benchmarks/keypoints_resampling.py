"""Figures of pairs of pictures with intervals from resamples of the pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .coseg_data import MATCH, LabelledPair, resamples


@dataclass(frozen=True)
class Estimate:
    """A figure and the middle 95 % of what resamples give; NaN where there is nothing to count."""

    value: float
    low: float
    high: float

    def named(self, name: str) -> dict[str, float]:
        """As columns of a table."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


class Resamples:
    """The same draws for every figure, so that differences between methods are differences on the same pairs.

    Args:
        weights: ``(rounds, n)`` int: how often each of n pairs counts in each draw.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights

    def share(self, hits: np.ndarray, totals: np.ndarray) -> Estimate:
        """Share of points: ``(n,)`` hits over ``(n,)`` totals, both pooled."""
        return _estimate(ratio(hits.sum(), totals.sum()), ratio(self._weights @ hits, self._weights @ totals))

    def mean_share(self, hits: np.ndarray, totals: np.ndarray) -> Estimate:
        """Mean over the pairs that have a point of the share within each."""
        known = totals > 0
        return self.share(np.where(known, hits / np.maximum(totals, 1), 0.0), known.astype(float))

    def share_difference(self, hits: np.ndarray, others: np.ndarray, totals: np.ndarray) -> Estimate:
        """The share of ``hits`` less that of ``others``, of the same points."""
        return self.share(hits - others, totals)

    def of_rows(self, figure: Callable[[np.ndarray], float], pairs: np.ndarray) -> Estimate:
        """A figure of rows that belong to pairs.

        Args:
            figure: takes numbers of rows, which may repeat themselves.
            pairs: int pair of each row.
        """
        rows = np.arange(len(pairs))
        values = [figure(np.repeat(rows, weights[pairs])) for weights in self._weights]
        return _estimate(figure(rows), np.array(values))


def drawn_pictures(ends: Sequence[tuple[str, str]], rounds: int, seed: int) -> Resamples:
    """Draws of as many pictures as there are, with replacement: pairs that share a picture stand or fall together.

    Args:
        ends: names of the two pictures of each pair.
        rounds: draws.
        seed: of the draws.
    """
    names = list(dict.fromkeys(name for pair in ends for name in pair))
    rows = {name: row for row, name in enumerate(names)}
    pairs = [LabelledPair(rows[first], rows[second], "", MATCH, False) for first, second in ends]
    return Resamples(np.stack(list(resamples(pairs, names, rounds, seed))))


def ratio(hits: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Their quotient; NaN where there is nothing."""
    hits, totals = np.asarray(hits, float), np.asarray(totals, float)
    return np.divide(hits, totals, out=np.full(hits.shape, np.nan), where=totals > 0)


def _estimate(value: np.ndarray | float, values: np.ndarray) -> Estimate:
    finite = values[np.isfinite(values)]
    low, high = np.percentile(finite, (2.5, 97.5)) if len(finite) else (np.nan, np.nan)
    return Estimate(float(value), float(low), float(high))


def counts(flags: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Of each pair's verdicts: how many are true, and how many there are."""
    return np.array([one.sum() for one in flags], float), np.array([len(one) for one in flags], float)
