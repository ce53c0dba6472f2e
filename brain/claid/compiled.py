"""The loops of the detector, compiled by numba; the same results as the array forms, many times as fast.

The compiled code does not hold Python's lock, so that several threads can each work on an image.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from .affinity import LEAST_NORM
from .bisect import LEAST_GAIN, State

# A matrix is turned over in blocks: the columns that are read fill a line of the cache (16 numbers of 4 bytes), and the
# rows that are written are long enough to be written at once.
_COLUMNS, _ROWS = 16, 512


def _compiled(function: Callable[..., Any], fastmath: bool | set[str] = False) -> Any:
    """Compiles at the first call, and keeps the result on disk where a folder for it can be written to."""
    try:
        return njit(cache=True, nogil=True, fastmath=fastmath)(function)
    except RuntimeError:
        return njit(nogil=True, fastmath=fastmath)(function)


def _in_any_order(function: Callable[..., Any]) -> Any:
    """Compiles sums whose terms may be added in any order, several at once."""
    return _compiled(function, {"reassoc", "contract"})


def unit_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The compiled form of :func:`.affinity.unit_rows`."""
    return _unit_rows(features)


def complete_and_link(gram: np.ndarray, alpha: float) -> np.ndarray:
    """The compiled form of :func:`.affinity.complete_and_link`."""
    _fill_upper(gram)
    return _link(gram, gram.dtype.type(alpha))


def degrees(links: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """The compiled form of :func:`.affinity.degrees`."""
    return _degrees(links, patches)


def start(unit: np.ndarray, signs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The compiled form of :func:`.bisect.start`."""
    return _start(unit, signs)


def sweep(gram: np.ndarray, state: State, order: np.ndarray, inertia: float) -> int:
    """The compiled form of :func:`.bisect.sweep`."""
    return _sweep(gram, *state, order, float(inertia))


def components(members: np.ndarray, grid_hw: tuple[int, int], min_patches: int) -> list[np.ndarray]:
    """The compiled form of :func:`.components.components`."""
    marks, sizes = _mark_components(members, *grid_hw)
    return [members[marks == mark] for mark in np.flatnonzero(sizes >= min_patches)]


@_in_any_order
def _product(a, b):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(len(a)):
        total += np.float64(a[c]) * np.float64(b[c])
    return total


@_in_any_order
def _absolute_sum(a):  # type: ignore[no-untyped-def]
    total = 0.0
    for c in range(len(a)):
        total += abs(np.float64(a[c]))
    return total


@_compiled
def _unit_rows(features):  # type: ignore[no-untyped-def]
    n, channels = features.shape
    unit = np.empty_like(features)
    lengths, energies = np.empty(n), np.empty(n)
    for i in range(n):
        row, target = features[i], unit[i]
        energies[i] = _absolute_sum(row)
        norm = row.dtype.type(max(np.sqrt(_product(row, row)), LEAST_NORM))
        for c in range(channels):
            target[c] = row[c] / norm
        lengths[i] = _product(target, target)
    return unit, lengths, energies


@_compiled
def _fill_upper(gram):  # type: ignore[no-untyped-def]
    n = len(gram)
    for top in range(0, n, _ROWS):
        bottom = min(top + _ROWS, n)
        for left in range(0, bottom, _COLUMNS):
            for j in range(left, min(left + _COLUMNS, bottom)):
                first = max(top, j + 1)
                row, column = gram[j, first:bottom], gram[first:bottom, j]
                for k in range(len(row)):
                    row[k] = column[k]


@_compiled
def _link(gram, alpha):  # type: ignore[no-untyped-def]
    n = len(gram)
    words = (n + 63) // 64
    links = np.zeros((n, words), np.uint64)
    for i in range(n):
        for word in range(words):
            cosines = gram[i, word * 64 : min(word * 64 + 64, n)]
            bits = np.uint64(0)
            for k in range(len(cosines)):
                bits |= np.uint64(cosines[k] > alpha) << np.uint64(k)
            links[i, word] = bits
    return links


@_compiled
def _degrees(links, patches):  # type: ignore[no-untyped-def]
    words = links.shape[1]
    members = np.zeros(words, np.uint64)
    for patch in patches:
        members[patch // 64] |= np.uint64(1) << np.uint64(patch % 64)
    degree = np.zeros(len(patches), np.int64)
    for k in range(len(patches)):
        row = links[patches[k]]
        count = np.uint64(0)
        for word in range(words):
            # Number of ones in a word, by summing neighbouring fields of 1, 2 and 4 bits.
            x = row[word] & members[word]
            x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
            x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
            x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
            count += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
        degree[k] = count
    return degree


@_compiled
def _start(unit, signs):  # type: ignore[no-untyped-def]
    n, channels = unit.shape
    difference = np.zeros(channels)
    for i in range(n):
        if signs[i] != 0:
            row, sign = unit[i], signs[i]
            for c in range(channels):
                difference[c] += sign * row[c]
    scores = np.zeros(n)
    for i in range(n):
        if signs[i] != 0:
            scores[i] = _product(unit[i], difference)
    return difference, scores


@_compiled
def _sweep(gram, signs, scores, lengths, balance, order, inertia):  # type: ignore[no-untyped-def]
    n = len(signs)
    first, last = 0, n
    while first < n and signs[first] == 0:
        first += 1
    while last > first and signs[last - 1] == 0:
        last -= 1
    # All from the first to the last patch of the set: several at a time, which beats picking those that are in it.
    within = scores[first:last]
    size, squares = balance
    moves = 0
    for i in order:
        sign, length = signs[i], lengths[i]
        if sign != 0 and sign * (size * length - 2 * scores[i] + squares) > max(inertia * length, LEAST_GAIN):
            change = 2 * sign
            row = gram[i, first:last]
            for k in range(len(row)):
                within[k] -= change * row[k]
            size -= change
            squares -= change * length
            signs[i] = -sign
            moves += 1
    balance[0], balance[1] = size, squares
    return moves


@_compiled
def _mark_components(members, height, width):  # type: ignore[no-untyped-def]
    marks = np.full((height + 2, width + 2), -2, np.int64)
    for patch in members:
        marks[patch // width + 1, patch % width + 1] = -1
    stack = np.empty(len(members), np.int64)
    sizes = np.zeros(len(members), np.int64)
    count = 0
    for first in members:
        if marks[first // width + 1, first % width + 1] != -1:
            continue
        stack[0], top = first, 1
        marks[first // width + 1, first % width + 1] = count
        while top:
            top -= 1
            sizes[count] += 1
            row, column = stack[top] // width, stack[top] % width
            for y in range(row, row + 3):
                for x in range(column, column + 3):
                    if marks[y, x] == -1:
                        marks[y, x] = count
                        stack[top] = (y - 1) * width + x - 1
                        top += 1
        count += 1
    found = np.empty(len(members), np.int64)
    for k in range(len(members)):
        found[k] = marks[members[k] // width + 1, members[k] % width + 1]
    return found, sizes[:count]
