"""The older sortings of keypoint errors, on cases worked by hand and against loops over their definitions."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.keypoint_taxonomies import (
    COCO_SIGMAS,
    COCO_TYPES,
    coco_types,
    eccv22_counts,
    keypoint_similarity,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

points = arrays(np.float64, (5, 2), elements=st.integers(0, 12).map(float))


@given(points, points, st.integers(1, 8))
def test_eccv22_counts_are_those_of_a_loop(predictions, targets, threshold):
    found = dict.fromkeys(("correct", "correct_exclusive", "jitter", "miss", "swap"), 0)
    for i, p in enumerate(predictions):
        distances = [math.dist(p, t) for t in targets]
        own, least = distances[i], min(distances)
        found["correct"] += own <= threshold
        found["correct_exclusive"] += own <= threshold and own == least
        found["jitter"] += threshold <= own < 2 * threshold
        found["miss"] += least > threshold
        found["swap"] += own > least and least <= threshold

    counts = eccv22_counts(predictions, targets, threshold)

    assert counts.points == 5
    assert {name: getattr(counts, name) for name in found} == found


def test_eccv22_jitter_and_miss_overlap_and_a_missing_prediction_is_a_miss_alone():
    counts = eccv22_counts([[0, 15], [np.nan, 0]], [[0, 0], [100, 0]], 10)

    assert (counts.jitter, counts.miss, counts.swap, counts.correct) == (1, 2, 0, 0)
    assert eccv22_counts(np.zeros((0, 2)), np.zeros((0, 2)), 1).points == 0


def test_eccv22_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match=r"\(N, 2\)"):
        eccv22_counts(np.zeros((1, 2)), np.zeros((2, 2)), 1)
    with pytest.raises(ConfigError, match="leave out"):
        eccv22_counts(np.zeros((1, 2)), np.full((1, 2), np.nan), 1)


def test_similarity_falls_with_the_distance_by_size_and_kind():
    # At a distance of twice sigma times the root of the area, the exponent is -1/2.
    found = keypoint_similarity([[0, 0], [8, 0], [0, 0]], [[0, 0], [0, 0], [np.nan, 0]], [400, 400, 400], [0.2] * 3)

    assert found.tolist() == [1, pytest.approx(math.exp(-0.5)), 0]


def _place(similarity, area=100.0, sigma=0.1):
    """Distance at which that similarity is had."""
    return math.sqrt(-math.log(similarity) * 2 * area * (2 * sigma) ** 2)


def test_coco_types_by_hand():
    own = np.array([[0, 0], [100, 0], [50, 50], [0, 200], [100, 200]], float)
    other = own + 1000
    partners = np.array([1, 0, 2, 4, 3])
    predictions = [
        [_place(0.86), 0],
        [100 + _place(0.84), 0],
        [1050, 1050],
        [100, 200 + _place(0.51)],
        [100, 200 + _place(0.49)],
    ]

    found = coco_types(predictions, np.stack([own, other]), [100, 100], partners, 0.1)

    assert found.tolist() == ["good", "jitter", "swap", "inversion", "miss"]


def test_coco_swaps_go_to_the_mirrored_keypoint_of_another_object_as_well():
    own, other = np.array([[0, 0], [100, 0]], float), np.array([[500, 0], [600, 0]], float)

    found = coco_types([[600, 0], [100, 0]], np.stack([other, own]), [100, 100], [1, 0], 0.1, own=1)

    assert found.tolist() == ["swap", "good"]


def test_coco_leaves_out_what_was_not_detected_or_not_annotated():
    places = np.array([[[0, 0], [100, 0], [np.nan, np.nan]]], float)

    found = coco_types([[np.nan, np.nan], [100, 0], [5, 5]], places, [100], [0, 1, 2], 0.1)

    assert found.tolist() == [None, "good", None]


@given(
    arrays(np.float64, (4, 2), elements=st.integers(0, 10).map(float)),
    arrays(np.float64, (3, 4, 2), elements=st.integers(0, 10).map(float)),
    st.integers(0, 2),
)
def test_coco_types_are_those_of_a_loop(predictions, places, own):
    partners, areas, sigmas = [1, 0, 3, 2], [40.0, 90.0, 200.0], [0.05, 0.1, 0.2, 0.3]
    expected = []
    for i, p in enumerate(predictions):
        best = {"own": 0.0, "inversion": 0.0, "swap": 0.0}
        for m, person in enumerate(places):
            for j in {i, partners[i]}:
                squared = math.dist(p, person[j]) ** 2
                value = math.exp(-squared / (2 * areas[m] * (2 * sigmas[j]) ** 2))
                kind = "swap" if m != own else "own" if j == i else "inversion"
                best[kind] = max(best[kind], value)
        kind = max(best, key=lambda name: best[name])
        if best[kind] < 0.5:
            kind = "miss"
        elif kind == "own":
            kind = "good" if best[kind] > 0.85 else "jitter"
        expected.append(kind)

    assert coco_types(predictions, places, areas, partners, sigmas, own=own).tolist() == expected
    assert set(expected) <= set(COCO_TYPES)


def test_sigmas_of_a_person_are_alike_on_both_sides():
    assert len(COCO_SIGMAS) == 17
    assert COCO_SIGMAS[1::2] == COCO_SIGMAS[2::2]


def test_coco_refuses_what_does_not_fit():
    with pytest.raises(ConfigError, match="do not fit"):
        coco_types(np.zeros((2, 2)), np.zeros((1, 3, 2)), [1], [0, 1], 0.1)
    with pytest.raises(ConfigError, match="positive"):
        coco_types(np.zeros((2, 2)), np.zeros((1, 2, 2)), [0], [0, 1], 0.1)
