"""Label-free scores made comparable and put together, and how well each finds the errors where labels exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls
from scipy.stats import rankdata

from ..errors import ConfigError
from .keypoint_errors import CONFUSIONS


@dataclass(frozen=True)
class ScoreQuality:
    """How well a score finds the matches that mistake one part for another.

    Attributes:
        auroc: chance that an error scores above a match that is none, ties counting half; NaN without either.
        n_errors, n_others: matches that could be scored.
        n_unscored: matches that could not.
    """

    auroc: float
    n_errors: int
    n_others: int
    n_unscored: int


def rank_scores(scores: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Ranks within a category, from 0 for the least suspicious to 1.

    Args:
        scores: ``(n,)``; NaN stays NaN and does not count.
        categories: ``(n,)`` of any kind that can be sorted.

    Returns:
        ``(n,)`` float64; equal scores get the middle of their ranks; 0.5 for the only score of a category.
    """
    scores, categories = np.asarray(scores, np.float64), np.asarray(categories)
    ranks = np.full(len(scores), np.nan)
    for category in np.unique(categories):
        members = np.flatnonzero((categories == category) & ~np.isnan(scores))
        if len(members) > 1:
            ranks[members] = (rankdata(scores[members]) - 1) / (len(members) - 1)
        else:
            ranks[members] = 0.5
    return ranks


def combined_score(
    scores: Mapping[str, np.ndarray], categories: np.ndarray, weights: Mapping[str, float] | None = None
) -> np.ndarray:
    """Mean of the ranks of several scores, over those that each match has.

    Args:
        scores: ``(n,)`` each, by name.
        categories: ``(n,)`` ranks are taken within a category.
        weights: by name; scores without a weight are left out. None weighs all alike.

    Returns:
        ``(n,)`` float64 in [0, 1]; NaN where a match has none of the scores.

    Raises:
        ConfigError: a weight is negative, not one is positive, or one has no score.
    """
    weights = dict.fromkeys(scores, 1.0) if weights is None else dict(weights)
    unknown = [name for name in weights if name not in scores]
    if unknown or any(not value >= 0 for value in weights.values()) or not any(weights.values()):
        raise ConfigError(f"weights must be at least 0, some more, of {', '.join(scores)}; not {weights}")
    total, mass = np.zeros(len(categories)), np.zeros(len(categories))
    for name, weight in weights.items():
        ranks = rank_scores(scores[name], categories)
        known = ~np.isnan(ranks)
        total[known] += weight * ranks[known]
        mass += weight * known
    return np.divide(total, mass, out=np.full(len(mass), np.nan), where=mass > 0)


def confusions(types: np.ndarray) -> np.ndarray:
    """``(n,)`` bool of error types: one part was taken for another like it (swaps of partners and mates, phantoms)."""
    return np.isin(np.asarray(types, str), CONFUSIONS)


def auroc(scores: np.ndarray, errors: np.ndarray) -> ScoreQuality:
    """How well a score parts errors from the other matches.

    Args:
        scores: ``(n,)``, higher is more suspicious; NaN cannot be scored and is counted apart.
        errors: ``(n,)`` bool.

    Raises:
        ConfigError: they differ in length.
    """
    scores, errors = np.asarray(scores, np.float64), np.asarray(errors, bool)
    if scores.shape != errors.shape or scores.ndim != 1:
        raise ConfigError(f"scores of shape {scores.shape} and errors of shape {errors.shape} do not belong together")
    known = ~np.isnan(scores)
    n_errors, n_others = int((errors & known).sum()), int((~errors & known).sum())
    value = float("nan")
    if n_errors and n_others:
        ranks = rankdata(scores[known])
        value = float((ranks[errors[known]].sum() - n_errors * (n_errors + 1) / 2) / (n_errors * n_others))
    return ScoreQuality(value, n_errors, n_others, int((~known).sum()))


def fitted_weights(
    scores: Mapping[str, np.ndarray], categories: np.ndarray, errors: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Weights for :func:`combined_score` from labels: least squares of errors on ranks, none negative.

    A score that a match does not have counts as the middle rank. Errors and the other matches weigh alike as wholes,
    however rare errors are.

    Args:
        scores: ``(n,)`` each, by name.
        categories: ``(n,)``.
        errors: ``(n,)`` bool.
        names: of the scores to use; None takes all.

    Returns:
        weights by name that sum to 1.

    Raises:
        ConfigError: all matches are errors, or none is.
    """
    errors = np.asarray(errors, bool)
    if errors.all() or not errors.any():
        raise ConfigError("weights need matches that are errors and matches that are none; label some of both")
    names = list(scores) if names is None else list(names)
    ranks = np.stack([np.nan_to_num(rank_scores(scores[name], categories), nan=0.5) - 0.5 for name in names], 1)
    masses = np.where(errors, 0.5 / errors.sum(), 0.5 / (~errors).sum())[:, None] ** 0.5
    weights, _ = nnls(ranks * masses, (errors - 0.5) * masses[:, 0])
    if not weights.any():
        weights = np.ones(len(names))
    return {name: float(value) for name, value in zip(names, weights / weights.sum(), strict=True)}
