"""Foreground masks that the caller already has: boxes and instance masks of a label, drawn onto the image."""

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError


def boxes_to_mask(boxes: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Union of boxes, with exact area coverage on pixels that a box edge cuts.

    Args:
        boxes: ``(N, 4)`` boxes ``(x, y, width, height)`` in pixels of the image; parts outside it are cut off.
        image_hw: height and width of the image.

    Returns:
        ``(H, W)`` float32 in [0, 1]; all 0 without boxes.
    """
    return instances_to_mask(boxes, [None] * len(boxes), image_hw)


def instances_to_mask(boxes: np.ndarray, masks: Sequence[np.ndarray | None], image_hw: tuple[int, int]) -> np.ndarray:
    """Union of instances: where an instance has a mask, that; otherwise its whole box.

    Args:
        boxes: ``(N, 4)`` boxes ``(x, y, width, height)`` in pixels of the image; parts outside it are cut off.
        masks: N box-sized masks (any resolution, stretched over the box; bool, integers with 0 as background, or
            floats in [0, 1]) or None.
        image_hw: height and width of the image.

    Returns:
        ``(H, W)`` float32 in [0, 1], the largest value of all instances; all 0 without instances.

    Raises:
        ConfigError: the number of masks is not that of the boxes, or a box is not finite.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    if len(boxes) != len(masks):
        raise ConfigError(f"{len(boxes)} boxes but {len(masks)} masks; give one mask, or None, per box")
    if not np.isfinite(boxes).all():
        raise ConfigError(
            f"box {int(np.argmin(np.isfinite(boxes).all(1)))} has NaN or infinite numbers; repair the label"
        )
    union = np.zeros(image_hw, np.float32)
    for box, mask in zip(boxes, masks, strict=True):
        _draw(union, box, mask)
    return union


def instance_mask(box: np.ndarray, mask: np.ndarray | None, image_hw: tuple[int, int]) -> np.ndarray:
    """One instance on the whole image; arguments and result as in :func:`instances_to_mask`."""
    return instances_to_mask(np.asarray(box)[None], [mask], image_hw)


def _draw(canvas: np.ndarray, box: np.ndarray, mask: np.ndarray | None) -> None:
    """Takes the maximum of the canvas and one instance, touching only the pixels under its box."""
    x, y, width, height = box
    rows, vertical = _cover(y, height, canvas.shape[0])
    columns, horizontal = _cover(x, width, canvas.shape[1])
    if not rows.size or not columns.size:
        return
    patch = np.outer(vertical, horizontal)
    if mask is not None and mask.size:
        patch = np.where(patch > 0, _sample(_as_soft(mask), (rows + 0.5 - y) / height, (columns + 0.5 - x) / width), 0)
    window = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.maximum(window, patch, out=window)


def _cover(start: float, length: float, n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixels that an interval touches along one axis, and the share of each that it covers."""
    stop = min(start + length, n_pixels)
    start = max(start, 0.0)
    pixels = np.arange(int(np.floor(start)), int(np.ceil(stop)) if stop > start else 0)
    share = np.minimum(pixels + 1, stop) - np.maximum(pixels, start)
    return pixels, share.astype(np.float32)


def _as_soft(mask: np.ndarray) -> np.ndarray:
    mask = np.asarray(mask)
    return mask.astype(np.float32) if np.issubdtype(mask.dtype, np.floating) else (mask != 0).astype(np.float32)


def _sample(mask: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Nearest value of a mask at relative positions (v down, u across); pixel centres are half-way."""
    row = np.clip((v * mask.shape[0]).astype(int), 0, mask.shape[0] - 1)
    column = np.clip((u * mask.shape[1]).astype(int), 0, mask.shape[1] - 1)
    return mask[row[:, None], column[None, :]]
