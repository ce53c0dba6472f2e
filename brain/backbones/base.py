"""What every backbone offers: patch tokens on a grid and, where the architecture has one, a class token."""

from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Tokens:
    """Output of a backbone for a batch of equally sized images.

    Attributes:
        patch: ``(B, H, W, C)`` patch tokens in raster order, registers dropped.
        cls: ``(B, C)`` class token, or the pooled embedding of a model that has no class token (SigLIP).
    """

    patch: torch.Tensor
    cls: torch.Tensor


class Backbone(Protocol):
    """A frozen image encoder.

    Attributes:
        name: what the user asked for, as stored in provenance (``"dinov2-small"``, ``"embedded-untrained"`` ...).
        weights_hash: hexadecimal hash of the architecture and all weights.
        patch_size: side of a patch in pixels; inputs must be multiples of it.
        dim: channels C of a token.
        default_size: side in pixels of the square input used when the user names none.
        device: where it runs.
        precision: number format of its matrix products: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
    """

    name: str
    weights_hash: str
    patch_size: int
    dim: int
    default_size: int
    device: torch.device
    precision: str

    def tokens(self, images: torch.Tensor, *, final_norm: bool = True) -> Tokens:
        """Encodes a batch.

        Args:
            images: ``(B, 3, H, W)`` float in [0, 1], RGB, on any device; normalised inside. H and W are multiples
                of ``patch_size``.
            final_norm: tokens after (True) or before the model's final layer norm.

        Returns:
            float32 tokens on ``device``.
        """
        ...
