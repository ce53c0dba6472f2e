"""Similarity judged by the neighbourhood: local scaling and reciprocal neighbours, on a graph of nearest neighbours.

The plain cosine has no scale of its own: two views of a shoe may be less alike than two brands of milk. Both methods
here measure it against the rows around, which makes one threshold serve all of them.

A graph is a list of :class:`.pairs.Pairs`; pairs that are not on it are not similar at all. With the lists of all
``n - 1`` neighbours it is complete, and the methods are those of the papers.
"""

import numpy as np
from scipy.sparse import csr_array

from .errors import ConfigError
from .pairs import Pairs

# Rows of sparse sets compared at a time, which bounds the memory of their copies.
_BLOCK = 65_536

# Share of a candidate's reciprocal neighbours that must be shared for them to be taken in.
_SHARED = 2.0 / 3.0


def neighbour_graph(index: np.ndarray, similarity: np.ndarray) -> Pairs:
    """The pairs in which one row is among the nearest of the other, each once.

    Args:
        index: ``(n, k)`` rows of the neighbours, -1 where there is none.
        similarity: ``(n, k)`` their similarities.
    """
    own = np.repeat(np.arange(len(index), dtype=np.int64), index.shape[1])
    other, values = index.ravel().astype(np.int64), similarity.ravel().astype(np.float32)
    real = (other >= 0) & (other != own)
    own, other, values = own[real], other[real], values[real]
    i, j = np.minimum(own, other), np.maximum(own, other)
    _, first = np.unique(i * len(index) + j, return_index=True)
    return Pairs(i[first].astype(np.int32), j[first].astype(np.int32), values[first])


def local_scaling(n: int, pairs: Pairs, k: int = 5) -> Pairs:
    """Similarity in units of how far each row's neighbours are: ``exp(-d² / (s_i s_j))``.

    ``d`` is the Euclidean distance of the unit vectors and ``s_i`` that of row ``i`` to its ``k``-th neighbour (its
    last, where the graph lists fewer).

    Source: Zelnik-Manor and Perona, "Self-Tuning Spectral Clustering", NIPS 2004.

    Returns:
        The same pairs with similarities in [0, 1].
    """
    _check_at_least_one(k=k)
    squared = _squared_distance(pairs.similarity)
    graph = _Lists(n, pairs)
    kth = np.minimum(graph.start[:-1] + k, graph.start[1:]) - 1
    scale = np.zeros(n)
    known = np.diff(graph.start) > 0
    scale[known] = np.sqrt(_squared_distance(graph.similarity[kth[known]]))
    # Exact copies as neighbours leave no scale: what is equal is similar, all else is not.
    product = np.maximum(scale[pairs.i] * scale[pairs.j], 1e-12)
    return Pairs(pairs.i, pairs.j, np.exp(-squared / product).astype(np.float32), 0.0)


def reciprocal(n: int, pairs: Pairs, k1: int = 8, k2: int = 3) -> Pairs:
    """Similarity as the overlap of the sets of neighbours that have each other among their nearest.

    A row's set holds its ``k1``-reciprocal neighbours and those of each of them that share most of theirs; weights
    fall with the distance (``exp(-d²)``). Each set is averaged with those of the ``k2 - 1`` nearest rows, and two rows
    are compared by the weighted Jaccard index of their sets. The original distance is not mixed in (lambda = 0).

    Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017
    (arXiv 1701.08398).

    Args:
        n: number of rows.
        pairs: the graph; each row should list ``k1`` neighbours or more.
        k1: neighbours of the sets.
        k2: rows, the own among them, whose sets are averaged.

    Returns:
        The same pairs with similarities in [0, 1].
    """
    _check_at_least_one(k1=k1, k2=k2)
    graph = _Lists(n, pairs)
    sets = _expanded(graph.nearest(k1), graph.nearest(max(round(k1 / 2), 1)))
    weights = _weighted(sets, graph)
    if k2 > 1:
        near = graph.nearest(k2 - 1).astype(np.float64)
        weights = csr_array((near / near.sum(axis=1)[:, None]) @ weights)
    return Pairs(pairs.i, pairs.j, _jaccard(weights, pairs), 0.0)


class _Lists:
    """For each row its neighbours, the most similar first; equals in the order of their rows."""

    def __init__(self, n: int, pairs: Pairs) -> None:
        own = np.concatenate([pairs.i, pairs.j])
        other = np.concatenate([pairs.j, pairs.i])
        similarity = np.concatenate([pairs.similarity, pairs.similarity])
        order = np.lexsort((other, -similarity, own))
        self.n = n
        self.own, self.other, self.similarity = own[order], other[order], similarity[order]
        self.start = np.searchsorted(self.own, np.arange(n + 1))

    def nearest(self, k: int) -> csr_array:
        """``(n, n)`` bool: each row itself and its ``k`` nearest."""
        place = np.arange(len(self.own)) - self.start[self.own]
        chosen = place < k
        rows = np.arange(self.n)
        i, j = np.concatenate([rows, self.own[chosen]]), np.concatenate([rows, self.other[chosen]])
        return csr_array((np.ones(len(i), bool), (i, j)), shape=(self.n, self.n))

    def matrix(self) -> csr_array:
        """``(n, n)`` float64 weight ``exp(-d²)`` of each neighbour, 1 for the row itself."""
        rows = np.arange(self.n)
        i, j = np.concatenate([rows, self.own]), np.concatenate([rows, self.other])
        weight = np.concatenate([np.ones(self.n), np.exp(-_squared_distance(self.similarity))])
        return csr_array((weight, (i, j)), shape=(self.n, self.n))


def _expanded(near: csr_array, half: csr_array) -> csr_array:
    """``(n, n)`` bool: reciprocal neighbours, and those of neighbours that share most of theirs."""
    mutual, inner = near.multiply(near.T).tocsr(), half.multiply(half.T).tocsr()
    shared = (inner.astype(np.int32) @ mutual.astype(np.int32).T).T.tocsr()  # (row, candidate)
    candidates = mutual.astype(np.int32).multiply(shared).tocoo()
    size = np.diff(inner.indptr)
    taken = candidates.data > _SHARED * size[candidates.coords[1]]
    chosen = csr_array(
        (np.ones(int(taken.sum()), np.int32), (candidates.coords[0][taken], candidates.coords[1][taken])),
        shape=mutual.shape,
    )
    return ((chosen @ inner.astype(np.int32)) + mutual.astype(np.int32)).astype(bool)


def _weighted(sets: csr_array, graph: _Lists) -> csr_array:
    """``(n, n)`` float64 weights of the members of each set, 1 in sum; members off the graph have none."""
    weights = csr_array(sets.multiply(graph.matrix()))
    return csr_array(weights.multiply(1.0 / weights.sum(axis=1)[:, None]))


def _jaccard(weights: csr_array, pairs: Pairs) -> np.ndarray:
    """``(p,)`` float32 sum of the lesser weights by that of the greater; both rows sum to 1."""
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _BLOCK):
        part = slice(start, start + _BLOCK)
        common = weights[pairs.i[part]].minimum(weights[pairs.j[part]]).sum(axis=1)
        found[part] = common / (2.0 - common)
    return found.clip(0.0, 1.0)


def _squared_distance(cosine: np.ndarray) -> np.ndarray:
    return np.maximum(2.0 - 2.0 * cosine.astype(np.float64), 0.0)


def _check_at_least_one(**options: int) -> None:
    for name, value in options.items():
        if value < 1:
            raise ConfigError(f"{name}={value!r} must be at least 1")
