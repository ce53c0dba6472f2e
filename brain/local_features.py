"""Local features of one picture and the affine map between two: SIFT, mutual matches, RANSAC, mirror images."""

from dataclasses import dataclass

import numpy as np

# Longer side, in pixels, of the copy on which features are found; smaller pictures are enlarged to it, so that a
# picture and its reduced copy are described at one scale.
FEATURE_SIDE = 224

# The strongest features that are kept: 128 bytes each.
MAX_FEATURES = 200

# Lowe's settings, but that the faintest features count too: smooth fruit has no others.
OCTAVE_LAYERS = 3
CONTRAST = 0.004
EDGE = 10
SIGMA = 1.6

# Lowe's ratio (2004), a little looser than his 0.8 because a match must be mutual as well.
RATIO = 0.85

# Largest distance, in pixels of the feature copy, between a point and where the map puts it.
RANSAC_PIXELS = 4.0
RANSAC_TRIALS = 300

# A map needs three points; two more than that seldom agree by chance.
MIN_INLIERS = 5

# What a copy or the next frame can do to a picture: shrink or enlarge it so far, and stretch it so much.
MAX_SCALE = 5.0
MAX_STRETCH = 1.6

_BINS = 8


@dataclass(frozen=True)
class LocalFeatures:
    """Points of one picture and what surrounds them.

    Attributes:
        points: ``(k, 2)`` float32, x and y in pixels of the feature copy.
        descriptors: ``(k, 128)`` uint8 SIFT descriptors: 4 × 4 cells of 8 directions.
    """

    points: np.ndarray
    descriptors: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def mirrored(self, width: int) -> "LocalFeatures":
        """The features that the left-right mirrored copy, ``width`` pixels wide, would have, without looking at it.

        Mirroring turns each descriptor's own frame over: its rows of cells change places and angles their sign.
        """
        cells = self.descriptors.reshape(-1, 4, 4, _BINS)[:, ::-1][..., -np.arange(_BINS) % _BINS]
        points = self.points.copy()
        points[:, 0] = width - 1 - points[:, 0]
        return LocalFeatures(points, np.ascontiguousarray(cells).reshape(-1, 128))


def local_features(grey: np.ndarray) -> LocalFeatures:
    """The strongest SIFT features of a grey picture; deterministic.

    Args:
        grey: ``(h, w)`` uint8, the longer side being ``FEATURE_SIDE``.
    """
    import cv2

    sift = cv2.SIFT.create(MAX_FEATURES, OCTAVE_LAYERS, CONTRAST, EDGE, SIGMA)
    keypoints, descriptors = sift.detectAndCompute(grey, None)
    if descriptors is None:
        return LocalFeatures(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
    # Where several are equally strong, OpenCV returns more than it was asked for.
    points = np.array([keypoint.pt for keypoint in keypoints[:MAX_FEATURES]], np.float32)
    return LocalFeatures(points, descriptors[:MAX_FEATURES].astype(np.uint8))


def mutual_matches(a: LocalFeatures, b: LocalFeatures, ratio: float = RATIO) -> np.ndarray:
    """``(m, 2)`` rows of a and b that are each other's nearest, and clearly nearer than the second nearest of a's.

    Distances are those of square roots of the descriptors (Arandjelović and Zisserman 2012, RootSIFT).
    """
    if len(a) == 0 or len(b) < 2:
        return np.zeros((0, 2), np.int64)
    similarity = _roots(a.descriptors) @ _roots(b.descriptors).T
    best = similarity.argmax(axis=1)
    rows = np.arange(len(a))
    first = similarity[rows, best]
    mutual = similarity.argmax(axis=0)[best] == rows
    similarity[rows, best] = -1.0
    # Of unit vectors, squared distance is 2 - 2 cosine.
    clear = 1.0 - first < ratio**2 * (1.0 - similarity.max(axis=1))
    keep = mutual & clear
    return np.stack([rows[keep], best[keep]], axis=1)


def fit_affine(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """The affine map that brings most source points near their targets; deterministic.

    Args:
        source: ``(m, 2)`` float32.
        target: ``(m, 2)`` float32.

    Returns:
        ``(2, 3)`` float64 map; None where no plausible one suits ``MIN_INLIERS`` points.
    """
    import cv2

    if len(source) < MIN_INLIERS:
        return None
    transform, inside = cv2.estimateAffine2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=RANSAC_PIXELS, maxIters=RANSAC_TRIALS
    )
    if transform is None or inside.sum() < MIN_INLIERS or not _plausible(transform):
        return None
    return transform


def support(transform: np.ndarray, source: np.ndarray, target: np.ndarray) -> int:
    """How many of ``(m, 2)`` source points the ``(2, 3)`` map brings near their targets."""
    if len(source) == 0:
        return 0
    error = source @ transform[:, :2].T + transform[:, 2] - target
    return int(np.count_nonzero((error**2).sum(axis=1) <= RANSAC_PIXELS**2))


def _plausible(transform: np.ndarray) -> bool:
    linear = transform[:, :2]
    largest, smallest = np.linalg.svd(linear, compute_uv=False)
    if np.linalg.det(linear) <= 0 or smallest <= 0:
        return False
    return largest / smallest <= MAX_STRETCH and smallest >= 1 / MAX_SCALE and largest <= MAX_SCALE


def _roots(descriptors: np.ndarray) -> np.ndarray:
    values = descriptors.astype(np.float32)
    return np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))
