"""The working size of images, and boxes of regions in pixels of the original."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.claid.boxes import patch_extents, reference_boxes, region_boxes, working_size
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("image_hw", "expected"),
    [
        ((480, 640), (360, 480, 45, 60)),
        ((640, 480), (480, 360, 60, 45)),
        ((1080, 1920), (360, 640, 45, 80)),
        ((427, 640), (360, 539, 45, 67)),  # 360 * 640 / 427 = 539.6
        ((288, 352), (288, 352, 36, 44)),
        ((355, 5000), (355, 5000, 44, 625)),  # hardly longer than wanted: as it is, whatever the long side
        ((356, 356), (360, 360, 45, 45)),
        ((400, 1600), (200, 800, 25, 100)),  # 360 x 1440 would be too long
        ((500, 1_000_000), (1, 800, 0, 100)),
    ],
)
def test_the_short_side_is_reduced_unless_it_is_short_already(image_hw, expected):
    assert working_size(image_hw) == expected


def test_other_sides_and_patches_follow_the_same_rule():
    assert working_size((480, 640), short_side=224, long_side=448, patch=14) == (224, 298, 16, 21)
    assert working_size((219, 640), short_side=224, long_side=448, patch=16) == (219, 640, 13, 40)
    assert working_size((1000, 4000), short_side=224, long_side=448, patch=16) == (112, 448, 7, 28)


@pytest.mark.parametrize("sides", [{"short_side": 0}, {"short_side": 900}, {"patch": 0}])
def test_impossible_sides_are_refused(sides):
    with pytest.raises(ConfigError, match="use positive numbers of pixels"):
        working_size((480, 640), **sides)


@given(height=st.integers(1, 3000), width=st.integers(1, 3000))
def test_a_turned_image_has_the_turned_size(height, width):
    rh, rw, gh, gw = working_size((height, width))

    assert working_size((width, height)) == (rw, rh, gw, gh)
    assert (gh, gw) == (rh // 8, rw // 8)


def test_extents_are_the_first_and_last_patches():
    masks = np.zeros((3, 4, 6), bool)
    masks[0, 1, 2] = True
    masks[1, [0, 3], [5, 1]] = True
    masks[2] = True

    assert patch_extents(masks).tolist() == [[2, 1, 2, 1], [1, 0, 5, 3], [0, 0, 5, 3]]
    assert patch_extents(masks[:0]).shape == (0, 4)


def test_a_box_is_scaled_by_the_ratio_of_its_axis():
    masks = np.zeros((1, 45, 67), bool)
    masks[0, 10:20, 30:40] = True

    boxes = region_boxes(masks, (427, 640), (360, 539), patch=8)

    np.testing.assert_allclose(boxes, [[240 * 640 / 539, 80 * 427 / 360, 320 * 640 / 539, 160 * 427 / 360]])
    assert boxes.dtype == np.float64


def test_a_box_never_ends_beyond_the_image():
    whole = np.ones((1, 45, 45), bool)

    # In floating point, 360 times a ratio can be a little more than the side that the ratio was made of.
    for side in range(356, 800):
        x1, y1, x2, y2 = region_boxes(whole, (side, side), (360, 360), patch=8)[0]
        assert (x1, y1) == (0, 0)
        assert side - 1e-9 < x2 <= side
        assert side - 1e-9 < y2 <= side


def test_what_was_cropped_belongs_to_no_box():
    whole = np.ones((1, 5, 6), bool)

    assert region_boxes(whole, (47, 51), (47, 51), patch=8).tolist() == [[0, 0, 48, 40]]


def test_the_programs_boxes_have_misplaced_far_edges():
    masks = np.zeros((2, 45, 60), bool)
    masks[0, 2:5, 3:6] = True
    masks[1, 40:, 50:] = True

    boxes = region_boxes(masks, (480, 640), (360, 480), patch=8, mode="reference")

    # 5 * 9 * 4/3 = 60 where 6 * 8 * 4/3 = 64 would be right, and 59 * 9 * 4/3 = 708 beyond the 640 pixels.
    assert boxes.tolist() == [[32, 21, 60, 48], [533, 426, 708, 528]]


def test_the_programs_boxes_use_the_ratio_of_heights_on_both_axes():
    masks = np.zeros((1, 45, 67), bool)
    masks[0, 10:20, 30:40] = True

    boxes = region_boxes(masks, (427, 640), (360, 539), patch=8, mode="reference")

    assert boxes.tolist() == reference_boxes(np.array([[30, 10, 39, 19]]), 427 / 360, 8).tolist()


def test_an_unknown_kind_of_box_is_refused():
    with pytest.raises(ConfigError, match="box_mode='tight' is unknown; use one of exact, reference"):
        region_boxes(np.ones((1, 2, 2), bool), (16, 16), (16, 16), 8, "tight")


def test_no_regions_have_no_boxes():
    assert region_boxes(np.zeros((0, 45, 60), bool), (480, 640), (360, 480), 8).shape == (0, 4)
