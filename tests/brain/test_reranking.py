"""Re-ranked similarities against literal forms of the papers' formulas."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.reranking import local_scaling, neighbour_graph, reciprocal


def unit_rows(n, seed=0, bundles=6):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 10)) + 3 * np.eye(bundles, 10)[rng.integers(0, bundles, n)]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lists_of(cosine, k):
    others = cosine.copy()
    np.fill_diagonal(others, -np.inf)
    index = np.argsort(-others, axis=1, kind="stable")[:, :k]
    return index, np.take_along_axis(cosine, index, axis=1)


def complete_graph(rows):
    cosine = (rows @ rows.T).astype(np.float32)
    return cosine.astype(np.float64), neighbour_graph(*lists_of(cosine, len(rows) - 1))


def matrix_of(n, pairs):
    found = np.eye(n)
    found[pairs.i, pairs.j] = found[pairs.j, pairs.i] = pairs.similarity
    return found


def literal_reciprocal(cosine, k1, k2):
    """k-reciprocal encoding with sets and loops, for a complete graph."""
    n = len(cosine)
    ranked = np.argsort(-(cosine + 10 * np.eye(n)), axis=1, kind="stable")  # the row itself comes first

    def mutual(row, k):
        return {c for c in ranked[row, : k + 1] if row in ranked[c, : k + 1]}

    weights = np.zeros((n, n))
    for row in range(n):
        own = mutual(row, k1)
        members = set(own)
        for candidate in own:
            theirs = mutual(candidate, max(round(k1 / 2), 1))
            if len(theirs & own) > 2 / 3 * len(theirs):
                members |= theirs
        for member in members:
            weights[row, member] = np.exp(-(2 - 2 * cosine[row, member])) if member != row else 1.0
        weights[row] /= weights[row].sum()
    weights = np.stack([weights[ranked[row, :k2]].mean(axis=0) for row in range(n)])
    return np.array([[np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in weights] for a in weights])


@pytest.mark.parametrize(("k1", "k2"), [(8, 3), (5, 1), (10, 4), (1, 2)])
def test_reciprocal_similarity_is_the_papers_on_a_complete_graph(k1, k2):
    cosine, graph = complete_graph(unit_rows(40))

    found = matrix_of(40, reciprocal(40, graph, k1, k2))

    assert np.allclose(found, literal_reciprocal(cosine, k1, k2), atol=1e-5)


@pytest.mark.parametrize("k", [1, 5])
def test_local_scaling_is_the_papers_on_a_complete_graph(k):
    cosine, graph = complete_graph(unit_rows(30))

    found = matrix_of(30, local_scaling(30, graph, k))

    distance = np.sqrt(np.maximum(2 - 2 * cosine, 0))
    scale = [np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(distance)]
    assert np.allclose(
        found, np.exp(-(distance**2) / np.outer(scale, scale)) * (1 - np.eye(30)) + np.eye(30), atol=1e-5
    )


@pytest.mark.parametrize("rescale", [reciprocal, local_scaling])
def test_a_sparse_graph_keeps_its_pairs_in_bounds_and_order_of_rows_does_not_matter(rescale):
    rows = unit_rows(60)
    order = np.random.default_rng(1).permutation(60)
    graph, shuffled = (neighbour_graph(*lists_of(r @ r.T, 12)) for r in (rows, rows[order]))

    one, other = matrix_of(60, rescale(60, graph)), matrix_of(60, rescale(60, shuffled))

    assert len(rescale(60, graph)) == len(graph) < 60 * 12
    assert one.min() >= 0
    assert one.max() <= 1
    assert np.allclose(one[np.ix_(order, order)], other, atol=1e-5)


def test_a_graph_lists_each_pair_once_and_knows_absent_neighbours():
    graph = neighbour_graph(np.array([[1, 2], [0, -1], [1, 0]]), np.array([[0.9, 0.5], [0.9, 0.0], [0.4, 0.5]]))

    assert list(zip(graph.i.tolist(), graph.j.tolist(), strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert graph.similarity == pytest.approx([0.9, 0.5, 0.4])


def test_rows_without_neighbours_and_equal_rows_do_no_harm():
    rows = np.repeat(unit_rows(3), 4, axis=0)
    graph = neighbour_graph(*lists_of(rows @ rows.T, 3))

    for rescale in (reciprocal, local_scaling):
        found = matrix_of(13, rescale(13, graph))  # row 12 is not on the graph
        assert np.isfinite(found).all()
        assert found[0, 1] == pytest.approx(1, abs=1e-3)


def test_counts_below_one_are_refused_by_name():
    _, graph = complete_graph(unit_rows(5))
    with pytest.raises(ConfigError, match="k1=0"):
        reciprocal(5, graph, k1=0)
    with pytest.raises(ConfigError, match="k=0"):
        local_scaling(5, graph, k=0)
