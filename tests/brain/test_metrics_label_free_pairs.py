"""Label-free scores of whole pairs: mirrored layouts, against slow references, and pairs that cannot be scored."""

import itertools
import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.label_free_pairs import (
    WELL_SPREAD,
    imd_gap,
    reflection_gap,
    triplet_orientation,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

SHAPE = np.array([[0.0, 0], [10, 0], [0, 8], [7, 9], [3, 3]])
MIRRORED = np.stack([-SHAPE[:, 0], SHAPE[:, 1]], 1)
points = arrays(np.float64, (5, 2), elements=st.integers(0, 9).map(float))


def _turned(shape, angle=0.7, scale=3.0, shift=(5, -2)):
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return scale * shape @ rotation.T + shift


def _one(score, source, target):
    return score(source, target, np.zeros(len(source), int), 1)[0]


def test_the_gap_of_distances_is_positive_where_the_mirror_image_is_nearer():
    gap = imd_gap(np.array([0.4, 0.1, np.nan, 0.0]), np.array([0.1, 0.4, 0.1, 0.0]))

    np.testing.assert_allclose(gap, [math.log(4), -math.log(4), math.nan, 0])


def test_a_mirrored_layout_is_explained_by_a_reflection_alone():
    # Either transform leaves nothing over of what it made.
    assert _one(reflection_gap, SHAPE, _turned(MIRRORED)) > 0.3
    assert _one(reflection_gap, SHAPE, _turned(SHAPE)) == pytest.approx(-_one(reflection_gap, SHAPE, MIRRORED))
    assert _one(triplet_orientation, SHAPE, _turned(MIRRORED)) == 1
    assert _one(triplet_orientation, SHAPE, _turned(SHAPE)) == 0


def _residual(source, target, flip):
    """What the best similarity transform leaves over, by least squares on its four numbers."""
    source = source * (flip, 1)
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    rows, values = np.array(rows), np.array(values)
    left = values - rows @ np.linalg.lstsq(rows, values, rcond=None)[0]
    return math.sqrt((left**2).sum() / ((target - target.mean(0)) ** 2).sum())


def _on_one_line(shape):
    return np.linalg.matrix_rank(shape - shape.mean(0), tol=1e-6) < 2


@given(points, points)
def test_the_reflection_gap_is_that_of_least_squares(source, target):
    found = _one(reflection_gap, source, target)

    if _on_one_line(source) or _on_one_line(target):
        assert math.isnan(found)
    else:
        assert found == pytest.approx(_residual(source, target, 1) - _residual(source, target, -1), abs=1e-6)


@given(points, points)
def test_the_orientation_is_that_of_a_loop_over_triplets(source, target):
    turned = []
    for three in itertools.combinations(range(5), 3):
        senses = []
        for side in (source, target):
            a, b, c = side[list(three)]
            doubled = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0]
            longest = max(((p - q) ** 2).sum() for p, q in ((a, b), (a, c), (b, c)))
            if longest > 0 and abs(doubled) >= WELL_SPREAD * longest:
                senses.append(doubled > 0)
        if len(senses) == 2:
            turned.append(senses[0] != senses[1])

    expected = sum(turned) / len(turned) if turned else math.nan

    assert _one(triplet_orientation, source, target) == pytest.approx(expected, nan_ok=True)


@given(points, points, st.permutations(range(5)))
def test_mirroring_the_target_turns_the_scores_round_and_order_does_not_matter(source, target, order):
    mirrored, order = target * (-1, 1), list(order)

    gap, share = _one(reflection_gap, source, target), _one(triplet_orientation, source, target)

    assert _one(reflection_gap, source, mirrored) == pytest.approx(-gap, nan_ok=True, abs=1e-6)
    assert _one(triplet_orientation, source, mirrored) == pytest.approx(1 - share, nan_ok=True)
    assert _one(triplet_orientation, source[order], target[order]) == pytest.approx(share, nan_ok=True)
    assert _one(reflection_gap, source[order], target[order]) == pytest.approx(gap, nan_ok=True, abs=1e-6)


def test_points_on_one_line_tell_nothing_of_a_reflection():
    line = np.stack([np.arange(5.0), 2 * np.arange(5.0)], 1)

    assert math.isnan(_one(reflection_gap, line, SHAPE))
    assert math.isnan(_one(reflection_gap, SHAPE, line))
    assert math.isnan(_one(triplet_orientation, SHAPE, line))


def test_pairs_are_scored_apart_and_matches_that_were_not_found_are_left_out():
    source = np.concatenate([SHAPE, [[99, 99]], SHAPE, SHAPE[:2]])
    target = np.concatenate([MIRRORED, [[np.nan, 0]], SHAPE, SHAPE[:2]])
    pairs = np.array([2] * 6 + [0] * 5 + [3] * 2)

    found = triplet_orientation(source, target, pairs, 4)
    gaps = reflection_gap(source, target, pairs, 4)

    np.testing.assert_array_equal(found, [0, math.nan, 1, math.nan])
    assert np.isnan(gaps).tolist() == [False, True, False, True]
    assert gaps[2] == pytest.approx(-gaps[0])


def test_of_many_matches_the_farthest_apart_stand_for_all():
    generator = np.random.default_rng(0)
    many = generator.uniform(0, 100, (120, 2))

    assert _one(triplet_orientation, many, many * (-1, 1)) == 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="do not fit"):
        reflection_gap(SHAPE, SHAPE[:2], np.zeros(5, int), 1)
    with pytest.raises(ConfigError, match="numbered 0 to 1"):
        triplet_orientation(SHAPE[:2], SHAPE[:2], np.array([0, 1]), 1)
