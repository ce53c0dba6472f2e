"""Overlap of boxes, localisation of hits and recall of regions, with numbers checked by hand."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.localisation import box_iou, hit_iou, mean_iou_of_hits, region_recall
from fiftyone_selfsame.brain.metrics.masks import iou as mask_iou
from hypothesis import given
from hypothesis import strategies as st

SQUARE = [0, 0, 10, 10]
HALF = [0, 0, 10, 5]
SHIFTED = [5, 0, 15, 10]
AWAY = [20, 20, 30, 30]

boxes = st.tuples(*[st.integers(0, 11)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[::2]), max(b[1::2]))
)


def test_the_iou_of_boxes_worked_by_hand():
    assert box_iou([SQUARE], [SQUARE, HALF, SHIFTED, AWAY])[0] == pytest.approx([1, 1 / 2, 1 / 3, 0])


@given(one=boxes, other=boxes)
def test_the_iou_of_boxes_is_that_of_their_pixels(one, other):
    masks = [np.zeros((12, 12), bool) for _ in range(2)]
    for mask, (x1, y1, x2, y2) in zip(masks, (one, other), strict=True):
        mask[y1:y2, x1:x2] = True

    expected = mask_iou(*masks) if masks[0].any() or masks[1].any() else 0

    assert box_iou([one], [other])[0, 0] == pytest.approx(expected)
    assert box_iou([other], [one])[0, 0] == pytest.approx(expected)


def test_every_box_meets_every_other_and_no_box_meets_none():
    assert box_iou([SQUARE, HALF], [SQUARE, HALF, AWAY]).shape == (2, 3)
    assert box_iou(np.empty((0, 4)), [SQUARE]).shape == (0, 1)
    assert box_iou([SQUARE], []).shape == (1, 0)


@pytest.mark.parametrize("box", [[10, 0, 0, 10], [0, 0, np.nan, 1], [0, 0, np.inf, 1]])
def test_broken_boxes_are_refused(box):
    with pytest.raises(ConfigError, match="others: a box"):
        box_iou([SQUARE], [box])
    with pytest.raises(ConfigError, match=r"boxes has shape \(1, 3\)"):
        box_iou([box[:3]], [SQUARE])


def test_a_hit_counts_by_its_best_matching_object_and_no_region_counts_nothing():
    assert hit_iou(np.array(SQUARE), np.array([AWAY, HALF, SHIFTED])) == pytest.approx(1 / 2)
    assert hit_iou(None, np.array([SQUARE])) == 0


def test_miou_is_a_mean_over_queries_of_means_over_their_relevant_images():
    assert mean_iou_of_hits([np.array([1.0, 0.0]), np.array([0.8])]) == pytest.approx((0.5 + 0.8) / 2)
    assert np.isnan(mean_iou_of_hits([]))


def test_miou_within_the_first_k_leaves_later_images_out_and_counts_a_query_without_any_as_nothing():
    ious = [np.array([1.0, 0.5, 0.0]), np.array([0.9])]
    ranks = [np.array([1, 2, np.inf]), np.array([3])]

    assert mean_iou_of_hits(ious, ranks, k=2) == pytest.approx((0.75 + 0) / 2)
    assert mean_iou_of_hits(ious, ranks, k=3) == pytest.approx((0.75 + 0.9) / 2)
    assert mean_iou_of_hits(ious, ranks) == mean_iou_of_hits(ious)


def test_miou_refuses_what_it_cannot_mean():
    with pytest.raises(ConfigError, match="k=2 must be at least 1 and come with ranks"):
        mean_iou_of_hits([np.ones(1)], None, k=2)
    with pytest.raises(ConfigError, match="k=0"):
        mean_iou_of_hits([np.ones(1)], [np.ones(1)], k=0)
    with pytest.raises(ConfigError, match="no relevant image"):
        mean_iou_of_hits([np.empty(0)])


def test_recall_is_the_share_of_objects_that_some_region_covers_at_each_threshold():
    regions = [np.array([SQUARE, AWAY]), np.empty((0, 4)), np.array([AWAY])]
    truths = [np.array([SQUARE, HALF, SHIFTED]), np.array([SQUARE]), np.empty((0, 4))]

    # Best IoU of the four objects: 1, 1/2, 1/3 and, in the image without regions, 0.
    assert region_recall(regions, truths, (0.3, 0.5, 0.75)) == pytest.approx([3 / 4, 2 / 4, 1 / 4])


def test_recall_of_no_object_is_not_a_number_and_images_must_agree():
    assert np.isnan(region_recall([np.array([SQUARE])], [np.empty((0, 4))])).all()
    with pytest.raises(ConfigError, match="regions of 1 images but objects of 2"):
        region_recall([np.array([SQUARE])], [np.array([SQUARE])] * 2)
