"""Label-free scores of whole pairs: does the target face the other way, or is the layout of the matches mirrored?

Higher is more suspicious; NaN means that a pair cannot be scored. A pair whose two views truly face opposite ways has
high scores too, so that one of them alone proves nothing.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np

from ..errors import ConfigError

# A triplet is well spread if its doubled area is at least this share of its longest side squared: 0.87 is equilateral.
WELL_SPREAD = 0.2
# Triplets grow with the cube of the points; more than these are thinned to the farthest apart.
_MOST_POINTS = 40
# Distances at which nothing is left to compare; keeps the logarithm finite.
_LEAST_DISTANCE = 1e-12
# How near to 1 the elongation of points on one line is.
_COLLINEAR = 1e-9


def imd_gap(identity: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """``log(identity / mirrored)`` of the instance matching distances: above 0, the mirrored picture fits better.

    Args:
        identity: ``(p,)`` distances of the pairs as they are.
        mirrored: ``(p,)`` with one picture mirrored.

    Returns:
        ``(p,)`` float64; NaN where either is not known (no mask).
    """
    distances = [np.asarray(values, np.float64) for values in (identity, mirrored)]
    logs = [np.log(np.maximum(values, _LEAST_DISTANCE)) for values in distances]
    return np.where(np.isfinite(distances[0]) & np.isfinite(distances[1]), logs[0] - logs[1], np.nan)


def reflection_gap(points: np.ndarray, matches: np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
    """How much better a similarity transform with reflection explains the matches of a pair than one without.

    The residual of a transform (rotation, scale, shift, fitted by least squares) is the root of the share of the
    matches' variance that it leaves over, in [0, 1].

    Args:
        points: ``(n, 2)`` keypoints in the source.
        matches: ``(n, 2)`` where they were found; NaN where not.
        pairs: ``(n,)`` int number of the pair, from 0.
        count: how many pairs there are.

    Returns:
        ``(count,)`` float64 in [-1, 1], residual without reflection minus that with; NaN with fewer than three matches,
        or where either side lies on one line.

    Raises:
        ConfigError: shapes disagree, or a pair has a number beyond ``count``.
    """
    points, matches, pairs = _checked(points, matches, pairs, count)
    members = np.bincount(pairs, minlength=count)
    source, target = (_centred(array, pairs, members, count) for array in (points, matches))

    def total(values: np.ndarray) -> np.ndarray:
        parts = [np.bincount(pairs, part, count) for part in (values.real, values.imag)]
        return parts[0] + 1j * parts[1]

    extents = [total(np.abs(side) ** 2).real for side in (source, target)]
    # Points on one line have squares that all point the same way.
    flat = [
        np.abs(total(side**2)) >= (1 - _COLLINEAR) * extent
        for side, extent in zip((source, target), extents, strict=True)
    ]
    usable = (members >= 3) & ~flat[0] & ~flat[1]
    scale = np.where(usable, extents[0] * extents[1], 1.0)
    explained = [np.abs(total(np.conj(side) * target)) ** 2 / scale for side in (source, np.conj(source))]
    plain, reflected = (np.sqrt(np.clip(1 - share, 0, 1)) for share in explained)
    return np.where(usable, plain - reflected, np.nan)


def triplet_orientation(points: np.ndarray, matches: np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
    """Share of the triplets of keypoints whose sense of rotation the matches turn round; robust to outliers.

    Triplets that are not well spread in both pictures have no reliable sense and are left out. Of more than 40 matches
    of a pair, the 40 that lie farthest apart in the source are used.

    Args:
        points: ``(n, 2)`` keypoints in the source.
        matches: ``(n, 2)`` where they were found; NaN where not.
        pairs: ``(n,)`` int number of the pair, from 0.
        count: how many pairs there are.

    Returns:
        ``(count,)`` float64 in [0, 1]; NaN without a triplet that is well spread in both.

    Raises:
        ConfigError: shapes disagree, or a pair has a number beyond ``count``.
    """
    points, matches, pairs = _checked(points, matches, pairs, count)
    order = np.argsort(pairs, kind="stable")
    bounds = np.searchsorted(pairs[order], np.arange(count + 1))
    shares = np.full(count, np.nan)
    for pair in range(count):
        rows = order[bounds[pair] : bounds[pair + 1]]
        if len(rows) > _MOST_POINTS:
            rows = rows[_farthest_apart(points[rows])]
        if len(rows) >= 3:
            triplets = rows[_triplets(len(rows))]
            turns, spread = zip(*(_turns(array[triplets]) for array in (points, matches)), strict=True)
            judged = spread[0] & spread[1]
            if judged.any():
                shares[pair] = np.mean((turns[0] != turns[1])[judged])
    return shares


@functools.lru_cache(maxsize=64)
def _triplets(n: int) -> np.ndarray:
    return np.array(list(itertools.combinations(range(n), 3)), int).reshape(-1, 3)


def _turns(triplets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ``(t, 3, 2)`` points: whether each triplet turns clockwise, and whether it is well spread."""
    a, b, c = triplets.transpose(1, 0, 2)
    sides = np.stack([b - a, c - a, c - b])
    doubled = sides[0, :, 0] * sides[1, :, 1] - sides[0, :, 1] * sides[1, :, 0]
    longest = (sides**2).sum(-1).max(0)
    return doubled > 0, (np.abs(doubled) >= WELL_SPREAD * longest) & (longest > 0)


def _farthest_apart(points: np.ndarray) -> np.ndarray:
    """Rows of the points that are each as far as can be from those before, starting from the one farthest out."""
    chosen = [int(((points - points.mean(0)) ** 2).sum(1).argmax())]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < _MOST_POINTS:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return np.array(chosen)


def _centred(points: np.ndarray, pairs: np.ndarray, members: np.ndarray, count: int) -> np.ndarray:
    """``(n,)`` complex places about the mean of their pair."""
    means = [np.bincount(pairs, axis, count) / np.maximum(members, 1) for axis in points.T]
    return (points[:, 0] - means[0][pairs]) + 1j * (points[:, 1] - means[1][pairs])


def _checked(
    points: np.ndarray, matches: np.ndarray, pairs: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows whose points are known on both sides."""
    points, matches = np.asarray(points, np.float64), np.asarray(matches, np.float64)
    pairs = np.asarray(pairs, int)
    if points.shape != matches.shape or points.shape[1:] != (2,) or pairs.shape != points.shape[:1]:
        raise ConfigError(
            f"points {points.shape}, matches {matches.shape} and pairs {pairs.shape} do not fit;"
            " they are (n, 2), (n, 2) and (n,)"
        )
    if pairs.size and not (pairs.min() >= 0 and pairs.max() < count):
        raise ConfigError(f"pairs are numbered {pairs.min()} to {pairs.max()}, but there are {count}")
    known = np.isfinite(points).all(1) & np.isfinite(matches).all(1)
    return points[known], matches[known], pairs[known]
