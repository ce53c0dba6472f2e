"""Do the vectors of one object form one cluster? Adjusted Rand index of three ways to cluster them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConfigError
from .retrieval import as_codes, check_similarity, scope_members


@dataclass(frozen=True)
class ClusteringScores:
    """Adjusted Rand indices against the objects, means over scopes; NaN where there is none.

    Attributes:
        ari: average linkage on ``1 - similarity``, cut into the true number of objects.
        ari_kmeans: k-means on unit vectors with the true number of objects; NaN without vectors.
        ari_free: HDBSCAN on ``1 - similarity``, which is not told the number of objects.
        n_scopes: scopes that were clustered; those with a single object, or no object seen twice, cannot tell good
            from bad and are left out.
    """

    ari: float
    ari_kmeans: float
    ari_free: float
    n_scopes: int


def clustering_scores(
    similarity: np.ndarray,
    object_ids: Sequence[Any],
    scope_ids: Sequence[Any] | None = None,
    vectors: np.ndarray | None = None,
) -> ClusteringScores:
    """Clusters each scope by itself and compares the clusters with the objects.

    Args:
        similarity: ``(n, n)`` symmetric, 1 for equal images.
        object_ids: n ids of the objects shown.
        scope_ids: n ids of the scopes; None puts all images in one scope.
        vectors: ``(n, d)`` vectors for k-means, which normalises them; None leaves k-means out.

    Raises:
        ConfigError: the shapes disagree, or a similarity is not a finite number.
    """
    from sklearn.metrics import adjusted_rand_score

    similarity = np.asarray(similarity)
    objects = as_codes(object_ids, len(similarity), "object_ids")
    scopes = as_codes(scope_ids, len(similarity), "scope_ids")
    check_similarity(similarity)
    if vectors is not None and len(vectors) != len(objects):
        raise ConfigError(f"{len(vectors)} vectors for {len(objects)} images")
    scores = []
    for members in scope_members(scopes):
        truth = objects[members]
        n_objects = len(np.unique(truth))
        if not 1 < n_objects < len(truth):
            continue
        distance = 1.0 - similarity[np.ix_(members, members)].astype(np.float64)
        labellings = [average_linkage(distance, n_objects), density_clusters(distance)]
        if vectors is not None:
            labellings.append(k_means(vectors[members], n_objects))
        scores.append([adjusted_rand_score(truth, labels) for labels in labellings])
    means = np.mean(scores, axis=0) if scores else np.full(3, np.nan)
    return ClusteringScores(
        ari=float(means[0]),
        ari_kmeans=float(means[2]) if vectors is not None else float("nan"),
        ari_free=float(means[1]),
        n_scopes=len(scores),
    )


def average_linkage(distance: np.ndarray, n_clusters: int) -> np.ndarray:
    """``(n,)`` cluster labels by average linkage, cut into ``n_clusters``; ``distance`` is ``(n, n)``."""
    from sklearn.cluster import AgglomerativeClustering

    return AgglomerativeClustering(n_clusters, metric="precomputed", linkage="average").fit_predict(distance)


def k_means(vectors: np.ndarray, n_clusters: int) -> np.ndarray:
    """``(n,)`` cluster labels by k-means on unit vectors: 10 starts, fixed seed; ``vectors`` is ``(n, d)``."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.preprocessing import normalize

    with warnings.catch_warnings():
        # Equal images leave clusters without a member of their own, which is no fault of the data.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(n_clusters, n_init=10, random_state=0).fit_predict(normalize(vectors))


def density_clusters(distance: np.ndarray) -> np.ndarray:
    """``(n,)`` cluster labels by HDBSCAN with clusters of two or more; what it calls noise is a cluster of its own."""
    from sklearn.cluster import HDBSCAN

    labels = HDBSCAN(min_cluster_size=2, metric="precomputed", copy=True).fit_predict(np.maximum(distance, 0.0))
    noise = labels < 0
    labels[noise] = labels.max() + 1 + np.arange(noise.sum())
    return labels
