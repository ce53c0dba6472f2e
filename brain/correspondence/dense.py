"""Matches of all cells of an object to another picture, and how far from their start they lead back."""

from dataclasses import dataclass

import numpy as np
import torch

from ..errors import ConfigError
from ..geometry import points_to_image
from .decoding import DecodeConfig, decode
from .features import ImageFeatures
from .grids import as_region, cells_to_places, cells_to_points

# Similarities at a time: bounds the memory at large grids.
_BLOCK = 1024


@dataclass(frozen=True)
class DenseField:
    """Where the n cells of an object are found again.

    Attributes:
        source_cells: ``(n,)`` int64 cells of the source's region, in raster order.
        target_cells: ``(n,)`` int64 the most similar cell of the target's region.
        returned_cells: ``(n,)`` int64 the cell of the source's region most similar to that one.
        similarity: ``(n,)`` float32 cosine of the match.
        source_points: ``(n, 2)`` float64 centres of the cells, ``(x, y)`` in pixels of the source picture.
        target_points: ``(n, 2)`` float64 where they were found, ``(x, y)`` in pixels of the target picture.
        round_trip: ``(n,)`` float64 distance in cells between where one started and where one returned.
    """

    source_cells: np.ndarray
    target_cells: np.ndarray
    returned_cells: np.ndarray
    similarity: np.ndarray
    source_points: np.ndarray
    target_points: np.ndarray
    round_trip: np.ndarray

    def consistent(self, reach: float = 0.0) -> np.ndarray:
        """``(n,)`` bool: whether the round trip ends within ``reach`` cells of its start; 0 is mutual neighbours."""
        return self.round_trip <= reach


def dense_field(
    source: ImageFeatures,
    target: ImageFeatures,
    source_region: np.ndarray | None = None,
    target_region: np.ndarray | None = None,
    *,
    decoding: DecodeConfig | None = None,
) -> DenseField:
    """Matches every cell of an object.

    Args:
        source, target: the described pictures.
        source_region: ``(h, w)`` bool: cells to look for; None takes the foreground of the source.
        target_region: ``(h', w')`` bool: cells to look in; None takes the foreground of the target.
        decoding: how places are read; None takes the most similar cell.

    Raises:
        ConfigError: a region does not fit its picture, or the pictures were described in different ways.
    """
    first = source.foreground() if source_region is None else source_region
    second = target.foreground() if target_region is None else target_region
    inside = as_region(first, source.geometry.grid_hw, source.features.device)
    allowed = as_region(second, target.geometry.grid_hw, target.features.device)
    starts, ends = inside.nonzero()[:, 0], allowed.nonzero()[:, 0]
    queries, keys = source.features.flatten(0, 1)[starts], target.features.flatten(0, 1)[ends]
    if len(starts) and len(ends):
        there, back, peaks = nearest_both_ways(queries, keys)
        found, returned = ends[there], starts[back[there]]
    else:
        starts = found = returned = starts[:0]
        peaks = queries.new_empty(0)
    cells = [one.cpu().numpy() for one in (starts, found, returned)]
    start_places, places, end_places = (
        cells_to_places(cells[0], source.geometry.grid_hw),
        cells_to_places(cells[1], target.geometry.grid_hw).astype(np.float64),
        cells_to_places(cells[2], source.geometry.grid_hw),
    )
    if decoding is not None and decoding.method != "nearest":
        places = _decoded(queries[: len(starts)], target, allowed, decoding)
    return DenseField(
        source_cells=cells[0],
        target_cells=cells[1],
        returned_cells=cells[2],
        similarity=peaks.float().cpu().numpy(),
        source_points=_image_points(start_places, source),
        target_points=_image_points(places, target),
        round_trip=np.linalg.norm(end_places - start_places, axis=1),
    )


def nearest_both_ways(first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The most similar row of the other set for the rows of two sets, from one product.

    Args:
        first: ``(n, C)``, at least one row.
        second: ``(m, C)``, at least one row.

    Returns:
        ``(n,)`` int64 rows of ``second``, ``(m,)`` int64 rows of ``first``, and ``(n,)`` the similarities of the
        former. Of equal rivals the first counts.

    Raises:
        ConfigError: the rows differ in length.
    """
    if first.shape[1] != second.shape[1]:
        raise ConfigError(
            f"source and target have {first.shape[1]} and {second.shape[1]} channels; describe both in the same way"
        )
    there = torch.empty(len(first), dtype=torch.int64, device=first.device)
    peaks = first.new_empty(len(first))
    best = first.new_full((len(second),), -torch.inf)
    back = torch.zeros(len(second), dtype=torch.int64, device=first.device)
    for start in range(0, len(first), _BLOCK):
        block = first[start : start + _BLOCK] @ second.T
        peaks[start : start + _BLOCK], there[start : start + _BLOCK] = block.max(dim=1)
        highest, row = block.max(dim=0)
        better = highest > best
        best[better], back[better] = highest[better], row[better] + start
    return there, back, peaks


def _decoded(queries: torch.Tensor, target: ImageFeatures, allowed: torch.Tensor, decoding: DecodeConfig) -> np.ndarray:
    """``(n, 2)`` column and row at which descriptors are found."""
    height, width = target.geometry.grid_hw
    flat, valid = target.features.flatten(0, 1), allowed.view(height, width)
    places = [np.empty((0, 2), np.float32)]
    for start in range(0, len(queries), _BLOCK):
        similarity = (queries[start : start + _BLOCK] @ flat.T).view(-1, height, width)
        places.append(decode(similarity, decoding, valid).places.float().cpu().numpy())
    return np.concatenate(places)


def _image_points(places: np.ndarray, picture: ImageFeatures) -> np.ndarray:
    return points_to_image(cells_to_points(places, picture.geometry.patch), picture.geometry)
