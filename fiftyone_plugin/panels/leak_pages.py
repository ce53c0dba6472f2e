"""Leaks between splits in pages, as plain data for the Duplicates panel."""

from collections.abc import Mapping
from itertools import islice
from typing import Any

import fiftyone as fo

PAIRS_SHOWN = 24


def leak_page(dataset: fo.Dataset, record: Mapping[str, Any], page: int) -> dict[str, Any]:
    """What a run of ``find_leaks`` found.

    Args:
        record: the run record.
        page: number of the page of pairs, from 0.

    Returns:
        ``report``: ``splits`` and the ``table`` of pairs between them; ``pairs``: two sides each, as members are given
        to the view, with ``split``; ``total`` leaking samples, ``page`` and ``pages``.
    """
    from ..leak_report import leak_pairs

    pages = max(1, -(-record["counts"]["pairs"] // PAIRS_SHOWN))
    page = min(max(page, 0), pages - 1)
    start = page * PAIRS_SHOWN
    pairs = [
        (_side(row, "a"), _side(row, "b"))
        for row in islice(leak_pairs(dataset, record["key"]), start, start + PAIRS_SHOWN)
    ]
    report = {"splits": list(record["details"]["splits"]), "table": _table(record["details"])}
    return {"report": report, "pairs": pairs, "total": record["counts"]["leaks"], "page": page, "pages": pages}


def _side(row: Mapping[str, Any], side: str) -> dict[str, Any]:
    return {
        "id": row[f"id_{side}"],
        "sample_id": row[f"id_{side}"],
        "filepath": row[f"file_{side}"] or "",
        "split": row[f"split_{side}"],
        "similarity": row["similarity"],
        "box": None,
    }


def _table(details: Mapping[str, Any]) -> list[list[int]]:
    """Pairs by split and split, upper right."""
    splits = list(details["splits"])
    counts = [[0] * len(splits) for _ in splits]
    for row in details["table"]:
        a, b = sorted((splits.index(row["split_a"]), splits.index(row["split_b"])))
        counts[a][b] = row["pairs"]
    return counts
