"""How symmetry errors are stored: a risk per match and pair, and on pairs what their saved views sort by."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np
import pandas as pd

from ..brain.errors import ConfigError
from .correspondence_fields import number
from .dataset_io import FieldSpec, declare_fields, readable_and_internal, show_in_sidebar
from .item_fields import Place, write_items
from .pairs import SLICES, PairRow
from .symmetry_views import VIEWS

POINT_FIELDS = ("risk", "label_suspect")


@dataclass(frozen=True)
class SymmetryFields:
    """The fields that belong to a key of ``compute_correspondences``."""

    key: str

    def name(self, short: str) -> str:
        """The name of a field of the pair."""
        return f"{self.key}_{short}"

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """The fields of the pairs by name."""
        rows: dict[str, tuple[type, str]] = {
            "risk": (fo.FloatField, "Highest swap risk of a match of the pair, from 0 to 1"),
            "swap_confidence": (fo.FloatField, "Highest similarity of a match that took another keypoint's place"),
            "phantom_confidence": (fo.FloatField, "Highest similarity of a match of a keypoint that is not there"),
            "inversion": (fo.FloatField, "Of pairs that mirroring mends: how much better the mirrored target fits"),
            "label_suspect": (fo.FloatField, "How much speaks for left and right exchanged in the annotation"),
            "suspect_side": (fo.StringField, "Which image of the pair has the suspicious annotation"),
            "ambiguity": (fo.FloatField, "Highest rival of a match that is right, over the match"),
        }
        return {self.name(short): FieldSpec(kind, text) for short, (kind, text) in rows.items()}

    @property
    def point_specs(self) -> dict[str, FieldSpec]:
        """The attributes of the matches by path."""
        texts = (
            "Swap risk: known errors from 0.5 up, by confidence, where there are types of errors; else by scores",
            "How much speaks for left and right exchanged in the annotation of this keypoint",
        )
        names = (f"{self.key}.keypoints.{short}" for short in POINT_FIELDS)
        return {name: FieldSpec(fo.FloatField, text) for name, text in zip(names, texts, strict=True)}

    def declare(self, pairs: fo.Dataset, info: Mapping[str, Any]) -> None:
        """Declares the fields, puts them in the sidebar and indexes what views sort by."""
        declare_fields(pairs, {**self.specs, **self.point_specs}, dict(info))
        show_in_sidebar(pairs, *readable_and_internal(self.specs))
        for view in VIEWS:
            pairs.create_index(self.name(view.field))


def write_symmetry(
    pairs: fo.Dataset, fields: SymmetryFields, rows: list[PairRow], table: pd.DataFrame, of_pairs: pd.DataFrame
) -> None:
    """Writes to both slices of all pairs; a pair without matches is emptied.

    Args:
        pairs: the pair dataset, whose fields are declared.
        fields: those of the key.
        rows: all its pairs.
        table: all matches in the order of the labels, with :data:`POINT_FIELDS`.
        of_pairs: by ``pair_id``, the values of the pairs under their short names.

    Raises:
        ConfigError: the labels of a pair are not those of the table.
    """
    indices = table.groupby("pair_id", sort=False).indices
    _check_names(pairs, fields, indices, table["keypoint"].to_numpy(object))
    columns = {name: table[name].to_numpy(float) for name in POINT_FIELDS}
    known = of_pairs.to_dict("index")

    def values(pair_id: str) -> dict[str, Any]:
        own = known.get(pair_id, {})
        found: dict[str, Any] = {name: _plain(own.get(name.removeprefix(f"{fields.key}_"))) for name in fields.specs}
        for position, row in enumerate(indices.get(pair_id, ())):
            for name, column in columns.items():
                found[f"{fields.key}.keypoints.{position}.{name}"] = number(column[row])
        return found

    def items() -> Iterator[tuple[str, str, dict[str, Any]]]:
        for row in rows:
            own = values(row.pair_id)
            for member in (row.source, row.target):
                yield member.id, member.id, own

    write_items(pairs, Place(), items())


def _check_names(
    pairs: fo.Dataset, fields: SymmetryFields, indices: Mapping[str, np.ndarray], names: np.ndarray
) -> None:
    sources = pairs.select_group_slices(SLICES[0])
    there = dict(zip(*sources.values(["pair_id", f"{fields.key}.keypoints.label"]), strict=True))
    for pair_id, rows in indices.items():
        if list(names[rows]) != list(there.get(pair_id) or ()):
            raise ConfigError(
                f"the matches of pair {pair_id!r} are not those of the table of key {fields.key!r}: a run was broken"
                " off; run compute_correspondences to its end"
            )


def _plain(value: Any) -> Any:
    return value if isinstance(value, str) else number(value)
