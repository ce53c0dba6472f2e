"""Labelled pairs of pictures with masks, their objects in two halves, and resamples of the objects."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..brain.errors import ConfigError
from .manifest import Item, Manifest

MATCH, OTHER, SAME_CATEGORY = "match", "non-match", "same-category"


@dataclass(frozen=True)
class LabelledPair:
    """Two images and what is known of them.

    Attributes:
        a: row of the first image.
        b: row of the second image.
        part: part of the set (``same_instance``, ``composite``, ``category``).
        label: ``match`` (the same object), ``non-match``, or ``same-category``, where the masks are those of all
            objects of a category: another question, so that such pairs take no part in decisions.
        hard: of a non-match, whether both objects are of one category.
    """

    a: int
    b: int
    part: str
    label: str
    hard: bool

    @property
    def has_masks(self) -> bool:
        """Whether the masks of both images say what they have in common."""
        return self.label != OTHER


def read_pairs(manifest: Manifest) -> list[LabelledPair]:
    """The pairs of a manifest.

    Raises:
        ConfigError: there is none, one names no item or has an unknown label, or an item has no mask.
    """
    rows = {item.id: row for row, item in enumerate(manifest.items)}
    where = f"{manifest.folder}/manifest.json"
    pairs = []
    for entry in manifest.pairs:
        missing = [entry[end] for end in ("a", "b") if entry[end] not in rows]
        if missing:
            raise ConfigError(f"{where}: a pair names {missing[0]!r}, which is no item")
        label = entry.get("label")
        if label not in (MATCH, OTHER, SAME_CATEGORY):
            raise ConfigError(f"{where}: a pair has label {label!r}; coseg knows {MATCH}, {OTHER} and {SAME_CATEGORY}")
        part = str(entry.get("part", "all"))
        pairs.append(LabelledPair(rows[entry["a"]], rows[entry["b"]], part, label, bool(entry.get("hard", False))))
    if not pairs:
        raise ConfigError(f"{where}: no `pairs`, which coseg needs")
    return pairs


def units_of(items: Sequence[Item]) -> list[str]:
    """What is drawn anew by the bootstrap: the object of each image, or its category where no object is named."""
    return [str(item.object_id if item.object_id is not None else f"any {item.category}") for item in items]


def halves_of(items: Sequence[Item], units: Sequence[str]) -> dict[str, int]:
    """Half, 0 or 1, of each object. Categories stay whole, and the larger ones go first to the half with less.

    So that pairs of different objects of a category, the hard ones, lie within a half.
    """
    categories = {unit: item.category or unit for item, unit in zip(items, units, strict=True)}
    sizes = Counter(categories.values())
    totals, half_of_category = [0, 0], {}
    for category in sorted(sizes, key=lambda name: (-sizes[name], name)):
        half = int(totals[1] < totals[0])
        totals[half] += sizes[category]
        half_of_category[category] = half
    return {unit: half_of_category[category] for unit, category in categories.items()}


def pair_halves(pairs: Sequence[LabelledPair], units: Sequence[str], halves: dict[str, int]) -> np.ndarray:
    """``(n,)`` half in which both objects of each pair lie; -1 where they lie in different ones."""
    both = ((halves[units[pair.a]], halves[units[pair.b]]) for pair in pairs)
    return np.array([first if first == second else -1 for first, second in both])


def resamples(pairs: Sequence[LabelledPair], units: Sequence[str], rounds: int, seed: int) -> Iterator[np.ndarray]:
    """Weights ``(n,)`` of the pairs when as many objects as there are get drawn with replacement, ``rounds`` times.

    A pair of one object counts as often as it was drawn, a pair of two objects as often as the product says.
    """
    names = sorted({units[row] for pair in pairs for row in (pair.a, pair.b)})
    rows = {name: row for row, name in enumerate(names)}
    first, second = (np.array([rows[units[getattr(pair, end)]] for pair in pairs], int) for end in ("a", "b"))
    generator = np.random.default_rng(seed)
    for _ in range(rounds):
        counts = np.bincount(generator.integers(len(names), size=len(names)), minlength=len(names))
        yield np.where(first == second, counts[first], counts[first] * counts[second])
