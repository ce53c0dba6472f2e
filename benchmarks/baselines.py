"""Baselines that need no learning: a colour histogram and a perceptual hash."""

import numpy as np

HISTOGRAM_BINS = (12, 6, 4)


def histogram(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Colour histogram whose cosine is the Bhattacharyya coefficient.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        mask: ``(H, W)``; only pixels above 0.5 are counted (all of them where there is no such pixel).

    Returns:
        ``(288,)`` float32 unit vector: square roots of the 12 × 6 × 4 bins of hue, saturation and value.
    """
    import cv2

    selected = None if mask is None else (mask > 0.5).astype(np.uint8)
    if selected is not None and not selected.any():
        selected = None
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], selected, list(HISTOGRAM_BINS), [0, 180, 0, 256, 0, 256]).ravel()
    return np.sqrt(counts / counts.sum()).astype(np.float32)


def phash(image: np.ndarray) -> np.ndarray:
    """Perceptual hash (64 bits, package ``imagehash``) as a unit vector of ±1/8.

    The cosine of two such vectors is ``1 - hamming / 32``.
    """
    import imagehash
    from PIL import Image

    return (imagehash.phash(Image.fromarray(image)).hash.ravel() * 2.0 - 1.0).astype(np.float32) / 8


def phash_similarity(vectors: np.ndarray) -> np.ndarray:
    """``(n, n)`` similarity ``1 - hamming / 64`` of hashes as :func:`phash` gives them."""
    return (1 + vectors @ vectors.T) / 2
