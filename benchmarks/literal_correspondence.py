"""Matching and its label-free scores written out literally: pair by pair, keypoint by keypoint, as papers define them.

The peer of ``speed correspondence``, and a check of it: but for the numbers that the definitions leave open, nothing
here is shared with the code that it is compared with.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ..brain.metrics.label_free import PEAK_SHARE
from ..brain.metrics.label_free_pairs import WELL_SPREAD
from ..brain.metrics.label_free_points import COLLISION_SHARE

TEMPERATURE = 0.02
RADIUS = 5


@dataclass(frozen=True)
class LiteralPair:
    """A pair of pictures that fill their square canvases, as arrays alone.

    Attributes:
        source, target, mirrored_target: ``(h, w, C)`` unit features.
        source_mask, target_mask, mirrored_mask: ``(h, w)`` bool.
        points: ``(n, 2)`` keypoints in pixels of the canvas.
        partners: ``(n,)`` int mirror partners, itself where there is none.
        groups: ``(n,)`` int numbers of part groups.
        source_box, target_box: longer sides in pixels.
        cell: side of a cell in pixels.
    """

    source: torch.Tensor
    target: torch.Tensor
    mirrored_target: torch.Tensor
    source_mask: np.ndarray
    target_mask: np.ndarray
    mirrored_mask: np.ndarray
    points: np.ndarray
    partners: np.ndarray
    groups: np.ndarray
    source_box: float
    target_box: float
    cell: int


def match(pair: LiteralPair) -> tuple[np.ndarray, list[np.ndarray]]:
    """``(n, 2)`` where the keypoints are found, and their ``(h, w)`` similarities."""
    found, maps = [], []
    for point in pair.points:
        similarity = _similarity(pair.source, point, pair.target, pair.cell)
        found.append(_window_soft_argmax(similarity, pair.cell))
        maps.append(similarity)
    return np.array(found), maps


def match_scores(pair: LiteralPair) -> dict[str, np.ndarray]:
    """The scores of single matches of a pair, and m as ``similarity``; the rank of m needs all pairs."""
    matches, maps = match(pair)
    width = pair.cell * pair.target.shape[1]
    mirrored = []
    for point in pair.points:
        x, y = _window_soft_argmax(_similarity(pair.source, point, pair.mirrored_target, pair.cell), pair.cell)
        mirrored.append((width - x, y))
    rows = [_score(pair, index, matches, maps, mirrored) for index in range(len(matches))]
    scores = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return scores | {"assignment_change": _assignment_change(pair, matches, maps)}


def pair_scores(pair: LiteralPair) -> dict[str, float]:
    """The scores of the pair as a whole but for the comparison of both pictures."""
    matches, _ = match(pair)
    return {
        "reflection_gap": _residual(pair.points, matches, 1) - _residual(pair.points, matches, -1),
        "triplet_orientation": _triplet_orientation(pair.points, matches),
    }


def imd_gap(pair: LiteralPair) -> float:
    """How much nearer the mirrored target is to the source, as a logarithm."""
    identity = _imd(pair.source, pair.target, pair.source_mask, pair.target_mask)
    return math.log(identity / _imd(pair.source, pair.mirrored_target, pair.source_mask, pair.mirrored_mask))


def low_similarity(similarities: Sequence[float]) -> list[float]:
    """Share of the other matches that are more similar, half of those that are equally so."""
    n = len(similarities)
    return [
        (sum(other > own for other in similarities) + (sum(other == own for other in similarities) - 1) / 2) / (n - 1)
        for own in similarities
    ]


def _similarity(source: torch.Tensor, point: np.ndarray, target: torch.Tensor, cell: int) -> np.ndarray:
    query = source[int(point[1] // cell), int(point[0] // cell)]
    return (target @ query).numpy()


def _window_soft_argmax(similarity: np.ndarray, cell: int) -> tuple[float, float]:
    row, column = np.unravel_index(similarity.argmax(), similarity.shape)
    rows, columns = np.mgrid[: similarity.shape[0], : similarity.shape[1]]
    outside = np.maximum(abs(rows - row), abs(columns - column)) > RADIUS
    weights = np.exp((np.where(outside, -np.inf, similarity) - similarity.max()) / TEMPERATURE)
    weights /= weights.sum()
    return float((weights * columns).sum() * cell + cell / 2), float((weights * rows).sum() * cell + cell / 2)


def _score(
    pair: LiteralPair, index: int, matches: np.ndarray, maps: list[np.ndarray], mirrored: list[tuple[float, float]]
) -> dict[str, float]:
    own, similarity, partner = matches[index], maps[index], int(pair.partners[index])
    has_partner = partner != index
    m = _value(similarity, own, pair.cell)
    back = _similarity(pair.target, _hard_centre(similarity, pair.cell), pair.source, pair.cell)
    scores = {
        "similarity": m,
        "peak_ratio": _peak_ratio(similarity, own, pair, m),
        "mirror_peak_ratio": math.nan,
        "mirror_insensitivity": math.nan,
        "flip_inconsistency": math.nan,
        "cycle_error": math.dist(_hard_centre(back, pair.cell), pair.points[index]) / pair.source_box,
        "collision": _collision(pair, index, matches),
        "softmax_spread": _spread(similarity),
    }
    if has_partner:
        scores["mirror_insensitivity"] = max(0.0, 1 - math.dist(own, mirrored[index]) / pair.target_box)
        scores["flip_inconsistency"] = math.dist(own, mirrored[partner]) / pair.target_box
        if m > 0:
            scores["mirror_peak_ratio"] = max(0.0, _value(similarity, matches[partner], pair.cell) / m)
    return scores


def _value(similarity: np.ndarray, point: np.ndarray, cell: int) -> float:
    return float(similarity[int(point[1] // cell), int(point[0] // cell)])


def _hard_centre(similarity: np.ndarray, cell: int) -> np.ndarray:
    row, column = np.unravel_index(similarity.argmax(), similarity.shape)
    return np.array([(column + 0.5) * cell, (row + 0.5) * cell])


def _peak_ratio(similarity: np.ndarray, own: np.ndarray, pair: LiteralPair, m: float) -> float:
    if m <= 0:
        return math.nan
    place = own // pair.cell
    radius = PEAK_SHARE * pair.target_box / pair.cell
    highest = -math.inf
    for row, column in np.ndindex(similarity.shape):
        value = similarity[row, column]
        if value <= highest or math.hypot(row - place[1], column - place[0]) <= radius:
            continue
        if value >= similarity[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].max():
            highest = float(value)
    return max(0.0, highest / m)


def _collision(pair: LiteralPair, index: int, matches: np.ndarray) -> float:
    mates = [other for other in np.flatnonzero(pair.groups == pair.groups[index]) if other != index]
    if not mates:
        return math.nan
    return float(min(math.dist(matches[index], matches[other]) for other in mates) < COLLISION_SHARE * pair.target_box)


def _spread(similarity: np.ndarray) -> float:
    weights = np.exp((similarity.astype(np.float64) - similarity.max()) / TEMPERATURE)
    shares = weights / weights.sum()
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum() / math.log(similarity.size))


def _assignment_change(pair: LiteralPair, matches: np.ndarray, maps: list[np.ndarray]) -> np.ndarray:
    changed = np.full(len(matches), np.nan)
    for group in np.unique(pair.groups):
        members = np.flatnonzero(pair.groups == group)
        if len(members) < 2:
            continue
        gains = np.array([[_value(maps[a], matches[b], pair.cell) for b in members] for a in members])
        _, given = linear_sum_assignment(gains, maximize=True)
        better = gains[np.arange(len(members)), given].sum() > np.trace(gains) + 1e-9
        for number, index in enumerate(members):
            other = matches[members[given[number]]]
            changed[index] = better and tuple(other // pair.cell) != tuple(matches[index] // pair.cell)
    return changed


def _residual(points: np.ndarray, matches: np.ndarray, handedness: int) -> float:
    """Root of the share of variance that the best similarity transform leaves over; -1 with a reflection."""
    x, y = (points - points.mean(0)).T
    y = handedness * y
    target = matches - matches.mean(0)
    system = np.concatenate([np.stack([x, -y], 1), np.stack([y, x], 1)])
    wanted = np.concatenate([target[:, 0], target[:, 1]])
    fitted = system @ np.linalg.lstsq(system, wanted, rcond=None)[0]
    return math.sqrt(((wanted - fitted) ** 2).sum() / (wanted**2).sum())


def _triplet_orientation(points: np.ndarray, matches: np.ndarray) -> float:
    turned, judged = 0, 0
    for a, b, c in itertools.combinations(range(len(points)), 3):
        areas = []
        for array in (points, matches):
            u, v, w = array[b] - array[a], array[c] - array[a], array[c] - array[b]
            area = u[0] * v[1] - u[1] * v[0]
            longest = max(u @ u, v @ v, w @ w)
            areas.append(area if longest > 0 and abs(area) >= WELL_SPREAD * longest else None)
        if None not in areas:
            judged += 1
            turned += (areas[0] > 0) != (areas[1] > 0)
    return turned / judged if judged else math.nan


def _imd(source: torch.Tensor, target: torch.Tensor, source_mask: np.ndarray, target_mask: np.ndarray) -> float:
    others = target[torch.from_numpy(target_mask)]
    found = [float((others - cell).norm(dim=1).min()) for cell in source[torch.from_numpy(source_mask)]]
    return sum(found) / len(found)
