"""Run records: what was computed, with what, how fast and what failed, as FiftyOne custom runs.

Only FiftyOne's own generic classes and plain JSON go into the database, so any process can load a record without this
plugin: ``dataset.get_run_info(key).config``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import fiftyone.core.collections as foc
import yaml

from ..brain.errors import ConfigError
from .dataset_io import DOCUMENT_LOCK

PLUGIN = "@selfsame/curation"

# A record is one database document of at most 16 MB; the full list is in the `<field>_error` fields anyway.
MAX_FAILURES = 1000


@dataclass
class RunSummary:
    """What a computation did.

    Attributes:
        key: key of the run record in the dataset; None if none was written (nothing to do on an empty view).
        method: name of the computation (``"compute_ffa"`` ...).
        counts: ``total``, ``done``, ``skipped``, ``failed`` samples, and what else the method counts.
        seconds: wall-clock time of the whole job, once models are loaded.
        processing_seconds: of these, from the first image read to the last result stored, without what follows (a
            similarity index, a map); None where nothing follows.
        images_per_second: samples done per second of processing; 0 where none was done.
        failed: reason by sample id, all of this run.
        details: further facts of the method (fields written, models used ...), JSON-able.
        notices: sentences that the user should read.
    """

    key: str | None
    method: str
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    processing_seconds: float | None = None
    images_per_second: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in self.counts.items())
        lines = [f"{self.method}: {counts or 'nothing to do'} in {self.seconds:.1f} s"]
        if self.images_per_second:
            lines[0] += f" ({self.images_per_second:.2f} images/s)"
        lines += self.notices
        for sample_id, reason in list(self.failed.items())[:5]:
            lines.append(f"failed {sample_id}: {reason}")
        if len(self.failed) > 5:
            lines.append(f"... and {len(self.failed) - 5:,} more failures; see the error field")
        return "\n".join(lines)


def nothing_to_do(method: str) -> RunSummary:
    """The summary of a computation on a view without images; nothing is recorded."""
    counts = {"total": 0, "done": 0, "skipped": 0, "failed": 0}
    return RunSummary(None, method, counts, notices=["Nothing to do: there are no images in this view."])


def run_key_for(name: str) -> str:
    """A valid key (an identifier) for a run on the field or detections path called ``name``."""
    key = re.sub(r"\W", "_", name)
    return key if key.isidentifier() else f"run_{key}"


def check_run_key(samples: foc.SampleCollection, key: str, method: str) -> None:
    """Refuses keys that are invalid or belong to somebody else, before any work is done.

    Raises:
        ConfigError: the key is no identifier, or holds a run of another method or of another plugin.
    """
    if not key.isidentifier():
        raise ConfigError(
            f"run key {key!r} is not a valid name; use letters, digits and underscores, e.g. {run_key_for(key)!r}"
        )
    record = load_record(samples, key)
    if record is None:
        if samples.has_run(key):
            raise ConfigError(f"run key {key!r} is taken by a run that is not Selfsame's; choose another run_key")
    elif record["method"] != method:
        raise ConfigError(f"run key {key!r} is taken by a run of {record['method']}; choose another run_key")


def register_run(
    samples: foc.SampleCollection,
    summary: RunSummary,
    config: Mapping[str, Any],
    *,
    status: str = "completed",
    error: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> None:
    """Writes the record of a run under ``summary.key``; an earlier record with that key is replaced.

    Args:
        samples: what the job ran on; FiftyOne stores the stages of a view with the record.
        config: JSON-able settings of the method, including models and weights hashes.
        status: ``"completed"``, ``"failed"`` (it raised) or ``"interrupted"``.
        error: why it did not complete.
        results: JSON-able bulk data kept outside the record (in GridFS); read by :func:`load_results`.
    """
    record = samples.init_run(
        method=summary.method,
        plugin=PLUGIN,
        plugin_version=plugin_version(),
        status=status,
        error=error,
        config=dict(config),
        counts=dict(summary.counts),
        seconds=round(summary.seconds, 3),
        processing_seconds=round(
            summary.seconds if summary.processing_seconds is None else summary.processing_seconds, 3
        ),
        images_per_second=round(summary.images_per_second, 3),
        failed=dict(list(summary.failed.items())[:MAX_FAILURES]),
        details=dict(summary.details),
        notices=list(summary.notices),
    )
    with DOCUMENT_LOCK:
        samples.register_run(summary.key, record, overwrite=True, cleanup=False)
    if results is not None:
        samples.save_run_results(summary.key, samples.init_run_results(summary.key, data=dict(results)), cache=False)


def load_record(samples: foc.SampleCollection, key: str) -> dict[str, Any] | None:
    """The record under a key as a plain dict with ``key`` and ``timestamp``; None if there is none of Selfsame's."""
    if not samples.has_run(key):
        return None
    info = samples.get_run_info(key)
    record = {name: value for name, value in vars(info.config).items() if not name.startswith("_")}
    if record.get("plugin") != PLUGIN:
        return None
    return {"key": key, "timestamp": info.timestamp, "method": info.config.method, **record}


def load_results(samples: foc.SampleCollection, key: str) -> dict[str, Any] | None:
    """The bulk data stored with a run; None if it has none."""
    results = samples.load_run_results(key, cache=False, load_view=False)
    return None if results is None else results.data


def list_records(
    samples: foc.SampleCollection, *, method: str | None = None, field: str | None = None
) -> list[dict[str, Any]]:
    """Selfsame's run records of a dataset, oldest first.

    Args:
        method: only runs of this method (``"compute_ffa"`` ...).
        field: only runs whose config has this ``field``.
    """
    records = [load_record(samples, key) for key in samples.list_runs()]
    chosen = [
        record
        for record in records
        if record is not None
        and (method is None or record["method"] == method)
        and (field is None or record["config"].get("field") == field)
    ]
    return sorted(chosen, key=lambda record: record["timestamp"])


def last_run(
    samples: foc.SampleCollection, *, method: str | None = None, field: str | None = None
) -> dict[str, Any] | None:
    """The latest record that :func:`list_records` finds, or None."""
    records = list_records(samples, method=method, field=field)
    return records[-1] if records else None


@lru_cache(maxsize=1)
def plugin_version() -> str:
    """The version that ``fiftyone.yml`` declares."""
    manifest = Path(__file__).resolve().parent.parent / "fiftyone.yml"
    try:
        return str(yaml.safe_load(manifest.read_text(encoding="utf-8"))["version"])
    except (OSError, KeyError):
        return "unknown"
