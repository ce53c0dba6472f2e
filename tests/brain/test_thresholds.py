"""The threshold that is read off the data: what it separates, what it does not depend on, when it gives up."""

import numpy as np
import pytest
from fiftyone_selfsame.brain import thresholds
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.thresholds import FALLBACK_THRESHOLD, neighbour_profile


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def planted(n, copies, *, dim=48, common=0.0, noise=0.05, seed=0):
    """n vectors in loose classes, the last ``copies`` of them noisy copies of the first."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(12, dim)))
    vectors = centres[rng.integers(0, 12, n)] + 0.8 * unit(rng.normal(size=(n, dim)))
    vectors[n - copies :] = vectors[:copies]
    vectors = unit(vectors) + noise * unit(rng.normal(size=(n, dim)))
    return unit(vectors + common * centres[0])


def brute_force_ranks(vectors, ranks):
    cosines = unit(vectors) @ unit(vectors).T
    np.fill_diagonal(cosines, -np.inf)
    return -np.sort(-cosines, axis=1)[:, :ranks]


@pytest.mark.parametrize("copies", [20, 180])
@pytest.mark.parametrize("common", [0.0, 3.0])
def test_the_suggestion_separates_copies_from_look_alikes_at_any_level_of_similarity(copies, common):
    vectors = planted(400, copies, common=common)

    threshold, reason = neighbour_profile(vectors).suggest()

    cosines = vectors @ vectors.T
    is_copy = np.zeros((400, 400), bool)
    is_copy[np.arange(copies), 400 - copies + np.arange(copies)] = True
    upper = np.triu(np.ones((400, 400), bool), 1)
    assert (cosines[is_copy] >= threshold).mean() > 0.95
    assert (cosines[upper & ~is_copy] >= threshold).sum() < 0.05 * 400
    assert f"{threshold:.4f}" in reason


def test_the_suggestion_does_not_depend_on_the_lengths_of_the_vectors():
    vectors = planted(100, 10)

    scaled = vectors * np.random.default_rng(1).uniform(0.1, 9.0, (100, 1))

    assert neighbour_profile(scaled).suggest()[0] == pytest.approx(neighbour_profile(vectors).suggest()[0], abs=1e-5)


def test_where_copies_abound_the_suggestion_widens_to_find_more_of_them_at_a_bounded_price(monkeypatch):
    vectors = planted(400, 190, noise=np.linspace(0.0, 0.7, 400)[:, None])
    cosines = np.triu(vectors @ vectors.T, 1)
    is_copy = np.zeros((400, 400), bool)
    is_copy[np.arange(190), 210 + np.arange(190)] = True

    threshold, _ = neighbour_profile(vectors).suggest()
    monkeypatch.setattr("fiftyone_selfsame.brain.thresholds.MOST_CHANCE_NEIGHBOURS", thresholds.CHANCE_NEIGHBOURS)
    strict, _ = neighbour_profile(vectors).suggest()

    assert threshold < strict
    assert (cosines[is_copy] >= threshold).sum() > 1.1 * (cosines[is_copy] >= strict).sum()
    # Expected are 0.2 neighbours per image, each pair seen from both ends.
    assert (cosines[~is_copy] >= threshold).sum() < 2 * 0.2 * 400 / 2


@pytest.mark.parametrize("copies", [0, 30])
@pytest.mark.parametrize("seed", range(4))
def test_without_many_copies_the_suggestion_stays_strict(seed, copies, monkeypatch):
    vectors = planted(400, copies, seed=seed)

    threshold, _ = neighbour_profile(vectors).suggest()

    monkeypatch.setattr("fiftyone_selfsame.brain.thresholds.MOST_CHANCE_NEIGHBOURS", thresholds.CHANCE_NEIGHBOURS)
    assert threshold == neighbour_profile(vectors).suggest()[0]


def test_few_vectors_or_nothing_but_copies_give_the_fixed_threshold_and_say_so():
    few = neighbour_profile(planted(10, 2)).suggest()
    copies = neighbour_profile(np.repeat(planted(10, 0), 30, axis=0)).suggest()

    assert few == (FALLBACK_THRESHOLD, "fixed: 10 vectors are too few to judge their density")
    assert copies[0] == FALLBACK_THRESHOLD
    assert "copies" in copies[1]


def test_the_profile_lists_the_nearest_neighbours_across_blocks(monkeypatch):
    monkeypatch.setattr("fiftyone_selfsame.brain.thresholds._BLOCK_ROWS", 7)
    vectors = planted(90, 5)

    profile = neighbour_profile(vectors, queries=90)

    np.testing.assert_allclose(profile.similarity, brute_force_ranks(vectors, 64), atol=1e-6)


def test_pairs_are_kept_well_below_the_threshold_but_no_more_than_asked_for():
    vectors = planted(200, 10)
    profile = neighbour_profile(vectors, queries=200)

    roomy, tight = profile.floor(0.95, slack=3.0, pairs_per_image=100), profile.floor(0.95, pairs_per_image=1)

    cosines = np.triu(vectors @ vectors.T, 1)
    assert roomy == pytest.approx(0.85)
    assert tight <= 0.95
    assert (cosines >= tight).sum() <= 200 + 1


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_vectors_are_no_error(n):
    profile = neighbour_profile(planted(max(n, 2), 0)[:n])

    assert profile.suggest()[0] == FALLBACK_THRESHOLD
    assert profile.floor(0.9, slack=2.0) <= 0.9


def test_a_single_vector_instead_of_a_matrix_is_refused():
    with pytest.raises(ConfigError, match=r"\(n, d\) matrix"):
        neighbour_profile(np.ones(5))
