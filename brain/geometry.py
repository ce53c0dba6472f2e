"""Where an image lands on an encoder's canvas, and how masks and patch maps travel between the two."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image

from .errors import ConfigError

ResizeMode = Literal["squash", "letterbox", "aspect"]
RESIZE_MODES: tuple[ResizeMode, ...] = ("squash", "letterbox", "aspect")

# `aspect` stretches images that are longer than this, so that a 20,000×10 strip does not become a 1,000-patch row.
MAX_ASPECT = 4.0


@dataclass(frozen=True)
class Geometry:
    """The placement of one image on its canvas; all numbers are pixels.

    Attributes:
        image_hw: height and width of the upright image.
        canvas_hw: height and width of the encoder input, multiples of ``patch``.
        content: ``(top, left, height, width)`` of the picture on the canvas; the rest is padding.
        patch: side of one patch.
    """

    image_hw: tuple[int, int]
    canvas_hw: tuple[int, int]
    content: tuple[int, int, int, int]
    patch: int

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Height and width of the patch grid, in patches."""
        return self.canvas_hw[0] // self.patch, self.canvas_hw[1] // self.patch


def plan_geometry(image_hw: tuple[int, int], size: int, patch: int, mode: ResizeMode = "squash") -> Geometry:
    """Places an image on a canvas.

    Args:
        image_hw: height and width of the image in pixels.
        size: side of the square canvas in pixels, a multiple of ``patch``; for ``"aspect"`` the side of a square of
            about the same area.
        patch: side of a patch in pixels.
        mode: ``"squash"`` ignores the aspect ratio (the published FFA pipeline), ``"letterbox"`` keeps it and pads to
            a square, ``"aspect"`` keeps it (to the nearest whole patch, up to 1:4) without padding.

    Raises:
        ConfigError: ``size`` is not a positive multiple of ``patch``, or ``mode`` is unknown.
    """
    if size <= 0 or size % patch:
        below = max(patch, size // patch * patch)
        raise ConfigError(f"size={size} is not a multiple of the patch size {patch}; use {below} or {below + patch}")
    height, width = image_hw
    if mode == "squash":
        return Geometry(image_hw, (size, size), (0, 0, size, size), patch)
    if mode == "letterbox":
        scale = size / max(height, width)
        h, w = max(1, round(height * scale)), max(1, round(width * scale))
        return Geometry(image_hw, (size, size), ((size - h) // 2, (size - w) // 2, h, w), patch)
    if mode == "aspect":
        root = float(np.sqrt(np.clip(height / width, 1 / MAX_ASPECT, MAX_ASPECT)))
        h, w = (max(1, round(size * factor / patch)) * patch for factor in (root, 1 / root))
        return Geometry(image_hw, (h, w), (0, 0, h, w), patch)
    raise ConfigError(f"resize={mode!r} is unknown; use one of {', '.join(RESIZE_MODES)}")


def image_to_canvas(image: np.ndarray, geometry: Geometry) -> torch.Tensor:
    """Resizes an image onto its canvas (bicubic, antialiased); padding is mid grey.

    Args:
        image: ``(H, W, 3)`` uint8. It may be decoded at reduced scale: only its aspect need agree with the geometry.

    Returns:
        ``(3, H', W')`` float32 in [0, 1], ``H', W'`` being the canvas.
    """
    top, left, height, width = geometry.content
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
    if (height, width) == geometry.canvas_hw:
        canvas = np.asarray(resized)
    else:
        canvas = np.full((*geometry.canvas_hw, 3), 127, np.uint8)
        canvas[top : top + height, left : left + width] = resized
    return torch.from_numpy(canvas.transpose(2, 0, 1).astype(np.float32) / 255.0)


def mask_to_patches(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Exact share of each patch that a mask covers, on the geometry of the encoder input; padding counts as 0.

    Args:
        mask: ``(..., H, W)`` values in [0, 1], of the image or of a reduced copy of it; leading axes are objects.

    Returns:
        ``(..., h, w)`` float32 coverage in [0, 1] on the patch grid.
    """
    top, left, height, width = geometry.content
    rows, columns = geometry.grid_hw
    vertical = _overlap(rows, geometry.patch, top, height, mask.shape[-2])
    horizontal = _overlap(columns, geometry.patch, left, width, mask.shape[-1])
    coverage = vertical @ mask.astype(np.float32) @ horizontal.T
    return np.clip(coverage, 0.0, 1.0, out=coverage)


def patches_to_mask(patch_map: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Bilinear enlargement of a patch map to the pixels of the image (patch centres keep their values).

    Args:
        patch_map: ``(h, w)`` values on the patch grid.

    Returns:
        ``(H, W)`` float32 of the size of the image.
    """
    top, left, height, width = geometry.content
    canvas = Image.fromarray(patch_map.astype(np.float32)).resize(geometry.canvas_hw[::-1], Image.Resampling.BILINEAR)
    cropped = canvas.crop((left, top, left + width, top + height))
    return np.asarray(cropped.resize(geometry.image_hw[::-1], Image.Resampling.BILINEAR))


def points_to_canvas(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Where points of the image lie on the canvas.

    Args:
        points: ``(..., 2)`` ``(x, y)`` in pixels of the image, (0, 0) being the corner of its first pixel.

    Returns:
        ``(..., 2)`` float64 ``(x, y)`` in pixels of the canvas.
    """
    offset, scale = _content_xy(geometry)
    return np.asarray(points, np.float64) * scale + offset


def points_to_image(points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """The inverse of :func:`points_to_canvas`; points on the padding land outside of the image."""
    offset, scale = _content_xy(geometry)
    return (np.asarray(points, np.float64) - offset) / scale


def _content_xy(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Left upper corner of the picture on the canvas, and canvas pixels per image pixel, both ``(x, y)``."""
    top, left, height, width = geometry.content
    return np.array([left, top], float), np.array([width / geometry.image_hw[1], height / geometry.image_hw[0]])


def _overlap(n_cells: int, cell: int, start: int, length: int, n_pixels: int) -> np.ndarray:
    """``(n_cells, n_pixels)``: the share of each canvas cell that each image pixel covers along one axis."""
    pixel_edges = start + np.arange(n_pixels + 1) * (length / n_pixels)
    cell_edges = np.arange(n_cells + 1) * cell
    low = np.maximum(cell_edges[:-1, None], pixel_edges[None, :-1])
    high = np.minimum(cell_edges[1:, None], pixel_edges[None, 1:])
    return (np.clip(high - low, 0, None) / cell).astype(np.float32)
