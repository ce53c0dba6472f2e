"""Leaks between the splits of a dataset, from pairs of images that show the same: who, how many, what to drop."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NONE = -1

# From the split that can best do without an image to the one that is needed as it is.
_PURPOSES = (
    {"train", "training", "trn"},
    {"val", "valid", "validation", "dev"},
    {"test", "testing", "eval", "holdout"},
)


@dataclass(frozen=True)
class LeakTable:
    """Leaks by pair of splits.

    Attributes:
        pairs: ``(S, S)`` int64 symmetric: pairs of images across two splits.
        images: ``(S, S)`` int64: images of split a (row) that have a partner in split b (column).
    """

    pairs: np.ndarray
    images: np.ndarray


def across(split: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """``(p,)`` bool: whether a pair joins two splits; ``split`` is ``(n,)`` int, -1 for images in none."""
    return (split[i] != split[j]) & (split[i] != NONE) & (split[j] != NONE)


def leak_table(split: np.ndarray, i: np.ndarray, j: np.ndarray, n_splits: int) -> LeakTable:
    """Counts leaks; all pairs must be across splits (:func:`across`)."""
    pairs = np.zeros((n_splits, n_splits), np.int64)
    images = np.zeros((n_splits, n_splits), np.int64)
    np.add.at(pairs, (split[i], split[j]), 1)
    ends = np.concatenate([np.stack([i, split[j]], axis=1), np.stack([j, split[i]], axis=1)])
    leaking, into = np.unique(ends, axis=0).T
    np.add.at(images, (split[leaking], into), 1)
    return LeakTable(pairs + pairs.T, images)


def nearest_across(n: int, i: np.ndarray, j: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar partner of each image and its similarity: ``(n,)`` int64, -1 for none, and ``(n,)`` float32."""
    partner, best = np.full(n, NONE, np.int64), np.full(n, -np.inf, np.float32)
    order = np.argsort(similarity, kind="stable")
    # The last one written stays: that of the highest similarity.
    for own, other in ((i, j), (j, i)):
        nearest = np.full(n, NONE, np.int64)
        nearest[own[order]] = order
        rows = np.flatnonzero(nearest != NONE)
        better = rows[similarity[nearest[rows]] > best[rows]]
        best[better], partner[better] = similarity[nearest[better]], other[nearest[better]]
    return partner, best


def leak_groups(n: int, i: np.ndarray, j: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """``(n,)`` int64: images joined by leaks share a number, 0 has the most similar pair; -1 without leak."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(i):
        return np.full(n, NONE, np.int64)
    graph = coo_array((np.ones(len(i), bool), (i, j)), shape=(n, n))
    count, component = connected_components(graph, directed=False)
    best = np.full(count, -np.inf)
    np.maximum.at(best, component[i], similarity)
    number = np.empty(count, np.int64)
    number[np.argsort(-best, kind="stable")] = np.arange(count)
    return np.where(np.isfinite(best)[component], number[component], NONE)


def side_to_drop(names: Sequence[str], sizes: Sequence[int]) -> int:
    """Which of two splits can do without the images that leak: 0 or 1.

    Training data rather than validation data, and these rather than test data, by their usual names; where those say
    nothing, the larger split.
    """
    first, second = (_purpose(name) for name in names)
    if first is not None and second is not None and first != second:
        return int(second < first)
    return int(sizes[1] > sizes[0])


def _purpose(name: str) -> int | None:
    words = set(re.findall(r"[a-z]+", name.lower()))
    return next((rank for rank, usual in enumerate(_PURPOSES) if words & usual), None)
