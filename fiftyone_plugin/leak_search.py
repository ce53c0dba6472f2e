"""Pairs of images in different splits: those of a duplicate run, or searched for among vectors."""

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import fiftyone.core.collections as foc
import numpy as np

from ..brain.leakage import across
from ..brain.neighbors import Pairs, cross_pairs_steps
from ..brain.thresholds import neighbour_profile, suggest_threshold
from .dataset_io import image_samples
from .decisions import constraints_of
from .duplicate_store import find_record, load_pairs
from .item_fields import Place, read_items
from .leak_splits import Splits
from .vectors import VectorTable, check_vector_field, read_vectors

T = TypeVar("T")

_NO_PAIRS = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))


@dataclass(frozen=True)
class CrossPairs:
    """What a search found.

    Attributes:
        splits: the images that could be compared.
        pairs: pairs across splits, rows of ``splits``, down to ``pairs.threshold``.
        reason: where the threshold comes from.
        failed: reason by id of the samples that could not be compared.
    """

    splits: Splits
    pairs: Pairs
    reason: str
    failed: dict[str, str] = field(default_factory=dict)


def pairs_of_run(
    samples: foc.SampleCollection, splits: Splits, key: str, threshold: float | None
) -> Generator[float, None, CrossPairs]:
    """The pairs of a duplicate run that join two splits; of a run on objects, of the images that they are in.

    Raises:
        ConfigError: no such run, it kept no pairs, or none as far down as ``threshold``.
    """
    record = find_record(samples, key)
    stored = load_pairs(samples, record)
    yield 0.2
    reason = f"of run {key!r}" if threshold is None else "given"
    pairs = stored.pairs.at_least(record["details"]["threshold"] if threshold is None else threshold)
    pairs = _without_rejected(samples, key, stored.ids, pairs)
    yield 0.4
    rows = _sample_rows(samples, record["config"].get("patches_field"), stored.ids, splits)
    yield 0.8
    i, j = rows[pairs.i], rows[pairs.j]
    known = (i >= 0) & (j >= 0) & (i != j)
    i, j, similarity = i[known], j[known], pairs.similarity[known]
    crossing = across(splits.split, i, j)
    found = _unique(i[crossing], j[crossing], similarity[crossing], pairs.threshold)
    return CrossPairs(splits, found, reason)


def pairs_of_vectors(
    samples: foc.SampleCollection,
    other: foc.SampleCollection | None,
    splits: Splits,
    embeddings: str,
    threshold: float | None,
    device: str,
) -> Generator[float, None, CrossPairs]:
    """Compares the images of each split with those of each other split, and with none of their own.

    Raises:
        ConfigError: vectors are missing or differ in length, or an option cannot work.
    """
    tables = yield from _tables(samples, other, splits, embeddings)
    parts = [table.matrix for table in tables]
    compared = replace(
        splits,
        ids=[sample_id for table in tables for sample_id in table.ids],
        split=np.repeat(np.arange(len(parts)), [len(part) for part in parts]),
    )
    if threshold is None:
        threshold, reason = suggest_threshold(neighbour_profile(max((table.matrix for table in tables), key=len)))
    else:
        reason = "given"
    starts = np.cumsum([0, *(len(part) for part in parts)])
    jobs = [(a, b) for b in range(len(parts)) for a in range(b) if len(parts[a]) and len(parts[b])]
    chunks = [_NO_PAIRS]
    for number, (a, b) in enumerate(jobs):
        steps = cross_pairs_steps(parts[a], parts[b], threshold, device=device)
        found = yield from _share(steps, len(jobs) + number, 2 * len(jobs))
        chunks.append(Pairs(found.i + starts[a], found.j + starts[b], found.similarity))
    i, j, similarity = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("i", "j", "similarity"))
    own = tables if other is None else tables[:1]
    failed = {sample_id: text for table in own for sample_id, text in table.missing.items()}
    return CrossPairs(compared, _unique(i, j, similarity, threshold), reason, failed)


def _tables(
    samples: foc.SampleCollection, other: foc.SampleCollection | None, splits: Splits, embeddings: str
) -> Generator[float, None, list[VectorTable]]:
    """The vectors of each split; yields shares up to a half.

    A split without any vector is left out, unless no split has one.
    """
    check_vector_field(samples, embeddings)
    present = set(samples.exists(embeddings).values("id"))
    tables = []
    for number in range(len(splits.names)):
        ids = splits.ids[splits.rows(number)]
        if number == 1 and other is not None:
            steps = read_vectors(other, embeddings, ids)
        elif present and present.isdisjoint(ids):
            tables.append(
                VectorTable([], np.empty((0, 0), np.float32), dict.fromkeys(ids, f"no vector in {embeddings!r}"))
            )
            continue
        else:
            steps = read_vectors(samples, embeddings, ids)
        tables.append((yield from _share(steps, number, 2 * len(splits.names))))
    return tables


def _share(steps: Generator[float, None, T], number: int, count: int) -> Generator[float, None, T]:
    while True:
        try:
            yield (number + min(next(steps), 1.0)) / count
        except StopIteration as stop:
            return stop.value


def _without_rejected(samples: foc.SampleCollection, key: str, ids: list[str], pairs: Pairs) -> Pairs:
    """The pairs but those that a reviewer of the duplicate run told apart."""
    _, apart = constraints_of(samples, key)
    if not apart:
        return pairs
    row_of = {item_id: row for row, item_id in enumerate(ids)}
    rejected = {
        tuple(sorted((row_of[a], row_of[b])))
        for first, second in apart
        for a in first
        for b in second
        if a in row_of and b in row_of
    }
    keep = np.array([pair not in rejected for pair in zip(pairs.i.tolist(), pairs.j.tolist(), strict=True)], bool)
    return Pairs(pairs.i[keep], pairs.j[keep], pairs.similarity[keep], pairs.threshold)


def _sample_rows(
    samples: foc.SampleCollection, patches_field: str | None, ids: list[str], splits: Splits
) -> np.ndarray:
    """``(m,)`` int64: the row of the image of each item of a run; -1 for those in no split."""
    row_of = {sample_id: row for row, sample_id in enumerate(splits.ids)}
    if patches_field is not None:
        wanted = set(ids)
        items = read_items(image_samples(samples._dataset), Place(patches_field), [])
        row_of = {item.id: row_of.get(item.sample_id, -1) for item in items if item.id in wanted}
    return np.array([row_of.get(item_id, -1) for item_id in ids], np.int64)


def _unique(i: np.ndarray, j: np.ndarray, similarity: np.ndarray, threshold: float) -> Pairs:
    """Sorted pairs of images; of several pairs of objects in the same two images the most similar one."""
    i, j = np.minimum(i, j).astype(np.int32), np.maximum(i, j).astype(np.int32)
    order = np.lexsort((-similarity, j, i))
    i, j, similarity = i[order], j[order], similarity[order]
    first = np.ones(len(i), bool)
    first[1:] = (i[1:] != i[:-1]) | (j[1:] != j[:-1])
    return Pairs(i[first], j[first], similarity[first].astype(np.float32), float(threshold))
