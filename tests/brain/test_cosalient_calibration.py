"""From scores to a probability: the fit, its file, and which scores the shipped one is for."""

from types import SimpleNamespace

import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.calibration import LEAST_PAIRS, Calibration, fit_calibration
from fiftyone_selfsame.brain.cosalient.default_calibration import SCORES, UNCALIBRATED, calibration_of
from fiftyone_selfsame.brain.errors import ConfigError, ModelError


def pairs(count=200, seed=0, directions=(1.0, 1.0, 0.0)):
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % 2 == 0
    scores = 0.1 * rng.standard_normal((count, 3)) + 0.2 * truth[:, None] * np.array(directions)
    return scores + 0.5, truth


def test_a_logistic_is_the_weighted_sum_through_the_sigmoid():
    calibration = Calibration(SCORES, (1.0, 2.0, 0.0), -2.0)
    assert calibration.probability(np.array([[1.0, 0.5, 9.0], [2.0, 1.0, 9.0]])) == pytest.approx(
        [0.5, 1 / (1 + np.exp(-2))]
    )


def test_the_fit_tells_pairs_apart_that_it_has_not_seen():
    fitted = fit_calibration(*pairs(), SCORES)
    scores, truth = pairs(seed=1)
    assert ((fitted.probability(scores) >= fitted.threshold) == truth).mean() > 0.85
    assert fitted.fitted_on == 200
    assert 0 < fitted.threshold < 1


def test_a_score_that_would_count_against_a_match_is_left_out():
    fitted = fit_calibration(*pairs(directions=(1.0, 1.0, -1.0)), SCORES)
    assert fitted.weights[2] == 0
    assert min(fitted.weights[:2]) > 0


def test_a_score_without_spread_breaks_nothing():
    scores, truth = pairs()
    scores[:, 2] = 0.7
    fitted = fit_calibration(scores, truth, SCORES)
    assert np.isfinite(fitted.probability(scores)).all()


def test_classes_of_unequal_size_do_not_move_the_even_chance():
    scores, truth = pairs(2000)
    rare = fit_calibration(np.r_[scores[truth][:50], scores[~truth]], [True] * 50 + [False] * 1000, SCORES)
    even = fit_calibration(scores, truth, SCORES)
    middle = np.array([[0.6, 0.6, 0.5]])
    assert rare.probability(middle) == pytest.approx(even.probability(middle), abs=0.15)


@pytest.mark.parametrize("kind", [True, False])
def test_too_few_pairs_of_one_kind_are_refused_with_their_number(kind):
    truth = np.array([kind] * (LEAST_PAIRS - 1) + [not kind] * 30)
    with pytest.raises(ConfigError, match=f"at least {LEAST_PAIRS} of each"):
        fit_calibration(np.zeros((len(truth), 3)), truth, SCORES)


def test_a_calibration_comes_back_from_its_file(tmp_path):
    fitted = fit_calibration(*pairs(), SCORES, weights_hash="abc")
    fitted.save(tmp_path / "calibration.json")
    assert Calibration.load(tmp_path / "calibration.json") == fitted


@pytest.mark.parametrize(
    "content",
    ["", "[1]", "{}", '{"names": ["a"], "weights": [1.0, 2.0], "bias": 0}', '{"names": ["a"], "weights": [1], "x": 1}'],
)
def test_a_file_that_is_no_calibration_is_refused_by_name(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"calibration\.json.*fit it again"):
        Calibration.load(path)


def test_the_mapping_without_a_fit_rises_with_every_score_and_says_so():
    assert UNCALIBRATED.fitted_on == 0
    assert min(UNCALIBRATED.weights) > 0
    low, high = UNCALIBRATED.probability(np.array([[0.3, 0.0, 0.5], [1.0, 1.0, 1.0]]))
    assert low < 0.2
    assert high > 0.9


def test_the_shipped_fit_is_for_the_very_weights_that_it_was_fitted_with():
    shipped = calibration_of(SimpleNamespace(name="embedded-hybrid", weights_hash="other"))
    assert shipped is UNCALIBRATED
    assert calibration_of(SimpleNamespace(name="my-model", weights_hash="")) is UNCALIBRATED
