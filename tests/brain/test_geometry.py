"""Placement on the canvas, and the way of masks and patch maps between image and patches."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import (
    RESIZE_MODES,
    image_to_canvas,
    mask_to_patches,
    patches_to_mask,
    plan_geometry,
    points_to_canvas,
    points_to_image,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

sides = st.integers(1, 3000)
modes = st.sampled_from(RESIZE_MODES)


@given(height=sides, width=sides, patch=st.sampled_from([8, 14, 16]), cells=st.integers(1, 30), mode=modes)
def test_every_image_gets_a_canvas_of_whole_patches_with_its_content_inside(height, width, patch, cells, mode):
    geometry = plan_geometry((height, width), cells * patch, patch, mode)

    top, left, content_height, content_width = geometry.content
    assert geometry.canvas_hw[0] % patch == 0
    assert geometry.canvas_hw[1] % patch == 0
    assert min(geometry.grid_hw) >= 1
    assert top >= 0
    assert left >= 0
    assert content_height >= 1
    assert content_width >= 1
    assert top + content_height <= geometry.canvas_hw[0]
    assert left + content_width <= geometry.canvas_hw[1]


@given(height=st.integers(50, 3000), width=st.integers(50, 3000))
def test_letterbox_keeps_the_aspect_ratio_to_the_pixel_and_centres_the_picture(height, width):
    geometry = plan_geometry((height, width), 336, 14, "letterbox")

    top, left, content_height, content_width = geometry.content
    scale = 336 / max(height, width)
    assert max(content_height, content_width) == 336
    assert abs(content_height - height * scale) <= 0.5
    assert abs(content_width - width * scale) <= 0.5
    # The larger half of an odd padding goes below and to the right.
    assert top == (336 - content_height) // 2
    assert left == (336 - content_width) // 2


@given(ratio=st.floats(0.25, 4.0))
def test_aspect_mode_keeps_area_and_ratio_to_within_a_patch(ratio):
    height, width = round(1000 * ratio**0.5), round(1000 / ratio**0.5)

    canvas_height, canvas_width = plan_geometry((height, width), 336, 14, "aspect").canvas_hw

    assert abs(canvas_height - 336 * (height / width) ** 0.5) <= 7.01
    assert abs(canvas_width - 336 * (width / height) ** 0.5) <= 7.01


def test_a_long_strip_does_not_become_a_thousand_patches_in_aspect_mode():
    assert plan_geometry((10, 20_000), 336, 14, "aspect").grid_hw == (12, 48)
    assert plan_geometry((20_000, 10), 336, 14, "aspect").grid_hw == (48, 12)


@pytest.mark.parametrize("size", [0, -14, 13, 330])
def test_a_size_that_is_no_multiple_of_the_patch_is_refused_and_the_next_ones_are_named(size):
    with pytest.raises(ConfigError, match="multiple of the patch size 14") as error:
        plan_geometry((100, 100), size, 14)

    if size == 330:
        assert "322" in str(error.value)
        assert "336" in str(error.value)


def test_an_unknown_resize_mode_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"resize='crop'.*squash, letterbox, aspect"):
        plan_geometry((100, 100), 28, 14, "crop")


def test_squash_gives_the_very_pixels_of_an_antialiased_bicubic_resize():
    image = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)

    canvas = image_to_canvas(image, plan_geometry((90, 130), 56, 14))

    expected = np.asarray(Image.fromarray(image).resize((56, 56), Image.Resampling.BICUBIC)) / 255
    assert canvas.shape == (3, 56, 56)
    assert canvas.dtype == torch.float32
    assert np.allclose(canvas.numpy().transpose(1, 2, 0), expected, atol=1e-6)


def test_letterbox_pads_with_grey_on_both_sides():
    image = np.full((20, 40, 3), 255, np.uint8)

    canvas = image_to_canvas(image, plan_geometry((20, 40), 56, 14, "letterbox"))[0].numpy()

    assert (canvas[14:42] == 1).all()
    assert np.allclose(canvas[:14], 127 / 255)
    assert np.allclose(canvas[42:], 127 / 255)


def literal_coverage(mask: np.ndarray, geometry, factor: int) -> np.ndarray:
    """Coverage by points: every patch is sampled on a fine lattice, each point looked up in the mask."""
    top, left, height, width = geometry.content
    rows, columns = geometry.grid_hw
    points = geometry.patch * factor
    coverage = np.zeros((rows, columns))
    for i in range(rows):
        for j in range(columns):
            total = 0.0
            for y in (np.arange(points) + 0.5) / factor + i * geometry.patch:
                for x in (np.arange(points) + 0.5) / factor + j * geometry.patch:
                    v, u = (y - top) / height, (x - left) / width
                    if 0 <= v < 1 and 0 <= u < 1:
                        total += mask[int(v * mask.shape[0]), int(u * mask.shape[1])]
            coverage[i, j] = total / points**2
    return coverage


@pytest.mark.parametrize("mode", RESIZE_MODES)
@pytest.mark.parametrize("hw", [(9, 23), (40, 12), (1, 1), (3, 50)])
def test_coverage_agrees_with_supersampling_by_points(mode, hw):
    mask = np.random.default_rng(1).random(hw).astype(np.float32)
    geometry = plan_geometry(hw, 12, 4, mode)

    coverage = mask_to_patches(mask, geometry)

    assert np.allclose(coverage, literal_coverage(mask, geometry, factor=24), atol=0.02)


@given(height=st.integers(1, 60), width=st.integers(1, 60), mode=modes, seed=st.integers(0, 9))
def test_coverage_keeps_the_area_of_the_mask(height, width, mode, seed):
    mask = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    geometry = plan_geometry((height, width), 56, 14, mode)

    coverage = mask_to_patches(mask, geometry)

    content_patches = geometry.content[2] * geometry.content[3] / 14**2
    assert coverage.min() >= 0
    assert coverage.max() <= 1
    assert coverage.sum() == pytest.approx(mask.mean() * content_patches, rel=1e-4)


def test_padding_counts_as_background():
    coverage = mask_to_patches(np.ones((20, 40)), plan_geometry((20, 40), 56, 14, "letterbox"))

    assert coverage.tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4]


def test_the_mask_of_a_reduced_copy_gives_the_same_coverage():
    small = np.random.default_rng(2).random((12, 18)) > 0.5
    large = small.repeat(3, 0).repeat(3, 1)
    geometry = plan_geometry((36, 54), 56, 14, "letterbox")

    assert np.allclose(mask_to_patches(small, geometry), mask_to_patches(large, geometry), atol=1e-6)


def test_several_objects_are_covered_at_once_as_each_by_itself():
    masks = np.random.default_rng(3).random((4, 31, 17))
    geometry = plan_geometry((31, 17), 28, 14)

    together = mask_to_patches(masks, geometry)

    for mask, coverage in zip(masks, together, strict=True):
        assert np.allclose(mask_to_patches(mask, geometry), coverage)


@pytest.mark.parametrize("mode", RESIZE_MODES)
def test_a_patch_map_returns_to_pixels_in_the_place_it_came_from(mode):
    geometry = plan_geometry((120, 200), 112, 14, mode)
    mask = np.zeros((120, 200), np.float32)
    mask[30:90, 100:180] = 1

    pixels = patches_to_mask(mask_to_patches(mask, geometry), geometry)

    assert pixels.shape == (120, 200)
    inside = pixels > 0.5
    overlap = (inside & (mask > 0)).sum() / (inside | (mask > 0)).sum()
    assert overlap > 0.75
    assert pixels[55:65, 130:150].min() > 0.95
    assert pixels[:10].max() < 0.2


@given(value=st.floats(0, 1, width=32), height=st.integers(1, 90), width=st.integers(1, 90))
def test_a_constant_map_stays_constant(value, height, width):
    geometry = plan_geometry((height, width), 56, 14)

    pixels = patches_to_mask(np.full((4, 4), value, np.float32), geometry)

    assert np.allclose(pixels, value, atol=1e-6)


def test_points_travel_with_the_picture_onto_its_canvas():
    geometry = plan_geometry((100, 200), 56, 14, "letterbox")

    corners = points_to_canvas(np.array([[0, 0], [200, 100], [100, 50]]), geometry)

    assert np.allclose(corners, [[0, 14], [56, 42], [28, 28]])


@given(height=sides, width=sides, mode=modes, x=st.floats(0, 1), y=st.floats(0, 1))
def test_points_return_from_the_canvas_to_where_they_were(height, width, mode, x, y):
    geometry = plan_geometry((height, width), 112, 14, mode)
    point = np.array([x * width, y * height])

    on_canvas = points_to_canvas(point, geometry)

    top, left, content_height, content_width = geometry.content
    assert left - 1e-9 <= on_canvas[0] <= left + content_width + 1e-9
    assert top - 1e-9 <= on_canvas[1] <= top + content_height + 1e-9
    assert np.allclose(points_to_image(on_canvas, geometry), point)
