import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.brain.hashing import file_digest, pixel_digest
from PIL import Image


def picture(height=6, width=9, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_files_with_equal_bytes_have_one_digest_whatever_their_names(tmp_path):
    content = bytes(range(256)) * 10_000  # longer than one chunk
    (tmp_path / "a.jpg").write_bytes(content)
    (tmp_path / "copy.png").write_bytes(content)

    assert file_digest(tmp_path / "a.jpg") == file_digest(str(tmp_path / "copy.png"))


@pytest.mark.parametrize("position", [0, 1_500_000, 2_559_999])
def test_one_changed_byte_anywhere_changes_the_digest(tmp_path, position):
    content = bytearray(bytes(range(256)) * 10_000)
    (tmp_path / "a").write_bytes(content)
    content[position] ^= 1
    (tmp_path / "b").write_bytes(content)

    assert file_digest(tmp_path / "a") != file_digest(tmp_path / "b")


def test_the_same_picture_as_png_and_bmp_is_found_by_its_pixels_only(tmp_path):
    for name in ("a.png", "b.bmp"):
        Image.fromarray(picture()).save(tmp_path / name)

    assert pixel_digest(tmp_path / "a.png") == pixel_digest(tmp_path / "b.bmp")
    assert file_digest(tmp_path / "a.png") != file_digest(tmp_path / "b.bmp")


def test_a_picture_stored_sideways_equals_its_upright_self(tmp_path):
    image = Image.fromarray(picture())
    image.save(tmp_path / "upright.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise by a quarter to view"
    image.rotate(90, expand=True).save(tmp_path / "sideways.png", exif=exif)

    assert pixel_digest(tmp_path / "sideways.png") == pixel_digest(tmp_path / "upright.png")


def test_a_file_and_its_decoded_array_have_one_digest(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")

    assert pixel_digest(picture()) == pixel_digest(tmp_path / "a.png")


def test_a_view_of_an_array_is_digested_by_what_it_shows():
    assert pixel_digest(picture()[::2]) == pixel_digest(picture()[::2].copy())


def test_blank_pictures_of_other_shape_differ():
    digests = {pixel_digest(np.zeros((h, w, 3), np.uint8)) for h, w in ((2, 6), (6, 2), (3, 4), (1, 12))}

    assert len(digests) == 4


@pytest.mark.parametrize("digest", [file_digest, pixel_digest])
def test_missing_empty_and_directory_paths_are_named(tmp_path, digest):
    (tmp_path / "empty.jpg").touch()
    for name in ("missing.jpg", "empty.jpg", ""):
        with pytest.raises(ImageError, match=name or tmp_path.name):
            digest(tmp_path / name)


def test_a_truncated_picture_has_bytes_but_no_pixels(tmp_path):
    Image.fromarray(picture(64, 64)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-300])

    assert file_digest(tmp_path / "cut.jpg")
    with pytest.raises(ImageError, match=r"cut\.jpg"):
        pixel_digest(tmp_path / "cut.jpg")


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_arrays_that_are_no_8_bit_rgb_are_refused(array):
    with pytest.raises(ConfigError, match="uint8"):
        pixel_digest(array)
