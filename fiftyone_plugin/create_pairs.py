"""Which images are to be compared: pairs within groups and clusters, of a selection, or from a list."""

import csv
import os
import time
from collections.abc import Generator, Iterator, Sequence
from itertools import combinations, islice
from pathlib import Path

import fiftyone as fo
import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .engine.local import Progress
from .group_table import CLUSTER_METHOD, find_group_record, group_fields, run_place
from .pairs import LABELS, PairSpec, build_pairs, is_pair_dataset
from .runs import RunSummary
from .steps import plain_function

METHOD = "create_pairs"

# The columns that a list of pairs may have; the first two are needed.
COLUMNS = ("source_id", "target_id", "label", "relation")


def create_pairs_steps(
    samples: foc.SampleCollection,
    key: str | None = None,
    name: str | None = None,
    *,
    groups: Sequence[int] | None = None,
    pairs: Sequence[Sequence[str]] | None = None,
    path: str | os.PathLike | None = None,
    fields: Sequence[str] = (),
    max_pairs: int = 1000,
    overwrite: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Makes a dataset of image pairs, to be compared by :func:`match_objects` and reviewed in the Matching panel.

    It is a grouped dataset with the slices ``source`` and ``target``, persistent, and knows whose samples they are.
    Exactly one of ``key``, ``pairs`` and ``path`` says which pairs; without any, the view must be two images.

    Args:
        samples: a dataset or view of images.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects``: each keeper with
            the others of its group, or all pairs of a cluster.
        name: of the new dataset; None is ``<dataset>-<key>``, or ``<dataset>-pairs`` without a key.
        groups: only these groups of the run.
        pairs: ids of two samples each, and, if known, ``"match"`` or ``"non_match"``.
        path: a CSV file with the columns ``source_id`` and ``target_id``, and perhaps ``label`` and ``relation``.
        fields: fields of the samples to copy.
        max_pairs: most pairs; of more, the first are taken and the summary says so.
        overwrite: replace a pair dataset of that name.

    Returns:
        What was done; ``details`` has the name of the ``dataset``.

    Raises:
        ConfigError: no pairs, an unknown sample, run or field, a list that cannot be read, or a name that is taken.
    """
    started = time.perf_counter()
    samples = image_samples(samples)
    if is_pair_dataset(samples):
        raise ConfigError("these are pairs already; make pairs of the dataset that they came from")
    if sum(given is not None for given in (key, pairs, path)) > 1:
        raise ConfigError("key, pairs and path each say which pairs to make; give one of them")
    if groups is not None and key is None:
        raise ConfigError("groups are those of a run; give its key")
    if not isinstance(max_pairs, int) or max_pairs < 1:
        raise ConfigError(f"max_pairs={max_pairs!r} must be a whole number above 0")
    yield Progress(0, 1, label="Choosing pairs")
    specs = _specs(samples, key, groups, pairs, path)
    chosen = list(islice(specs, max_pairs))
    more = sum(1 for _ in specs)
    own = key or "pairs"
    dataset = build_pairs(
        samples,
        chosen,
        name=name or f"{samples._dataset.name}-{own}",
        key=own,
        made_by={"method": METHOD, "key": key, "groups": None if groups is None else [int(group) for group in groups]},
        fields=fields,
        overwrite=overwrite,
    )
    made = dataset.count()
    summary = RunSummary(None, METHOD, {"pairs": made, "left_out": more})
    summary.details = {"dataset": dataset.name}
    summary.notices = [f"{made:,} pairs are in dataset {dataset.name!r}: open it, or run match_objects on it"]
    if more:
        summary.notices.append(f"{more:,} more pairs were left out; raise max_pairs={max_pairs:,} for them")
    summary.seconds = time.perf_counter() - started
    yield Progress(1, 1, label="Done")
    return summary


def _load(samples: foc.SampleCollection, summary: RunSummary) -> fo.Dataset:
    return fo.load_dataset(summary.details["dataset"])


create_pairs = plain_function(create_pairs_steps, _load)


def _specs(
    samples: foc.SampleCollection,
    key: str | None,
    groups: Sequence[int] | None,
    pairs: Sequence[Sequence[str]] | None,
    path: str | os.PathLike | None,
) -> Iterator[PairSpec]:
    if key is not None:
        return _of_groups(samples, key, groups)
    if path is not None:
        return iter(_of_file(Path(path)))
    if pairs is not None:
        return iter([_of_row(row, f"pairs[{number}]") for number, row in enumerate(pairs)])
    ids = samples.limit(3).values("id")
    if len(ids) != 2:
        raise ConfigError("select exactly two images, or say which pairs to make: key=..., pairs=... or path=...")
    return iter([PairSpec(ids[0], ids[1], relation="selection")])


def _of_groups(samples: foc.SampleCollection, key: str, groups: Sequence[int] | None) -> Iterator[PairSpec]:
    """Pairs of a run, the groups in their order, the keeper first."""
    record = find_group_record(samples, key)
    if run_place(record).patches_field is not None:
        raise ConfigError(f"run {key!r} compared objects; pairs are made of whole images, so use a run on images")
    fields = group_fields(record)
    view = samples.exists(fields.number).sort_by([*fields.order, ("_id", 1)])
    if groups is not None:
        view = view.match({fields.number: {"$in": [int(group) for group in groups]}})
    members: dict[int, list[str]] = {}
    for sample_id, number in zip(*view.values(["id", fields.number]), strict=True):
        members.setdefault(number, []).append(sample_id)
    clustered = record["method"] == CLUSTER_METHOD
    for number, ids in members.items():
        ends = combinations(ids, 2) if clustered else ((ids[0], other) for other in ids[1:])
        relation = f"{'cluster' if clustered else 'duplicate group'} {number}"
        for source, target in ends:
            yield PairSpec(source, target, relation=relation)


def _of_file(path: Path) -> list[PairSpec]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [column for column in COLUMNS[:2] if column not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"path={str(path)!r}: the first line must name the columns {', '.join(COLUMNS[:2])}")
            rows = [[row.get(column) or None for column in COLUMNS] for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"path={str(path)!r} cannot be read as a list of pairs ({error})") from error
    return [_of_row(row, f"{path.name}, line {number + 2}") for number, row in enumerate(rows)]


def _of_row(row: Sequence[str | None], where: str) -> PairSpec:
    if isinstance(row, str) or not 2 <= len(row) <= 4 or not row[0] or not row[1]:
        raise ConfigError(f"{where}: a pair needs the ids of two samples, and may have a label; got {row!r}")
    if row[0] == row[1]:
        raise ConfigError(f"{where}: {row[0]!r} is paired with itself")
    label = row[2] if len(row) > 2 else None
    if label is not None and label not in LABELS:
        raise ConfigError(f"{where}: label {label!r} is unknown; use {' or '.join(LABELS)}, or leave it empty")
    return PairSpec(row[0], row[1], label, (row[3] if len(row) > 3 else None) or "list")
