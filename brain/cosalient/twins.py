"""Twin encoders, which look at each image alone: a trainable ResNet-50, and the tokens of a frozen backbone."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..backbones.base import Backbone
from ..backbones.catalog import FEATURE_MAPS, MAP_FAMILIES
from ..backbones.folder import open_model_folder
from ..backbones.hub import find_model_folder
from ..backbones.pretrained import load_model
from ..errors import ConfigError

_RESNET50_DEPTHS = [3, 4, 6, 3]


class Twins(nn.Module):
    """What twins share: the features of an image do not depend on the other image.

    Args:
        channels: of the network below; a 1×1 convolution makes them ``d``.
        d: channels of the features.
    """

    frozen = False

    def __init__(self, channels: int, d: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, d, 1)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """The images ``(B, 3, H, W)`` in [0, 1] as they are: nothing is frozen."""
        return images

    def pair(self, described_a: torch.Tensor, described_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both features as they are."""
        return described_a, described_b


class ResNetTwins(Twins):
    """A :class:`~.network.PairEncoder` of the architecture of ResNet-50, with random weights.

    Args:
        widths: channels of the four stages; (256, 512, 1024, 2048) is ResNet-50.
        d: channels of the features.
    """

    stride = 32

    def __init__(self, widths: Sequence[int], d: int) -> None:
        super().__init__(widths[-1], d)
        from transformers import ResNetConfig, ResNetModel

        settings = ResNetConfig(
            embedding_size=widths[0] // 4, hidden_sizes=list(widths), depths=_RESNET50_DEPTHS, layer_type="bottleneck"
        )
        model = ResNetModel(settings)
        self.embedder, self.encoder = model.embedder, model.encoder
        family = MAP_FAMILIES["resnet"]
        self.mean, self.std = family.mean, family.std

    def start_from(self, name: str) -> None:
        """Takes over the weights of a published ResNet-50.

        Args:
            name: ``"resnet50"``, a Hugging Face id or a folder in ``transformers`` format.

        Raises:
            ConfigError: the name is unknown, or that network has other sizes.
            ModelError: it cannot be downloaded or read.
        """
        folder = open_model_folder(find_model_folder(name, tuple(FEATURE_MAPS)), MAP_FAMILIES)
        source: Any = load_model(folder)
        try:
            self.embedder.load_state_dict(source.embedder.state_dict())
            self.encoder.load_state_dict(source.encoder.state_dict())
        except (RuntimeError, AttributeError) as error:
            raise ConfigError(
                f"backbone={name!r} is not a ResNet-50 of the widths of this network; leave widths out, or use"
                " backbone=None to begin with random weights"
            ) from error

    def describe(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features ``(B, d, H/32, W/32)``, projected from the last stage after its ReLU."""
        mean, std = (inputs.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return self.project(self.encoder(self.embedder((inputs - mean) / std)).last_hidden_state)


class TokenTwins(Twins):
    """A :class:`~.network.PairEncoder` by a frozen backbone, which is no part of the module and of its weights.

    Args:
        backbone: the encoder.
        d: channels of the features.
    """

    frozen = True

    def __init__(self, backbone: Backbone, d: int) -> None:
        super().__init__(backbone.dim, d)
        self.backbone = backbone
        self.stride = backbone.patch_size

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """``(B, C, h, w)`` tokens of unit length of images ``(B, 3, H, W)`` in [0, 1]; worth keeping."""
        return functional.normalize(self.backbone.tokens(images).patch, dim=-1).permute(0, 3, 1, 2)

    def describe(self, inputs: torch.Tensor) -> torch.Tensor:
        """Features ``(B, d, h, w)``, projected from tokens scaled to a mean square of one."""
        return self.project(inputs * inputs.shape[1] ** 0.5)
