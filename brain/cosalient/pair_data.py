"""Labelled pairs of image files to train on: halves that share no object, and pairs mined from product names."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..errors import ConfigError
from ..nearest import knn

# Pairs of each answer that either half must have: fewer say nothing about a threshold.
LEAST_PAIRS = 4

_ATTEMPTS = 20


@dataclass(frozen=True)
class PairExample:
    """One labelled pair of images.

    Attributes:
        path_a, path_b: the image files.
        match: whether both show the same object.
        mask_a, mask_b: pictures of what both show, where anything but 0 is; only of matching pairs, None if not known.
        object_a, object_b: names of the objects that are shown, which no two splits share; None if not known.
    """

    path_a: str
    path_b: str
    match: bool
    mask_a: str | None = None
    mask_b: str | None = None
    object_a: str | None = None
    object_b: str | None = None


def split_pairs(
    examples: Sequence[PairExample], share: float, seed: int
) -> tuple[list[PairExample], list[PairExample]]:
    """Pairs to train on and pairs to validate on, with no image and no object in both.

    Images of one object, and images that match, stay together. Pairs that reach across are left out.

    Args:
        examples: the labelled pairs.
        share: of the objects that go to validation, between 0 and 1.
        seed: of the lot.

    Raises:
        ConfigError: no split gives both halves at least four matching and four other pairs.
    """
    if not 0 < share < 1:
        raise ConfigError(f"validation_share={share!r} must lie between 0 and 1")
    units = _units(examples)
    count = int(units.max(initial=-1)) + 1
    for attempt in range(_ATTEMPTS):
        order = np.random.default_rng([seed, attempt]).permutation(count)
        held = np.zeros(count, bool)
        held[order[: max(1, round(share * count))]] = True
        sides = held[units]
        parts = [[one for one, side in zip(examples, sides, strict=True) if (side == want).all()] for want in (0, 1)]
        if all(_enough(part) for part in parts):
            return parts[0], parts[1]
    matching = sum(one.match for one in examples)
    raise ConfigError(
        f"{matching} matching and {len(examples) - matching} other pairs of {count} objects cannot be split so that"
        f" training and validation both have at least {LEAST_PAIRS} of each; label pairs of more objects"
    )


def _enough(part: Sequence[PairExample]) -> bool:
    matching = sum(one.match for one in part)
    return min(matching, len(part) - matching) >= LEAST_PAIRS


def _units(examples: Sequence[PairExample]) -> np.ndarray:
    """``(n, 2)`` number of the unit of both images of each pair: what may not be torn apart."""
    nodes: dict[Hashable, int] = {}
    links = []

    def node(name: Hashable) -> int:
        return nodes.setdefault(name, len(nodes))

    ends = [(node(("image", one.path_a)), node(("image", one.path_b))) for one in examples]
    for one, (a, b) in zip(examples, ends, strict=True):
        if one.match:
            links.append((a, b))
        for end, name in ((a, one.object_a), (b, one.object_b)):
            if name is not None:
                links.append((end, node(("object", name))))
    rows, columns = np.array(links, int).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(nodes), len(nodes)))
    labels = connected_components(graph, directed=False)[1]
    of_images = labels[np.array(ends, int).reshape(-1, 2)]
    return np.unique(of_images, return_inverse=True)[1].reshape(of_images.shape)


def mine_pairs(
    vectors: np.ndarray, products: Sequence[str | None], *, count: int, seed: int
) -> list[tuple[int, int, bool]]:
    """Pairs of rows to learn from: half of one product, half hard ones, the most alike of different products.

    Args:
        vectors: ``(n, d)`` by which images look alike.
        products: of each row; a row without one is in no pair.
        count: most pairs.
        seed: of the lot.

    Returns:
        two rows, the smaller one first, and whether they are of one product.

    Raises:
        ConfigError: no product has two images, or all images are of one product.
    """
    rows = np.array([row for row, product in enumerate(products) if product is not None], int)
    names = np.array([str(products[row]) for row in rows])
    kinds = np.unique(names, return_inverse=True)[1] if len(names) else np.zeros(0, int)
    positive = _same_product(rows, kinds, count // 2, seed)
    if not positive or len(set(kinds.tolist())) < 2:
        raise ConfigError(
            "there is nothing to learn from: at least one product needs two images, and there must be two products"
        )
    negative = _look_alikes(np.asarray(vectors, np.float32)[rows], rows, kinds, len(positive))
    return [(*pair, True) for pair in positive] + [(*pair, False) for pair in negative]


def _same_product(rows: np.ndarray, kinds: np.ndarray, count: int, seed: int) -> list[tuple[int, int]]:
    rng = np.random.default_rng(seed)
    found = []
    for kind in np.unique(kinds):
        own = rows[kinds == kind]
        first, second = np.triu_indices(len(own), 1)
        # Of a big product no more than of ten small ones, or it would be all that is learned.
        for place in rng.permutation(len(first))[:45]:
            found.append((int(own[first[place]]), int(own[second[place]])))
    return [found[place] for place in np.sort(rng.permutation(len(found))[: max(count, 1)])]


def _look_alikes(vectors: np.ndarray, rows: np.ndarray, kinds: np.ndarray, count: int) -> list[tuple[int, int]]:
    largest = int(np.bincount(kinds).max())
    neighbours, cosines = knn(vectors, min(len(rows) - 1, largest + 10))
    best: dict[tuple[int, int], float] = {}
    for place, (others, values) in enumerate(zip(neighbours, cosines, strict=True)):
        foreign = [(other, value) for other, value in zip(others, values, strict=True) if kinds[other] != kinds[place]]
        for other, value in foreign[:5]:
            ends = sorted((int(rows[place]), int(rows[other])))
            best[ends[0], ends[1]] = float(value)
    return sorted(sorted(best, key=lambda pair: (-best[pair], pair))[:count])
