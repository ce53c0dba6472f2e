from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.foreground.grabcut import GrabCut, GrabCutConfig
from fiftyone_selfsame.brain.metrics.masks import iou


def red_disc_on_green(height=90, width=120, seed=0):
    """A noisy red disc, off centre, on noisy green; and its mask."""
    y, x = np.mgrid[:height, :width]
    disc = (y - 0.55 * height) ** 2 + (x - 0.4 * width) ** 2 < (0.25 * height) ** 2
    image = np.where(disc[..., None], [190, 40, 40], [50, 140, 60])
    noise = np.random.default_rng(seed).normal(0, 12, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), disc


def test_an_object_of_another_colour_than_its_surroundings_is_found():
    image, disc = red_disc_on_green()

    [mask] = GrabCut().masks([image])

    assert mask.dtype == np.float32
    assert iou(mask, disc) > 0.95


def test_a_black_object_is_foreground_like_any_other():
    image, disc = red_disc_on_green()
    image[disc] = 0

    [mask] = GrabCut().masks([image])

    assert iou(mask, disc) > 0.95


def test_a_large_image_gets_a_mask_of_its_own_size():
    image, disc = red_disc_on_green(700, 900)

    [mask] = GrabCut().masks([image])

    assert mask.shape == (700, 900)
    assert iou(mask, disc) > 0.95


def test_the_mask_turns_and_flips_with_the_image():
    image, _ = red_disc_on_green()
    [upright] = GrabCut().masks([image])

    [turned] = GrabCut().masks([np.rot90(image).copy()])
    [flipped] = GrabCut().masks([image[:, ::-1].copy()])

    assert iou(turned, np.rot90(upright)) > 0.97
    assert iou(flipped, upright[:, ::-1]) > 0.97


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (12, 200, 90)])
@pytest.mark.parametrize("shape", [(1, 1), (40, 60)])
def test_an_image_of_one_colour_has_no_foreground(colour, shape):
    image = np.full((*shape, 3), colour, np.uint8)

    [mask] = GrabCut().masks([image])

    assert mask.shape == shape
    assert not mask.any()


@pytest.mark.parametrize("shape", [(1, 2), (2, 1), (3, 3), (7, 5), (10, 20_000), (20_000, 1), (17, 300)])
def test_images_of_any_size_get_a_finite_mask(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)

    [mask] = GrabCut().masks([image])

    assert mask.shape == shape
    assert mask.dtype == np.float32
    assert ((mask >= 0) & (mask <= 1)).all()


@pytest.mark.parametrize("make", [lambda y, x: y < 30, lambda y, x: (x + y) % 2 == 0, lambda y, x: (x == 0) & (y == 0)])
def test_images_of_two_colours_get_a_finite_mask(make):
    y, x = np.mgrid[:60, :60]
    image = np.where(make(y, x)[..., None], 255, 0).repeat(3, -1).astype(np.uint8)

    [mask] = GrabCut().masks([image])

    assert ((mask >= 0) & (mask <= 1)).all()


def test_the_same_image_gives_the_same_mask_in_any_batch_and_thread():
    images = [red_disc_on_green(seed=seed)[0] for seed in range(4)]
    method = GrabCut()
    together = method.masks(images)

    with ThreadPoolExecutor(4) as threads:
        apart = list(threads.map(lambda image: method.masks([image])[0], images))

    for first, second in zip(together, apart, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_images_are_left_as_they_were():
    image, _ = red_disc_on_green()
    before = image.copy()

    GrabCut().masks([image])

    np.testing.assert_array_equal(image, before)


def test_settings_change_the_hash_and_impossible_ones_are_refused():
    assert GrabCut().weights_hash == GrabCut(GrabCutConfig(side=160)).weights_hash
    assert GrabCut().weights_hash != GrabCut(GrabCutConfig(side=128)).weights_hash
    with pytest.raises(ConfigError, match="side=4"):
        GrabCutConfig(side=4)
    with pytest.raises(ConfigError, match="iterations=0"):
        GrabCutConfig(iterations=0)
