"""`load_feature_maps`: networks that turn an image into a map of features from which regions are pooled."""

import os
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from ..errors import ConfigError
from ..geometry import MAX_ASPECT
from .base import Backbone
from .catalog import CATALOG, EMBEDDED, FAMILIES, FEATURE_MAPS, HYBRID, MAP_FAMILIES, UNTRAINED, FeatureMapInfo
from .conv_maps import ConvMaps
from .device import Precision, resolve_device, resolve_precision
from .encoder import Placement
from .folder import open_model_folder
from .hub import find_model_folder
from .loader import load_backbone, remember
from .resnet import resnet_maps
from .vgg import vgg_maps

_CONVOLUTIONAL: dict[str, Callable[..., ConvMaps]] = {"resnet": resnet_maps, "vgg": vgg_maps}
_OWN = (EMBEDDED, HYBRID, UNTRAINED)


class FeatureMaps(Protocol):
    """A frozen network that gives a map of features.

    Attributes:
        name: what the user asked for, as stored in provenance.
        weights_hash: hexadecimal hash of the architecture and all weights.
        layer: which layer's output the map is; None for the tokens of a backbone.
        stride: pixels of the input per cell, along both axes.
        dim: channels C.
        nonnegative: whether no feature is negative (the layer ends in a ReLU), so that GeM makes sense.
        head: the attention-pooling head that leads from tokens to the space shared with texts, if there is one.
        device: where it runs.
        precision: number format of its matrix products.
    """

    name: str
    weights_hash: str
    layer: str | None
    stride: int
    dim: int
    nonnegative: bool
    head: nn.Module | None
    device: torch.device
    precision: str

    def canvas_hw(self, image_hw: tuple[int, int], max_side: int | None) -> tuple[int, int]:
        """Height and width at which to encode an image, whose aspect they keep.

        Args:
            image_hw: height and width of the image in pixels.
            max_side: bound of the longest side in pixels; None for the network's own choice.
        """
        ...

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Encodes a batch.

        Args:
            images: ``(B, 3, H, W)`` float in [0, 1], RGB, on any device; normalised inside.

        Returns:
            ``(B, h, w, C)`` float32 on ``device``; cell (0, 0) begins at the image's left upper corner, and a cell at
            the other edges may reach beyond the image.
        """
        ...


class TokenMaps:
    """The patch tokens of a backbone as a :class:`FeatureMaps`; a cell is a patch.

    Args:
        backbone: the encoder.
    """

    layer: str | None = None
    nonnegative = False

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.name, self.weights_hash = backbone.name, backbone.weights_hash
        self.stride, self.dim = backbone.patch_size, backbone.dim
        self.device, self.precision = backbone.device, backbone.precision
        self.head: nn.Module | None = getattr(backbone, "head", None)

    def canvas_hw(self, image_hw: tuple[int, int], max_side: int | None) -> tuple[int, int]:
        """Whole patches whose longest side is about ``max_side``, or shortest side the backbone's default size.

        Without ``max_side`` an image of more than 4:1 is squashed to that, so that a strip is not all patches.
        """
        patch = self.stride
        if max_side is None:
            default = self.backbone.default_size
            scale, limit = default / min(image_hw), MAX_ASPECT * default
        else:
            scale, limit = max_side / max(image_hw), float(max_side)
        height, width = (max(1, round(min(side * scale, limit) / patch)) * patch for side in image_hw)
        return height, width

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens after the final norm; the contract is :meth:`FeatureMaps.maps`.

        Raises:
            ConfigError: the images are not float ``(B, 3, H, W)`` with H and W multiples of the patch size.
        """
        return self.backbone.tokens(images).patch


def list_feature_maps() -> list[FeatureMapInfo]:
    """The networks with a name that give maps only; every backbone of ``list_backbones()`` gives maps as well."""
    return list(FEATURE_MAPS.values())


def load_feature_maps(
    name: str | os.PathLike, *, layer: str | None = None, device: str = "auto", precision: Precision = "auto"
) -> FeatureMaps:
    """Loads a network of feature maps; its weights stay in memory for the next call with the same arguments.

    Args:
        name: ``"resnet50"``, ``"resnet101"``, ``"vgg16"``, or any name, Hugging Face id or folder that
            :func:`.load_backbone` takes; folders of a ResNet (``transformers``) or VGG-16 (timm) too.
        layer: ``"layer4.0"`` (default), ``"layer4.1"`` or ``"layer4.2"`` of a ResNet; None for all others.
        device: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``: number format of matrix products.

    Raises:
        ConfigError: an argument names something that does not exist or that this machine lacks.
        ModelError: the model cannot be found, downloaded or read; the message says what to do.
    """
    name = os.fspath(name)
    if name not in _OWN:
        folder = open_model_folder(
            find_model_folder(name, (*FEATURE_MAPS, EMBEDDED, HYBRID, *CATALOG)), {**FAMILIES, **MAP_FAMILIES}
        )
        load = _CONVOLUTIONAL.get(folder.family.architecture)
        if load is not None:
            resolved = resolve_device(device)
            placement = Placement(resolved, resolve_precision(precision, resolved))
            key = (name, folder.digest(), layer, placement)
            return remember(key, lambda: load(folder, placement, name=name, layer=layer))
    if layer is not None:
        raise ConfigError(f"layer={layer!r}: {name!r} is a backbone, whose tokens have no layers to choose from")
    return TokenMaps(load_backbone(name, device=device, precision=precision))
