"""How good a photograph is technically: the measures by which the keeper of a duplicate group is chosen."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

# Sharpness is measured on a copy whose longer side has this many pixels, so that size does not pass for sharpness:
# a reduced copy looks crisp pixel by pixel and is exposed once it is enlarged again.
SHARPNESS_SIDE = 512

# Variance (levels²) that is too small to be contrast: keeps the noise of a blank picture from passing for detail.
_NO_CONTRAST = 1.0

# 8-bit levels at or beyond which a pixel has lost its detail.
_BLACK, _WHITE = 5, 250


@dataclass(frozen=True)
class QualityScores:
    """Technical quality of one image; for each measure, more is better.

    Attributes:
        pixels: width × height.
        sharpness: variance of the Laplacian over the variance of the grey image, brought to 512 pixels along the
            longer side; about 0.01 (soft) to 1 (crisp). Contrast cancels, so brightening does not sharpen.
        exposure: in [0, 1]: share of unclipped pixels × closeness of the mean tone to mid grey.
        file_size: bytes; at equal pixels, more bytes mean milder compression.
    """

    pixels: int
    sharpness: float
    exposure: float
    file_size: int


def image_quality(image: np.ndarray, file_size: int) -> QualityScores:
    """Measures one decoded image.

    Args:
        image: ``(H, W, 3)`` uint8 RGB at full resolution.
        file_size: size of its file in bytes.
    """
    height, width = image.shape[:2]
    grey = _grey(image)
    return QualityScores(height * width, _sharpness(grey), _exposure(grey), int(file_size))


def _grey(image: np.ndarray) -> np.ndarray:
    """``(h, w)`` float32 levels, the longer side being 512 pixels."""
    picture = Image.fromarray(image).convert("L")
    scale = SHARPNESS_SIDE / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)).astype(np.float32)


def _sharpness(grey: np.ndarray) -> float:
    return float(ndimage.laplace(grey, mode="nearest").var() / (grey.var() + _NO_CONTRAST))


def _exposure(grey: np.ndarray) -> float:
    clipped = float(np.mean((grey <= _BLACK) | (grey >= _WHITE)))
    off_centre = abs(float(grey.mean()) / 255.0 - 0.5) * 2.0
    return (1.0 - clipped) * (1.0 - off_centre)
