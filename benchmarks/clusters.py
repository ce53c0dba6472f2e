"""Which way to cluster FFA vectors meets the objects: plain ones and the plugin's, with and without a second look."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..brain.clusters import CLUSTER_METHODS, CLUSTER_SIMILARITIES, ClusterSettings, Verify, cluster
from ..brain.ffa import FFAExtractor
from ..brain.metrics.clustering import average_linkage, density_clusters, k_means
from ..brain.nearest import knn
from ..brain.verification import TokenReader, TokenVerifier
from .describe import MaskSource, read_image
from .manifest import Item

# Thresholds among which the best in hindsight is looked for.
_TRIED = 12

PLAIN = "(plain) "


def second_look(
    extractor: FFAExtractor, items: Sequence[Item], *, masks: MaskSource | None, grey: bool, batch_size: int
) -> Verify:
    """Scores pairs of items by their foreground tokens; ``masks`` takes the place of the extractor's foreground."""
    reader = TokenReader(extractor, batch_size)

    def tokens_of(rows: Sequence[int]) -> list[np.ndarray]:
        chosen = [items[row] for row in rows]
        images = [read_image(item, grey=grey) for item in chosen]
        return reader.read(images, None if masks is None else masks(chosen, images))

    return TokenVerifier(tokens_of)


def cluster_rows(vectors: np.ndarray, objects: Sequence[Any], look: Verify) -> list[dict[str, Any]]:
    """One row per way to cluster.

    Args:
        vectors: ``(n, d)`` unit vectors.
        objects: n ids of the objects shown.
        look: the second look at pairs; it is taken once and shared by all ways that use it.

    Returns:
        Rows of ``method``, ``similarity``, ``verified``, ``ari``, ``clusters`` and ``alone`` (images outside
        clusters, each of which counts as a cluster of its own), ``threshold`` and the ``rule`` it comes from, and
        ``best_ari`` with the best of several thresholds in hindsight.
    """
    from sklearn.metrics import adjusted_rand_score

    truth = np.unique(np.asarray(objects), return_inverse=True)[1]
    rows = [
        {**row, "ari": float(adjusted_rand_score(truth, label)), "clusters": len(np.unique(label))}
        for row, label in _plain(vectors, len(np.unique(truth)))
    ]
    neighbours = knn(vectors, ClusterSettings().neighbours)
    remembered = _Once(look)

    def ari(label: np.ndarray) -> float:
        return float(adjusted_rand_score(truth, np.where(label < 0, len(label) + np.arange(len(label)), label)))

    def found_with(settings: ClusterSettings, verified: bool) -> Any:
        return cluster(vectors, settings, verify=remembered if verified else None, neighbours=neighbours)

    for verified in (False, True):
        for similarity in CLUSTER_SIMILARITIES:
            for method in CLUSTER_METHODS:
                settings = {"method": method, "similarity": similarity}
                found = found_with(ClusterSettings(**settings), verified)
                tried = [] if found.threshold is None else _around(found.threshold)
                best = [ari(found_with(ClusterSettings(**settings, threshold=t), verified).label) for t in tried]
                rows.append(
                    {
                        **settings,
                        "verified": "yes" if verified else "no",
                        "ari": ari(found.label),
                        "clusters": int(found.label.max()) + 1,
                        "alone": int((found.label < 0).sum()),
                        "threshold": found.threshold,
                        "rule": "none needed" if found.threshold is None else "shared neighbours",
                        "best_ari": max(best, default=None),
                    }
                )
    return rows


def _plain(vectors: np.ndarray, n_objects: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """What anybody would do with vectors: two methods that are told the number of objects, and one that is not."""
    distance = 1.0 - vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    told = {"similarity": "cosine", "verified": "no", "rule": "told the number of objects"}
    yield {"method": PLAIN + "k-means", **told}, k_means(vectors, n_objects)
    yield {"method": PLAIN + "average linkage", **told}, average_linkage(distance, n_objects)
    yield {"method": PLAIN + "HDBSCAN", **told, "rule": "none needed"}, density_clusters((distance + distance.T) / 2)


def _around(threshold: float) -> list[float]:
    """Thresholds on both sides of the chosen one, and itself."""
    below = np.linspace(threshold / 4, threshold, _TRIED // 2)
    return [*below.tolist(), *np.linspace(threshold, (1 + threshold) / 2, _TRIED // 2)[1:].tolist()]


class _Once:
    """A second look that is taken only once: all ways to cluster look at the same pairs."""

    def __init__(self, look: Verify) -> None:
        self._look = look
        self._scores: np.ndarray | None = None

    def __call__(self, pairs: np.ndarray) -> np.ndarray:
        if self._scores is None:
            self._scores = self._look(pairs)
        return self._scores
