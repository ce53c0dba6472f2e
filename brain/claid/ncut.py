"""Bisecting a set of patches by normalised cuts, with which the paper compares its own k-sums."""

import numpy as np

# A pair of patches without a link weighs this much, so that no set falls apart into pieces of equal right.
UNLINKED_WEIGHT = 1e-5

# Sets up to this size are solved at once; for larger ones, an iteration needs much less time and memory.
_DENSE = 64


def ncut_bisect(linked: np.ndarray) -> np.ndarray:
    """The normalised cut of a set of patches in two (Shi and Malik, PAMI 2000).

    Of the graph with weight 1 for linked pairs and 1e-5 for all others, the eigenvector y of the second smallest
    eigenvalue of ``(D - W) y = lambda D y`` is computed, D being the diagonal of W's row sums. It is split at its mean,
    as in TokenCut (Wang et al., CVPR 2022).

    Args:
        linked: ``(m, m)`` bool, symmetric.

    Returns:
        ``(m,)`` uint8 labels: 0 for the side of the first patch, 1 for the other one. All are 0 where there is nothing
        to cut: fewer than two patches, or all pairs alike.
    """
    m = len(linked)
    off_diagonal = linked.sum() - np.count_nonzero(linked.diagonal())
    if m < 2 or off_diagonal in (0, m * (m - 1)):
        return np.zeros(m, np.uint8)
    weights = np.where(linked, 1.0, UNLINKED_WEIGHT)
    scale = 1 / np.sqrt(weights.sum(1))
    vector = scale * _second_eigenvector(weights * scale * scale[:, None], scale)
    # The sign of an eigenvector means nothing: the first patch decides it.
    centred = vector - vector.mean()
    return (centred * (1 if centred[0] <= 0 else -1) > 0).astype(np.uint8)


def _second_eigenvector(normalised: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The eigenvector of the second largest eigenvalue of ``D^-1/2 W D^-1/2``; the matrix is overwritten.

    That of the largest one, 1, is known: the square roots of the row sums. It is moved to the other end.
    """
    from scipy.linalg import eigh
    from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

    m = len(scale)
    known = 1 / scale
    known /= np.linalg.norm(known)
    if m > _DENSE:
        deflated = LinearOperator((m, m), lambda v: normalised @ v - 2 * (known @ v) * known, dtype=np.float64)
        # A fixed start makes the result the same every time; it must not be symmetric where the set is.
        start = np.random.default_rng(0).standard_normal(m)
        try:
            return eigsh(deflated, 1, which="LA", v0=start)[1][:, 0]
        except ArpackNoConvergence:
            pass
    normalised -= 2 * np.outer(known, known)
    return eigh(normalised, subset_by_index=[m - 1, m - 1], overwrite_a=True)[1][:, 0]
