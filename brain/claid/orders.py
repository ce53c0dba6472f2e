"""In which order a bisection visits the patches, epoch by epoch."""

import random
from collections.abc import Iterator
from functools import lru_cache
from itertools import count

import numpy as np

from .options import DetectorOptions

_WORD = 2**64 - 1


def hash_keys(seed: int, epoch: int, n: int) -> np.ndarray:
    """``(n,)`` uint64 keys of the patches 0, 1, ... of a grid in one epoch; patches are visited by ascending key.

    A key depends on nothing but the three numbers (a finaliser of splitmix64), so that neither the device nor the
    batch nor the node matters.
    """
    start = np.uint64((seed + (epoch + 1) * 0x9E3779B97F4A7C15) & _WORD)
    z = start + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@lru_cache(maxsize=256)
def hash_permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """``(n,)`` int64 patches of a grid in the order of their keys; read-only, shared by all nodes of that epoch."""
    order = np.argsort(hash_keys(seed, epoch, n), kind="stable")
    order.flags.writeable = False
    return order


class Orders:
    """The visiting orders of one image; ``"pyrandom"`` goes on from node to node, so ask in breadth-first order.

    Args:
        n: patches of the grid.
        options: ``order`` and ``seed`` are used.
    """

    def __init__(self, n: int, options: DetectorOptions) -> None:
        self._n = n
        self._options = options
        self._random = random.Random(options.seed)

    def of_node(self, patches: np.ndarray) -> Iterator[np.ndarray]:
        """One array of int64 patches per epoch, without end: in the order of their visits.

        Args:
            patches: ``(m,)`` ascending patches of the node. The orders may hold others as well, to be passed over.
        """
        for epoch in count():
            if self._options.order == "pyrandom":
                order = list(range(len(patches)))
                self._random.shuffle(order)
                yield patches[order]
            elif self._options.order == "hash":
                yield hash_permutation(self._options.seed, epoch, self._n)
            else:
                yield patches
