import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.masks import binarise, iou, mean_iou, pixel_precision
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

masks = arrays(bool, (4, 5))


def test_iou_is_the_shared_area_over_the_joint_area():
    left = np.zeros((4, 4), bool)
    left[:, :2] = True
    middle = np.zeros((4, 4), bool)
    middle[:, 1:3] = True

    assert iou(left, middle) == pytest.approx(4 / 12)


def test_two_empty_masks_agree_completely_and_one_empty_mask_not_at_all():
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)

    assert iou(empty, empty) == 1.0
    assert iou(empty, full) == 0.0
    assert iou(full, full) == 1.0


def test_images_without_pixels_agree():
    nothing = np.zeros((0, 7), bool)

    assert iou(nothing, nothing) == 1.0
    assert pixel_precision(nothing, nothing) == 1.0


def test_soft_masks_are_foreground_strictly_above_one_half_and_integers_wherever_not_zero():
    assert binarise(np.array([[0.4, 0.5, 0.6]])).tolist() == [[False, False, True]]
    assert binarise(np.array([[0.4, 0.5]]), level=0.3).tolist() == [[True, True]]
    assert binarise(np.array([[0, 1, 255]], np.uint8)).tolist() == [[False, True, True]]


def test_pixel_precision_counts_background_too():
    predicted = np.array([[1.0, 0.0, 0.0, 0.0]])
    truth = np.array([[0, 255, 0, 0]], np.uint8)

    assert pixel_precision(predicted, truth) == 0.5
    assert iou(predicted, truth) == 0.0


def test_mean_iou_weighs_every_image_alike_whatever_its_size():
    small = (np.ones((1, 1), bool), np.ones((1, 1), bool))
    large = (np.ones((9, 9), bool), np.zeros((9, 9), bool))

    assert mean_iou([small, large]) == 0.5
    assert math.isnan(mean_iou([]))


def test_masks_of_different_size_are_refused_with_both_sizes():
    with pytest.raises(ConfigError, match=r"\(2, 3\) and \(3, 2\)"):
        iou(np.zeros((2, 3)), np.zeros((3, 2)))


@given(masks, masks)
def test_iou_is_symmetric_bounded_and_equals_counting_by_hand(a, b):
    union = sum(x or y for x, y in zip(a.flat, b.flat, strict=True))
    both = sum(x and y for x, y in zip(a.flat, b.flat, strict=True))

    assert iou(a, b) == iou(b, a)
    assert 0.0 <= iou(a, b) <= 1.0
    assert iou(a, b) == (both / union if union else 1.0)


@given(masks, st.integers(0, 3))
def test_iou_does_not_change_when_both_masks_are_turned(a, turns):
    b = np.roll(a, 1, axis=1)

    assert iou(np.rot90(a, turns), np.rot90(b, turns)) == iou(a, b)
