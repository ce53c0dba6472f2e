"""From similarities of regions to a ranking of images: an image stands where its best region stands.

Source: arXiv:2506.16745. All regions of all images form one list; an image counts from its first region on, and the
box of that region is the location found. Several queries at once, and how to put them together, are our addition.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import ConfigError

Combine = Literal["all", "any"]
COMBINES: tuple[Combine, ...] = ("all", "any")


@dataclass(frozen=True)
class ImageHit:
    """One image of a ranking, with its best region for each of Q query vectors.

    Attributes:
        image_id: the image.
        score: the cosines of its best regions, put together over the queries: their mean (``"all"``) or the largest
            (``"any"``).
        label_ids: Q ids of its best regions.
        boxes: ``(Q, 4)`` float32 their boxes ``(x, y, width, height)``, relative to the image, in [0, 1].
        similarities: ``(Q,)`` float64 their cosines.
    """

    image_id: str
    score: float
    label_ids: tuple[str, ...]
    boxes: np.ndarray
    similarities: np.ndarray


@dataclass(frozen=True)
class Ranking:
    """Images that have a region, best first.

    Attributes:
        images: ``(I,)`` their codes.
        scores: ``(I,)`` float64, descending.
        rows: ``(Q, I)`` the region that is most similar to each query.
        similarities: ``(Q, I)`` its similarity.
    """

    images: np.ndarray
    scores: np.ndarray
    rows: np.ndarray
    similarities: np.ndarray


def rank_images(similarity: np.ndarray, image_codes: np.ndarray, combine: Combine = "all") -> Ranking:
    """Ranks images by the similarity of their regions to all queries.

    Of equal images the one with the smaller code comes first; of equal regions of an image the first.

    Args:
        similarity: ``(Q, N)`` similarity of N regions to Q query vectors; larger is more alike.
        image_codes: ``(N,)`` integers, in any order: the image of each region.
        combine: ``"all"`` scores an image by the mean over the queries of its best similarity, so that images which
            show all of them come first; ``"any"`` by the largest.

    Raises:
        ConfigError: the shapes disagree, there is no query, or ``combine`` is unknown.
    """
    if combine not in COMBINES:
        raise ConfigError(f"combine={combine!r} is unknown; use one of {', '.join(COMBINES)}")
    if similarity.ndim != 2 or len(similarity) == 0 or image_codes.shape != similarity.shape[1:]:
        raise ConfigError(
            f"similarity {similarity.shape} and image_codes {image_codes.shape} must be (Q, N) and (N,) with Q > 0"
        )
    order = None if (image_codes[1:] >= image_codes[:-1]).all() else np.argsort(image_codes, kind="stable")
    if order is not None:
        similarity, image_codes = similarity[:, order], image_codes[order]
    starts = np.flatnonzero(np.r_[True, image_codes[1:] != image_codes[:-1]][: len(image_codes)])
    images = image_codes[starts]
    best = _segment_max(similarity, starts)
    rows = np.stack([_first_rows(line, peaks, starts) for line, peaks in zip(similarity, best, strict=True)])
    scores = best.mean(0, dtype=np.float64) if combine == "all" else best.max(0).astype(np.float64)
    ranked = np.argsort(-scores, kind="stable")
    rows = rows if order is None else order[rows]
    return Ranking(images[ranked], scores[ranked], rows[:, ranked], best[:, ranked])


def _segment_max(similarity: np.ndarray, starts: np.ndarray) -> np.ndarray:
    if not len(starts):
        return np.empty((len(similarity), 0), similarity.dtype)
    return np.maximum.reduceat(similarity, starts, axis=1)


def _first_rows(line: np.ndarray, peaks: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """``(I,)`` the first row of each image at which a query's similarities ``(N,)`` reach the image's peak."""
    at_peak = np.flatnonzero(line == np.repeat(peaks, np.diff(np.r_[starts, len(line)])))
    return at_peak[np.searchsorted(at_peak, starts)]
