"""Label-free scores read from similarities: cases worked by hand, slow references, mirrored and reordered maps."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.label_free_peaks import (
    low_similarity,
    mirror_peak_ratio,
    peak_ratio,
    softmax_modes,
    softmax_spread,
    value_at,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

LEVELS = st.one_of(st.integers(-4, 8).map(lambda n: n / 8), st.just(-math.inf))
maps = arrays(np.float64, (2, 4, 5), elements=LEVELS)
cells = arrays(np.int64, (2, 2), elements=st.integers(-1, 3))


def _value(plane, cell):
    column, row = cell
    inside = 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]
    return float(plane[row, column]) if inside and np.isfinite(plane[row, column]) else math.nan


def _slow_rival(plane, cell, radius):
    """The highest local maximum farther than the radius; -inf where there is none, NaN where no cell is left."""
    column, row = cell
    finite = [(r, c) for r, c in np.ndindex(plane.shape) if np.isfinite(plane[r, c])]
    beyond = [(r, c) for r, c in finite if (r - row) ** 2 + (c - column) ** 2 > radius**2]
    peaks = [
        plane[r, c]
        for r, c in beyond
        if all(plane[r, c] >= plane[y, x] for y, x in np.ndindex(plane.shape) if max(abs(y - r), abs(x - c)) <= 1)
    ]
    return max(peaks, default=-math.inf) if beyond else math.nan


@given(maps, cells, st.sampled_from([0.5, 1, 1.5, 3]))
def test_the_peak_ratio_is_that_of_a_loop(similarity, where, radius):
    expected = []
    for plane, cell in zip(similarity, where, strict=True):
        own, rival = _value(plane, cell), _slow_rival(plane, cell, radius)
        expected.append(max(rival, 0) / own if own > 0 and not math.isnan(rival) else math.nan)

    np.testing.assert_allclose(peak_ratio(similarity, where, radius), expected)


@given(maps, cells)
def test_mirrored_maps_have_the_same_peaks(similarity, where):
    turned = np.stack([4 - where[:, 0], where[:, 1]], 1)
    turned[(where < 0).any(1)] = where[(where < 0).any(1)] = -1

    for form in ("ratio", "gap"):
        found = peak_ratio(similarity[:, :, ::-1], turned, 1.0, form)
        np.testing.assert_allclose(found, peak_ratio(similarity, where, 1.0, form))
    np.testing.assert_allclose(softmax_spread(similarity[:, :, ::-1]), softmax_spread(similarity), atol=1e-12)
    np.testing.assert_array_equal(softmax_modes(similarity[:, :, ::-1]), softmax_modes(similarity))


def test_the_second_peak_must_be_a_peak_and_lie_beyond_the_radius():
    row = np.array([[[1.0, 0.9, 0.5, 0.2, 0.4, 0.1, 0.6]]])
    at = np.array([[0, 0]])

    assert peak_ratio(row, at, 1).tolist() == [0.6]
    # 0.9 is the slope of the match's own peak, 0.6 lies within the radius of 6.
    assert np.isnan(peak_ratio(row, at, 6)).all()
    assert peak_ratio(row[:, :, :5], at, 1).tolist() == [0.4]
    assert peak_ratio(row[:, :, :4], at, 1).tolist() == [0.0]


def test_negative_similarities_are_compared_by_their_gap():
    row = np.array([[[-1.0, -5.0, -2.0]]])
    at = np.array([[0, 0]])

    assert np.isnan(peak_ratio(row, at, 1)).all()
    # A difference of 1 in a range of 4.
    assert peak_ratio(row, at, 1, "gap").tolist() == [0.75]
    assert mirror_peak_ratio(row, at, np.array([[1, 0]]), "gap").tolist() == [0.0]


def test_the_mirror_peak_is_the_similarity_where_the_partner_was_found():
    similarity = np.array([[[0.8, 0.6, -0.1]]] * 4)
    own = np.array([[0, 0], [0, 0], [0, 0], [2, 0]])
    rivals = np.array([[1, 0], [2, 0], [-1, -1], [0, 0]])

    np.testing.assert_allclose(mirror_peak_ratio(similarity, own, rivals), [0.75, 0, math.nan, math.nan])


def test_values_outside_or_not_to_be_found_are_unknown():
    similarity = np.array([[[0.1, -np.inf]], [[0.3, 0.4]]])

    found = value_at(similarity, np.array([[0, 0], [1, 0], [2, 0], [1, 0]]), np.array([0, 0, 0, 1]))

    np.testing.assert_allclose(found, [0.1, math.nan, math.nan, 0.4])


def test_low_similarity_ranks_within_a_category():
    values = np.array([0.9, 0.1, 0.5, 0.5, 0.3, np.nan])
    categories = np.array(["cat", "cat", "cat", "cat", "dog", "cat"])

    found = low_similarity(values, categories)

    np.testing.assert_allclose(found, [0, 1, 0.5, 0.5, math.nan, math.nan])


@given(maps, st.sampled_from([0.02, 0.2, 1.0]))
def test_the_spread_is_the_entropy_of_the_softmax(similarity, temperature):
    expected = []
    for plane in similarity:
        finite = plane[np.isfinite(plane)]
        weights = [math.exp((value - finite.max()) / temperature) for value in finite]
        shares = [weight / sum(weights) for weight in weights]
        entropy = -sum(share * math.log(share) for share in shares if share > 0)
        expected.append(entropy / math.log(len(finite)) if len(finite) > 1 else math.nan)

    np.testing.assert_allclose(softmax_spread(similarity, temperature), expected, atol=1e-12)


def test_the_spread_goes_from_one_cell_to_no_preference():
    sharp, flat, alone = np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), np.full((1, 3, 3), -np.inf)
    sharp[0, 1, 1], alone[0, 0, 0] = 1, 1

    found = softmax_spread(np.concatenate([sharp, flat, alone]))

    np.testing.assert_allclose(found, [0, 1, math.nan], atol=1e-12)


def test_separate_places_of_much_mass_are_counted():
    one, two, thin = np.zeros((1, 5, 5)), np.zeros((1, 5, 5)), np.zeros((1, 5, 5))
    one[0, 1:3, 1:3] = two[0, 0, 0] = two[0, 4, 4] = 1

    assert softmax_modes(np.concatenate([one, two, thin])).tolist() == [1, 2, 0]
    # A diagonal joins them; a mass that is not reached leaves none.
    two[0, range(5), range(5)] = 1
    assert softmax_modes(two).tolist() == [1]
    assert softmax_modes(two, mass=1.0).tolist() == [0]
    assert np.isnan(softmax_modes(np.full((1, 2, 2), -np.inf))).all()


@pytest.mark.parametrize("side", range(2, 20))
def test_no_preference_is_no_place_in_single_precision_either(side):
    assert softmax_modes(np.full((1, side, side), 0.3, np.float32)).tolist() == [0]


def test_many_maps_are_scored_as_each_alone():
    generator = np.random.default_rng(3)
    similarity, where = generator.normal(size=(150, 6, 7)), generator.integers(0, 6, (150, 2))

    for score in (lambda s, c: peak_ratio(s, c, 1.5), lambda s, _: softmax_spread(s), lambda s, _: softmax_modes(s)):
        alone = [score(similarity[row : row + 1], where[row : row + 1])[0] for row in range(150)]
        np.testing.assert_allclose(score(similarity, where), alone)


def test_what_does_not_fit_is_refused():
    similarity = np.zeros((2, 3, 3))
    with pytest.raises(ConfigError, match="do not fit"):
        peak_ratio(similarity, np.zeros((3, 2), int), 1)
    with pytest.raises(ConfigError, match="form='share'"):
        peak_ratio(similarity, np.zeros((2, 2), int), 1, "share")
    with pytest.raises(ConfigError, match="temperature 0"):
        softmax_spread(similarity, 0)
