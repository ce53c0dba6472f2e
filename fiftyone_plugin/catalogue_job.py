"""The comparisons of a catalogue check, product by product: from the store where they are known, else made."""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice

import numpy as np

from ..brain.cosalient.comparison import PairMatcher
from ..brain.errors import ImageError
from .catalogue_evidence import Evidence, EvidencePair
from .catalogue_plan import spread_pairs
from .catalogue_results import Checked, Comparison, pair_id
from .catalogue_sides import Product, Shown
from .comparison_store import Compared, ComparisonStore
from .engine.local import Progress
from .match_job import PictureShelf, Source, compare_sources
from .match_objects import METHOD as MATCH_METHOD
from .match_setup import outcome_stamp, pair_provenance

# A kill loses at most so many comparisons.
_COMMIT = 32

# Nor are more products than this written together.
_CHUNK_PRODUCTS = 500

# So many images of either side are enough for comparisons between products.
_CONTROL_IMAGES = 25

# Fewer comparisons between products say nothing about a threshold.
LEAST_CONTROLS = 20

# Share of the comparisons between products that may reach the threshold.
FALSE_MATCHES = 0.02

_Pair = tuple[Shown, Shown]


@dataclass
class CatalogueJob:
    """Compares, stores and counts.

    Attributes:
        scorer: the matcher without refinement, which scores do not depend on and which takes most of the time.
        matcher: the same as the user wants the masks of the evidence.
        shelf: pictures that either has described.
        masks: mask file by sample id, where a field stands in for the saliency.
        store: what was compared before.
        overwrite: compare again what is in the store.
        skip_failures: go on after an image that cannot be read.
        total: comparisons to make, for progress.
        done, skipped: comparisons made, and taken from the store.
        failed: reason by sample id.
    """

    scorer: PairMatcher
    matcher: PairMatcher
    shelf: PictureShelf
    masks: Mapping[str, str | None]
    store: ComparisonStore
    overwrite: bool
    skip_failures: bool
    total: int = 0
    done: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def controls(self, pairs: Sequence[_Pair]) -> Generator[Progress, None, list[Compared]]:
        """Compares images of different products."""
        found = yield from self._compare(pairs, "Comparing different products")
        return list(found.values())

    def check(
        self, products: Sequence[Product], shares: Mapping[str, int], evidence: Evidence
    ) -> Generator[Progress, None, list[Checked]]:
        """Compares the images of each product, and writes its best pair.

        Args:
            products: whose images are compared.
            shares: number of comparisons by product.
            evidence: takes the best pairs.
        """
        checked: list[Checked] = []
        for chunk in _chunks(products, shares):
            planned = [_planned(product, shares[product.name]) for product in chunk]
            found = yield from self._compare([pair for pairs in planned for pair in pairs], "Matching products")
            fresh = [
                _checked(product, pairs, found, evidence.decisions)
                for product, pairs in zip(chunk, planned, strict=True)
            ]
            evidence.write(self._evidence(fresh, evidence))
            checked += fresh
        return checked

    def _compare(self, pairs: Sequence[_Pair], label: str) -> Generator[Progress, None, dict[str, Compared]]:
        """What is known of each pair by its id, once what is new is stored; pairs that failed are missing."""
        stamp = outcome_stamp(MATCH_METHOD, self.scorer)
        found: dict[str, Compared] = {}
        todo: list[tuple[_Pair, str]] = []
        for pair in pairs:
            provenance = pair_provenance(stamp, *self._sources(pair))
            known = None if self.overwrite else self.store.get(pair_id(*pair), provenance)
            if known is None:
                todo.append((pair, provenance))
            else:
                found[pair_id(*pair)] = known
        self.skipped += len(found)
        outcomes = compare_sources([self._sources(pair) for pair, _ in todo], self.scorer, self.shelf)
        while block := list(islice(outcomes, _COMMIT)):
            fresh = {}
            for number, outcome in block:
                pair, provenance = todo[number]
                if isinstance(outcome, str):
                    self._fail(pair, outcome)
                else:
                    fresh[pair_id(*pair)] = Compared(provenance, float(outcome.score), bool(outcome.no_common_region))
            self.store.add(fresh)
            found |= fresh
            self.done += len(fresh)
            yield Progress(self.done, self.total, len(self.failed), self.skipped, label=label)
        return found

    def _evidence(self, checked: Sequence[Checked], evidence: Evidence) -> list[EvidencePair]:
        """The best pairs; those whose masks and points are not in the dataset yet are compared once more for them."""
        stamp, threshold = outcome_stamp(MATCH_METHOD, self.matcher), self.matcher.threshold
        best = [(one, pair) for one in checked if (pair := one.best) is not None]
        sources = [self._sources((pair.catalogue, pair.document)) for _, pair in best]
        provenances = [pair_provenance(stamp, *both) for both in sources]
        lacking = [
            number
            for number, (_, pair) in enumerate(best)
            if self.overwrite or not evidence.has(pair.pair_id, provenances[number])
        ]
        outcomes = dict(compare_sources([sources[number] for number in lacking], self.matcher, self.shelf))
        made = {lacking[index]: outcome for index, outcome in outcomes.items()}
        return [
            EvidencePair(
                one.product.name,
                one.verdict(threshold),
                pair,
                pair.found.matches(threshold),
                provenances[number],
                made.get(number),
            )
            for number, (one, pair) in enumerate(best)
        ]

    def _sources(self, pair: _Pair) -> tuple[Source, Source]:
        first, second = (Source(shown.filepath, self.masks.get(shown.id)) for shown in pair)
        return first, second

    def _fail(self, pair: _Pair, reason: str) -> None:
        if not self.skip_failures:
            raise ImageError(reason)
        for shown in pair:
            files = (shown.filepath, self.masks.get(shown.id) or shown.filepath)
            own = [part for part in reason.split("; ") if part.startswith(files)]
            if own:
                self.failed[shown.id] = own[0]


def control_pairs(products: Sequence[Product], most: int) -> list[_Pair]:
    """Pairs of a catalogue image and a document image of another product; few images, in many pairs.

    They are drawn by hashes of product and file name, so that a product more or less hardly changes the draw, and the
    same images give the same threshold in another dataset.
    """
    catalogue = _drawn({product.name: product.catalogue for product in products})
    documents = _drawn({product.name: product.documents for product in products})
    pairs = [(one, other) for one in catalogue for other in documents if one.product != other.product]
    pairs.sort(key=lambda pair: _hash(pair[0].lot + pair[1].lot))
    return [(one.shown, other.shown) for one, other in pairs[:most]]


def control_threshold(found: Sequence[Compared]) -> float | None:
    """The score that :data:`FALSE_MATCHES` of the comparisons between products exceed; None of too few comparisons."""
    if len(found) < LEAST_CONTROLS:
        return None
    scores = [0.0 if one.nothing else one.score for one in found]
    return float(np.quantile(scores, 1 - FALSE_MATCHES))


@dataclass(frozen=True)
class _Drawn:
    """An image of a draw: its rank among those of its product, and its lot."""

    product: str
    rank: int
    shown: Shown

    @property
    def lot(self) -> str:
        return _hash(f"{self.product} {os.path.basename(self.shown.filepath)}")


def _drawn(sides: Mapping[str, Sequence[Shown]]) -> list[_Drawn]:
    """The first image of each product before any second one."""
    images = [_Drawn(name, rank, shown) for name, side in sides.items() for rank, shown in enumerate(side)]
    return sorted(images, key=lambda one: (one.rank, one.lot))[:_CONTROL_IMAGES]


def _hash(text: str) -> str:
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _planned(product: Product, most: int) -> list[_Pair]:
    pairs = spread_pairs(*product.sides, most)
    return [(product.catalogue[first], product.documents[second]) for first, second in pairs]


def _checked(
    product: Product, planned: Sequence[_Pair], found: Mapping[str, Compared], decisions: Mapping[str, str]
) -> Checked:
    compared = [Comparison(*pair, known) for pair in planned if (known := found.get(pair_id(*pair))) is not None]
    return Checked(product, compared, len(planned) - len(compared), decisions)


def _chunks(products: Sequence[Product], shares: Mapping[str, int]) -> Iterator[list[Product]]:
    """Products that are compared together, so that the encoder gets full batches."""
    chunk: list[Product] = []
    planned = 0
    for product in products:
        chunk.append(product)
        planned += shares[product.name]
        if planned >= _COMMIT or len(chunk) == _CHUNK_PRODUCTS:
            yield chunk
            chunk, planned = [], 0
    if chunk:
        yield chunk
