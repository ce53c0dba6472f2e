"""The names that belong to a field of regions, and which fields of a dataset hold regions."""

import json
from dataclasses import dataclass
from typing import Any

import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from .runs import last_run, list_records

# What the run record and the fields say of who made them.
METHOD = "compute_claid_regions"
SEARCH_METHOD = "search_by_object"

# The attribute of each region that holds its vector where vectors are kept on labels.
VECTOR = "vector"


@dataclass(frozen=True)
class RegionFields:
    """The names that belong to a field of regions."""

    field: str

    @property
    def labels(self) -> str:
        """Path of the regions."""
        return f"{self.field}.detections"

    @property
    def vectors(self) -> str:
        """The sample field with the vectors, a row for each region."""
        return f"{self.field}_vectors"

    @property
    def vectors_path(self) -> str:
        """The sample field with the name of the file that holds the vectors instead."""
        return f"{self.field}_vectors_path"

    @property
    def label_vectors(self) -> str:
        """The attribute of each region that holds its vector instead."""
        return f"{self.labels}.{VECTOR}"

    @property
    def count(self) -> str:
        """The sample field with the number of regions."""
        return f"{self.field}_count"

    @property
    def provenance(self) -> str:
        """The sample field that says what regions and vectors were made from."""
        return f"{self.field}_provenance"


def region_info(samples: foc.SampleCollection, field: str) -> dict[str, Any]:
    """How the regions of a field were made: model, options, descriptor.

    Raises:
        ConfigError: the field holds no regions of ours; the message lists those that there are.
    """
    there = region_fields(samples)
    if field not in there:
        hint = f"fields with regions: {', '.join(there)}" if there else "run compute_claid_regions first"
        raise ConfigError(f"field={field!r} of dataset {samples._dataset.name!r} holds no regions; {hint}")
    # What comes from the database looks like dicts and lists, but is neither.
    return json.loads(json.dumps(samples._dataset.get_field(field).info))


def region_fields(samples: foc.SampleCollection) -> list[str]:
    """Names of the fields that hold regions, the one computed last first."""
    schema = samples._dataset.get_field_schema()
    names = [name for name, kind in schema.items() if (kind.info or {}).get("method") == METHOD]
    names = [name for name in names if (schema[name].info or {}).get("field") == name]
    if len(names) < 2:
        # Every placement of a button asks: the runs are read only where they decide something.
        return names
    latest = last_run(samples, method=METHOD)
    first = latest["config"].get("field") if latest else None
    return sorted(names, key=lambda name: (name != first, name))


def object_searches(samples: foc.SampleCollection) -> list[str]:
    """Keys of the object searches that a dataset holds, the latest first."""
    return [record["key"] for record in reversed(list_records(samples, method=SEARCH_METHOD))]
