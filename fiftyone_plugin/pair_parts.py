"""What evaluations split pairs by: the category, and how far the viewpoints of both images are apart."""

from collections.abc import Sequence

import fiftyone as fo
import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from ..brain.pair_sampling import AZIMUTH_BINS, azimuth_difference
from .pair_sources import azimuth_bins, readable_path
from .pairs import DIFFERENCE, PairRow, flat_pairs


def pair_categories(samples: foc.SampleCollection, rows: Sequence[PairRow], field: str) -> dict[str, str]:
    """The categories of pairs, by ``pair_id``, as a field of their sources has them; empty where it has none.

    Args:
        samples: the pair dataset or a view of it.
        rows: its pairs.
        field: text, number, truth value or ``Classification``.

    Raises:
        ConfigError: there is no such field.
    """
    flat = flat_pairs(samples)
    values = dict(zip(*flat.values(["id", readable_path(flat, field)]), strict=True))
    found = {row.pair_id: values[row.source.id] for row in rows}
    return {pair_id: "" if value is None else str(value) for pair_id, value in found.items()}


def pair_azimuths(
    samples: foc.SampleCollection, rows: Sequence[PairRow], azimuth: str | None, difference: str | None
) -> dict[str, int | None] | None:
    """How far the viewpoints of pairs are apart, in eighths of a turn from 0 to 4, by ``pair_id``.

    Args:
        samples: the pair dataset or a view of it.
        rows: its pairs.
        azimuth: field with the viewpoint of each image, copied from the original samples: whole numbers from 0 to 7 are
            eighths of a turn, all others degrees.
        difference: field of the pairs with the difference; None takes ``azimuth_difference`` where there is one.

    Returns:
        None where no field says anything.

    Raises:
        ConfigError: both are given, a field cannot be used, or a difference is none.
    """
    if azimuth is not None and difference is not None:
        raise ConfigError("azimuth and azimuth_difference each say how far viewpoints are apart; give one of them")
    flat = flat_pairs(samples)
    if azimuth is not None:
        bins = dict(zip(flat.values("id"), azimuth_bins(flat, azimuth), strict=True))
        return {row.pair_id: _apart(bins[row.source.id], bins[row.target.id]) for row in rows}
    if difference is None and not isinstance(flat.get_field(DIFFERENCE), fo.IntField | fo.FloatField):
        return None
    name = difference or DIFFERENCE
    if not isinstance(flat.get_field(name), fo.IntField | fo.FloatField):
        raise ConfigError(f"azimuth_difference={name!r} is no field of numbers of dataset {samples._dataset.name!r}")
    values = dict(zip(*flat.values(["id", name]), strict=True))
    return {row.pair_id: _checked(values[row.source.id], name, row.pair_id) for row in rows}


def _apart(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else azimuth_difference(one, other)


def _checked(value: float | None, name: str, pair_id: str) -> int | None:
    if value is None:
        return None
    if value != int(value) or not 0 <= value <= AZIMUTH_BINS // 2:
        raise ConfigError(
            f"{name}={value!r} of pair {pair_id!r} is no difference of viewpoints: whole eighths of a turn, from 0 to"
            f" {AZIMUTH_BINS // 2}"
        )
    return int(value)
