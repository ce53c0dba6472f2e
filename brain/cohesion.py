"""How well each row sits in its cluster: silhouettes on a graph of neighbours, and the cut that separates best."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from .pairs import Pairs

UNCLUSTERED = -1


@dataclass(frozen=True)
class Cohesion:
    """Mean similarities of each row to its own cluster and to the nearest other one.

    Attributes:
        label: ``(n,)`` int32 cluster of each row, from 0; -1 for none.
        own: ``(n,)`` float64 mean similarity to the other members of the row's cluster; 0 outside clusters.
        rival: ``(n,)`` float64 greatest mean similarity to another cluster; 0 where there is none near.
    """

    label: np.ndarray
    own: np.ndarray
    rival: np.ndarray

    def silhouette(self) -> np.ndarray:
        """``(n,)`` float64 in [-1, 1] on ``1 - similarity``; 0 for rows outside clusters.

        Source: Rousseeuw, "Silhouettes", Journal of Computational and Applied Mathematics 20, 1987.
        """
        inner, outer = 1.0 - self.own, 1.0 - self.rival
        value = (outer - inner) / np.maximum(np.maximum(inner, outer), 1e-12)
        return np.where(self.label == UNCLUSTERED, 0.0, value)

    def confidence(self) -> np.ndarray:
        """``(n,)`` float32 in [0, 1]: ``(1 + silhouette) / 2``, so 0.5 is a tie with another cluster; 0 for none."""
        clustered = self.label != UNCLUSTERED
        return np.where(clustered, (1.0 + self.silhouette()) / 2.0, 0.0).clip(0.0, 1.0).astype(np.float32)

    def outlier(self) -> np.ndarray:
        """``(n,)`` float32 in [0, 1]: how much farther a row lies than the members of a cluster usually do.

        That is ``1 - u / d``, of the row's mean distance ``d`` to its cluster (outside clusters: to the nearest one)
        and the usual one ``u``, the median of that cluster's members; 0 for rows that are nearer than usual.
        """
        inside = self.label != UNCLUSTERED
        distance = 1.0 - np.where(inside, self.own, self.rival)
        if not inside.any():
            return np.ones(len(self.label), np.float32)
        # Which cluster is nearest does not matter much to what is usual, so rows outside are held to the typical one.
        usual = _medians(self.label[inside], distance[inside])
        typical = np.append(usual, np.median(usual))[self.label]
        return (1.0 - typical / np.maximum(distance, 1e-12)).clip(0.0, 1.0).astype(np.float32)


def cohesion(label: np.ndarray, pairs: Pairs, rest: float = 0.0) -> Cohesion:
    """Compares each row with the clusters around it.

    Args:
        label: ``(n,)`` int clusters numbered from 0 without gaps; -1 for none.
        pairs: the graph; pairs that are not listed have the similarity ``rest``.
    """
    n = len(label)
    sizes = np.bincount(label[label >= 0], minlength=1)
    own_row, other = np.concatenate([pairs.i, pairs.j]), np.concatenate([pairs.j, pairs.i])
    excess = np.tile(pairs.similarity.astype(np.float64) - rest, 2)
    met = label[other] >= 0
    sums = csr_array((excess[met], (own_row[met], label[other[met]])), shape=(n, len(sizes)))
    rows = np.repeat(np.arange(n), np.diff(sums.indptr))
    mine = label[rows] == sums.indices
    own, rival = np.zeros(n), np.full(n, rest)
    inside = label >= 0
    # A cluster of one has no others to be compared with; the division is never used.
    others = np.maximum(sizes[label] - 1, 1)
    own[inside] = rest
    own[rows[mine]] += sums.data[mine] / others[rows[mine]]
    np.maximum.at(rival, rows[~mine], sums.data[~mine] / sizes[sums.indices[~mine]] + rest)
    return Cohesion(label.astype(np.int32), own, rival)


def separation(label: np.ndarray, pairs: Pairs, rest: float = 0.0) -> float:
    """Mean over all rows of how much more similar a row is to its own cluster than to any other; 0 for rows alone.

    The silhouette divides this by the distance, which favours many small and very tight clusters; thresholds chosen by
    it scored lower.
    """
    found = cohesion(compact(label), pairs, rest)
    return float(np.where(found.label == UNCLUSTERED, 0.0, found.own - found.rival).mean())


def best_cut(labels: Sequence[np.ndarray], pairs: Pairs, rest: float = 0.0) -> int:
    """Which of several clusterings separates best; the first of equals."""
    return int(np.argmax([separation(label, pairs, rest) for label in labels]))


def compact(label: np.ndarray, min_size: int = 2, always: np.ndarray | None = None) -> np.ndarray:
    """``(n,)`` int32 clusters renumbered by falling size (of equals, the lowest row first); smaller ones become -1.

    Args:
        label: ``(n,)`` any names; negative ones are none.
        min_size: members of the smallest cluster that counts.
        always: rows whose clusters count at any size.
    """
    if not len(label):
        return np.empty(0, np.int32)
    _, first, inverse, counts = np.unique(label, return_index=True, return_inverse=True, return_counts=True)
    small = counts < min_size
    if always is not None:
        small[inverse[always]] = False
    counts = np.where(small | (label[first] < 0), 0, counts)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    rank[counts == 0] = UNCLUSTERED
    return rank[inverse]


def _medians(label: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``(C,)`` median of the values of each cluster."""
    order = np.lexsort((values, label))
    ends = np.cumsum(np.bincount(label))
    starts = np.append(0, ends[:-1])
    middle = starts + (ends - starts - 1) // 2
    return (values[order[middle]] + values[order[starts + (ends - starts) // 2]]) / 2.0
