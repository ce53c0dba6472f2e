"""Same-object clusters: what is found, what a reviewer's decisions do to it, and how sure it is."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.clusters import CLUSTER_METHODS, CLUSTER_SIMILARITIES, ClusterSettings, cluster
from fiftyone_selfsame.brain.constraints import Constraints
from fiftyone_selfsame.brain.density import density_labels, honour
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.pairs import Pairs
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import HDBSCAN
from sklearn.metrics import adjusted_rand_score

ALL_WAYS = [(method, similarity) for method in CLUSTER_METHODS for similarity in CLUSTER_SIMILARITIES]


def bundles(n_objects=6, n_images=6, spread=0.05, seed=0):
    """Unit vectors around well separated directions, and the object of each."""
    rng = np.random.default_rng(seed)
    objects = np.repeat(np.arange(n_objects), n_images)
    rows = np.eye(n_objects, 24)[objects] + rng.normal(0, spread, (len(objects), 24))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), objects


def each_alone(label):
    """Rows outside clusters as clusters of their own."""
    return np.where(label < 0, len(label) + np.arange(len(label)), label)


@pytest.mark.parametrize(("method", "similarity"), ALL_WAYS)
def test_separate_bundles_are_found_without_a_threshold(method, similarity):
    vectors, objects = bundles()

    found = cluster(vectors, ClusterSettings(method, similarity))

    # Shared neighbours have no density to speak of: HDBSCAN splits objects there.
    least = 0.5 if (method, similarity) == ("hdbscan", "reciprocal") else 0.9
    assert adjusted_rand_score(objects, each_alone(found.label)) > least
    assert found.label.min() >= -1
    assert (found.threshold is None) == (method == "hdbscan")
    assert found.reason


@pytest.mark.parametrize(("method", "similarity"), ALL_WAYS)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000))
def test_decisions_hold_exactly_whatever_the_vectors_say(method, similarity, seed):
    rng = np.random.default_rng(seed)
    vectors, _ = bundles(4, 5, 0.3, seed)
    together = [rng.choice(20, 3, replace=False).tolist(), rng.choice(20, 2, replace=False).tolist()]
    closure = Constraints.from_sets(together=together).closure(20)
    pairs = [(int(a), int(b)) for a, b in rng.integers(0, 20, (12, 2)) if closure[a] != closure[b]]
    rules = Constraints.from_sets(together=together, apart=[([a], [b]) for a, b in pairs])

    label = cluster(vectors, ClusterSettings(method, similarity, min_size=4), constraints=rules).label

    for rows in together:
        assert len(set(label[rows].tolist())) == 1
        assert label[rows[0]] >= 0
    assert all(label[a] != label[b] or label[a] == -1 for a, b in pairs)


@pytest.mark.parametrize("method", CLUSTER_METHODS)
def test_one_decision_joins_two_clusters_and_another_parts_one(method):
    vectors, objects = bundles()
    rules = Constraints.from_sets(together=[np.flatnonzero(objects < 2).tolist()], apart=[([12, 13, 14], [15, 16, 17])])

    label = cluster(vectors, ClusterSettings(method, "cosine"), constraints=rules).label

    assert len(np.unique(label[:12])) == 1
    assert not set(label[12:15]) & set(label[15:18]) - {-1}
    assert len(np.unique(label[12:15])) == 1


def test_contradicting_decisions_are_refused():
    vectors, _ = bundles()
    with pytest.raises(ConfigError, match="rows 0 and 1"):
        cluster(vectors, constraints=Constraints.from_sets(together=[[0, 1]], apart=[([0], [1])]))


def test_the_largest_cluster_comes_first_and_small_ones_are_none():
    vectors, _ = bundles(3, 8)
    keep = np.concatenate([np.arange(3), np.arange(8, 16), np.arange(16, 21)])

    found = cluster(vectors[keep], ClusterSettings(min_size=4, similarity="cosine"))

    assert found.label.tolist() == [-1] * 3 + [0] * 8 + [1] * 5


def test_confidence_and_outliers_point_at_the_row_in_between():
    vectors, _ = bundles(2, 10, 0.08)
    between = vectors[0] + 0.8 * vectors[10]
    rows = np.concatenate([vectors, [between / np.linalg.norm(between)]])

    found = cluster(rows, ClusterSettings("agglomerative", "cosine", threshold=0.5))

    assert found.label[20] == found.label[0]
    assert found.confidence.argmin() == 20
    assert found.outlier.argmax() == 20
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1


def test_a_second_look_overrules_the_vectors():
    rng = np.random.default_rng(0)
    vectors, objects = rng.normal(size=(24, 4)), np.repeat(np.arange(6), 4)
    seen = []

    def look(pairs):
        seen.append(pairs)
        return np.where(objects[pairs[:, 0]] == objects[pairs[:, 1]], 0.9, 0.1)

    found = cluster(vectors, ClusterSettings(similarity="cosine"), verify=look)

    assert adjusted_rand_score(objects, found.label) == 1
    assert len(seen) == 1
    assert len(np.unique(seen[0], axis=0)) == 24 * 23 / 2


def test_known_neighbours_save_the_search():
    vectors, _ = bundles()
    others = vectors @ vectors.T - 2 * np.eye(len(vectors))
    index = np.argsort(-others, axis=1)[:, :30]

    found = cluster(vectors, neighbours=(index, np.take_along_axis(others, index, axis=1)))

    assert np.array_equal(found.label, cluster(vectors).label)


def test_objects_with_many_pictures_stay_together_if_sets_of_neighbours_are_as_large():
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(3, 32)), 40, axis=0)
    vectors = centres + 0.3 * rng.normal(size=centres.shape)

    small, large = (cluster(vectors, ClusterSettings(pictures=p, neighbours=60)).label for p in (8, 25))

    truth = np.repeat(np.arange(3), 40)
    assert adjusted_rand_score(truth, each_alone(small)) < 0.6
    assert adjusted_rand_score(truth, each_alone(large)) > 0.85


@pytest.mark.parametrize("n", [0, 1, 2])
@pytest.mark.parametrize("method", CLUSTER_METHODS)
def test_hardly_any_rows_are_no_clusters_and_no_error(n, method):
    vectors = np.eye(3, dtype=np.float32)[:n]

    found = cluster(vectors, ClusterSettings(method, min_size=3))

    assert found.label.tolist() == [-1] * n
    assert len(found.confidence) == len(found.outlier) == n


def test_components_are_no_wider_than_allowed():
    angles = np.linspace(0, 1.2, 13)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1)

    chain = cluster(vectors, ClusterSettings("components", "cosine", threshold=0.99)).label
    tight = cluster(vectors, ClusterSettings("components", "cosine", threshold=0.99, max_diameter=0.05)).label

    assert set(chain.tolist()) == {0}
    cosine = vectors @ vectors.T
    assert min(cosine[np.ix_(tight == k, tight == k)].min() for k in range(tight.max() + 1)) >= 0.95


@pytest.mark.parametrize("min_size", [2, 4])
def test_density_clusters_on_a_complete_graph_are_those_of_scikit_learn(min_size):
    vectors, _ = bundles(5, 8, 0.15, seed=2)
    cosine = (vectors @ vectors.T).astype(np.float32)
    i, j = np.triu_indices(40, 1)
    pairs = Pairs(i.astype(np.int32), j.astype(np.int32), cosine[i, j])

    found = density_labels(40, pairs, min_size, 0.0, Constraints())

    distance = np.maximum(1 - cosine.astype(np.float64), 0)
    np.fill_diagonal(distance, 0)
    model = HDBSCAN(min_cluster_size=min_size, min_samples=min_size, metric="precomputed", copy=True)
    expected = model.fit_predict((distance + distance.T) / 2)
    assert adjusted_rand_score(each_alone(found), each_alone(expected)) == 1


def test_parts_of_a_graph_without_links_between_them_are_separate_clusters():
    i = np.array([0, 0, 1, 3, 3, 4], np.int32)
    j = np.array([1, 2, 2, 4, 5, 5], np.int32)

    found = density_labels(7, Pairs(i, j, np.full(6, 0.8, np.float32)), 2, 0.0, Constraints())

    assert found[0] == found[1] == found[2] != found[3] == found[4] == found[5]
    assert found[6] == -1


def test_a_torn_cluster_is_split_where_it_is_weakest():
    i, j = np.triu_indices(6, 1)
    block = np.arange(6) // 3
    pairs = Pairs(i.astype(np.int32), j.astype(np.int32), np.where(block[i] == block[j], 0.9, 0.3).astype(np.float32))

    split = honour(np.zeros(6, np.int32), pairs, 0.0, Constraints.from_sets(apart=[([0], [5])]))

    assert len(set(split[:3].tolist())) == len(set(split[3:].tolist())) == 1
    assert split[0] != split[5]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "magic"}, "method='magic'"),
        ({"similarity": "euclid"}, "similarity='euclid'"),
        ({"threshold": 2.0}, "threshold=2.0"),
        ({"min_size": 1}, "min_size=1"),
        ({"neighbours": 0}, "neighbours=0"),
        ({"pictures": 0}, "pictures=0"),
        ({"max_diameter": 0.5}, "max_diameter"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(options, text):
    with pytest.raises(ConfigError, match=text):
        ClusterSettings(**options)
