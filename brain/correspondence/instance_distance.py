"""How far apart two views of an object are as a whole: the instance matching distance, with masks and without.

Source: Zhang et al., "Telling Left from Right" (CVPR 2024), which compares an image and its mirror image with another
image in this way to find out which of the two faces the same way. The paper sums over the object; its release averages.
"""

from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from ..errors import ConfigError
from .grids import as_region

Reduction = Literal["mean", "sum"]
REDUCTIONS: tuple[Reduction, ...] = ("mean", "sum")

# Grid on which the release compares the views of a pair; ours are compared on their own grids.
RELEASED_RESOLUTION = 64

# Products at a time: bounds the memory at large grids.
_BLOCK = 2048


def instance_distance(
    source: torch.Tensor,
    target: torch.Tensor,
    source_region: np.ndarray | torch.Tensor | None = None,
    target_region: np.ndarray | torch.Tensor | None = None,
    *,
    reduce: Reduction = "mean",
) -> float:
    """Instance matching distance: how far the cells of the source are from what is nearest to them in the target.

    Args:
        source: ``(h, w, C)`` descriptors, usually of unit length.
        target: ``(h', w', C)``.
        source_region: ``(h, w)`` bool: the object; None takes all cells.
        target_region: ``(h', w')`` bool: where to look for it; None looks everywhere, as the published test of poses
            does.
        reduce: over the cells of the source, ``"mean"`` as released or ``"sum"`` as in the paper, which grows with the
            object.

    Returns:
        mean or sum of Euclidean distances; NaN where a region is empty.

    Raises:
        ConfigError: a region does not fit its features, or ``reduce`` is unknown.
    """
    if reduce not in REDUCTIONS:
        raise ConfigError(f"imd_reduce={reduce!r} is unknown; use one of {', '.join(REDUCTIONS)}")
    queries, keys = _inside(source, source_region), _inside(target, target_region)
    if not len(queries) or not len(keys):
        return float("nan")
    distances = (queries - keys[_nearest(queries, keys)]).norm(dim=1)
    return float(distances.sum() if reduce == "sum" else distances.mean())


def mutual_distance(
    source: torch.Tensor,
    target: torch.Tensor,
    source_region: np.ndarray | torch.Tensor | None = None,
    target_region: np.ndarray | torch.Tensor | None = None,
) -> float:
    """The criterion that needs no masks: mean distance between the cells that are each other's nearest.

    Where the background outweighs the object, the background decides.

    Args and errors as of :func:`instance_distance`; regions are meant to leave out padding.

    Returns:
        mean Euclidean distance; NaN where a region is empty.
    """
    queries, keys = _inside(source, source_region), _inside(target, target_region)
    if not len(queries) or not len(keys):
        return float("nan")
    there = _nearest(queries, keys)
    back = _nearest(keys, queries)
    mutual = back[there] == torch.arange(len(queries), device=there.device)
    # Equal rivals may make every couple miss each other.
    return float((queries - keys[there])[mutual].norm(dim=1).mean()) if mutual.any() else float("nan")


def resampled(features: torch.Tensor, size: int) -> torch.Tensor:
    """Descriptors on a square grid of another size, bilinear and not brought to unit length again, as released.

    Args:
        features: ``(h, w, C)``.
        size: cells along each side.

    Returns:
        ``(size, size, C)``.
    """
    planes = features.permute(2, 0, 1)[None]
    enlarged = functional.interpolate(planes, (size, size), mode="bilinear", align_corners=False)
    return enlarged[0].permute(1, 2, 0).contiguous()


def resampled_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """A mask of the whole canvas on a square grid, each cell taking the pixel at its upper left corner, as released.

    Args:
        mask: ``(H, W)`` bool.
        size: cells along each side.

    Returns:
        ``(size, size)`` bool.
    """
    planes = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
    return functional.interpolate(planes, (size, size), mode="nearest")[0, 0].numpy() > 0.5


def _inside(features: torch.Tensor, region: np.ndarray | torch.Tensor | None) -> torch.Tensor:
    height, width = features.shape[:2]
    flat = features.flatten(0, 1)
    return flat if region is None else flat[as_region(region, (height, width), features.device)]


def _nearest(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """``(n,)`` the nearest key of each query, by q·k - |k|²/2; distances themselves are then taken exactly."""
    bias = keys.square().sum(dim=1) / 2
    found = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    for start in range(0, len(queries), _BLOCK):
        block = torch.addmm(bias, queries[start : start + _BLOCK], keys.T, beta=-1)
        found[start : start + _BLOCK] = block.argmax(dim=1)
    return found
