"""The patches of one image and how similar they are: all that a bisection asks for, with or without a Gram matrix."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from . import affinity, bisect, components
from .bisect import State, balance_of, settle
from .options import DetectorOptions

# A larger Gram matrix than that of 10,000 patches in single precision is not kept in memory.
GRAM_BYTES = 400_000_000

# Patches whose products are held at a time where there is no Gram matrix.
_BLOCK = 512


class Kernels(NamedTuple):
    """The loops that a detector spends its time in; see the functions of the same names."""

    unit_rows: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]
    complete_and_link: Callable[[np.ndarray, float], np.ndarray]
    degrees: Callable[[np.ndarray, np.ndarray], np.ndarray]
    start: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
    sweep: bisect.Sweep
    components: Callable[[np.ndarray, tuple[int, int], int], list[np.ndarray]]


def array_kernels() -> Kernels:
    """The loops as operations on NumPy arrays."""
    return Kernels(
        unit_rows=affinity.unit_rows,
        complete_and_link=affinity.complete_and_link,
        degrees=affinity.degrees,
        start=bisect.start,
        sweep=bisect.sweep,
        components=components.components,
    )


def compiled_kernels() -> Kernels:
    """The loops compiled by numba.

    Raises:
        ImportError: numba is not installed, or does not work.
    """
    from . import compiled

    return Kernels(
        unit_rows=compiled.unit_rows,
        complete_and_link=compiled.complete_and_link,
        degrees=compiled.degrees,
        start=compiled.start,
        sweep=compiled.sweep,
        components=compiled.components,
    )


class GramSimilarity:
    """Patches with the products of all pairs in memory.

    Args:
        unit: ``(n, C)`` tokens of unit length.
        lengths: ``(n,)`` float64 squared lengths of these (1, but for rounding and for zeros).
        options: of the detector.
        kernels: the loops to use.

    Attributes:
        links: ``(n, ceil(n / 64))`` uint64, the packed links of every patch.
    """

    def __init__(self, unit: np.ndarray, lengths: np.ndarray, options: DetectorOptions, kernels: Kernels) -> None:
        self._unit = unit
        self._lengths = lengths
        self._options = options
        self._kernels = kernels
        self._gram = affinity.half_gram(unit)
        self.links = kernels.complete_and_link(self._gram, options.alpha)

    def cosines(self, patch: int, patches: np.ndarray) -> np.ndarray:
        """``(m,)`` cosines of one patch with several."""
        return self._gram[patch, patches]

    def bisect(self, signs: np.ndarray, orders: Iterable[np.ndarray]) -> tuple[int, int]:
        """Bisects a set of patches as :func:`.bisect.bisect` does.

        Args:
            signs: ``(n,)`` float64, changed in place; see :class:`.bisect.State`.
            orders: per epoch, the patches in the order of the visits.

        Returns:
            the number of epochs, and of moves.
        """
        _, scores = self._kernels.start(self._unit, signs)
        state = State(signs, scores, self._lengths, balance_of(signs, self._lengths))
        sweep, inertia = self._kernels.sweep, self._options.inertia
        return settle(orders, self._options.max_epochs, lambda order: sweep(self._gram, state, order, inertia))


class TokenSimilarity:
    """Patches of an image that is too large for a Gram matrix: products are computed when they are asked for.

    The difference of the sums of the two clusters is kept instead of one score per patch. The next patches in order
    are scored by it block by block, and a move corrects the scores of its own block only. Arguments and attributes
    are those of :class:`GramSimilarity`.
    """

    def __init__(self, unit: np.ndarray, lengths: np.ndarray, options: DetectorOptions, kernels: Kernels) -> None:
        self._unit = unit
        self._lengths = lengths
        self._options = options
        self._kernels = kernels
        self.links = np.concatenate([self._links_of(top) for top in range(0, len(unit), _BLOCK)])

    def _links_of(self, top: int) -> np.ndarray:
        """Packed links of one block of patches."""
        cosines = self._unit[top : top + _BLOCK] @ self._unit.T
        return affinity.pack_links(affinity.affinity(cosines, self._options.alpha))

    def cosines(self, patch: int, patches: np.ndarray) -> np.ndarray:
        """``(m,)`` cosines of one patch with several."""
        return self._unit[patches] @ self._unit[patch]

    def bisect(self, signs: np.ndarray, orders: Iterable[np.ndarray]) -> tuple[int, int]:
        """See :meth:`GramSimilarity.bisect`."""
        balance = balance_of(signs, self._lengths)
        difference, _ = self._kernels.start(self._unit, signs)

        def sweep_blocks(order: np.ndarray) -> int:
            order = order[signs[order] != 0]
            blocks = np.split(order, range(_BLOCK, len(order), _BLOCK))
            return sum(self._sweep_block(block, signs, balance, difference) for block in blocks)

        return settle(orders, self._options.max_epochs, sweep_blocks)

    def _sweep_block(self, block: np.ndarray, signs: np.ndarray, balance: np.ndarray, difference: np.ndarray) -> int:
        """Visits the patches of a block in turn; ``signs``, ``balance`` and ``difference`` are changed in place."""
        unit = self._unit[block]
        tokens = unit.astype(np.float64)
        state = State(signs[block], tokens @ difference, self._lengths[block], balance)
        moves = self._kernels.sweep(unit @ unit.T, state, np.arange(len(block)), self._options.inertia)
        difference += (state.signs - signs[block]) @ tokens
        signs[block] = state.signs
        return moves


Similarity = GramSimilarity | TokenSimilarity


def similarity_of(unit: np.ndarray, lengths: np.ndarray, options: DetectorOptions, kernels: Kernels) -> Similarity:
    """The form that fits into memory; arguments as in :class:`GramSimilarity`."""
    kept = len(unit) ** 2 * unit.itemsize <= GRAM_BYTES
    return (GramSimilarity if kept else TokenSimilarity)(unit, lengths, options, kernels)
