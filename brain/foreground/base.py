"""The two kinds of foreground method: those that look at pixels and those that reuse an encoder's patch tokens."""

from typing import Protocol

import numpy as np
import torch


class PixelForeground(Protocol):
    """A foreground from pixels (CarveKit, GrabCut).

    Attributes:
        name: the method's name as stored in provenance.
        weights_hash: hash of weights and settings.
        in_worker: whether it needs no device and belongs into the threads that decode.
        full_scale: whether its masks depend on the scale at which the picture was decoded.
    """

    name: str
    weights_hash: str
    in_worker: bool
    full_scale: bool

    def masks(self, images: list[np.ndarray]) -> list[np.ndarray]:
        """Soft masks ``(H, W)`` float32 in [0, 1], one per ``(H, W, 3)`` uint8 image, of the image's own size."""
        ...


class TokenForeground(Protocol):
    """A foreground from the very tokens that FFA averages; no second network.

    Attributes:
        name: the method's name as stored in provenance.
        weights_hash: hash of settings and of a trained head if there is one.
    """

    name: str
    weights_hash: str

    def coverage(self, patch_tokens: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
        """Share of foreground per patch.

        Args:
            patch_tokens: ``(B, H, W, C)``.
            valid: ``(B, H, W)`` bool, False where a patch is padding.

        Returns:
            ``(B, H, W)`` float32 in [0, 1]; 0 on padding.
        """
        ...
