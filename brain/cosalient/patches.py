"""The patches of a described picture in a row, and which patches of two pictures find each other."""

from dataclasses import dataclass

import numpy as np

from .comparison import Picture

# Rows of similarities at a time: bounds the memory at large grids.
_BLOCK = 2048


@dataclass(frozen=True)
class Patches:
    """The patches of a picture that are no padding, in raster order.

    Attributes:
        tokens: ``(n, C)`` float32 of unit length.
        saliency: ``(n,)`` float32 in [0, 1].
        places: ``(n, 2)`` int row and column on the patch grid.
        grid_hw: height and width of the whole grid.
    """

    tokens: np.ndarray
    saliency: np.ndarray
    places: np.ndarray
    grid_hw: tuple[int, int]

    @classmethod
    def of(cls, picture: Picture) -> "Patches":
        """The patches of a picture; tokens are brought to unit length, so that their scale does not matter."""
        places = np.argwhere(picture.valid)
        tokens = picture.tokens[picture.valid].astype(np.float32)
        unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True).clip(1e-12)
        return cls(unit, picture.saliency[picture.valid].astype(np.float32), places, picture.valid.shape)

    def on_grid(self, values: np.ndarray, outside: float) -> np.ndarray:
        """``(h, w)`` map of one value per patch; padding gets ``outside``."""
        grid = np.full(self.grid_hw, outside, values.dtype)
        grid[self.places[:, 0], self.places[:, 1]] = values
        return grid

    def from_grid(self, grid: np.ndarray) -> np.ndarray:
        """``(n,)`` values of a ``(h, w)`` map."""
        return grid[self.places[:, 0], self.places[:, 1]]


@dataclass(frozen=True)
class Partners:
    """Best partners between the patches of two pictures.

    Attributes:
        of_a: ``(n_a,)`` int: for each patch of the first picture the most similar one of the second.
        of_b: ``(n_b,)`` int: the other way round.
        cosine_a: ``(n_a,)`` float32 similarity to that partner.
        cosine_b: ``(n_b,)`` float32.
        error_a: ``(n_a,)`` int cycle error: Chebyshev distance on the grid between a patch and where it ends up after
            going to its partner and back; 0 for mutual nearest neighbours.
        error_b: ``(n_b,)`` int.
    """

    of_a: np.ndarray
    of_b: np.ndarray
    cosine_a: np.ndarray
    cosine_b: np.ndarray
    error_a: np.ndarray
    error_b: np.ndarray


def find_partners(a: Patches, b: Patches) -> Partners:
    """Best partners of all patches of two pictures, in blocks of rows."""
    of_a, cosine_a = _nearest(a.tokens, b.tokens)
    of_b, cosine_b = _nearest(b.tokens, a.tokens)
    return Partners(
        of_a,
        of_b,
        cosine_a,
        cosine_b,
        np.abs(a.places - a.places[of_b[of_a]]).max(axis=1),
        np.abs(b.places - b.places[of_a[of_b]]).max(axis=1),
    )


def mean_of_nearest(queries: np.ndarray, keys: np.ndarray, count: int) -> np.ndarray:
    """``(n,)`` float32 mean cosine of each query to its ``count`` most similar keys; -1 where there is no key.

    Args:
        queries: ``(n, C)`` unit vectors.
        keys: ``(m, C)`` unit vectors.
        count: how many, lowered to m.
    """
    found = np.full(len(queries), -1.0, np.float32)
    if not len(keys):
        return found
    count = min(count, len(keys))
    for start in range(0, len(queries), _BLOCK):
        cosine = queries[start : start + _BLOCK] @ keys.T
        top = np.partition(cosine, cosine.shape[1] - count, axis=1)[:, -count:]
        found[start : start + _BLOCK] = top.mean(axis=1)
    return found


def _nearest(queries: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nearest = np.empty(len(queries), np.intp)
    cosine = np.empty(len(queries), np.float32)
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK] @ keys.T
        chosen = block.argmax(axis=1)
        nearest[start : start + _BLOCK] = chosen
        cosine[start : start + _BLOCK] = block[np.arange(len(block)), chosen]
    return nearest, cosine
