"""How outcomes of pairs are stored: masks, points, figures and verdict, on both slices and on the originals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.cosalient.comparison import PairOutcome, full_size
from ..brain.images import image_size
from .dataset_io import FieldSpec, declare_fields, readable_and_internal, show_in_sidebar
from .item_fields import Place, write_items
from .mask_store import MASK_TARGETS, MaskStore
from .pairs import SLICES, PairRow

MATCHED, UNMATCHED = "match", "no_match"

_SCORES = ("similarity", "consistency", "ffa")

_LABEL = {"embedded_doc_type": fo.Segmentation}
_POINTS = {"embedded_doc_type": fo.Keypoints}

# Name (after the key), type, description, options.
_SHARED: tuple[tuple[str, type, str, dict[str, Any]], ...] = (
    ("", fo.EmbeddedDocumentField, "Mask of what the two images have in common", _LABEL),
    ("score", fo.FloatField, "How sure it is that both images show the same object, from 0 to 1", {}),
    ("verdict", fo.StringField, "match or no_match: whether the score reaches the threshold", {}),
    ("no_common_region", fo.BooleanField, "Whether the images have nothing in common", {}),
)
_OF_PAIRS: tuple[tuple[str, type, str, dict[str, Any]], ...] = (
    ("points", fo.EmbeddedDocumentField, "The strongest pairs of points, as one instance each", _POINTS),
    ("similarity", fo.FloatField, "Mean cosine of each patch of a region to the nearest of the other", {}),
    ("consistency", fo.FloatField, "Share of the patches that find their way to the other region and back", {}),
    ("ffa", fo.FloatField, "Cosine of the mean tokens of both regions", {}),
)
_OF_ORIGINALS: tuple[tuple[str, type, str, dict[str, Any]], ...] = (
    ("partner", fo.StringField, "Id of the sample that this one matches best", {}),
    ("pairs", fo.IntField, "Number of the pairs of this sample with verdict match", {}),
)


@dataclass(frozen=True)
class MatchFields:
    """The fields that belong to a key of a matching.

    Attributes:
        key: the mask field; the others begin with it.
        of_pairs: whether they stand on the slices of pairs, or on original samples.
    """

    key: str
    of_pairs: bool = True

    def name(self, short: str) -> str:
        """The name of a field; of the mask for the empty one."""
        return f"{self.key}_{short}" if short else self.key

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """All fields by name, those for readers first."""
        rows = (*_SHARED, *(_OF_PAIRS if self.of_pairs else _OF_ORIGINALS))
        specs = {self.name(short): FieldSpec(kind, text, options) for short, kind, text, options in rows}
        if self.of_pairs:
            specs[self.name("error")] = FieldSpec(fo.StringField, "Why this pair could not be compared", internal=True)
            specs[self.name("provenance")] = FieldSpec(
                fo.StringField, "Hash of both files and all settings; lets a re-run skip the pair", internal=True
            )
        return specs

    def declare(self, samples: foc.SampleCollection, info: Mapping[str, Any]) -> None:
        """Declares the fields, puts them in the sidebar, and tells the App what the masks mean."""
        declare_fields(samples, self.specs, dict(info))
        show_in_sidebar(samples, *readable_and_internal(self.specs))
        dataset = samples._dataset
        dataset.mask_targets = {**dataset.mask_targets, self.key: MASK_TARGETS}
        dataset.save()


@dataclass(frozen=True)
class Matched:
    """The outcome of a pair, or why there is none, with the provenance to store."""

    row: PairRow
    outcome: PairOutcome | str
    provenance: str | None


def write_matches(pairs: fo.Dataset, fields: MatchFields, store: MaskStore, found: Sequence[Matched]) -> None:
    """Writes outcomes to both slices.

    Args:
        pairs: the pair dataset, whose fields are declared.
        fields: the fields of the key.
        store: where masks go, named after the samples of the pair dataset.
        found: the outcomes; a failure clears what an earlier run left.
    """
    rows: list[tuple[str, str, dict[str, Any]]] = []
    for matched in found:
        for side, values in zip(SLICES, _sides(fields, store, matched), strict=True):
            member = getattr(matched.row, side)
            rows.append((member.id, member.id, values))
    write_items(pairs, Place(), rows)


def _sides(fields: MatchFields, store: MaskStore, matched: Matched) -> tuple[dict[str, Any], dict[str, Any]]:
    blank = dict.fromkeys(fields.specs)
    if isinstance(matched.outcome, str):
        failed = {**blank, fields.name("error"): matched.outcome}
        return failed, dict(failed)
    outcome, row = matched.outcome, matched.row
    shared = {
        **blank,
        **{fields.name(name): _plain(outcome.scores.get(name)) for name in _SCORES},
        fields.name("score"): float(outcome.score),
        fields.name("verdict"): MATCHED if outcome.match else UNMATCHED,
        fields.name("no_common_region"): bool(outcome.no_common_region),
        fields.name("provenance"): matched.provenance,
    }
    instances = [fo.Instance() for _ in outcome.lines]
    sides = []
    for member, mask, columns in ((row.source, outcome.mask_a, (0, 1)), (row.target, outcome.mask_b, (2, 3))):
        labels = {
            fields.key: stored_mask(store, member.id, full_size(mask, image_size(member.filepath))),
            fields.name("points"): _points(outcome.lines, columns, instances),
        }
        sides.append({**shared, **labels})
    return sides[0], sides[1]


def stored_mask(store: MaskStore, name: str, mask: np.ndarray) -> dict[str, Any]:
    """Writes a ``(H, W)`` bool mask of the image's size; the label as the database keeps it."""
    return fo.Segmentation(mask_path=str(store.write(name, mask))).to_dict()


def mask_paths(pairs: fo.Dataset, fields: MatchFields) -> dict[str, str | None]:
    """The mask file of each sample of a pair dataset."""
    return dict(zip(*pairs.select_group_slices().values(["id", f"{fields.key}.mask_path"]), strict=True))


def _points(lines: np.ndarray, columns: tuple[int, int], instances: Sequence[fo.Instance]) -> dict[str, Any]:
    points = [
        fo.Keypoint(
            label=str(rank + 1),
            points=[[float(line[columns[0]]), float(line[columns[1]])]],
            confidence=[float(line[4])],
            instance=instances[rank],
        )
        for rank, line in enumerate(lines)
    ]
    return fo.Keypoints(keypoints=points).to_dict()


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)
