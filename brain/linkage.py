"""Average linkage on a graph of nearest neighbours, under constraints: no n×n matrix is ever held."""

import heapq
from dataclasses import dataclass

import numpy as np

from .constraints import Constraints
from .pairs import Pairs


@dataclass(frozen=True)
class Merges:
    """Who joined whom, the most similar first.

    Attributes:
        start: ``(n,)`` int32 cluster of each row before the first merge, named by its lowest row.
        kept: ``(m,)`` int32 name of the cluster that goes on.
        joined: ``(m,)`` int32 name of the cluster that is taken in.
        similarity: ``(m,)`` float64 mean similarity at which they join, never rising.
    """

    start: np.ndarray
    kept: np.ndarray
    joined: np.ndarray
    similarity: np.ndarray

    def cut(self, threshold: float) -> np.ndarray:
        """``(n,)`` int32 clusters whose merges all have at least this similarity; each named by one of its rows."""
        parent = np.arange(len(self.start), dtype=np.int32)
        count = int((self.similarity >= threshold).sum())
        # Backwards, the parent of a cluster that goes on has found its own parent already.
        for a, b in zip(self.kept[:count][::-1].tolist(), self.joined[:count][::-1].tolist(), strict=True):
            parent[b] = parent[a]
        return parent[self.start]


def average_linkage(
    n: int, pairs: Pairs, least: float, *, rest: float = 0.0, constraints: Constraints | None = None
) -> Merges:
    """Merges the two clusters with the greatest mean similarity over all pairs of their rows, again and again.

    What must be together is one cluster from the start. Two clusters of which rows must be apart never merge, and pass
    that on to whatever takes them in.

    Args:
        n: number of rows.
        pairs: the graph.
        least: similarity below which nothing merges.
        rest: similarity of the pairs that the graph does not list.
        constraints: what must and must not be together; checked by the caller.
    """
    rules = Constraints() if constraints is None else constraints
    closure = rules.closure(n)
    _, first = np.unique(closure, return_index=True)
    start = first[closure].astype(np.int32) if n else closure
    state = _Clusters(n, pairs, rest, start)
    state.forbid(rules.forbidden(start))
    return state.run(least)


class _Clusters:
    """Sums of similarity between neighbouring clusters, and a heap of the merges that are possible."""

    def __init__(self, n: int, pairs: Pairs, rest: float, start: np.ndarray) -> None:
        self.start = start
        self.rest = rest
        self.size = np.bincount(start, minlength=n).tolist()
        # Sums count what exceeds `rest`, so that pairs off the graph add nothing.
        self.sums: list[dict[int, float]] = [{} for _ in range(n)]
        self.apart: dict[int, set[int]] = {}
        excess = pairs.similarity.astype(np.float64) - rest
        for a, b, s in zip(start[pairs.i].tolist(), start[pairs.j].tolist(), excess.tolist(), strict=True):
            if a != b:
                self.sums[a][b] = self.sums[b][a] = self.sums[a].get(b, 0.0) + s

    def forbid(self, forbidden: np.ndarray) -> None:
        for a, b in forbidden.tolist():
            self._part(a, b)

    def run(self, least: float) -> Merges:
        heap = [self._entry(a, b) for a, found in enumerate(self.sums) for b in found if a < b and self._free(a, b)]
        heap = [entry for entry in heap if -entry[0] >= least]
        heapq.heapify(heap)
        merges: list[tuple[int, int, float]] = []
        lowest = float("inf")
        while heap:
            negative, a, b = heapq.heappop(heap)
            # An entry counts only if it still tells the mean of two clusters that both exist.
            if b not in self.sums[a] or self._entry(a, b)[0] != negative or not self._free(a, b):
                continue
            a, b = (a, b) if (self.size[a], -a) >= (self.size[b], -b) else (b, a)
            # The mean never rises but for rounding.
            lowest = min(lowest, -negative)
            merges.append((a, b, lowest))
            self._join(a, b)
            for c in self.sums[a]:
                if self._free(a, c) and -(entry := self._entry(min(a, c), max(a, c)))[0] >= least:
                    heapq.heappush(heap, entry)
        kept, joined, similarity = zip(*merges, strict=True) if merges else ((), (), ())
        return Merges(self.start, np.array(kept, np.int32), np.array(joined, np.int32), np.array(similarity, float))

    def _entry(self, a: int, b: int) -> tuple[float, int, int]:
        return -(self.sums[a][b] / (self.size[a] * self.size[b]) + self.rest), a, b

    def _free(self, a: int, b: int) -> bool:
        return b not in self.apart.get(a, ())

    def _part(self, a: int, b: int) -> None:
        self.apart.setdefault(a, set()).add(b)
        self.apart.setdefault(b, set()).add(a)

    def _join(self, a: int, b: int) -> None:
        """Takes cluster ``b`` into ``a``."""
        self.size[a] += self.size[b]
        del self.sums[a][b], self.sums[b][a]
        for c, value in self.sums[b].items():
            del self.sums[c][b]
            self.sums[a][c] = self.sums[c][a] = self.sums[a].get(c, 0.0) + value
        self.sums[b] = {}
        for c in self.apart.pop(b, ()):
            self.apart[c].discard(b)
            self._part(a, c)
