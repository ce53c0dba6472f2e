"""Which pairs to take of all that categories and viewpoints allow, without ever listing them all."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# SPair-71k tells viewpoints apart by the eighth of a turn.
AZIMUTH_BINS = 8


@dataclass(frozen=True)
class PairBlock:
    """All pairs of one list of rows with another, or of one list with itself.

    Attributes:
        rows: ``(n,)`` rows.
        others: ``(m,)`` rows that ``rows`` does not have; None for the pairs within ``rows``.
        category: what the images have in common.
        difference: of their azimuth bins; None where azimuths play no part.
    """

    rows: np.ndarray
    others: np.ndarray | None
    category: str
    difference: int | None = None

    def __len__(self) -> int:
        n = len(self.rows)
        return n * (n - 1) // 2 if self.others is None else n * len(self.others)

    def pair(self, number: int) -> tuple[int, int]:
        """The rows of a pair by its number, the smaller one first."""
        if self.others is not None:
            first, second = divmod(number, len(self.others))
            a, b = int(self.rows[first]), int(self.others[second])
            return min(a, b), max(a, b)
        # Numbers count the pairs (0,1), (0,2), (1,2), (0,3) ...: those of column j begin at j(j-1)/2.
        column = int((1 + np.sqrt(1 + 8 * number)) // 2)
        column -= column * (column - 1) // 2 > number
        a, b = int(self.rows[number - column * (column - 1) // 2]), int(self.rows[column])
        return min(a, b), max(a, b)


def pair_blocks(
    categories: Sequence[str | None],
    azimuths: Sequence[float | None] | None = None,
    differences: tuple[int, int] = (0, AZIMUTH_BINS // 2),
) -> list[PairBlock]:
    """The pairs of rows of one category whose viewpoints differ by so much.

    Args:
        categories: of each row; a row without one is in no pair.
        azimuths: azimuth bin of each row, 0 to 7; a row without one is in no pair. None leaves viewpoints aside.
        differences: least and largest difference of the bins the short way round, 0 to 4, both included.
    """
    members: dict[str, dict[int | None, list[int]]] = {}
    for row, category in enumerate(categories):
        azimuth = None if azimuths is None else azimuths[row]
        if category is None or (azimuths is not None and azimuth is None):
            continue
        members.setdefault(category, {}).setdefault(None if azimuth is None else int(azimuth), []).append(row)
    blocks = []
    for category in sorted(members):
        bins = sorted(members[category].items(), key=lambda item: -1 if item[0] is None else item[0])
        for position, (one, rows) in enumerate(bins):
            for other, others in bins[position:]:
                difference = None if one is None or other is None else azimuth_difference(one, other)
                if difference is None or differences[0] <= difference <= differences[1]:
                    second = None if other == one else np.array(others)
                    blocks.append(PairBlock(np.array(rows), second, category, difference))
    return [block for block in blocks if len(block)]


def azimuth_difference(one: int, other: int) -> int:
    """Difference of two azimuth bins the short way round, 0 to 4."""
    return min(abs(one - other), AZIMUTH_BINS - abs(one - other))


def azimuth_bin(degrees: float) -> int:
    """The eighth of a turn, 0 to 7, whose middle is nearest: bin 0 is around 0 degrees."""
    return int(np.floor((degrees + 180 / AZIMUTH_BINS) / (360 / AZIMUTH_BINS))) % AZIMUTH_BINS


def choose_pairs(
    blocks: Sequence[PairBlock], limit: int | None = None, seed: int = 0
) -> list[tuple[int, int, PairBlock]]:
    """Pairs of rows from blocks: all, or by lot, as evenly over categories and over the blocks of each as they allow.

    Args:
        blocks: of :func:`pair_blocks`.
        limit: most pairs; None takes all.
        seed: of the lot.

    Returns:
        row, row and block of each pair, in the order of the blocks.
    """
    rng = np.random.default_rng(seed)
    sizes: dict[str, list[int]] = {}
    for block in blocks:
        sizes.setdefault(block.category, []).append(len(block))
    total = sum(map(sum, sizes.values()))
    shares = even_shares([sum(own) for own in sizes.values()], total if limit is None else limit)
    quotas = [quota for own, share in zip(sizes.values(), shares, strict=True) for quota in even_shares(own, share)]
    ordered = [block for category in sizes for block in blocks if block.category == category]
    chosen = []
    for block, quota in zip(ordered, quotas, strict=True):
        numbers = rng.choice(len(block), quota, replace=False) if quota < len(block) else np.arange(len(block))
        chosen += [(*block.pair(int(number)), block) for number in np.sort(numbers)]
    return chosen


def even_shares(sizes: Sequence[int], limit: int) -> list[int]:
    """How many to take of each heap so that at most ``limit`` are taken, no heap gives more than it has, and the shares
    are as equal as that allows; what is left over goes to the first."""
    shares = [0] * len(sizes)
    left = min(limit, sum(sizes))
    while left:
        open_heaps = [number for number, size in enumerate(sizes) if shares[number] < size]
        each = max(left // len(open_heaps), 1)
        for number in open_heaps[:left]:
            more = min(each, sizes[number] - shares[number], left)
            shares[number] += more
            left -= more
    return shares
