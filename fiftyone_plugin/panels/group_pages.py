"""The list of groups of a run in pages, and one group with its members, as plain data for the view of a panel."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import fiftyone as fo
import numpy as np

PAGE_SIZE = 20
THUMBNAILS = 4
MEMBERS_SHOWN = 120


@dataclass(frozen=True)
class GroupPage:
    """A page of the list.

    Attributes:
        groups: one entry per group: ``group``, ``size``, ``similarity``, ``risk``, ``kind``, ``decided`` and
            ``members``, the first few of them.
        total: groups that pass the filters.
        page: number of the page, from 0; the last one where a page beyond it was asked for.
        pages: how many there are.
        kinds: groups of each kind, whatever the filters.
    """

    groups: list[dict[str, Any]]
    total: int
    page: int
    pages: int
    kinds: dict[str, int]


def page_of(
    dataset: fo.Dataset,
    record: Mapping[str, Any],
    progress: Mapping[str, int],
    *,
    sort: str = "size",
    kind: str | None = None,
    undecided: bool | None = False,
    page: int | None = 0,
    fresh: bool = False,
) -> GroupPage:
    """A page of the groups of a run.

    Args:
        record: the run record.
        progress: of :func:`progress_of`; the list is read anew when it has changed.
        sort: ``"size"``: largest first; ``"risk"``: most doubtful first; ``"similarity"``: least similar first.
        kind: only groups of this kind; None for all.
        undecided: only groups without a decision.
        page: number of the page, from 0.
        fresh: read the list anew in any case.
    """
    table = _table(dataset, record, progress, fresh)
    rows = np.arange(len(table.group))
    kinds = np.asarray(table.kind, object)
    if kind:
        rows = rows[kinds[rows] == kind]
    if undecided:
        rows = rows[~np.asarray(table.decided, bool)[rows]]
    rows = rows[_order(table, rows, sort)]
    pages = max(1, -(-len(rows) // PAGE_SIZE))
    number = min(max(int(page or 0), 0), pages - 1)
    shown = rows[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
    names, counts = np.unique([name for name in table.kind if name], return_counts=True)
    return GroupPage(
        _entries(dataset, record["key"], table, shown),
        len(rows),
        number,
        pages,
        dict(zip(names.tolist(), counts.tolist(), strict=True)),
    )


def opened_group(dataset: fo.Dataset, record: Mapping[str, Any], group: int) -> dict[str, Any]:
    """One group: ``group`` and ``members``, the keeper first; no member if there is no such group (any more)."""
    from ..group_table import group_members

    members = group_members(dataset, record["key"], [group], limit=MEMBERS_SHOWN).get(group, [])
    return {"group": group, "members": [asdict(member) for member in members]}


def progress_of(dataset: fo.Dataset, key: str) -> dict[str, int]:
    """How far the review of a run is: ``groups``, ``decided``, ``keep``, ``drop``, ``reject``, ``undoable``."""
    from ..decisions import review_progress

    return {name: int(value) for name, value in review_progress(dataset, key).items()}


def _table(dataset: fo.Dataset, record: Mapping[str, Any], progress: Mapping[str, int], fresh: bool) -> Any:
    """The groups of a run; kept while run and decisions stay as they are, as sorting and turning pages ask for it."""
    if fresh:
        _cached_table.cache_clear()
    state = (record["timestamp"], record["details"].get("threshold"), *record["counts"].items(), *progress.items())
    return _cached_table(DatasetHandle(dataset), record["key"], str(state))


class DatasetHandle:
    """A dataset as part of a cache key: equal for the same dataset in the database."""

    def __init__(self, dataset: fo.Dataset) -> None:
        self.dataset = dataset
        self._id = str(dataset._doc.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DatasetHandle) and self._id == other._id

    def __hash__(self) -> int:
        return hash(self._id)


@lru_cache(maxsize=2)
def _cached_table(handle: DatasetHandle, key: str, state: str) -> Any:
    from ..group_table import group_table

    return group_table(handle.dataset, key)


def _order(table: Any, rows: np.ndarray, sort: str) -> np.ndarray:
    """Positions of ``rows`` in the order asked for; ties stay in the order of group numbers."""
    by = {"size": -np.asarray(table.size, float), "risk": -np.asarray(table.risk, float)}
    values = by.get(sort, np.asarray(table.similarity, float))
    return np.argsort(values[rows], kind="stable")


def _entries(dataset: fo.Dataset, key: str, table: Any, rows: np.ndarray) -> list[dict[str, Any]]:
    from ..group_table import group_members

    groups = [int(table.group[row]) for row in rows]
    members = group_members(dataset, key, groups, limit=THUMBNAILS) if groups else {}
    return [
        {
            "group": group,
            "size": int(table.size[row]),
            "similarity": _number(table.similarity[row]),
            "risk": _number(table.risk[row]),
            "kind": table.kind[row],
            "decided": bool(table.decided[row]),
            "members": [asdict(member) for member in members.get(group, [])],
        }
        for group, row in zip(groups, rows, strict=True)
    ]


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return None if value is None or not np.isfinite(value) else round(float(value), 4)
