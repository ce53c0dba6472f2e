"""Retrieval figures against cases worked by hand, scikit-learn, and chance by simulation."""

import itertools

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.retrieval import (
    average_precision,
    chance_average_precision,
    instance_search_scores,
    retrieval_scores,
)
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score


@pytest.mark.parametrize(
    ("relevance", "total", "k", "expected"),
    [
        ([1, 1, 0], None, None, 1.0),
        ([0, 1], None, None, 1 / 2),
        ([1, 0, 1, 0, 1], None, None, (1 + 2 / 3 + 3 / 5) / 3),
        ([0, 0, 1], None, None, 1 / 3),
        ([1, 0, 1], 4, None, (1 + 2 / 3) / 4),
        ([1, 0, 1, 1], None, 2, 1 / 2),
        ([1, 1, 1, 1], 9, 2, 1.0),
        ([1, 0, 1], 3, 10, (1 + 2 / 3) / 3),
        ([0, 0, 1], None, 2, 0.0),
        ([], 2, None, 0.0),
    ],
)
def test_average_precision_of_lists_worked_by_hand(relevance, total, k, expected):
    assert average_precision(np.array(relevance), total, k) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("relevance", "total", "k", "expected"),
    [
        ([1, 1, 0], 2, None, 1.0),
        ([1, 0, 1, 1], 3, 2, 1 / 3),
        ([1, 1, 1, 1], 8, 2, 2 / 8),
        ([1, 0, 1], 3, 10, (1 + 2 / 3) / 3),
    ],
)
def test_the_norm_r_divides_by_all_relevant_images_at_every_cut_off(relevance, total, k, expected):
    assert average_precision(np.array(relevance), total, k, "R") == pytest.approx(expected)


@given(
    relevance=st.lists(st.booleans(), min_size=1, max_size=40).filter(any),
    k=st.integers(1, 45),
    missing=st.integers(0, 9),
)
def test_the_two_norms_differ_by_the_ratio_of_their_divisors(relevance, k, missing):
    total = sum(relevance) + missing

    by_min, by_r = (average_precision(np.array(relevance), total, k, norm) for norm in ("min", "R"))

    assert by_min * min(k, total) == pytest.approx(by_r * total)


def test_instance_search_reports_means_at_fifty_hundred_and_all():
    # One list is right throughout, the other one finds its only image at place 60.
    perfect, late = np.ones(120, bool), np.arange(1, 121) == 60

    scores, by_r = (instance_search_scores([perfect, late], [120, 1], norm) for norm in ("min", "R"))

    assert (scores.map_50, scores.map_100, scores.map_all) == pytest.approx((0.5, (1 + 1 / 60) / 2, (1 + 1 / 60) / 2))
    assert (by_r.map_50, by_r.map_all) == pytest.approx((50 / 120 / 2, (1 + 1 / 60) / 2))
    assert scores.n_queries == 2


def test_instance_search_without_queries_is_not_a_number_and_refuses_a_query_without_answers():
    assert np.isnan(instance_search_scores([], []).map_50)
    with pytest.raises(ConfigError, match="no relevant image"):
        instance_search_scores([np.zeros(3)], [0])


def test_instance_search_agrees_with_the_golden_values(shared_dir):
    with np.load(shared_dir / "reference" / "claid" / "functions.npz") as stored:
        relevance, totals, expected = (stored[f"ap_{name}"] for name in ("relevance", "total", "derived_50_100_all"))

    for ranked, total, values in zip(relevance, totals, expected, strict=True):
        scores = instance_search_scores([ranked], [int(total)])
        assert (scores.map_50, scores.map_100, scores.map_all) == pytest.approx(values, abs=1e-6)


def test_without_anything_relevant_there_is_no_average_precision():
    assert np.isnan(average_precision(np.zeros(5)))


def test_impossible_lists_are_refused():
    with pytest.raises(ConfigError, match="total=1 relevant images, but the list holds 2"):
        average_precision(np.array([1, 1]), total=1)
    with pytest.raises(ConfigError, match="k=0"):
        average_precision(np.array([1, 1]), k=0)
    with pytest.raises(ConfigError, match="norm='max' is unknown; use one of min, R"):
        average_precision(np.array([1, 1]), norm="max")


@given(relevance=st.lists(st.booleans(), min_size=1, max_size=40).filter(any))
def test_average_precision_agrees_with_scikit_learn(relevance):
    scores = -np.arange(len(relevance))

    assert average_precision(np.array(relevance)) == pytest.approx(average_precision_score(relevance, scores))


@pytest.mark.parametrize(("n", "r"), [(1, 1), (2, 1), (5, 2), (6, 3), (7, 6), (4, 4)])
def test_chance_average_precision_is_the_mean_over_all_orders(n, r):
    positions = itertools.combinations(range(n), r)
    values = [average_precision(np.isin(np.arange(n), chosen)) for chosen in positions]

    assert chance_average_precision(n, r) == pytest.approx(np.mean(values))


def similarity_of(n, seed=0):
    matrix = np.random.default_rng(seed).random((n, n))
    return (matrix + matrix.T) / 2


def test_a_case_of_four_images_worked_by_hand():
    """Queries 0 and 1 (object a) rank each other 2nd and 1st, 2 and 3 (object b) 1st and 3rd."""
    similarity = np.array(
        [
            [9.0, 0.5, 0.6, 0.1],
            [0.5, 9.0, 0.2, 0.4],
            [0.6, 0.2, 9.0, 0.7],
            [0.5, 0.4, 0.3, 9.0],
        ]
    )

    scores = retrieval_scores(similarity, ["a", "a", "b", "b"])

    assert scores.top1 == pytest.approx(2 / 4)
    assert scores.map == pytest.approx((1 / 2 + 1 + 1 + 1 / 3) / 4)
    assert (scores.n_queries, scores.n_skipped) == (4, 0)
    assert scores.chance_top1 == pytest.approx(1 / 3)
    assert scores.chance_map == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert np.isnan(scores.macro_map)


def literal_scores(similarity, objects, scopes):
    """Top-1, AP of each query by the definition: sort, walk down the list."""
    first, precision = {}, {}
    for query in range(len(objects)):
        others = [i for i in range(len(objects)) if i != query and scopes[i] == scopes[query]]
        ranked = sorted(others, key=lambda i: -similarity[query, i])
        hits = [objects[i] == objects[query] for i in ranked]
        if any(hits):
            first[query] = hits[0]
            precision[query] = np.mean([sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit])
    return first, precision


@given(
    objects=st.lists(st.integers(0, 4), min_size=1, max_size=25),
    seed=st.integers(0, 5),
    levels=st.sampled_from([3, 999]),
)
def test_scores_agree_with_the_definition_in_both_scopes_and_with_many_ties(objects, seed, levels):
    similarity = np.round(similarity_of(len(objects), seed) * levels) / levels
    categories = [one % 2 for one in objects]

    for scopes in (None, categories):
        first, precision = literal_scores(similarity, objects, scopes or [0] * len(objects))
        scores = retrieval_scores(similarity, objects, scopes, categories)
        assert scores.n_queries == len(first)
        assert scores.n_skipped == len(objects) - len(first)
        if first:
            assert scores.top1 == pytest.approx(np.mean(list(first.values())))
            assert scores.map == pytest.approx(np.mean(list(precision.values())))
            by_category = [[p for q, p in precision.items() if categories[q] == c] for c in (0, 1)]
            assert scores.macro_map == pytest.approx(np.mean([np.mean(values) for values in by_category if values]))
        else:
            assert np.isnan([scores.top1, scores.map, scores.chance_top1, scores.chance_map]).all()


def test_chance_is_what_random_similarities_score_on_average():
    objects = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    runs = [retrieval_scores(np.random.default_rng(seed).random((9, 9)), objects) for seed in range(600)]

    assert np.mean([run.top1 for run in runs]) == pytest.approx(runs[0].chance_top1, abs=0.015)
    assert np.mean([run.map for run in runs]) == pytest.approx(runs[0].chance_map, abs=0.015)


def test_images_without_a_partner_are_no_queries_but_stay_in_the_galleries():
    similarity = np.array([[1, 0.2, 0.9], [0.2, 1, 0.1], [0.9, 0.1, 1]])

    scores = retrieval_scores(similarity, ["a", "a", "alone"])

    assert (scores.n_queries, scores.n_skipped) == (2, 1)
    assert scores.top1 == pytest.approx(1 / 2)


def test_ties_are_broken_by_the_order_of_the_images():
    scores = retrieval_scores(np.ones((3, 3)), ["a", "b", "a"])

    assert scores.top1 == pytest.approx(1 / 2)
    assert scores.map == pytest.approx((1 / 2 + 1) / 2)


@pytest.mark.parametrize("own", [np.nan, np.inf, -np.inf, 5.0])
def test_the_similarity_of_an_image_to_itself_is_never_looked_at(own):
    similarity = np.random.default_rng(0).random((6, 6))
    expected = retrieval_scores(similarity, [0, 0, 1, 1, 2, 2])

    np.fill_diagonal(similarity, own)

    assert retrieval_scores(similarity, [0, 0, 1, 1, 2, 2]).map == expected.map


def test_similarities_may_be_unsigned_integers():
    similarity = np.array([[9, 0, 1, 2], [0, 9, 2, 1], [3, 1, 9, 0], [1, 2, 3, 9]], np.uint8)

    scores = retrieval_scores(similarity, [0, 0, 1, 1])

    assert (scores.top1, scores.map) == (0.25, pytest.approx((1 / 3 + 1 / 3 + 1 / 3 + 1) / 4))


def test_an_exact_duplicate_of_the_query_stays_in_the_gallery():
    vectors = np.array([[1, 0], [1, 0], [0, 1]], float)

    assert retrieval_scores(vectors @ vectors.T, ["a", "a", "b"]).top1 == 1


def test_within_a_category_only_images_of_the_category_compete():
    similarity = np.array([[1, 0.1, 0.9], [0.1, 1, 0.9], [0.9, 0.9, 1]])

    assert retrieval_scores(similarity, ["a", "a", "b"]).top1 == 0
    assert retrieval_scores(similarity, ["a", "a", "b"], ["cup", "cup", "shoe"]).top1 == 1


def test_broken_input_is_refused_by_name():
    with pytest.raises(ConfigError, match="image 1 is not finite"):
        retrieval_scores(np.array([[1, 0], [np.nan, 1]]), ["a", "a"])
    with pytest.raises(ConfigError, match=r"shape \(2, 3\)"):
        retrieval_scores(np.ones((2, 3)), ["a", "a"])
    with pytest.raises(ConfigError, match="object_ids has 3 entries for 2 images"):
        retrieval_scores(np.ones((2, 2)), ["a", "a", "b"])
