"""Exact radius joins and nearest neighbours by raw cosine, blockwise: no n×n matrix is ever held.

Nothing is centred, and no input is modified: similarity is the plain cosine of the vectors as given. Vectors may be
float16, float32 or float64 and memory-mapped. Cosines are computed in float64 and rounded to float32, so a result does
not depend on block size or device; brute force in float32 agrees but for pairs within 1e-6 of the threshold.

Each search has a twin ``..._steps``, a generator that yields the share of work done and returns the result.
"""

from collections.abc import Generator, Iterator

import numpy as np

from .blockwise import Rows, join_hits
from .errors import ConfigError
from .nearest import TIE, knn, knn_steps, mutual_knn_pairs, mutual_knn_pairs_steps
from .pairs import MAX_PAIRS, PairCollector, Pairs, check_threshold, exhaust

__all__ = [
    "MAX_PAIRS",
    "TIE",
    "Pairs",
    "cross_pairs",
    "cross_pairs_steps",
    "knn",
    "knn_steps",
    "mutual_knn_pairs",
    "mutual_knn_pairs_steps",
    "radius_pairs",
    "radius_pairs_steps",
    "stream_pairs",
]


def radius_pairs(
    vectors: np.ndarray,
    threshold: float,
    *,
    start: int = 0,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """All pairs of rows whose raw cosine is at least ``threshold``.

    Each pair is computed once. Beyond the input and the result (twice its size for a moment), memory is bounded by
    the block size and the number of threads: about 150 MB for 768 dimensions on two cores.

    Args:
        vectors: ``(n, d)`` of any length greater than 0; not modified.
        threshold: least cosine, in [-1, 1].
        start: only pairs whose later row is at least this one: where the rows before were compared with each other
            already, the new rows at the end are compared with all.
        block: rows that are multiplied at a time; None chooses.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        max_pairs: guard against filling memory; None is 50 million.

    Raises:
        ConfigError: vectors without direction (rows are named), options out of range, or more than ``max_pairs``
            pairs (the message suggests a threshold).
    """
    steps = radius_pairs_steps(vectors, threshold, start=start, block=block, device=device, max_pairs=max_pairs)
    return exhaust(steps)


def radius_pairs_steps(
    vectors: np.ndarray,
    threshold: float,
    *,
    start: int = 0,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Generator[float, None, Pairs]:
    """:func:`radius_pairs` as a generator that yields the share of work done, in [0, 1]."""
    check_threshold(threshold)
    _check_start(start)
    rows = Rows(vectors, block, device)
    return (yield from _collect(rows, rows, threshold, start, max_pairs))


def cross_pairs(
    left: np.ndarray,
    right: np.ndarray,
    threshold: float,
    *,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """All pairs of a row of one set and a row of another whose raw cosine is at least ``threshold``.

    Args:
        left: ``(n, d)``, as for :func:`radius_pairs`.
        right: ``(m, d)``.

    Returns:
        Pairs in which ``i`` is a row of ``left`` and ``j`` one of ``right``; neither need be the smaller.

    Raises:
        ConfigError: as :func:`radius_pairs`, or the sets differ in dimension.
    """
    return exhaust(cross_pairs_steps(left, right, threshold, block=block, device=device, max_pairs=max_pairs))


def cross_pairs_steps(
    left: np.ndarray,
    right: np.ndarray,
    threshold: float,
    *,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Generator[float, None, Pairs]:
    """:func:`cross_pairs` as a generator that yields the share of work done, in [0, 1]."""
    check_threshold(threshold)
    sides = Rows(left, block, device), Rows(right, block, device)
    if left.shape[1] != right.shape[1]:
        raise ConfigError(
            f"vectors of {left.shape[1]} and of {right.shape[1]} dimensions cannot be compared; "
            "both sets must come from the same model"
        )
    return (yield from _collect(*sides, threshold, 0, max_pairs))


def stream_pairs(
    vectors: np.ndarray, threshold: float, *, start: int = 0, block: int | None = None, device: str = "auto"
) -> Iterator[Pairs]:
    """The pairs of :func:`radius_pairs` in chunks as they are found, for results that need not fit into memory.

    Each pair is in one chunk; only together would they be sorted. A chunk comes from one block of rows against
    sixteen (``16 * block ** 2`` pairs, if all were similar); a few more wait to be read.

    Raises:
        ConfigError: as :func:`radius_pairs`, but there may be any number of pairs.
    """
    check_threshold(threshold)
    _check_start(start)
    rows = Rows(vectors, block, device)
    chunks = (hits for _, hits in join_hits(rows, rows, threshold, start=start))
    return (Pairs(hits.i, hits.j, hits.similarity, float(threshold)) for hits in chunks if len(hits.i))


def _collect(
    left: Rows, right: Rows, threshold: float, start: int, max_pairs: int | None
) -> Generator[float, None, Pairs]:
    collector = PairCollector(threshold, max_pairs)
    for done, hits in join_hits(left, right, threshold, start=start):
        collector.add(hits, done)
        yield done
    return collector.pairs()


def _check_start(start: int) -> None:
    if start < 0:
        raise ConfigError(f"start={start} must be 0 or more: the first row that is new")
