"""Clusters of pictures that show the same object: vectors, neighbours, a second look and a reviewer's decisions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .cohesion import UNCLUSTERED, best_cut, cohesion, compact
from .constraints import Constraints
from .density import density_labels
from .errors import ConfigError
from .grouping import group_pairs
from .linkage import average_linkage
from .nearest import knn
from .pairs import Pairs
from .reranking import local_scaling, neighbour_graph, reciprocal

ClusterMethod = Literal["agglomerative", "hdbscan", "components"]
ClusterSimilarity = Literal["reciprocal", "local_scaling", "cosine"]
CLUSTER_METHODS: tuple[str, ...] = get_args(ClusterMethod)
CLUSTER_SIMILARITIES: tuple[str, ...] = get_args(ClusterSimilarity)

Verify = Callable[[np.ndarray], np.ndarray]

# Where the rule looks for a threshold: quantiles of the similarities at which clusters merge, or of those of the graph.
_MERGE_QUANTILES = np.linspace(0.025, 0.975, 39)
_LINK_QUANTILES = np.linspace(0.5, 0.99, 15)

# Share of the neighbours of a set whose sets are averaged.
_AVERAGED = 0.4

# Clusters less alike than this, above the similarity of unlisted pairs, are not even candidates.
_LEAST = 0.05


@dataclass(frozen=True)
class ClusterSettings:
    """How clusters are formed.

    Why the defaults are what they are: ARI of FFA vectors of the embedded model, the threshold chosen without the truth
    (only k-means is told the number of objects). ``pictures`` and ``neighbours`` do best on the first half of the
    objects of each set, where 8 to 10 and 20 to 40 do about equally well; methods and the rule for the threshold were
    compared on both halves, and only the 120 scenes were looked at last.

    =====================================  ==========  ==========  ==========  ==========
    .                                      objid_wild  other half  120 scenes  turntable
    =====================================  ==========  ==========  ==========  ==========
    k-means, told the number                     .401        .470        .118        .659
    HDBSCAN on cosines                           .344        .493        .158        .569
    average linkage on cosines                   .447        .564        .136        .700
    average linkage on local scaling             .486        .556        .169        .738
    average linkage on reciprocal                .471        .568        .176        .744
    the same after a second look (verify)        .614        .699        .233        .812
    =====================================  ==========  ==========  ==========  ==========

    Attributes:
        method: ``"agglomerative"`` (average linkage), ``"hdbscan"`` or ``"components"`` (linked rows, no wider than
            ``max_diameter``).
        similarity: ``"reciprocal"`` (shared neighbours), ``"local_scaling"``, or the plain ``"cosine"``.
        threshold: least similarity, of the kind chosen, at which clusters join; None takes the one whose clusters
            share their neighbours best (:func:`.cohesion.separation` of reciprocal similarity). HDBSCAN needs none;
            with one it ignores pairs below it.
        min_size: pictures of the smallest cluster.
        max_diameter: for ``"components"``: largest ``1 - similarity`` within a cluster; pairs off the graph are
            farther. None sets no limit.
        neighbours: nearest neighbours per row that are compared; all other pairs count as unlike. Objects with more
            pictures than this may fall into several clusters.
        pictures: about how many pictures an object has, for ``"reciprocal"``: the size of the sets of neighbours that
            are compared. Objects with more than about twice as many fall into several clusters, objects with
            far fewer melt with others. More than ``neighbours`` has no effect.
    """

    method: ClusterMethod = "agglomerative"
    similarity: ClusterSimilarity = "reciprocal"
    threshold: float | None = None
    min_size: int = 2
    max_diameter: float | None = None
    neighbours: int = 30
    pictures: int = 8

    def __post_init__(self) -> None:
        if self.method not in CLUSTER_METHODS:
            raise ConfigError(f"method={self.method!r} is unknown; use one of {', '.join(CLUSTER_METHODS)}")
        if self.similarity not in CLUSTER_SIMILARITIES:
            raise ConfigError(
                f"similarity={self.similarity!r} is unknown; use one of {', '.join(CLUSTER_SIMILARITIES)}"
            )
        if self.threshold is not None and not -1.0 <= self.threshold <= 1.0:
            raise ConfigError(f"threshold={self.threshold!r} is no similarity; use a number from -1 to 1, or none")
        if self.min_size < 2:
            raise ConfigError(f"min_size={self.min_size!r} must be at least 2")
        if self.neighbours < 1:
            raise ConfigError(f"neighbours={self.neighbours!r} must be at least 1")
        if self.pictures < 1:
            raise ConfigError(f"pictures={self.pictures!r} must be at least 1")
        if self.max_diameter is not None and self.method != "components":
            raise ConfigError(f"max_diameter belongs to method='components', not to {self.method!r}")


@dataclass(frozen=True)
class Clusters:
    """What was found for ``n`` rows.

    Attributes:
        label: ``(n,)`` int32 number of the cluster, 0 being the largest; -1 for none.
        confidence: ``(n,)`` float32 in [0, 1]: how much nearer the row is to its cluster than to any other; 0.5 is a
            tie, and rows outside clusters have 0.
        outlier: ``(n,)`` float32 in [0, 1]: how much farther the row lies than the members of its cluster (outside
            clusters: of the nearest) usually do.
        threshold: the similarity that was used; None where there was none (HDBSCAN).
        reason: where the threshold comes from, in words.
    """

    label: np.ndarray
    confidence: np.ndarray
    outlier: np.ndarray
    threshold: float | None
    reason: str


def cluster(
    vectors: np.ndarray,
    settings: ClusterSettings | None = None,
    *,
    constraints: Constraints | None = None,
    verify: Verify | None = None,
    neighbours: tuple[np.ndarray, np.ndarray] | None = None,
) -> Clusters:
    """Clusters rows by what their vectors, or a second look at the likely pairs, say.

    Constraints hold exactly. Rows that must be together are one cluster before the first merge (HDBSCAN: their
    cosine is 1, and what it still tears apart goes to the cluster that has most of them); such a cluster stays even
    if it is smaller than ``min_size``. Clusters with rows that must be apart do not merge (HDBSCAN: a cluster with
    such rows is split by average linkage under the same rule).

    Args:
        vectors: ``(n, d)`` of any length greater than 0; not modified.
        settings: how.
        constraints: what a reviewer has said.
        verify: gives ``(p,)`` scores, the higher the more alike, of ``(p, 2)`` rows. They take the place of the
            cosines of all pairs of near neighbours, which are the borderline cases: all other pairs are unlike
            anyway. See :class:`.verification.TokenVerifier`.
        neighbours: ``(n, k)`` rows and ``(n, k)`` cosines of the nearest neighbours, where they are known already;
            None searches for them.

    Raises:
        ConfigError: vectors without direction, or constraints that contradict each other.
    """
    chosen = ClusterSettings() if settings is None else settings
    rules = Constraints() if constraints is None else constraints
    n = len(vectors)
    rules.check(n)
    if n < 2:
        nothing = np.zeros(n, np.float32)
        return Clusters(np.full(n, UNCLUSTERED, np.int32), nothing, nothing + 1, None, "too few rows to compare")
    pairs = neighbour_graph(*(knn(vectors, chosen.neighbours) if neighbours is None else neighbours))
    if verify is not None:
        scores = verify(np.stack([pairs.i, pairs.j], axis=1))
        pairs = Pairs(pairs.i, pairs.j, np.asarray(scores, np.float32))
    graph, rest = _rescaled(n, pairs, chosen.similarity, chosen.pictures)
    if chosen.method == "hdbscan":
        label, threshold, reason = _by_density(n, graph, rest, chosen, rules)
    else:
        judge = graph if chosen.threshold is not None else _rescaled(n, pairs, "reciprocal", chosen.pictures)[0]
        label, threshold, reason = _by_threshold(n, graph, rest, judge, chosen, rules)
    label = compact(label, chosen.min_size, always=rules.must.ravel())
    found = cohesion(label, graph, rest)
    return Clusters(label, found.confidence(), found.outlier(), threshold, reason)


def _rescaled(n: int, pairs: Pairs, similarity: ClusterSimilarity, pictures: int) -> tuple[Pairs, float]:
    """The graph that is clustered, and the similarity of pairs that are not on it."""
    if similarity == "reciprocal":
        graph = reciprocal(n, pairs, k1=pictures, k2=max(1, round(_AVERAGED * pictures)))
        near = graph.similarity > 0
        return Pairs(graph.i[near], graph.j[near], graph.similarity[near], 0.0), 0.0
    if similarity == "local_scaling":
        return local_scaling(n, pairs), 0.0
    return pairs, float(pairs.similarity.min(initial=1.0))


def _by_density(
    n: int, graph: Pairs, rest: float, settings: ClusterSettings, rules: Constraints
) -> tuple[np.ndarray, float | None, str]:
    if settings.threshold is None:
        return density_labels(n, graph, settings.min_size, rest, rules), None, "HDBSCAN needs no threshold"
    linked = _at_least(graph, settings.threshold)
    return density_labels(n, linked, settings.min_size, rest, rules), settings.threshold, "given"


def _by_threshold(
    n: int, graph: Pairs, rest: float, judge: Pairs, settings: ClusterSettings, rules: Constraints
) -> tuple[np.ndarray, float, str]:
    """Clusters at the given threshold, or at the one that separates best on the graph ``judge``."""
    given = settings.threshold
    if settings.method == "components":
        candidates = _candidates(given, graph.similarity, _LINK_QUANTILES)
        cuts = [group_pairs(n, graph, t, max_diameter=settings.max_diameter, constraints=rules) for t in candidates]
    else:
        merges = average_linkage(n, graph, rest + _LEAST if given is None else given, rest=rest, constraints=rules)
        candidates = _candidates(given, merges.similarity, _MERGE_QUANTILES)
        cuts = [merges.cut(t) for t in candidates]
    if given is not None:
        return cuts[0], given, "given"
    best = best_cut(cuts, judge)
    reason = f"of {len(cuts)} from {candidates[0]:.3g} to {candidates[-1]:.3g}, it separates shared neighbours best"
    return cuts[best], candidates[best], reason


def _candidates(given: float | None, levels: np.ndarray, quantiles: np.ndarray) -> list[float]:
    """Thresholds to choose from, rising; ``levels`` are the similarities at which clusters change."""
    if given is not None:
        return [given]
    return np.unique(np.quantile(levels, quantiles)).tolist() if len(levels) else [1.0]


def _at_least(graph: Pairs, threshold: float) -> Pairs:
    keep = graph.similarity >= np.float32(threshold)
    return Pairs(graph.i[keep], graph.j[keep], graph.similarity[keep], threshold)
