"""K-means of unit vectors by cosine, with the number of clusters read off the objective; no random numbers."""

from dataclasses import dataclass

import numpy as np

# Rounds of Lloyd's algorithm per number of clusters: each starts from the centres of one cluster less.
_ROUNDS = 12

# Seed of the fixed direction by which vectors are sorted.
_SEED = 0


@dataclass(frozen=True)
class Clustering:
    """Clusters of unit vectors.

    Attributes:
        label: ``(n,)`` int cluster of each vector.
        centres: ``(k, C)`` float32 of unit length.
        objective: mean squared distance of the vectors to their centres.
    """

    label: np.ndarray
    centres: np.ndarray
    objective: float


def spherical_kmeans(vectors: np.ndarray, fewest: int, most: int, ratio: float) -> Clustering:
    """Clusters unit vectors, with as many clusters as still pay.

    The number grows one by one and stops at the first that leaves more than ``ratio`` of the objective before (the rule
    of Amir et al., "Deep ViT Features as Dense Visual Descriptors", 2021). The new centre is the vector that fits
    worst; so nothing is random, and since vectors are sorted first, their order does not matter.

    Args:
        vectors: ``(n, C)`` float32 of unit length, n at least 1.
        fewest: the number to begin with, lowered to n where there are fewer vectors.
        most: the largest number.
        ratio: see above, in (0, 1].
    """
    direction = np.random.default_rng(_SEED).standard_normal(vectors.shape[1], np.float32)
    order = np.argsort(vectors @ direction, kind="stable")
    ordered = np.ascontiguousarray(vectors[order], np.float32)
    centres = _unit(ordered.mean(axis=0, keepdims=True))
    found = _lloyd(ordered, centres)
    for count in range(2, min(most, len(vectors)) + 1):
        grown = _lloyd(ordered, _with_worst(ordered, found))
        settled = count > fewest and grown.objective > ratio * found.objective
        found = grown
        if settled:
            break
    label = np.empty(len(vectors), np.intp)
    label[order] = found.label
    return Clustering(label, found.centres, found.objective)


def _with_worst(vectors: np.ndarray, found: Clustering) -> np.ndarray:
    fit = np.einsum("nc,nc->n", vectors, found.centres[found.label])
    return np.concatenate([found.centres, vectors[fit.argmin()][None]])


def _lloyd(vectors: np.ndarray, centres: np.ndarray) -> Clustering:
    label = np.full(len(vectors), -1)
    for _ in range(_ROUNDS):
        cosine = vectors @ centres.T
        before, label = label, cosine.argmax(axis=1)
        if (label == before).all():
            break
        member = np.zeros((len(centres), len(vectors)), np.float32)
        member[label, np.arange(len(vectors))] = 1.0
        sums = member @ vectors
        # A centre that lost all its members stays where it was.
        empty = member.sum(axis=1) == 0
        centres = np.where(empty[:, None], centres, _unit(sums))
    cosine = vectors @ centres.T
    label = cosine.argmax(axis=1)
    best = cosine[np.arange(len(vectors)), label]
    return Clustering(label, centres, float(np.mean(2.0 - 2.0 * best.astype(np.float64))))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
