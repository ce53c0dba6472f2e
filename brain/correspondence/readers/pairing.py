"""Pairs by lot that come out the same on every machine: what the order of a folder's listing never decides.

The lot of a pair is a number computed from the names of its two pictures and the seed alone, so that neither the order
of the pictures, nor the version of a random generator, nor the other pairs have a say in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence

import numpy as np

from ...errors import ConfigError
from .records import KeypointImage

# Of more pictures than this, so many by lot are paired with each other: COCO's persons would make 10¹⁰ pairs.
MOST_IMAGES = 3000


def pairs_by_lot(
    images: Sequence[KeypointImage],
    others: Sequence[KeypointImage] | None = None,
    *,
    least_common: int = 3,
    most: int | None = None,
    seed: int = 0,
    across: bool = False,
) -> list[tuple[KeypointImage, KeypointImage]]:
    """Pairs of pictures that show enough of the same keypoints; which of the two is the source is by lot, too.

    Args:
        images: pictures, of ids that differ.
        others: to be paired with; None pairs the pictures with each other, each two once. Two objects of one picture
            are no pair.
        least_common: keypoints that both must show.
        most: pairs to take by lot; None takes all.
        seed: of the lot.
        across: only pairs of different categories.

    Returns:
        source and target of each pair, in the order of their places in ``images`` and ``others``.

    Raises:
        ConfigError: the pictures have different keypoints, or ``most`` is negative.
    """
    if most is not None and most < 0:
        raise ConfigError(f"{most} pairs cannot be drawn; give 0 or more, or None for all")
    firsts = _at_most(images, seed)
    seconds = firsts if others is None else _at_most(others, seed)
    if not firsts or not seconds:
        return []
    if len({len(image.names) for image in (*firsts, *seconds)}) > 1:
        raise ConfigError("pictures with different numbers of keypoints cannot be paired")
    allowed = _allowed(firsts, seconds, least_common)
    if others is None:
        allowed = np.triu(allowed, 1)
    if across:
        allowed &= _different([image.category for image in firsts], [image.category for image in seconds])
    rows, columns = np.nonzero(allowed)
    keys = _keys(firsts)[rows], _keys(seconds)[columns]
    lots = _mixed(_mixed(np.minimum(*keys) ^ _seed(seed)) ^ np.maximum(*keys))
    # A second lot from the first, whose own bits are tied to which pairs are drawn: whether the smaller key comes last.
    turned = (_mixed(lots) & np.uint64(1) == 1) ^ (keys[0] > keys[1])
    if most is not None and most < len(rows):
        kept = np.sort(np.argsort(lots, kind="stable")[:most])
        rows, columns, turned = rows[kept], columns[kept], turned[kept]
    pairs = zip(rows, columns, turned, strict=True)
    return [(seconds[j], firsts[i]) if turn else (firsts[i], seconds[j]) for i, j, turn in pairs]


def _allowed(firsts: Sequence[KeypointImage], seconds: Sequence[KeypointImage], least_common: int) -> np.ndarray:
    """``(n, m)`` bool: enough in common, and not one picture twice."""
    shown = [np.stack([image.visible for image in side]).astype(np.float32) for side in (firsts, seconds)]
    allowed = shown[0] @ shown[1].T >= least_common
    return allowed & _different([image.path for image in firsts], [image.path for image in seconds])


def _different(ones: Sequence[Hashable], others: Sequence[Hashable]) -> np.ndarray:
    """``(n, m)`` bool."""
    numbers: dict[Hashable, int] = {}
    for value in (*ones, *others):
        numbers.setdefault(value, len(numbers))
    sides = [np.array([numbers[value] for value in side]) for side in (ones, others)]
    return sides[0][:, None] != sides[1]


def _at_most(images: Sequence[KeypointImage], seed: int) -> list[KeypointImage]:
    if len(images) <= MOST_IMAGES:
        return list(images)
    lots = _mixed(_keys(images) ^ _seed(seed))
    return [images[row] for row in np.sort(np.argsort(lots, kind="stable")[:MOST_IMAGES])]


def _keys(images: Sequence[KeypointImage]) -> np.ndarray:
    """``(n,)`` uint64 of the ids."""
    digests = b"".join(hashlib.sha256(image.id.encode()).digest()[:8] for image in images)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _seed(seed: int) -> np.ndarray:
    return _mixed(np.array([seed % 2**64], np.uint64))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spreads uint64 evenly: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
