"""The size at which CLAID looks at an image, and the pixel boxes of regions of patches."""

from typing import get_args

import numpy as np

from ..errors import ConfigError
from .options import BoxMode

# Images whose short side is hardly longer than the wanted one, or shorter, are used as they are.
_SPARED = 5


def working_size(
    image_hw: tuple[int, int],
    *,
    short_side: int = 360,
    long_side: int = 800,
    patch: int = 8,
    enlarge: bool = False,
) -> tuple[int, int, int, int]:
    """The size that an image is resized to, and its patch grid.

    The short side becomes ``short_side``, or less where the long one would exceed ``long_side``. An image with a short
    side of at most ``short_side - 5`` pixels stays as it is, whatever its long side, unless it is to be enlarged. What
    does not fill a whole patch at the right and at the bottom is cropped.

    Args:
        image_hw: height and width of the upright image in pixels.
        short_side: wanted length of the short side in pixels.
        long_side: greatest length of the long side in pixels.
        patch: side of a patch in pixels.
        enlarge: give small images that size too, so that they have as many patches as others.

    Returns:
        height and width after resizing, in pixels, and height and width of the grid, in patches.

    Raises:
        ConfigError: a side or ``patch`` is not positive, or the long side is shorter than the short one.
    """
    if not 0 < short_side <= long_side or patch < 1:
        raise ConfigError(
            f"short_side={short_side}, long_side={long_side}, patch={patch}: use positive numbers of pixels, and a "
            "long_side of at least short_side"
        )
    short, long = sorted(image_hw)
    if enlarge or short > short_side - _SPARED:
        new_short, new_long = short_side, short_side * long // short
        if new_long > long_side:
            new_short, new_long = max(1, long_side * new_short // new_long), long_side
        short, long = new_short, new_long
    height, width = (short, long) if image_hw[0] <= image_hw[1] else (long, short)
    return height, width, height // patch, width // patch


def region_boxes(
    masks: np.ndarray, image_hw: tuple[int, int], resized_hw: tuple[int, int], patch: int, mode: BoxMode = "exact"
) -> np.ndarray:
    """The boxes of regions, in pixels of the original upright image.

    Args:
        masks: ``(R, h, w)`` bool patches of every region, none of which is empty.
        image_hw: height and width of the original image.
        resized_hw: height and width that it was resized to, before it was cropped to whole patches.
        patch: side of a patch in pixels of the resized image.
        mode: ``"exact"`` boxes hold all pixels of the region's patches and end at the image's edges;
            ``"reference"`` boxes are those of the authors' program, see :func:`reference_boxes`.

    Returns:
        ``(R, 4)`` float64 ``(x1, y1, x2, y2)``, half-open.

    Raises:
        ConfigError: ``mode`` is unknown.
    """
    if mode not in get_args(BoxMode):
        raise ConfigError(f"box_mode={mode!r} is unknown; use one of {', '.join(get_args(BoxMode))}")
    extents = patch_extents(masks)
    height, width = image_hw
    scale_yx = height / resized_hw[0], width / resized_hw[1]
    if mode == "reference":
        return reference_boxes(extents, scale_yx[0], patch)
    boxes = unclipped_boxes(extents, scale_yx, patch)
    return np.clip(boxes, 0, [width, height, width, height])


def patch_extents(masks: np.ndarray) -> np.ndarray:
    """First and last patches of regions: ``(R, h, w)`` bool to ``(R, 4)`` int64 ``(xmin, ymin, xmax, ymax)``."""
    sides = [np.any(masks, axis) for axis in (1, 2)]
    first = [lines.argmax(1) for lines in sides]
    last = [lines.shape[1] - 1 - lines[:, ::-1].argmax(1) for lines in sides]
    return np.stack(first + last, 1)


def unclipped_boxes(extents: np.ndarray, scale_yx: tuple[float, float], patch: int) -> np.ndarray:
    """Exact boxes that may end beyond the image, by a rounding error at most.

    Args:
        extents: ``(R, 4)`` of :func:`patch_extents`.
        scale_yx: original pixels per resized pixel, down and across.
        patch: side of a patch in resized pixels.

    Returns:
        ``(R, 4)`` float64 ``(x1, y1, x2, y2)``, half-open.
    """
    scale_y, scale_x = scale_yx
    return (extents + np.array([0, 0, 1, 1])) * patch * np.array([scale_x, scale_y, scale_x, scale_y])


def reference_boxes(extents: np.ndarray, scale: float, patch: int) -> np.ndarray:
    """The boxes of the authors' program, whose far edges lie at ``max * (patch + 1)`` instead of ``(max + 1) * patch``.

    They end too early near the origin and too late far from it, beyond the image even. One scale serves both axes.
    Whole pixels; arguments and result as in :func:`unclipped_boxes`.
    """
    return np.trunc(extents * np.array([patch, patch, patch + 1, patch + 1]) * scale)
