"""The strongest token pairs of two pictures as lines to be drawn."""

import numpy as np

from .comparison import MAX_LINES, Picture
from .scores import token_pairs
from .training_free import CosalientPair


def pair_lines(pair: CosalientPair, first: Picture, second: Picture) -> np.ndarray:
    """Token pairs as :class:`.comparison.PairOutcome` gives them, ``(n, 5)`` float32, the strongest first.

    Args:
        pair: what the pictures have in common.
        first, second: the pictures, for their places on the grid.
    """
    found = token_pairs(pair, MAX_LINES)
    ends = [_relative(found[:, :2], first), _relative(found[:, 2:4], second)]
    return np.concatenate([*ends, found[:, 4:]], axis=1).astype(np.float32)


def _relative(places: np.ndarray, picture: Picture) -> np.ndarray:
    """``(n, 2)`` x and y, relative to the image, of the centres of patches."""
    top, left, height, width = picture.geometry.content
    centres = (places + 0.5) * picture.geometry.patch
    return np.stack([(centres[:, 1] - left) / width, (centres[:, 0] - top) / height], axis=1).clip(0.0, 1.0)
