"""Points, cells of a patch grid and masks: how keypoints enter the matching and how its answers leave it.

Cells are numbered in raster order, ``columns * row + column``; points are ``(x, y)``.
"""

from typing import Literal

import numpy as np
import torch

from ..errors import ConfigError
from ..ffa_weights import as_soft_mask, content_coverage
from ..geometry import Geometry, mask_to_patches, points_to_canvas

CellCentre = Literal["middle", "pixel"]
CELL_CENTRES: tuple[CellCentre, ...] = ("middle", "pixel")


def points_to_cells(points: np.ndarray, grid_hw: tuple[int, int], patch: int, *, clip: bool = True) -> np.ndarray:
    """The cell that each point lies in.

    Args:
        points: ``(n, 2)`` in pixels of the canvas, finite.
        grid_hw: height and width of the grid in cells.
        patch: side of a cell in pixels.
        clip: points on the edge of the canvas, or beyond it, belong to the nearest cell. False is the published
            arithmetic, for tests: a point on the right edge spills into the next row, one in the lower right corner
            out of the grid.

    Returns:
        ``(n,)`` int64 numbers of cells.

    Raises:
        ConfigError: a point is not finite.
    """
    points = as_points(points)
    if not np.isfinite(points).all():
        raise ConfigError("a point is not finite; leave out the points that cannot be seen")
    rows, columns = grid_hw
    column, row = np.floor(points / patch).astype(np.int64).T
    if clip:
        column, row = column.clip(0, columns - 1), row.clip(0, rows - 1)
    return columns * row + column


def cells_to_points(places: np.ndarray, patch: int, centre: CellCentre = "middle") -> np.ndarray:
    """The canvas pixels of places on the grid.

    Args:
        places: ``(n, 2)`` column and row, in cells; fractions lie between the centres of cells.
        patch: side of a cell in pixels.
        centre: where a cell has its centre: ``"middle"``, half its side from its corner (GeoAware), or ``"pixel"``,
            half a pixel before that (SphericalMaps).

    Returns:
        ``(n, 2)`` float64 points.

    Raises:
        ConfigError: ``centre`` is unknown.
    """
    if centre not in CELL_CENTRES:
        raise ConfigError(f"cell_centre={centre!r} is unknown; use one of {', '.join(CELL_CENTRES)}")
    offset = patch / 2 - (0.5 if centre == "pixel" else 0.0)
    return np.asarray(places, np.float64) * patch + offset


def cells_to_places(cells: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """``(n, 2)`` int64 column and row of numbered cells."""
    row, column = np.divmod(np.asarray(cells, np.int64), grid_hw[1])
    return np.stack([column, row], axis=-1)


def released_canvas_points(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Points on a letterboxed canvas, with one and the same scale along both axes as in the published evaluation.

    The shorter side of the picture is rounded to whole pixels on the canvas, so that its own scale, which
    :func:`..geometry.points_to_canvas` takes, differs in the last digits: by less than half a pixel at the far edge.

    Args:
        points: ``(n, 2)`` in pixels of the image.
        geometry: a letterboxed placement.

    Returns:
        ``(n, 2)`` float64 points.
    """
    top, left = geometry.content[:2]
    return as_points(points) * (max(geometry.canvas_hw) / max(geometry.image_hw)) + (left, top)


def canvas_cells(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """``(n,)`` int64: the cells that points of the image, ``(n, 2)`` in its pixels, lie in."""
    return points_to_cells(points_to_canvas(points, geometry), geometry.grid_hw, geometry.patch)


def region_cells(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Which cells a mask covers for the larger part; of a mask too thin for that, those that it covers most.

    Args:
        mask: ``(H', W')`` foreground of the image at any scale: bool, integers with 0 as background, or in [0, 1].
        geometry: placement of the image.

    Returns:
        ``(h, w)`` bool, all False only where the mask is.

    Raises:
        ConfigError: the mask cannot be used.
    """
    coverage = mask_to_patches(as_soft_mask(mask), geometry)
    return coverage >= min(0.5, coverage.max()) if coverage.any() else np.zeros(coverage.shape, bool)


def picture_cells(geometry: Geometry) -> np.ndarray:
    """``(h, w)`` bool: which cells show some of the picture, and not padding alone."""
    return content_coverage(geometry) > 0


def as_region(region: np.ndarray | torch.Tensor | None, grid_hw: tuple[int, int], device: torch.device) -> torch.Tensor:
    """A region of a grid as ``(h * w,)`` bool tensor; None is the whole grid.

    Raises:
        ConfigError: it has another shape than the grid.
    """
    if region is None:
        return torch.ones(grid_hw[0] * grid_hw[1], dtype=torch.bool, device=device)
    region = torch.from_numpy(np.ascontiguousarray(region)) if isinstance(region, np.ndarray) else region
    if tuple(region.shape) != tuple(grid_hw):
        raise ConfigError(f"a region of {tuple(region.shape)} cells for a grid of {tuple(grid_hw)}; both must agree")
    return region.to(device, torch.bool).flatten()


def as_points(points: np.ndarray) -> np.ndarray:
    """Points as ``(n, 2)`` float64.

    Raises:
        ConfigError: they have another shape.
    """
    points = np.asarray(points, np.float64)
    if points.size == 0:
        return points.reshape(0, 2)
    if points.ndim != 2 or points.shape[1] != 2:
        raise ConfigError(f"points of shape {points.shape} cannot be used; give (n, 2) pixels x, y")
    return points
