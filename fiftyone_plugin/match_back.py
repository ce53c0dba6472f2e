"""What the pairs of an original sample say of it: mask, score and partner of its best pair."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import fiftyone.core.view as fov

from ..brain.errors import ImageError
from .dataset_io import image_samples
from .item_fields import Place, write_items
from .mask_store import MaskStore, read_mask
from .match_fields import MATCHED, MatchFields, mask_paths, stored_mask
from .pair_job import write_to_originals
from .pairs import Member, PairInfo, PairRow, read_pairs
from .result_keys import check_result_key

_SHARED = ("score", "verdict", "no_common_region")


def write_back_best(
    pairs: fo.Dataset, info: PairInfo, fields: MatchFields, origin_info: Mapping[str, Any]
) -> list[str]:
    """Writes what all pairs of a dataset say of the original samples.

    Args:
        pairs: the pair dataset.
        info: whose samples they are.
        fields: the fields of the pairs.
        origin_info: stored with the fields of the originals; ``method`` names their writer.

    Returns:
        Sentences on what could not be written.
    """
    rows = read_pairs(pairs, [fields.name(short) for short in (*_SHARED, "error")])
    masks = mask_paths(pairs, fields)
    own = MatchFields(fields.key, of_pairs=False)

    def check(origin: fo.Dataset) -> None:
        check_result_key(origin, fields.key, origin_info["method"], own.specs)

    def write(origin: fo.Dataset, sides: tuple[bool, ...]) -> None:
        own.declare(origin, {**origin_info, "pairs": pairs.name})
        write_items(origin, Place(), _values(origin, own, _summaries(rows, fields, sides), masks))

    return write_to_originals(info, check, write)


@dataclass
class _Summary:
    """The pairs of one original sample, so far as they have an outcome."""

    matches: int = 0
    best: PairRow | None = None
    own: Member | None = None
    rank: tuple[bool, float] = field(default=(False, -1.0))


def _summaries(rows: list[PairRow], fields: MatchFields, sides: tuple[bool, ...]) -> dict[str, _Summary]:
    """Per original sample; ``sides`` says which members of a pair are of this origin, True being the target."""
    score, verdict, error = fields.name("score"), fields.name("verdict"), fields.name("error")
    found: dict[str, _Summary] = {}
    for row in rows:
        if row.values[score] is None and row.values[error] is None:
            continue
        for member in [row.target if side else row.source for side in sides]:
            summary = found.setdefault(member.origin_id, _Summary())
            if row.values[score] is None:
                continue
            match = row.values[verdict] == MATCHED
            summary.matches += match
            if (match, row.values[score]) > summary.rank:
                summary.best, summary.own, summary.rank = row, member, (match, row.values[score])
    return found


def _values(
    origin: fo.Dataset, fields: MatchFields, summaries: Mapping[str, _Summary], masks: Mapping[str, str]
) -> Generator[tuple[str, str, Mapping[str, Any]], None, None]:
    store = MaskStore(origin, fields.key)
    view = fov.make_optimized_select_view(image_samples(origin), list(summaries))
    for sample_id in view.values("id"):
        summary = summaries[sample_id]
        values: dict[str, Any] = dict.fromkeys(fields.specs)
        if summary.best is not None and summary.own is not None:
            row, own = summary.best, summary.own
            other = row.target if own is row.source else row.source
            values |= {fields.name(short): row.values[fields.name(short)] for short in _SHARED}
            values[fields.key] = _copied(store, sample_id, masks.get(own.id))
            values[fields.name("partner")] = other.origin_id
            values[fields.name("pairs")] = summary.matches
        yield sample_id, sample_id, values


def _copied(store: MaskStore, sample_id: str, path: str | None) -> dict[str, Any] | None:
    """The mask of a pair as one of the original; None where its file is gone."""
    try:
        return stored_mask(store, sample_id, read_mask(path)) if path else None
    except ImageError:
        return None
