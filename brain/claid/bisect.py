"""Bisecting a set of patches by k-sums: patches change clusters one at a time, in a given order, as long as it pays.

A patch x has the sum of squared distances ``d(x, c) = n_c x.x - 2 x.D_c + F_c`` to cluster c (its size, the sum of its
tokens, and of their squared lengths). With a sign of +1 or -1 per patch for its cluster, ``M = n_0 - n_1``,
``Phi = F_0 - F_1`` and one score per patch, ``g = x.(D_0 - D_1)``, what a patch gains by changing clusters is
``sign * (M x.x - 2 g + Phi)``: a check costs next to nothing, and a move adds one row of the Gram matrix to the scores.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

# A gain below this is rounding, not a gain.
LEAST_GAIN = 1e-6

# Patches that the array form looks ahead; most of the time a patch that moves is among them.
_LOOK_AHEAD = 96


class State(NamedTuple):
    """Where the bisection of a set of patches stands; the arrays have an entry for every patch of the grid.

    ``signs``, ``scores`` and ``balance`` are changed in place.

    Attributes:
        signs: ``(n,)`` float64: +1 in cluster 0, -1 in cluster 1, and 0 for patches that are not in the set.
        scores: ``(n,)`` float64 products of the tokens with the difference of the clusters' sums; those of patches
            that are not in the set mean nothing.
        lengths: ``(n,)`` float64 squared lengths of the tokens.
        balance: ``(2,)`` float64 differences of the clusters in size and in squared lengths.
    """

    signs: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray
    balance: np.ndarray


# Does an epoch: Gram matrix, state, order, inertia -> moves; see `sweep`.
Sweep = Callable[[np.ndarray, State, np.ndarray, float], int]


@dataclass(frozen=True)
class Split:
    """How a bisection ended.

    Attributes:
        labels: ``(m,)`` uint8 cluster of every patch, 0 or 1.
        epochs: sweeps, the last one without a move included.
        moves: patches that changed clusters, counted as often as they did.
    """

    labels: np.ndarray
    epochs: int
    moves: int


def start(unit: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first scores of a bisection.

    Args:
        unit: ``(n, C)`` tokens of unit length.
        signs: ``(n,)`` float64; see :class:`State`.

    Returns:
        ``(C,)`` and ``(n,)`` float64: the difference of the clusters' sums, and the products of the tokens with it (0
        for patches that are not in the set).
    """
    patches = np.flatnonzero(signs)
    tokens = unit[patches].astype(np.float64)
    difference = signs[patches] @ tokens
    scores = np.zeros(len(unit))
    scores[patches] = tokens @ difference
    return difference, scores


def sweep(gram: np.ndarray, state: State, order: np.ndarray, inertia: float) -> int:
    """One epoch: visits every patch of the set once, and moves it if that pays.

    Between two moves no gain changes. So the gains of many patches ahead are computed at once, and the first one in
    order that pays is the next one to move.

    Args:
        gram: ``(n, n)`` products of the tokens.
        state: of the bisection.
        order: ``(N,)`` int patches in the order of the visits; those that are not in the set are passed over.
        inertia: see :class:`.options.DetectorOptions`.

    Returns:
        the number of moves.
    """
    order = order[state.signs[order] != 0]
    signs, scores, lengths = state.signs[order], state.scores[order], state.lengths[order]
    thresholds = np.maximum(inertia * lengths, LEAST_GAIN)
    size, squares = state.balance
    cursor, ahead, moves = 0, _LOOK_AHEAD, 0
    while cursor < len(order):
        view = slice(cursor, cursor + ahead)
        gains = signs[view] * (size * lengths[view] - 2 * scores[view] + squares)
        pays = gains > thresholds[view]
        step = int(pays.argmax())
        if not pays[step]:
            cursor, ahead = cursor + ahead, len(order)
            continue
        at = cursor + step
        change = 2 * signs[at]
        scores -= change * gram[order[at]][order]
        size -= change
        squares -= change * lengths[at]
        signs[at] = -signs[at]
        cursor, ahead, moves = at + 1, _LOOK_AHEAD, moves + 1
    state.signs[order], state.scores[order] = signs, scores
    state.balance[:] = size, squares
    return moves


def bisect(
    gram: np.ndarray,
    labels: np.ndarray,
    orders: Iterable[np.ndarray],
    inertia: float = 1.0,
    *,
    max_epochs: int = 501,
    sweep: Sweep = sweep,
) -> Split:
    """Bisects a set of patches (the paper's Algorithm 1), until an epoch passes without a move.

    Args:
        gram: ``(m, m)`` products of the tokens.
        labels: ``(m,)`` cluster that every patch starts in, 0 or 1; one of them may be empty.
        orders: per epoch, ``(m,)`` int patches in the order of the visits.
        inertia: see :class:`.options.DetectorOptions`.
        max_epochs: epochs at most; no more than there are orders.
        sweep: does an epoch; see :func:`sweep`.
    """
    signs = 1.0 - 2.0 * np.asarray(labels, np.float64)
    lengths = gram.diagonal().astype(np.float64)
    state = State(signs, signs @ gram.astype(np.float64), lengths, balance_of(signs, lengths))
    epochs, moves = settle(orders, max_epochs, lambda order: sweep(gram, state, order, inertia))
    return Split((signs < 0).astype(np.uint8), epochs, moves)


def settle(orders: Iterable[np.ndarray], max_epochs: int, sweep: Callable[[np.ndarray], int]) -> tuple[int, int]:
    """Calls ``sweep`` with one order after the other, until it returns 0 moves; returns the epochs and all moves."""
    epochs, moves = 0, 0
    for order in islice(orders, max_epochs):
        epochs += 1
        moved = sweep(order)
        moves += moved
        if not moved:
            break
    return epochs, moves


def balance_of(signs: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``(2,)`` float64 differences of the two clusters in size and in squared lengths; see :class:`State`."""
    return np.array([signs.sum(), signs @ lengths])
