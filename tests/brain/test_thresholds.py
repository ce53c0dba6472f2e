"""The threshold that is read off the data: what it separates, what it does not depend on, when it gives up."""

import numpy as np
import pytest
from fiftyone_selfsame.brain import thresholds
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.thresholds import (
    FALLBACK_THRESHOLD,
    nearest_similarity_histogram,
    neighbour_profile,
    suggest_from_decisions,
    suggest_from_mixture,
    suggest_threshold,
)


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


def two_heaps(copies, others, *, gap=1.0, seed=0):
    """Cosines to the nearest neighbour: log-normal distances around 0.01 (copies) and, ``gap`` decades up, others."""
    rng = np.random.default_rng(seed)
    distance = np.concatenate(
        [rng.lognormal(np.log(0.01), 0.4, copies), rng.lognormal(np.log(0.01 * 10**gap), 0.4, others)]
    )
    return 1.0 - distance


@pytest.mark.parametrize(("copies", "others"), [(500, 500), (40, 960), (700, 60)])
def test_two_heaps_of_nearest_neighbours_are_parted_where_they_meet(copies, others):
    nearest = two_heaps(copies, others)

    threshold, reason = suggest_from_mixture(nearest)

    assert (nearest[:copies] >= threshold).mean() > 0.95
    assert (nearest[copies:] < threshold).mean() > 0.95
    assert "two heaps" in reason
    assert f"{threshold:.4f}" in reason
    # Of equal heaps of one width, the middle of the logarithms is the likeliest border: 1 - 10 ** -1.5.
    if copies == others:
        assert threshold == pytest.approx(1 - 10**-1.5, abs=0.004)


def test_exact_copies_are_no_heap_and_change_nothing():
    exact = 1.0 - np.random.default_rng(1).uniform(-1e-6, 1e-5, 100)

    assert suggest_from_mixture(np.concatenate([exact, two_heaps(0, 400)]))[0] is None
    assert suggest_from_mixture(np.concatenate([exact, two_heaps(90, 400)])) == suggest_from_mixture(two_heaps(90, 400))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_one_heap_is_not_parted(seed, gap):
    threshold, reason = suggest_from_mixture(two_heaps(300, 300, gap=gap, seed=seed))

    assert threshold is None
    assert "one heap" in reason


def test_one_skewed_heap_is_not_parted():
    evenly = 1.0 - np.random.default_rng(0).uniform(0.2, 0.6, 2000)

    assert suggest_from_mixture(evenly)[0] is None


def test_few_copies_among_many_images_are_no_heap():
    assert suggest_from_mixture(two_heaps(5, 2000))[0] is None


def test_images_without_a_neighbour_are_left_out_and_hardly_any_give_no_heaps():
    nearest = two_heaps(100, 100)

    with_strangers = np.concatenate([nearest, [-np.inf, np.nan]])

    assert suggest_from_mixture(with_strangers) == suggest_from_mixture(nearest)
    assert suggest_from_mixture(nearest[:19])[0] is None
    assert suggest_from_mixture(np.zeros(0))[0] is None


def test_decisions_are_parted_in_the_middle_of_their_gap():
    threshold, reason = suggest_from_decisions(
        [0.99, 0.98, 0.97, 0.96, 0.95, 0.90, 0.89, 0.88, 0.87, 0.86], [True] * 5 + [False] * 5
    )

    assert threshold == pytest.approx(0.925)
    assert "5 of 5 confirmed pairs and 0 of 5 rejected" in reason


def test_mixed_decisions_are_cut_where_f1_is_highest():
    similarity = np.array([0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92, 0.91, 0.90, 0.89])
    same = np.array([1, 1, 0, 1, 1, 1, 0, 0, 0, 0, 1], bool)

    threshold, _ = suggest_from_decisions(similarity, same)

    # By hand: down to 0.94, five of six confirmed and one rejected: 2 * 5 / (6 + 6); all of them: 2 * 6 / (11 + 6).
    assert threshold == pytest.approx(0.935)
    cuts = [2 * same[similarity >= cut].sum() / ((similarity >= cut).sum() + same.sum()) for cut in similarity]
    assert max(cuts) == pytest.approx(10 / 12)


def test_pairs_of_one_similarity_are_never_parted():
    threshold, _ = suggest_from_decisions([0.9] * 8 + [0.8] * 4, [True] * 6 + [False] * 6)

    assert threshold == pytest.approx(0.85)


def test_too_few_decisions_of_either_answer_give_no_threshold():
    assert suggest_from_decisions([0.9] * 20, [True] * 20)[0] is None
    assert suggest_from_decisions([0.9] * 20, [True] * 4 + [False] * 16)[0] is None
    assert suggest_from_decisions([], []) == (None, "too few decisions: 0 pairs confirmed, 0 rejected; 5 of each do")


def test_decisions_and_similarities_must_be_as_many():
    with pytest.raises(ConfigError, match="3 similarities of decided pairs, but 2 decisions"):
        suggest_from_decisions([0.9, 0.8, 0.7], [True, False])


def test_the_suggestion_takes_decisions_before_heaps_and_heaps_before_density():
    heaps = neighbour_profile(planted(400, 60))
    plain = neighbour_profile(planted(400, 0))
    enough = (np.linspace(0.99, 0.9, 10), np.arange(10) < 5)

    assert suggest_threshold(heaps, decided=enough)[1].startswith("from decisions")
    assert "two heaps" in suggest_threshold(heaps, decided=(np.ones(3), np.ones(3, bool)))[1]
    assert suggest_threshold(heaps) == suggest_from_mixture(heaps.similarity[:, 0])
    assert suggest_threshold(plain) == plain.suggest()


def test_a_valley_between_good_and_bad_copies_is_not_taken_for_the_one_between_copies_and_others():
    nearest = two_heaps(100, 300)

    assert suggest_from_mixture(nearest, unrelated=0.95)[0] == suggest_from_mixture(nearest)[0]
    threshold, reason = suggest_from_mixture(nearest, unrelated=0.85)
    assert threshold is None
    assert "one heap of copies" in reason


def test_where_all_images_have_copies_the_density_decides():
    rng = np.random.default_rng(0)
    originals = unit(rng.normal(size=(200, 48)))
    noise = np.repeat([0.02, 0.3], 100)[:, None]
    profile = neighbour_profile(np.concatenate([originals, unit(originals + noise * unit(rng.normal(size=(200, 48))))]))

    assert suggest_from_mixture(profile.similarity[:, 0])[0] > 0.97
    assert suggest_threshold(profile) == profile.suggest()
    assert suggest_threshold(profile)[0] < 0.95


@pytest.mark.parametrize("n", [0, 1, 3])
def test_the_suggestion_copes_with_hardly_any_vectors(n):
    assert suggest_threshold(neighbour_profile(planted(max(n, 2), 0)[:n]))[0] == FALLBACK_THRESHOLD


def test_the_histogram_counts_each_image_once_from_the_least_similarity_to_one():
    histogram = nearest_similarity_histogram(
        np.array([0.0, 0.1, 0.26, 0.5, 0.99, 1.0, 1.0000001, np.nan, -np.inf]), bins=4
    )

    np.testing.assert_allclose(histogram.edges, [0, 0.25, 0.5, 0.75, 1])
    assert histogram.counts.tolist() == [2, 1, 1, 3]


def test_the_histogram_of_copies_or_of_nothing_is_no_error():
    assert nearest_similarity_histogram(np.ones(7)).counts.sum() == 7
    assert nearest_similarity_histogram(np.zeros(0)).counts.tolist() == [0] * 60
    with pytest.raises(ConfigError, match="bins=0"):
        nearest_similarity_histogram(np.ones(3), bins=0)


def test_a_threshold_close_to_one_can_be_lowered_too():
    vectors = np.random.default_rng(0).normal(size=(40, 16))

    assert neighbour_profile(vectors).floor(0.99999) == pytest.approx(0.97999)
