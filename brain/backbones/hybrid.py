"""A learned encoder beside the statistics of each patch's own pixels, for encoders that see colour too little.

A token is the learned token and a histogram, each of unit length, weighted so that the cosine of two tokens is the
weighted mean of the two cosines. The histogram counts colours (hue × saturation × value) and brightness gradients
(direction × strength) with soft bins, and enters as its square root: its cosine is then the Bhattacharyya coefficient,
in which rare colours count for more than in the histogram's own cosine. The average over the patches of an object is,
but for that root, the histogram of the object.

Two bins of value only: brightness is what light changes first. On pictures without colour the gradients carry on.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass

import torch
from torch.nn import functional

from ..errors import ConfigError
from .base import Backbone, Tokens

# Part of the hash that provenance stores: raise it whenever a result may change.
_VERSION = 1

# Images whose pixels are spread over their bins at once; a few tens of megabytes at usual sizes.
_CHUNK = 8

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class HybridConfig:
    """What a hybrid token is made of.

    Attributes:
        statistics_share: weight of the statistics in the cosine of two tokens, in [0, 1]; the learned token has the
            rest.
        gradient_share: weight of the gradients in the cosine of two statistics, in [0, 1]; colours have the rest.
        hues: bins around the hue circle.
        saturations: bins from grey to pure colours; the first has no hue.
        values: bins from dark to bright.
        directions: bins of the gradient's direction, half a circle.
        strengths: bins of the gradient's strength; the first has no direction.
        weakest, strongest: centres of the first and last bin of strength, in brightness (0 to 1) per two pixels.

    Raises:
        ConfigError: a share or a number of bins is out of its range.
    """

    statistics_share: float = 0.5
    gradient_share: float = 0.3
    hues: int = 24
    saturations: int = 4
    values: int = 2
    directions: int = 8
    strengths: int = 4
    weakest: float = 2**-8
    strongest: float = 2**-3

    def __post_init__(self) -> None:
        for name in ("statistics_share", "gradient_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)!r} is not between 0 and 1")
        for name in ("hues", "saturations", "values", "directions", "strengths"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name}={getattr(self, name)!r}: at least two bins are needed")
        if not 0 < self.weakest < self.strongest:
            raise ConfigError(f"weakest={self.weakest} and strongest={self.strongest}: give 0 < weakest < strongest")

    @property
    def colours(self) -> int:
        """Bins of colour."""
        return (1 + self.hues * (self.saturations - 1)) * self.values

    @property
    def gradients(self) -> int:
        """Bins of gradients."""
        return 1 + self.directions * (self.strengths - 1)

    @property
    def dim(self) -> int:
        """Channels that the statistics add to a token."""
        return self.colours + self.gradients


HYBRID_CONFIG = HybridConfig()


class HybridBackbone:
    """A :class:`~.base.Backbone` that adds patch statistics to the tokens of another.

    ``cls`` is made like the patches, from the learned class token and the mean statistics of the whole image.

    Args:
        learned: the encoder; its grid, device and precision are this one's too.
        config: what a token is made of.
    """

    def __init__(self, learned: Backbone, config: HybridConfig = HYBRID_CONFIG) -> None:
        self.learned = learned
        self.config = config
        self.name = f"{learned.name}-hybrid"
        settings = json.dumps([_VERSION, learned.weights_hash, asdict(config)], sort_keys=True)
        self.weights_hash = hashlib.sha256(settings.encode()).hexdigest()
        self.patch_size = learned.patch_size
        self.dim = learned.dim + config.dim
        self.default_size = learned.default_size
        self.device = learned.device
        self.precision = learned.precision

    @torch.no_grad()
    def tokens(self, images: torch.Tensor, *, final_norm: bool = True) -> Tokens:
        """Encodes a batch; the contract is :meth:`.base.Backbone.tokens`.

        Every token has unit length. ``final_norm`` is about the learned part.

        Raises:
            ConfigError: the images are not float ``(B, 3, H, W)`` with H and W multiples of the patch size.
        """
        learned = self.learned.tokens(images, final_norm=final_norm)
        pixels = images.to(self.device, torch.float32)
        parts = [patch_statistics(chunk, self.patch_size, self.config) for chunk in pixels.split(_CHUNK)]
        statistics = torch.cat(parts)
        return Tokens(self._joined(learned.patch, statistics), self._joined(learned.cls, statistics.mean((1, 2))))

    def _joined(self, learned: torch.Tensor, statistics: torch.Tensor) -> torch.Tensor:
        return _weighted([learned, statistics], self.config.statistics_share)


def patch_statistics(images: torch.Tensor, patch: int, config: HybridConfig = HYBRID_CONFIG) -> torch.Tensor:
    """Colours and gradients of each patch.

    Args:
        images: ``(B, 3, H, W)`` float32 in [0, 1], RGB; H and W are multiples of ``patch``.
        patch: side of a patch in pixels.
        config: the bins.

    Returns:
        ``(B, H / patch, W / patch, config.dim)`` of unit length: square roots of the two weighted histograms.
    """
    # Half the resolution is as good, and a quarter of the work.
    factor = 2 if patch % 2 == 0 else 1
    images, patch = functional.avg_pool2d(images, factor), patch // factor
    colours, gradients = _colours(images, patch, config), _gradients(images, patch, config)
    return _weighted([colours.sqrt(), gradients.sqrt()], config.gradient_share)


def _weighted(parts: list[torch.Tensor], second_share: float) -> torch.Tensor:
    """Two unit vectors in one, along the last axis, whose cosine is the weighted mean of their cosines."""
    first, second = (functional.normalize(part, dim=-1) for part in parts)
    return torch.cat([math.sqrt(1 - second_share) * first, math.sqrt(second_share) * second], -1)


def _colours(images: torch.Tensor, patch: int, config: HybridConfig) -> torch.Tensor:
    """``(B, rows, columns, colours)`` shares of the pixels in each bin of hue × saturation × value."""
    hue, saturation, value = (_by_patch(channel, patch) for channel in _hsv(images))
    saturations, values = _bins(saturation, config.saturations), _bins(value, config.values)
    radii = saturations[..., :, None] * values[..., None, :]
    return _polar_histogram(_bins(hue, config.hues, cyclic=True), radii)


def _gradients(images: torch.Tensor, patch: int, config: HybridConfig) -> torch.Tensor:
    """``(B, rows, columns, gradients)`` shares of the pixels in each bin of direction × strength."""
    brightness = (images * images.new_tensor(_LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    around = functional.pad(brightness, (1, 1, 1, 1), mode="replicate")[:, 0]
    across = (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / 2
    down = (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / 2
    direction = (torch.atan2(down, across) / math.pi) % 1
    low, high = math.log2(config.weakest), math.log2(config.strongest)
    strength = (torch.hypot(down, across).clamp(min=config.weakest).log2() - low) / (high - low)
    directions = _bins(_by_patch(direction, patch), config.directions, cyclic=True)
    strengths = _bins(_by_patch(strength, patch), config.strengths)
    return _polar_histogram(directions, strengths[..., None])


def _hsv(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hue (a full turn is 1), saturation and value, each ``(B, H, W)`` in [0, 1]; the hue of greys is 0."""
    red, green, blue = images.unbind(1)
    value = images.amax(1)
    chroma = value - images.amin(1)
    divisor = chroma.clamp(min=1e-6)
    sixths = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    return (sixths / 6) % 1, chroma / value.clamp(min=1e-6), value


def _by_patch(channel: torch.Tensor, patch: int) -> torch.Tensor:
    """``(B, H, W)`` to ``(B, rows, columns, pixels of a patch)``."""
    batch, height, width = channel.shape
    cells = channel.reshape(batch, height // patch, patch, width // patch, patch).transpose(2, 3)
    return cells.flatten(-2)


def _bins(values: torch.Tensor, count: int, *, cyclic: bool = False) -> torch.Tensor:
    """Soft assignment of each value to its two nearest bins.

    Args:
        values: ``(...)`` in [0, 1].
        count: number of bins, at ``0, 1/(count-1) … 1``, or around a circle at ``0, 1/count …``.
        cyclic: whether 0 and 1 are the same.

    Returns:
        ``(..., count)`` in [0, 1], summing to 1.
    """
    intervals = count if cyclic else count - 1
    position = values.clamp(0, 1)[..., None] * intervals
    distance = (position - torch.arange(count, device=values.device)).abs()
    if cyclic:
        distance = torch.minimum(distance, count - distance)
    return (1 - distance).clamp(min=0)


def _polar_histogram(angles: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """Joint histogram of pixels in polar coordinates, whose centre is one bin without an angle.

    Args:
        angles: ``(..., P, A)`` soft assignment of P pixels.
        radii: ``(..., P, R, K)`` soft assignment, the centre first; K more bins each, which the angle says nothing of.

    Returns:
        ``(..., K + A·(R - 1)·K)`` shares of the pixels.
    """
    further = radii.shape[-1]
    joint = angles.mT @ radii.flatten(-2) / angles.shape[-2]
    centre = joint[..., :further].sum(-2)
    return torch.cat([centre, joint[..., further:].flatten(-2)], -1)
