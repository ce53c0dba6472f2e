import numpy as np
import pytest
from fiftyone_selfsame.brain.image_quality import image_quality
from PIL import Image, ImageFilter


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A scene with edges at many scales, in mid tones."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    coarse = np.asarray(Image.fromarray(noise).resize((640, 480), Image.Resampling.NEAREST))
    return (coarse * 0.5 + 64).astype(np.uint8)


def test_pixels_and_bytes_are_counted_as_they_are(photo):
    quality = image_quality(photo, 1234)

    assert (quality.pixels, quality.file_size) == (640 * 480, 1234)


def test_blur_lowers_sharpness_step_by_step(photo):
    blurred = [np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4)]
    sharpness = [image_quality(image, 1).sharpness for image in blurred]

    assert sharpness == sorted(sharpness, reverse=True)
    assert sharpness[0] > 4 * sharpness[-1]


def test_a_reduced_copy_does_not_pass_for_sharper(photo):
    small = np.asarray(Image.fromarray(photo).resize((160, 120), Image.Resampling.BICUBIC))

    assert image_quality(small, 1).sharpness < image_quality(photo, 1).sharpness


def test_lower_contrast_is_not_taken_for_blur(photo):
    flat = (photo.astype(np.float32) * 0.5 + 64).astype(np.uint8)

    assert image_quality(flat, 1).sharpness == pytest.approx(image_quality(photo, 1).sharpness, rel=0.05)


def test_exposure_falls_with_clipping_and_with_darkness(photo):
    even = image_quality(photo, 1).exposure
    blown = image_quality(np.clip(photo.astype(int) + 120, 0, 255).astype(np.uint8), 1).exposure
    dark = image_quality(photo // 4, 1).exposure

    assert even > 0.9
    assert blown < 0.6 * even
    assert dark < 0.6 * even


@pytest.mark.parametrize("shape", [(1, 1, 3), (10, 20_000, 3), (2, 1, 3)])
def test_odd_shapes_and_blank_pictures_have_finite_measures(shape):
    quality = image_quality(np.full(shape, 255, np.uint8), 10)

    assert quality.sharpness == 0.0
    assert quality.exposure == 0.0
