"""Label-free scores read from where points were found: cases worked by hand, slow references, unscorable matches."""

import itertools
import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.label_free_points import (
    assignment_change,
    cells_of,
    collision,
    cycle_error,
    flip_inconsistency,
    mirror_insensitivity,
    mirrored_back,
    reflected_points,
    sphere_disagreement,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

NONE = [np.nan, np.nan]


def test_the_same_place_in_the_mirrored_picture_means_that_the_side_is_not_seen():
    matches = np.array([[30.0, 10], [30, 10], [30, 10], [30, 10], NONE])
    # Found at 70 of a picture 100 wide, which is 30 again; at 30, which is the other side; ...
    mirrored = mirrored_back(np.array([[70.0, 10], [60, 10], [0, 10], [70, 10], [70, 10]]), 100)

    found = mirror_insensitivity(matches, mirrored, 50, np.array([True, True, True, False, True]))

    np.testing.assert_allclose(found, [1, 0.8, 0, math.nan, math.nan])


def test_a_side_is_stable_if_the_partner_takes_its_place_in_the_mirrored_picture():
    matches = np.array([[30.0, 10], [70, 10], [50, 40], [50, 50]])
    # In the mirrored picture, the partner of the first was found where the first is; that of the second was not.
    mirrored = mirrored_back(np.array([[30.0 + 10, 10], [70, 10], [50, 40], [50, 50]]), 100)

    found = flip_inconsistency(matches, mirrored, np.array([1, 0, -1, -1]), np.array([40.0, 40, 40, 40]))

    np.testing.assert_allclose(found, [0, 0.25, math.nan, math.nan])


def test_distances_are_shares_of_the_box_and_unknown_without_one():
    points, others = np.array([[0.0, 0], [0, 0], [0, 0], NONE]), np.array([[3.0, 4], [3, 4], [3, 4], [3, 4]])
    box = np.array([10.0, 0, np.nan, 10])

    for score in (cycle_error, sphere_disagreement):
        np.testing.assert_allclose(score(points, others, box), [0.5, math.nan, math.nan, math.nan])
    with pytest.raises(ConfigError, match="do not fit"):
        cycle_error(points, others[:2], 1)


def test_two_of_a_group_in_one_place_collide():
    matches = np.array([[0.0, 0], [4.9, 0], [50, 0], [0, 0], [0, 0], [0, 0], NONE])
    pairs = np.array([0, 0, 0, 0, 1, 1, 1])
    groups = np.array([0, 0, 0, 1, 0, 0, 0])

    found = collision(matches, pairs, groups, 100)

    # The fourth is alone in its group; the last was not found.
    np.testing.assert_array_equal(found, [1, 1, 0, math.nan, 1, 1, math.nan])
    np.testing.assert_array_equal(collision(matches, pairs, groups, 90)[:3], [0, 0, 0])
    np.testing.assert_array_equal(collision([[0, 0], [5, 0]], [0, 0], [0, 0], 100), [0, 0])
    assert np.isnan(collision(matches, pairs, groups, np.nan)).all()


def test_exchanged_matches_are_noticed_where_the_exchange_gains():
    # Both keypoints of the group are more like the other's place.
    similarity = np.array([[[0.5, 0.9, 0.0]], [[0.9, 0.5, 0.0]], [[0.5, 0.9, 0.0]]])
    matches = np.array([[5.0, 5], [15, 5], [5, 5]])

    changed = assignment_change(similarity, matches, [0, 0, 0], [0, 0, 1], 10)
    as_is = assignment_change(similarity[:, :, ::-1][:, :, 1:], matches, [0, 0, 0], [0, 0, 1], 10)

    np.testing.assert_array_equal(changed, [1, 1, math.nan])
    np.testing.assert_array_equal(as_is, [0, 0, math.nan])


def test_an_exchange_that_gains_nothing_changes_nothing():
    similarity = np.array([[[0.0, 1]], [[0, 1]]])

    assert assignment_change(similarity, [[5, 5], [15, 5]], [0, 0], [0, 0], 10).tolist() == [0, 0]


@given(arrays(np.float64, (4, 2, 3), elements=st.integers(0, 5).map(float)), arrays(int, 4, elements=st.integers(0, 5)))
def test_an_assignment_changes_only_to_one_of_the_best(similarity, numbers):
    matches = np.stack([numbers % 3, numbers // 3], 1) * 10 + 5.0
    gains = np.array([[similarity[i, numbers[j] // 3, numbers[j] % 3] for j in range(4)] for i in range(4)])
    totals = {order: sum(gains[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(4))}
    best = [order for order, total in totals.items() if total == max(totals.values())]
    possible = {tuple(float(numbers[i] != numbers[j]) for i, j in enumerate(order)) for order in best}

    found = tuple(assignment_change(similarity, matches, [0] * 4, [0] * 4, 10).tolist())

    if totals[0, 1, 2, 3] == max(totals.values()):
        assert found == (0, 0, 0, 0)
    else:
        assert found in possible


@given(st.permutations(range(6)))
def test_the_order_of_the_matches_does_not_matter(order):
    generator = np.random.default_rng(1)
    matches, similarity = generator.uniform(0, 40, (6, 2)), generator.normal(size=(6, 4, 4))
    pairs, groups = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 1, 0, 0, 0])
    order = list(order)

    plain = collision(matches, pairs, groups, 100, 0.2), assignment_change(similarity, matches, pairs, groups, 10)
    moved = (
        collision(matches[order], pairs[order], groups[order], 100, 0.2),
        assignment_change(similarity[order], matches[order], pairs[order], groups[order], 10),
    )

    for one, two in zip(plain, moved, strict=True):
        np.testing.assert_array_equal(two, one[order])


def test_cells_of_points():
    assert cells_of([[0, 0], [13.9, 14], [28, 27], NONE], 14).tolist() == [[0, 0], [0, 1], [2, 1], [-1, -1]]


def test_points_are_reflected_in_the_upright_axis_of_the_mask():
    mask = np.zeros((20, 20), bool)
    mask[2:18, 4:10] = True

    found = reflected_points([[4, 3], [7, 10], NONE], mask)

    # The middle column is 7.
    np.testing.assert_allclose(found, [[10, 3], [7, 10], NONE], atol=1e-9)
    lying = reflected_points([[3, 4]], mask.T)
    np.testing.assert_allclose(lying, [[17, 4]], atol=1e-9)
    with pytest.raises(ConfigError, match="empty"):
        reflected_points([[0, 0]], np.zeros((3, 3), bool))


@given(arrays(bool, (6, 7), elements=st.booleans()).filter(lambda mask: mask.any()), st.integers(-9, 9))
def test_a_reflection_taken_twice_leads_back(mask, x):
    points = np.array([[x, 3.0], [2, x]])

    np.testing.assert_allclose(reflected_points(reflected_points(points, mask), mask), points, atol=1e-9)
