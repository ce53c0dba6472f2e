"""The pairs of a run of correspondences in pages, and one pair with its matches, as plain data for a view."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np
from fiftyone import ViewField as F

from ...brain.errors import ConfigError
from ..correspondence_fields import METHOD, SEVERITY
from ..correspondence_labels import PairLabels, SampleLabels
from ..dataset_io import image_samples
from ..keypoint_inputs import PairKeypoints
from ..pairs import SLICES, PairRow, check_pairs, flat_pairs, read_pairs
from ..provenance import config_hash
from ..stored_matches import match_provenance, run_settings
from .group_pages import DatasetHandle

PAGE_SIZE = 20

UNDECIDED = "undecided"

# What lists are sorted by: name of the order, field, and whether the highest come first.
SORTS = {
    "risk": ("risk", True),
    "suspicion": ("suspicion", True),
    "worst": ("worst", True),
    "score": ("score", False),
    "label": ("label_suspect", True),
}

# Shown of a pair, in the list and when it is open.
_FIGURES = (
    *("score", "risk", "suspicion", "worst", "worst_type", "swaps", "matches", "category", "view", "inverted"),
    *("consistency", "label_suspect", "suspect_side", "error"),
)
# Attributes of a match besides its name, places and similarity.
_ATTRIBUTES = ("error_type", "distance", "suspicion", "risk", "label_suspect", "mutual", "handed_over")


@dataclass(frozen=True)
class CorrespondencePage:
    """A page of the list.

    Attributes:
        pairs: an entry per pair: ``pair_id``, ``decision``, ``members`` and the figures of the pair that are known.
        total: pairs that pass the filters.
        page: number of the page, from 0; the last one where a page beyond it was asked for.
        pages: how many there are.
        sort: the order that it is in: that asked for, or the first for which there are figures.
        sorts: orders for which there are figures.
        categories, types: pairs of each category, and with any match of each type of error, whatever the filters.
        suspects: pairs with an annotation under suspicion.
    """

    pairs: list[dict[str, Any]]
    total: int
    page: int
    pages: int
    sort: str
    sorts: list[str]
    categories: dict[str, int]
    types: dict[str, int]
    suspects: int


def page_of_correspondences(
    dataset: fo.Dataset,
    record: Mapping[str, Any],
    verdicts: Mapping[str, str],
    *,
    sort: str | None = None,
    category: str | None = None,
    kind: str | None = None,
    decision: str | None = None,
    suspects: bool | None = False,
    page: int | None = 0,
    fresh: bool = False,
) -> CorrespondencePage:
    """A page of the pairs of a run; pairs that were not matched or failed come last.

    Args:
        record: of the run.
        verdicts: a reviewer's words by ``pair_id``.
        sort: one of :data:`SORTS`; the riskiest, most suspicious, worst or least similar first, or what most likely has
            a wrong label.
        category: only pairs of this category; None for all.
        kind: only pairs of which any match has this type of error.
        decision: only pairs with this word, or :data:`UNDECIDED`.
        suspects: only pairs with an annotation under suspicion.
        page: number of the page, from 0.
        fresh: read all figures anew in any case.
    """
    if fresh:
        _cached_figures.cache_clear()
    table = _cached_figures(DatasetHandle(dataset), record["key"], str(record["timestamp"]))
    sorts = [name for name in SORTS if np.isfinite(table.values[name]).any()]
    order = sort if sort in sorts else (sorts or [*SORTS])[0]
    chosen = np.ones(len(table.pair_ids), bool)
    if category:
        chosen &= table.category == category
    if kind:
        chosen &= np.array([kind in own for own in table.types], bool)
    if suspects:
        chosen &= table.suspect
    if decision:
        chosen &= np.array([verdicts.get(name, UNDECIDED) == decision for name in table.pair_ids], bool)
    rows = np.flatnonzero(chosen)
    values = table.values[order][rows]
    rows = rows[np.argsort(-values if SORTS[order][1] else values, kind="stable")]
    pages = max(1, -(-len(rows) // PAGE_SIZE))
    number = min(max(int(page or 0), 0), pages - 1)
    shown = [table.pair_ids[row] for row in rows[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]]
    entries = _entries(dataset, record["key"], verdicts, shown)
    categories = _counts([one for one in table.category if one])
    types = _counts([one for own in table.types for one in own])
    gravest_first = {one: types[one] for one in reversed(SEVERITY) if one in types}
    return CorrespondencePage(
        entries, len(rows), number, pages, order, sorts, categories, gravest_first, int(table.suspect.sum())
    )


def opened_correspondences(
    dataset: fo.Dataset, record: Mapping[str, Any], pair_id: str, verdicts: Mapping[str, str]
) -> dict[str, Any]:
    """One pair.

    Returns:
        ``pair``, as in a page; ``sides``, source and target: ``id``, ``group`` and ``filepath``; ``matches``, in the
        order of the keypoints: ``name``, ``source`` and ``target`` (x and y relative to the images), ``truth`` (the
        annotated place in the target, or None), ``similarity``, ``partner`` (name of the mirror partner, or None) and
        what else is known of it; ``couples``: mirror partners of which either image shows one; ``stale``: whether files
        or labels have changed since it was matched.

    Raises:
        ConfigError: there is no such pair (any more).
    """
    key = record["key"]
    found = _entries(dataset, key, verdicts, [pair_id])
    if not found:
        raise ConfigError(f"there is no pair {pair_id!r} any more; choose another")
    paths = ["pair.name", "id", "pair.id", "filepath", key]
    flat = flat_pairs(dataset.match({"pair_id": pair_id}))
    rows = {row[0]: row for row in zip(*flat.values(paths), strict=True)}
    sides = [dict(zip(("id", "group", "filepath"), rows[name][1:4], strict=True)) | {"box": None} for name in SLICES]
    labels = read_labels(dataset, record, pair_id)
    matches = _matches(*(rows[name][4] for name in SLICES), labels.keypoints)
    return {
        "pair": found[0],
        "sides": sides,
        "matches": matches,
        "couples": _couples(labels.keypoints),
        "stale": bool(matches) and labels.stale,
    }


@dataclass(frozen=True, eq=False)
class LabelsOfPair:
    """What the labels of a pair say now.

    Attributes:
        row: the pair.
        keypoints: None where the run looked for none, or where they cannot be used.
        stale: whether what the run stored of the pair was made of other files or labels.
    """

    row: PairRow
    keypoints: PairKeypoints | None
    stale: bool


def read_labels(dataset: fo.Dataset, record: Mapping[str, Any], pair_id: str) -> LabelsOfPair:
    """Keypoints of a pair, and whether they are still those that were matched.

    Raises:
        ConfigError: there is no such pair, or a field is gone.
    """
    config, kept = record["config"], f"{record['key']}_provenance"
    view = dataset.match({"pair_id": pair_id})
    rows = read_pairs(view, [kept])
    if not rows:
        raise ConfigError(f"there is no pair {pair_id!r} any more; choose another")
    (row,), foreground = rows, config["foreground"]
    marked = None if foreground == "none" else foreground.split(":", 1)[1]
    labels = PairLabels(dataset, check_pairs(dataset), config["keypoints"], config.get("couples"), marked)
    both = labels.read([row.source.id, row.target.id])
    source, target = both[row.source.id], both[row.target.id]
    stamp = match_provenance(config_hash(METHOD, run_settings(config)), row, source, target)
    return LabelsOfPair(row, _paired(labels, source, target), row.values[kept] != stamp)


def _paired(labels: PairLabels, source: SampleLabels, target: SampleLabels) -> PairKeypoints | None:
    if labels.keypoints is None or source.keypoints is None:
        return None
    try:
        return labels.keypoints.pair(source.keypoints, target.keypoints)
    except ConfigError:
        return None


@dataclass(frozen=True)
class _Figures:
    """Of all pairs: what lists are sorted by, by name and NaN where it is not known, and what they are filtered by."""

    pair_ids: list[str]
    values: dict[str, np.ndarray]
    category: np.ndarray
    types: list[Sequence[str]]
    suspect: np.ndarray


@lru_cache(maxsize=2)
def _cached_figures(handle: DatasetHandle, key: str, run: str) -> _Figures:
    """Figures of all pairs; kept while the run stays as it is, as sorting and turning pages ask for them."""
    sources = image_samples(handle.dataset).match({"pair.name": SLICES[0]})
    schema = handle.dataset.get_field_schema()
    wanted = [*(field for field, _ in SORTS.values()), "category", "error", "provenance"]
    known = [name for name in wanted if f"{key}_{name}" in schema]
    # The set of the types of a pair is far smaller than its list of matches.
    kinds = F(f"{key}.keypoints").map(F("error_type")).unique()
    columns = sources.values(["pair_id", kinds, *(f"{key}_{name}" for name in known)])
    rows = [dict(zip(("pair_id", "types", *known), row, strict=True)) for row in zip(*columns, strict=True)]
    rows = [row for row in rows if row.get("provenance") is not None or row.get("error") is not None]
    suspect = [row.get("label_suspect") is not None for row in rows]
    return _Figures(
        [row["pair_id"] for row in rows],
        {name: np.array([_number(row.get(field)) for row in rows], float) for name, (field, _) in SORTS.items()},
        np.array([row.get("category") or "" for row in rows], object),
        [[kind for kind in row["types"] or () if kind is not None] for row in rows],
        np.array(suspect, bool),
    )


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _counts(values: Sequence[str]) -> dict[str, int]:
    names, counts = np.unique(np.array(values, str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _entries(
    dataset: fo.Dataset, key: str, verdicts: Mapping[str, str], pair_ids: Sequence[str]
) -> list[dict[str, Any]]:
    if not pair_ids:
        return []
    view = dataset.match({"pair_id": {"$in": list(pair_ids)}})
    rows = {row.pair_id: row for row in read_pairs(view, [f"{key}_{name}" for name in _FIGURES])}
    return [_entry(rows[name], key, verdicts.get(name)) for name in pair_ids if name in rows]


def _entry(row: PairRow, key: str, decision: str | None) -> dict[str, Any]:
    members = [
        {"id": member.id, "sample_id": member.origin_id, "filepath": member.filepath, "box": None}
        for member in (row.source, row.target)
    ]
    figures = {name: plain(row.values[f"{key}_{name}"]) for name in _FIGURES}
    return {"pair_id": row.pair_id, "decision": decision, "members": members, **figures}


def plain(value: Any) -> Any:
    """A value for JSON, which has no NaN; floats with what a reader can tell apart."""
    if not isinstance(value, float):
        return value
    return round(value, 5) if math.isfinite(value) else None


def _matches(
    source: fo.Keypoints | None, target: fo.Keypoints | None, keypoints: PairKeypoints | None
) -> list[dict[str, Any]]:
    ends = {one.instance.id: one for one in (target.keypoints if target else ()) if one.instance is not None}
    truths, partners = _known_of(keypoints)
    found = []
    for one in source.keypoints if source else ():
        other = ends.get(one.instance.id) if one.instance is not None else None
        if other is None or not one.points or not other.points:
            continue
        found.append(
            {
                "name": one.label,
                "source": [plain(float(value)) for value in one.points[0]],
                "target": [plain(float(value)) for value in other.points[0]],
                "truth": truths.get(one.label),
                "partner": partners.get(one.label),
                "similarity": plain(float(one.confidence[0])) if one.confidence else None,
                **{name: plain(_attribute(one, name)) for name in _ATTRIBUTES},
            }
        )
    return found


def _attribute(label: fo.Keypoint, name: str) -> Any:
    return label[name] if label.has_field(name) else None


def _known_of(keypoints: PairKeypoints | None) -> tuple[dict[str, list[float]], dict[str, str]]:
    """By name, true places in the target and mirror partners."""
    if keypoints is None:
        return {}, {}
    names, partners = keypoints.groups.names, keypoints.groups.partners
    truths = {
        name: [plain(float(value)) for value in place]
        for name, place in zip(names, keypoints.target, strict=True)
        if np.isfinite(place).all()
    }
    return truths, {name: names[other] for name, other in zip(names, partners, strict=True) if names[other] != name}


def _couples(keypoints: PairKeypoints | None) -> list[list[str]]:
    if keypoints is None:
        return []
    shown = np.isfinite(keypoints.source).all(1) | np.isfinite(keypoints.target).all(1)
    there = {name for name, seen in zip(keypoints.groups.names, shown, strict=True) if seen}
    return [list(couple) for couple in keypoints.groups.couples if there & set(couple)]
