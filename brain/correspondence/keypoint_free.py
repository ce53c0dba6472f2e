"""Matches of a pair without any keypoints: well-spread points of the object that both pictures agree upon.

Cells that are each other's nearest are grouped by where they lie in the source, and each group gives its most similar
match: a wrong match seldom is that of its neighbourhood. Were they grouped by their places in both pictures, every
match that goes astray would be a group of its own, and so be chosen. Amir et al., "Deep ViT Features as Dense Visual
Descriptors" (2021), choose point pairs in the same way with groups of descriptors.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from ..errors import ConfigError
from .decoding import DecodeConfig
from .dense import DenseField, dense_field
from .features import ImageFeatures
from .grids import cells_to_places
from .matching import KeypointQuery, MatchConfig, match_keypoints

# Round trips, in cells, that are let pass one after the other while there are too few matches.
_REACHES = (0.0, 1.0, 2.0)

_ROUNDS = 20


@dataclass(frozen=True)
class FreeMatches:
    """At most K matches of a pair, the most similar first.

    Attributes:
        source_points: ``(k, 2)`` float64 ``(x, y)`` in pixels of the source picture.
        target_points: ``(k, 2)`` float64 ``(x, y)`` in pixels of the target picture.
        similarity: ``(k,)`` float32 cosine.
        round_trip: ``(k,)`` float64 distance in cells after the way there and back; 0 for mutual neighbours.
    """

    source_points: np.ndarray
    target_points: np.ndarray
    similarity: np.ndarray
    round_trip: np.ndarray


def keypoint_free_matches(
    source: ImageFeatures,
    target: ImageFeatures,
    count: int = 20,
    source_region: np.ndarray | None = None,
    target_region: np.ndarray | None = None,
    *,
    decoding: DecodeConfig | None = None,
) -> FreeMatches:
    """Well-spread matches between the objects of two pictures.

    Args:
        source, target: the described pictures.
        count: how many matches to return; fewer where not even the relaxed test of the round trip, two cells, leaves
            as many.
        source_region: ``(h, w)`` bool; None takes the foreground.
        target_region: likewise of the target.
        decoding: how places in the target are read; None takes the defaults of :class:`.decoding.DecodeConfig`.

    Raises:
        ConfigError: ``count`` is less than 1, or as of :func:`.dense.dense_field`.
    """
    if count < 1:
        raise ConfigError(f"count={count} must be at least 1")
    allowed = target.foreground() if target_region is None else target_region
    field = dense_field(source, target, source_region, allowed)
    kept = _candidates(field, count)
    places = cells_to_places(field.source_cells[kept], source.geometry.grid_hw)
    chosen = kept[spread_choice(places, field.similarity[kept], count)]
    query = KeypointQuery(source, target, field.source_points[chosen], allowed)
    (found,) = match_keypoints([query], MatchConfig(decoding or DecodeConfig()))
    return FreeMatches(query.points, found.points, field.similarity[chosen], field.round_trip[chosen])


def spread_choice(positions: np.ndarray, strength: np.ndarray, count: int) -> np.ndarray:
    """Chooses strong and well-spread ones among n points.

    The points are grouped around centres, of which the first is the strongest point and each further one the point
    farthest from all before; the groups are refitted to their means, and the strongest of each group is taken.

    Args:
        positions: ``(n, d)``.
        strength: ``(n,)``; equal ones go by their order.
        count: how many at most.

    Returns:
        ``(min(n, count),)`` int64 numbers of points, the strongest first; fewer only where points coincide.
    """
    if not len(positions):
        return np.empty(0, np.int64)
    positions = np.asarray(positions, np.float64)
    centres = _farthest_first(positions, strength, min(count, len(positions)))
    groups = np.full(len(positions), -1)
    for _ in range(_ROUNDS):
        before, groups = groups, cdist(positions, centres).argmin(axis=1)
        if np.array_equal(before, groups):
            break
        for number in np.unique(groups):
            centres[number] = positions[groups == number].mean(axis=0)
    ranks = np.lexsort((np.arange(len(strength)), -strength))
    _, first = np.unique(groups[ranks], return_index=True)
    return ranks[np.sort(first)]


def _candidates(field: DenseField, count: int) -> np.ndarray:
    """Numbers of the matches whose round trip is short enough, of the strictest test that leaves enough."""
    kept = np.empty(0, np.int64)
    for reach in _REACHES:
        kept = np.flatnonzero(field.consistent(reach))
        if len(kept) >= count:
            break
    return kept


def _farthest_first(positions: np.ndarray, strength: np.ndarray, count: int) -> np.ndarray:
    chosen = [int(strength.argmax())]
    distances = np.linalg.norm(positions - positions[chosen[0]], axis=1)
    while len(chosen) < count and distances.max() > 0:
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, np.linalg.norm(positions - positions[chosen[-1]], axis=1))
    return positions[chosen].copy()
