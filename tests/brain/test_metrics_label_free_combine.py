"""Label-free scores put together, and how well they find errors: cases by hand, and slow references."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.label_free_combine import (
    auroc,
    combined_score,
    confusions,
    fitted_weights,
    rank_scores,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

values = arrays(np.float64, 8, elements=st.one_of(st.integers(0, 4).map(float), st.just(math.nan)))
kinds = arrays(int, 8, elements=st.integers(0, 2))


@given(values, kinds)
def test_ranks_are_the_share_of_the_others_below(scores, categories):
    for i, score in enumerate(scores):
        others = [
            scores[j] for j in range(8) if j != i and categories[j] == categories[i] and not math.isnan(scores[j])
        ]
        found = rank_scores(scores, categories)[i]
        if math.isnan(score):
            assert math.isnan(found)
        elif not others:
            assert found == 0.5
        else:
            expected = (sum(other < score for other in others) + sum(other == score for other in others) / 2) / len(
                others
            )
            assert found == pytest.approx(expected)


@given(values, arrays(bool, 8))
def test_the_auroc_is_the_share_of_pairs_in_order(scores, errors):
    wrong = [score for score, error in zip(scores, errors, strict=True) if error and not math.isnan(score)]
    right = [score for score, error in zip(scores, errors, strict=True) if not error and not math.isnan(score)]

    found = auroc(scores, errors)

    assert (found.n_errors, found.n_others, found.n_unscored) == (len(wrong), len(right), int(np.isnan(scores).sum()))
    if wrong and right:
        pairs = [(one > other) + (one == other) / 2 for one in wrong for other in right]
        assert found.auroc == pytest.approx(sum(pairs) / len(pairs))
    else:
        assert math.isnan(found.auroc)


def test_a_combined_score_is_the_mean_rank_of_what_is_known():
    scores = {"a": np.array([0.0, 5, 9, np.nan, np.nan]), "b": np.array([7.0, 7, np.nan, 8, np.nan])}
    categories = np.array(["cat"] * 5)

    even = combined_score(scores, categories)
    weighed = combined_score(scores, categories, {"a": 3, "b": 1})
    one = combined_score(scores, categories, {"b": 1})

    # Ranks of a: 0, 1/2, 1; of b: 1/4, 1/4, 1.
    np.testing.assert_allclose(even, [0.125, 0.375, 1, 1, math.nan])
    np.testing.assert_allclose(weighed, [0.0625, 0.4375, 1, 1, math.nan])
    np.testing.assert_allclose(one, [0.25, 0.25, math.nan, 1, math.nan])


def test_weights_that_cannot_work_are_refused():
    scores = {"a": np.zeros(2)}
    for weights in ({"b": 1}, {"a": -1}, {"a": 0}, {"a": math.nan}):
        with pytest.raises(ConfigError, match="weights"):
            combined_score(scores, np.zeros(2), weights)


def test_confusions_are_swaps_of_like_parts_and_phantoms():
    types = ["swap_mirror", "swap_group", "phantom_mirror", "phantom_group", "swap_other", "jitter", None, "correct"]

    assert confusions(np.array(types, object)).tolist() == [True] * 4 + [False] * 4


def test_fitted_weights_go_to_what_finds_the_errors():
    generator = np.random.default_rng(0)
    errors = generator.random(400) < 0.1
    scores = {
        "good": errors + 0.3 * generator.normal(size=400),
        "noise": generator.normal(size=400),
        "wrong_way": 0.3 * generator.normal(size=400) - errors,
    }
    categories = np.repeat(["cat", "dog"], 200)

    weights = fitted_weights(scores, categories, errors)

    assert sum(weights.values()) == pytest.approx(1)
    assert weights["good"] > 0.8
    assert weights["wrong_way"] == 0
    fitted = auroc(combined_score(scores, categories, weights), errors).auroc
    assert fitted > auroc(combined_score(scores, categories), errors).auroc
    assert set(fitted_weights(scores, categories, errors, ["noise"])) == {"noise"}


def test_fitted_weights_do_not_depend_on_how_rare_errors_are():
    generator = np.random.default_rng(0)
    errors = np.arange(400) < 200
    scores = {name: errors + noise * generator.normal(size=400) for name, noise in (("good", 0.5), ("fair", 1.5))}
    rows = np.concatenate([np.arange(400), np.tile(np.arange(200, 400), 9)])

    even = fitted_weights(scores, np.zeros(400), errors)
    rare = fitted_weights({name: column[rows] for name, column in scores.items()}, np.zeros(len(rows)), errors[rows])

    assert rare["good"] == pytest.approx(even["good"], abs=0.05)


def test_weights_need_errors_and_others():
    for errors in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ConfigError, match="label some of both"):
            fitted_weights({"a": np.arange(3)}, np.zeros(3), errors)


def test_where_no_score_finds_anything_all_weigh_alike():
    errors = np.array([True, False])

    assert fitted_weights({"a": np.array([0.0, 1]), "b": np.array([0.0, 2])}, np.zeros(2), errors) == {
        "a": 0.5,
        "b": 0.5,
    }


def test_scores_and_errors_must_belong_together():
    with pytest.raises(ConfigError, match="belong together"):
        auroc(np.zeros(3), np.zeros(2, bool))
