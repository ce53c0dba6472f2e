"""The inner loops of joining groups along links, compiled where numba is installed and slow but right where it is not.

Imported only where they run, because numba takes half a second to load.
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        from numba import njit
    except ImportError:
        return function
    return njit(cache=True)(function)


# Neighbours of each row: those of row r are ``indices[indptr[r]:indptr[r + 1]]``.
Adjacency = tuple[np.ndarray, np.ndarray]


@_compiled
def adjacency(n: int, i: np.ndarray, j: np.ndarray) -> Adjacency:
    """The neighbours of each of ``n`` rows, from ``(p,)`` ends of pairs."""
    indptr = np.zeros(n + 1, np.int64)
    for p in range(len(i)):
        indptr[i[p] + 1] += 1
        indptr[j[p] + 1] += 1
    for row in range(n):
        indptr[row + 1] += indptr[row]
    place = indptr[:-1].copy()
    indices = np.empty(2 * len(i), np.int32)
    for p in range(len(i)):
        indices[place[i[p]]] = j[p]
        place[i[p]] += 1
        indices[place[j[p]]] = i[p]
        place[j[p]] += 1
    return indptr, indices


@_compiled
def join_links(
    labels: np.ndarray, i: np.ndarray, j: np.ndarray, near: Adjacency, cannot: Adjacency, limited: bool
) -> None:
    """Joins the groups at the ends of each link in turn, if they may be joined.

    Two groups that were refused are remembered; when one of them grows they are asked once more, and mostly refused at
    the first row.

    Args:
        labels: ``(n,)`` int32 group of each row, the number of one of its rows: at first its own; changed in place.
        i, j: ``(p,)`` int32 ends of the links, the strongest first.
        near: rows that may share a group; every pair of a group must be among them, if ``limited``.
        cannot: rows that must not share a group.
    """
    n = len(labels)
    # The members of each group form a ring.
    ring, size = np.arange(n), np.ones(n, np.int64)
    refused = {np.int64(-1)}
    for p in range(len(i)):
        a, b = labels[i[p]], labels[j[p]]
        if a == b:
            continue
        if size[a] < size[b]:
            a, b = b, a
        pair = np.int64(min(a, b)) * n + max(a, b)
        if pair in refused:
            continue
        if _may_join(labels, a, b, size[a], ring, near, cannot, limited):
            row = b
            while labels[row] == b:
                labels[row] = a
                row = ring[row]
            ring[a], ring[b] = ring[b], ring[a]
            size[a] += size[b]
        else:
            refused.add(pair)


@_compiled
def _may_join(
    labels: np.ndarray,
    a: int,
    b: int,
    size_a: int,
    ring: np.ndarray,
    near: Adjacency,
    cannot: Adjacency,
    limited: bool,
) -> bool:
    row = b
    while True:
        if limited and _count(labels, a, near, row) < size_a:
            return False
        if _count(labels, a, cannot, row) > 0:
            return False
        row = ring[row]
        if row == b:
            return True


@_compiled
def _count(labels: np.ndarray, group: int, neighbours: Adjacency, row: int) -> int:
    """Neighbours of a row that are in a group."""
    met = 0
    for position in range(neighbours[0][row], neighbours[0][row + 1]):
        met += labels[neighbours[1][position]] == group
    return met
