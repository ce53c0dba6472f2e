import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.foreground.given import boxes_to_mask, instance_mask, instances_to_mask
from hypothesis import given
from hypothesis import strategies as st

whole_boxes = st.lists(
    st.tuples(st.integers(-3, 9), st.integers(-3, 9), st.integers(0, 6), st.integers(0, 6)), max_size=4
)


def test_a_box_covers_exactly_its_pixels_and_cut_pixels_in_part():
    mask = boxes_to_mask([[1.0, 0.5, 1.5, 1.0]], (3, 4))

    assert mask.dtype == np.float32
    assert mask.tolist() == [[0, 0.5, 0.25, 0], [0, 0.5, 0.25, 0], [0, 0, 0, 0]]


@given(whole_boxes)
def test_boxes_on_whole_pixels_give_the_union_of_their_slices(boxes):
    expected = np.zeros((7, 8))
    for x, y, width, height in boxes:
        expected[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)] = 1

    np.testing.assert_array_equal(boxes_to_mask(np.array(boxes, float), (7, 8)), expected)


def test_no_box_and_boxes_outside_the_image_leave_the_mask_empty():
    assert not boxes_to_mask(np.zeros((0, 4)), (5, 5)).any()
    assert not boxes_to_mask([[10, 10, 5, 5], [-9, 0, 4, 4]], (5, 5)).any()


def test_an_instance_mask_lands_on_its_box_at_its_own_resolution():
    quarters = np.array([[1, 0], [0, 1]], bool)

    mask = instance_mask([2, 1, 4, 2], quarters, (4, 8))

    assert mask.tolist() == [[0] * 8, [0, 0, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0], [0] * 8]


def test_an_instance_that_sticks_out_of_the_image_is_cut_not_squeezed():
    halves = np.array([[1, 0]], bool)

    mask = instance_mask([-2, 0, 4, 1], halves, (1, 4))

    assert mask.tolist() == [[0, 0, 0, 0]]
    assert instance_mask([-2, 0, 4, 1], halves[:, ::-1], (1, 4)).tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_overlapping_instances_none_erases_another_whatever_their_order(order):
    boxes, masks = np.array([[0, 0, 2, 1], [1, 0, 2, 1]]), [np.array([[0.5, 1.0]]), np.array([[0.0, 1.0]])]

    mask = instances_to_mask(boxes[order], [masks[index] for index in order], (1, 3))

    assert mask.tolist() == [[0.5, 1, 1]]


def test_instances_with_and_without_masks_are_joined_by_their_largest_value():
    soft = np.array([[0.25, 0.75]], np.float32)

    mask = instances_to_mask(
        [[0, 0, 2, 1], [1, 0, 1, 1], [3, 0, 1, 1]], [soft, None, np.array([[255]], np.uint8)], (1, 4)
    )

    assert mask.tolist() == [[0.25, 1, 0, 1]]


def test_a_missing_mask_or_a_broken_box_is_named():
    with pytest.raises(ConfigError, match="2 boxes but 1 masks"):
        instances_to_mask(np.zeros((2, 4)), [None], (4, 4))
    with pytest.raises(ConfigError, match="box 1 has NaN"):
        boxes_to_mask([[0, 0, 1, 1], [0, np.nan, 1, 1]], (4, 4))
