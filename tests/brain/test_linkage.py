"""Average linkage on a graph against a literal one, with and without constraints."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.cohesion import cohesion, compact, separation
from fiftyone_selfsame.brain.constraints import Constraints
from fiftyone_selfsame.brain.linkage import average_linkage
from fiftyone_selfsame.brain.pairs import Pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, silhouette_samples


def random_graph(n, share, seed):
    rng = np.random.default_rng(seed)
    i, j = np.triu_indices(n, 1)
    keep = rng.random(len(i)) < share
    values = rng.random(len(i)).astype(np.float32)
    return Pairs(i[keep].astype(np.int32), j[keep].astype(np.int32), values[keep])


def dense(n, pairs, rest):
    matrix = np.full((n, n), rest)
    matrix[pairs.i, pairs.j] = matrix[pairs.j, pairs.i] = pairs.similarity
    np.fill_diagonal(matrix, 1)
    return matrix


def literal_linkage(matrix, least, constraints):
    """Merges the pair of clusters with the greatest mean similarity as long as it is enough and allowed."""
    closure = constraints.closure(len(matrix))
    clusters = [np.flatnonzero(closure == part) for part in np.unique(closure)]
    apart = {tuple(pair) for pair in np.concatenate([constraints.cannot, constraints.cannot[:, ::-1]]).tolist()}
    while True:
        options = [
            (matrix[np.ix_(clusters[a], clusters[b])].mean(), a, b)
            for a in range(len(clusters))
            for b in range(a)
            if not any((i, j) in apart for i in clusters[a].tolist() for j in clusters[b].tolist())
        ]
        if not options or max(options)[0] < least:
            break
        _, a, b = max(options)
        clusters[b] = np.concatenate([clusters[b], clusters.pop(a)])
    labels = np.zeros(len(matrix), int)
    for number, members in enumerate(clusters):
        labels[members] = number
    return labels


RULES = Constraints.from_sets(together=[[0, 5, 9], [1, 2]], apart=[([0], [1, 3]), ([4], [6])])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([0.3, 1.0]),
    rest=st.sampled_from([0.0, 0.2]),
    rules=st.sampled_from([Constraints(), RULES]),
)
def test_clusters_are_those_of_the_literal_linkage(seed, share, rest, rules):
    pairs = random_graph(14, share, seed)

    # Pairs that are not listed are no candidates for a merge, whatever `rest`.
    found = average_linkage(14, pairs, 0.45, rest=rest, constraints=rules).cut(0.45)

    expected = literal_linkage(dense(14, pairs, rest), 0.45, rules)
    assert adjusted_rand_score(found, expected) == 1


def test_a_higher_cut_is_a_refinement_of_a_lower_one():
    merges = average_linkage(40, random_graph(40, 0.5, 3), 0.1)

    fine, coarse = merges.cut(0.5), merges.cut(0.3)

    assert (np.diff(merges.similarity) <= 0).all()
    assert len(np.unique(fine)) > len(np.unique(coarse))
    assert all(len(np.unique(coarse[fine == label])) == 1 for label in np.unique(fine))


def test_silhouettes_on_a_complete_graph_are_those_of_rousseeuw():
    pairs = random_graph(20, 1.0, 0)
    label = np.random.default_rng(0).integers(0, 3, 20)

    found = cohesion(label, pairs)

    distance = 1 - dense(20, pairs, 0.0)
    np.fill_diagonal(distance, 0)
    assert np.allclose(found.silhouette(), silhouette_samples(distance, label, metric="precomputed"), atol=1e-5)
    assert np.allclose(found.confidence(), (1 + found.silhouette()) / 2, atol=1e-6)


def test_the_true_partition_separates_better_than_coarser_and_finer_ones():
    truth = np.repeat(np.arange(4), 5)
    i, j = np.triu_indices(20, 1)
    values = np.where(truth[i] == truth[j], 0.8, 0.1).astype(np.float32)
    pairs = Pairs(i.astype(np.int32), j.astype(np.int32), values)

    right = separation(truth, pairs)

    assert right > separation(truth // 2, pairs)
    assert right > separation(np.arange(20) // 2, pairs)
    assert separation(np.arange(20), pairs) == 0


def test_a_member_that_lies_far_out_is_the_outlier():
    label = np.zeros(6, np.int32)
    i, j = np.triu_indices(6, 1)
    pairs = Pairs(i.astype(np.int32), j.astype(np.int32), np.where(j == 5, 0.2, 0.9).astype(np.float32))

    outlier = cohesion(label, pairs).outlier()

    assert outlier.argmax() == 5
    assert outlier[5] > 0.5
    assert outlier[:5] == pytest.approx(0, abs=1e-6)


def test_numbers_follow_size_and_small_clusters_are_none_unless_they_always_count():
    label = np.array([7, 7, 3, 3, 3, 9, 4, -1, -1])

    assert compact(label).tolist() == [1, 1, 0, 0, 0, -1, -1, -1, -1]
    assert compact(label, 3).tolist() == [-1, -1, 0, 0, 0, -1, -1, -1, -1]
    assert compact(label, 3, always=np.array([1])).tolist() == [1, 1, 0, 0, 0, -1, -1, -1, -1]
