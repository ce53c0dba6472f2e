"""From a foreground mask to the weight of each patch: coverage, the half rule, and the release's colour trick."""

from typing import Literal

import numpy as np
import torch
from PIL import Image

from .errors import ConfigError
from .geometry import Geometry, mask_to_patches

WeightMode = Literal["hard", "soft"]
WEIGHT_MODES: tuple[WeightMode, ...] = ("hard", "soft")

# Coverages are float32 sums: a patch that is exactly half covered must not pass "more than half" by rounding.
_HALF = 0.5 + 1e-5

# What CarveKit lays under transparent pixels.
_CARVEKIT_GREY = 130.0

_IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def content_coverage(geometry: Geometry) -> np.ndarray:
    """``(h, w)`` float32: the share of each patch that shows the picture and not padding."""
    return mask_to_patches(np.ones((1, 1), np.float32), geometry)


def patch_weights(coverage: np.ndarray, mode: WeightMode = "hard") -> np.ndarray:
    """Weights of the foreground average.

    Args:
        coverage: ``(h, w)`` share of foreground per patch, in [0, 1].
        mode: ``"soft"`` weighs a patch by its coverage; ``"hard"`` takes the patches that are more than half covered,
            or, where an object is too small for that, falls back to the coverage.

    Returns:
        ``(h, w)`` float32, all 0 only where the coverage is.
    """
    if mode == "hard":
        hard = coverage > _HALF
        if hard.any():
            return hard.astype(np.float32)
    return coverage.astype(np.float32)


def as_soft_mask(mask: np.ndarray) -> np.ndarray:
    """Any mask as ``(H, W)`` float32 in [0, 1]: bool, integers with 0 as background, or floats in [0, 1].

    Raises:
        ConfigError: the mask is not two-dimensional, is empty, or has floats outside [0, 1].
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or not mask.size:
        raise ConfigError(f"a mask of shape {mask.shape} cannot be used; give one (height, width) array")
    if not np.issubdtype(mask.dtype, np.floating):
        return (mask != 0).astype(np.float32)
    if not (mask.min() >= 0 and mask.max() <= 1):
        raise ConfigError(
            f"a float mask must lie in [0, 1], this one in [{mask.min()}, {mask.max()}]; divide by its maximum"
        )
    return mask.astype(np.float32, copy=False)


def cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The image with pixels black where the mask is exactly 0; partly covered pixels keep their own colour.

    Args:
        image: ``(H, W, 3)`` uint8.
        mask: ``(H', W')`` in [0, 1], of the image or of another scale of it.
    """
    return image * (_at_size(mask, image.shape[:2]) > 0)[..., None].astype(np.uint8)


def released_cut_out(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The cut-out that the published release encodes: partly transparent pixels are mixed with CarveKit's grey.

    Arguments as for :func:`cut_out`. For parity with the release only; see :func:`released_coverage`.
    """
    alpha = np.round(_at_size(mask, image.shape[:2]) * 255)[..., None].astype(np.float32) / 255
    mixed = (alpha * image + (1 - alpha) * _CARVEKIT_GREY).astype(np.uint8)
    return mixed * (alpha > 0).astype(np.uint8)


def released_coverage(canvas: torch.Tensor, geometry: Geometry) -> np.ndarray:
    """The patch mask that the published release infers from the colours of the cut-out.

    The darkest colour (least sum of the normalised channels) is taken for background, so a black part of the object is
    lost, and of an image without background the darkest pixels are. For parity with the release only.

    Args:
        canvas: ``(3, H, W)`` the resized cut-out, float32 in [0, 1].
        geometry: its geometry.

    Returns:
        ``(h, w)`` float32, 0 or 1; all 0 where the release would average all patches.
    """
    brightness = ((canvas - _IMAGENET_MEAN) / _IMAGENET_STD).sum(0)
    foreground = (brightness != brightness.min()).numpy()
    pixels = Image.fromarray(foreground.astype(np.uint8) * 255)
    patches = np.asarray(pixels.resize(geometry.grid_hw[::-1], Image.Resampling.BILINEAR))
    return (patches >= 128).astype(np.float32)


def _at_size(mask: np.ndarray, hw: tuple[int, int]) -> np.ndarray:
    """The mask at another resolution of the same picture, by the nearest pixel."""
    if mask.shape == tuple(hw):
        return mask
    rows, columns = ((np.arange(n) + 0.5) * m / n for n, m in zip(hw, mask.shape, strict=True))
    return mask[rows.astype(int)[:, None], columns.astype(int)[None, :]]
