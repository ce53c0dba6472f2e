"""HDBSCAN on a graph of nearest neighbours, with a reviewer's decisions put in force afterwards."""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from .cohesion import UNCLUSTERED
from .constraints import Constraints
from .linkage import average_linkage
from .pairs import Pairs

# A distance of 0 would be no entry of a sparse matrix.
_LEAST_DISTANCE = 1e-6


def density_labels(n: int, pairs: Pairs, min_size: int, rest: float, constraints: Constraints) -> np.ndarray:
    """``(n,)`` int32 clusters that persist over the widest range of densities; -1 for noise.

    Source: Campello, Moulavi and Sander, "Density-Based Clustering Based on Hierarchical Density Estimates", 2013.

    Args:
        n: number of rows.
        pairs: the graph; distances are ``1 - similarity``.
        min_size: rows of the smallest cluster, and neighbours (the row counted) that make a place dense.
        rest: similarity of pairs that the graph does not list.
        constraints: rows that must be together are at distance 0; see :func:`honour` for the rest.
    """
    from sklearn.cluster import HDBSCAN

    if n < max(min_size, 2):
        label = np.full(n, UNCLUSTERED, np.int32)
    else:
        tree = _spanning_tree(n, _with_links(pairs, constraints), min_size, 1.0 - rest)
        # The tree holds mutual reachability already, which one sample leaves as it is.
        model = HDBSCAN(min_cluster_size=max(min_size, 2), min_samples=1, metric="precomputed", copy=True)
        label = model.fit_predict(tree).astype(np.int32)
    return honour(label, pairs, rest, constraints)


def honour(label: np.ndarray, pairs: Pairs, rest: float, constraints: Constraints) -> np.ndarray:
    """Makes clusters obey constraints: must-linked rows go where most of them are, torn clusters are split.

    Args:
        label: ``(n,)`` int clusters, -1 for none.
        pairs: the graph that decides how a cluster with rows that must be apart is split (by average linkage).
        rest: similarity of pairs that the graph does not list.
        constraints: what must hold.
    """
    n, label = len(label), label.copy()
    closure = constraints.closure(n)
    fresh = label.max(initial=0) + 1
    for part in np.unique(closure[constraints.must]):
        rows = np.flatnonzero(closure == part)
        known = label[rows][label[rows] != UNCLUSTERED]
        label[rows] = np.bincount(known).argmax() if len(known) else fresh + part
    a, b = label[constraints.cannot].T
    torn = np.unique(a[(a == b) & (a != UNCLUSTERED)])
    if len(torn):
        inside = (label[pairs.i] == label[pairs.j]) & np.isin(label[pairs.i], torn)
        within = Pairs(pairs.i[inside], pairs.j[inside], pairs.similarity[inside])
        split = average_linkage(n, within, -1.0, rest=rest, constraints=constraints).cut(-1.0)
        moved = np.isin(label, torn)
        label[moved] = fresh + n + split[moved]
    return label


def _with_links(pairs: Pairs, constraints: Constraints) -> Pairs:
    """The graph with all must-links at similarity 1; a pair is listed once."""
    must = np.sort(constraints.must, axis=1)
    i, j = np.concatenate([must[:, 0], pairs.i]), np.concatenate([must[:, 1], pairs.j])
    similarity = np.concatenate([np.ones(len(must), np.float32), pairs.similarity])
    # The first of equal pairs is kept, which is the must-link.
    _, first = np.unique(np.stack([i, j]), axis=1, return_index=True)
    return Pairs(i[first], j[first], similarity[first])


def _spanning_tree(n: int, pairs: Pairs, min_samples: int, far: float) -> csr_array:
    """``(n, n)`` symmetric minimum spanning tree of mutual reachability distances; unlinked parts are ``far`` away."""
    i, j = pairs.i, pairs.j
    distance = np.maximum(1.0 - pairs.similarity.astype(np.float64), _LEAST_DISTANCE)
    core = _core_distances(n, i, j, distance, min_samples, far)
    reach = np.maximum(distance, np.maximum(core[i], core[j]))
    graph = csr_array((reach, (i, j)), shape=(n, n))
    _, component = connected_components(graph, directed=False)
    _, lead = np.unique(component, return_index=True)
    bridges = csr_array((np.full(len(lead) - 1, max(far, core.max())), (lead[:-1], lead[1:])), shape=(n, n))
    tree = csr_array(minimum_spanning_tree(graph + bridges))
    return csr_array(tree + tree.T)


def _core_distances(
    n: int, i: np.ndarray, j: np.ndarray, distance: np.ndarray, min_samples: int, far: float
) -> np.ndarray:
    """``(n,)`` distance within which a row has ``min_samples`` rows, itself among them; ``far`` where it has fewer."""
    own, both = np.concatenate([i, j]), np.tile(distance, 2)
    order = np.lexsort((both, own))
    starts = np.searchsorted(own[order], np.arange(n))
    place = starts + min_samples - 2
    enough = place < np.searchsorted(own[order], np.arange(n), side="right")
    core = np.full(n, far)
    core[enough] = both[order][place[enough]]
    return core
