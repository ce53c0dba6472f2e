"""A second look at borderline pairs: how well the parts of one picture are found in the other.

One averaged vector forgets which parts an object has. Comparing patch tokens keeps them, but costs a thousand times
more; so it is done only for pairs whose vectors are near each other.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from .backbones.base import Backbone, Tokens
from .ffa import FFAExtractor, PreparedImage

# Tokens of a picture with less foreground than this say nothing: all of it is compared instead.
_LEAST_TOKENS = 3

# Most tokens of a picture that are compared, spread evenly: the cost grows with the square of their number.
MAX_TOKENS = 128


def match_score(a: np.ndarray, b: np.ndarray) -> float:
    """How alike two sets of unit tokens are: the mean cosine of each token to the most similar one of the other set.

    Both directions count alike, places do not: an object that moved, turned or is mirrored keeps its parts.
    (The symmetric form of what retrieval by late interaction computes: Khattab and Zaharia, "ColBERT", 2020.)

    Args:
        a: ``(p, C)`` tokens of unit length.
        b: ``(q, C)`` tokens of unit length.
    """
    cosine = a.astype(np.float32) @ b.astype(np.float32).T
    return float(cosine.max(axis=1).mean() + cosine.max(axis=0).mean()) / 2.0


def foreground_tokens(tokens: np.ndarray, coverage: np.ndarray, most: int = MAX_TOKENS) -> np.ndarray:
    """The tokens of the patches that are mostly foreground; those of the whole picture where hardly any are.

    Args:
        tokens: ``(h, w, C)`` patch tokens.
        coverage: ``(h, w)`` share of foreground per patch.
        most: largest number of tokens.

    Returns:
        ``(m, C)`` float16 of unit length.
    """
    flat = tokens.reshape(-1, tokens.shape[-1]).astype(np.float32)
    inside = flat[coverage.ravel() > 0.5]
    chosen = flat if len(inside) < _LEAST_TOKENS else inside
    if len(chosen) > most:
        chosen = chosen[np.linspace(0, len(chosen) - 1, most).round().astype(int)]
    return (chosen / np.linalg.norm(chosen, axis=1, keepdims=True).clip(1e-12)).astype(np.float16)


class TokenReader:
    """Reads the foreground tokens of pictures with the encoder and foreground of an FFA extractor.

    Args:
        extractor: what made the vectors.
        batch_size: most pictures per forward pass.
    """

    def __init__(self, extractor: FFAExtractor, batch_size: int = 16) -> None:
        self._encoder = _Recorder(extractor.backbone)
        self._extractor = FFAExtractor(cast(Backbone, self._encoder), extractor.foreground, extractor.config)
        self._batch_size = batch_size

    def read(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray | None] | None = None) -> list[np.ndarray]:
        """``(m, C)`` float16 unit tokens of each picture, for :func:`match_score`.

        Args:
            images: ``(H, W, 3)`` uint8 pictures, or crops of single objects.
            masks: foreground of each, in place of the extractor's method.
        """
        given = [None] * len(images) if masks is None else masks
        batches: dict[tuple[int, int], list[tuple[int, PreparedImage]]] = {}
        for index, (image, mask) in enumerate(zip(images, given, strict=True)):
            prepared = self._extractor.prepare(image, mask)
            batches.setdefault(prepared.group_key, []).append((index, prepared))
        found: dict[int, np.ndarray] = {}
        for batch in batches.values():
            for start in range(0, len(batch), self._batch_size):
                found.update(self._read_batch(batch[start : start + self._batch_size]))
        return [found[index] for index in range(len(images))]

    def _read_batch(self, batch: Sequence[tuple[int, PreparedImage]]) -> dict[int, np.ndarray]:
        results = self._extractor.embed([prepared for _, prepared in batch])
        return {
            index: foreground_tokens(tokens, result.coverage)
            for (index, _), result, tokens in zip(batch, results, self._encoder.patch, strict=True)
        }


class _Recorder:
    """An encoder that remembers the patch tokens of its last pass: the extractor itself keeps only their average."""

    def __init__(self, backbone: Backbone) -> None:
        self._backbone = backbone
        self.patch = np.empty((0, 0, 0, 0), np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)

    def tokens(self, *args: Any, **options: Any) -> Tokens:
        found = self._backbone.tokens(*args, **options)
        self.patch = found.patch.float().cpu().numpy()
        return found


class TokenVerifier:
    """Scores pairs of pictures by their tokens: what :func:`.clusters.cluster` takes as ``verify``.

    Args:
        tokens_of: ``(m, C)`` unit tokens of a list of rows.
        capacity: rows whose tokens are held in memory: 2,000 are about 200 MB.
        block: rows that are read at a time.
    """

    def __init__(
        self, tokens_of: Callable[[Sequence[int]], Sequence[np.ndarray]], capacity: int = 2000, block: int = 64
    ) -> None:
        self._tokens_of = tokens_of
        self._capacity = capacity
        self._block = block
        self._held: OrderedDict[int, np.ndarray] = OrderedDict()

    def __call__(self, pairs: np.ndarray) -> np.ndarray:
        """``(p,)`` float32 :func:`match_score` of ``(p, 2)`` rows."""
        pairs = np.asarray(pairs)
        scores = np.empty(len(pairs), np.float32)
        order = np.argsort(pairs[:, 0], kind="stable")
        for start in range(0, len(order), self._block):
            part = order[start : start + self._block]
            tokens = self._fetch(np.unique(pairs[part]).tolist())
            for position in part.tolist():
                first, second = pairs[position].tolist()
                scores[position] = match_score(tokens[first], tokens[second])
        return scores

    def _fetch(self, rows: Sequence[int]) -> dict[int, np.ndarray]:
        missing = [row for row in rows if row not in self._held]
        if missing:
            self._held.update(zip(missing, self._tokens_of(missing), strict=True))
        found = {}
        for row in rows:
            self._held.move_to_end(row)
            found[row] = self._held[row]
        while len(self._held) > self._capacity:
            self._held.popitem(last=False)
        return found
