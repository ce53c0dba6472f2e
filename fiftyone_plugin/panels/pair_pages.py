"""The pairs of a matching in pages, and one pair with masks and point pairs, as plain data for the view of a panel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np

from ...brain.errors import ConfigError
from ..dataset_io import image_samples
from ..match_fields import MATCHED, UNMATCHED, MatchFields
from ..pairs import SLICES, PairRow, flat_pairs, read_pairs
from .group_pages import DatasetHandle

PAGE_SIZE = 20

# What a list can be narrowed down to, besides verdicts.
NOTHING, FAILED, UNDECIDED = "nothing", "failed", "undecided"

# Shown beside a pair where the dataset has them.
_FACTS = ("label", "relation", "product", "product_verdict")
_FIGURES = ("score", "verdict", "no_common_region", "similarity", "consistency", "ffa", "error")


@dataclass(frozen=True)
class PairPage:
    """A page of the list.

    Attributes:
        pairs: one entry per pair: ``pair_id``, ``score``, ``verdict``, ``nothing``, ``error``, ``decision``, ``title``
            and ``members``, source and target.
        total: pairs that pass the filters.
        page: number of the page, from 0; the last one where a page beyond it was asked for.
        pages: how many there are.
        kinds: pairs of each verdict, whatever the filters; :data:`NOTHING` are those without a common region.
    """

    pairs: list[dict[str, Any]]
    total: int
    page: int
    pages: int
    kinds: dict[str, int]


def page_of_pairs(
    dataset: fo.Dataset,
    record: Mapping[str, Any],
    verdicts: Mapping[str, str],
    *,
    sort: str = "doubtful",
    kind: str | None = None,
    decision: str | None = None,
    page: int | None = 0,
    fresh: bool = False,
) -> PairPage:
    """A page of the pairs of a run.

    Args:
        record: the run record.
        verdicts: a reviewer's decisions, ``"accept"`` or ``"reject"`` by ``pair_id``.
        sort: ``"doubtful"``: nearest to the threshold first; ``"highest"`` or ``"lowest"`` score first.
        kind: only pairs of this verdict, or :data:`NOTHING` or :data:`FAILED`; None for all.
        decision: only pairs with this decision, or :data:`UNDECIDED`; None for all.
        page: number of the page, from 0.
        fresh: read the scores anew in any case.
    """
    if fresh:
        _cached_scores.cache_clear()
    table = _cached_scores(DatasetHandle(dataset), record["key"], str(record["timestamp"]))
    chosen = np.ones(len(table.pair_ids), bool) if not kind else table.kind == kind
    if decision:
        said = np.array([verdicts.get(pair_id, UNDECIDED) for pair_id in table.pair_ids], object)
        chosen &= said == decision
    rows = np.flatnonzero(chosen)
    rows = rows[_order(table.score[rows], sort, record["details"].get("threshold"))]
    pages = max(1, -(-len(rows) // PAGE_SIZE))
    number = min(max(int(page or 0), 0), pages - 1)
    shown = [table.pair_ids[row] for row in rows[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]]
    kinds, counts = np.unique(table.kind.astype(str), return_counts=True)
    entries = _entries(dataset, record["key"], verdicts, shown)
    return PairPage(entries, len(rows), number, pages, dict(zip(kinds.tolist(), counts.tolist(), strict=True)))


def opened_pair(dataset: fo.Dataset, key: str, pair_id: str, verdicts: Mapping[str, str]) -> dict[str, Any]:
    """One pair.

    Returns:
        ``pair``, as in a page, with the figures and facts that there are; ``sides``, source and target: ``id``,
        ``group``, ``filepath`` and ``mask`` (a path or None); ``lines``: ``[x, y, x, y, confidence]`` relative to
        source and target, the strongest first.

    Raises:
        ConfigError: there is no such pair (any more).
    """
    found = _entries(dataset, key, verdicts, [pair_id])
    if not found:
        raise ConfigError(f"there is no pair {pair_id!r} any more; choose another")
    fields = MatchFields(key)
    paths = ["pair.name", "id", "pair.id", "filepath", f"{key}.mask_path", fields.name("points")]
    view = flat_pairs(dataset.match({"pair_id": pair_id}))
    rows = {row[0]: row for row in zip(*view.values(paths), strict=True)}
    sides = [
        dict(zip(("id", "group", "filepath", "mask"), rows[name][1:5], strict=True)) | {"box": None} for name in SLICES
    ]
    one, other = (rows[name][5] for name in SLICES)
    return {"pair": found[0], "sides": sides, "lines": _lines(one, other)}


@dataclass(frozen=True)
class _Scores:
    pair_ids: list[str]
    score: np.ndarray
    kind: np.ndarray


@lru_cache(maxsize=2)
def _cached_scores(handle: DatasetHandle, key: str, run: str) -> _Scores:
    """Scores of all pairs; kept while the run stays as it is, as sorting and turning pages ask for them."""
    fields = MatchFields(key)
    paths = [fields.name(short) for short in ("score", "verdict", "no_common_region", "error")]
    sources = image_samples(handle.dataset).match({"pair.name": SLICES[0]})
    found = sources.values(["pair_id", *paths])
    rows = [row for row in zip(*found, strict=True) if row[1] is not None or row[4] is not None]
    score = np.array([np.nan if row[1] is None else row[1] for row in rows], float)
    kind = np.array([_kind(*row[2:]) for row in rows], object)
    return _Scores([row[0] for row in rows], score, kind)


def _kind(verdict: str | None, nothing: bool | None, error: str | None) -> str:
    if error is not None:
        return FAILED
    return NOTHING if nothing else MATCHED if verdict == MATCHED else UNMATCHED


def _order(score: np.ndarray, sort: str, threshold: float | None) -> np.ndarray:
    """Positions in the order asked for; pairs without a score come last, ties stay in the order of the dataset."""
    middle = 0.5 if threshold is None else threshold
    by = {"doubtful": np.abs(score - middle), "highest": -score}.get(sort, score)
    return np.argsort(by, kind="stable")


def _entries(
    dataset: fo.Dataset, key: str, verdicts: Mapping[str, str], pair_ids: Sequence[str]
) -> list[dict[str, Any]]:
    if not pair_ids:
        return []
    fields = MatchFields(key)
    names = [fields.name(short) for short in _FIGURES]
    rows = read_pairs(dataset.match({"pair_id": {"$in": list(pair_ids)}}), [*_FACTS, *names])
    found = {row.pair_id: row for row in rows}
    return [_entry(found[name], fields, verdicts.get(name)) for name in pair_ids if name in found]


def _entry(row: PairRow, fields: MatchFields, decision: str | None) -> dict[str, Any]:
    figures = {short: row.values[fields.name(short)] for short in _FIGURES}
    members = [
        {"id": member.id, "sample_id": member.origin_id, "filepath": member.filepath, "box": None}
        for member in (row.source, row.target)
    ]
    facts = {name: row.values[name] for name in _FACTS if row.values[name] is not None}
    return {
        "pair_id": row.pair_id,
        "decision": decision,
        "kind": _kind(figures["verdict"], figures["no_common_region"], figures["error"]),
        "members": members,
        **{name: _rounded(value) for name, value in figures.items()},
        **facts,
    }


def _rounded(value: Any) -> Any:
    """JSON has no NaN."""
    if not isinstance(value, float):
        return value
    return round(value, 4) if np.isfinite(value) else None


def _lines(one: fo.Keypoints | None, other: fo.Keypoints | None) -> list[list[float]]:
    """The point pairs of two labels, which share an instance each; the strongest first."""
    ends = {point.instance.id: point for point in (other.keypoints if other else ()) if point.instance is not None}
    lines = []
    for point in one.keypoints if one else ():
        partner = ends.get(point.instance.id) if point.instance is not None else None
        if partner is not None and point.points and partner.points:
            confidence = float(point.confidence[0]) if point.confidence else 0.0
            lines.append([round(float(v), 5) for v in (*point.points[0], *partner.points[0], confidence)])
    return sorted(lines, key=lambda line: -line[4])
