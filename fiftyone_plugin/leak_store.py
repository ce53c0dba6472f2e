"""How leaks between splits are stored: the fields of a key, tags that can be taken back, pairs kept with the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import ConfigError
from ..brain.leakage import NONE
from ..brain.neighbors import Pairs
from .dataset_io import (
    FieldSpec,
    declare_fields,
    image_samples,
    readable_and_internal,
    show_in_sidebar,
)
from .fingerprints import read_fields
from .item_fields import Place, clear_items, fill_samples, write_items
from .leak_splits import Splits
from .result_keys import check_result_key, find_result_record, finished_keys
from .runs import load_results
from .stored_pairs import StoredPairs

METHOD = "find_leaks"

# The tag says where the copy is: an image in "train" with a copy in "test" is tagged leak:test.
TAG = "leak:"

_FIELDS: dict[str, tuple[type, str]] = {
    "leak": (fo.BooleanField, "Whether the same picture or object is in another split (or dataset) too"),
    "other": (fo.StringField, "The split (or dataset) that has the most similar copy"),
    "of": (fo.StringField, "Id of that copy"),
    "similarity": (fo.FloatField, "Raw cosine to that copy"),
    "group": (fo.IntField, "Images that leak into each other share a number; 0 has the most similar pair"),
    "error": (fo.StringField, "Why this sample could not be compared"),
}

_CHUNK = 10_000
_IMAGES = Place()


@dataclass(frozen=True)
class LeakFields:
    """The names of the fields that belong to a key."""

    key: str

    def name(self, field_name: str) -> str:
        """The name of one field: ``leaks_similarity``."""
        return f"{self.key}_{field_name}"

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """The specification of each field, by path."""
        return {self.name(name): FieldSpec(*spec, internal=name == "error") for name, spec in _FIELDS.items()}


@dataclass(frozen=True)
class Leaks:
    """What a search found, ready to be written; arrays have a row for each image of ``splits``.

    Attributes:
        splits: the images that were compared, of the other dataset too if there is one.
        own: ``(n,)`` bool: samples of the dataset that is written to.
        pairs: the leaks, rows of ``splits``.
        partner: ``(n,)`` int row of the most similar copy in another split, -1 for none.
        similarity: ``(n,)`` of that pair.
        group: ``(n,)`` int, -1 for images without leak.
        other: name of the split of the partner.
        tags: sample ids by tag to give.
        failed: reason by sample id, of samples in the dataset that is written to.
    """

    splits: Splits
    own: np.ndarray
    pairs: Pairs
    partner: np.ndarray
    similarity: np.ndarray
    group: np.ndarray
    other: Sequence[str | None]
    tags: Mapping[str, Sequence[str]]
    failed: Mapping[str, str]

    @property
    def leaking(self) -> np.ndarray:
        """Rows of the images that leak and are in the dataset that is written to."""
        return np.flatnonzero((self.partner != NONE) & self.own)

    def stored(self, tagged: dict[str, list[str]]) -> "StoredLeaks":
        """What of it a run keeps, given the tags that are really given."""
        compact, rows = StoredPairs.compact(self.splits.ids, self.pairs)
        return StoredLeaks(compact.ids, self.splits.split[rows].tolist(), compact.pairs, tagged)


def check_leak_key(samples: foc.SampleCollection, key: str) -> None:
    """Refuses a key that is no name, or whose run or fields belong to somebody else.

    Raises:
        ConfigError: see above.
    """
    check_result_key(samples, key, METHOD, LeakFields(key).specs)


def declare_leaks(samples: foc.SampleCollection, key: str, info: Mapping[str, Any]) -> None:
    """Declares the fields with provenance, puts them in the sidebar and indexes them for the view."""
    fields = LeakFields(key)
    declare_fields(samples, fields.specs, dict(info))
    show_in_sidebar(samples, *readable_and_internal(fields.specs))
    samples._dataset.create_index(fields.name("leak"))
    samples._dataset.create_index([(fields.name("group"), 1), (fields.name("similarity"), -1)])


def write_leaks(samples: foc.SampleCollection, key: str, leaks: Leaks) -> None:
    """Writes the fields; what an earlier run with this key wrote is emptied first. Tags are another step."""
    fields, dataset = LeakFields(key), samples._dataset
    for marker in ("leak", "error"):
        clear_items(dataset, _IMAGES, list(fields.specs), fields.name(marker))
    free = np.flatnonzero((leaks.partner == NONE) & leaks.own)
    fill_samples(dataset, [leaks.splits.ids[row] for row in free], {fields.name("leak"): False})
    rows = [
        (
            leaks.splits.ids[row],
            leaks.splits.ids[row],
            {
                fields.name("leak"): True,
                fields.name("other"): leaks.other[row],
                fields.name("of"): leaks.splits.ids[leaks.partner[row]],
                fields.name("similarity"): float(leaks.similarity[row]),
                fields.name("group"): int(leaks.group[row]),
            },
        )
        for row in leaks.leaking
    ]
    write_items(dataset, _IMAGES, rows)
    errors = [(item, item, {fields.name("error"): text}) for item, text in leaks.failed.items()]
    write_items(dataset, _IMAGES, errors)
    if errors:
        show_in_sidebar(samples, [fields.name("error")])


@dataclass(frozen=True)
class StoredLeaks:
    """What a run keeps beside its record.

    Attributes:
        ids: sample ids that are in any pair.
        split: ``(m,)`` number of the split of each.
        pairs: the leaks, rows of ``ids``.
        tagged: ids of the samples that were tagged, by tag; those that bore it before are not among them.
    """

    ids: list[str]
    split: list[int]
    pairs: Pairs
    tagged: dict[str, list[str]]

    def to_results(self) -> dict[str, Any]:
        """JSON-able form for the results of a run."""
        return {**StoredPairs(self.ids, self.pairs).to_results(), "split": self.split, "tagged": self.tagged}

    @classmethod
    def load(cls, samples: foc.SampleCollection, key: str) -> "StoredLeaks":
        """What the run under a key keeps.

        Raises:
            ConfigError: it was deleted.
        """
        results = load_results(samples, key)
        if results is None:
            raise ConfigError(f"run {key!r} has lost its pairs; run find_leaks again")
        stored = StoredPairs.from_results(results)
        return cls(stored.ids, results["split"], stored.pairs, results["tagged"])


def without_tag(samples: foc.SampleCollection, tags: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Of the samples that are to be tagged those that do not bear the tag already."""
    whole = image_samples(samples._dataset)
    return {
        tag: [sample_id for sample_id, (own,) in read_fields(whole, ids, ["tags"]).items() if tag not in (own or ())]
        for tag, ids in tags.items()
    }


def give_tags(samples: foc.SampleCollection, tags: Mapping[str, Sequence[str]]) -> None:
    """Tags samples, by tag their ids."""
    whole = image_samples(samples._dataset)
    for tag, ids in tags.items():
        for start in range(0, len(ids), _CHUNK):
            fov.make_optimized_select_view(whole, ids[start : start + _CHUNK]).tag_samples(tag)


def take_tags(samples: foc.SampleCollection, tags: Mapping[str, Sequence[str]]) -> int:
    """Takes tags back and returns their number; samples that are gone are ignored."""
    whole = image_samples(samples._dataset)
    for tag, ids in tags.items():
        for start in range(0, len(ids), _CHUNK):
            fov.make_optimized_select_view(whole, ids[start : start + _CHUNK]).untag_samples(tag)
    return sum(map(len, tags.values()))


def leak_keys(samples: foc.SampleCollection) -> list[str]:
    """Keys of finished searches for leaks, the latest last."""
    return finished_keys(samples, METHOD)


def find_leak_record(samples: foc.SampleCollection, key: str) -> dict[str, Any]:
    """The run record of a search for leaks, complete or not.

    Raises:
        ConfigError: there is none under this key; the message lists those that exist.
    """
    return find_result_record(samples, key, METHOD, "leaks")
