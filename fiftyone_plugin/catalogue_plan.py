"""Which of all possible pairs of a product are compared where there are too many of them."""

from collections.abc import Iterator, Mapping
from itertools import islice


def share_out(sides: Mapping[str, tuple[int, int]], per_product: int, total: int) -> dict[str, int]:
    """How many comparisons each product gets.

    All that are possible, at most ``per_product``, and in all at most ``total``: where that does not suffice, the
    products with most comparisons give way first, and only where there are more products than ``total`` do some get
    none, the last in order.

    Args:
        sides: number of catalogue and of document images by product.
        per_product: most comparisons of one product.
        total: most comparisons in all.
    """
    possible = {name: min(first * second, per_product) for name, (first, second) in sides.items()}
    level = _level(list(possible.values()), total)
    shares = {name: min(number, level) for name, number in possible.items()}
    spare = total - sum(shares.values())
    for name, number in possible.items():
        if spare and number > level:
            shares[name] += 1
            spare -= 1
    return shares


def spread_pairs(first: int, second: int, most: int) -> Iterator[tuple[int, int]]:
    """The first ``most`` of all pairs of two sides, in an order that meets every image before any image a second time.

    Each round goes once through the longer side, and each time beside another image of the shorter one.

    Args:
        first, second: number of images per side.
        most: of the ``first * second`` pairs.
    """
    short, long = min(first, second), max(first, second)
    rounds = (((at + turn) % short, at) for turn in range(short) for at in range(long))
    for one, other in islice(rounds, most):
        yield (one, other) if first <= second else (other, one)


def _level(numbers: list[int], total: int) -> int:
    """The largest limit per number, at which the limited numbers come to ``total`` at most."""
    low, high = 0, max(numbers, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(number, middle) for number in numbers) <= total:
            low = middle
        else:
            high = middle - 1
    return low
