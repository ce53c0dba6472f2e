"""The keys under which results are stored: which may be written to, and which hold a finished run."""

from collections.abc import Iterable
from typing import Any

import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from .dataset_io import check_field_name
from .runs import check_run_key, list_records, load_record


def check_result_key(samples: foc.SampleCollection, key: str, method: str, paths: Iterable[str]) -> None:
    """Refuses a key that is no name, or whose run or fields belong to somebody else.

    Args:
        method: the computation that will write.
        paths: the fields that it will write.

    Raises:
        ConfigError: see above.
    """
    if not isinstance(key, str):
        raise ConfigError(f"key={key!r} must be a name, made of letters, digits and underscores")
    check_field_name(samples, key, "key")
    check_run_key(samples, key, method)
    for path in paths:
        existing = samples._dataset.get_field(path)
        if existing is not None and (existing.info or {}).get("method") != method:
            raise ConfigError(
                f"field {path!r} of dataset {samples._dataset.name!r} was not made by {method} and would be "
                "overwritten; choose another key"
            )


def finished_keys(samples: foc.SampleCollection, method: str) -> list[str]:
    """Keys of finished runs of a method, the latest last."""
    return [record["key"] for record in list_records(samples, method=method) if record["status"] == "completed"]


def find_result_record(samples: foc.SampleCollection, key: str, method: str, what: str) -> dict[str, Any]:
    """The record of a run, which may have been interrupted.

    Args:
        what: what the method finds, in the words of a user.

    Raises:
        ConfigError: there is none under this key; the message lists those that exist.
    """
    if not isinstance(samples, foc.SampleCollection):
        raise ConfigError(f"samples must be a FiftyOne dataset or view, not {type(samples).__name__}")
    record = load_record(samples, key) if isinstance(key, str) else None
    if record is None or record["method"] != method:
        existing = finished_keys(samples, method)
        hint = f"there are {', '.join(map(repr, existing))}" if existing else f"run {method} first"
        raise ConfigError(f"dataset {samples._dataset.name!r} has no {what} under key {key!r}; {hint}")
    return record
