"""Three figures that tell whether two pictures show the same object, from what they have in common."""

from dataclasses import dataclass

import numpy as np

from .patches import Partners, Patches
from .training_free import CosalientPair, consistent_shares


@dataclass(frozen=True)
class PairScores:
    """How alike the common regions of two pictures are.

    Attributes:
        similarity: mean cosine of each patch of either region to the most similar one of the other, in [-1, 1].
        consistency: share of the patches that find their way to the other region and back, in [0, 1].
        ffa: cosine of the two mean tokens (foreground feature averaging of the regions), in [-1, 1].
    """

    similarity: float
    consistency: float
    ffa: float

    def as_row(self) -> np.ndarray:
        """``(3,)`` float64, in the order of the attributes."""
        return np.array([self.similarity, self.consistency, self.ffa])


def pair_scores(pair: CosalientPair, reach: int = 1) -> PairScores:
    """The scores of a pair; where nothing is in common, those of what stands out in each picture.

    Args:
        pair: what the pictures have in common.
        reach: largest cycle error of a consistent patch.
    """
    regions = _salient(pair.a), _salient(pair.b)
    if not pair.no_common_region:
        regions = pair.inside()
    return PairScores(
        _similarity(pair.a, pair.b, regions),
        float(np.mean(consistent_shares(pair.partners, regions, reach))),
        _mean_cosine(pair.a.tokens[regions[0]], pair.b.tokens[regions[1]]),
    )


def _salient(patches: Patches) -> np.ndarray:
    inside = patches.saliency > 0.5
    return inside if inside.any() else np.ones(len(inside), bool)


def _similarity(a: Patches, b: Patches, regions: tuple[np.ndarray, np.ndarray]) -> float:
    cosine = a.tokens[regions[0]] @ b.tokens[regions[1]].T
    return float(cosine.max(axis=1).mean() + cosine.max(axis=0).mean()) / 2.0


def _mean_cosine(a: np.ndarray, b: np.ndarray) -> float:
    one, other = a.mean(axis=0), b.mean(axis=0)
    return float(one @ other / max(float(np.linalg.norm(one) * np.linalg.norm(other)), 1e-12))


def token_pairs(pair: CosalientPair, count: int) -> np.ndarray:
    """The strongest mutual nearest neighbours inside the masks, spread over the object.

    A pair whose patch lies beside one that is taken already waits until all others had their turn.

    Args:
        pair: what the pictures have in common.
        count: how many at most.

    Returns:
        ``(n, 5)`` float32, the strongest first: row and column on the first grid, row and column on the second, cosine.
    """
    partners: Partners = pair.partners
    inside_a, inside_b = pair.inside()
    rows = np.flatnonzero(inside_a & (partners.error_a == 0) & inside_b[partners.of_a])
    rows = rows[np.argsort(-partners.cosine_a[rows], kind="stable")]
    chosen = _spread(pair.a.places[rows], count)
    rows = rows[chosen]
    rows = rows[np.argsort(-partners.cosine_a[rows], kind="stable")]
    ends = np.concatenate([pair.a.places[rows], pair.b.places[partners.of_a[rows]]], axis=1)
    return np.concatenate([ends, partners.cosine_a[rows, None]], axis=1).astype(np.float32)


def _spread(places: np.ndarray, count: int) -> np.ndarray:
    """Positions of up to ``count`` places in their order, those that touch an earlier choice last."""
    taken: list[int] = []
    late: list[int] = []
    for position in range(len(places)):
        near = taken and np.abs(places[taken] - places[position]).max(axis=1).min() <= 1
        (late if near else taken).append(position)
    return np.array([*taken, *late][:count], int)
