"""One vector per region of an image: a network's map of the whole image, pooled over what each region covers.

Source: the region descriptor of CLAID, arXiv:2506.16745, in which a region's box is pooled from a stage of a ResNet
that has seen the whole image.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch

from ..backbones.attention_pool import attention_pool
from ..backbones.device import Precision
from ..backbones.feature_maps import FeatureMaps, TokenMaps, load_feature_maps
from ..errors import ConfigError, ModelError
from ..geometry import Geometry, image_to_canvas
from .pooling import POOLINGS, cell_weights, mask_weights, pool_regions, roi_cells

RegionPooling = Literal["gem", "mean", "max", "attention"]
REGION_POOLINGS: tuple[RegionPooling, ...] = (*POOLINGS, "attention")
Area = Literal["box", "mask"]
AREAS: tuple[Area, ...] = ("box", "mask")

_GEM_POWER = 3.0

# Most pixels in one forward pass of several images; a larger image goes alone.
_BATCH_PIXELS = 1 << 22

# Cells that a region must cover, in all, for its mask to be used.
_LEAST_COVER = 1e-3


@dataclass(frozen=True, eq=False)
class RegionArea:
    """Where the regions of one image are.

    Attributes:
        boxes: ``(R, 4)`` ``(x1, y1, x2, y2)``, half-open, in pixels of the original upright image.
        masks: ``(R, h, w)`` bool, the patches of each region; None where only boxes are known.
        grid_extent_hw: height and width in pixels of the image that the ``h × w`` patches cover, from the left upper
            corner; None for all of the image.

    Raises:
        ConfigError: boxes or masks have another shape.
    """

    boxes: np.ndarray
    masks: np.ndarray | None = None
    grid_extent_hw: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4:
            raise ConfigError(f"boxes must be (R, 4), not {self.boxes.shape}")
        if self.masks is not None and (self.masks.ndim != 3 or len(self.masks) != len(self.boxes)):
            raise ConfigError(f"masks must be ({len(self.boxes)}, h, w), one for each box, not {self.masks.shape}")

    @classmethod
    def whole(cls, image_hw: tuple[int, int]) -> "RegionArea":
        """The image itself as its one region."""
        return cls(np.array([[0.0, 0.0, image_hw[1], image_hw[0]]]))


class RegionDescriber:
    """Turns regions of images into vectors.

    Attributes:
        name: the network, as stored in provenance.
        weights_hash: hash of its architecture and weights.
        dim: numbers D of a vector.
        joins_text: whether vectors may be compared with those of the :func:`.load_text_encoder` of the same weights.

    Args:
        maps: the network.
        pooling: ``"gem"`` (p = 3), ``"mean"`` or ``"max"`` over the cells of a region, or ``"attention"``: SigLIP's
            pooling head, restricted to the region. None for attention where the network has that head, else GeM
            where no feature is negative, else the mean.
        area: ``"box"`` pools the rectangle of cells that the box touches (published); ``"mask"`` weighs each cell by
            the share that the region's patches cover, where masks are known.
        max_side: a convolutional network sees images in their original size, reduced to this longest side in pixels;
            a backbone sees them resized to this longest side, by default with its own size as the shortest.

    Raises:
        ConfigError: an option is unknown or does not fit the network.
    """

    def __init__(
        self,
        maps: FeatureMaps,
        *,
        pooling: RegionPooling | None = None,
        area: Area = "box",
        max_side: int | None = None,
    ) -> None:
        self.pooling = _checked_pooling(maps, pooling)
        if area not in AREAS:
            raise ConfigError(f"area={area!r} is unknown; use one of {', '.join(AREAS)}")
        if max_side is not None and max_side < maps.stride:
            raise ConfigError(f"max_side={max_side} is less than one cell of {maps.name!r}, {maps.stride} pixels")
        self.maps = maps
        self.area = area
        self.max_side = max_side
        self.name, self.weights_hash, self.dim = maps.name, maps.weights_hash, maps.dim
        self.joins_text = self.pooling == "attention"

    def config(self) -> dict[str, Any]:
        """Everything that the vectors depend on besides images and regions, as JSON-able provenance."""
        return {
            "model": self.name,
            "weights_hash": self.weights_hash,
            "precision": self.maps.precision,
            "layer": self.maps.layer,
            "pooling": self.pooling,
            "area": self.area,
            "max_side": self.max_side,
        }

    def describe(
        self, images: Sequence[np.ndarray], areas: Sequence[RegionArea], *, crop: bool = False
    ) -> list[np.ndarray]:
        """Vectors of the regions of several images, each of which passes through the network once.

        Args:
            images: ``(H, W, 3)`` uint8, upright, of any sizes.
            areas: the regions of each.
            crop: encode each region's box by itself, as if cut out, and pool all of it: the paper's query.

        Returns:
            for each image ``(R, D)`` float32 unit rows; zeros for a box without area or outside of the image.

        Raises:
            ConfigError: images and areas do not belong together, or an image is not ``(H, W, 3)`` uint8.
            ModelError: the network returned numbers that are not finite.
        """
        if len(images) != len(areas):
            raise ConfigError(f"{len(images)} images and {len(areas)} areas: give one area for each image")
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ConfigError(f"images must be (H, W, 3) uint8, not {image.dtype} {image.shape}")
        if crop:
            return [self._describe_crops(image, area) for image, area in zip(images, areas, strict=True)]
        vectors = [np.zeros((len(area.boxes), self.dim), np.float32) for area in areas]
        for batch in self._batches(images, areas):
            maps = self.maps.maps(torch.stack([self._canvas(images[index]) for index in batch]))
            for index, feature_map in zip(batch, maps, strict=True):
                image_hw = images[index].shape[:2]
                extent_hw = self._extent(image_hw, feature_map)
                vectors[index] = self._pooled(feature_map, areas[index], image_hw, extent_hw)
        return vectors

    def from_tokens(
        self,
        tokens: torch.Tensor,
        area: RegionArea,
        image_hw: tuple[int, int],
        extent_hw: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """Vectors of an image's regions from tokens that are already there, as those in which they were found.

        Args:
            tokens: ``(h, w, D)`` of the same backbone, after its final norm.
            area: the regions.
            image_hw: height and width of the image in pixels.
            extent_hw: height and width in pixels of the image that the tokens cover; None where they cover what the
                masks do, ``area.grid_extent_hw``.

        Returns:
            ``(R, D)`` as of :meth:`describe`.

        Raises:
            ConfigError: the network is no backbone, or the tokens are not its.
            ModelError: the tokens are not finite.
        """
        if not isinstance(self.maps, TokenMaps) or tokens.ndim != 3 or tokens.shape[-1] != self.dim:
            raise ConfigError(
                f"{self.name!r} cannot describe regions by tokens of shape {tuple(tokens.shape)}: they must be"
                " (h, w, D) of the very backbone that describes; use describe() with the image"
            )
        extent_hw = extent_hw or area.grid_extent_hw or image_hw
        return self._pooled(tokens.to(self.maps.device), area, image_hw, extent_hw)

    def _describe_crops(self, image: np.ndarray, area: RegionArea) -> np.ndarray:
        crops, valid = cut_out(image, area.boxes)
        vectors = np.zeros((len(valid), self.dim), np.float32)
        found = self.describe(crops, [RegionArea.whole(crop.shape[:2]) for crop in crops])
        vectors[valid] = np.concatenate([vectors[:0], *found])
        return vectors

    def _batches(self, images: Sequence[np.ndarray], areas: Sequence[RegionArea]) -> list[list[int]]:
        """Which images share a forward pass: those of equal canvas, up to a number of pixels, if they have regions."""
        batches: list[list[int]] = []
        open_batch: dict[tuple[int, int], list[int]] = {}
        for index, (image, area) in enumerate(zip(images, areas, strict=True)):
            if not len(area.boxes):
                continue
            canvas_hw = self.maps.canvas_hw(image.shape[:2], self.max_side)
            batch = open_batch.get(canvas_hw)
            if batch is None or (len(batch) + 1) * canvas_hw[0] * canvas_hw[1] > _BATCH_PIXELS:
                batch = open_batch[canvas_hw] = []
                batches.append(batch)
            batch.append(index)
        return batches

    def _canvas(self, image: np.ndarray) -> torch.Tensor:
        image_hw = (image.shape[0], image.shape[1])
        canvas_hw = self.maps.canvas_hw(image_hw, self.max_side)
        return image_to_canvas(image, Geometry(image_hw, canvas_hw, (0, 0, *canvas_hw), self.maps.stride))

    def _extent(self, image_hw: tuple[int, int], feature_map: torch.Tensor) -> tuple[float, float]:
        """Height and width in pixels of the image that the map's cells cover."""
        canvas_hw = self.maps.canvas_hw(image_hw, self.max_side)
        down, across = (
            cells * self.maps.stride * side / encoded
            for cells, side, encoded in zip(feature_map.shape[:2], image_hw, canvas_hw, strict=True)
        )
        return down, across

    def _pooled(
        self, feature_map: torch.Tensor, area: RegionArea, image_hw: tuple[int, int], extent_hw: tuple[float, float]
    ) -> np.ndarray:
        map_hw = (feature_map.shape[0], feature_map.shape[1])
        cells, valid = roi_cells(area.boxes, (extent_hw[0] / map_hw[0], extent_hw[1] / map_hw[1]), map_hw)
        weights = cell_weights(cells, map_hw)
        if self.area == "mask" and area.masks is not None:
            covered = mask_weights(area.masks, area.grid_extent_hw or image_hw, image_hw, map_hw, extent_hw)
            usable = torch.from_numpy(valid) & (covered.sum(1) > _LEAST_COVER)
            weights = torch.where(usable[:, None], covered, weights)
        if self.pooling == "attention":
            head = cast(torch.nn.Module, self.maps.head)
            pooled = attention_pool(head, feature_map.flatten(0, 1), weights)
        else:
            pooled = pool_regions(feature_map, weights, self.pooling, _GEM_POWER)
        vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"{self.name}: the network's features are not finite; try precision='fp32', and if that does not help,"
                " its weights are broken"
            )
        return vectors


def cut_out(image: np.ndarray, boxes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The pixels in each box that has an area and a part on the image, and ``(R,)`` bool which boxes these are."""
    cells, valid = roi_cells(boxes, 1.0, (image.shape[0], image.shape[1]))
    return [image[y1:y2, x1:x2] for x1, y1, x2, y2 in cells[valid]], valid


def load_describer(
    name: str | os.PathLike,
    *,
    layer: str | None = None,
    pooling: RegionPooling | None = None,
    area: Area = "box",
    max_side: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> RegionDescriber:
    """A describer by the name of its network.

    Args:
        name, layer, device, precision: as for :func:`.load_feature_maps`.
        pooling, area, max_side: as for :class:`RegionDescriber`.

    Raises:
        ConfigError: an argument names something that does not exist, that this machine lacks or that does not fit.
        ModelError: the network cannot be found, downloaded or read; the message says what to do.
    """
    maps = load_feature_maps(name, layer=layer, device=device, precision=precision)
    return RegionDescriber(maps, pooling=pooling, area=area, max_side=max_side)


def _checked_pooling(maps: FeatureMaps, pooling: RegionPooling | None) -> RegionPooling:
    if pooling is None:
        if maps.head is not None:
            return "attention"
        return "gem" if maps.nonnegative else "mean"
    if pooling not in REGION_POOLINGS:
        raise ConfigError(f"pooling={pooling!r} is unknown; use one of {', '.join(REGION_POOLINGS)}")
    if pooling == "attention" and maps.head is None:
        raise ConfigError(
            f"pooling='attention' needs the pooling head of a SigLIP model, which {maps.name!r} lacks; use"
            " pooling='mean', or for search by text 'siglip-base' or 'siglip2-base'"
        )
    return pooling
