"""Adjusted Rand indices on clusters that can be seen, and against a linkage by hand."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.clustering import average_linkage, clustering_scores, density_clusters
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score


def bundles(n_objects, n_images, spread, seed=0):
    """Unit vectors around well separated directions, and the object of each."""
    rng = np.random.default_rng(seed)
    objects = np.repeat(np.arange(n_objects), n_images)
    vectors = np.eye(n_objects, 16)[objects] + rng.normal(0, spread, (len(objects), 16))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), objects


def scores_of(vectors, objects, scopes=None):
    return clustering_scores(vectors @ vectors.T, objects, scopes, vectors)


def test_separate_bundles_are_found_by_all_three_ways():
    scores = scores_of(*bundles(6, 5, 0.02))

    assert (scores.ari, scores.ari_kmeans, scores.ari_free) == (1, 1, 1)
    assert scores.n_scopes == 1


def test_random_vectors_score_about_zero():
    vectors, objects = bundles(6, 8, 50.0)

    scores = scores_of(vectors, objects)

    assert abs(scores.ari) < 0.1
    assert abs(scores.ari_kmeans) < 0.1
    assert abs(scores.ari_free) < 0.1


def literal_average_linkage(distance, n_clusters):
    """Merges the two clusters with the least mean distance until enough are left."""
    clusters = [[i] for i in range(len(distance))]
    while len(clusters) > n_clusters:
        pairs = [(a, b) for a in range(len(clusters)) for b in range(a)]
        a, b = min(pairs, key=lambda pair: distance[np.ix_(clusters[pair[0]], clusters[pair[1]])].mean())
        clusters[b] += clusters.pop(a)
    labels = np.zeros(len(distance), int)
    for label, members in enumerate(clusters):
        labels[members] = label
    return labels


@given(seed=st.integers(0, 30), n_clusters=st.integers(1, 5))
def test_average_linkage_merges_by_mean_distance(seed, n_clusters):
    vectors = np.random.default_rng(seed).normal(size=(12, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distance = 1 - vectors @ vectors.T

    labels = average_linkage(distance, n_clusters)

    assert adjusted_rand_score(labels, literal_average_linkage(distance, n_clusters)) == 1


def test_the_threshold_free_way_leaves_strangers_alone():
    vectors, _ = bundles(4, 4, 0.01)
    vectors = np.concatenate([vectors, np.eye(16)[[10, 12]]])

    labels = density_clusters(1 - vectors @ vectors.T)

    assert len(np.unique(labels)) == 6
    assert (labels[:-2] != labels[-1]).all()
    assert labels[-1] != labels[-2]


def test_scopes_are_clustered_apart_and_averaged():
    good, objects = bundles(3, 4, 0.01)
    mixed = np.tile(np.eye(16)[:2], (6, 1))

    together = clustering_scores(
        np.concatenate([good, mixed]) @ np.concatenate([good, mixed]).T,
        [*objects, *np.repeat([7, 8], 6)],
        ["good"] * 12 + ["mixed"] * 12,
    )

    apart = [scores_of(good, objects).ari, scores_of(mixed, np.repeat([7, 8], 6)).ari]
    assert together.ari == pytest.approx(np.mean(apart))
    assert together.n_scopes == 2
    assert np.isnan(together.ari_kmeans)


def test_scopes_that_cannot_tell_good_from_bad_are_left_out():
    vectors, _ = bundles(2, 3, 0.01)

    scores = scores_of(vectors, [0, 0, 0, 5, 6, 7], ["one object"] * 3 + ["no pair"] * 3)

    assert scores.n_scopes == 0
    assert np.isnan([scores.ari, scores.ari_kmeans, scores.ari_free]).all()


def test_broken_input_is_refused_by_name():
    with pytest.raises(ConfigError, match="3 vectors for 2 images"):
        clustering_scores(np.ones((2, 2)), ["a", "b"], vectors=np.ones((3, 4)))
    with pytest.raises(ConfigError, match="not finite"):
        clustering_scores(np.full((2, 2), np.nan), ["a", "b"])
