"""FFA as a FiftyOne model, which ``compute_embeddings``, ``compute_similarity``, ``apply_model`` and their kin take.

`compute_ffa` is faster, resumes and explains failures; this is for code that is written against FiftyOne's own methods.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.config as focc
import fiftyone.core.models as fom
import fiftyone.utils.torch as fout
import numpy as np

from ..brain.backbones import default_backbone_name, load_backbone
from ..brain.errors import ConfigError
from ..brain.ffa import FFAExtractor, PreparedImage, ffa_preset
from ..brain.foreground import load_foreground
from ..brain.images import decode_image, image_size
from .mask_store import FOREGROUND
from .methods import THRESHOLD, found_coverage, mask_from_patches

# Options of `compute_ffa` that also make sense for a model, with the same meaning and defaults.
_FFA_OPTIONS = ("encode", "pooling", "weights", "resize", "size")
_DEFAULTS: dict[str, Any] = {
    "model": None,
    "foreground": None,
    "preset": "default",
    **dict.fromkeys(_FFA_OPTIONS),
    "device": "auto",
    "precision": "auto",
}


class FFAModelConfig(focc.Config):
    """Options of an :class:`FFAModel`: ``model``, ``foreground``, ``preset``, ``encode``, ``pooling``, ``weights``,
    ``resize``, ``size``, ``device`` and ``precision`` of :func:`fiftyone_selfsame.compute_ffa`.

    Raises:
        ConfigError: an option is unknown, or the foreground is a field, which a model cannot read.
    """

    def __init__(self, d: Mapping[str, Any]) -> None:
        unknown = sorted(set(d) - set(_DEFAULTS))
        if unknown:
            raise ConfigError(f"{', '.join(unknown)}: no such option of an FFA model; use {', '.join(_DEFAULTS)}")
        for name, default in _DEFAULTS.items():
            setattr(self, name, d.get(name, default))
        if str(self.foreground).startswith("field:"):
            raise ConfigError(f"foreground={self.foreground!r}: a model sees no fields; use compute_ffa for that")


@dataclass(frozen=True)
class Picture:
    """What travels from FiftyOne's data loader to the model.

    Attributes:
        image: ``(H, W, 3)`` uint8, upright, at full or reduced scale.
        image_hw: size at full scale.
        path: the file it was read from, if any.
        is_object: whether it is the crop of an object.
    """

    image: np.ndarray
    image_hw: tuple[int, int]
    path: str | None = None
    is_object: bool = False


class FFAModel(fom.Model, fom.EmbeddingsMixin, fom.SupportsGetItem):
    """Embeds images and crops of objects, and predicts foreground masks.

    Vectors of images equal those of :func:`fiftyone_selfsame.compute_ffa` with the same options. A crop that
    ``compute_patch_embeddings`` makes is treated like an object there: letterboxed, its foreground looked for within
    the crop, with the inscribed ellipse as the last resort; ``alpha=0.25`` gives it the same margin.

    Args:
        config: an :class:`FFAModelConfig`; ``FFAModel.from_kwargs(model="dinov2-small")`` makes one.

    Raises:
        ConfigError: an option cannot work.
        ModelError: a model cannot be loaded.
    """

    media_type = "image"
    has_embeddings = True
    ragged_batches = False
    has_collate_fn = False
    # FiftyOne switches this off while its loader applies `transforms`; here, pictures know what was done to them.
    preprocess = True

    def __init__(self, config: FFAModelConfig) -> None:
        self.config = config
        chosen = ffa_preset(config.preset)
        ffa_config = chosen.config_with(**{name: getattr(config, name) for name in _FFA_OPTIONS})
        name = config.model or chosen.backbone or default_backbone_name()
        backbone = load_backbone(name, device=config.device, precision=config.precision)
        finder = load_foreground(config.foreground or chosen.foreground, device=config.device)
        self._extractor = FFAExtractor(backbone, finder, ffa_config)
        self._last: list[Picture] = []

    @property
    def transforms(self) -> Any:
        """What FiftyOne's loader does to each crop of an object."""
        return _object_crop

    def build_get_item(self, field_mapping: Mapping[str, str] | None = None) -> fout.GetItem:
        """What FiftyOne's loader does to read each image."""
        return _ReadPicture(self._extractor.decode_min_side, field_mapping)

    def embed(self, arg: Any) -> np.ndarray:
        """``(C,)`` float32 unit vector of an image ``(H, W, 3)`` uint8."""
        return self.embed_all([arg])[0]

    def embed_all(self, args: Iterable[Any]) -> np.ndarray:
        """``(B, C)`` float32 unit vectors of images ``(H, W, 3)`` uint8."""
        self._last = [_picture(arg) for arg in args]
        return self.get_embeddings()

    def get_embeddings(self) -> np.ndarray:
        """``(B, C)`` vectors of the images that were last embedded or predicted on."""
        prepared = [self._prepare(picture) for picture in self._last]
        vectors = np.empty((len(prepared), self._extractor.backbone.dim), np.float32)
        for rows in _rows_by_key(prepared):
            results = self._extractor.embed([prepared[row] for row in rows])
            vectors[rows] = [result.vector for result in results]
        return vectors

    def predict(self, arg: Any) -> fo.Segmentation:
        """The foreground mask of an image ``(H, W, 3)`` uint8: 255 on the foreground, 0 elsewhere."""
        return self.predict_all([arg])[0]

    def predict_all(self, args: Iterable[Any]) -> list[fo.Segmentation]:
        """Foreground masks of images, each of the size of its image.

        Raises:
            ConfigError: the model has ``foreground="none"``.
        """
        self._last = [_picture(arg) for arg in args]
        finder = self._extractor.foreground
        if finder is None:
            raise ConfigError("foreground='none' predicts no masks; load the model with another foreground")
        if hasattr(finder, "masks"):
            soft = finder.masks([_full_scale(picture) for picture in self._last])
            masks = [mask >= THRESHOLD for mask in soft]
        else:
            masks = [self._mask_from_tokens(picture) for picture in self._last]
        return [fo.Segmentation(mask=mask.astype(np.uint8) * FOREGROUND) for mask in masks]

    def _prepare(self, picture: Picture) -> PreparedImage:
        if not picture.is_object:
            return self._extractor.prepare(picture.image, image_hw=picture.image_hw)
        height, width = picture.image_hw
        return self._extractor.prepare_objects(picture.image, np.array([[0.0, 0.0, width, height]]))[0]

    def _mask_from_tokens(self, picture: Picture) -> np.ndarray:
        prepared = self._prepare(picture)
        return mask_from_patches(found_coverage(self._extractor.embed([prepared])[0]), prepared.geometry)


class _ReadPicture(fout.GetItem):
    """Reads an image file as `compute_ffa` does; light, because it is copied into the loader's worker processes."""

    required_keys = ("filepath",)

    def __init__(self, min_side: int | None, field_mapping: Mapping[str, str] | None) -> None:
        super().__init__(field_mapping=field_mapping)
        self._min_side = min_side

    def __call__(self, d: Mapping[str, Any]) -> np.ndarray:
        path = d["filepath"]
        return _boxed(Picture(decode_image(path, min_side=self._min_side), image_size(path), path))


def _object_crop(crop: np.ndarray) -> np.ndarray:
    return _boxed(Picture(np.ascontiguousarray(crop), crop.shape[:2], is_object=True))


def _boxed(picture: Picture) -> np.ndarray:
    """A picture as a 0-d object array: FiftyOne stacks what its loaders give for models that are not Torch modules."""
    box = np.empty((), object)
    box[()] = picture
    return box


def _picture(arg: Any) -> Picture:
    if isinstance(arg, np.ndarray) and arg.dtype == object:
        arg = arg.item()
    if isinstance(arg, Picture):
        return arg
    image = np.asarray(arg)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ConfigError(
            f"an FFA model takes images of shape (H, W, 3) and type uint8, not {image.shape} {image.dtype}"
        )
    return Picture(image, image.shape[:2])


def _full_scale(picture: Picture) -> np.ndarray:
    if picture.path is None or picture.image.shape[:2] == picture.image_hw:
        return picture.image
    return decode_image(picture.path)


def _rows_by_key(prepared: Sequence[PreparedImage]) -> list[list[int]]:
    """Rows that may share a batch."""
    groups: dict[Any, list[int]] = {}
    for row, one in enumerate(prepared):
        groups.setdefault(one.group_key, []).append(row)
    return list(groups.values())
