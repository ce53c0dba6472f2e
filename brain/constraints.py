"""What a reviewer has said about rows: which belong together and which do not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .errors import ConfigError


def _no_pairs() -> np.ndarray:
    return np.empty((0, 2), np.int32)


@dataclass(frozen=True)
class Constraints:
    """Pairs of rows that must share a group, and pairs that must not.

    Attributes:
        must: ``(m, 2)`` int32 rows that belong together; holds for chains of such pairs, too.
        cannot: ``(c, 2)`` int32 rows that never share a group; holds for all that must go with either row.
    """

    must: np.ndarray = field(default_factory=_no_pairs)
    cannot: np.ndarray = field(default_factory=_no_pairs)

    @classmethod
    def from_sets(
        cls,
        together: Sequence[Sequence[int]] = (),
        apart: Sequence[tuple[Sequence[int], Sequence[int]]] = (),
    ) -> "Constraints":
        """From decisions on sets of rows.

        Args:
            together: sets of rows, each of which is one thing.
            apart: pairs of sets; no row of the first belongs with a row of the second.
        """
        must = [pair for rows in together for pair in pairwise(rows)]
        cannot = [_product(first, second) for first, second in apart]
        return cls(
            np.array(must, np.int32).reshape(-1, 2),
            np.concatenate([_no_pairs(), *cannot]),
        )

    @property
    def empty(self) -> bool:
        """Whether there is nothing to honour."""
        return not len(self.must) and not len(self.cannot)

    def check(self, n: int) -> None:
        """Refuses what cannot be honoured.

        Raises:
            ConfigError: a row is not among the ``n``, or two rows must be both together and apart.
        """
        for name, pairs in (("must", self.must), ("cannot", self.cannot)):
            outside = pairs[(pairs < 0) | (pairs >= n)]
            if outside.size:
                raise ConfigError(f"{name}-link names row {outside[0]}, but there are only rows 0 to {n - 1}")
        closure = self.closure(n)
        torn = self.cannot[closure[self.cannot[:, 0]] == closure[self.cannot[:, 1]]]
        if len(torn):
            first, second = torn[0].tolist()
            raise ConfigError(
                f"rows {first} and {second} must be together (directly or through others) and must not"
                f" ({len(torn)} such pairs); undo one of the two decisions"
            )

    def closure(self, n: int) -> np.ndarray:
        """``(n,)`` int32 label of each row's must-link component; rows without a must-link have one of their own."""
        if not n:
            return np.empty(0, np.int32)
        graph = coo_array((np.ones(len(self.must), bool), (self.must[:, 0], self.must[:, 1])), shape=(n, n))
        return connected_components(graph, directed=False)[1].astype(np.int32)

    def forbidden(self, labels: np.ndarray) -> np.ndarray:
        """``(f, 2)`` int32 unique pairs ``a < b`` of parts that must not join, given ``(n,)`` int labels of parts."""
        return np.unique(np.sort(labels[self.cannot], axis=1), axis=0).astype(np.int32)


def _product(first: Sequence[int], second: Sequence[int]) -> np.ndarray:
    a, b = np.asarray(first, np.int32), np.asarray(second, np.int32)
    return np.stack([np.repeat(a, len(b)), np.tile(b, len(a))], axis=1)
