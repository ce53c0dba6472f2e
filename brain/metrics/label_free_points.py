"""Label-free scores of single matches that are read from where points were found, in several ways.

Higher is more suspicious; NaN means that a match cannot be scored. Points are ``(n, 2)`` float ``(x, y)``, rows with
NaN were not found. Lengths such as ``box``, the longer side of the object's box, are in the same pixels, ``(n,)`` or
one for all; one that is not known, or is not positive, makes NaN.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import ConfigError
from .label_free_peaks import value_at

# Nearer than this share of the box, two keypoints were found in one place.
COLLISION_SHARE = 0.05


def mirrored_back(points: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Points of a picture of that width, mirrored from left to right (and so from a mirrored picture back)."""
    points = np.asarray(points, np.float64)
    return np.stack([np.asarray(width) - points[..., 0], points[..., 1]], -1)


def mirror_insensitivity(
    matches: np.ndarray, from_mirrored: np.ndarray, box: np.ndarray | float, paired: np.ndarray
) -> np.ndarray:
    """Whether a keypoint is found at the same place of the object, mirrored or not: appearance decides, not the side.

    Args:
        matches: ``(n, 2)`` where the keypoints were found in the target.
        from_mirrored: ``(n, 2)`` where they were found in the mirrored target, :func:`mirrored_back`.
        box: of the target's object.
        paired: ``(n,)`` bool: the keypoint has a mirror partner. On the plane of symmetry, agreement says nothing.

    Returns:
        ``(n,)`` float64 in [0, 1]: 1 minus the distance over the box, at least 0; NaN where not paired or not found.
    """
    apart = _apart(matches, from_mirrored, box)
    return np.where(np.asarray(paired, bool), np.maximum(1 - apart, 0), np.nan)


def flip_inconsistency(
    matches: np.ndarray, from_mirrored: np.ndarray, partners: np.ndarray, box: np.ndarray | float
) -> np.ndarray:
    """How far a match is from that of the mirror partner in the mirrored target: sides that are not stable.

    Args:
        matches: ``(n, 2)`` where the keypoints were found in the target.
        from_mirrored: ``(n, 2)`` where they were found in the mirrored target, :func:`mirrored_back`.
        partners: ``(n,)`` int row of the mirror partner; negative where there is none or the source does not show it.
        box: of the target's object.

    Returns:
        ``(n,)`` float64 distance over the box; NaN without a partner or where either was not found.
    """
    partners = np.asarray(partners, int)
    theirs = np.where((partners >= 0)[:, None], np.asarray(from_mirrored, np.float64)[partners], np.nan)
    return _apart(matches, theirs, box)


def cycle_error(points: np.ndarray, returned: np.ndarray, box: np.ndarray | float) -> np.ndarray:
    """How far from its start the way there and back ends: occluded parts and background. Swaps often pass.

    Args:
        points: ``(n, 2)`` the keypoints in the source.
        returned: ``(n, 2)`` what their matches match in the source.
        box: of the source's object.

    Returns:
        ``(n,)`` float64 distance over the box; NaN where there is no way back.
    """
    return _apart(points, returned, box)


def sphere_disagreement(with_sphere: np.ndarray, without: np.ndarray, box: np.ndarray | float) -> np.ndarray:
    """How far apart the matches with and without the term of the sphere are: geometry overrules appearance.

    Args:
        with_sphere, without: ``(n, 2)`` matches.
        box: of the target's object.

    Returns:
        ``(n,)`` float64 distance over the box; NaN where either was not found.
    """
    return _apart(with_sphere, without, box)


def collision(
    matches: np.ndarray, pairs: np.ndarray, groups: np.ndarray, box: np.ndarray | float, share: float = COLLISION_SHARE
) -> np.ndarray:
    """Whether another keypoint of the same part group was found at the same place: one of them is wrong.

    Args:
        matches: ``(n, 2)``.
        pairs: ``(n,)`` int number of the pair.
        groups: ``(n,)`` int number of the part group.
        box: of the target's object.
        share: of the box, within which two places are one.

    Returns:
        ``(n,)`` float64, 1 or 0; NaN where no other keypoint of the group was found.
    """
    matches = np.asarray(matches, np.float64)
    box = _lengths(box, len(matches))
    scores = np.full(len(matches), np.nan)
    for rows in _group_rows(matches, pairs, groups):
        distances = np.linalg.norm(matches[rows][:, None] - matches[rows], axis=-1)
        np.fill_diagonal(distances, np.inf)
        scores[rows] = distances.min(1) < share * box[rows]
    return np.where(np.isnan(box), np.nan, scores)


def assignment_change(
    similarity: np.ndarray, matches: np.ndarray, pairs: np.ndarray, groups: np.ndarray, cell: float
) -> np.ndarray:
    """Whether the best exchange of matches within a part group gives a keypoint another place than it has.

    The places where the keypoints of a group were found are given out anew, one to each, so that the sum of
    similarities is greatest. If nothing is gained, nothing changes.

    Args:
        similarity: ``(n, h, w)`` of each keypoint to the cells of its target, ``-inf`` where nothing may be found.
        matches: ``(n, 2)`` in pixels of the target's canvas.
        pairs: ``(n,)`` int number of the pair.
        groups: ``(n,)`` int number of the part group.
        cell: side of a cell in pixels.

    Returns:
        ``(n,)`` float64, 1 or 0; NaN where no other keypoint of the group was found.
    """
    matches = np.asarray(matches, np.float64)
    cells = cells_of(matches, cell)
    scores = np.full(len(matches), np.nan)
    for rows in _group_rows(matches, pairs, groups):
        size = len(rows)
        gains = value_at(similarity, np.tile(cells[rows], (size, 1)), np.repeat(rows, size)).reshape(size, size)
        # A place that may not be found must not be given out; far below all others, but finite for the solver.
        gains = np.where(np.isfinite(gains), gains, -1e6)
        given = linear_sum_assignment(gains, maximize=True)[1]
        better = gains[np.arange(size), given].sum() > np.trace(gains) + 1e-9
        scores[rows] = better & (cells[rows] != cells[rows][given]).any(1)
    return scores


def cells_of(points: np.ndarray, cell: float) -> np.ndarray:
    """``(n, 2)`` int column and row of the cell that each point of the canvas lies in; -1 where it was not found."""
    points = np.asarray(points, np.float64)
    found = np.isfinite(points).all(-1, keepdims=True)
    return np.where(found, np.floor(np.where(found, points, 0) / cell), -1).astype(int)


def reflected_points(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Points reflected in the axis of an object: where the other side would be, if nothing is known but the mask.

    The axis goes through the centre of the mask, along that of its two principal directions which is nearer to upright.
    It is that of an object seen from the front or the back and standing or leaning; for other views it is a guess.

    Args:
        points: ``(n, 2)`` in pixels of the mask; NaN stays NaN.
        mask: ``(H, W)`` bool.

    Returns:
        ``(n, 2)`` float64.

    Raises:
        ConfigError: the mask is empty.
    """
    rows, columns = np.nonzero(mask)
    if not len(rows):
        raise ConfigError("the mask is empty: an object that is not there has no axis")
    places = np.stack([columns, rows], 1) + 0.5
    centre = places.mean(0)
    (a, b), (_, c) = np.cov((places - centre).T, bias=True)
    # Angle of a principal direction; the other one is a quarter turn away.
    angle = 0.5 * np.arctan2(2 * b, a - c)
    directions = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    x, y = directions[np.abs(directions[:, 1]).argmax()] if b or a != c else (0.0, 1.0)
    reflection = np.array([[2 * x * x - 1, 2 * x * y], [2 * x * y, 2 * y * y - 1]])
    return (np.asarray(points, np.float64) - centre) @ reflection + centre


def _apart(points: np.ndarray, others: np.ndarray, box: np.ndarray | float) -> np.ndarray:
    points, others = np.asarray(points, np.float64), np.asarray(others, np.float64)
    if points.shape != others.shape or points.ndim != 2 or points.shape[1] != 2:
        raise ConfigError(f"points of shapes {points.shape} and {others.shape} do not fit; give (n, 2) twice")
    return np.linalg.norm(points - others, axis=1) / _lengths(box, len(points))


def _lengths(box: np.ndarray | float, n: int) -> np.ndarray:
    """``(n,)`` float64; NaN, and with it every score, where the box is not known or has no extent."""
    lengths = np.broadcast_to(np.asarray(box, np.float64), (n,))
    return np.where(lengths > 0, lengths, np.nan)


def _group_rows(matches: np.ndarray, pairs: np.ndarray, groups: np.ndarray) -> list[np.ndarray]:
    """Rows of each part group of each pair, of those found, where there are two or more."""
    rows = np.flatnonzero(np.isfinite(matches).all(1))
    keys = np.stack([np.asarray(pairs, int), np.asarray(groups, int)], 1)[rows]
    order = np.lexsort(keys.T[::-1])
    starts = np.flatnonzero((np.diff(keys[order], axis=0) != 0).any(1)) + 1
    return [part for part in np.split(rows[order], starts) if len(part) > 1]
