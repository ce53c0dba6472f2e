"""The pairs that a duplicate search keeps with its run: their similarity, their shot scores, and what was compared."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from bson import ObjectId

from ..brain.errors import ConfigError
from ..brain.neighbors import Pairs
from ..brain.same_shot import SHOT_THRESHOLD

_ID_BYTES = 12


@dataclass(frozen=True)
class StoredPairs:
    """The pairs of a run, over the images or objects that are in any pair.

    Attributes:
        ids: id of each row that ``pairs`` refers to.
        pairs: all pairs down to ``pairs.threshold``.
        scores: ``(p,)`` float32 score of each pair as the same shot, NaN where it was not compared; None if none was.
        verified: what a matcher said of the pairs; None if none was asked.
    """

    ids: list[str]
    pairs: Pairs
    scores: np.ndarray | None = None
    verified: "Verified | None" = None

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by id."""
        return {item_id: row for row, item_id in enumerate(self.ids)}

    def same_shot(self) -> np.ndarray:
        """``(p,)`` bool, which pairs were found to be the same shot."""
        return np.zeros(len(self.pairs), bool) if self.scores is None else self.scores >= SHOT_THRESHOLD

    def to_results(self) -> dict[str, str]:
        """JSON-able form for the results of a run."""
        results = {"ids": _encode_ids(self.ids), "pairs": base64.b64encode(self.pairs.to_bytes()).decode()}
        if self.scores is not None:
            results["scores"] = _encode_arrays(scores=self.scores)
        if self.verified is not None:
            results["verified"] = _encode_arrays(sure=self.verified.sure, stamps=self.verified.stamps)
        return results

    @classmethod
    def from_results(cls, data: Mapping[str, str]) -> "StoredPairs":
        """The inverse of :meth:`to_results`.

        Raises:
            ConfigError: the data are broken.
        """
        pairs = Pairs.from_bytes(base64.b64decode(data["pairs"]))
        scores = _decode_arrays(data["scores"])["scores"] if "scores" in data else None
        verified = Verified(**_decode_arrays(data["verified"])) if "verified" in data else None
        return cls(_decode_ids(data["ids"]), pairs, scores, verified)

    @classmethod
    def compact(
        cls, ids: Sequence[str], pairs: Pairs, scores: np.ndarray | None = None, verified: "Verified | None" = None
    ) -> tuple["StoredPairs", np.ndarray]:
        """Drops rows without any pair; also returns the rows that are left."""
        rows, renumbered = np.unique(np.concatenate([pairs.i, pairs.j]), return_inverse=True)
        i, j = renumbered.astype(np.int32).reshape(2, -1)
        compacted = Pairs(i, j, pairs.similarity, pairs.threshold)
        return cls([ids[row] for row in rows], compacted, scores, verified), rows

    def onto(self, row_of: Mapping[str, int]) -> tuple[Pairs, np.ndarray]:
        """The pairs and their scores among other rows: those of which both ends are still there, sorted.

        Args:
            row_of: row by id.
        """
        chosen, low, high = self._alive(row_of)
        pairs = Pairs(low, high, self.pairs.similarity[chosen], self.pairs.threshold)
        return pairs, no_scores(len(pairs)) if self.scores is None else self.scores[chosen]

    def verified_onto(self, row_of: Mapping[str, int]) -> "Verified | None":
        """What a matcher said of the pairs that :meth:`onto` returns."""
        if self.verified is None:
            return None
        chosen = self._alive(row_of)[0]
        return Verified(self.verified.sure[chosen], self.verified.stamps[chosen])

    def _alive(self, row_of: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of which both ends are still there, in the order of their new rows, and these rows."""
        new = np.array([row_of.get(item_id, -1) for item_id in self.ids], np.int32)
        i, j = new[self.pairs.i], new[self.pairs.j]
        alive = np.flatnonzero((i >= 0) & (j >= 0))
        low, high = np.minimum(i[alive], j[alive]), np.maximum(i[alive], j[alive])
        order = np.lexsort((high, low))
        return alive[order], low[order], high[order]


@dataclass(frozen=True)
class Verified:
    """What a matcher said of pairs.

    Attributes:
        sure: ``(p,)`` float32 how sure it is that a pair shows one object: 0 to 1, 0.5 at its threshold; NaN where it
            was not asked.
        stamps: ``(p,)`` uint64 hash of files and settings behind it; 0 where it was not asked.
    """

    sure: np.ndarray
    stamps: np.ndarray

    @classmethod
    def nothing(cls, count: int) -> "Verified":
        """Of pairs that nobody was asked about."""
        return cls(no_scores(count), np.zeros(count, np.uint64))


@dataclass(frozen=True)
class Compared:
    """What a search has compared, so that the next one can tell what is new.

    Attributes:
        ids: id of each row.
        stamps: ``(n,)`` uint64 hash of each vector.
    """

    ids: list[str]
    stamps: np.ndarray

    def to_results(self) -> dict[str, str]:
        """JSON-able form for the results of a run."""
        return {"compared": _encode_ids(self.ids), "stamps": _encode_arrays(stamps=self.stamps)}

    @classmethod
    def from_results(cls, data: Mapping[str, str]) -> "Compared | None":
        """The inverse of :meth:`to_results`; None for a run that did not store it."""
        if "compared" not in data:
            return None
        return cls(_decode_ids(data["compared"]), _decode_arrays(data["stamps"])["stamps"])


def vector_stamps(matrix: np.ndarray) -> np.ndarray:
    """``(n,)`` uint64 hash of each row of a ``(n, d)`` matrix."""
    digests = b"".join(blake2b(np.ascontiguousarray(row).data, digest_size=8).digest() for row in matrix)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def no_scores(count: int) -> np.ndarray:
    """The scores of pairs that were not compared as shots."""
    return np.full(count, np.nan, np.float32)


def _encode_ids(ids: Sequence[str]) -> str:
    return base64.b64encode(b"".join(ObjectId(item_id).binary for item_id in ids)).decode()


def _decode_ids(text: str) -> list[str]:
    raw = base64.b64decode(text)
    return [raw[start : start + _ID_BYTES].hex() for start in range(0, len(raw), _ID_BYTES)]


def _encode_arrays(**arrays: np.ndarray) -> str:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def _decode_arrays(text: str) -> dict[str, np.ndarray]:
    try:
        with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as stored:
            return dict(stored)
    except Exception as error:  # zip, zlib and numpy raise a dozen kinds for broken bytes
        raise ConfigError(f"what the run stored cannot be read ({error}); run the search again") from error
