"""Comparing two images object by object: who matches whom, and how well."""

from typing import NamedTuple

import numpy as np

from .errors import ConfigError


class ObjectMatch(NamedTuple):
    """A one-to-one match of the objects of two images.

    Attributes:
        score: similarity of the best matched pair, the score of the two images; NaN where one of them has no object.
        assignment: ``(i, j, similarity)`` of every matched pair, best first.
        matrix: ``(N, M)`` float32 cosine of every pair.
    """

    score: float
    assignment: list[tuple[int, int, float]]
    matrix: np.ndarray


def match_objects(vectors_a: np.ndarray, vectors_b: np.ndarray) -> ObjectMatch:
    """Matches objects one to one so that the sum of cosines is largest (Hungarian assignment).

    Args:
        vectors_a: ``(N, C)`` unit vectors of the objects of one image.
        vectors_b: ``(M, C)`` of the other.

    Raises:
        ConfigError: the vectors have different lengths.
    """
    from scipy.optimize import linear_sum_assignment

    a, b = (np.asarray(vectors, np.float32) for vectors in (vectors_a, vectors_b))
    if not len(a) or not len(b):
        return ObjectMatch(float("nan"), [], np.zeros((len(a), len(b)), np.float32))
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ConfigError(
            f"object vectors of shapes {a.shape} and {b.shape} cannot be compared; use one model for both"
        )
    matrix = a @ b.T
    pairs = [(int(i), int(j), float(matrix[i, j])) for i, j in zip(*linear_sum_assignment(-matrix), strict=True)]
    pairs.sort(key=lambda pair: -pair[2])
    return ObjectMatch(pairs[0][2], pairs, matrix)
