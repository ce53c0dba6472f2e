"""Where to cut similarities when the user names no threshold: read off decisions, or off the data themselves.

A fixed cosine means nothing across encoders: unrelated photographs lie at 0.1 for one and at 0.98 for another. So the
threshold is put, whichever can be had first, between the pairs that a reviewer confirmed and those rejected; into the
gap between copies and others, where nearest neighbours fall into two heaps; or where hardly any pair is expected by
chance, judged by how fast neighbours accumulate farther out.
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

# So many reviewed pairs of either answer are needed to cut between them.
MIN_DECISIONS = 5

# Two heaps of nearest neighbours count as such if each holds this share of the images and this many of them, and if
# between them the fitted density falls below this share of the lower peak.
HEAP_SHARE = 0.02
HEAP_IMAGES = 10
VALLEY_DEPTH = 0.5

# Nearer neighbours are the same picture, or as good as. They belong together at any threshold and say nothing about how
# far other copies lie; as a heap of their own they would have it cut off all others.
IDENTICAL_DISTANCE = 1e-4

# A heap is at least so wide: standard deviation of the natural logarithm of distance.
_MIN_SPREAD = 0.1
_FIT_ROUNDS = 200

# Float32 cosines of equal vectors differ from 1 by up to 1e-6; a threshold nearer to 1 would lose exact copies.
_MIN_DISTANCE = 1e-5
_MIN_THRESHOLD = 0.5

# Where copies are all but equal, the threshold's distance is next to nothing, and so is any multiple of it.
_LEAST_SLACK = 0.02


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
            slack: keep pairs up to this many times the threshold's cosine distance (0.02 below it at least) ...
            pairs_per_image: ... unless that would be more pairs than this per image.

        Returns:
            A similarity, at most ``threshold``.
        """
        wanted = min(1.0 - slack * (1.0 - threshold), threshold - _LEAST_SLACK)
        if self.similarity.size == 0:
            return max(-1.0, min(threshold, wanted))
        # Each pair is seen from both ends, so that many sampled neighbours stand for `pairs_per_image` pairs.
        allowed = min(2 * pairs_per_image * len(self.similarity), self.similarity.size) - 1
        densest = float(-np.partition(-self.similarity.ravel(), allowed)[allowed])
        return max(-1.0, min(threshold, max(wanted, densest)))


@dataclass(frozen=True)
class Histogram:
    """How many images have their nearest neighbour at which similarity.

    Attributes:
        edges: ``(b + 1,)`` float64 raw cosines, ascending.
        counts: ``(b,)`` int64; bin i holds ``edges[i] <= similarity < edges[i + 1]``, the last its upper edge as well.
    """

    edges: np.ndarray
    counts: np.ndarray


def nearest_similarity_histogram(similarity: np.ndarray, bins: int = 60) -> Histogram:
    """Histogram of the similarity of each image to its nearest neighbour, from the least of them to 1.

    Args:
        similarity: ``(n,)`` raw cosines; values that are not finite (images without a neighbour) are left out.
        bins: number of equal bins.

    Raises:
        ConfigError: fewer than one bin.
    """
    if bins < 1:
        raise ConfigError(f"bins={bins} must be at least 1")
    values = np.clip(_finite(similarity), -1.0, 1.0)
    lowest = min(float(values.min(initial=1.0)), 1.0 - _MIN_DISTANCE)
    counts, edges = np.histogram(values, bins=bins, range=(lowest, 1.0))
    return Histogram(edges, counts.astype(np.int64))


def suggest_threshold(
    profile: "NeighbourProfile", *, decided: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[float, str]:
    """The threshold for data of which nothing else is known, and why: the first of three rules that applies.

    Args:
        profile: the nearest neighbours of the vectors.
        decided: ``(m,)`` cosines and ``(m,)`` bool: pairs that a reviewer has confirmed (true) or rejected.
    """
    if decided is not None:
        threshold, reason = suggest_from_decisions(*decided)
        if threshold is not None:
            return threshold, reason
    by_density, why = profile.suggest()
    threshold, reason = suggest_from_mixture(profile.similarity[:, :1].ravel(), unrelated=by_density)
    return (by_density, why) if threshold is None else (threshold, reason)


def suggest_from_decisions(similarity: np.ndarray, same: np.ndarray) -> tuple[float | None, str]:
    """The threshold that agrees best with a reviewer: highest F1 over the pairs that were decided.

    Args:
        similarity: ``(m,)`` cosines of the reviewed pairs.
        same: ``(m,)`` bool: confirmed as the same, or rejected.

    Returns:
        The threshold, in the middle between the pairs on either side, and the reason; None and the reason, if fewer
        than ``MIN_DECISIONS`` pairs were confirmed or rejected.

    Raises:
        ConfigError: lengths differ.
    """
    values, truth = np.asarray(similarity, np.float64), np.asarray(same, bool)
    if values.shape != truth.shape:
        raise ConfigError(f"{len(values)} similarities of decided pairs, but {len(truth)} decisions")
    confirmed, rejected = int(truth.sum()), int((~truth).sum())
    if min(confirmed, rejected) < MIN_DECISIONS:
        return None, f"too few decisions: {confirmed} pairs confirmed, {rejected} rejected; {MIN_DECISIONS} of each do"
    order = np.argsort(-values, kind="stable")
    values, hits = values[order], np.cumsum(truth[order])
    # A cut lies between two different similarities, or below the last.
    last = np.append(np.flatnonzero(values[1:] < values[:-1]), len(values) - 1)
    f1 = 2.0 * hits[last] / (last + 1 + confirmed)
    best = last[int(f1.argmax())]
    below = values[best + 1] if best + 1 < len(values) else values[best]
    threshold = float((values[best] + below) / 2.0)
    reason = (
        f"from decisions: at {threshold:.4f}, {hits[best]} of {confirmed} confirmed pairs and "
        f"{best + 1 - hits[best]} of {rejected} rejected ones lie above (F1 {f1.max():.3f}, the best there is)"
    )
    return threshold, reason


def suggest_from_mixture(nearest: np.ndarray, *, unrelated: float = 1.0) -> tuple[float | None, str]:
    """The valley between images that have a copy and images that have none, if there are two such heaps.

    Two normal distributions are fitted to the logarithm of the distance (1 - cosine) to the nearest neighbour by
    expectation-maximisation; neighbours nearer than ``IDENTICAL_DISTANCE`` are left out. The threshold is where an
    image is as likely to belong to the one as to the other.

    Args:
        nearest: ``(n,)`` cosine of each image to its nearest neighbour; not finite where it has none.
        unrelated: cosine above which images hardly ever lie by chance. The centre of the second heap must lie below
            it; else both are of copies, better and worse ones, and the valley between them is not the one wanted.

    Returns:
        The threshold and the reason; None and the reason, if there are too few images or no two heaps.
    """
    distance = 1.0 - _finite(nearest)
    distance = np.log(distance[distance > IDENTICAL_DISTANCE])
    if len(distance) < 2 * HEAP_IMAGES:
        return None, f"{len(distance)} nearest neighbours that are no exact copies are too few to see two heaps"
    share, mean, spread = _two_normals(distance)
    if min(share) < max(HEAP_SHARE, HEAP_IMAGES / len(distance)):
        return None, "nearest neighbours form one heap: hardly any image stands apart"
    copies, others = 1.0 - np.exp(mean)
    if others >= unrelated:
        return None, f"nearest neighbours form one heap of copies: most lie above {unrelated:.4f}, too near for chance"
    grid = np.linspace(mean[0], mean[1], 512)
    parts = _densities(grid, share, mean, spread)
    density = parts.sum(axis=0)
    peaks = [density[: int(density.argmin()) + 1].max(), density[int(density.argmin()) :].max()]
    if density.min() > VALLEY_DEPTH * min(peaks):
        return None, "nearest neighbours form one heap: no valley between copies and others"
    threshold = float(1.0 - np.exp(grid[int(np.abs(np.log(parts[0] / parts[1])).argmin())]))
    reason = (
        f"from the data: nearest neighbours form two heaps, {share[0]:.0%} of the images around cosine "
        f"{copies:.4f} and {share[1]:.0%} around {others:.4f}; they meet at {threshold:.4f}"
    )
    return threshold, reason


def _two_normals(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares, means and standard deviations ``(2,)`` of the likeliest two normal distributions, the lower one first."""
    best = (-np.inf, np.ones(2), np.zeros(2), np.ones(2))
    # From several starts: the likeliest split may be into a small heap and a large one.
    for quantile in (0.05, 0.2, 0.5, 0.8):
        cut = np.quantile(values, quantile)
        belongs = np.stack([values <= cut, values > cut]).astype(np.float64) * 0.98 + 0.01
        likelihood = -np.inf
        for _ in range(_FIT_ROUNDS):
            weight = belongs.sum(axis=1)
            share, mean = weight / weight.sum(), belongs @ values / weight
            variance = (belongs * (values - mean[:, None]) ** 2).sum(axis=1) / weight
            spread = np.sqrt(np.maximum(variance, _MIN_SPREAD**2))
            parts = _densities(values, share, mean, spread)
            total = parts.sum(axis=0)
            before, likelihood = likelihood, float(np.log(total).mean())
            belongs = parts / total
            if likelihood - before < 1e-9:
                break
        if likelihood > best[0]:
            best = (likelihood, share, mean, spread)
    order = np.argsort(best[2])
    return best[1][order], best[2][order], best[3][order]


def _densities(values: np.ndarray, share: np.ndarray, mean: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """``(2, n)`` weighted normal densities, never 0."""
    scaled = (values[None, :] - mean[:, None]) / spread[:, None]
    return share[:, None] * np.exp(-0.5 * scaled**2) / (spread[:, None] * np.sqrt(2 * np.pi)) + 1e-300


def _finite(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    return values[np.isfinite(values)]


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
