"""Keypoint average precision: cases worked by hand, and the definition written out as loops."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.kap import KapSamples, kap, kap_samples
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CELL = 10


def _samples(similarity, targets, visible, radius):
    """Steps 1 to 3 of the definition, one keypoint and one cell after the other."""
    low, high = similarity.min(), similarity.max()
    scaled = (similarity - low) / (high - low) if high > low else np.zeros_like(similarity)
    found = []
    for values, target, seen in zip(scaled, targets, visible, strict=True):
        cells = list(np.ndindex(values.shape))
        if not seen:
            found.append((0, values.max()))
            continue
        squared = {(r, c): (CELL * c - target[0]) ** 2 + (CELL * r - target[1]) ** 2 for r, c in cells}
        true = {cell for cell in cells if squared[cell] < radius**2} | {min(cells, key=squared.get)}
        found.append((1, max(values[cell] for cell in true)))
        if len(true) < len(cells):
            found.append((0, max(values[cell] for cell in cells if cell not in true)))
    return found


def _average_precision(samples):
    """Precision at each distinct score, weighted by how much the recall grows there."""
    positives, recall, total = sum(label for label, _ in samples), 0.0, 0.0
    for level in sorted({score for _, score in samples}, reverse=True):
        above = [label for label, score in samples if score >= level]
        total += (sum(above) / positives - recall) * sum(above) / len(above)
        recall = sum(above) / positives
    return total


@given(
    arrays(np.float64, (3, 3, 4), elements=st.integers(-4, 4).map(float)),
    arrays(np.float64, (3, 2), elements=st.integers(0, 40).map(float)),
    arrays(bool, 3),
    st.integers(1, 30),
)
def test_samples_and_precision_are_those_of_the_definition(similarity, targets, visible, radius):
    expected = _samples(similarity, targets, visible, radius)

    found = kap_samples(similarity, targets, visible, radius, CELL)
    result = kap([("cat", found)], 0.1)

    np.testing.assert_array_equal(found.labels, [label for label, _ in expected])
    np.testing.assert_allclose(found.scores, [score for _, score in expected])
    assert (result.n_samples, result.n_positives) == (len(expected), visible.sum())
    if visible.any():
        assert result.value == pytest.approx(_average_precision(expected))
    else:
        assert math.isnan(result.value)


@given(arrays(np.float64, (3, 3, 4), elements=st.integers(-4, 4).map(float)), st.permutations(range(3)))
def test_the_order_of_the_keypoints_does_not_matter(similarity, order):
    targets, visible = np.array([[0.0, 0], [30, 20], [10, 10]]), np.array([True, False, True])
    order = list(order)

    plain = kap_samples(similarity, targets, visible, 15, CELL)
    moved = kap_samples(similarity[order], targets[order], visible[order], 15, CELL)

    assert kap([("a", moved)], 0.1).value == pytest.approx(kap([("a", plain)], 0.1).value)


def test_a_sure_match_of_a_hidden_keypoint_costs_precision():
    # Both keypoints peak at 1; the second is not in the target at all.
    similarity = np.zeros((2, 2, 2))
    similarity[0, 0, 0] = similarity[1, 1, 1] = 1

    seen = kap_samples(similarity, [[0, 0], [10, 10]], [True, True], 1, CELL)
    hidden = kap_samples(similarity, [[0, 0], [10, 10]], [True, False], 1, CELL)

    assert kap([("a", seen)], 0.1).value == 1
    # Two samples of score 1, of which one is right, at a recall of 1.
    assert kap([("a", hidden)], 0.1).value == pytest.approx(0.5)


def test_the_nearest_cell_is_always_true_and_the_edge_of_the_radius_is_not():
    similarity = np.arange(4.0).reshape(1, 1, 4) / 3

    tiny = kap_samples(similarity, [[19, 0]], [True], 0.5, CELL)
    # Corners lie at 0, 10, 20 and 30: the first and the third are at exactly the radius.
    edge = kap_samples(similarity, [[10, 0]], [True], 10, CELL)
    middle = kap_samples(similarity, [[10, 5]], [True], 6, CELL, reference=5)

    assert tiny.scores.tolist() == [pytest.approx(2 / 3), 1]
    assert edge.scores.tolist() == [pytest.approx(1 / 3), 1]
    # The centres of the first two cells are within 6 of it.
    assert middle.scores.tolist() == [pytest.approx(1 / 3), 1]


def test_cells_that_show_nothing_are_the_least_similar():
    similarity = np.array([[[-np.inf, -3.0, -1.0]]])

    assert kap_samples(similarity, [[20, 0]], [True], 1, CELL).scores.tolist() == [1, 0]


def test_categories_weigh_alike_however_many_samples_they_have():
    right, wrong = KapSamples(np.array([True]), np.ones(1)), KapSamples(np.array([True, False]), np.array([0.0, 1]))
    none = KapSamples(np.array([False]), np.ones(1))

    result = kap([("a", right), ("b", wrong), ("b", wrong), ("c", none)], 0.05)

    assert result.per_category["a"] == 1
    assert result.per_category["b"] == pytest.approx(0.5)
    assert math.isnan(result.per_category["c"])
    assert result.value == pytest.approx(0.75)
    assert result.label == "KAP@0.05 per category, box threshold"
    assert str(result).startswith("KAP@0.05 per category, box threshold: 75.0 %")
    assert result.as_row() == {
        "metric": result.label,
        "alpha": 0.05,
        "value": pytest.approx(0.75),
        "n_samples": 6,
        "n_positives": 3,
    }


def test_nothing_gives_no_kap():
    assert math.isnan(kap([], 0.1).value)


def test_what_does_not_fit_is_refused():
    similarity = np.zeros((1, 2, 2))
    with pytest.raises(ConfigError, match="do not fit"):
        kap_samples(similarity, np.zeros((2, 2)), [True], 1, CELL)
    with pytest.raises(ConfigError, match="radius=0"):
        kap_samples(similarity, np.zeros((1, 2)), [True], 0, CELL)
    with pytest.raises(ConfigError, match="no finite place"):
        kap_samples(similarity, np.full((1, 2), np.nan), [True], 1, CELL)
