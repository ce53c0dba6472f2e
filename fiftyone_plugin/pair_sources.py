"""Where pairs come from: groups and clusters, similarity, categories and viewpoints, a selection, or a list.

Each source knows how many pairs it has before any is made.
"""

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.nearest import knn
from ..brain.pair_sampling import AZIMUTH_BINS, azimuth_bin, choose_pairs, pair_blocks
from ..brain.pairs import exhaust
from .group_table import CLUSTER_METHOD, find_group_record, group_fields, run_place
from .pairs import LABELS, PairSpec
from .vectors import check_vector_field, read_vectors

# The columns that a list of pairs may have; the first two are needed.
COLUMNS = ("source_id", "target_id", "label", "relation")


@dataclass(frozen=True)
class PairSource:
    """Pairs that can be made.

    Attributes:
        count: how many there are; of partners by similarity, at most.
        take: at most so many of them, None being all: the first ones, or of categories a fair share of each.
    """

    count: int
    take: Callable[[int | None], list[PairSpec]]


def pairs_of_groups(samples: foc.SampleCollection, key: str, groups: Sequence[int] | None = None) -> PairSource:
    """The keeper of each duplicate group with the others, or all pairs of each cluster; the groups in their order.

    Args:
        samples: a flat view; only pairs whose images are both in it are made.
        key: key of a run on whole images.
        groups: only these groups.

    Raises:
        ConfigError: no such run, or it compared objects.
    """
    record = find_group_record(samples, key)
    if run_place(record).patches_field is not None:
        raise ConfigError(f"run {key!r} compared objects; pairs are made of whole images, so use a run on images")
    fields = group_fields(record)
    view = samples.exists(fields.number)
    if groups is not None:
        view = view.match({fields.number: {"$in": [int(group) for group in groups]}})
    clustered = record["method"] == CLUSTER_METHOD
    sizes = view.count_values(fields.number).values()

    def take(limit: int | None) -> list[PairSpec]:
        members: dict[int, list[str]] = {}
        ordered = view.sort_by([*fields.order, ("_id", 1)])
        for sample_id, number in zip(*ordered.values(["id", fields.number]), strict=True):
            members.setdefault(number, []).append(sample_id)
        return list(islice(_within_groups(members, clustered), limit))

    return PairSource(sum(size * (size - 1) // 2 if clustered else size - 1 for size in sizes), take)


def _within_groups(members: dict[int, list[str]], clustered: bool) -> Iterator[PairSpec]:
    for number, ids in members.items():
        ends = combinations(ids, 2) if clustered else ((ids[0], other) for other in ids[1:])
        relation = f"{'cluster' if clustered else 'duplicate group'} {number}"
        for source, target in ends:
            yield PairSpec(source, target, relation=relation)


def pairs_by_similarity(
    samples: foc.SampleCollection,
    field: str,
    partners: int = 1,
    *,
    within: str | None = None,
    apart: str | None = None,
) -> PairSource:
    """Each image with those most similar to it; two that chose each other are one pair. The most similar come first.

    Args:
        samples: a flat view.
        field: vectors of the images.
        partners: how many each image chooses.
        within: field that partners have the same value of.
        apart: key of a duplicate search on images; of each of its groups only the keeper takes part, so that nobody is
            paired with a copy of itself.

    Raises:
        ConfigError: a field or run cannot be used.
    """
    check_vector_field(samples, field)
    if not isinstance(partners, int) or partners < 1:
        raise ConfigError(f"partners={partners!r} must be a whole number above 0")
    view = samples.exists(field)
    if apart is not None:
        view = view.match(_without_copies(samples, apart))
    if within is not None:
        readable_path(samples, within)

    def take(limit: int | None) -> list[PairSpec]:
        table = exhaust(read_vectors(view, field))
        groups = _rows_by_value(view, within, table.ids) if within else [np.arange(len(table.ids))]
        found: dict[tuple[int, int], float] = {}
        for rows in groups:
            if len(rows) > 1:
                found |= _nearest_pairs(table.matrix, rows, partners)
        best = sorted(found, key=lambda pair: (-found[pair], pair))[:limit]
        return [PairSpec(table.ids[i], table.ids[j], relation=f"similar in {field}") for i, j in best]

    return PairSource(view.count() * partners, take)


def _nearest_pairs(matrix: np.ndarray, rows: np.ndarray, partners: int) -> dict[tuple[int, int], float]:
    neighbours, cosines = knn(np.asarray(matrix[rows], np.float32), min(partners, len(rows) - 1))
    found = {}
    for row, (others, values) in enumerate(zip(neighbours, cosines, strict=True)):
        for other, value in zip(others, values, strict=True):
            ends = sorted((int(rows[row]), int(rows[other])))
            found[ends[0], ends[1]] = float(value)
    return found


def _without_copies(samples: foc.SampleCollection, key: str) -> Any:
    record = find_group_record(samples, key)
    role = group_fields(record).role
    if role is None or run_place(record).patches_field is not None:
        raise ConfigError(f"apart={key!r} is no duplicate search on images; name one, or leave it out")
    return {role: {"$ne": "duplicate"}}


def _rows_by_value(samples: foc.SampleCollection, field: str, ids: Sequence[str]) -> list[np.ndarray]:
    value_of = dict(zip(*samples.values(["id", field]), strict=True))
    rows: dict[Any, list[int]] = {}
    for row, sample_id in enumerate(ids):
        if (value := value_of.get(sample_id)) is not None:
            rows.setdefault(value, []).append(row)
    return [np.array(own) for own in rows.values()]


def pairs_by_category(
    samples: foc.SampleCollection, field: str, *, azimuth: str | None = None, differences: Sequence[int] = (0, 4)
) -> PairSource:
    """Images with the same value of a field, and perhaps a certain change of viewpoint.

    Args:
        samples: a flat view.
        field: a text, number, truth value or ``Classification`` of each image.
        azimuth: field with the viewpoint: whole numbers from 0 to 7 are eighths of a turn, as in SPair-71k, all others
            degrees.
        differences: least and largest difference of viewpoints in eighths of a turn, 0 to 4.

    Raises:
        ConfigError: a field cannot be used, or no such differences exist.
    """
    categories = [None if value is None else str(value) for value in samples.values(readable_path(samples, field))]
    bins = None if azimuth is None else azimuth_bins(samples, azimuth)
    low, high = _check_differences(differences)
    blocks = pair_blocks(categories, bins, (low, high))

    def take(limit: int | None) -> list[PairSpec]:
        ids = samples.values("id")
        specs = []
        for i, j, block in choose_pairs(blocks, limit):
            turned = {} if block.difference is None else {"azimuth_difference": block.difference}
            specs.append(PairSpec(ids[i], ids[j], relation=f"{field}: {block.category}", values=turned))
        return specs

    return PairSource(sum(map(len, blocks)), take)


def readable_path(samples: foc.SampleCollection, field: str) -> str:
    """The path whose values tell images apart; of a ``Classification`` its label."""
    found = samples.get_field(field) if isinstance(field, str) else None
    if getattr(found, "document_type", None) is fo.Classification:
        return f"{field}.label"
    if not isinstance(found, fo.StringField | fo.IntField | fo.BooleanField | fo.FloatField):
        raise ConfigError(
            f"{field!r} is no field of dataset {samples._dataset.name!r} with one value per image; give the name of a"
            " field of text, numbers, truth values or classifications"
        )
    return field


def azimuth_bins(samples: foc.SampleCollection, field: str) -> list[int | None]:
    found = samples.get_field(field)
    if not isinstance(found, fo.IntField | fo.FloatField):
        raise ConfigError(f"azimuth={field!r} is no field of numbers of dataset {samples._dataset.name!r}")
    values = samples.values(field)
    known = [value for value in values if value is not None]
    if isinstance(found, fo.IntField) and all(0 <= value < AZIMUTH_BINS for value in known):
        return values
    return [None if value is None else azimuth_bin(value) for value in values]


def _check_differences(differences: Sequence[int]) -> tuple[int, int]:
    most = AZIMUTH_BINS // 2
    try:
        low, high = (int(value) for value in differences)
    except (TypeError, ValueError):
        low, high = -1, -1
    if not 0 <= low <= high <= most:
        raise ConfigError(f"azimuth_difference={differences!r} must be two whole numbers from 0 to {most}, least first")
    return low, high


def pairs_of_rows(rows: Iterable[Sequence[str | None]]) -> PairSource:
    """Pairs that are named.

    Args:
        rows: ids of two samples each, then perhaps label and relation.

    Raises:
        ConfigError: a row is no pair.
    """
    return _listed([_of_row(row, f"pairs[{number}]") for number, row in enumerate(rows)])


def pairs_of_file(path: str | os.PathLike) -> PairSource:
    """Pairs of a CSV file whose columns are some of :data:`COLUMNS`.

    Raises:
        ConfigError: it cannot be read, or a line is no pair.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"path={str(path)!r} cannot be read ({error})") from error
    rows = rows_of_csv(content, path.name)
    return _listed([_of_row(row, f"{path.name}, line {number + 2}") for number, row in enumerate(rows)])


def rows_of_csv(content: bytes, name: str) -> list[list[str | None]]:
    """What :func:`pairs_of_rows` takes, of a CSV file whose columns are some of :data:`COLUMNS`.

    Raises:
        ConfigError: it is no list of pairs.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        if not {*COLUMNS[:2]} <= {*(reader.fieldnames or ())}:
            raise ConfigError(f"{name}: the first line must name the columns {', '.join(COLUMNS[:2])}")
        return [[row.get(column) or None for column in COLUMNS] for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{name} cannot be read as a list of pairs ({error})") from error


def pair_of_view(samples: foc.SampleCollection) -> PairSource:
    """The two images of a view.

    Raises:
        ConfigError: it has another number of images.
    """
    ids = samples.limit(3).values("id")
    if len(ids) != 2:
        raise ConfigError(
            "select exactly two images, or say which pairs to make: key=..., similar=..., within=..., pairs=... or"
            " path=..."
        )
    return _listed([PairSpec(ids[0], ids[1], relation="selection")])


def _listed(specs: list[PairSpec]) -> PairSource:
    return PairSource(len(specs), lambda limit: specs[:limit])


def _of_row(row: Sequence[str | None], where: str) -> PairSpec:
    if isinstance(row, str) or not 2 <= len(row) <= 4 or not row[0] or not row[1]:
        raise ConfigError(f"{where}: a pair needs the ids of two samples, and may have a label; got {row!r}")
    if row[0] == row[1]:
        raise ConfigError(f"{where}: {row[0]!r} is paired with itself")
    label = row[2] if len(row) > 2 else None
    if label is not None and label not in LABELS:
        raise ConfigError(f"{where}: label {label!r} is unknown; use {' or '.join(LABELS)}, or leave it empty")
    return PairSpec(row[0], row[1], label, (row[3] if len(row) > 3 else None) or "list")
