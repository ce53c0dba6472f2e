"""The pair dataset of a catalogue check: the best pair of each product, with masks, points, score and verdict."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo

from ..brain.cosalient.comparison import PairMatcher, PairOutcome
from ..brain.errors import ConfigError
from .catalogue_fields import METHOD
from .catalogue_results import Comparison
from .catalogue_sides import Sides
from .dataset_io import FieldSpec, declare_fields, image_samples, show_in_sidebar
from .mask_store import MaskStore
from .match_fields import MATCHED, UNMATCHED, Matched, MatchFields, mask_paths, write_matches
from .match_objects import METHOD as MATCH_METHOD
from .pair_decisions import pair_verdicts
from .pairs import (
    PairRow,
    PairSpec,
    add_pairs,
    build_pairs,
    check_pairs,
    flat_pairs,
    is_pair_dataset,
    read_pairs,
    set_pair_values,
)

_FIELDS = {
    "product": FieldSpec(fo.StringField, "The product that both images are filed under"),
    "product_verdict": FieldSpec(fo.StringField, "What the catalogue check says of this product"),
}


@dataclass(frozen=True)
class EvidencePair:
    """The best pair of a product.

    Attributes:
        product, verdict: the product and what is said of it.
        pair: the images and their score.
        match: whether the score reaches the threshold.
        provenance: hash of all that masks and points were made from.
        outcome: masks and points, or why they could not be made; None where the dataset has them already.
    """

    product: str
    verdict: str
    pair: Comparison
    match: bool
    provenance: str
    outcome: PairOutcome | str | None


class Evidence:
    """The evidence dataset of a key, made when the first pair is written, and kept up to date by later runs.

    A pair that stays the best of its product stays as it is, with whatever a reviewer said of it; and a pair that was
    rejected stays, beside the one that takes its place.

    Args:
        name: of the dataset.
        key: of the check; the fields of the match begin with it.
        sides: where the samples are.
        matcher: compares; its settings are stored with the fields.
        saliency: what stands out in an image, as the user said it.

    Raises:
        ConfigError: the name belongs to another dataset.
    """

    def __init__(self, name: str, key: str, sides: Sides, matcher: PairMatcher, saliency: str) -> None:
        self.name = name
        self.fields = MatchFields(key)
        self._sides = sides
        self.matcher = matcher
        self._saliency = saliency
        self._pairs = _own_dataset(name, key, sides)
        self.decisions: dict[str, str] = {}
        self._stored: dict[str, str | None] = {}
        if self._pairs is not None:
            self.decisions = pair_verdicts(self._pairs)
            self._declare(self._pairs)
            self._stored = self._finished(self._pairs)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the matcher, with the threshold of now."""
        return {**self.matcher.settings(), "saliency": self._saliency}

    @property
    def dataset(self) -> fo.Dataset | None:
        """The dataset; None while there is no evidence."""
        return self._pairs

    def has(self, pair_id: str, provenance: str) -> bool:
        """Whether masks and points of a pair are there, made from the files and with the settings of now."""
        return self._stored.get(pair_id) == provenance

    def write(self, found: Sequence[EvidencePair]) -> None:
        """Adds pairs, or refreshes those that are there."""
        if not found:
            return
        pairs = self._with_pairs([_spec(one) for one in found])
        verdict = self.fields.name("verdict")
        set_pair_values(
            pairs,
            {
                one.pair.pair_id: {
                    "product": one.product,
                    "product_verdict": one.verdict,
                    verdict: MATCHED if one.match else UNMATCHED,
                }
                for one in found
            },
        )
        fresh = {one.pair.pair_id: one for one in found if one.outcome is not None}
        if fresh:
            rows = read_pairs(pairs.match({"pair_id": {"$in": list(fresh)}}))
            matched = [_matched(row, fresh[row.pair_id]) for row in rows]
            write_matches(pairs, self.fields, MaskStore(pairs, self.fields.key), matched)

    def keep(self, verdicts: Mapping[str, str], best: Iterable[str]) -> None:
        """Removes the pairs that are no longer the best of a product, except those that somebody decided on.

        Args:
            verdicts: by product, for the pairs that stay without being the best.
            best: ids of the best pairs.
        """
        if self._pairs is None:
            return
        self._declare(self._pairs)
        wanted = {*best, *self.decisions}
        columns = zip(*flat_pairs(self._pairs).values(["id", "pair_id", "product"]), strict=True)
        gone, changed = [], {}
        for sample_id, pair, product in columns:
            if pair not in wanted:
                gone.append(sample_id)
            elif product in verdicts:
                changed[pair] = {"product_verdict": verdicts[product]}
        self._pairs.delete_samples(gone)
        set_pair_values(self._pairs, changed)

    def masks(self) -> dict[str, dict[str, Any]]:
        """The mask of each original sample that is in an evidence pair, as the database keeps labels."""
        if self._pairs is None:
            return {}
        paths = mask_paths(self._pairs, self.fields)
        members = [member for row in read_pairs(self._pairs) for member in (row.source, row.target)]
        return {
            member.origin_id: fo.Segmentation(mask_path=path).to_dict()
            for member in members
            if (path := paths.get(member.id))
        }

    def _with_pairs(self, specs: Sequence[PairSpec]) -> fo.Dataset:
        # Of the datasets and not of the views into them, whose stages would be gone through for every few pairs.
        catalogue, documents = (
            image_samples(samples._dataset) for samples in (self._sides.catalogue, self._sides.documents)
        )
        if self._pairs is not None:
            add_pairs(self._pairs, specs, catalogue, documents)
            return self._pairs
        key = self.fields.key
        made_by = {"method": METHOD, "key": key, "product": self._sides.product}
        self._pairs = build_pairs(catalogue, specs, name=self.name, key=key, made_by=made_by, target_origin=documents)
        self._declare(self._pairs)
        shown = [self.fields.key, *_FIELDS, self.fields.name("score")]
        self._pairs.app_config.active_fields = fo.ActiveFields(paths=shown)
        self._pairs.save()
        return self._pairs

    def _declare(self, pairs: fo.Dataset) -> None:
        declare_fields(pairs, _FIELDS, {"method": METHOD, "run": self.fields.key})
        show_in_sidebar(pairs, list(_FIELDS))
        # As if match_objects had compared them, which can go on from here with other settings.
        self.fields.declare(pairs, {"method": MATCH_METHOD, "run": self.fields.key, **self.settings})
        for name in _FIELDS:
            pairs.create_index(name)

    def _finished(self, pairs: fo.Dataset) -> dict[str, str | None]:
        """Provenance by pair, of pairs whose mask files are there."""
        kept, paths = self.fields.name("provenance"), mask_paths(pairs, self.fields)
        return {
            row.pair_id: row.values[kept]
            for row in read_pairs(pairs, [kept])
            if all(Path(paths.get(member.id) or "").is_file() for member in (row.source, row.target))
        }


def _own_dataset(name: str, key: str, sides: Sides) -> fo.Dataset | None:
    if not fo.dataset_exists(name):
        return None
    there = fo.load_dataset(name)
    ids = [str(samples._root_dataset._doc.id) for samples in (sides.catalogue, sides.documents)]
    if is_pair_dataset(there):
        info = check_pairs(there)
        if (info.made_by.get("method"), info.key, [info.origin_id, info.target_origin_id]) == (METHOD, key, ids):
            return there
    raise ConfigError(f"there is a dataset {name!r} already, which is not of this check; give another: name=...")


def _spec(one: EvidencePair) -> PairSpec:
    return PairSpec(one.pair.catalogue.id, one.pair.document.id, relation=f"best pair of {one.product}")


def _matched(row: PairRow, one: EvidencePair) -> Matched:
    assert one.outcome is not None
    return Matched(row, one.outcome, None if isinstance(one.outcome, str) else one.provenance)
