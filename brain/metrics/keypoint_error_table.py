"""How often each type of keypoint error occurs: by category, geometry-aware points and azimuth difference."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from ..errors import ConfigError
from .keypoint_errors import ERROR_TYPES, KeypointErrors

SplitBy = Literal["category", "geometry_aware", "azimuth_difference"]
SPLITS: tuple[SplitBy, ...] = ("category", "geometry_aware", "azimuth_difference")


def error_table(errors: Iterable[KeypointErrors], by: Sequence[SplitBy] = ()) -> list[dict[str, Any]]:
    """Counts and shares of all types in each cell of a split.

    Args:
        errors: verdicts on pairs, all of one flavour.
        by: what to split by, in this order; nothing gives one row of everything.

    Returns:
        one row per cell that has a keypoint: ``metric`` (the flavour in words), the values of the split, ``n``, the
        count of each type under its name and its share of ``n`` under ``share_NAME``. Rows are sorted by the split; an
        azimuth difference that is not known is None and comes last.

    Raises:
        ConfigError: an unknown split, or verdicts of different flavours.
    """
    unknown = [name for name in by if name not in SPLITS]
    if unknown:
        raise ConfigError(f"no split by {unknown[0]!r}; there are {', '.join(SPLITS)}")
    counts: dict[tuple, Counter[str]] = defaultdict(Counter)
    labels = set()
    for pair in errors:
        labels.add(pair.flavour.label)
        for slot, kind in enumerate(pair.types):
            if kind is not None:
                counts[tuple(_value(pair, slot, name) for name in by)][kind] += 1
    if len(labels) > 1:
        raise ConfigError(f"verdicts of different flavours in one table: {', '.join(sorted(labels))}")
    cells = sorted(counts, key=lambda cell: tuple((value is None, 0 if value is None else value) for value in cell))
    return [_row(next(iter(labels)), dict(zip(by, cell, strict=True)), counts[cell]) for cell in cells]


def inversion_table(errors: Iterable[KeypointErrors]) -> list[dict[str, Any]]:
    """Per category, pairs that can be judged for inversion, and how many of them are inverted.

    Returns:
        rows of ``metric``, ``category``, ``n_pairs``, ``n_inverted`` and ``share_inverted``, by category.
    """
    counts: dict[tuple[str, str], Counter[bool]] = defaultdict(Counter)
    for pair in errors:
        if pair.gain is not None:
            counts[pair.category, pair.flavour.label][pair.inverted] += 1
    return [
        {
            "metric": f"inverted pairs, {label}",
            "category": category,
            "n_pairs": found.total(),
            "n_inverted": found[True],
            "share_inverted": found[True] / found.total(),
        }
        for (category, label), found in sorted(counts.items())
    ]


def _value(pair: KeypointErrors, slot: int, name: SplitBy) -> Any:
    return bool(pair.geometry_aware[slot]) if name == "geometry_aware" else getattr(pair, name)


def _row(label: str, cell: dict[str, Any], counts: Counter[str]) -> dict[str, Any]:
    total = counts.total()
    shares = {f"share_{kind}": counts[kind] / total for kind in ERROR_TYPES}
    return {"metric": label, **cell, "n": total, **{kind: counts[kind] for kind in ERROR_TYPES}, **shares}
