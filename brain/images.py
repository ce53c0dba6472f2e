"""Decoding of image files into upright 8-bit RGB arrays, the only form in which images enter the methods."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import ImageError


def decode_image(source: str | os.PathLike | bytes, *, min_side: int | None = None) -> np.ndarray:
    """Reads an image file as upright RGB.

    EXIF orientation is applied once, here. Palette, grey, CMYK and 16-bit images become 8-bit RGB (16-bit values are
    scaled, not clipped); transparent pixels are laid over white, because their hidden colours are arbitrary.

    Args:
        source: the image file, or its content.
        min_side: if given, a JPEG may be decoded at 1/2, 1/4 or 1/8 scale as long as neither side falls below this
            many pixels; several times faster on camera files. None decodes every pixel.

    Returns:
        ``(H, W, 3)`` uint8 array.

    Raises:
        ImageError: the file is missing, empty, a directory, truncated or not an image; the message says which.
    """
    name: str | Path
    file: io.BytesIO | Path
    if isinstance(source, bytes):
        name, file = "the picture given", io.BytesIO(source)
    else:
        name = file = Path(source)
        _check_file(file)
    try:
        with Image.open(file) as image:
            if min_side is not None:
                _draft(image, min_side)
            image.load()
            return np.asarray(_to_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image file that can be read; convert it to JPEG or PNG") from error
    except Image.DecompressionBombError as error:
        # Pillow's limit is a global setting of the process (179 million pixels), which is not ours to change.
        raise ImageError(f"{name}: too many pixels to be decoded safely ({error}); downscale it") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{name}: broken or truncated image ({error}); replace or remove the file") from error


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Upright ``(height, width)`` of an image file, from its header alone.

    Raises:
        ImageError: as :func:`decode_image`, for faults that the header shows.
    """
    path = Path(path)
    _check_file(path)
    try:
        with Image.open(path) as image:
            width, height = image.size
            quarter_turn = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not an image file that can be read ({error})") from error
    return (width, height) if quarter_turn else (height, width)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise ImageError(f"{path}: is a directory, not an image file")
    if not path.exists():
        raise ImageError(f"{path}: file does not exist; restore it or remove the sample")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: file is empty (0 bytes); restore it or remove the sample")


def _draft(image: Image.Image, min_side: int) -> None:
    """Lets the JPEG decoder skip work: `draft` picks the smallest DCT scale that is still at least as large."""
    scale = min_side / min(image.size)
    if scale < 1:
        image.draft(None, (round(image.width * scale), round(image.height * scale)))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _deep_grey_to_8_bit(image).convert("RGB")
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _deep_grey_to_8_bit(image: Image.Image) -> Image.Image:
    """PIL clips deep grey values at 255 when converting; a 16-bit scan must keep its tones instead."""
    values = np.asarray(image).astype(np.float64)
    highest = values.max(initial=0)
    if image.mode == "F" and highest <= 1.0:
        top = 1.0
    elif image.mode.startswith("I;16") or highest > 255:
        top = 65535.0
    else:
        top = 255.0
    return Image.fromarray(np.clip(values / top * 255.0, 0, 255).round().astype(np.uint8))
