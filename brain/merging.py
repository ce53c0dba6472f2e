"""Joining groups along links, the strongest first: by counting listed pairs (compiled) or by measuring vectors."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .constraints import Constraints
from .neighbors import Pairs

# Rows of vectors handled at a time, which bounds the memory of copies.
_BLOCK = 1024

# Links looked up at a time: links whose ends have met meanwhile are dropped in one array operation.
_BATCH = 20_000


def linked_components(n: int, pairs: np.ndarray) -> np.ndarray:
    """``(n,)`` int32 number of the connected component of each row, given ``(p, 2)`` rows that are linked."""
    if not n:
        return np.empty(0, np.int32)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1]


def merge_listed(n: int, links: Pairs, close: Pairs | None, constraints: Constraints) -> np.ndarray:
    """Joins groups if every two rows of the joint group are on a list.

    Rows that must be together are one thing seen from several sides: whoever is close to one of them is close to it.

    Args:
        links: pairs that join groups, taken from the most similar down.
        close: all pairs that may share a group, sorted by ``(i, j)``; None sets no such condition.
        constraints: rows that are one group whatever their distance, and rows that never share one.

    Returns:
        ``(n,)`` int32 labels, equal within a group.
    """
    from .link_kernels import adjacency, join_links

    part, cannot = np.arange(n, dtype=np.int32), constraints.cannot
    if len(constraints.must):
        part = _parts(n, constraints)
        links, close = _between_parts(links, part), None if close is None else _between_parts(close, part)
        cannot = part[cannot]
    labels = np.arange(int(part.max(initial=-1)) + 1, dtype=np.int32)
    # Pairs are sorted by row already, so that a stable sort leaves equal cosines in the order of their rows.
    order = np.argsort(-links.similarity, kind="stable")
    ends = (np.empty(0, np.int32),) * 2 if close is None else (close.i, close.j)
    near, apart = adjacency(len(labels), *ends), adjacency(len(labels), *np.ascontiguousarray(cannot.T))
    join_links(labels, links.i[order], links.j[order], near, apart, close is not None)
    return labels[part]


def merge_measured(n: int, links: Pairs, vectors: np.ndarray, floor: float, constraints: Constraints) -> np.ndarray:
    """Joins groups if every two rows of the joint group have a cosine of at least ``floor``, taken from vectors.

    Args and result as for :func:`merge_listed`, with ``(n, d)`` vectors in place of a list.
    """
    part = _parts(n, constraints)
    _, first = np.unique(part, return_index=True)
    labels = first[part].astype(np.int32)
    within = _Within(vectors, floor, constraints, part)
    edges = np.concatenate([np.stack([links.i, links.j], axis=1), constraints.must])
    for members, own in _by_component(linked_components(n, edges), links):
        if within.all_fit(members, own):
            labels[members] = members[0]
        else:
            _join_measured(labels, members, own, within)
    return labels


def _parts(n: int, constraints: Constraints) -> np.ndarray:
    """``(n,)`` int32 number of the must-link component of each row, in the order of their first rows."""
    _, first, inverse = np.unique(constraints.closure(n), return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int32)[inverse]


def _between_parts(pairs: Pairs, part: np.ndarray) -> Pairs:
    """The pairs of different parts, each once with the similarity of its most similar rows, sorted."""
    i, j = part[pairs.i], part[pairs.j]
    low, high = np.minimum(i, j), np.maximum(i, j)
    order = np.lexsort((-pairs.similarity, high, low))
    low, high = low[order], high[order]
    new = low != high
    new[1:] &= (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return Pairs(low[new], high[new], pairs.similarity[order][new], pairs.threshold)


class _Within:
    """The complete-link condition by cosines of parts, and the rows that are kept apart."""

    def __init__(self, vectors: np.ndarray, floor: float, constraints: Constraints, part: np.ndarray) -> None:
        self.vectors, self._part = vectors, part
        self.floor = floor
        self.cannot: dict[int, set[int]] = defaultdict(set)
        for a, b in constraints.cannot.tolist():
            self.cannot[a].add(b)
            self.cannot[b].add(a)
        self._decided = np.zeros(len(part), bool)
        self._decided[np.concatenate([constraints.must, constraints.cannot]).ravel()] = True

    def all_fit(self, members: np.ndarray, links: Pairs) -> bool:
        """Whether all members may form one group."""
        if self._decided[members].any():
            return False
        m = len(members)
        if len(links) == m * (m - 1) // 2 and bool(links.similarity.min() >= np.float32(self.floor)):
            return True
        blocks = range(0, m, _BLOCK)
        return all(self._close(members[start : start + _BLOCK], members[start:]) for start in blocks)

    def joins(self, a: list[int], b: list[int]) -> bool:
        """Whether two groups may be one."""
        if self.cannot and any(not self.cannot[row].isdisjoint(b) for row in a if row in self.cannot):
            return False
        return self._close(np.array(a), np.array(b))

    def _close(self, a: np.ndarray, b: np.ndarray) -> bool:
        cosine = _unit(self.vectors[a]) @ _unit(self.vectors[b]).T
        for axis, rows in ((0, a), (1, b)):
            if self._decided[rows].any():
                order = np.argsort(self._part[rows], kind="stable")
                _, starts = np.unique(self._part[rows][order], return_index=True)
                cosine = np.maximum.reduceat(cosine.take(order, axis), starts, axis)
        # Cosines are rounded to float32: a pair that a search calls close enough must be so here, too.
        return bool(cosine.min() >= self.floor - 1e-6)


def _join_measured(labels: np.ndarray, rows: np.ndarray, links: Pairs, within: _Within) -> None:
    """Joins the rows of one connected component, from its strongest link down; writes the label of each row.

    Two groups that were refused once are refused for good, since groups only grow: the memory of refusals makes all
    further links between them free.
    """
    members: dict[int, list[int]] = defaultdict(list)
    for row, label in zip(rows.tolist(), labels[rows].tolist(), strict=True):
        members[label].append(row)
    refused: dict[int, set[int]] = defaultdict(set)
    order = np.argsort(-links.similarity, kind="stable")
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        batch = batch[labels[links.i[batch]] != labels[links.j[batch]]]
        for i, j in zip(links.i[batch].tolist(), links.j[batch].tolist(), strict=True):
            a, b = int(labels[i]), int(labels[j])
            if a == b or b in refused[a]:
                continue
            if not within.joins(members[a], members[b]):
                refused[a].add(b)
                refused[b].add(a)
                continue
            if len(members[a]) < len(members[b]):
                a, b = b, a
            labels[members[b]] = a
            members[a] += members.pop(b)
            _inherit(refused, a, b)


def _inherit(refused: dict[int, set[int]], a: int, b: int) -> None:
    """Whoever was refused by group ``b`` is now refused by group ``a``, which took it in."""
    for other in refused.pop(b, ()):
        refused[other].discard(b)
        refused[other].add(a)
        refused[a].add(other)


def _by_component(components: np.ndarray, links: Pairs) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Rows and links of each connected component that has links."""
    rows = np.argsort(components, kind="stable").astype(np.int32)
    row_ends = np.cumsum(np.bincount(components)) if len(components) else np.empty(0, np.int64)
    home = components[links.i]
    order = np.argsort(home, kind="stable")
    names, starts, counts = np.unique(home[order], return_index=True, return_counts=True)
    row_starts = np.append(0, row_ends)[:-1]
    for name, start, count in zip(names, starts, counts, strict=True):
        chosen = order[start : start + count]
        part = Pairs(links.i[chosen], links.j[chosen], links.similarity[chosen], links.threshold)
        yield rows[row_starts[name] : row_ends[name]], part


def _unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
