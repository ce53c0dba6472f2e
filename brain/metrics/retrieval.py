"""Retrieval of the same object: top-1, average precision, and what chance would score."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError

Norm = Literal["min", "R"]
NORMS: tuple[Norm, ...] = ("min", "R")


@dataclass(frozen=True)
class SearchScores:
    """Mean average precision of a search at three cut-offs; NaN where there is no query.

    Attributes:
        map_50, map_100: of the first 50 and the first 100 images of each list.
        map_all: of the whole lists.
        n_queries: lists that entered.
    """

    map_50: float
    map_100: float
    map_all: float
    n_queries: int


@dataclass(frozen=True)
class RetrievalScores:
    """Retrieval figures; means over queries, NaN where there is no query.

    Attributes:
        top1: share of queries whose nearest image shows the same object.
        map: mean average precision.
        macro_map: mean over categories of their mean average precision; NaN where categories are not known.
        n_queries: images that were queries.
        n_skipped: images that were not, because their scope holds no other image of the object.
        chance_top1: expected ``top1`` of a random order, exactly.
        chance_map: expected ``map`` of a random order, exactly (closed form).
    """

    top1: float
    map: float
    macro_map: float
    n_queries: int
    n_skipped: int
    chance_top1: float
    chance_map: float


def average_precision(
    relevance: np.ndarray, total: int | None = None, k: int | None = None, norm: Norm = "min"
) -> float:
    """Mean over the relevant ranks of the precision there: ``1 / min(k, R) * sum_{i <= k} rel_i * precision(i)``.

    Args:
        relevance: ``(N,)`` bool or 0/1, the ranked list, best first.
        total: number R of relevant images, also of those that the list lacks; None counts those in the list.
        k: cut-off; None takes the whole list and divides by R.
        norm: ``"min"`` divides by ``min(k, R)``, so that a perfect list scores 1 at any cut-off; ``"R"`` by R always.

    Returns:
        a value in [0, 1]; NaN where nothing is relevant.

    Raises:
        ConfigError: ``k`` is not positive, ``total`` is less than the relevant images in the list, or ``norm`` is
            unknown.
    """
    if norm not in NORMS:
        raise ConfigError(f"norm={norm!r} is unknown; use one of {', '.join(NORMS)}")
    relevance = np.asarray(relevance).astype(bool)
    found = int(relevance.sum())
    total = found if total is None else int(total)
    if total < found:
        raise ConfigError(f"total={total} relevant images, but the list holds {found}")
    if k is not None and k < 1:
        raise ConfigError(f"k={k} must be at least 1")
    if total == 0:
        return float("nan")
    ranks = np.flatnonzero(relevance[:k]) + 1
    precision = np.arange(1, len(ranks) + 1) / ranks
    return float(precision.sum() / (total if k is None or norm == "R" else min(k, total)))


def instance_search_scores(relevance: Sequence[np.ndarray], totals: Sequence[int], norm: Norm = "min") -> SearchScores:
    """mAP-50, mAP-100 and mAP-all, as instance search reports them.

    Args:
        relevance: per query ``(N,)`` bool, its ranked list without the query's own image, best first.
        totals: per query the number of relevant images, at least 1, also of those that its list lacks.
        norm: as for :func:`average_precision`. The published figures of CLAID (arXiv:2506.16745, Table I) fall and rise
            again with the cut-off, which only ``"min"`` explains.

    Raises:
        ConfigError: as :func:`average_precision`, or a query has nothing relevant.
    """
    if min(totals, default=1) < 1:
        raise ConfigError("a query has no relevant image; leave it out")
    lists = list(zip(relevance, totals, strict=True))
    at_50, at_100, at_all = (
        _mean([average_precision(ranked, total, k, norm) for ranked, total in lists]) for k in (50, 100, None)
    )
    return SearchScores(at_50, at_100, at_all, len(lists))


def chance_average_precision(n_gallery: int, n_relevant: int) -> float:
    """Expected average precision of a gallery in random order, exactly.

    Rank i is relevant with probability R/N, and then R-1 of the other N-1 images are spread evenly over the other
    ranks, so that ``precision(i)`` is expected to be ``(1 + (i-1) (R-1)/(N-1)) / i``. The sum over i is
    ``(H + (R-1)/(N-1) (N - H)) / N`` with the harmonic number ``H = 1 + 1/2 + ... + 1/N``.

    Args:
        n_gallery: number N of images in the gallery.
        n_relevant: number R of relevant images among them, at least 1.
    """
    if n_relevant >= n_gallery:
        return 1.0
    harmonic = float((1 / np.arange(1, n_gallery + 1)).sum())
    return (harmonic + (n_relevant - 1) / (n_gallery - 1) * (n_gallery - harmonic)) / n_gallery


def retrieval_scores(
    similarity: np.ndarray,
    object_ids: Sequence[Any],
    scope_ids: Sequence[Any] | None = None,
    category_ids: Sequence[Any] | None = None,
) -> RetrievalScores:
    """Every image is a query once; its gallery is all other images of its scope; relevant is the same object.

    Equal similarities keep the order of the images. Exact duplicates of the query stay in the gallery.

    Args:
        similarity: ``(n, n)`` row = query; larger is more alike. The diagonal is ignored.
        object_ids: n ids of the objects shown.
        scope_ids: n ids; the gallery of a query is its own scope. None puts all images in one scope.
        category_ids: n ids over which ``macro_map`` averages; None takes ``scope_ids``.

    Raises:
        ConfigError: the shapes disagree, or a similarity is not a finite number.
    """
    similarity = np.asarray(similarity, np.float64)
    objects = as_codes(object_ids, len(similarity), "object_ids")
    scopes = as_codes(scope_ids, len(similarity), "scope_ids")
    check_similarity(similarity, ignore_diagonal=True)
    galleries, relevants, firsts, precisions = (np.full(len(objects), np.nan) for _ in range(4))
    for members in scope_members(scopes):
        for query in members:
            others = members[members != query]
            order = np.argsort(-similarity[query, others], kind="stable")
            relevance = objects[others[order]] == objects[query]
            galleries[query], relevants[query] = len(others), relevance.sum()
            if relevance.any():
                firsts[query], precisions[query] = relevance[0], average_precision(relevance)
    asked = relevants > 0
    categories = category_ids if category_ids is not None else scope_ids
    macro = as_codes(categories, len(similarity), "category_ids")[asked]
    by_category = [precisions[asked][macro == code].mean() for code in np.unique(macro)]
    chance = [chance_average_precision(int(n), int(r)) for n, r in zip(galleries[asked], relevants[asked], strict=True)]
    return RetrievalScores(
        top1=_mean(firsts[asked]),
        map=_mean(precisions[asked]),
        macro_map=_mean(by_category) if categories is not None else float("nan"),
        n_queries=int(asked.sum()),
        n_skipped=int((~asked).sum()),
        chance_top1=_mean(relevants[asked] / galleries[asked]),
        chance_map=_mean(chance),
    )


def check_similarity(similarity: np.ndarray, *, ignore_diagonal: bool = False) -> None:
    """Raises ConfigError unless the matrix is square and finite, the diagonal excepted where it is to be ignored."""
    if similarity.ndim != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ConfigError(f"similarity has shape {similarity.shape}; it must be (n, n)")
    finite = np.isfinite(similarity)
    if ignore_diagonal:
        finite |= np.eye(len(similarity), dtype=bool)
    if not finite.all():
        row = int(np.argmin(finite.all(1)))
        raise ConfigError(f"similarity of image {row} is not finite; its vector is broken")


def as_codes(ids: Sequence[Any] | None, n: int, name: str) -> np.ndarray:
    """``(n,)`` integer codes of arbitrary ids; all 0 for None."""
    if ids is None:
        return np.zeros(n, int)
    if len(ids) != n:
        raise ConfigError(f"{name} has {len(ids)} entries for {n} images")
    codes: dict[Any, int] = {}
    return np.array([codes.setdefault(one, len(codes)) for one in ids], int)


def scope_members(scopes: np.ndarray) -> list[np.ndarray]:
    """Indices of the images of each scope, ascending."""
    return [np.flatnonzero(scopes == code) for code in np.unique(scopes)]


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
