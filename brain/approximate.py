"""Approximate search with faiss (an extra), for sets on which the exact one takes too long; recall is measured.

Vectors lie in an inverted file: k-means cells, of which a query visits the nearest few. They are kept in float16; what
is found is then decided by the same exact cosines as in :mod:`.neighbors`, so a pair is never wrong, only missing.
How many cells are visited is chosen on a sample of rows that are also searched exactly.
"""

import math
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch

from .blockwise import Hits, Rows, join_hits
from .errors import ConfigError
from .nearest import nearest_to, rows_in_order
from .pairs import PairCollector, Pairs, check_threshold, exhaust

# Share of the sample's true neighbours that the visited cells must hold.
TARGET_RECALL = 0.995

# Rows that are searched exactly to choose the number of cells.
_SAMPLE = 1024

# Below this many rows a single cell, which is all of them, costs less than k-means.
_MIN_CELLED = 20_000

# Rows per cell that k-means is trained on: faiss warns of less than 39.
_TRAINED_PER_CELL = 40

# Rows added or searched at a time.
_CHUNK = 8192

# Rounding what is stored to float16 moves a cosine by less than this.
_HALF = 1e-3


def approximate_pairs(
    vectors: np.ndarray,
    threshold: float,
    *,
    probes: int | None = None,
    start: int = 0,
    max_pairs: int | None = None,
    seed: int = 0,
) -> Pairs:
    """Nearly all pairs of rows whose raw cosine is at least ``threshold``; none that is below.

    Memory: up to twice the vectors in float16 while the file grows, and a sample of them in float32 for training.

    Args:
        vectors: ``(n, d)`` float16, float32 or float64 of any length greater than 0; may be memory-mapped.
        threshold: least cosine, in [-1, 1].
        probes: cells that each query visits; None visits as many as :data:`TARGET_RECALL` takes.
        start: only pairs whose later row is at least this one.
        max_pairs: guard against filling memory; None is 50 million.
        seed: of the samples for training and for choosing ``probes``.

    Raises:
        ConfigError: faiss is missing, or as :func:`.neighbors.radius_pairs`.
    """
    steps = approximate_pairs_steps(vectors, threshold, probes=probes, start=start, max_pairs=max_pairs, seed=seed)
    return exhaust(steps)


def approximate_pairs_steps(
    vectors: np.ndarray,
    threshold: float,
    *,
    probes: int | None = None,
    start: int = 0,
    max_pairs: int | None = None,
    seed: int = 0,
) -> Generator[float, None, Pairs]:
    """:func:`approximate_pairs` as a generator that yields the share of work done, in [0, 1]."""
    check_threshold(threshold)
    _check_options(probes, start)
    rows = Rows(vectors, device="cpu")
    collector = PairCollector(threshold, max_pairs)
    if len(rows) - start > 0:
        cells = yield from _Cells.build(rows, seed)
        if probes is None:
            sample = _sampled(rows, start, _SAMPLE, seed)
            cells.choose_probes(_true_pairs(rows, sample, threshold), lambda: cells.within(sample, threshold))
        else:
            cells.probes = probes
        for first, stop in rows.ranges(_CHUNK, start):
            done = (stop - start) / (len(rows) - start)
            collector.add(_decided(rows, cells.within(np.arange(first, stop), threshold), threshold, start), done)
            yield 0.4 + 0.6 * done
    return collector.pairs()


def approximate_knn(
    vectors: np.ndarray, k: int, *, probes: int | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Nearly the ``k`` nearest other rows of each row by raw cosine.

    Args:
        vectors: as for :func:`approximate_pairs`.
        k: neighbours per row; at most ``n - 1`` are returned.
        probes: as for :func:`approximate_pairs`.
        seed: as for :func:`approximate_pairs`.

    Returns:
        ``(n, k)`` int32 rows and ``(n, k)`` float32 exact cosines, the nearest first; row and cosine are -1 where the
        visited cells hold fewer.

    Raises:
        ConfigError: faiss is missing, or as :func:`.neighbors.knn`.
    """
    return exhaust(approximate_knn_steps(vectors, k, probes=probes, seed=seed))


def approximate_knn_steps(
    vectors: np.ndarray, k: int, *, probes: int | None = None, seed: int = 0
) -> Generator[float, None, tuple[np.ndarray, np.ndarray]]:
    """:func:`approximate_knn` as a generator that yields the share of work done, in [0, 1]."""
    _check_options(probes, 0)
    if k < 1:
        raise ConfigError(f"k={k!r} must be at least 1")
    rows = Rows(vectors, device="cpu")
    k = min(k, max(len(rows) - 1, 0))
    index = np.empty((len(rows), k), np.int32)
    if k:
        cells = yield from _Cells.build(rows, seed)
        if probes is None:
            sample = _sampled(rows, 0, _SAMPLE // 4, seed)
            truth = nearest_to(rows, sample, k)
            known = np.repeat(sample, k), truth.ravel()
            cells.choose_probes(known, lambda: _listed(sample, cells.nearest(sample, k)))
        else:
            cells.probes = probes
        for start, stop in rows.ranges(_CHUNK):
            index[start:stop] = cells.nearest(np.arange(start, stop), k)
            yield 0.4 + 0.6 * stop / len(rows)
    return index, rows_in_order(rows, index)


def pair_recall(
    vectors: np.ndarray, pairs: Pairs, threshold: float, *, queries: int = 512, start: int = 0, seed: int = 0
) -> float:
    """Share of the true pairs of sampled rows that a search has found; 1 where the sampled rows are in no pair.

    Args:
        vectors: the ``(n, d)`` vectors that were searched.
        pairs: what was found.
        threshold: least cosine of a true pair.
        queries: rows that are compared with all others exactly.
        start: as it was for the search.
        seed: of the sample.

    Raises:
        ConfigError: as :func:`.neighbors.radius_pairs`.
    """
    rows = Rows(vectors)
    i, j = _true_pairs(rows, _sampled(rows, start, queries, seed), threshold)
    truth = np.unique(_keys(np.minimum(i, j), np.maximum(i, j), len(rows)))
    return _share(truth, _keys(pairs.i, pairs.j, len(rows)))


class _Cells:
    """The inverted file, filled with the rows."""

    def __init__(self, rows: Rows, seed: int) -> None:
        faiss = _faiss()
        # Both libraries bring their own OpenMP; what the user has set for one holds for the other.
        faiss.omp_set_num_threads(torch.get_num_threads())
        n, d = rows.vectors.shape
        self.rows = rows
        self.count = 1 if n < _MIN_CELLED else int(2 * math.sqrt(n))
        self._centres = faiss.IndexFlatIP(d)
        self._file = faiss.IndexIVFScalarQuantizer(
            self._centres, d, self.count, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False
        )
        training = self._file.cp
        training.niter, training.seed, training.spherical, training.min_points_per_centroid = 10, seed + 1, True, 1
        self._file.train(rows.unit(_sampled(rows, 0, self.count * _TRAINED_PER_CELL, seed)))

    @classmethod
    def build(cls, rows: Rows, seed: int) -> Generator[float, None, "_Cells"]:
        """The file of some rows; yields the share of all work done."""
        cells = cls(rows, seed)
        yield 0.15
        for start, stop in rows.ranges(_CHUNK):
            cells._file.add(rows.unit(slice(start, stop)))
            yield 0.15 + 0.15 * stop / len(rows)
        return cells

    @property
    def probes(self) -> int:
        """Cells that each query visits."""
        return int(self._file.nprobe)

    @probes.setter
    def probes(self, count: int) -> None:
        self._file.nprobe = min(count, self.count)

    def choose_probes(
        self, truth: tuple[np.ndarray, np.ndarray], search: Callable[[], tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Visits more cells until a search finds enough of what is true; of nothing true, 16.

        Args:
            truth: rows and their true partners, each ``(p,)``.
            search: finds the same as things stand.
        """
        known = _keys(*truth, len(self.rows))
        self.probes = 1 if len(known) else 16
        while self.probes < self.count and _share(known, _keys(*search(), len(self.rows))) < TARGET_RECALL:
            self.probes *= 2

    def within(self, index: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Rows of ``index`` and their partners that may reach the threshold: two int64 arrays."""
        limits, _, found = self._file.range_search(self.rows.unit(index), threshold - _HALF)
        return np.repeat(index, np.diff(limits.astype(np.int64))), found

    def nearest(self, index: np.ndarray, k: int) -> np.ndarray:
        """``(m, k)`` int64: the nearest other rows of those in ``index``; -1 where there are too few."""
        _, found = self._file.search(self.rows.unit(index), k + 1)
        # The row itself is dropped; where it is not among the k + 1 (copies), the last is.
        own = found == index[:, None]
        own[~own.any(axis=1), -1] = True
        return found[~own].reshape(len(index), k)


def _decided(rows: Rows, found: tuple[np.ndarray, np.ndarray], threshold: float, start: int) -> Hits:
    """The found pairs that do reach the threshold, each once, with ``i < j``."""
    first, second = found
    i, j = np.minimum(first, second), np.maximum(first, second)
    keys = np.unique(_keys(i, j, len(rows))[(i < j) & (j >= start)])
    i, j = np.divmod(keys, len(rows))
    similarity = rows.cosines(i, j) if len(i) else np.empty(0, np.float32)
    keep = similarity >= np.float32(threshold)
    return Hits(i[keep].astype(np.int32), j[keep].astype(np.int32), similarity[keep])


def _true_pairs(rows: Rows, sample: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The sampled rows and all their true partners: two int64 arrays."""
    part = Rows(rows.vectors[sample], rows.block, str(rows.device))
    hits = Hits.joined([hits for _, hits in join_hits(part, rows, threshold)])
    i, j = sample[hits.i], hits.j.astype(np.int64)
    return i[i != j], j[i != j]


def _sampled(rows: Rows, start: int, count: int, seed: int) -> np.ndarray:
    """Rows from ``start`` on, sorted."""
    new = max(len(rows) - start, 0)
    return start + np.sort(np.random.default_rng(seed).choice(new, min(count, new), replace=False))


def _listed(index: np.ndarray, neighbours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    own = np.repeat(index, neighbours.shape[1])
    there = neighbours.ravel() >= 0
    return own[there], neighbours.ravel()[there]


def _keys(i: np.ndarray, j: np.ndarray, n: int) -> np.ndarray:
    return i.astype(np.int64) * n + j


def _share(truth: np.ndarray, found: np.ndarray) -> float:
    return float(np.isin(truth, found).mean()) if len(truth) else 1.0


def _check_options(probes: int | None, start: int) -> None:
    if probes is not None and probes < 1:
        raise ConfigError(f"probes={probes} must be at least 1; leave it out to let it be chosen")
    if start < 0:
        raise ConfigError(f"start={start} must be 0 or more: the first row that is new")


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ConfigError(
            "the approximate search needs faiss: pip install faiss-cpu; or use the exact search"
        ) from error
    return faiss
