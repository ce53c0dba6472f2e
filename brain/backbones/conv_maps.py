"""What all convolutional networks share that give feature maps: placement, normalisation, the size of an input."""

import torch
from torch import nn

from ..errors import ConfigError
from .device import PRECISION_NAMES
from .encoder import ModelIdentity, Placement


class ConvMaps:
    """A frozen convolutional network up to one of its layers; see :class:`~.feature_maps.FeatureMaps`.

    Args:
        layers: the network up to the wanted layer, ``(B, 3, H, W)`` to ``(B, C, h, w)``, ending in a ReLU.
        layer: what that layer is called.
        placement: where and how it runs.
        identity: its name, hash and normalisation.
        stride: pixels per cell.
        dim: channels C.
    """

    nonnegative = True
    head: nn.Module | None = None

    def __init__(
        self, layers: nn.Module, layer: str, placement: Placement, identity: ModelIdentity, *, stride: int, dim: int
    ) -> None:
        self.name, self.weights_hash = identity.name, identity.weights_hash
        self.layer: str | None = layer
        self.stride, self.dim = stride, dim
        self.device = placement.device
        self.precision = PRECISION_NAMES[placement.dtype]
        self._dtype = placement.dtype
        self._layers = layers.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(identity.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(identity.std, device=self.device).view(1, 3, 1, 1)

    def canvas_hw(self, image_hw: tuple[int, int], max_side: int | None) -> tuple[int, int]:
        """The image's own size, reduced to a longest side of ``max_side`` if that is given and less."""
        scale = 1.0 if max_side is None else min(1.0, max_side / max(image_hw))
        return max(1, round(image_hw[0] * scale)), max(1, round(image_hw[1] * scale))

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Encodes a batch; the contract is :meth:`.feature_maps.FeatureMaps.maps`.

        Raises:
            ConfigError: the images are not float ``(B, 3, H, W)``, or have no pixels.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point() or 0 in images.shape:
            raise ConfigError(
                f"{self.name}: images must be float (B, 3, H, W) in [0, 1], not {images.dtype} {tuple(images.shape)}"
            )
        with torch.inference_mode():
            pixels = (images.to(self.device, torch.float32) - self._mean) / self._std
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                out = self._layers(pixels.contiguous(memory_format=torch.channels_last))
        # A copy made outside of inference mode is an ordinary tensor.
        return out.permute(0, 2, 3, 1).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
