"""PCK and left-right swaps on cases worked by hand, and against the plain definitions."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.keypoints import correct_points, pck_scores, pck_threshold, swapped_points
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

coordinates = st.integers(0, 20).map(float)
points = arrays(np.float64, (6, 2), elements=coordinates)


def test_the_threshold_is_a_share_of_the_longer_side_of_the_box():
    assert pck_threshold((40, 200), 0.1) == pytest.approx(20)
    assert pck_threshold((200, 40), 0.05) == pytest.approx(10)


@pytest.mark.parametrize(("box", "alpha"), [((0, 0), 0.1), ((math.nan, math.nan), 0.1), ((10, 20), 0.0)])
def test_a_box_without_extent_and_a_share_of_nothing_are_refused(box, alpha):
    with pytest.raises(ConfigError):
        pck_threshold(box, alpha)


def test_a_prediction_is_correct_nearer_than_the_threshold_and_wrong_at_it():
    targets = np.zeros((3, 2))
    predictions = np.array([[3.0, 4.0], [0.0, 4.99], [5.0, 1.0]])

    assert correct_points(predictions, targets, 5.0).tolist() == [False, True, False]


def test_a_prediction_that_is_no_number_is_wrong_and_no_swap():
    targets, partners = np.zeros((2, 2)), np.ones((2, 2))
    predictions = np.array([[np.nan, 0.0], [np.inf, 0.0]])

    assert not correct_points(predictions, targets, 1e9).any()
    assert not swapped_points(predictions, targets, partners).any()


def test_points_weigh_alike_in_one_mean_and_images_in_the_other():
    few, many, none = np.array([True]), np.array([False, False, True]), np.array([], bool)

    scores = pck_scores([few, many, none])

    assert scores.per_point == pytest.approx(2 / 4)
    assert scores.per_image == pytest.approx((1 + 1 / 3) / 2)
    assert (scores.n_points, scores.n_images) == (4, 2)


def test_without_points_there_is_no_score():
    scores = pck_scores([np.array([], bool)])

    assert math.isnan(scores.per_point)
    assert math.isnan(scores.per_image)
    assert (scores.n_points, scores.n_images) == (0, 0)


def test_a_swap_is_a_prediction_nearer_to_the_partner_than_to_the_point_itself():
    targets, partners = np.array([[0.0, 0.0]] * 3), np.array([[10.0, 0.0]] * 3)
    predictions = np.array([[4.9, 0.0], [5.0, 3.0], [5.1, 90.0]])

    assert swapped_points(predictions, targets, partners).tolist() == [False, False, True]


@given(predictions=points, targets=points, partners=points, threshold=st.floats(0.1, 30))
def test_verdicts_are_those_of_a_loop_over_the_points(predictions, targets, partners, threshold):
    own = [math.dist(p, t) for p, t in zip(predictions, targets, strict=True)]
    other = [math.dist(p, q) for p, q in zip(predictions, partners, strict=True)]

    assert correct_points(predictions, targets, threshold).tolist() == [d < threshold for d in own]
    assert swapped_points(predictions, targets, partners).tolist() == [b < a for a, b in zip(own, other, strict=True)]


def test_points_that_do_not_fit_together_or_cannot_be_seen_are_refused():
    with pytest.raises(ConfigError, match=r"\(N, 2\)"):
        correct_points(np.zeros((3, 2)), np.zeros((2, 2)), 1.0)
    with pytest.raises(ConfigError, match=r"\(N, 2\)"):
        correct_points(np.zeros((2, 3)), np.zeros((2, 3)), 1.0)
    with pytest.raises(ConfigError, match="leave out the points"):
        correct_points(np.zeros((1, 2)), np.full((1, 2), np.nan), 1.0)
