"""GrabCut: a foreground from colours alone, without any weights.

Source: Rother, Kolmogorov, Blake, "GrabCut: interactive foreground extraction using iterated graph cuts" (SIGGRAPH
2004), in OpenCV's implementation. Nobody draws a rectangle here: the frame of the picture is taken for background,
and what differs in colour from the frame, or lies in the middle, for probable foreground.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

import cv2
import numpy as np

from ..errors import ConfigError

# Colour models need some dozens of samples of each kind; pictures with a shorter side are enlarged to it.
_MIN_SIDE = 16

# Below this spread (of 255 levels, in every channel) there is nothing that colours could separate.
_MIN_CONTRAST = 2

# The frame: a margin that is background for certain, and a slightly wider one whose colours are clustered.
_MARGIN = 0.05
_COLOUR_MARGIN = 0.06
_FRAME_CLUSTERS = 4

# Clusters of less than this share of the frame are the object reaching over the edge, more often than background.
_MIN_CLUSTER = 0.03

# Variance (in squared Lab levels) added to every colour cluster: noise and JPEG blocks of a plain background.
_COLOUR_NOISE = 30.0

# Fall-off of the centre prior and radius of the ellipse that is always probable foreground, in half sides.
_CENTRE_SIGMA = 0.8
_CENTRE_RADIUS = 0.5


@dataclass(frozen=True)
class GrabCutConfig:
    """Settings of :class:`GrabCut`.

    Attributes:
        side: longer side of the working copy in pixels; 256 takes four times as long, and its masks are no better.
        iterations: rounds of colour model and graph cut.
    """

    side: int = 160
    iterations: int = 3

    def __post_init__(self) -> None:
        if self.side < _MIN_SIDE:
            raise ConfigError(f"side={self.side} is too small for GrabCut; use at least {_MIN_SIDE} pixels")
        if self.iterations < 1:
            raise ConfigError(f"iterations={self.iterations} must be at least 1")


class GrabCut:
    """A :class:`~.base.PixelForeground` by GrabCut on a reduced copy.

    Deterministic, and safe to call from several threads at once. A picture in which colours separate nothing yields an
    empty mask.
    """

    name = "grabcut"

    # Needs no device and releases the interpreter lock: belongs into the threads that decode.
    in_worker = True
    full_scale = False

    def __init__(self, config: GrabCutConfig | None = None) -> None:
        self.config = config or GrabCutConfig()
        settings = json.dumps({"method": self.name, "version": 1, **asdict(self.config)}, sort_keys=True)
        self.weights_hash = hashlib.sha256(settings.encode()).hexdigest()

    def masks(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Masks ``(H, W)`` float32 in [0, 1], one per ``(H, W, 3)`` uint8 image; soft at the edges only."""
        return [self._mask(image) for image in images]

    def _mask(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        small = working_copy(image, self.config.side)
        if np.ptp(small, axis=(0, 1)).max() <= _MIN_CONTRAST:
            return np.zeros((height, width), np.float32)
        labels = _initial_labels(small)
        if not (labels == cv2.GC_PR_FGD).any():
            return np.zeros((height, width), np.float32)
        cut(small, labels, self.config.iterations)
        mask = ((labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)).astype(np.float32)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR)


def working_copy(image: np.ndarray, side: int) -> np.ndarray:
    """The image with its longer side at ``side`` pixels and no side below the minimum (small ones are stretched)."""
    height, width = image.shape[:2]
    scale = min(1.0, side / max(height, width))
    size = max(_MIN_SIDE, round(width * scale)), max(_MIN_SIDE, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def cut(image: np.ndarray, labels: np.ndarray, iterations: int) -> None:
    """Runs GrabCut, updating the labels in place.

    Args:
        image: ``(h, w, 3)`` uint8.
        labels: ``(h, w)`` uint8 in OpenCV's values; neither side may be without any pixel.
        iterations: rounds of colour model and graph cut.
    """
    # OpenCV draws from a random generator per thread.
    cv2.setRNGSeed(0)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(image, labels, None, background, foreground, iterations, cv2.GC_INIT_WITH_MASK)


def _initial_labels(image: np.ndarray) -> np.ndarray:
    """``(h, w)`` uint8 GrabCut labels: frame background for certain, the rest probable one or the other."""
    height, width = image.shape[:2]
    rows, columns = (np.abs((np.arange(n) + 0.5) / n * 2 - 1) for n in (height, width))
    radius2 = rows[:, None] ** 2 + columns[None, :] ** 2
    distinct = _frame_distance(image, _frame(height, width, _COLOUR_MARGIN))
    # A few glaring pixels must not squeeze all others into one bin of the histogram.
    distinct = np.minimum(distinct, np.quantile(distinct, 0.98))
    distinct *= np.exp(-radius2 / (2 * _CENTRE_SIGMA**2))
    probable = _above_otsu(distinct) | (radius2 < _CENTRE_RADIUS**2)
    labels = np.where(probable, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[_frame(height, width, _MARGIN)] = cv2.GC_BGD
    return labels


def _frame(height: int, width: int, margin: float) -> np.ndarray:
    """``(h, w)`` bool: the outermost pixels, a share ``margin`` of each side."""
    top, left = max(1, int(height * margin)), max(1, int(width * margin))
    frame = np.ones((height, width), bool)
    frame[top : height - top, left : width - left] = False
    return frame


def _frame_distance(image: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """``(h, w)`` float64: Mahalanobis distance of each pixel's colour from the nearest colour cluster of the frame."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.float32)
    colours = lab[frame]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
    _, labels, centres = cv2.kmeans(colours, _FRAME_CLUSTERS, None, stop, 1, cv2.KMEANS_PP_CENTERS)
    nearest = np.full(lab.shape[:2], np.inf)
    for cluster, centre in enumerate(centres):
        members = colours[labels[:, 0] == cluster].astype(np.float64)
        if len(members) < max(2, _MIN_CLUSTER * len(colours)):
            continue
        precision = np.linalg.inv(np.cov(members.T) + _COLOUR_NOISE * np.eye(3))
        offset = lab - centre
        np.minimum(nearest, ((offset @ precision) * offset).sum(-1), out=nearest)
    return np.sqrt(nearest)


def _above_otsu(values: np.ndarray) -> np.ndarray:
    """Where values lie above Otsu's threshold of their histogram."""
    low, spread = values.min(), np.ptp(values)
    levels = ((values - low) / (spread or 1.0) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return levels > threshold
