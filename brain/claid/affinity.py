"""What CLAID computes once per image: cosines of all pairs of patches, their links, and the high-energy patches."""

import numpy as np
from scipy.linalg import blas

from .options import DetectorOptions, Init

# A token shorter than this counts as zero: it is similar to nothing.
LEAST_NORM = 1e-12

# Side of the squares in which a matrix is turned over, small enough for the cache of a processor.
_TILE = 256


def unit_rows(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tokens of unit length, how long they really are, and the energies of the tokens.

    Args:
        features: ``(n, C)`` tokens, float32 or float64.

    Returns:
        ``(n, C)`` tokens divided by their Euclidean norms, of the same type; a token of zeros stays one. ``(n,)``
        float64 squared lengths of these: 1, but for rounding and for zeros. ``(n,)`` float64 energies: L1 norms of the
        tokens as they came, not finite where a token is not.
    """
    energies = np.abs(features).sum(1, dtype=np.float64)
    squares = np.einsum("nc,nc->n", features, features, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        unit = features / np.maximum(np.sqrt(squares), LEAST_NORM).astype(features.dtype)[:, None]
    return unit, np.einsum("nc,nc->n", unit, unit, dtype=np.float64), energies


def half_gram(unit: np.ndarray) -> np.ndarray:
    """``(n, n)`` products of all pairs of rows, on and below the diagonal; what is above it is not defined."""
    product = blas.ssyrk if unit.dtype == np.float32 else blas.dsyrk
    gram = np.empty((len(unit), len(unit)), unit.dtype)
    # BLAS counts columns first: its upper triangle of the transposed tokens is our lower one.
    return product(1.0, unit.T, beta=0.0, c=gram.T, trans=1, lower=0, overwrite_c=1).T


def affinity(similarity: np.ndarray, alpha: float) -> np.ndarray:
    """Which patches are linked: their cosine exceeds ``alpha`` (section III-B).

    Args:
        similarity: cosines.
        alpha: the threshold.

    Returns:
        bool array of the same shape. A patch is linked with itself, unless its token is zero: then it is with nothing.
    """
    return similarity > similarity.dtype.type(alpha)


def complete_and_link(gram: np.ndarray, alpha: float) -> np.ndarray:
    """Fills the upper triangle of a Gram matrix, in place, and returns the packed links of its patches.

    Args:
        gram: ``(n, n)`` of :func:`half_gram`.
        alpha: see :func:`affinity`.

    Returns:
        ``(n, ceil(n / 64))`` uint64; see :func:`pack_links`.
    """
    n = len(gram)
    for top in range(0, n, _TILE):
        rows = slice(top, top + _TILE)
        square = gram[rows, rows]
        square[...] = np.tril(square) + np.tril(square, -1).T
        for left in range(top + _TILE, n, _TILE):
            gram[rows, left : left + _TILE] = gram[left : left + _TILE, rows].T
    return np.concatenate([pack_links(affinity(gram[i : i + _TILE], alpha)) for i in range(0, n, _TILE)])


def pack_links(linked: np.ndarray) -> np.ndarray:
    """Rows of links as bits: ``(..., n)`` bool to ``(..., ceil(n / 64))`` uint64; bit k of word w is patch 64 w + k."""
    octets = np.packbits(linked, axis=-1, bitorder="little")
    words = -(-linked.shape[-1] // 64)
    padded = np.zeros((*linked.shape[:-1], words * 8), np.uint8)
    padded[..., : octets.shape[-1]] = octets
    return padded.view("<u8").astype(np.uint64, copy=False)


def unpack_links(bits: np.ndarray, n: int) -> np.ndarray:
    """The inverse of :func:`pack_links`: ``(..., n)`` bool."""
    octets = bits.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, count=n, bitorder="little").astype(bool)


def degrees(links: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """``(m,)`` int: how many patches of a set each of its patches is linked with, itself included.

    Args:
        links: ``(n, ceil(n / 64))`` packed rows of :func:`pack_links`.
        patches: ``(m,)`` int indices.
    """
    members = np.zeros(links.shape[1] * 64, bool)
    members[patches] = True
    return np.bitwise_count(links[patches] & pack_links(members)).sum(1, dtype=np.int64)


def count_links(degree: np.ndarray) -> int:
    """How many ordered pairs of two different patches of a set are linked, by its :func:`degrees`."""
    # Whatever is linked with something is linked with itself.
    return int(degree.sum()) - int(np.count_nonzero(degree))


def pick_seeds(degree: np.ndarray) -> tuple[int, int]:
    """Positions of the patches of lowest and highest degree (Eq. 6 and 7).

    Of patches of equal degree, the first lowest and the last highest one are taken.
    """
    return int(np.argmin(degree)), len(degree) - 1 - int(np.argmax(degree[::-1]))


def initial_labels(low_row: np.ndarray, high_row: np.ndarray, init: Init) -> np.ndarray:
    """``(m,)`` uint8: which patches start in the cluster of the high seed, 1, and which in the other one, 0.

    Args:
        low_row: ``(m,)`` links (bool) of the low seed with the patches for ``"affinity"``, its cosines for
            ``"nearest"``.
        high_row: the same of the high seed.
        init: the rule of the start; see :class:`.options.DetectorOptions`.
    """
    chosen = high_row & ~low_row if init == "affinity" else high_row > low_row
    return chosen.astype(np.uint8)


def energy_set(energies: np.ndarray, options: DetectorOptions) -> np.ndarray:
    """``(n,)`` bool: the high-energy patches, the top ``theta`` of an image, and ties with the last one of them.

    Args:
        energies: ``(n,)`` L1 norms of the tokens; see :func:`unit_rows`.
        options: ``theta`` is used.
    """
    if not len(energies):
        return np.zeros(0, bool)
    rank = options.rank(len(energies))
    return energies >= np.partition(energies, rank)[rank]
