"""Filters of matches by the way back and by the angle on a sphere, on cases worked by hand and against loops."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.match_filters import cycle_matches, relaxed_tolerance, sphere_angles, sphere_kept
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays


@given(arrays(np.float64, (5, 4), elements=st.integers(-3, 3).map(float)), st.integers(0, 4))
def test_the_way_there_and_back_is_that_of_a_loop(similarity, tolerance):
    places = np.array([[0.0, 0], [1, 0], [3, 0], [3, 4], [0, 2]])

    found = cycle_matches(similarity, places)

    for i in range(5):
        there = max(range(4), key=lambda j: similarity[i, j])
        back = max(range(5), key=lambda k: similarity[k, there])
        assert (found.target[i], found.returned[i]) == (there, back)
        assert found.distance[i] == pytest.approx(math.dist(places[i], places[back]))
        assert found.kept(tolerance)[i] == (math.dist(places[i], places[back]) <= tolerance)


def test_a_strict_cycle_keeps_mutual_neighbours_alone():
    # Both first places like the first target best; it likes the second of them best.
    found = cycle_matches(np.array([[0.8, 0.1], [0.9, 0.2], [0.0, 0.7]]), np.array([[0, 0], [2, 0], [9, 9]]))

    assert found.kept().tolist() == [False, True, True]
    assert found.kept(2).tolist() == [True, True, True]
    assert found.kept(1.99).tolist() == [False, True, True]


def test_a_relaxed_cycle_is_a_share_of_the_box_and_at_least_a_cell():
    assert relaxed_tolerance(400, 14) == pytest.approx(20)
    assert relaxed_tolerance(100, 14) == 14


def test_sets_that_do_not_fit_are_refused_and_none_has_no_matches():
    assert cycle_matches(np.zeros((0, 0)), np.zeros((0, 2))).kept().tolist() == []
    for similarity, places in (((2, 0), (2, 2)), ((2, 3), (3, 2)), ((2, 3), (2, 3))):
        with pytest.raises(ConfigError, match="do not fit"):
            cycle_matches(np.zeros(similarity), np.zeros(places))


def test_angles_on_the_sphere_do_not_depend_on_length_and_background_has_none():
    source = np.array([[1, 0, 0], [2, 0, 0], [1, 0, 0], [0, 0, 0], [np.nan, 0, 0]], float)
    target = np.array([[0, 1, 0], [3, 0, 0], [-5, 0, 0], [1, 0, 0], [1, 0, 0]], float)

    angles = sphere_angles(source, target)

    np.testing.assert_allclose(angles, [math.pi / 2, 0, math.pi, math.nan, math.nan])
    assert sphere_kept(source, target).tolist() == [False, True, False, False, False]
    assert sphere_kept(source, target, 0.5).tolist() == [True, True, False, False, False]
    turned = np.array([[math.cos(share * math.pi), math.sin(share * math.pi), 0] for share in (0.149, 0.151)])
    assert sphere_kept(source[:2], turned).tolist() == [True, False]
    with pytest.raises(ConfigError, match="sphere"):
        sphere_angles(source[:, :2], target[:, :2])
