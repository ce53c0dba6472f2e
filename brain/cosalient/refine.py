"""From evidence per patch to a mask with the edges of the picture, by GrabCut."""

import cv2
import numpy as np
from PIL import Image

from ..foreground.grabcut import cut, working_copy
from ..geometry import Geometry, patches_to_mask

# Longer side of the copy that is cut. On photographs of one object masks gain up to here, while small objects in busy
# scenes lose from 160 pixels on.
_SIDE = 224

# Rounds of colour model and graph cut; five give the same masks to a thousandth of IoU.
_ITERATIONS = 3

# Probabilities beyond which a pixel is certain. The patches decide little for certain: edges, and parts that look
# unlike in the two pictures, are left to the colours.
_CERTAIN = 0.02

# Neighbourhood of certain pixels, and rounds, in the release of "Deep ViT Features as Dense Visual Descriptors".
_ERODED = 7
_RELEASED_ITERATIONS = 5


def enlarged(evidence: np.ndarray, geometry: Geometry, size_hw: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` float32 evidence in the pixels of a copy of the picture.

    Args:
        evidence: ``(h, w)`` on the patch grid.
        geometry: where the picture lies on it.
        size_hw: height and width of the copy.
    """
    values = Image.fromarray(patches_to_mask(evidence, geometry))
    return np.asarray(values.resize(size_hw[::-1], Image.Resampling.BILINEAR))


def refine_by_doubt(picture: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Cuts the object out, starting from log-odds per pixel of which only the extreme ones are certain.

    Args:
        picture: ``(H, W, 3)`` uint8.
        evidence: ``(H, W)`` log-odds of belonging to the object.

    Returns:
        ``(H, W)`` bool; the positive evidence itself where colours separate nothing.
    """
    small = working_copy(picture, _SIDE)
    odds = cv2.resize(evidence, small.shape[1::-1])
    bound = float(np.log((1 - _CERTAIN) / _CERTAIN))
    labels = np.where(odds > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[odds > bound], labels[odds < -bound] = cv2.GC_FGD, cv2.GC_BGD
    return _cut_out(small, labels, evidence > 0, _ITERATIONS)


def refine_by_erosion(picture: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """Cuts the object out, with what lies deep inside and far outside of the mask for certain.

    Args and returned value as of :func:`refine_by_doubt`.
    """
    small = working_copy(picture, _SIDE)
    inside = (cv2.resize(evidence, small.shape[1::-1]) > 0).astype(np.uint8)
    square = np.ones((_ERODED, _ERODED), np.uint8)
    labels = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[cv2.erode(inside, square) > 0] = cv2.GC_FGD
    labels[cv2.erode(1 - inside, square) > 0] = cv2.GC_BGD
    return _cut_out(small, labels, evidence > 0, _RELEASED_ITERATIONS)


def _cut_out(small: np.ndarray, labels: np.ndarray, rough: np.ndarray, iterations: int) -> np.ndarray:
    kinds = {int(label) & 1 for label in np.unique(labels)}
    if kinds != {0, 1}:
        return rough
    try:
        cut(small, labels, iterations)
    except cv2.error:
        # Fewer colours than the models have parts.
        return rough
    found = (labels & 1).astype(np.float32)
    mask = cv2.resize(found, rough.shape[::-1]) > 0.5
    return mask if mask.any() else rough
