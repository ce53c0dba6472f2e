"""Where to cut similarities when the user names no threshold: a rule that reads the density of the data themselves.

A fixed cosine means nothing across encoders: unrelated photographs lie at 0.1 for one and at 0.98 for another. So the
threshold is put where hardly any pair is expected by chance, judged by how fast neighbours accumulate farther out.
"""

from dataclasses import dataclass

import numpy as np

from .errors import ConfigError

# Used where there are too few vectors, or too many copies, to judge density by.
FALLBACK_THRESHOLD = 0.95

# The rank of the neighbour that stands for "similar, yet unrelated": larger than almost any group of duplicates.
REFERENCE_RANK = 20

# At the suggested threshold an image has this many neighbours by chance, on average: as many as the first number in any
# case, up to the second as long as they are a small share of the neighbours that images do have there.
CHANCE_NEIGHBOURS = 0.05
MOST_CHANCE_NEIGHBOURS = 0.2
CHANCE_SHARE = 0.2

_MIN_VECTORS = 16
_STEPS = 15
_KEPT_RANKS = 64
_BLOCK_ROWS = 8192

# Float32 cosines of equal vectors differ from 1 by up to 1e-6; a threshold nearer to 1 would lose exact copies.
_MIN_DISTANCE = 1e-5
_MIN_THRESHOLD = 0.5


@dataclass(frozen=True)
class NeighbourProfile:
    """How similar the nearest neighbours are, seen from an even sample of the vectors.

    Attributes:
        similarity: ``(q, r)`` float32 raw cosines of each sampled vector to its r nearest others, best first.
        n: number of vectors in all.
    """

    similarity: np.ndarray
    n: int

    def suggest(self) -> tuple[float, str]:
        """A threshold and, for the record, why.

        With D_r the median cosine distance to the r-th neighbour, the number of neighbours within distance D grows
        as D^g, where g = log 2 / log(D_k / D_{k/2}). Neighbours at rank k are taken to be unrelated; the curve is
        followed inwards to the distance at which ``CHANCE_NEIGHBOURS`` of them are left. Duplicates hardly enter:
        they sit at the first ranks, which are not looked at. Groups larger than k make the rule too strict.

        Where duplicates abound, that would miss many of them for the sake of few errors. So the distance is widened,
        to at most that of ``MOST_CHANCE_NEIGHBOURS``, while those expected by chance are no more than ``CHANCE_SHARE``
        of the neighbours found within it: a bound of the false discovery rate, as in Benjamini and Hochberg (1995).
        Data without duplicates have about as many neighbours as chance gives them, and keep the strict distance.
        """
        k = min(REFERENCE_RANK, self.n // 4)
        if self.n < _MIN_VECTORS:
            return FALLBACK_THRESHOLD, f"fixed: {self.n} vectors are too few to judge their density"
        near, far = (float(1.0 - np.median(self.similarity[:, rank - 1])) for rank in (k // 2, k))
        if near < _MIN_DISTANCE or far <= near:
            return FALLBACK_THRESHOLD, f"fixed: most images have {k // 2} copies, which hides the density of the others"
        growth = np.log(2.0) / np.log(far / near)
        chances = np.geomspace(CHANCE_NEIGHBOURS, MOST_CHANCE_NEIGHBOURS, _STEPS)
        thresholds = np.clip(1.0 - far * (chances / k) ** (1.0 / growth), _MIN_THRESHOLD, 1.0 - _MIN_DISTANCE)
        found = np.array([(self.similarity >= level).sum(axis=1).mean() for level in thresholds])
        widest = int(np.flatnonzero(chances <= CHANCE_SHARE * found).max(initial=0))
        threshold = float(thresholds[widest])
        reason = (
            f"from the data: of the median image, neighbour {k // 2} is at cosine {1 - near:.4f} and neighbour {k} at "
            f"{1 - far:.4f}; followed inwards, {chances[widest]:.2g} unrelated ones are left at {threshold:.4f}, where "
            f"images have {found[widest]:.2g} neighbours"
        )
        return threshold, reason

    def floor(self, threshold: float, *, slack: float = 10.0, pairs_per_image: int = 16) -> float:
        """The similarity down to which pairs are worth keeping, so that the threshold can be moved without a search.

        Args:
            threshold: the similarity at which groups are formed first.
            slack: keep pairs up to this many times the threshold's cosine distance ...
            pairs_per_image: ... unless that would be more pairs than this per image.

        Returns:
            A similarity, at most ``threshold``.
        """
        wanted = 1.0 - slack * (1.0 - threshold)
        if self.similarity.size == 0:
            return max(-1.0, min(threshold, wanted))
        # Each pair is seen from both ends, so that many sampled neighbours stand for `pairs_per_image` pairs.
        allowed = min(2 * pairs_per_image * len(self.similarity), self.similarity.size) - 1
        densest = float(-np.partition(-self.similarity.ravel(), allowed)[allowed])
        return max(-1.0, min(threshold, max(wanted, densest)))


def neighbour_profile(vectors: np.ndarray, *, queries: int = 512) -> NeighbourProfile:
    """Nearest neighbours, by raw cosine, of evenly spaced vectors among all.

    Args:
        vectors: ``(n, d)`` non-zero, finite; read in blocks (a memory map is fine), never modified.
        queries: how many vectors to sample.

    Raises:
        ConfigError: not a matrix.
    """
    if vectors.ndim != 2:
        raise ConfigError(f"vectors must be an (n, d) matrix, not of shape {vectors.shape}")
    n = len(vectors)
    ranks = min(_KEPT_RANKS, max(n - 1, 0))
    rows = np.unique(np.linspace(0, max(n - 1, 0), min(queries, n)).round().astype(np.int64))
    best = np.full((len(rows), ranks), -np.inf, np.float32)
    if ranks == 0:
        return NeighbourProfile(best, n)
    sampled = _unit(vectors[rows])
    for start in range(0, n, _BLOCK_ROWS):
        similarity = sampled @ _unit(vectors[start : start + _BLOCK_ROWS]).T
        inside = np.flatnonzero((rows >= start) & (rows < start + similarity.shape[1]))
        similarity[inside, rows[inside] - start] = -np.inf
        both = np.concatenate([best, similarity], axis=1)
        best = -np.partition(-both, ranks - 1, axis=1)[:, :ranks]
    return NeighbourProfile(-np.sort(-best, axis=1), n)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
