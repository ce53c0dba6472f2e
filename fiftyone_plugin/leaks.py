"""Leaks: the same picture or object in two splits of a dataset, or in two datasets."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.leakage import NONE, leak_groups, nearest_across, side_to_drop
from .dataset_io import image_samples
from .duplicate_store import nothing_to_compare, update_record
from .engine.local import Progress
from .leak_report import leak_sentences, table_rows
from .leak_search import CrossPairs, pairs_of_run, pairs_of_vectors
from .leak_splits import Splits, dataset_splits, read_splits
from .leak_store import (
    METHOD,
    TAG,
    LeakFields,
    Leaks,
    StoredLeaks,
    check_leak_key,
    declare_leaks,
    find_leak_record,
    give_tags,
    take_tags,
    without_tag,
    write_leaks,
)
from .runs import RunSummary, load_record, load_results, register_run
from .steps import in_stage, plain_function

TAGGED_SIDES = ("drop", "all", "none")


@dataclass(frozen=True)
class LeakSettings:
    """What to compare and whom to tag; checked when made.

    Raises:
        ConfigError: a value that cannot work.
    """

    duplicates: str | None
    embeddings: str
    split_field: str | list[str] | None
    other: str | None
    threshold: float | None
    drop_from: str | None
    tag: str

    def __post_init__(self) -> None:
        if self.tag not in TAGGED_SIDES:
            raise ConfigError(f"tag={self.tag!r} is unknown; use one of {', '.join(TAGGED_SIDES)}")
        if self.threshold is not None and not -1.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold={self.threshold!r} must be a cosine from -1 to 1, or None")
        if self.duplicates is not None and self.other is not None:
            raise ConfigError(
                "duplicates and other exclude each other: a duplicate run knows one dataset only; leave duplicates out "
                "to compare the vectors of both datasets"
            )


def find_leaks_steps(
    samples: foc.SampleCollection,
    key: str = "leaks",
    *,
    duplicates: str | None = None,
    embeddings: str = "ffa",
    split_field: str | Sequence[str] | None = None,
    other: foc.SampleCollection | str | None = None,
    threshold: float | None = None,
    drop_from: str | None = None,
    tag: str = "drop",
    device: str = "auto",
) -> Generator[Progress, None, RunSummary]:
    """Finds images whose picture or object is in another split, or in another dataset, too.

    Fields ``<key>_leak``, ``_other``, ``_of``, ``_similarity``, ``_group`` and ``_error`` are written, and images are
    tagged ``leak:<split>``, where the split is the one that has the copy: a training image tagged ``leak:test`` shows
    what a test image shows. The run record's ``details["table"]`` has a row per pair of splits; all pairs can be
    written to a file by ``export_leaks``. Tags and fields of an earlier run with this key are replaced, and
    ``clear_leaks`` takes all of it back.

    Args:
        samples: a dataset or view.
        key: name of the run and prefix of its fields.
        duplicates: key of a run of ``find_duplicates`` whose pairs to use, of images or of objects; pairs that a
            reviewer told apart do not count. None compares the vectors in ``embeddings`` across the splits.
        embeddings: field with one vector per sample.
        split_field: field that names the split of each sample, or a list of tags such as ``["train", "test"]``; None
            takes a field ``split`` if there is one, else the usual tags. Without meaning where ``other`` is given.
        other: another dataset (or its name, or a view of it) with vectors in the same field: finds leaks between
            ``samples`` and it, and none inside either. Only ``samples`` get fields and tags.
        threshold: least cosine of a leak; None is the threshold of the duplicate run, or chosen from the density of
            the data.
        drop_from: the split from which leaking images should go; None prefers training over validation over test
            data by their usual names, else the larger split, and ``samples`` over ``other``.
        tag: ``"drop"``: tag the images that should go; ``"all"``: tag all that leak; ``"none"``.
        device: where similarities are computed: ``"auto"``, ``"cpu"``, ``"cuda"`` ...

    Returns:
        What was done; ``counts`` has ``pairs``, ``leaks`` (images of ``samples``) and ``tagged``, ``details`` the
        table.

    Raises:
        ConfigError: an option cannot work, there are fewer than two splits, or no sample has a vector.
    """
    started = time.perf_counter()
    foreign = _collection(other)
    by = split_field if isinstance(split_field, str) or split_field is None else list(split_field)
    name = None if foreign is None else foreign._dataset.name
    settings = LeakSettings(duplicates, embeddings, by, name, threshold, drop_from, tag)
    samples = image_samples(samples)
    check_leak_key(samples, key)
    total = samples.count()
    if not total:
        return nothing_to_compare(METHOD)
    splits = read_splits(samples, by) if foreign is None else dataset_splits(samples, foreign)
    if drop_from is not None and drop_from not in splits.names:
        raise ConfigError(f"drop_from={drop_from!r} is no split; there are {', '.join(splits.names)}")
    if duplicates is not None:
        search, label = pairs_of_run(samples, splits, duplicates, threshold), "Reading pairs"
    else:
        search, label = pairs_of_vectors(samples, foreign, splits, embeddings, threshold, device), "Comparing splits"
    found = yield from in_stage(search, total, 0.0, 0.9, label)
    drops = _drops(splits, drop_from, own_only=foreign is not None)
    leaks = _leaks(found, drops, settings)
    summary = RunSummary(key, METHOD, failed=dict(found.failed))
    summary.details = _details(samples, foreign, found, drops)
    yield Progress(int(0.9 * total), total, label="Writing leaks")
    _write(samples, summary, leaks, settings)
    summary.seconds = time.perf_counter() - started
    summary.notices = leak_sentences(summary.details) + _notices(splits, summary, settings)
    update_record(samples, key, status="completed", notices=summary.notices, seconds=round(summary.seconds, 3))
    yield Progress(total, total, label="Done")
    return summary


find_leaks = plain_function(find_leaks_steps)


def clear_leaks(samples: foc.SampleCollection, key: str = "leaks") -> RunSummary:
    """Takes a search for leaks back: its tags, its fields and its record. Tags that were there before it stay.

    Args:
        samples: the dataset, or a view of it.
        key: key of a run of ``find_leaks``.

    Returns:
        What was done; ``counts`` has ``untagged``.

    Raises:
        ConfigError: no such run.
    """
    find_leak_record(samples, key)
    dataset = samples._dataset
    untagged = _take_back(samples, key)
    dataset.delete_sample_fields([path for path in LeakFields(key).specs if dataset.get_field(path) is not None])
    dataset.delete_run(key)
    return RunSummary(None, "clear_leaks", {"untagged": untagged}, details={"key": key})


def _collection(other: foc.SampleCollection | str | None) -> foc.SampleCollection | None:
    if other is None:
        return None
    if isinstance(other, str):
        if not fo.dataset_exists(other):
            raise ConfigError(f"other={other!r}: there is no dataset of that name")
        other = fo.load_dataset(other)
    return image_samples(other)


def _drops(splits: Splits, drop_from: str | None, *, own_only: bool) -> dict[tuple[int, int], int]:
    """For each pair of splits a < b the one that images should be dropped from."""
    names, sizes = splits.names, splits.sizes

    def choose(a: int, b: int) -> int:
        if drop_from in (names[a], names[b]):
            return a if names[a] == drop_from else b
        return a if own_only else (a, b)[side_to_drop((names[a], names[b]), (sizes[a], sizes[b]))]

    return {(a, b): choose(a, b) for b in range(len(names)) for a in range(b)}


def _leaks(found: CrossPairs, drops: dict[tuple[int, int], int], settings: LeakSettings) -> Leaks:
    splits, pairs, n = found.splits, found.pairs, len(found.splits.ids)
    own = splits.split == 0 if settings.other is not None else np.ones(n, bool)
    partner, similarity = nearest_across(n, pairs.i, pairs.j, pairs.similarity)
    other = [None if row == NONE else splits.names[splits.split[row]] for row in partner]
    group = leak_groups(n, pairs.i, pairs.j, pairs.similarity)
    tags = _tags(found, own, drops, settings.tag)
    return Leaks(splits, own, pairs, partner, similarity, group, other, tags, found.failed)


def _tags(found: CrossPairs, own: np.ndarray, drops: dict[tuple[int, int], int], side: str) -> dict[str, list[str]]:
    """Ids of the samples to tag, by tag."""
    splits, pairs = found.splits, found.pairs
    if side == "none":
        return {}
    ends = np.concatenate([np.stack([pairs.i, pairs.j], axis=1), np.stack([pairs.j, pairs.i], axis=1)])
    tags: dict[str, list[str]] = {}
    leaking, other = splits.split[ends[:, 0]], splits.split[ends[:, 1]]
    for (a, b), dropped in drops.items():
        for one, into in ((a, b), (b, a)):
            if side == "all" or one == dropped:
                rows = np.unique(ends[(leaking == one) & (other == into), 0])
                ids = [splits.ids[row] for row in rows if own[row]]
                if ids:
                    tags.setdefault(f"{TAG}{splits.names[into]}", []).extend(ids)
    return tags


def _write(samples: foc.SampleCollection, summary: RunSummary, leaks: Leaks, settings: LeakSettings) -> None:
    """Fields, record and tags; the record comes before the tags, so that they can be taken back after a kill."""
    key = summary.key or ""
    _take_back(samples, key)
    update_record(samples, key, status="interrupted")
    config = vars(settings)
    declare_leaks(samples, key, {"method": METHOD, "run": key, **config, "threshold": summary.details["threshold"]})
    write_leaks(samples, key, leaks)
    tagged = without_tag(samples, leaks.tags)
    done = int(leaks.own.sum())
    summary.counts = {"total": done + len(leaks.failed), "done": done, "skipped": 0, "failed": len(leaks.failed)} | {
        "pairs": len(leaks.pairs),
        "leaks": len(leaks.leaking),
        "tagged": sum(map(len, tagged.values())),
    }
    register_run(samples, summary, config, status="interrupted", results=leaks.stored(tagged).to_results())
    give_tags(samples, tagged)


def _take_back(samples: foc.SampleCollection, key: str) -> int:
    """Removes the tags of an earlier run; returns their number."""
    if load_record(samples, key) is None or load_results(samples, key) is None:
        return 0
    return take_tags(samples, StoredLeaks.load(samples, key).tagged)


def _details(
    samples: foc.SampleCollection,
    foreign: foc.SampleCollection | None,
    found: CrossPairs,
    drops: dict[tuple[int, int], int],
) -> dict[str, Any]:
    collections = [samples] if foreign is None else [samples, foreign]
    return {
        "threshold": found.pairs.threshold,
        "threshold_reason": found.reason,
        "splits": dict(zip(found.splits.names, found.splits.sizes, strict=True)),
        "table": table_rows(collections, found, drops),
    }


def _notices(splits: Splits, summary: RunSummary, settings: LeakSettings) -> list[str]:
    notices = []
    if summary.counts["tagged"]:
        notices.append(
            f"{summary.counts['tagged']:,} tags {TAG}<split> were given; the split is the one that has the copy"
        )
    if splits.several:
        notices.append(
            f"{len(splits.several):,} samples carry the tags of several splits (e.g. {splits.several[0]}) and were "
            "counted for the first of them"
        )
    if splits.unassigned:
        notices.append(f"{splits.unassigned:,} samples are in no split and were left out")
    if summary.failed:
        notices.append(
            f"{len(summary.failed):,} samples have no usable vector in {settings.embeddings!r} and were left out; "
            f"{LeakFields(summary.key or '').name('error')} says why"
        )
    return notices
