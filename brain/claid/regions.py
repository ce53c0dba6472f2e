"""From images to their regions: placed on the encoder's canvas, cut into a hierarchy, described by one vector each."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..backbones.base import Backbone
from ..backbones.feature_maps import TokenMaps
from ..errors import ConfigError, ImageError
from .boxes import region_boxes, working_size
from .descriptor import RegionArea, RegionDescriber, cut_out
from .hierarchy import Hierarchy, detect_batch
from .options import DetectorOptions

# A JPEG decoded at half, quarter or eighth scale stays at least this many times as large as the canvas.
_DECODE_FACTOR = 2


@dataclass(frozen=True)
class WorkingSize:
    """The size at which images are decomposed, in pixels.

    Attributes:
        short_side: what the short side of a larger image is reduced to.
        long_side: the most that the long side may have.
        enlarge: whether smaller images are enlarged to that size.
    """

    short_side: int = 360
    long_side: int = 800
    enlarge: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.short_side <= self.long_side:
            raise ConfigError(
                f"short_side={self.short_side!r}, long_side={self.long_side!r}: give 0 < short_side <= long_side"
            )


@dataclass(frozen=True)
class PreparedPicture:
    """One image that waits for the device.

    Attributes:
        canvas: ``(3, H, W)`` float32 in [0, 1]: the resized image, cropped to whole patches.
        resized_hw: its size before it was cropped.
        image_hw: size of the upright image.
        image: ``(H, W, 3)`` uint8 at full scale, kept only for descriptors that look at pixels.
    """

    canvas: torch.Tensor
    resized_hw: tuple[int, int]
    image_hw: tuple[int, int]
    image: np.ndarray | None = None

    @property
    def group_key(self) -> tuple[int, int]:
        """Images of equal keys may share a batch."""
        return int(self.canvas.shape[1]), int(self.canvas.shape[2])


@dataclass(frozen=True)
class Regions:
    """The R regions of one image, in breadth-first order of the hierarchy.

    Attributes:
        boxes: ``(R, 4)`` ``(x1, y1, x2, y2)``, half-open, in pixels of the upright image.
        masks: ``(R, h, w)`` bool, the patches of each.
        extent_hw: height and width in pixels of the image that the patch grid covers.
        level: ``(R,)`` depth of the region; children of the whole image have 1.
        parent: ``(R,)`` row of the smallest region here that contains it; -1 where that is the whole image.
        saliency: ``(R,)`` share of its patches that have high energy (xi in the paper).
        connectivity: ``(R,)`` share of linked pairs of its patches (cbar in the paper).
        area: ``(R,)`` share of the image.
        vectors: ``(R, D)`` float32 of unit length.
    """

    boxes: np.ndarray
    masks: np.ndarray
    extent_hw: tuple[float, float]
    level: np.ndarray
    parent: np.ndarray
    saliency: np.ndarray
    connectivity: np.ndarray
    area: np.ndarray
    vectors: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)


class RegionExtractor:
    """Finds and describes the regions of images (arXiv:2506.16745).

    Args:
        backbone: the frozen encoder whose patch tokens are decomposed.
        describer: makes the vectors; one by the same encoder, and without a size of its own, costs no second pass.
        options: of the detector.
        size: the size at which images are decomposed.
    """

    def __init__(
        self,
        backbone: Backbone,
        describer: RegionDescriber,
        options: DetectorOptions | None = None,
        size: WorkingSize | None = None,
    ) -> None:
        self.backbone = backbone
        self.describer = describer
        self.options = options or DetectorOptions()
        self.size = size or WorkingSize()
        self._shares_tokens = describer.max_side is None and (
            isinstance(describer.maps, TokenMaps) and describer.weights_hash == backbone.weights_hash
        )

    @property
    def decode_min_side(self) -> int | None:
        """``min_side`` for `decode_image`: pixels in full are needed only by descriptors that look at pixels."""
        return _DECODE_FACTOR * self.size.short_side if self._shares_tokens else None

    def config_dict(self) -> dict[str, Any]:
        """Everything that regions and vectors depend on besides the image, as JSON-able provenance."""
        return {
            "model": self.backbone.name,
            "weights_hash": self.backbone.weights_hash,
            "precision": self.backbone.precision,
            **asdict(self.options),
            **asdict(self.size),
            "descriptor": self.describer.config(),
            "shared_tokens": self._shares_tokens,
            "dim": self.describer.dim,
        }

    def prepare(self, image: np.ndarray, image_hw: tuple[int, int] | None = None) -> PreparedPicture:
        """The part of the work that needs no device; safe in worker threads.

        Args:
            image: ``(H, W, 3)`` uint8, upright; may be decoded at reduced scale (:attr:`decode_min_side`).
            image_hw: size of the picture at full scale; None where ``image`` is at full scale.

        Raises:
            ImageError: at the working size the image does not fill a single patch.
        """
        hw = image_hw or (image.shape[0], image.shape[1])
        patch = self.backbone.patch_size
        height, width, rows, columns = working_size(hw, patch=patch, **asdict(self.size))
        if not rows or not columns:
            raise ImageError(
                f"the image of {hw[1]}×{hw[0]} pixels is worked on at {width}×{height}, which does not fill a patch of "
                f"{patch}×{patch}; enlarge it (enlarge=True), or leave it out"
            )
        resized = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        cropped = resized[: rows * patch, : columns * patch]
        canvas = torch.from_numpy(cropped.transpose(2, 0, 1).astype(np.float32) / 255.0)
        return PreparedPicture(canvas, (height, width), hw, None if self._shares_tokens else image)

    def extract(self, batch: Sequence[PreparedPicture]) -> list[Regions]:
        """Regions of prepared images with equal group keys, in the same order.

        Raises:
            ImageError: the tokens of an image are not finite.
        """
        tokens = self.backbone.tokens(torch.stack([picture.canvas for picture in batch])).patch
        trees = detect_batch(tokens, self.options)
        found = [self._found(picture, tree) for picture, tree in zip(batch, trees, strict=True)]
        areas = [RegionArea(regions["boxes"], regions["masks"], regions["extent_hw"]) for regions in found]
        vectors = self._describe(batch, tokens, areas)
        return [Regions(**regions, vectors=rows) for regions, rows in zip(found, vectors, strict=True)]

    def describe(
        self, image: np.ndarray, boxes: np.ndarray, masks: np.ndarray | None = None, *, crop: bool = False
    ) -> np.ndarray:
        """Vectors of given areas of an image, made as those of its regions are.

        Args:
            image: ``(H, W, 3)`` uint8, upright, at full scale.
            boxes: ``(R, 4)`` ``(x1, y1, x2, y2)`` in pixels.
            masks: ``(R, h, w)`` bool at any resolution, spread over the whole image; None for boxes alone.
            crop: encode each box by itself, as if cut out of the image, and pool all of it: the paper's query.

        Returns:
            ``(R, D)`` float32 of unit length; zeros for a box without area or outside of the image.
        """
        if crop:
            return self._describe_crops(image, boxes)
        picture, area = self.prepare(image), RegionArea(boxes, masks)
        tokens = self.backbone.tokens(picture.canvas[None]).patch if self._shares_tokens else None
        return self._describe([picture], tokens, [area])[0]

    def _describe_crops(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        if not self._shares_tokens:
            return self.describer.describe([image], [RegionArea(boxes)], crop=True)[0]
        crops, valid = cut_out(image, boxes)
        vectors = np.zeros((len(valid), self.describer.dim), np.float32)
        for row, crop in zip(np.flatnonzero(valid), crops, strict=True):
            whole = RegionArea.whole((crop.shape[0], crop.shape[1]))
            vectors[row] = self.describe(np.ascontiguousarray(crop), whole.boxes)[0]
        return vectors

    def _describe(
        self, batch: Sequence[PreparedPicture], tokens: torch.Tensor | None, areas: Sequence[RegionArea]
    ) -> list[np.ndarray]:
        if tokens is None or not self._shares_tokens:
            return self.describer.describe([_pixels(picture) for picture in batch], areas)
        return [
            self.describer.from_tokens(map_, area, picture.image_hw, self._extent(picture))
            for map_, area, picture in zip(tokens, areas, batch, strict=True)
        ]

    def _extent(self, picture: PreparedPicture) -> tuple[float, float]:
        """Height and width in pixels of the image that the canvas shows."""
        down, across = (
            canvas * full / resized
            for canvas, full, resized in zip(picture.group_key, picture.image_hw, picture.resized_hw, strict=True)
        )
        return down, across

    def _found(self, picture: PreparedPicture, tree: Hierarchy) -> dict[str, Any]:
        """The emitted regions of a hierarchy as the fields of :class:`Regions`, but for the vectors."""
        patch = self.backbone.patch_size
        chosen = np.flatnonzero(tree.emitted)
        boxes = region_boxes(tree.masks[chosen], picture.image_hw, picture.resized_hw, patch, self.options.box_mode)
        extent = self._extent(picture)
        patches = extent[0] * extent[1] / (tree.grid_hw[0] * tree.grid_hw[1])
        return {
            "boxes": boxes,
            "masks": tree.masks[chosen],
            "extent_hw": extent,
            "level": tree.level[chosen],
            "parent": emitted_parents(tree)[chosen],
            "saliency": tree.hits[chosen] / tree.size[chosen],
            "connectivity": tree.cbar[chosen],
            "area": tree.size[chosen] * patches / (picture.image_hw[0] * picture.image_hw[1]),
        }


def emitted_parents(tree: Hierarchy) -> np.ndarray:
    """``(R,)`` for every region the position, among the emitted ones, of its nearest emitted ancestor; -1 for none.

    Regions that are cut but not emitted (background) are stepped over.
    """
    position = np.where(tree.emitted, np.cumsum(tree.emitted) - 1, -1)
    nearest = np.full(len(tree.parent), -1)
    for row, parent in enumerate(tree.parent):
        if parent >= 0:
            nearest[row] = position[parent] if tree.emitted[parent] else nearest[parent]
    return nearest


def _pixels(picture: PreparedPicture) -> np.ndarray:
    assert picture.image is not None
    return picture.image
