"""Digests by which exact duplicates are found: of a file's bytes, and of the picture it decodes to."""

import hashlib
import os
from pathlib import Path

import numpy as np

from .errors import ConfigError, ImageError
from .images import decode_image

# 128 bits: among 10^9 files the chance of any accidental equality is below 10^-20.
DIGEST_BYTES = 16
_CHUNK_BYTES = 1 << 20


def file_digest(path: str | os.PathLike) -> str:
    """Digest of a file's bytes: equal for byte-identical files, whatever their names.

    Reads the file in chunks, so that its size does not matter.

    Returns:
        32 hexadecimal digits.

    Raises:
        ImageError: the file is missing, empty, a directory or unreadable. Empty files are refused because all of
            them would be called copies of one another.
    """
    path = Path(path)
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
            if file.tell() == 0:
                raise ImageError(f"{path}: file is empty (0 bytes); restore it or remove the sample")
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror or error}); restore it or remove the sample"
        ) from error
    return digest.hexdigest()


def pixel_digest(image: str | os.PathLike | np.ndarray) -> str:
    """Digest of a decoded picture: equal for the same pixels in another file format or EXIF orientation.

    Args:
        image: an image file, decoded as upright RGB (:func:`.images.decode_image`), or an ``(H, W, 3)`` uint8 array.

    Returns:
        32 hexadecimal digits; they cover height and width, too.

    Raises:
        ImageError: the file cannot be decoded.
        ConfigError: an array has another shape or type.
    """
    pixels = image if isinstance(image, np.ndarray) else decode_image(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ConfigError(f"image must be an (H, W, 3) uint8 array, not {pixels.shape} {pixels.dtype}")
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(f"{pixels.shape[0]}x{pixels.shape[1]}:".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()
