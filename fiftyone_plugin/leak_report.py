"""What a search for leaks says: a table by pair of splits, sentences, the list of all pairs, and the view."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.leakage import leak_table
from .dataset_io import image_samples
from .fingerprints import read_fields
from .leak_search import CrossPairs
from .leak_store import LeakFields, StoredLeaks, find_leak_record
from .own_files import written_aside

CSV_COLUMNS = ("similarity", "split_a", "id_a", "file_a", "split_b", "id_b", "file_b")

# Pairs whose files are looked up at a time.
_PAIRS_READ = 2000

_EXAMPLES = 5
_SENTENCES = 10


def show_leaks(
    samples: foc.SampleCollection, key: str = "leaks", *, min_similarity: float | None = None, as_groups: bool = False
) -> foc.SampleCollection:
    """The view of all leaks, the most similar first, with the images that leak into each other side by side.

    The view filters and sorts by indexed fields; it may be saved, and follows the data when it is opened again.

    Args:
        samples: a dataset or view; only its samples are shown.
        key: key of a run of ``find_leaks``.
        min_similarity: only images with a copy at least this similar (cosine).
        as_groups: return FiftyOne's dynamic groups: one tile for the images that leak into each other.

    Raises:
        ConfigError: no such run, or a similarity that is no cosine.
    """
    find_leak_record(samples, key)
    group, similarity = LeakFields(key).name("group"), LeakFields(key).name("similarity")
    query: dict[str, Any] = {group: {"$gte": 0}}
    if min_similarity is not None:
        if isinstance(min_similarity, bool) or not isinstance(min_similarity, int | float):
            raise ConfigError(f"min_similarity={min_similarity!r} must be a cosine from -1 to 1")
        query[similarity] = {"$gte": float(min_similarity)}
    view = image_samples(samples).match(query)
    if as_groups:
        return view.group_by(group, order_by=similarity, reverse=True)
    return view.sort_by([(group, 1), (similarity, -1)])


def export_leaks(samples: foc.SampleCollection, key: str, path: str | Path) -> int:
    """Writes all pairs of a run as CSV, the most similar first, and returns their number.

    Columns: ``similarity``, then split, sample id and file of either image.

    Args:
        samples: the dataset of the run, or a view of it.
        key: key of a run of ``find_leaks``.
        path: the file to write; one that exists is replaced.

    Raises:
        ConfigError: no such run, or the file cannot be written.
    """
    text = leaks_csv(samples, key)
    try:
        with written_aside(Path(path)) as stream:
            stream.write(text.encode())
    except OSError as error:
        raise ConfigError(f"path={str(path)!r} cannot be written ({error})") from error
    return find_leak_record(samples, key)["counts"]["pairs"]


def leaks_csv(samples: foc.SampleCollection, key: str) -> str:
    """The text that :func:`export_leaks` writes."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, CSV_COLUMNS)
    writer.writeheader()
    writer.writerows(leak_pairs(samples, key))
    return buffer.getvalue()


def leak_pairs(samples: foc.SampleCollection, key: str) -> Iterator[dict[str, Any]]:
    """All pairs of a run as dicts with :data:`CSV_COLUMNS`, the most similar first; files are None where deleted.

    Files are looked up on the way, so that the first pairs come at once.

    Raises:
        ConfigError: no such run, or its pairs were deleted.
    """
    record = find_leak_record(samples, key)
    stored = StoredLeaks.load(samples, key)
    names, other = list(record["details"]["splits"]), record["config"]["other"]
    whole = [samples._dataset] + ([fo.load_dataset(other)] if other and fo.dataset_exists(other) else [])
    collections = [image_samples(dataset) for dataset in whole]
    order = np.argsort(-stored.pairs.similarity, kind="stable")
    for start in range(0, len(order), _PAIRS_READ):
        rows = order[start : start + _PAIRS_READ]
        ends = np.stack([stored.pairs.i[rows], stored.pairs.j[rows]], axis=1)
        files = _files(collections, [stored.ids[end] for end in np.unique(ends)])
        for row, both in zip(rows.tolist(), ends.tolist(), strict=True):
            values: list[Any] = [float(stored.pairs.similarity[row])]
            for end in both:
                values += [names[stored.split[end]], stored.ids[end], files.get(stored.ids[end])]
            yield dict(zip(CSV_COLUMNS, values, strict=True))


def table_rows(
    collections: Sequence[foc.SampleCollection], found: CrossPairs, drops: Mapping[tuple[int, int], int]
) -> list[dict[str, Any]]:
    """A JSON-able row per pair of splits that leak, those with most pairs first.

    It has ``split_a``, ``split_b``, ``pairs``, ``images_a`` and ``images_b`` that have a partner on the other side, of
    ``size_a`` and ``size_b``, the split to ``drop_from``, and the most similar pairs as ``examples``.

    Args:
        collections: where the samples are: the dataset, and the other dataset if there is one.
        drops: for each pair of splits which of the two should lose the images that leak.
    """
    splits, pairs = found.splits, found.pairs
    counts = leak_table(splits.split, pairs.i, pairs.j, len(splits.names))
    rows = []
    for (a, b), side in drops.items():
        if not counts.pairs[a, b]:
            continue
        rows.append(
            {
                "split_a": splits.names[a],
                "split_b": splits.names[b],
                "pairs": int(counts.pairs[a, b]),
                "images_a": int(counts.images[a, b]),
                "images_b": int(counts.images[b, a]),
                "size_a": splits.sizes[a],
                "size_b": splits.sizes[b],
                "drop_from": splits.names[side],
                "examples": _examples(collections, found, a, b),
            }
        )
    return sorted(rows, key=lambda row: -row["pairs"])


def leak_sentences(details: Mapping[str, Any]) -> list[str]:
    """The table in words."""
    at = f"at threshold {details['threshold']:.4f} ({details['threshold_reason']})"
    if not details["table"]:
        return [f"no leaks {at}"]
    sentences = [f"leaks {at}"]
    for row in details["table"][:_SENTENCES]:
        sides = [
            f"{row[f'images_{side}']:,} of {row[f'size_{side}']:,} images in {row[f'split_{side}']!r} "
            f"({row[f'images_{side}'] / row[f'size_{side}']:.1%})"
            for side in "ab"
        ]
        sentences.append(f"{' and '.join(sides)} show the same; drop them from {row['drop_from']!r}")
    if (more := len(details["table"]) - _SENTENCES) > 0:
        sentences.append(f"and {more} more pairs of splits; see the table in the run record")
    return sentences


def _examples(collections: Sequence[foc.SampleCollection], found: CrossPairs, a: int, b: int) -> list[dict[str, Any]]:
    """The most similar pairs of splits ``a < b``, as :func:`leak_pairs` gives them."""
    splits, pairs = found.splits, found.pairs
    # Images are ordered by split, so the first of a pair is in the first of its splits.
    rows = np.flatnonzero((splits.split[pairs.i] == a) & (splits.split[pairs.j] == b))
    best = rows[np.argsort(-pairs.similarity[rows], kind="stable")[:_EXAMPLES]].tolist()
    ids = [(splits.ids[pairs.i[row]], splits.ids[pairs.j[row]]) for row in best]
    files = _files(collections, [sample_id for both in ids for sample_id in both])
    sides = [
        [(splits.names[split], one, files.get(one)) for split, one in zip((a, b), both, strict=True)] for both in ids
    ]
    return [
        dict(zip(CSV_COLUMNS, (float(pairs.similarity[row]), *first, *second), strict=True))
        for row, (first, second) in zip(best, sides, strict=True)
    ]


def _files(collections: Sequence[foc.SampleCollection], ids: Sequence[str]) -> dict[str, str]:
    return {
        sample_id: file
        for collection in collections
        for sample_id, (file,) in read_fields(collection, ids, ["filepath"]).items()
    }
