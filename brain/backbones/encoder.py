"""What all encoders of `transformers` share: placement, the check and normalisation of images, compilation."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .base import Tokens
from .catalog import Family
from .device import PRECISION_NAMES


@dataclass(frozen=True)
class Placement:
    """Where and how a backbone runs.

    Attributes:
        device: the device that holds the weights.
        dtype: number format of matrix products (autocast); weights and results are float32.
        compile: whether ``torch.compile`` translates the encoder at its first call.
    """

    device: torch.device
    dtype: torch.dtype
    compile: bool = False


@dataclass(frozen=True)
class ModelIdentity:
    """What a loaded model is, apart from its architecture.

    Attributes:
        name: what the user asked for, as stored in provenance.
        weights_hash: hexadecimal hash of the architecture and all weights.
        mean, std: normalisation of RGB values in [0, 1].
    """

    name: str
    weights_hash: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """The patch grid of an architecture.

    Attributes:
        patch_size: side of a patch in pixels.
        dim: channels of a token.
        default_size: side in pixels of the square input used when the user names none.
    """

    patch_size: int
    dim: int
    default_size: int


class Encoder(ABC):
    """A frozen image encoder; see :class:`~.base.Backbone` for its attributes and what `tokens` promises.

    The model's last layer norm is taken out of the model and applied here, so that tokens before and after it cost
    one and the same forward pass, whatever the version of ``transformers`` calls its outputs.

    Args:
        model: the image encoder alone; it is changed.
        family: how its architecture is handled.
        placement: where and how it runs.
        identity: its name, hash and normalisation.
        grid: its patch grid.
    """

    def __init__(
        self, model: nn.Module, family: Family, placement: Placement, identity: ModelIdentity, grid: Grid
    ) -> None:
        self.name = identity.name
        self.weights_hash = identity.weights_hash
        self.patch_size, self.dim, self.default_size = grid.patch_size, grid.dim, grid.default_size
        self.device = placement.device
        self.precision = PRECISION_NAMES[placement.dtype]
        self._dtype = placement.dtype
        self._norm = self._place(taken_out(tower_of(model), family.final_norm))
        self._place(model).to(memory_format=torch.channels_last)
        self._compiled = placement.compile
        self._model: Any = torch.compile(model) if placement.compile else model
        self._mean = torch.tensor(identity.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(identity.std, device=self.device).view(1, 3, 1, 1)

    def tokens(self, images: torch.Tensor, *, final_norm: bool = True) -> Tokens:
        """Encodes a batch; the contract is :meth:`.base.Backbone.tokens`.

        Raises:
            ConfigError: the images are not float ``(B, 3, H, W)`` with H and W multiples of the patch size.
            ModelError: the compiler failed.
        """
        rows, columns = self._rows_and_columns(images)
        with torch.inference_mode():
            pixels = (images.to(self.device, torch.float32) - self._mean) / self._std
            with (
                torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32),
                self._explained_compiler(),
            ):
                patch, cls = self._encode(pixels.contiguous(memory_format=torch.channels_last), final_norm)
        # Copies made outside of inference mode are ordinary tensors: a head may be trained on them.
        patch = patch.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return Tokens(patch.view(-1, rows, columns, self.dim), cls.to(torch.float32, copy=True))

    @abstractmethod
    def _encode(self, pixels: torch.Tensor, final_norm: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs the model.

        Args:
            pixels: ``(B, 3, H, W)`` normalised.
            final_norm: whether to apply the last layer norm.

        Returns:
            patch tokens ``(B, patches, C)`` or ``(B, rows, columns, C)``, and ``(B, C)`` class tokens.
        """

    def _place(self, module: nn.Module) -> nn.Module:
        return module.eval().requires_grad_(False).to(self.device)

    def _rows_and_columns(self, images: torch.Tensor) -> tuple[int, int]:
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ConfigError(
                f"{self.name}: images must be float (B, 3, H, W) in [0, 1], not {images.dtype} {tuple(images.shape)}"
            )
        height, width = images.shape[-2:]
        patch = self.patch_size
        if not height or not width or height % patch or width % patch:
            raise ConfigError(
                f"{self.name}: input of {height}×{width} pixels is not a multiple of the patch size {patch}"
            )
        return height // patch, width // patch

    @contextlib.contextmanager
    def _explained_compiler(self) -> Iterator[None]:
        if not self._compiled:
            yield
            return
        from torch._dynamo.exc import TorchDynamoException

        try:
            yield
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.name}: torch.compile failed ({reason}); run with compile=False") from error


def tower_of(model: nn.Module) -> Any:
    """The module that holds the layers: transformers 4 nests SigLIP's in `vision_model`, version 5 does not."""
    return getattr(model, "vision_model", model)


def taken_out(module: nn.Module, part: str) -> nn.Module:
    """A part of a model, whose place is left to pass everything through."""
    found = getattr(module, part)
    setattr(module, part, nn.Identity())
    return found


def one_side(value: object, key: str, name: str) -> int:
    """The side of a square that a setting of ``config.json`` gives as one number or as two equal ones.

    Raises:
        ModelError: it is not square, or not a whole number.
    """
    sides = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ModelError(f"{name}: {key}={value!r} in config.json is not square; only square ones are supported")
    return sides[0]
