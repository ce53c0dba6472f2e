"""Which matches between two sets of descriptors lead back to where they came from, or lie on the same side of a sphere.

Such filters choose pseudo-labels (Dünkel et al., "Do It Yourself: Learning Semantic Correspondence from Pseudo-Labels",
2025). They find matches into occluded parts and background; a match that exchanges left and right often leads back just
as well, so that a mirror-aware score must stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError

# Tolerance of the relaxed cycle, as a share of the longer side of the source's box, and at least one cell.
RELAXED_BOX_SHARE = 0.05
# Angle on the sphere, as a share of pi, beyond which two places are taken for different ones.
SPHERE_SHARE = 0.15


@dataclass(frozen=True, eq=False)
class CycleMatches:
    """The best match of each of n places, and the way back.

    Attributes:
        target: ``(n,)`` int index of the most similar place of the other set.
        returned: ``(n,)`` int index of the place most similar to that.
        distance: ``(n,)`` float64 between a place and the one returned to; 0 means mutual nearest neighbours.
    """

    target: np.ndarray
    returned: np.ndarray
    distance: np.ndarray

    def kept(self, tolerance: float = 0.0) -> np.ndarray:
        """``(n,)`` bool: the way back ends within this distance, in the units of the places."""
        return self.distance <= tolerance


def cycle_matches(similarity: np.ndarray, places: np.ndarray) -> CycleMatches:
    """Matches every place of a set to the other set and back.

    Args:
        similarity: ``(n, m)`` between the places of both sets, usually the cells of the two foregrounds; finite.
        places: ``(n, 2)`` where the places of the first set are, in cells or in pixels.

    Raises:
        ConfigError: shapes disagree, or one set is empty while the other is not.
    """
    similarity, places = np.asarray(similarity), np.asarray(places, np.float64)
    n = len(places)
    if similarity.ndim != 2 or places.shape != (n, 2) or len(similarity) != n or (n and not similarity.shape[1]):
        raise ConfigError(f"similarity {similarity.shape} and places {places.shape} do not fit; give (n, m) and (n, 2)")
    if not n:
        return CycleMatches(np.zeros(0, int), np.zeros(0, int), np.zeros(0))
    target = similarity.argmax(1)
    returned = similarity.argmax(0)[target]
    return CycleMatches(target, returned, np.linalg.norm(places - places[returned], axis=1))


def relaxed_tolerance(box_length: float, cell: float) -> float:
    """How far from the start a relaxed cycle may end, in pixels: 5 % of the box, and at least a cell.

    Args:
        box_length: longer side of the source's box in pixels.
        cell: side of a cell in pixels.
    """
    return max(RELAXED_BOX_SHARE * box_length, cell)


def sphere_angles(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Angles between points of a sphere.

    Args:
        source, target: ``(n, 3)``; of any length, a point of length 0 is background.

    Returns:
        ``(n,)`` float64 radians in [0, pi]; NaN where either is background or not finite.

    Raises:
        ConfigError: shapes disagree.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 3:
        raise ConfigError(f"points of a sphere of shapes {source.shape} and {target.shape}; give (n, 3) twice")
    lengths = np.linalg.norm(source, axis=1) * np.linalg.norm(target, axis=1)
    cosines = np.full(len(source), np.nan)
    np.divide((source * target).sum(1), lengths, out=cosines, where=lengths > 0)
    return np.arccos(cosines.clip(-1, 1))


def sphere_kept(source: np.ndarray, target: np.ndarray, share: float = SPHERE_SHARE) -> np.ndarray:
    """``(n,)`` bool: the angle is at most this share of pi; background is never kept. Arguments: :func:`sphere_angles`.

    Raises:
        ConfigError: shapes disagree.
    """
    return sphere_angles(source, target) <= share * np.pi
