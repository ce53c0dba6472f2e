"""Exact nearest neighbours and radius self-joins by raw cosine, blockwise: no n×n matrix is ever held.

Nothing is centred, and no input is modified: similarity is the plain cosine of the vectors as given.
"""

import io
from dataclasses import dataclass

import numpy as np

from .errors import ConfigError

# 50 million pairs are 600 MB; more means that the threshold is too low to say anything about duplicates.
MAX_PAIRS = 50_000_000


@dataclass(frozen=True)
class Pairs:
    """Pairs of rows and their cosine, sorted by ``(i, j)``; every pair with similarity ≥ ``threshold`` is listed.

    Attributes:
        i: ``(p,)`` int32 row of the first partner.
        j: ``(p,)`` int32 row of the second partner, ``i < j``.
        similarity: ``(p,)`` float32 raw cosine.
        threshold: the similarity down to which the pairs were kept.
    """

    i: np.ndarray
    j: np.ndarray
    similarity: np.ndarray
    threshold: float = -1.0

    def __len__(self) -> int:
        return len(self.i)

    def at_least(self, threshold: float) -> "Pairs":
        """The pairs of a tighter threshold, without a new search.

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
        """Compressed form for storage (an npz archive without pickles)."""
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
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise ConfigError(f"stored pairs cannot be read ({error}); run the search again") from error


def _unit_rows(vectors: np.ndarray) -> np.ndarray:
    rows = np.array(vectors, dtype=np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))
    if len(bad):
        raise ConfigError(f"vectors of rows {bad[:10].tolist()} are zero or not finite; leave these rows out")
    return rows / norms


def radius_pairs(
    vectors: np.ndarray,
    threshold: float,
    *,
    block: int = 2048,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """All pairs of rows whose raw cosine is at least ``threshold``."""
    limit = MAX_PAIRS if max_pairs is None else max_pairs
    found_i, found_j, found_s, count = [], [], [], 0
    for start in range(0, len(vectors), block):
        rows = _unit_rows(vectors[start : start + block])
        for other in range(start, len(vectors), block):
            columns = rows if other == start else _unit_rows(vectors[other : other + block])
            similarity = rows @ columns.T
            i, j = np.nonzero(similarity >= np.float32(threshold))
            s = similarity[i, j]
            i, j = i + start, j + other
            upper = i < j
            found_i.append(i[upper].astype(np.int32))
            found_j.append(j[upper].astype(np.int32))
            found_s.append(s[upper])
            count += len(found_i[-1])
            if count > limit:
                raise ConfigError(f"more than {limit:,} pairs have a similarity of at least {threshold:g}; raise it")
    i, j, s = (
        np.concatenate([np.empty(0, t), *found])
        for found, t in ((found_i, np.int32), (found_j, np.int32), (found_s, np.float32))
    )
    order = np.lexsort((j, i))
    return Pairs(i[order], j[order], s[order], float(threshold))


def knn(vectors: np.ndarray, k: int, *, block: int = 2048, device: str = "auto") -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest other rows of each row: ``(n, k)`` int32 indices and float32 cosines, best first."""
    n = len(vectors)
    k = min(k, max(n - 1, 0))
    indices, similarities = np.empty((n, k), np.int32), np.empty((n, k), np.float32)
    columns = _unit_rows(vectors) if n else vectors
    for start in range(0, n, block):
        similarity = columns[start : start + block] @ columns.T
        similarity[np.arange(len(similarity)), np.arange(start, start + len(similarity))] = -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
        indices[start : start + block] = order
        similarities[start : start + block] = np.take_along_axis(similarity, order, axis=1)
    return indices, similarities


def mutual_knn_pairs(
    vectors: np.ndarray,
    k: int,
    *,
    threshold: float = -1.0,
    block: int = 2048,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """Pairs in which each row is among the ``k`` nearest of the other, with similarity ≥ ``threshold``."""
    indices, similarities = knn(vectors, k, block=block, device=device)
    n = len(indices)
    i, j = np.repeat(np.arange(n), indices.shape[1]), indices.ravel().astype(np.int64)
    low, high = np.minimum(i, j), np.maximum(i, j)
    keys, first, counts = np.unique(low * n + high, return_index=True, return_counts=True)
    s = similarities.ravel()[first]
    keep = (counts == 2) & (s >= threshold)
    return Pairs((keys[keep] // n).astype(np.int32), (keys[keep] % n).astype(np.int32), s[keep], float(threshold))
