"""The pair network: an encoder of two images, heads that find what they share, and a head that decides.

Source: "Unstructured Object Matching using Co-Salient Region Segmentation" (SCOTT).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from ..backbones.base import Backbone
from ..backbones.loader import load_backbone
from ..errors import ConfigError
from .coder import Coder
from .cross_attention import CrossAttention
from .heads import CosalientHead, EmbeddingHead, select_region
from .matcher import MatcherHead
from .network_config import NetworkConfig
from .twins import ResNetTwins, TokenTwins


class PairEncoder(Protocol):
    """An encoder of two images, in three steps of which the first two look at one image.

    Attributes:
        stride: pixels per cell.
        frozen: whether ``inputs`` is the work of a frozen backbone, worth keeping from one epoch to the next.
    """

    stride: int
    frozen: bool

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """What training does not change: the frozen part of the work on images ``(B, 3, H, W)`` in [0, 1]."""
        ...

    def describe(self, inputs: torch.Tensor) -> torch.Tensor:
        """What needs one image only."""
        ...

    def pair(self, described_a: torch.Tensor, described_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(B, d, h, w)`` of both images."""
        ...


@dataclass(frozen=True)
class Cosalient:
    """What the first half of the network finds.

    Attributes:
        features_a, features_b: ``(B, d, h, w)``.
        mask_logits_a, mask_logits_b: ``(B, h, w)``: log-odds of each cell to show what both images show.
    """

    features_a: torch.Tensor
    features_b: torch.Tensor
    mask_logits_a: torch.Tensor
    mask_logits_b: torch.Tensor


@dataclass(frozen=True)
class NetworkOutput:
    """What the network says of B pairs.

    Attributes:
        logit: ``(B,)`` log-odds of a match.
        mask_logits_a, mask_logits_b: ``(B, h, w)`` as in :class:`Cosalient`.
        weak_region: ``(B,)`` bool: a mask was empty, and its likeliest cells were compared in its place.
    """

    logit: torch.Tensor
    mask_logits_a: torch.Tensor
    mask_logits_b: torch.Tensor
    weak_region: torch.Tensor


class PairNetwork(nn.Module):
    """CODER or twins, co-salient heads, and a head that decides.

    The weights of a frozen backbone are no part of its ``state_dict``. Which are trained in which step is up to the
    caller: ``segmenter_parameters()`` and ``decider_parameters()`` tell them apart.

    Args:
        config: what it is made of.
        backbone: the frozen backbone of ``encoder="tokens"``; None loads the one that ``config`` names.
        pretrained: whether a ResNet begins with the weights that ``config.backbone`` names; False where weights are
            about to be loaded anyway.

    Raises:
        ConfigError: ``config.side`` is not a multiple of the backbone's patch, or a name is unknown.
        ModelError: the backbone or the weights to begin with cannot be had.
    """

    def __init__(self, config: NetworkConfig, *, backbone: Backbone | None = None, pretrained: bool = True) -> None:
        super().__init__()
        self.config = config
        self.encoder = _encoder(config, backbone, pretrained)
        if config.side % self.encoder.stride:
            stride = self.encoder.stride
            below = max(stride, config.side // stride * stride)
            raise ConfigError(
                f"side={config.side} is no multiple of the stride {stride}; use {below} or {below + stride}"
            )
        self.mixing = CrossAttention(config.d) if config.cross_attention else None
        self.mask_head_a = CosalientHead(config.d, width=config.mask_width)
        self.mask_head_b = None if config.symmetric else CosalientHead(config.d, width=config.mask_width)
        self.match_head = _match_head(config)

    @property
    def grid_side(self) -> int:
        """Cells along each side of the grid."""
        return self.config.side // self.encoder.stride

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """What :meth:`forward` takes: tokens ``(B, C, h, w)`` of the frozen backbone, or the images themselves.

        Args:
            images: ``(B, 3, side, side)`` float in [0, 1], RGB.
        """
        return self.encoder.inputs(images)

    def describe(self, inputs: torch.Tensor) -> torch.Tensor:
        """What needs one image only: for twins the features ``(B, d, h, w)`` before any mixing."""
        return self.encoder.describe(inputs)

    def find(self, described_a: torch.Tensor, described_b: torch.Tensor) -> Cosalient:
        """Features in the light of each other, and the co-salient masks; the arguments come from :meth:`describe`."""
        a, b = self.encoder.pair(described_a, described_b)
        if self.mixing is not None:
            a, b = self.mixing(a, b)
        if self.mask_head_b is None:
            return Cosalient(a, b, self.mask_head_a(a, b), self.mask_head_a(b, a))
        return Cosalient(a, b, self.mask_head_a(a, b), self.mask_head_b(a, b))

    def segment(self, inputs_a: torch.Tensor, inputs_b: torch.Tensor) -> Cosalient:
        """The first half of :meth:`forward`: all that the first step of training needs."""
        # One batch, or else the normalisation of a ResNet would tell the two images apart.
        return self.find(*self.describe(torch.cat([inputs_a, inputs_b])).chunk(2))

    def decide(
        self, found: Cosalient, masks_a: torch.Tensor | None = None, masks_b: torch.Tensor | None = None
    ) -> NetworkOutput:
        """The second half.

        No gradient flows from the decision into the masks: regions are selected by a threshold.

        Args:
            found: the first half.
            masks_a, masks_b: ``(B, h, w)`` coverage in [0, 1] from which to select the regions, such as true masks in
                training; None for the predicted ones.
        """
        masks_a = found.mask_logits_a.sigmoid() if masks_a is None else masks_a
        masks_b = found.mask_logits_b.sigmoid() if masks_b is None else masks_b
        logits, weak = [], []
        for features_a, features_b, mask_a, mask_b in zip(
            found.features_a, found.features_b, masks_a, masks_b, strict=True
        ):
            region_a, weak_a = select_region(features_a, mask_a, self.config.alpha)
            region_b, weak_b = select_region(features_b, mask_b, self.config.alpha)
            weak.append(weak_a or weak_b)
            if self.config.head == "image":
                region_a, region_b = features_a.flatten(1).mT, features_b.flatten(1).mT
            logits.append(self.match_head(region_a, region_b))
        logit = torch.stack(logits)
        return NetworkOutput(logit, found.mask_logits_a, found.mask_logits_b, torch.tensor(weak, device=logit.device))

    def forward(
        self,
        inputs_a: torch.Tensor,
        inputs_b: torch.Tensor,
        masks_a: torch.Tensor | None = None,
        masks_b: torch.Tensor | None = None,
    ) -> NetworkOutput:
        """Both halves: ``decide(segment(inputs_a, inputs_b), masks_a, masks_b)``.

        Args:
            inputs_a, inputs_b: what :meth:`inputs` gave for the two images of B pairs.
            masks_a, masks_b: as in :meth:`decide`.
        """
        return self.decide(self.segment(inputs_a, inputs_b), masks_a, masks_b)

    def segmenter_parameters(self) -> list[nn.Parameter]:
        """Weights of the encoder and of the co-salient heads: those of the first step of training."""
        decider = {id(parameter) for parameter in self.decider_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in decider]

    def decider_parameters(self) -> list[nn.Parameter]:
        """Weights of the head that decides, which the second step adds."""
        return list(self.match_head.parameters())


def _encoder(config: NetworkConfig, backbone: Backbone | None, pretrained: bool) -> Coder | ResNetTwins | TokenTwins:
    if config.encoder == "coder":
        return Coder(config.block_widths, config.d, shared=config.shared)
    if config.encoder == "tokens":
        return TokenTwins(load_backbone(str(config.backbone)) if backbone is None else backbone, config.d)
    twins = ResNetTwins(config.block_widths, config.d)
    if pretrained and config.backbone is not None:
        twins.start_from(config.backbone)
    return twins


def _match_head(config: NetworkConfig) -> MatcherHead | EmbeddingHead:
    if config.head == "matcher":
        return MatcherHead(
            config.d,
            width=config.match_width,
            k=config.k,
            similarity=config.similarity,
            symmetric=config.symmetric,
        )
    return EmbeddingHead(config.d, width=config.match_width)
