"""What a pair matcher has to beat without learning anything: ORB features, and the answer that is always yes.

Sources: Rublee, Rabaud, Konolige, Bradski, "ORB: an efficient alternative to SIFT or SURF" (ICCV 2011), in OpenCV's
implementation, with the ratio test of Lowe (IJCV 2004). "Unstructured Object Matching using Co-Salient Region
Segmentation" (SCOTT) compares itself with ORB, too.
"""

import cv2
import numpy as np

from ..errors import ConfigError

# Most features of one picture.
ORB_KEYPOINTS = 1000

# A feature has found its partner where the second nearest is that much farther away.
ORB_RATIO = 0.75

_BYTES = 32


def orb_descriptors(image: np.ndarray, keypoints: int = ORB_KEYPOINTS) -> np.ndarray:
    """The binary descriptors of a picture's strongest ORB features; deterministic.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.
        keypoints: most features.

    Returns:
        ``(n, 32)`` uint8, n at most ``keypoints``; 0 rows where the picture has no corners.

    Raises:
        ConfigError: ``keypoints`` is not positive.
    """
    if keypoints < 1:
        raise ConfigError(f"keypoints={keypoints} must be at least 1")
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    descriptors = cv2.ORB.create(keypoints).detectAndCompute(grey, None)[1]
    # Where several are equally strong, OpenCV returns more than it was asked for.
    return np.empty((0, _BYTES), np.uint8) if descriptors is None else descriptors[:keypoints]


def orb_score(first: np.ndarray, second: np.ndarray, ratio: float = ORB_RATIO) -> int:
    """How many features of the first picture have a clear partner in the second, by brute force.

    Args:
        first: ``(n, 32)`` uint8 descriptors as :func:`orb_descriptors` gives them.
        second: ``(m, 32)`` likewise.
        ratio: a partner is clear if its Hamming distance is below this share of that of the second nearest.

    Returns:
        a number in 0 ... n; 0 where the second picture has fewer than two features, which leaves nothing to compare.
    """
    if len(first) == 0 or len(second) < 2:
        return 0
    nearest = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(first, second, k=2)
    return sum(best.distance < ratio * other.distance for best, other in nearest)


def always_match(n: int) -> np.ndarray:
    """``(n,)`` scores of the matcher that takes every pair for a match: precision is then the share of matches."""
    return np.ones(n)
