"""From the map of an image's features to one vector per region: which cells a region covers, and their average.

A map has H × W cells in raster order. Boxes are ``(x1, y1, x2, y2)``, half-open, in pixels of the original upright
image; a weight says how much a cell counts for a region, from 0 (not at all) to 1 (wholly inside).

Source: the region descriptor of CLAID, arXiv:2506.16745; the rectangle rule is that of its published pipeline.
"""

from typing import Literal

import numpy as np
import torch

from ..errors import ConfigError

Pooling = Literal["gem", "mean", "max"]
POOLINGS: tuple[Pooling, ...] = ("gem", "mean", "max")

# An edge this close to that of a cell, in cells, lies on it: boxes often are whole patches, times a ratio.
_SLACK = 1e-6

# Most numbers that the maximum gathers at once (256 MB).
_GATHERED = 1 << 26


def roi_cells(
    boxes: np.ndarray, stride: float | tuple[float, float], map_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The rectangle of map cells that each box touches.

    Starts are rounded down and set to 0 where negative; ends are rounded up and clipped by the map.

    Args:
        boxes: ``(R, 4)``.
        stride: pixels of the image per cell, along both axes or as ``(y, x)``.
        map_hw: H and W.

    Returns:
        ``(R, 4)`` int64 half-open rectangles ``(x1, y1, x2, y2)`` in cells, and ``(R,)`` bool: whether the box has an
        area and a part on the map. The rectangle of a box that has not is empty.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    scaled = boxes / np.array([across, down, across, down])
    finite = np.isfinite(scaled).all(1)
    scaled[~finite] = 0.0
    limit = np.array(map_hw[::-1])
    start = np.clip(np.floor(scaled[:, :2] + _SLACK), 0, limit)
    end = np.clip(np.ceil(scaled[:, 2:] - _SLACK), 0, limit)
    valid = finite & (boxes[:, 2:] > boxes[:, :2]).all(1) & (end > start).all(1)
    cells = np.concatenate([start, end], 1).astype(np.int64)
    cells[~valid] = 0
    return cells, valid


def cell_weights(cells: np.ndarray, map_hw: tuple[int, int]) -> torch.Tensor:
    """Weight 1 for each cell of a rectangle.

    Args:
        cells: ``(R, 4)`` rectangles of :func:`roi_cells`.
        map_hw: H and W.

    Returns:
        ``(R, H·W)`` float32.
    """
    x1, y1, x2, y2 = np.asarray(cells)[:, :, None].transpose(1, 0, 2)
    rows, columns = np.arange(map_hw[0]), np.arange(map_hw[1])
    inside = ((rows >= y1) & (rows < y2))[:, :, None] & ((columns >= x1) & (columns < x2))[:, None]
    return torch.from_numpy(inside.reshape(len(inside), -1).astype(np.float32))


def mask_weights(
    masks: np.ndarray,
    grid_extent_hw: tuple[float, float],
    image_hw: tuple[int, int],
    map_hw: tuple[int, int],
    map_extent_hw: tuple[float, float],
) -> torch.Tensor:
    """The share of each cell that a region's patches cover.

    Both grids start at the image's left upper corner, and either may end before or beyond its other edges. What lies
    beyond does not count: a cell that is half outside of the image and else covered has weight 1.

    Args:
        masks: ``(R, h, w)`` bool, the patches of each region.
        grid_extent_hw: height and width in pixels of the image that the ``h × w`` patches cover.
        image_hw: height and width of the image in pixels.
        map_hw: H and W.
        map_extent_hw: height and width in pixels of the image that the ``H × W`` cells cover.

    Returns:
        ``(R, H·W)`` float32 in [0, 1].
    """
    vertical, horizontal = (
        _covered_shares(map_hw[axis], map_extent_hw[axis], masks.shape[1 + axis], grid_extent_hw[axis], image_hw[axis])
        for axis in (0, 1)
    )
    weights = vertical @ torch.from_numpy(np.asarray(masks, np.float32)) @ horizontal.T
    weights[weights < _SLACK] = 0.0
    return weights.clamp_(max=1.0).flatten(1)


def pool_regions(
    feature_map: torch.Tensor, weights: torch.Tensor, kind: Pooling = "gem", p: float = 3.0
) -> torch.Tensor:
    """One vector per region.

    ``"gem"`` is the generalised mean ``(Σ w f^p / Σ w)^(1/p)``, in which powers and roots keep the sign of what has
    one (the paper's features have none), so that large values count for more than small ones; ``"mean"`` the
    weighted mean; ``"max"`` the maximum over all cells of positive weight. Mean and GeM are one matrix product.

    Args:
        feature_map: ``(H, W, C)``.
        weights: ``(R, H·W)``, on any device.
        kind: how to pool.
        p: exponent of GeM.

    Returns:
        ``(R, C)`` float32 on the map's device; a region without any weight has zeros.

    Raises:
        ConfigError: ``kind`` is unknown.
    """
    if kind not in POOLINGS:
        raise ConfigError(f"pooling={kind!r} is unknown; use one of {', '.join(POOLINGS)}")
    features = feature_map.float().flatten(0, 1)
    weights = weights.to(features.device, torch.float32)
    if kind == "max":
        return _max(features, weights > 0)
    total = weights.sum(1, keepdim=True)
    shares = weights / total.clamp(min=torch.finfo(torch.float32).tiny)
    if kind == "mean":
        return shares @ features
    return _power(shares @ _power(features, p), 1 / p)


def _power(values: torch.Tensor, exponent: float) -> torch.Tensor:
    return values.sign() * values.abs() ** exponent


def _covered_shares(n_cells: int, extent: float, n_patches: int, covered: float, limit: float) -> torch.Tensor:
    """``(n_cells, n_patches)`` share of each cell, as far as it lies in the image, that each patch covers on one axis.

    Args:
        n_cells, extent: the map: number of cells and pixels they span.
        n_patches, covered: the same of the patch grid.
        limit: pixels of the image.
    """
    cells = np.minimum(np.arange(n_cells + 1) * (extent / n_cells), limit)
    patches = np.minimum(np.arange(n_patches + 1) * (covered / n_patches), limit)
    low = np.maximum(cells[:-1, None], patches[None, :-1])
    high = np.minimum(cells[1:, None], patches[None, 1:])
    length = np.diff(cells)[:, None]
    shares = np.divide(np.clip(high - low, 0, None), length, out=np.zeros_like(low), where=length > 0)
    return torch.from_numpy(shares.astype(np.float32))


def _max(features: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """``(R, C)`` maxima of ``(n, C)`` features over the cells of each region, ``(R, n)`` bool."""
    counts = inside.sum(1)
    longest = int(counts.max()) if len(counts) else 0
    if not longest:
        return features.new_zeros(len(inside), features.shape[1])
    cells = inside.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :longest]
    # Shorter lists are filled up with their first cell, which a maximum does not mind.
    beyond = torch.arange(longest, device=cells.device) >= counts[:, None]
    cells = torch.where(beyond, cells[:, :1], cells)
    rows = max(1, _GATHERED // (longest * features.shape[1]))
    pooled = torch.cat([features[chunk].amax(1) for chunk in cells.split(rows)])
    return pooled * (counts > 0)[:, None]
