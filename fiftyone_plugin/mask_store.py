"""Mask pictures on disk: one PNG per sample in a folder per dataset and field, and reading the masks of labels."""

import os
import re
from pathlib import Path

import fiftyone.core.collections as foc
import numpy as np
from PIL import Image

from ..brain.errors import ConfigError, ImageError
from ..brain.paths import home
from .own_files import written_aside

# The pixel value of foreground: visible in any image viewer, and declared to FiftyOne as a mask target.
FOREGROUND = 255
MASK_TARGETS = {FOREGROUND: "foreground"}


class MaskStore:
    """The folder with the masks of one field.

    Args:
        samples: the dataset, or a view into it.
        field: the Segmentation field.
        folder: where the masks go; None is ``$SELFSAME_HOME/masks/<dataset>/<field>``.

    Raises:
        ConfigError: the folder cannot be written to.
    """

    def __init__(self, samples: foc.SampleCollection, field: str, folder: str | os.PathLike | None = None) -> None:
        if folder is None:
            name = re.sub(r"[^\w.-]", "_", samples._root_dataset.slug)
            self.folder = home() / "masks" / name / field
        else:
            self.folder = Path(folder).expanduser().absolute()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"mask_dir {self.folder} cannot be created ({error}); choose another folder") from error
        if not os.access(self.folder, os.W_OK):
            raise ConfigError(f"mask_dir {self.folder} cannot be written to; choose another folder")

    def path(self, sample_id: str) -> Path:
        """The file of a sample; names are unique, because sample ids are."""
        return self.folder / f"{sample_id}.png"

    def write(self, sample_id: str, foreground: np.ndarray) -> Path:
        """Stores a ``(H, W)`` bool mask; a reader, or a kill in between, never meets half a file."""
        path = self.path(sample_id)
        with written_aside(path) as stream:
            Image.fromarray(foreground.astype(np.uint8) * FOREGROUND).save(stream, format="PNG", compress_level=3)
        return path


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """A mask picture as stored by FiftyOne's ``mask_path``: ``(H, W)`` bool, any value but 0 is foreground.

    Raises:
        ImageError: the file is missing or cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            # A palette's indices are the classes, and transparency is not one of them.
            values = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "LA", "PA") else image)
    except (OSError, SyntaxError, ValueError) as error:
        raise ImageError(f"{path}: mask cannot be read ({error}); restore it or clear the label") from error
    return as_foreground(values)


def as_foreground(values: np.ndarray) -> np.ndarray:
    """``(H, W)`` bool of a label's mask array; a colour mask ``(H, W, 3)`` is foreground wherever it is not black."""
    values = np.asarray(values)
    return (values != 0).any(axis=-1) if values.ndim == 3 else values != 0
