"""Points, cells and regions of a letterboxed picture."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.grids import (
    as_region,
    canvas_cells,
    cells_to_places,
    cells_to_points,
    picture_cells,
    points_to_cells,
    region_cells,
    released_canvas_points,
)
from fiftyone_selfsame.brain.correspondence.views import ALL_VIEWS, IDENTITY, MIRROR, View
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import plan_geometry, points_to_canvas, points_to_image
from hypothesis import given
from hypothesis import strategies as st

sides = st.integers(20, 2000)
views = st.sampled_from(ALL_VIEWS)


def _points(seed, height, width, count=12):
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * (width, height)


@given(height=sides, width=sides, seed=st.integers(0, 999), patch=st.sampled_from([8, 14, 16]))
def test_a_point_lies_within_half_a_cell_of_the_centre_of_its_cell(height, width, seed, patch):
    geometry = plan_geometry((height, width), 30 * patch, patch, "letterbox")
    points = _points(seed, height, width)

    cells = canvas_cells(points, geometry)
    back = points_to_image(cells_to_points(cells_to_places(cells, geometry.grid_hw), patch), geometry)

    scale = np.array([geometry.content[3] / width, geometry.content[2] / height])
    assert (np.abs(back - points) * scale <= patch / 2 + 1e-6).all()
    assert picture_cells(geometry).ravel()[cells].all()


@given(height=sides, width=sides, seed=st.integers(0, 999))
def test_the_published_scale_differs_from_ours_by_less_than_a_pixel(height, width, seed):
    geometry = plan_geometry((height, width), 840, 14, "letterbox")
    points = _points(seed, height, width)

    difference = released_canvas_points(points, geometry) - points_to_canvas(points, geometry)

    assert np.abs(difference).max() <= 0.5 + 1e-6


def test_cells_are_numbered_in_raster_order_and_half_open():
    points = [[0, 0], [13.9, 0], [14, 0], [0, 14], [27.9, 41.9]]

    assert points_to_cells(points, (3, 2), 14).tolist() == [0, 0, 1, 2, 5]


def test_points_on_the_edge_belong_to_the_last_cell_unless_the_published_arithmetic_is_asked_for():
    corner_and_edge = [[28, 42], [28, 0]]

    assert points_to_cells(corner_and_edge, (3, 2), 14).tolist() == [5, 1]
    assert points_to_cells(corner_and_edge, (3, 2), 14, clip=False).tolist() == [8, 2]


def test_a_cell_has_its_centre_half_a_side_from_its_corner_or_half_a_pixel_before():
    assert cells_to_points([[0, 0], [2, 1]], 14).tolist() == [[7, 7], [35, 21]]
    assert cells_to_points([[0, 0]], 14, "pixel").tolist() == [[6.5, 6.5]]
    with pytest.raises(ConfigError, match="middle, pixel"):
        cells_to_points([[0, 0]], 14, "corner")


def test_a_region_holds_the_cells_that_are_covered_for_the_larger_part():
    geometry = plan_geometry((28, 56), 56, 14, "letterbox")
    mask = np.zeros((28, 56))
    mask[:, :21] = 1

    region = region_cells(mask, geometry)

    # The picture takes the middle two of four rows.
    assert region.astype(int).tolist() == [[0] * 4, [1, 1, 0, 0], [1, 1, 0, 0], [0] * 4]
    assert not region_cells(np.zeros((28, 56)), geometry).any()


def test_a_mask_too_thin_for_half_a_cell_still_has_a_region():
    geometry = plan_geometry((28, 28), 28, 14, "letterbox")
    mask = np.zeros((28, 28))
    mask[:, 1:3] = 1

    assert region_cells(mask, geometry).tolist() == [[True, False], [True, False]]


def test_points_and_regions_of_other_shapes_are_refused():
    with pytest.raises(ConfigError, match="give \\(n, 2\\)"):
        points_to_cells(np.zeros((3, 3)), (2, 2), 14)
    with pytest.raises(ConfigError, match="not finite"):
        points_to_cells([[np.nan, 1]], (2, 2), 14)
    with pytest.raises(ConfigError, match="both must agree"):
        as_region(np.ones((2, 3), bool), (3, 2), torch.device("cpu"))


@given(height=st.integers(1, 40), width=st.integers(1, 40), view=views, seed=st.integers(0, 999))
def test_points_return_from_every_view(height, width, view, seed):
    points = _points(seed, height, width)
    points[0] = np.nan

    turned = view.points(points, (height, width))

    np.testing.assert_allclose(view.original_points(turned, (height, width)), points, atol=1e-9)
    shape = view.apply(np.zeros((height, width))).shape
    assert (turned[1:] >= -1e-9).all()
    assert (turned[1:] <= np.array(shape[::-1]) + 1e-9).all()


@given(height=st.integers(1, 9), width=st.integers(1, 9), view=views, seed=st.integers(0, 999))
def test_a_point_keeps_its_pixel_in_every_view(height, width, view, seed):
    image = np.arange(height * width).reshape(height, width)
    row, column = np.random.default_rng(seed).integers(0, (height, width))

    x, y = view.points([[column + 0.5, row + 0.5]], (height, width))[0]

    assert view.apply(image)[int(y), int(x)] == image[row, column]


def test_views_have_names_of_their_own():
    assert len({view.name for view in ALL_VIEWS}) == len(ALL_VIEWS) == 8
    assert (IDENTITY.name, MIRROR.name, View(True, 1).name) == ("identity", "mirror", "mirror_rotate_90")
