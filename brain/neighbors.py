"""Exact nearest neighbours and radius self-joins by raw cosine, blockwise: no n×n matrix is ever held.

Nothing is centred, and no input is modified: similarity is the plain cosine of the vectors as given. Vectors may be
float16 or float32 and memory-mapped. Cosines are computed in float64 and rounded to float32, so a result does not
depend on block size or device; brute force in float32 agrees but for pairs within 1e-6 of the threshold.

Each search has a twin ``..._steps``, a generator that yields the share of work done and returns the result.
"""

import io
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from .blockwise import Hits, Rows, radius_hits
from .errors import ConfigError

# 50 million pairs are 600 MB; more means that the threshold is too low to say anything about duplicates.
MAX_PAIRS = 50_000_000

# Cosines this close are a tie: whom float32 puts first among equals says nothing about the images.
TIE = 1e-6

T = TypeVar("T")


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows and their cosine, sorted by ``(i, j)``.

    Attributes:
        i: ``(p,)`` int32 row of the first partner.
        j: ``(p,)`` int32 row of the second partner, ``i < j``.
        similarity: ``(p,)`` float32 raw cosine.
        threshold: the similarity down to which pairs were kept.
    """

    i: np.ndarray
    j: np.ndarray
    similarity: np.ndarray
    threshold: float = -1.0

    def __len__(self) -> int:
        return len(self.i)

    def at_least(self, threshold: float) -> "Pairs":
        """The pairs of a tighter threshold: what a new search would find, without the search.

        Raises:
            ConfigError: the threshold lies below the one that was searched.
        """
        if threshold < self.threshold:
            raise ConfigError(
                f"threshold={threshold:g} lies below {self.threshold:g}, down to which pairs were kept; search again"
            )
        keep = self.similarity >= np.float32(threshold)
        return Pairs(self.i[keep], self.j[keep], self.similarity[keep], float(threshold))

    def to_bytes(self) -> bytes:
        """Compressed form for storage: an npz archive without pickles."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, i=self.i, j=self.j, similarity=self.similarity, threshold=np.float64(self.threshold)
        )
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Pairs":
        """The inverse of :meth:`to_bytes`.

        Raises:
            ConfigError: the bytes are no such archive.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return cls(stored["i"], stored["j"], stored["similarity"], float(stored["threshold"]))
        except Exception as error:  # zip, zlib and numpy raise a dozen kinds for broken bytes
            raise ConfigError(f"stored pairs cannot be read ({error}); run the search again") from error


def radius_pairs(
    vectors: np.ndarray,
    threshold: float,
    *,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """All pairs of rows whose raw cosine is at least ``threshold``.

    Each pair is computed once. Beyond the input and the result (twice its size for a moment), memory is bounded by
    the block size: about 80 MB for 768 dimensions on a CPU.

    Args:
        vectors: ``(n, d)`` of any length greater than 0; not modified.
        threshold: least cosine, in [-1, 1].
        block: rows that are multiplied at a time; None chooses.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        max_pairs: guard against filling memory; None is 50 million.

    Raises:
        ConfigError: vectors without direction (rows are named), options out of range, or more than ``max_pairs``
            pairs (the message suggests a threshold).
    """
    return _exhaust(radius_pairs_steps(vectors, threshold, block=block, device=device, max_pairs=max_pairs))


def radius_pairs_steps(
    vectors: np.ndarray,
    threshold: float,
    *,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Generator[float, None, Pairs]:
    """:func:`radius_pairs` as a generator that yields the share of work done, in [0, 1]."""
    _check_threshold(threshold)
    found = _Found(threshold, max_pairs)
    for done, hits in radius_hits(Rows(vectors, block, device), threshold):
        found.add(hits, done)
        yield done
    return found.pairs()


def knn(
    vectors: np.ndarray, k: int, *, block: int | None = None, device: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest other rows of each row by raw cosine.

    Exact up to ties: among neighbours within 1e-6 of the k-th best, any may be left out.

    Args:
        vectors: ``(n, d)``, as for :func:`radius_pairs`.
        k: neighbours per row; at most ``n - 1`` are returned.

    Returns:
        ``(n, k)`` int32 rows and ``(n, k)`` float32 cosines, the nearest first.

    Raises:
        ConfigError: as :func:`radius_pairs`.
    """
    return _exhaust(_knn_steps(Rows(vectors, block, device), _check_k(k)))


def mutual_knn_pairs(
    vectors: np.ndarray,
    k: int,
    *,
    threshold: float = -1.0,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """Pairs of rows that are both among the ``k`` nearest of the other, ties included.

    A pair counts if its cosine reaches the k-th best of either row to within 1e-6. So a hundred copies of one image
    are all mutual neighbours for any ``k``, and the order of the rows does not matter.

    Args:
        vectors: ``(n, d)``, as for :func:`radius_pairs`.
        k: neighbours per row.
        threshold: least cosine of a pair, in [-1, 1].

    Raises:
        ConfigError: as :func:`radius_pairs`.
    """
    steps = mutual_knn_pairs_steps(vectors, k, threshold=threshold, block=block, device=device, max_pairs=max_pairs)
    return _exhaust(steps)


def mutual_knn_pairs_steps(
    vectors: np.ndarray,
    k: int,
    *,
    threshold: float = -1.0,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Generator[float, None, Pairs]:
    """:func:`mutual_knn_pairs` as a generator that yields the share of work done, in [0, 1]."""
    _check_threshold(threshold)
    rows = Rows(vectors, block, device)
    # One neighbour more than asked shows whether the k-th place is tied.
    neighbours, cosines = yield from _knn_steps(rows, _check_k(k) + 1)
    kth = cosines[:, min(k, cosines.shape[1]) - 1] if cosines.size else np.empty(len(rows), np.float32)
    found = _Found(threshold, max_pairs)
    found.add(_mutual(_listed(neighbours, cosines), kth, threshold), 1.0)
    if cosines.shape[1] > k:
        for start, stop in rows.ranges(rows.block):
            tied = start + np.flatnonzero(cosines[start:stop, k] >= kth[start:stop] - TIE)
            for hits in _tied_hits(rows, tied, kth):
                found.add(_mutual(hits, kth, threshold), 1.0)
    return found.pairs()


class _Found:
    """The growing list of pairs, and the guard over its length."""

    def __init__(self, threshold: float, max_pairs: int | None) -> None:
        self.threshold = float(threshold)
        self.limit = MAX_PAIRS if max_pairs is None else max_pairs
        self.chunks = [Hits(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))]
        self.count = 0

    def add(self, hits: Hits, done: float) -> None:
        self.chunks.append(hits)
        self.count += len(hits.i)
        if self.count > self.limit:
            raise ConfigError(self._too_many(done))

    def pairs(self) -> Pairs:
        """The pairs sorted, each once."""
        i = np.concatenate([chunk.i for chunk in self.chunks])
        j = np.concatenate([chunk.j for chunk in self.chunks])
        similarity = np.concatenate([chunk.similarity for chunk in self.chunks])
        self.chunks.clear()
        order = np.lexsort((j, i))
        i, j, similarity = i[order], j[order], similarity[order]
        first = np.ones(len(i), bool)
        first[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
        return (
            Pairs(i, j, similarity, self.threshold)
            if first.all()
            else Pairs(i[first], j[first], similarity[first], self.threshold)
        )

    def _too_many(self, done: float) -> str:
        similarity = np.concatenate([chunk.similarity for chunk in self.chunks])
        # Half of what fits, on the assumption that the pairs to come are like those found.
        share = min(1.0, 0.5 * self.limit * max(done, 1e-3) / self.count)
        advice = np.ceil(np.quantile(similarity, 1.0 - share) * 1000) / 1000
        message = f"more than {self.limit:,} pairs have a similarity of at least {self.threshold:g}: "
        if advice >= 0.9995:
            return message + "thousands of images are practically identical; find exact duplicates and drop them first"
        return message + f"the threshold is too low; try {advice:g}"


def _knn_steps(rows: Rows, k: int) -> Generator[float, None, tuple[np.ndarray, np.ndarray]]:
    n = len(rows)
    k = min(k, max(n - 1, 0))
    indices, cosines = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    for start, stop in rows.ranges(rows.block) if k else []:
        chosen = _best(rows, start, stop, k)
        own = np.repeat(np.arange(start, stop), k)
        exact = rows.cosines(own, chosen.ravel()).reshape(chosen.shape)
        order = np.lexsort((chosen, -exact), axis=1)
        indices[start:stop] = np.take_along_axis(chosen, order, axis=1)
        cosines[start:stop] = np.take_along_axis(exact, order, axis=1)
        yield stop / n
    return indices, cosines


def _best(rows: Rows, start: int, stop: int, k: int) -> np.ndarray:
    """``(stop - start, k)`` int64: the nearest rows, in no particular order."""
    block = rows.unit_tensor(slice(start, stop))
    best = torch.empty(stop - start, 0, device=rows.device)
    index = torch.empty(stop - start, 0, dtype=torch.int64, device=rows.device)
    for s, e in rows.ranges(rows.block):
        product = block @ rows.unit_tensor(slice(s, e)).T
        if s == start:
            product.fill_diagonal_(-torch.inf)
        values, columns = product.topk(min(k, e - s), dim=1, sorted=False)
        values, columns = torch.cat([best, values], 1), torch.cat([index, columns + s], 1)
        best, chosen = values.topk(min(k, values.shape[1]), dim=1, sorted=False)
        index = columns.gather(1, chosen)
    return index.cpu().numpy()


def _listed(neighbours: np.ndarray, cosines: np.ndarray) -> Hits:
    own = np.repeat(np.arange(len(neighbours), dtype=np.int32), neighbours.shape[1])
    return Hits(own, neighbours.ravel(), cosines.ravel())


def _tied_hits(rows: Rows, tied: np.ndarray, kth: np.ndarray) -> Iterable[Hits]:
    """All neighbours of rows whose k-th place is shared, down to that place."""
    if not len(tied):
        return
    block = rows.unit_tensor(tied)
    limit = torch.from_numpy(kth[tied] - np.float32(2 * TIE)).to(rows.device)
    for s, e in rows.ranges(rows.block):
        reached = block @ rows.unit_tensor(slice(s, e)).T >= limit[:, None]
        i, j = (position.cpu().numpy() for position in torch.nonzero(reached, as_tuple=True))
        i, j = tied[i], j + s
        i, j = i[i != j], j[i != j]
        if len(i):
            yield Hits(i.astype(np.int32), j.astype(np.int32), rows.cosines(i, j))


def _mutual(hits: Hits, kth: np.ndarray, threshold: float) -> Hits:
    """The hits that reach the k-th place of both rows, each turned so that ``i < j``."""
    i, j = np.minimum(hits.i, hits.j), np.maximum(hits.i, hits.j)
    keep = (hits.similarity >= np.maximum(kth[i], kth[j]) - TIE) & (hits.similarity >= np.float32(threshold))
    return Hits(i[keep], j[keep], hits.similarity[keep])


def _check_threshold(threshold: float) -> None:
    if not -1.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold={threshold!r} is no cosine; use a number from -1 to 1, e.g. 0.9")


def _check_k(k: int) -> int:
    if k < 1:
        raise ConfigError(f"k={k!r} must be at least 1")
    return k


def _exhaust(steps: Generator[float, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
