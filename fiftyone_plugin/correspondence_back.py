"""What the pairs of an original sample say of it: its worst error, number of swaps and best partner."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.view as fov

from .correspondence_fields import METHOD, SUSPICION, CorrespondenceFields, gravest
from .dataset_io import FieldSpec, declare_fields, image_samples, readable_and_internal, show_in_sidebar
from .item_fields import Place, write_items
from .pair_job import write_to_originals
from .pairs import PairInfo, PairRow, read_pairs
from .result_keys import check_result_key

_READ = ("score", "swaps", "worst", "worst_type", SUSPICION, "provenance")

_SPECS: tuple[tuple[str, type, str], ...] = (
    ("worst", fo.FloatField, "Largest distance of a keypoint from its true place in any pair of this image"),
    ("worst_type", fo.StringField, "The gravest of the error types in any pair of this image"),
    ("swaps", fo.IntField, "Keypoints of all pairs of this image that were found at another one's place"),
    (SUSPICION, fo.FloatField, "Highest suspicion of a match in any pair of this image, from 0 to 1"),
    ("partner", fo.StringField, "Id of the sample whose matches with this one are the most similar"),
    ("pairs", fo.IntField, "Number of the pairs of this image that were matched"),
)


def write_back_summaries(
    pairs: fo.Dataset, info: PairInfo, fields: CorrespondenceFields, origin_info: Mapping[str, Any]
) -> list[str]:
    """Writes what all pairs of a dataset say of the original samples.

    Args:
        pairs: the pair dataset.
        info: whose samples they are.
        fields: the fields of the pairs.
        origin_info: stored with the fields of the originals.

    Returns:
        Sentences on what could not be written.
    """
    rows = read_pairs(pairs, [fields.name(short) for short in _READ])
    specs = {fields.name(short): FieldSpec(kind, text) for short, kind, text in _SPECS}

    def check(origin: fo.Dataset) -> None:
        check_result_key(origin, fields.key, METHOD, specs)

    def write(origin: fo.Dataset, sides: tuple[bool, ...]) -> None:
        declare_fields(origin, specs, {**origin_info, "pairs": pairs.name})
        show_in_sidebar(origin, *readable_and_internal(specs))
        write_items(origin, Place(), _values(origin, fields, _summaries(rows, fields, sides)))

    return write_to_originals(info, check, write)


@dataclass
class _Summary:
    """The pairs of one original sample that were matched, and those that could not be."""

    matched: int = 0
    worst: float | None = None
    worst_type: str | None = None
    swaps: int | None = None
    suspicion: float | None = None
    partner: str | None = None
    best: float = float("-inf")

    def add(self, values: Mapping[str, Any], partner: str) -> None:
        """Takes in a pair by its values under their short names."""
        self.matched += 1
        self.worst = max((one for one in (self.worst, values["worst"]) if one is not None), default=None)
        self.worst_type = gravest(one for one in (self.worst_type, values["worst_type"]) if one is not None)
        if values["swaps"] is not None:
            self.swaps = (self.swaps or 0) + values["swaps"]
        self.suspicion = max((one for one in (self.suspicion, values[SUSPICION]) if one is not None), default=None)
        if values["score"] is not None and values["score"] > self.best:
            self.best, self.partner = values["score"], partner


def _summaries(rows: list[PairRow], fields: CorrespondenceFields, sides: tuple[bool, ...]) -> dict[str, _Summary]:
    """Per original sample; ``sides`` says which members of a pair are of this origin, True being the target."""
    found: dict[str, _Summary] = {}
    for row in rows:
        values = {short: row.values[fields.name(short)] for short in _READ}
        for is_target in sides:
            own, other = (row.target, row.source) if is_target else (row.source, row.target)
            summary = found.setdefault(own.origin_id, _Summary())
            if values["provenance"] is not None:
                summary.add(values, other.origin_id)
    return found


def _values(
    origin: fo.Dataset, fields: CorrespondenceFields, summaries: Mapping[str, _Summary]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    view = fov.make_optimized_select_view(image_samples(origin), list(summaries))
    for sample_id in view.values("id"):
        summary = summaries[sample_id]
        values = {
            "worst": summary.worst,
            "worst_type": summary.worst_type,
            "swaps": summary.swaps,
            SUSPICION: summary.suspicion,
            "partner": summary.partner,
            "pairs": summary.matched,
        }
        yield sample_id, sample_id, {fields.name(short): value for short, value in values.items()}
