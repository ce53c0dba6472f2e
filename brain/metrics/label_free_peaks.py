"""Label-free scores of single matches that are read from the similarity of a keypoint to all cells of the target.

Higher is more suspicious; NaN means that a match cannot be scored, never that it is beyond suspicion. In all functions
``similarity`` is ``(n, h, w)`` float, of n keypoints of any number of pairs, with ``-inf`` in cells that may not be
found (padding, outside of the object); ``cells`` is ``(n, 2)`` int, column and row of where each was found, negative
where it was not. m is the similarity there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy import ndimage
from scipy.stats import rankdata

from ..errors import ConfigError

PeakForm = Literal["ratio", "gap"]

# Rows handled at a time: their maps fit a processor's cache.
_ROWS = 64
# An even share in single precision may come out as a little more than one.
_MORE_THAN_EVEN = 1 + 1e-5
_IN_PLANE = np.zeros((3, 3, 3), bool)
_IN_PLANE[1] = True


def value_at(similarity: np.ndarray, cells: np.ndarray, keypoints: np.ndarray | None = None) -> np.ndarray:
    """Similarities of keypoints to single cells of their targets.

    Args:
        similarity: ``(n, h, w)``.
        cells: ``(m, 2)``.
        keypoints: ``(m,)`` int, whose similarity to each cell is asked; None takes them in order, m being n.

    Returns:
        ``(m,)`` float64; NaN outside of the target and where a cell may not be found.

    Raises:
        ConfigError: shapes disagree.
    """
    keypoints = np.arange(len(similarity)) if keypoints is None else keypoints
    similarity, cells = _checked(similarity, cells, len(keypoints))
    _, height, width = similarity.shape
    column, row = cells.T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    values = similarity[keypoints, row.clip(0, height - 1), column.clip(0, width - 1)].astype(np.float64)
    return np.where(inside & np.isfinite(values), values, np.nan)


def peak_ratio(
    similarity: np.ndarray, cells: np.ndarray, radius: np.ndarray | float, form: PeakForm = "ratio"
) -> np.ndarray:
    """How high the highest other peak is: repeated parts, and whatever else gives two candidates.

    Args:
        similarity: ``(n, h, w)``.
        cells: ``(n, 2)``.
        radius: ``(n,)`` or one for all, in cells: peaks up to this distance from the match are the match's own. A tenth
            of the longer side of the object's box is usual.
        form: ``"ratio"``: the other peak over m, at least 0; needs m > 0, as of cosines. ``"gap"``: 1 minus the
            difference to m as a share of the range of all similarities; for any, as of negative distances.

    Returns:
        ``(n,)`` float64; 0 (or nearly, for ``"gap"``) where there is no other peak; NaN where no cell is left beyond
        the radius, m is unknown, or ``"ratio"`` has m <= 0.

    Raises:
        ConfigError: shapes disagree, or the form is unknown.
    """
    similarity, cells = _checked(similarity, cells)
    reach = np.broadcast_to(np.asarray(radius, np.float64), (len(cells),))
    rivals = np.full(len(cells), np.nan)
    columns, rows = np.arange(similarity.shape[2]), np.arange(similarity.shape[1])
    for part in _chunks(len(cells)):
        maps = similarity[part]
        squared = (rows - cells[part, 1:])[:, :, None] ** 2 + (columns - cells[part, :1])[:, None, :] ** 2
        beyond = (squared > reach[part, None, None] ** 2) & np.isfinite(maps)
        heights = np.where(beyond & _is_peak(maps), maps, -np.inf).max((1, 2), initial=-np.inf)
        rivals[part] = np.where(beyond.any((1, 2)), heights, np.nan)
    return _compared(similarity, cells, rivals, form)


def mirror_peak_ratio(
    similarity: np.ndarray, cells: np.ndarray, rivals: np.ndarray, form: PeakForm = "ratio"
) -> np.ndarray:
    """How similar the place is where the other side would be: ambiguity of left and right in particular.

    Args:
        similarity: ``(n, h, w)``.
        cells: ``(n, 2)``.
        rivals: ``(n, 2)`` int cells: where the mirror partner was found or, for points without names, the match's
            reflection in the object's axis (:func:`.label_free_points.reflected_points`); negative where there is none.
        form: as of :func:`peak_ratio`.

    Returns:
        ``(n,)`` float64; NaN where there is no rival or no m, or ``"ratio"`` has m <= 0.

    Raises:
        ConfigError: shapes disagree, or the form is unknown.
    """
    return _compared(similarity, cells, value_at(similarity, rivals), form)


def low_similarity(similarities: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """How low m is among the matches of the category: phantom matches.

    Args:
        similarities: ``(n,)`` m; NaN where there is none.
        categories: ``(n,)`` of the pairs, of any kind that can be sorted.

    Returns:
        ``(n,)`` float64, 1 for the lowest of a category and 0 for the highest, in even steps, equal ones in the middle
        of theirs; NaN without m, and in a category with a single match.
    """
    similarities, categories = np.asarray(similarities, np.float64), np.asarray(categories)
    scores = np.full(len(similarities), np.nan)
    for category in np.unique(categories):
        members = np.flatnonzero((categories == category) & np.isfinite(similarities))
        if len(members) > 1:
            scores[members] = (len(members) - rankdata(similarities[members])) / (len(members) - 1)
    return scores


def softmax_spread(similarity: np.ndarray, temperature: float = 0.02) -> np.ndarray:
    """Entropy of the softmax over the cells, as a share of that of no preference: diffuse matches.

    Args:
        similarity: ``(n, h, w)``.
        temperature: of the softmax.

    Returns:
        ``(n,)`` float64 in [0, 1]; NaN where fewer than two cells may be found.

    Raises:
        ConfigError: ``similarity`` has another shape, or the temperature is not positive.
    """
    spread = np.full(len(similarity), np.nan)
    for part in _chunks(len(similarity)):
        shares, counts = _softmax(similarity[part], temperature)
        with np.errstate(divide="ignore"):
            logs = np.where(shares > 0, np.log(np.where(shares > 0, shares, 1.0)), 0.0)
        entropy = -(shares * logs).sum((1, 2))
        enough = counts > 1
        spread[part][enough] = entropy[enough] / np.log(counts[enough])
    return spread


def softmax_modes(similarity: np.ndarray, temperature: float = 0.02, mass: float = 0.2) -> np.ndarray:
    """In how many separate places the softmax has more than a share of its mass: 2 or more are candidates apart.

    A place is a set of adjoining cells (corners count) that each have more than an even share.

    Args:
        similarity: ``(n, h, w)``.
        temperature: of the softmax.
        mass: share that a place must exceed.

    Returns:
        ``(n,)`` float64 counts, 0 where the mass is spread too thin; NaN where fewer than two cells may be found.

    Raises:
        ConfigError: ``similarity`` has another shape, or the temperature is not positive.
    """
    modes = np.full(len(similarity), np.nan)
    for part in _chunks(len(similarity)):
        shares, counts = _softmax(similarity[part], temperature)
        labels, found = ndimage.label(shares > _MORE_THAN_EVEN / np.maximum(counts, 1)[:, None, None], _IN_PLANE)
        masses = np.bincount(labels.ravel(), shares.ravel(), found + 1)
        large = masses > mass
        large[0] = False
        # Each place lies in one map.
        owner = np.zeros(found + 1, int)
        owner[labels] = np.arange(len(shares))[:, None, None]
        numbers = np.bincount(owner[large], minlength=len(shares))
        modes[part] = np.where(counts > 1, numbers, np.nan)
    return modes


def _compared(similarity: np.ndarray, cells: np.ndarray, rivals: np.ndarray, form: PeakForm) -> np.ndarray:
    """Rivals against m; a rival of ``-inf`` is none at all, NaN is unknown."""
    own = value_at(similarity, cells)
    scores = np.full(len(own), np.nan)
    if form == "ratio":
        known = (own > 0) & ~np.isnan(rivals)
        scores[known] = np.maximum(rivals[known], 0) / own[known]
    elif form == "gap":
        finite = np.isfinite(similarity)
        high = np.where(finite, similarity, -np.inf).max((1, 2), initial=-np.inf).astype(np.float64)
        low = np.where(finite, similarity, np.inf).min((1, 2), initial=np.inf).astype(np.float64)
        known = np.isfinite(own) & ~np.isnan(rivals) & (high > low)
        gap = own[known] - np.maximum(rivals[known], low[known])
        scores[known] = 1 - gap / (high[known] - low[known])
    else:
        raise ConfigError(f"form={form!r} is unknown; use ratio or gap")
    return scores


def _is_peak(maps: np.ndarray) -> np.ndarray:
    """``(n, h, w)`` bool: no neighbour, corners included, is higher. Every cell of a plateau is a peak."""
    highest = maps.copy()
    np.maximum(highest[:, 1:], maps[:, :-1], out=highest[:, 1:])
    np.maximum(highest[:, :-1], maps[:, 1:], out=highest[:, :-1])
    around = highest.copy()
    np.maximum(around[:, :, 1:], highest[:, :, :-1], out=around[:, :, 1:])
    np.maximum(around[:, :, :-1], highest[:, :, 1:], out=around[:, :, :-1])
    return maps >= around


def _softmax(maps: np.ndarray, temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """``(n, h, w)`` shares, all 0 where no cell may be found, and ``(n,)`` how many may."""
    maps = np.asarray(maps)
    if maps.ndim != 3 or not temperature > 0:
        raise ConfigError(f"similarity of shape {maps.shape} at temperature {temperature}; give (n, h, w) and > 0")
    finite = np.isfinite(maps)
    peak = np.where(finite, maps, -np.inf).max((1, 2), keepdims=True, initial=-np.inf)
    shares = np.where(finite, np.exp((maps - np.where(np.isfinite(peak), peak, 0)) / temperature), 0)
    totals = shares.sum((1, 2), keepdims=True)
    return shares / np.where(totals > 0, totals, 1).astype(shares.dtype), finite.sum((1, 2))


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + _ROWS) for start in range(0, n, _ROWS))


def _checked(similarity: np.ndarray, cells: np.ndarray, count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    similarity, cells = np.asarray(similarity), np.asarray(cells)
    if similarity.ndim != 3 or cells.shape != (len(similarity) if count is None else count, 2):
        raise ConfigError(
            f"similarity {similarity.shape} and cells {cells.shape} do not fit; they are (n, h, w) and (n, 2)"
        )
    return similarity, cells.astype(int)
