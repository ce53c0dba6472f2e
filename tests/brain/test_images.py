"""Decoding: whatever is in the file, upright 8-bit RGB comes out, or an error that says what is wrong."""

import io

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ImageError
from fiftyone_selfsame.brain.images import decode_image, image_size
from PIL import Image


def gradient(height=20, width=30) -> np.ndarray:
    """An image without any symmetry: red grows to the right, green downwards."""
    rows, columns = np.mgrid[:height, :width]
    ramps = [columns * 255 // (width - 1), rows * 255 // (height - 1), np.full_like(rows, 40)]
    return np.stack(ramps, -1).astype(np.uint8)


def save(tmp_path, image: Image.Image, name: str, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_a_lossless_file_comes_back_pixel_by_pixel(tmp_path, name):
    options = {"lossless": True} if name.endswith("webp") else {}

    decoded = decode_image(save(tmp_path, Image.fromarray(gradient()), name, **options))

    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, gradient())


# What a viewer has to do to the stored pixels, for each value of the EXIF orientation.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_exif_orientation_is_applied_once(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.fromarray(gradient()), name, exif=exif, quality=100, subsampling=0)

    decoded = decode_image(path)

    expected = UPRIGHT[orientation](gradient())
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).mean() < 3
    assert image_size(path) == expected.shape[:2]


def test_cmyk_becomes_rgb(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient()).convert("CMYK"), "a.jpg", quality=100, subsampling=0)

    assert np.abs(decode_image(path).astype(int) - gradient()).mean() < 4


def test_16_bit_grey_keeps_its_tones_instead_of_being_clipped(tmp_path):
    values = np.linspace(0, 65535, 600).reshape(20, 30).astype(np.uint16)
    path = save(tmp_path, Image.fromarray(values), "a.png")

    decoded = decode_image(path)

    assert decoded.shape == (20, 30, 3)
    assert np.abs(decoded[..., 0].astype(int) - values / 257).max() <= 1


def test_a_nearly_black_16_bit_scan_stays_nearly_black(tmp_path):
    path = save(tmp_path, Image.fromarray(np.full((4, 4), 200, np.uint16)), "a.png")

    assert decode_image(path).max() == 1


def test_float_tiff_in_unit_range_is_scaled_to_8_bits(tmp_path):
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    path = save(tmp_path, Image.fromarray(values), "a.tiff")

    assert np.abs(decode_image(path)[..., 1] - values * 255).max() <= 1


def test_palette_with_transparency_lies_on_white_where_it_is_transparent(tmp_path):
    palette = Image.new("P", (4, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1, 0, 1])
    path = save(tmp_path, palette, "a.png", transparency=0)

    assert decode_image(path).tolist() == [[[255, 255, 255], [200, 100, 50]] * 2]


def test_the_hidden_colour_of_transparent_pixels_never_shows(tmp_path):
    pixels = np.zeros((1, 3, 4), np.uint8)
    pixels[0] = [[10, 20, 30, 0], [0, 0, 0, 255], [0, 0, 0, 128]]
    path = save(tmp_path, Image.fromarray(pixels), "a.png")

    clear, opaque, half = decode_image(path)[0]

    assert clear.tolist() == [255] * 3
    assert opaque.tolist() == [0] * 3
    assert half.tolist() == [127] * 3


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_becomes_three_equal_channels(tmp_path, mode):
    decoded = decode_image(save(tmp_path, Image.fromarray(gradient()).convert(mode), "a.png"))

    assert decoded.shape == (20, 30, 3)
    assert (decoded[..., 0] == decoded[..., 1]).all()
    assert (decoded[..., 0] == decoded[..., 2]).all()
    assert decoded.std() > 10


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10)])
def test_extreme_sizes_are_decoded(tmp_path, size):
    path = save(tmp_path, Image.new("RGB", size, "navy"), "a.png")

    assert decode_image(path).shape == (size[1], size[0], 3)
    assert decode_image(path, min_side=672).shape == (size[1], size[0], 3)
    assert image_size(path) == size[::-1]


def test_an_animated_picture_gives_its_first_frame(tmp_path):
    red, blue = Image.new("RGB", (5, 4), "red"), Image.new("RGB", (5, 4), "blue")
    path = save(tmp_path, red, "a.gif", save_all=True, append_images=[blue])

    assert decode_image(path).tolist() == np.full((4, 5, 3), (255, 0, 0)).tolist()


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_that_is_never_below_what_was_asked(tmp_path):
    rows, columns = np.mgrid[:1200, :1600]
    smooth = np.stack([columns % 256, rows % 256, (rows + columns) % 256], -1).astype(np.uint8)
    path = save(tmp_path, Image.fromarray(smooth), "a.jpg", quality=95)

    shapes = {side: decode_image(path, min_side=side).shape[:2] for side in (150, 151, 300, 301, 601, 5000)}

    assert shapes == {
        150: (150, 200),
        151: (300, 400),
        300: (300, 400),
        301: (600, 800),
        601: (1200, 1600),
        5000: (1200, 1600),
    }
    assert decode_image(path).shape[:2] == (1200, 1600)
    assert image_size(path) == (1200, 1600)


def test_a_reduced_rotated_jpeg_stays_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, Image.fromarray(gradient(1200, 1600)), "a.jpg", exif=exif)

    assert decode_image(path, min_side=150).shape == (200, 150, 3)


def truncated(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)).save(buffer, "JPEG")
    path = tmp_path / "truncated.jpg"
    path.write_bytes(buffer.getvalue()[: buffer.tell() // 2])
    return path


def test_a_truncated_jpeg_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ImageError, match=r"truncated\.jpg: broken or truncated image"):
        decode_image(truncated(tmp_path))


def test_a_truncated_png_is_an_error_that_says_so(tmp_path):
    path = save(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)), "a.png")
    path.write_bytes(path.read_bytes()[:5000])

    with pytest.raises(ImageError, match="broken or truncated image"):
        decode_image(path)


@pytest.mark.parametrize("read", [decode_image, image_size])
def test_what_is_no_image_file_is_an_error_that_says_what_it_is(tmp_path, read):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "folder.jpg").mkdir()

    for name, reason in {
        "empty.jpg": "file is empty",
        "text.jpg": "not an image file that can be read",
        "folder.jpg": "is a directory",
        "missing.jpg": "file does not exist",
    }.items():
        with pytest.raises(ImageError, match=rf"{name}: {reason}"):
            read(tmp_path / name)


@pytest.mark.parametrize("read", [decode_image, image_size])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, read):
    path = save(tmp_path, Image.new("1", (20_000, 10_000)), "bomb.png")

    with pytest.raises(ImageError, match=r"bomb\.png.*pixels"):
        read(path)


def test_the_content_of_a_file_is_read_like_the_file(tmp_path):
    path = tmp_path / "picture.png"
    Image.effect_noise((9, 7), 60).convert("RGB").save(path)

    np.testing.assert_array_equal(decode_image(path.read_bytes()), decode_image(path))
    with pytest.raises(ImageError, match="the picture given"):
        decode_image(b"no picture")
