"""The second look at borderline pairs: regions of the pictures, read with what made the vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.backbones import load_backbone
from ..brain.errors import ConfigError, ImageError
from ..brain.ffa import FFAConfig, FFAExtractor
from ..brain.foreground import load_foreground
from ..brain.images import decode_image
from ..brain.verification import TokenReader, TokenVerifier
from .dataset_io import FIELD_PREFIX
from .fingerprints import crop_box
from .item_fields import Place
from .label_inputs import DetectionsInput, ForegroundInput
from .vectors import VectorTable

# An ``(H, W, 3)`` image and its foreground, if that is known.
Picture = tuple[np.ndarray, np.ndarray | None]


def regions_verifier(
    samples: foc.SampleCollection, table: VectorTable, embeddings: str, place: Place, device: str
) -> TokenVerifier:
    """Scores pairs of rows of a table by how well the regions of one picture are found in the other.

    Args:
        samples: flat collection of the images.
        table: the vectors to be clustered.
        embeddings: the field they are from, made by ``compute_ffa``.
        place: whether images or objects are compared.
        device: where the encoder runs.

    Raises:
        ConfigError: the vectors were made by something else, so that there is no encoder to look again with.
        ModelError: the encoder cannot be loaded.
    """
    field = samples.get_field(place.path(embeddings))
    info = (field.info if field is not None else None) or {}
    if info.get("method") != "compute_ffa":
        raise ConfigError(
            f"verify='regions' looks at the pictures again with the model of the vectors, but {embeddings!r} was not "
            "made by compute_ffa; use verify='none', or vectors of compute_ffa"
        )
    extractor = _extractor(info, device)
    reader, nothing = TokenReader(extractor), np.zeros((1, extractor.backbone.dim), np.float16)
    pictures = _Pictures(samples, table, place, info["foreground"])

    def tokens_of(rows: Sequence[int]) -> list[np.ndarray]:
        found = pictures.read(rows)
        seen = [picture for picture in found if picture is not None]
        tokens = iter(reader.read([image for image, _ in seen], [mask for _, mask in seen]))
        # A picture that cannot be read is like no other.
        return [nothing if picture is None else next(tokens) for picture in found]

    return TokenVerifier(tokens_of)


def _extractor(info: Mapping[str, Any], device: str) -> FFAExtractor:
    named = info["foreground"] or "none"
    finder = None if named.startswith(FIELD_PREFIX) else load_foreground(named, device=device)
    config = FFAConfig(**{field.name: info[field.name] for field in fields(FFAConfig) if field.name in info})
    return FFAExtractor(load_backbone(info["model"], device=device), finder, config)


class _Pictures:
    """Pictures and, where labels say so, the foreground of images or objects, by row of a table."""

    def __init__(self, samples: foc.SampleCollection, table: VectorTable, place: Place, foreground: str | None) -> None:
        self._samples, self._table, self._place = samples, table, place
        self._labels: ForegroundInput | DetectionsInput | None = None
        if place.patches_field is not None:
            self._labels = DetectionsInput(samples, place.patches_field, "patches_field")
        elif foreground is not None and foreground.startswith(FIELD_PREFIX):
            self._labels = ForegroundInput(samples, foreground.removeprefix(FIELD_PREFIX))

    def read(self, rows: Sequence[int]) -> list[Picture | None]:
        """Pictures and their masks; None for those that cannot be read."""
        ids = [self._table.ids[row] for row in rows]
        homes = [self._table.homes.get(item_id, item_id) for item_id in ids]
        paths = ["filepath", *(self._labels.paths if self._labels is not None else ())]
        view = fov.make_optimized_select_view(self._samples, list(dict.fromkeys(homes)))
        values = {
            row[0]: dict(zip(paths, row[1:], strict=True)) for row in zip(*view.values(["id", *paths]), strict=True)
        }
        return [self._picture(values[home], item_id) for home, item_id in zip(homes, ids, strict=True)]

    def _picture(self, values: Mapping[str, Any], item_id: str) -> Picture | None:
        try:
            return self._read(values, item_id)
        except ImageError:
            return None

    def _read(self, values: Mapping[str, Any], item_id: str) -> Picture | None:
        image = decode_image(values["filepath"])
        if self._labels is None:
            return image, None
        if isinstance(self._labels, ForegroundInput):
            return image, self._labels.read(values, image.shape[:2])
        height, width = image.shape[:2]
        objects = self._labels.read(values, (height, width))
        row = objects.ids.index(item_id)
        crop = crop_box(image, objects.boxes[row] / (width, height, width, height))
        return None if crop is None else (crop, objects.masks[row])
