"""All matches of a run as one table: ranks over all pairs, and the file that holds them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np
import pandas as pd

from ..brain.errors import ConfigError
from ..brain.metrics.label_free_combine import combined_score
from ..brain.metrics.label_free_peaks import low_similarity
from .correspondence_fields import LOW_SIMILARITY, METHOD, SUSPICION, CorrespondenceFields, number
from .item_fields import Place, write_items
from .own_files import dataset_folder, written_aside
from .pairs import SLICES
from .result_keys import find_result_record

# Pairs that are read at a time.
_CHUNK = 1000


def read_points(pairs: fo.Dataset, fields: CorrespondenceFields) -> pd.DataFrame:
    """Every match of all pairs under a key, in the order of the pairs.

    Returns:
        one row per match: ``pair_id``, ``source_id`` and ``target_id`` (of the original samples), ``category``,
        ``view``, ``keypoint``, ``source_x``, ``source_y``, ``target_x``, ``target_y`` (relative to the images),
        ``similarity``, and the attributes of the matches under their names; what is not known is NaN or None.
    """
    attributes = [path.removeprefix(fields.point_path("")) for path in fields.point_specs]
    frames = list(_frames(pairs, fields, attributes))
    return pd.concat(frames, ignore_index=True) if frames else _frame((), {}, attributes)


def rank_points(table: pd.DataFrame, fields: CorrespondenceFields) -> pd.DataFrame:
    """The table with what can only be said of a match among all others: low similarity and suspicion."""
    if not fields.options.label_free:
        return table
    categories = table["category"].fillna("").to_numpy(str)
    low = low_similarity(table["similarity"].to_numpy(float), categories)
    scores = {name: table[name].to_numpy(float) for name in fields.scores} | {LOW_SIMILARITY: low}
    return table.assign(**{LOW_SIMILARITY: low, SUSPICION: combined_score(scores, categories)})


def write_ranks(pairs: fo.Dataset, fields: CorrespondenceFields, table: pd.DataFrame) -> None:
    """Writes ranks to the matches on both slices, and the highest suspicion to the pairs."""
    if not len(table) or not fields.options.label_free:
        return
    members: dict[str, list[str]] = {}
    for sample_id, pair_id in zip(*pairs.select_group_slices().values(["id", "pair_id"]), strict=True):
        members.setdefault(pair_id, []).append(sample_id)

    def rows() -> Iterator[tuple[str, str, dict[str, Any]]]:
        for pair_id, own in table.groupby("pair_id", sort=False):
            ranks = {name: own[name].to_numpy() for name in fields.ranks}
            values: dict[str, Any] = {
                f"{fields.key}.keypoints.{index}.{name}": number(value)
                for name, column in ranks.items()
                for index, value in enumerate(column)
            }
            known = ranks[SUSPICION][np.isfinite(ranks[SUSPICION])]
            values[fields.name(SUSPICION)] = number(known.max()) if len(known) else None
            for sample_id in members[str(pair_id)]:
                yield sample_id, sample_id, values

    write_items(pairs, Place(), rows())


def write_table(pairs: foc.SampleCollection, key: str, table: pd.DataFrame) -> Path:
    """Stores the table of a run; an earlier one goes.

    Returns:
        the Parquet file.
    """
    folder = dataset_folder(pairs, "correspondences")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.parquet"
    with written_aside(path) as stream:
        table.to_parquet(stream, index=False, engine="pyarrow")
    return path


def load_correspondences(samples: foc.SampleCollection, key: str = "correspondence") -> pd.DataFrame:
    """The table of a run of :func:`compute_correspondences`: one row per match, as of :func:`read_points`.

    Args:
        samples: the pair dataset, or a view of it.
        key: name of the run.

    Raises:
        ConfigError: there is no such run, or its file is gone.
    """
    record = find_result_record(samples, key, METHOD, "correspondences")
    path = Path(record["details"].get("table") or "")
    if not path.is_file():
        raise ConfigError(f"the table of key {key!r} is gone ({path}); run {METHOD} with overwrite=True")
    return pd.read_parquet(path)


def summed_up(table: pd.DataFrame) -> Mapping[str, int]:
    """How many matches there are of each error type."""
    return {str(kind): int(count) for kind, count in table["error_type"].value_counts().items()}


_TEXTS = ("pair_id", "source_id", "target_id", "category", "view", "keypoint", "error_type")
_COLUMNS = (
    *("pair_id", "source_id", "target_id", "category", "view", "keypoint"),
    *("source_x", "source_y", "target_x", "target_y", "similarity", "error_type"),
)


def _frames(pairs: fo.Dataset, fields: CorrespondenceFields, attributes: Sequence[str]) -> Iterator[pd.DataFrame]:
    sources = pairs.select_group_slices(SLICES[0]).exists(fields.name("provenance"))
    targets = pairs.select_group_slices(SLICES[1])
    of_pair = ["pair_id", "source_id", "target_id", fields.name("category"), fields.name("view")]
    of_points = [fields.point_path(name) for name in ("label", "points", "confidence", *attributes)]
    ids = sources.values("id")
    for start in range(0, len(ids), _CHUNK):
        part = fov.make_optimized_select_view(sources, ids[start : start + _CHUNK])
        rows = list(zip(*part.values([*of_pair, *of_points]), strict=True))
        theirs = targets.match({"pair_id": {"$in": [row[0] for row in rows]}})
        places = dict(zip(*theirs.values(["pair_id", fields.point_path("points")]), strict=True))
        yield _frame(rows, places, attributes)


def _frame(
    rows: Sequence[tuple[Any, ...]], places: Mapping[str, Sequence[Any]], attributes: Sequence[str]
) -> pd.DataFrame:
    columns: dict[str, list[Any]] = {name: [] for name in dict.fromkeys((*_COLUMNS, *attributes))}
    for row in rows:
        names, points, confidences, *values = (one or [] for one in row[5:])
        n = len(names)
        for name, value in zip(_COLUMNS[:5], row[:5], strict=True):
            columns[name] += [value] * n
        columns["keypoint"] += names
        for side, some in (("source", points), ("target", places[row[0]] or [])):
            for axis, letter in enumerate("xy"):
                columns[f"{side}_{letter}"] += [point[0][axis] for point in some]
        columns["similarity"] += [confidence[0] for confidence in confidences]
        for name, column in zip(attributes, values, strict=True):
            columns[name] += column or [None] * n
    numeric = [name for name in columns if name not in _TEXTS and name not in ("mutual", "handed_over")]
    return pd.DataFrame(columns).astype(dict.fromkeys(numeric, float))
