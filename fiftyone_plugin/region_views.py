"""Looking at the hierarchy of regions: one level of it in the grid, or as patches."""

from typing import Any

import fiftyone.core.collections as foc
from fiftyone import ViewField

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .region_fields import RegionFields, region_info

# In place of a number: every region, or those that hold no smaller one.
ALL, SMALLEST = "all", "smallest"


def show_region_level(
    samples: foc.SampleCollection,
    field: str = "regions",
    level: int | str = 1,
    *,
    min_saliency: float | None = None,
    as_patches: bool = False,
) -> foc.SampleCollection:
    """The view that shows one level of the hierarchy, and of the other levels nothing.

    Args:
        samples: a dataset or view of images.
        field: regions of :func:`compute_claid_regions`.
        level: 1 for the parts of the whole image, 2 for their parts ...; ``"smallest"`` for regions that hold no
            smaller one, ``"all"`` for every region.
        min_saliency: only regions of at least this saliency.
        as_patches: one tile per region instead of one per image.

    Raises:
        ConfigError: the field holds no regions, or an option cannot work.
    """
    samples = image_samples(samples)
    region_info(samples, field)
    condition = _level_condition(level)
    if min_saliency is not None:
        salient = ViewField("saliency") >= min_saliency
        condition = salient if condition is None else condition & salient
    view = samples if condition is None else samples.filter_labels(field, condition)
    return view.to_patches(field) if as_patches else view


def region_levels(samples: foc.SampleCollection, field: str) -> dict[int, int]:
    """Number of regions by level."""
    return dict(sorted(samples.count_values(f"{RegionFields(field).labels}.level").items()))


def _level_condition(level: Any) -> Any:
    if level == ALL:
        return None
    if level == SMALLEST:
        return ViewField("n_parts") == 0
    if isinstance(level, bool) or not isinstance(level, int) or level < 1:
        raise ConfigError(f"level={level!r} must be a whole number of at least 1, {SMALLEST!r} or {ALL!r}")
    return ViewField("level") == level
