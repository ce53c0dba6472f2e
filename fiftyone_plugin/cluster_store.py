"""How same-object clusters are stored: the fields of a key, the names that outlive a re-clustering, the run record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from .dataset_io import (
    FieldSpec,
    declare_fields,
    image_samples,
    readable_and_internal,
    show_in_sidebar,
)
from .group_table import CLUSTER_METHOD, group_fields, run_place
from .item_fields import Item, Place, clear_items, read_items, write_items
from .result_keys import check_result_key, find_result_record, finished_keys
from .runs import load_record

METHOD = CLUSTER_METHOD

# A plot of embeddings takes at most 100 categories: so many clusters are told apart, besides "smaller" and "none".
COLOURED_CLUSTERS = 98
SMALLER, NO_CLUSTER = "smaller clusters", "no cluster"

NO_LABEL = -1

_FIELDS: dict[str, tuple[type, str]] = {
    "cluster": (fo.IntField, "Number of the same-object cluster; 0 is the largest. Empty outside clusters"),
    "size": (fo.IntField, "Members of the cluster; 1 outside clusters"),
    "confidence": (fo.FloatField, "How well this member fits its cluster, from 0 to 1"),
    "outlier": (fo.FloatField, "How likely it does not belong where it is, from 0 to 1; likely mistakes are high"),
    "category": (fo.StringField, f"For colouring: the {COLOURED_CLUSTERS} largest clusters, and one for the others"),
    "name": (fo.StringField, "Name that a reviewer gave to the cluster"),
    "decision": (fo.StringField, "What a reviewer decided: keep, drop or reject"),
    "error": (fo.StringField, "Why this one could not be compared"),
}

# What a reviewer has said is not a result of the run, so a new run does not empty it.
_REVIEWED = ("decision",)


@dataclass(frozen=True)
class ClusterFields:
    """The names of the fields that belong to a key; paths of attributes where the clusters are of objects."""

    key: str
    place: Place = field(default_factory=Place)

    def name(self, field_name: str) -> str:
        """The name itself: ``objects_cluster``."""
        return f"{self.key}_{field_name}"

    def path(self, field_name: str) -> str:
        """Where it is in the dataset: ``objects_cluster``, ``ground_truth.detections.objects_cluster``."""
        return self.place.path(self.name(field_name))

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """The specification of each field, by path."""
        return {self.path(name): FieldSpec(*spec, internal=name == "error") for name, spec in _FIELDS.items()}


@dataclass(frozen=True)
class Clustered:
    """What a run found, ready to be written.

    Attributes:
        items: the images or objects that were compared; the arrays have a row for each.
        label: ``(n,)`` int: number of the cluster, -1 outside clusters.
        confidence: ``(n,)`` in [0, 1].
        outlier: ``(n,)`` in [0, 1].
        names: name by number of the cluster, where it has one.
        failed: reason by item, of those that could not be compared.
    """

    items: Sequence[Item]
    label: np.ndarray
    confidence: np.ndarray
    outlier: np.ndarray
    names: Mapping[int, str]
    failed: Sequence[tuple[Item, str]]

    def counts(self) -> dict[str, int]:
        """``clusters``, ``members``, ``outliers`` (compared, but in no cluster) and size of the ``largest``."""
        sizes = cluster_sizes(self.label)
        members = int(sizes.sum())
        return {
            "clusters": len(sizes),
            "members": members,
            "outliers": len(self.label) - members,
            "largest": int(sizes.max(initial=0)),
        }


def cluster_sizes(label: np.ndarray) -> np.ndarray:
    """``(C,)`` members of each cluster."""
    return np.bincount(label[label != NO_LABEL], minlength=int(label.max(initial=NO_LABEL)) + 1)


def check_cluster_key(samples: foc.SampleCollection, key: str, place: Place) -> None:
    """Refuses a key that is no name, or whose run or fields belong to somebody else.

    Raises:
        ConfigError: see above.
    """
    check_result_key(samples, key, METHOD, ClusterFields(key, place).specs)


def declare_clusters(samples: foc.SampleCollection, fields: ClusterFields, info: Mapping[str, Any]) -> None:
    """Declares the fields with provenance, puts them in the sidebar and indexes them for the views."""
    declare_fields(samples, fields.specs, dict(info))
    show_in_sidebar(samples, *readable_and_internal(fields.specs))
    dataset = samples._dataset
    for name in ("cluster", "size", "outlier"):
        dataset.create_index(fields.path(name))
    shape = group_fields({"key": fields.key, "method": METHOD, "config": {"patches_field": fields.place.patches_field}})
    # One for the table of all clusters, one for the order in which members are shown: sorting a large dataset without
    # it would hit the database's memory limit.
    dataset.create_index(shape.table_index)
    dataset.create_index(shape.order)


def clear_earlier(samples: foc.SampleCollection, key: str, place: Place) -> None:
    """Empties what an earlier run with this key wrote elsewhere: about images, if now objects are clustered."""
    record = load_record(samples, key)
    earlier = place if record is None else run_place(record)
    fields = ClusterFields(key, earlier)
    if earlier != place and samples._dataset.get_field(fields.path("category")) is not None:
        _clear(samples, fields)


def write_clusters(samples: foc.SampleCollection, fields: ClusterFields, found: Clustered) -> None:
    """Writes the result; items that took no part lose what an earlier run with this key wrote about them."""
    dataset, sizes = samples._dataset, cluster_sizes(found.label)
    _clear(samples, fields)
    write_items(dataset, fields.place, _rows(fields, found, sizes))
    errors = [(item.id, item.sample_id, {fields.name("error"): reason}) for item, reason in found.failed]
    write_items(dataset, fields.place, errors)
    if errors and fields.place.patches_field is None:
        show_in_sidebar(samples, [fields.path("error")])


def _clear(samples: foc.SampleCollection, fields: ClusterFields) -> None:
    results = [fields.name(name) for name in _FIELDS if name not in _REVIEWED]
    for marker in ("category", "error"):
        clear_items(samples._dataset, fields.place, results, fields.name(marker))


def _rows(fields: ClusterFields, found: Clustered, sizes: np.ndarray) -> Any:
    for row, item in enumerate(found.items):
        number = int(found.label[row])
        inside = number != NO_LABEL
        yield (
            item.id,
            item.sample_id,
            {
                fields.name("cluster"): number if inside else None,
                fields.name("size"): int(sizes[number]) if inside else 1,
                fields.name("confidence"): float(found.confidence[row]) if inside else None,
                fields.name("outlier"): float(found.outlier[row]),
                fields.name("category"): category(number),
                fields.name("name"): found.names.get(number),
            },
        )


def category(number: int) -> str:
    """One of at most 100 values for a cluster's number, for plots that colour by category."""
    if number == NO_LABEL:
        return NO_CLUSTER
    return f"cluster {number:02d}" if number < COLOURED_CLUSTERS else SMALLER


def kept_names(samples: foc.SampleCollection, fields: ClusterFields, ids: Sequence[str], label: Any) -> dict[int, str]:
    """Names of an earlier run that its clusters keep under new numbers.

    A name stays with the new cluster that has more than half of the old one's members, if these are more than half of
    the new one, too: so no name is given twice, and none to a cluster that is mostly something else.

    Args:
        ids: items of the new run.
        label: ``(n,)`` their new clusters.
    """
    if samples._dataset.get_field(fields.path("name")) is None:
        return {}
    new = {item_id: int(number) for item_id, number in zip(ids, label, strict=True) if number != NO_LABEL}
    sizes: dict[int, int] = {}
    shared: dict[int, dict[int, int]] = {}
    names: dict[int, str] = {}
    for item in read_items(
        image_samples(samples._dataset), fields.place, [fields.name("cluster"), fields.name("name")]
    ):
        old, name = item.values
        if old is None or not name:
            continue
        names[old] = name
        sizes[old] = sizes.get(old, 0) + 1
        if item.id in new:
            counts = shared.setdefault(old, {})
            counts[new[item.id]] = counts.get(new[item.id], 0) + 1
    new_sizes = cluster_sizes(np.asarray(label))
    return {
        number: names[old]
        for old, counts in shared.items()
        for number, both in counts.items()
        if 2 * both > sizes[old] and 2 * both > new_sizes[number]
    }


def cluster_keys(samples: foc.SampleCollection) -> list[str]:
    """Keys of finished runs of ``cluster_objects``, the latest last."""
    return finished_keys(samples, METHOD)


def find_cluster_record(samples: foc.SampleCollection, key: str) -> dict[str, Any]:
    """The run record of a complete clustering.

    Raises:
        ConfigError: there is none under this key (the message lists those that exist), or it did not complete.
    """
    record = find_result_record(samples, key, METHOD, "object clusters")
    if record["status"] != "completed":
        raise ConfigError(f"the run of {METHOD} with key {key!r} did not complete; run it again")
    return record
