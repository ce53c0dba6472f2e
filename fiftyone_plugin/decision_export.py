"""Decisions handed on: as a table, or as what is left without the dropped: a saved view, a dataset, files."""

import csv
import io
import json
import time
from collections.abc import Generator, Iterable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.media as fom
from fiftyone import ViewField

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .decision_log import DecisionLog
from .decision_members import DROP, ReviewedRun, open_run
from .engine.local import Progress
from .fingerprints import read_fields
from .item_fields import read_items
from .own_files import dataset_folder, written_aside
from .runs import RunSummary
from .steps import plain_function

METHOD = "export_decisions"

ExportTo = Literal["csv", "json", "view", "dataset", "export"]
TABLES: tuple[ExportTo, ...] = ("csv", "json")
EXPORTS: tuple[ExportTo, ...] = (*TABLES, "view", "dataset", "export")

# Where a clone notes, in its info, which dataset it was made from.
_MADE_HERE = "selfsame_cleaned_clone"

_RESULTS = ("group", "size", "role", "decision", "of", "similarity", "kind", "shot", "quality", "name")

COLUMNS = (
    "group",
    "size",
    "id",
    "sample_id",
    "file",
    "role",
    "decision",
    "decided_at",
    "keeper_id",
    "keeper_file",
    "similarity",
    "kind",
    "shot",
    "quality",
    "name",
    "tags",
)


def export_decisions_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    to: ExportTo = "csv",
    path: str | Path | None = None,
    name: str | None = None,
    dataset_type: str = "FiftyOneDataset",
    label_field: str | None = None,
    overwrite: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Exports what was decided on the groups of a run, or the data without what is dropped; changes nothing.

    Args:
        samples: a dataset or view; only its samples are exported.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects``.
        to: ``"csv"`` or ``"json"``: a row for every member of a group, decided or not; ``"view"``: a saved view of all
            but the dropped; ``"dataset"``: a clone of that as a dataset of its own; ``"export"``: its files in one of
            FiftyOne's formats. Of objects, those tagged ``duplicate:drop`` are left out, and their images stay.
        path: file or folder to write; None is a place of this dataset's own, which the summary names.
        name: name of the view or dataset; None is ``<key>_kept``, or ``<dataset>-<key>-kept``.
        dataset_type: for ``"export"``: the name of one of ``fiftyone.types``, e.g. ``"COCODetectionDataset"``.
        label_field: for ``"export"``: the labels to write, for formats that take one field.
        overwrite: replace a file, view or folder that is there already, or a dataset that an earlier export made.

    Returns:
        What was done; ``details`` has the ``path``, ``view`` or ``dataset``, ``counts`` the ``members`` or ``kept``.

    Raises:
        ConfigError: no such run, an unknown format, or something is there already and must not be overwritten.
    """
    started = time.perf_counter()
    if to not in EXPORTS:
        raise ConfigError(f"to={to!r} is unknown; use one of {', '.join(EXPORTS)}")
    run = open_run(samples, key)
    given, samples = samples, image_samples(samples)
    yield Progress(0, 1, label="Exporting decisions")
    if to in TABLES:
        summary = _write_table(samples, run, to, path, overwrite)
    else:
        kept = kept_view(samples, run)
        if to == "export":
            summary = _export_files(kept, run, path, dataset_type, label_field, overwrite)
        elif to == "view":
            summary = _save_view(kept, run, name, overwrite)
        else:
            summary = _clone(given, kept, run, name, overwrite)
        if given.media_type == fom.GROUP and (to != "dataset" or run.place.patches_field is not None):
            summary.notices.append("of the grouped dataset only the image slices are in it")
        summary.counts = {"kept": kept.count(), "total": samples.count()}
    summary.seconds = time.perf_counter() - started
    yield Progress(1, 1, label="Done")
    return summary


export_decisions = plain_function(export_decisions_steps)


def kept_view(samples: foc.SampleCollection, run: ReviewedRun) -> foc.SampleCollection:
    """All that is not tagged ``duplicate:drop``; a view that filters, and holds no ids."""
    if run.place.patches_field is None:
        return samples.match_tags(DROP, bool=False)
    not_dropped = ~ViewField("tags").contains(DROP)
    return samples.filter_labels(run.place.patches_field, not_dropped, only_matches=False)


def decision_table(samples: foc.SampleCollection, run: ReviewedRun, to: ExportTo) -> str:
    """The text of a table of decisions, as CSV or JSON."""
    return table_text(decision_rows(samples, run), run, to)


def table_text(rows: Iterable[dict[str, Any]], run: ReviewedRun, to: ExportTo) -> str:
    """Rows of :func:`decision_rows` as CSV or JSON."""
    if to == "csv":
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "tags": ";".join(row["tags"])} for row in rows)
        return buffer.getvalue()
    facts = {
        "dataset": run.dataset.name,
        "key": run.key,
        "method": run.record["method"],
        "threshold": run.record["details"].get("threshold"),
        "exported_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "members": list(rows),
    }
    return json.dumps(facts, indent=1)


def decision_rows(samples: foc.SampleCollection, run: ReviewedRun) -> Iterator[dict[str, Any]]:
    """A dict with :data:`COLUMNS` for every member of a group, group by group, the keeper first."""
    view = samples.match({run.path("group"): {"$gte": 0}})
    names = [run.name(short) for short in _RESULTS]
    items = [item for item in read_items(view, run.place, [*names, "tags"]) if item.values[0] is not None]
    sample_of = {item.id: item.sample_id for item in items}
    if run.place.patches_field is None:
        # A keeper outside of the view is named all the same.
        sample_of |= {keeper: keeper for item in items if (keeper := item.values[4])}
    files = read_files(run, sample_of.values())
    moments = _moments(run)

    def file_of(item_id: str | None) -> str | None:
        return files.get(sample_of.get(item_id or "", ""))

    items.sort(key=lambda item: (item.values[0], item.values[2] != "keeper", -(item.values[5] or 0.0)))
    for item in items:
        facts = dict(zip(_RESULTS, item.values, strict=False))
        keeper = facts["of"] or (item.id if facts["role"] == "keeper" else None)
        own = {
            "id": item.id,
            "sample_id": item.sample_id,
            "file": file_of(item.id),
            "tags": list(item.values[-1] or ()),
        }
        decided = moments.get(item.id) if facts["decision"] else None
        kept = {"keeper_id": keeper, "keeper_file": file_of(keeper), "decided_at": decided}
        values = {**facts, **own, **kept, "tags": list(item.values[-1] or ())}
        yield {column: values[column] for column in COLUMNS}


def read_files(run: ReviewedRun, sample_ids: Iterable[str]) -> dict[str, str]:
    """File by sample id, in all image slices of a grouped dataset."""
    found = read_fields(image_samples(run.dataset), list(set(sample_ids)), ["filepath"])
    return {sample_id: row[0] for sample_id, row in found.items()}


def _moments(run: ReviewedRun) -> dict[str, str]:
    """When each member was last decided on, in UTC."""
    log, name = DecisionLog(run.dataset), run.name("decision")
    moments: dict[str, str] = {}
    for decision in log.decisions(run.key):
        moment = decision.time.isoformat(timespec="seconds") + "Z"
        for changes in log.changes(decision):
            moments |= dict.fromkeys((change.id for change in changes if name in change.after), moment)
    return moments


def _write_table(
    samples: foc.SampleCollection, run: ReviewedRun, to: ExportTo, path: str | Path | None, overwrite: bool
) -> RunSummary:
    target = _own_path(run, f"{run.key}_decisions.{to}") if path is None else Path(path).expanduser()
    if path is not None and target.exists() and not overwrite:
        raise ConfigError(f"path={str(path)!r} is there already; choose another, or pass overwrite=True")
    rows = list(decision_rows(samples, run))
    text = table_text(rows, run, to)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(target) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise ConfigError(f"path={str(target)!r} cannot be written ({error}); choose another") from error
    counts = {"members": len(rows), "decided": sum(row["decision"] is not None for row in rows)}
    notice = f"written to {target}"
    return RunSummary(None, METHOD, counts, details={"path": str(target)}, notices=[notice])


def _save_view(kept: foc.SampleCollection, run: ReviewedRun, name: str | None, overwrite: bool) -> RunSummary:
    name = name or f"{run.key}_kept"
    if run.dataset.has_saved_view(name) and not overwrite:
        raise ConfigError(f"there is a saved view {name!r} already; give another name, or pass overwrite=True")
    run.dataset.save_view(name, kept, overwrite=overwrite)
    return RunSummary(None, METHOD, details={"view": name}, notices=[f"saved as view {name!r}, which follows the tags"])


def _clone(
    given: foc.SampleCollection, kept: foc.SampleCollection, run: ReviewedRun, name: str | None, overwrite: bool
) -> RunSummary:
    name = name or f"{run.dataset.name}-{run.key}-kept"
    if name == run.dataset.name:
        raise ConfigError(f"name={name!r} is the dataset itself; give the clone another name")
    if fo.dataset_exists(name):
        _make_room(run, name, overwrite)
    if given.media_type == fom.GROUP and run.place.patches_field is None:
        # The other slices belong to what is kept as well.
        clone = given.clone(name, persistent=True)
        clone.delete_samples(image_samples(clone).match_tags(DROP).values("id"))
    else:
        clone = kept.clone(name, persistent=True)
    # With its own id: a clone of the clone has the same note, but was made by somebody else.
    clone.info[_MADE_HERE] = [str(run.dataset._doc.id), str(clone._doc.id)]
    clone.save()
    return RunSummary(None, METHOD, details={"dataset": name}, notices=[f"cloned as dataset {name!r}"])


def _make_room(run: ReviewedRun, name: str, overwrite: bool) -> None:
    """Deletes an earlier clone; any other dataset is somebody's data."""
    if not overwrite:
        raise ConfigError(f"there is a dataset {name!r} already; give another name, or pass overwrite=True")
    there = fo.load_dataset(name)
    if list(there.info.get(_MADE_HERE) or ()) != [str(run.dataset._doc.id), str(there._doc.id)]:
        raise ConfigError(
            f"dataset {name!r} is no earlier export of {run.dataset.name!r}, so it is not replaced; give another name, "
            "or delete it yourself"
        )
    fo.delete_dataset(name)


def _export_files(
    kept: foc.SampleCollection,
    run: ReviewedRun,
    path: str | Path | None,
    dataset_type: str,
    label_field: str | None,
    overwrite: bool,
) -> RunSummary:
    kind = getattr(fo.types, dataset_type, None) if dataset_type.isidentifier() else None
    if kind is None:
        raise ConfigError(f"dataset_type={dataset_type!r} is none of fiftyone.types, e.g. COCODetectionDataset")
    folder = _own_path(run, f"{run.key}_{dataset_type}") if path is None else Path(path).expanduser()
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise ConfigError(f"folder {str(folder)!r} is not empty; choose another, or pass overwrite=True")
    options = {} if label_field is None else {"label_field": label_field}
    try:
        kept.export(export_dir=str(folder), dataset_type=kind, overwrite=overwrite, progress=False, **options)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ConfigError(f"FiftyOne cannot export this as {dataset_type}: {error}") from error
    return RunSummary(None, METHOD, details={"path": str(folder)}, notices=[f"exported to {folder}"])


def _own_path(run: ReviewedRun, name: str) -> Path:
    return dataset_folder(run.dataset, "exports") / name
