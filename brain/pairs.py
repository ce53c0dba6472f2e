"""Pairs of rows and their similarity: what a search returns, in one piece or as a stream of chunks."""

import io
from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .blockwise import Hits
from .errors import ConfigError

# 50 million pairs are 600 MB; more means that the threshold is too low to say anything about duplicates.
MAX_PAIRS = 50_000_000

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


class PairCollector:
    """The growing list of pairs of a search, and the guard over its length.

    Args:
        threshold: the similarity down to which pairs are sought.
        max_pairs: most pairs to hold; None is 50 million.
    """

    def __init__(self, threshold: float, max_pairs: int | None) -> None:
        self.threshold = float(threshold)
        self.limit = MAX_PAIRS if max_pairs is None else max_pairs
        self.chunks: list[Hits] = []
        self.count = 0

    def add(self, hits: Hits, done: float) -> None:
        """Takes more pairs, also such that it has already.

        Raises:
            ConfigError: there are too many; ``done``, the share of work done, helps to suggest a threshold.
        """
        self.chunks.append(hits)
        self.count += len(hits.i)
        if self.count > self.limit:
            self._merge()
            if self.count > self.limit:
                raise ConfigError(self._too_many(done))

    def pairs(self) -> Pairs:
        """The pairs sorted, each once."""
        hits = self._merge()
        return Pairs(hits.i, hits.j, hits.similarity, self.threshold)

    def _merge(self) -> Hits:
        hits = Hits.joined(self.chunks)
        self.chunks.clear()
        order = np.lexsort((hits.j, hits.i))
        hits = Hits(hits.i[order], hits.j[order], hits.similarity[order])
        first = np.ones(len(order), bool)
        first[1:] = (hits.i[1:] != hits.i[:-1]) | (hits.j[1:] != hits.j[:-1])
        if not first.all():
            hits = Hits(hits.i[first], hits.j[first], hits.similarity[first])
        self.chunks, self.count = [hits], len(hits.i)
        return hits

    def _too_many(self, done: float) -> str:
        similarity = Hits.joined(self.chunks).similarity
        # Half of what fits, on the assumption that the pairs to come are like those found.
        share = min(1.0, 0.5 * self.limit * max(done, 1e-3) / self.count)
        advice = np.ceil(np.quantile(similarity, 1.0 - share) * 1000) / 1000
        message = f"more than {self.limit:,} pairs have a similarity of at least {self.threshold:g}: "
        if advice >= 0.9995:
            return message + "thousands of images are practically identical; find exact duplicates and drop them first"
        return message + f"the threshold is too low; try {advice:g}"


def check_threshold(threshold: float) -> None:
    """Raises ConfigError unless the number is a cosine."""
    if not -1.0 <= threshold <= 1.0:
        raise ConfigError(f"threshold={threshold!r} is no cosine; use a number from -1 to 1, e.g. 0.9")


def exhaust(steps: Generator[float, None, T]) -> T:
    """The result of a search that is written as steps."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
