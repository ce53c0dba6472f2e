"""Cells of regions on a feature map and what is pooled from them, against loops over single cells and pixels."""

import math

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.claid.pooling import (
    POOLINGS,
    cell_weights,
    mask_weights,
    pool_regions,
    roi_cells,
)
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st


def one_cell_rectangle(box, stride, map_hw):
    """The rule in words, for one box: starts down, ends up, inside the map; None where nothing is left."""
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        return None
    left, top = max(0, math.floor(x1 / stride)), max(0, math.floor(y1 / stride))
    right, bottom = min(map_hw[1], math.ceil(x2 / stride)), min(map_hw[0], math.ceil(y2 / stride))
    return (left, top, right, bottom) if left < right and top < bottom else None


coordinates = st.integers(-80, 480)


@given(boxes=st.lists(st.tuples(*[coordinates] * 4), max_size=8), stride=st.sampled_from([1, 8, 16, 32]))
def test_rectangles_follow_the_rule_box_by_box(boxes, stride):
    cells, valid = roi_cells(np.array(boxes).reshape(-1, 4), stride, (9, 13))

    expected = [one_cell_rectangle(box, stride, (9, 13)) for box in boxes]
    assert valid.tolist() == [rectangle is not None for rectangle in expected]
    for rectangle, found in zip(expected, cells.tolist(), strict=True):
        assert tuple(found) == (rectangle or (0, 0, 0, 0))


def test_each_axis_has_its_own_stride():
    cells, _ = roi_cells(np.array([[10.0, 10.0, 20.0, 20.0]]), (5.0, 10.0), (10, 10))
    assert cells.tolist() == [[1, 2, 2, 4]]


def test_an_edge_that_rounding_has_moved_off_a_cell_by_a_hair_takes_no_further_cell():
    stride = 100 / 3
    box = [[3 * stride + 1e-9, 0, 6 * stride + 1e-9, stride - 1e-9]]
    assert roi_cells(np.array(box), stride, (9, 9))[0].tolist() == [[3, 0, 6, 1]]
    box = [[3 * stride - 1e-9, 0, 6 * stride - 1e-9, stride + 1e-9]]
    assert roi_cells(np.array(box), stride, (9, 9))[0].tolist() == [[3, 0, 6, 1]]


def test_a_box_that_is_not_finite_is_invalid_and_leaves_the_others_alone():
    cells, valid = roi_cells(np.array([[0, 0, np.nan, 9], [0, 0, np.inf, 9], [0, 0, 9, 9]]), 8, (4, 4))
    assert valid.tolist() == [False, False, True]
    assert cells.tolist() == [[0] * 4, [0] * 4, [0, 0, 2, 2]]


def test_the_cells_of_a_rectangle_weigh_one_in_raster_order():
    weights = cell_weights(np.array([[1, 0, 3, 2], [0, 0, 0, 0]]), (3, 4))
    assert weights.dtype == torch.float32
    assert weights[0].reshape(3, 4).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert weights[1].sum() == 0


def shares_by_counting_pixels(mask, patch, image_hw, map_hw, cell):
    """Share of each cell's pixels, those inside the image, that belong to the mask; patch and cell in whole pixels."""
    pixels = np.zeros((map_hw[0] * cell, map_hw[1] * cell))
    inside = np.zeros_like(pixels)
    for y in range(min(len(pixels), image_hw[0])):
        for x in range(min(pixels.shape[1], image_hw[1])):
            inside[y, x] = 1
            if y // patch < mask.shape[0] and x // patch < mask.shape[1]:
                pixels[y, x] = mask[y // patch, x // patch]
    covered, all_there = (a.reshape(map_hw[0], cell, map_hw[1], cell).sum((1, 3)) for a in (pixels, inside))
    return np.divide(covered, all_there, out=np.zeros(map_hw), where=all_there > 0)


@pytest.mark.parametrize(
    ("image_hw", "map_hw"),
    [((40, 48), (2, 2)), ((40, 48), (3, 3)), ((45, 53), (3, 4)), ((45, 53), (2, 3)), ((30, 30), (2, 5))],
)
def test_a_mask_weighs_each_cell_by_the_share_of_its_pixels_that_it_covers(image_hw, map_hw):
    rng = np.random.default_rng(0)
    masks = rng.random((3, 5, 6)) < 0.5  # 40 × 48 pixels

    weights = mask_weights(masks, (40, 48), image_hw, map_hw, (map_hw[0] * 16, map_hw[1] * 16))

    expected = [shares_by_counting_pixels(mask, 8, image_hw, map_hw, 16) for mask in masks]
    np.testing.assert_allclose(weights.reshape(3, *map_hw), expected, atol=1e-6)


def test_a_full_mask_weighs_all_cells_one_even_those_that_reach_beyond_the_image():
    weights = mask_weights(np.ones((1, 5, 6), bool), (40, 48), (40, 48), (2, 2), (64.0, 64.0))
    assert weights.tolist() == [[1.0] * 4]


def test_a_mask_on_the_maps_own_grid_comes_back_as_it_is_however_odd_its_scale():
    masks = np.random.default_rng(1).random((4, 7, 5)) < 0.5
    extent = (7 * 16 * 481 / 113, 5 * 16 * 339 / 81)
    weights = mask_weights(masks, extent, (500, 400), (7, 5), extent)
    np.testing.assert_allclose(weights.reshape(4, 7, 5), masks, atol=1e-6)
    assert ((weights > 0) == torch.from_numpy(masks.reshape(4, -1))).all()


def pooled_cell_by_cell(feature_map, weights, kind, p):
    features = feature_map.reshape(-1, feature_map.shape[-1]).double().numpy()
    out = np.zeros((len(weights), features.shape[1]))
    for r, row in enumerate(weights.double().numpy()):
        members = [i for i, weight in enumerate(row) if weight > 0]
        for c in range(features.shape[1]) if members else ():
            values = [features[i, c] for i in members]
            if kind == "max":
                out[r, c] = max(values)
                continue
            if kind == "gem":
                values = [math.copysign(abs(value) ** p, value) for value in values]
            mean = sum(row[i] * value for i, value in zip(members, values, strict=True)) / sum(row[members])
            out[r, c] = math.copysign(abs(mean) ** (1 / p), mean) if kind == "gem" else mean
    return out


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize("p", [1.0, 3.0, 4.5])
def test_pooling_equals_a_loop_over_cells(kind, p):
    generator = torch.Generator().manual_seed(2)
    feature_map = torch.randn(5, 7, 6, generator=generator)
    weights = torch.rand(9, 35, generator=generator) * (torch.rand(9, 35, generator=generator) < 0.3)
    weights[4] = 0

    pooled = pool_regions(feature_map, weights, kind, p)

    np.testing.assert_allclose(pooled, pooled_cell_by_cell(feature_map, weights, kind, p), rtol=1e-5, atol=1e-5)
    assert pooled[4].abs().sum() == 0


@pytest.mark.parametrize("kind", POOLINGS)
def test_an_image_without_regions_and_regions_without_cells_are_no_faults(kind):
    feature_map = torch.rand(2, 3, 4)
    assert pool_regions(feature_map, torch.zeros(0, 6), kind).shape == (0, 4)
    assert pool_regions(feature_map, torch.zeros(2, 6), kind).tolist() == [[0.0] * 4] * 2


def test_the_maximum_is_the_same_when_memory_allows_one_region_at_a_time(monkeypatch):
    weights = (torch.rand(6, 20, generator=torch.Generator().manual_seed(3)) < 0.4).float()
    feature_map = torch.randn(4, 5, 3)
    together = pool_regions(feature_map, weights, "max")
    monkeypatch.setattr("fiftyone_selfsame.brain.claid.pooling._GATHERED", 1)
    assert torch.equal(pool_regions(feature_map, weights, "max"), together)


def test_an_unknown_pooling_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"pooling='sum'.*gem, mean, max"):
        pool_regions(torch.rand(2, 2, 2), torch.ones(1, 4), "sum")
