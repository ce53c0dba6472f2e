"""Are two pictures the same shot? Local features align them, and then the aligned pixels must agree.

The same shot re-encoded, resized, cropped, recoloured, captioned, bordered, turned a little or mirrored, and the next
frame of a burst, are one shot (`near`); the same object held, turned or placed another way is not (`same_object`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .errors import ConfigError
from .local_features import FEATURE_SIDE, LocalFeatures, fit_affine, local_features, mutual_matches, support

# How alike the members of a group are, from the strictest to the loosest.
EXACT = "exact"
NEAR = "near"
SAME_OBJECT = "same_object"
KINDS = (EXACT, NEAR, SAME_OBJECT)

# A match of at least this score is the same shot. Chosen as the best balance between edited copies and made-up bursts
# (camera and thing in the hand moved) of photographs on one side, and on the other the same photographs with their
# object turned or exchanged, and other views and look-alikes on a turntable.
SHOT_THRESHOLD = 0.885

# Longer side, in pixels, of the copy on which pixels are compared.
THUMBNAIL_SIDE = 112

# Standard deviation, in pixels of that copy, of the blur before the comparison: hides noise and JPEG blocks.
_BLUR = 1.0

# Side of the windows whose correlation is taken, and how far, in pixels, a window may lie beside its partner: to a
# moving camera, things at several distances shift by different amounts, which no single map describes.
_WINDOW = 9
_REACH = 2
_SHIFTS = [(down, right) for down in range(2 * _REACH + 1) for right in range(2 * _REACH + 1)]

# Grey levels of contrast at which a window counts half: flat regions agree with anything.
_CONTRAST = 6.0

# Variance, in squared grey levels, that passes for noise: a flat window correlates with nothing.
_FAINT = 0.25

# The strip along one edge that may differ: captions, banners and time stamps stand there. A share of the side.
_EDGE_STRIP = 0.12

# The common part must be this share of one of the pictures for a full score, and this many pixels in any case.
_OVERLAP = 0.6
_MIN_PIXELS = 150

# With less texture per pixel than this there is nothing to compare.
_MIN_TEXTURE = 0.02

# Smooth things on plain ground look alike to pixels. Where fewer features than this (or than half of those that the
# plainer picture has) are brought together, the score is lowered, by up to this share where there are none. On made-up
# copies and bursts a fifth errs a little less (.029 against .034); on real bursts of smooth things the tenth does.
_FEATURES = 12
_DOUBT = 0.1

# Plain pictures have too few features to be aligned by. They are tried as they lie, if coarse copies correlate.
_COARSE_SIDE = 24
_COARSE_CORRELATION = 0.5


@dataclass(frozen=True)
class ShotFeatures:
    """What is kept of a picture to tell whether another is the same shot; at most 40 kB, and it can be pickled.

    Attributes:
        size: height and width of the picture in pixels.
        thumbnail: ``(h, w)`` uint8 grey copy, the longer side being ``THUMBNAIL_SIDE``.
        local: local features, in pixels of a copy whose longer side is ``FEATURE_SIDE``.
    """

    size: tuple[int, int]
    thumbnail: np.ndarray
    local: LocalFeatures

    @property
    def coarse(self) -> np.ndarray:
        """``(576,)`` float32 unit vector of a coarse grey copy, brightness and contrast taken out.

        Its cosine is cheap and blind to colour: it finds pairs worth a look that vectors of an encoder overlook, such
        as a picture and its grey copy. All 0 for a blank picture.
        """
        values = _resized(self.thumbnail, (_COARSE_SIDE, _COARSE_SIDE)).astype(np.float32).ravel()
        values -= values.mean()
        return values / max(float(np.linalg.norm(values)), 1e-6)

    def mirrored(self) -> "ShotFeatures":
        """The features of the picture mirrored left to right."""
        width = _scaled(self.size, FEATURE_SIDE)[1]
        return replace(self, thumbnail=np.ascontiguousarray(self.thumbnail[:, ::-1]), local=self.local.mirrored(width))


@dataclass(frozen=True)
class ShotMatch:
    """How well one picture lies on another.

    Attributes:
        score: in [0, 1]; at least ``SHOT_THRESHOLD`` for the same shot.
        mirrored: whether b must be mirrored left to right to lie on a.
        transform: ``(2, 3)`` float64 affine map from pixels of a to pixels of b (of the mirrored b, if ``mirrored``);
            None if no map was found.
        inliers: matched local features that the map brings together.
        correlation: mean correlation, in [-1, 1], of the textured windows where both pictures overlap.
    """

    score: float
    mirrored: bool
    transform: np.ndarray | None
    inliers: int
    correlation: float


def shot_features(image: np.ndarray) -> ShotFeatures:
    """What :func:`match_shots` needs of one picture; deterministic, and safe to call from several threads.

    Args:
        image: ``(H, W, 3)`` uint8 RGB.

    Raises:
        ConfigError: another shape or type, or an empty picture.
    """
    import cv2

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ConfigError(f"image must be a non-empty (H, W, 3) uint8 array, not {image.shape} {image.dtype}")
    size = (image.shape[0], image.shape[1])
    grey = cv2.cvtColor(_resized(image, _scaled(size, FEATURE_SIDE)), cv2.COLOR_RGB2GRAY)
    return ShotFeatures(size, _resized(grey, _scaled(size, THUMBNAIL_SIDE)), local_features(grey))


def match_shots(a: ShotFeatures, b: ShotFeatures, *, mirrored: bool = True) -> ShotMatch:
    """Lays b on a and says how well it fits.

    Pixels are compared by the correlation of small windows, which brightness, contrast, gamma and colour casts hardly
    change. Windows count by their contrast, so that the picture's content decides and not its background. Pictures
    without any texture score 0: nothing tells them apart.

    Args:
        a: one picture.
        b: the other.
        mirrored: whether to try b mirrored as well, if it does not fit as it is.
    """
    best = ShotMatch(0.0, False, None, 0, 0.0)
    expected = max(1.0, min(_FEATURES, min(len(a.local), len(b.local)) / 2))
    for flip in (False, True) if mirrored else (False,):
        other = b.mirrored() if flip else b
        for transform, inliers in _maps(a, other):
            score, correlation = _agreement(a.thumbnail, other.thumbnail, transform)
            score *= 1.0 - _DOUBT * max(0.0, 1.0 - inliers / expected)
            if score > best.score:
                whole = _between(_scaled(b.size, THUMBNAIL_SIDE), b.size) @ transform
                whole = whole @ _between(a.size, _scaled(a.size, THUMBNAIL_SIDE))
                best = ShotMatch(score, flip, whole[:2], inliers, correlation)
            if same_shot(best):
                return best
    return best


def same_shot(match: ShotMatch, threshold: float = SHOT_THRESHOLD) -> bool:
    """Whether a match is close enough for one shot."""
    return match.score >= threshold


def shot_labels(n: int, pairs: np.ndarray, score: np.ndarray, threshold: float = SHOT_THRESHOLD) -> np.ndarray:
    """Gathers n pictures into shots from the scores of some of their pairs.

    Pairs are taken from the best score down. Two shots become one if at least half of the pairs compared between them
    are the same shot: so the frames of a slow turn, each like the next, do not all melt into one.

    Args:
        n: number of pictures.
        pairs: ``(p, 2)`` rows of the pairs that were compared, each pair once.
        score: ``(p,)`` scores in [0, 1], or bool.
        threshold: least score of one shot.

    Returns:
        ``(n,)`` int32 number of each picture's shot, counted from 0 in the order of their first pictures.
    """
    labels = np.arange(n)
    members = {row: [row] for row in range(n)}
    # Between two shots: how many pairs were compared, and how many of them are the same shot.
    seen: list[dict[int, np.ndarray]] = [{} for _ in range(n)]
    same = np.asarray(score) >= threshold
    for (i, j), hit in zip(np.asarray(pairs).tolist(), same.tolist(), strict=True):
        seen[i][j] = seen[j][i] = np.array([1, hit])
    order = np.flatnonzero(same)
    for index in order[np.argsort(-np.asarray(score, np.float64)[order], kind="stable")]:
        keep, gone = sorted(labels[pairs[index]].tolist(), key=lambda label: (-len(members[label]), label))
        if keep == gone or 2 * seen[keep][gone][1] < seen[keep][gone][0]:
            continue
        labels[members[gone]] = keep
        members[keep] += members.pop(gone)
        for other, counts in seen[gone].items():
            del seen[other][gone]
            if other != keep:
                seen[keep][other] = seen[other][keep] = seen[keep].get(other, 0) + counts
        seen[gone] = {}
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int32)


def _maps(a: ShotFeatures, b: ShotFeatures) -> Iterator[tuple[np.ndarray, int]]:
    """``(3, 3)`` maps from thumbnail a to thumbnail b that are worth a look, and the features each brings together."""
    matches = mutual_matches(a.local, b.local)
    points_a, points_b = a.local.points[matches[:, 0]], b.local.points[matches[:, 1]]
    small_a, small_b = a.thumbnail.shape, b.thumbnail.shape
    large_a, large_b = _scaled(a.size, FEATURE_SIDE), _scaled(b.size, FEATURE_SIDE)
    fitted = fit_affine(points_a, points_b)
    if fitted is not None:
        whole = _between(large_b, small_b) @ np.vstack([fitted, [0.0, 0.0, 1.0]]) @ _between(small_a, large_a)
        yield whole, support(fitted, points_a, points_b)
    if float(a.coarse @ b.coarse) >= _COARSE_CORRELATION:
        yield _between(small_a, small_b), support(_between(large_a, large_b)[:2], points_a, points_b)


def _agreement(a: np.ndarray, b: np.ndarray, transform: np.ndarray) -> tuple[float, float]:
    """Score in [0, 1] and correlation of two thumbnails, of which ``transform`` maps the first to the second."""
    import cv2

    zoom = float(np.sqrt(np.linalg.det(transform[:2, :2])))
    if zoom < 1.0:  # The finer of the two is brought to the coarser; the reverse would invent detail.
        a, b, transform, zoom = b, a, np.linalg.inv(transform), 1.0 / zoom
    fixed = cv2.GaussianBlur(a.astype(np.float32) - 128, (0, 0), _BLUR)
    moving = cv2.GaussianBlur(b.astype(np.float32) - 128, (0, 0), _BLUR * zoom)
    shape = (a.shape[1], a.shape[0])
    inverse = cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        moving, transform[:2], shape, flags=cv2.INTER_LINEAR | inverse, borderMode=cv2.BORDER_REPLICATE
    )
    inside = cv2.warpAffine(np.ones(b.shape, np.uint8), transform[:2], shape, flags=cv2.INTER_NEAREST | inverse)
    pixels = int(inside.sum())
    overlap = pixels * max(1.0 / a.size, zoom**2 / b.size)
    # Outside the image counts as inside, so that only windows that straddle the other's edge are left out.
    inside = cv2.erode(inside, np.ones((_WINDOW, _WINDOW), np.uint8))
    if inside.sum() < _MIN_PIXELS:
        return 0.0, 0.0
    correlation, contrast = _window_correlation(fixed, moved, inside > 0)
    weight = contrast / (contrast + _CONTRAST) * inside
    if weight.sum() < _MIN_TEXTURE * inside.sum():
        return 0.0, 0.0
    agreed = _mean_but_for_a_strip(correlation, weight)
    return max(0.0, min(1.0, agreed)) * min(1.0, overlap / _OVERLAP), agreed


def _window_correlation(a: np.ndarray, b: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel, correlation of the windows around it and their contrast in grey levels.

    Args:
        a: ``(h, w)`` float32.
        b: ``(h, w)`` float32, laid on a.
        inside: ``(h, w)`` bool: where both pictures are.

    Returns:
        ``(h, w)`` correlation, the best of those with b moved by each of ``_SHIFTS``; ``(h, w)`` standard
        deviation of the more varied of the two windows, the picture of less contrast being stretched to the other.
    """
    import cv2

    def box(values: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(values, cv2.CV_32F, (_WINDOW, _WINDOW))

    def moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = box(values)
        return mean, np.sqrt(np.maximum(box(values * values) - mean * mean, 0))

    height, width = a.shape
    pad, far = _WINDOW // 2, _WINDOW // 2 + _REACH
    levels = [float(values[inside].std()) + 1e-3 for values in (a, b)]
    a = cv2.copyMakeBorder(a, pad, pad, pad, pad, cv2.BORDER_REPLICATE)
    b = cv2.copyMakeBorder(b, far, far, far, far, cv2.BORDER_REPLICATE)
    (mean_a, spread_a), (mean_b, spread_b) = moments(a), moments(b)
    inner = np.s_[pad : pad + height, pad : pad + width]
    mean_a, spread_a = mean_a[inner], spread_a[inner]
    best = np.full((height, width), -1.0, np.float32)
    for down, right in _SHIFTS:
        shifted = np.s_[pad + down : pad + down + height, pad + right : pad + right + width]
        product = box(a * b[down : down + a.shape[0], right : right + a.shape[1]])[inner]
        found = (product - mean_a * mean_b[shifted]) / (spread_a * spread_b[shifted] + _FAINT)
        np.maximum(best, found, out=best)
    unmoved = spread_b[far : far + height, far : far + width]
    return best, np.maximum(spread_a / levels[0], unmoved / levels[1]) * max(levels)


def _mean_but_for_a_strip(values: np.ndarray, weight: np.ndarray) -> float:
    """Weighted mean, without that strip along one edge, if any, that lowers it most."""
    total, weighed = values * weight, float(weight.sum())
    rows, columns = (max(1, round(_EDGE_STRIP * side)) for side in values.shape)
    best = float(total.sum()) / weighed
    for strip in (np.s_[:rows], np.s_[-rows:], np.s_[:, :columns], np.s_[:, -columns:]):
        rest = weighed - float(weight[strip].sum())
        if rest > 0.5 * weighed:
            best = max(best, float(total.sum() - total[strip].sum()) / rest)
    return best


def _scaled(size: tuple[int, ...], side: int) -> tuple[int, int]:
    """Height and width with the longer side being ``side``."""
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    shrinks = size[0] < image.shape[0]
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


def _between(old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray:
    """``(3, 3)`` map of pixel centres of a picture of one height and width to its copy of another."""
    down, right = new[0] / old[0], new[1] / old[1]
    return np.array([[right, 0, (right - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1.0]])
