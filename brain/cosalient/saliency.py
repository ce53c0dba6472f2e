"""How far each patch of a picture stands out: from the class token's attention, from foregrounds, or given."""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from ..backbones.base import Backbone
from ..errors import ConfigError
from ..foreground.one_pass import OnePassForeground

SaliencyMethod = Literal["foreground", "one_pass", "attention"]
SALIENCIES: tuple[SaliencyMethod, ...] = ("foreground", "one_pass", "attention")


def check_saliency(method: str, backbone: Backbone) -> None:
    """Refuses a method that is unknown or that the backbone cannot serve.

    Raises:
        ConfigError: see above.
    """
    if method not in SALIENCIES:
        raise ConfigError(f"saliency={method!r} is unknown; use one of {', '.join(SALIENCIES)}")
    if method == "attention" and _last_attention(backbone) is None:
        raise ConfigError(
            f"saliency='attention' needs a vision transformer with a class token, which {backbone.name!r} is not; use"
            " saliency='foreground'"
        )


def one_pass_saliency(tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """``(B, h, w)`` float32 in [0, 1]: probability of foreground of :class:`.OnePassForeground`.

    Args:
        tokens: ``(B, h, w, C)`` patch tokens.
        valid: ``(B, h, w)`` bool, False on padding.
    """
    return OnePassForeground().coverage(tokens, valid)


def attention_saliency(attention: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """``(B, h, w)`` attention of the class token, stretched to [0, 1] within each picture; 0 on padding.

    Args:
        attention: ``(B, h, w)`` mean over heads.
        valid: ``(B, h, w)`` bool.
    """
    low = attention.masked_fill(~valid, torch.inf).amin((1, 2), keepdim=True)
    high = attention.masked_fill(~valid, -torch.inf).amax((1, 2), keepdim=True)
    return ((attention - low) / (high - low).clamp(min=1e-12)).clamp(0, 1).masked_fill(~valid, 0.0)


class AttentionRecorder:
    """Catches the attention of the class token in the last block while a backbone encodes.

    Queries and keys are what the block's own projections put out, so it costs one product more, whatever form of
    attention the encoder runs.

    Args:
        backbone: a vision transformer with a class token.
        heads: heads to average over; None takes all. (The release of "Deep ViT Features as Dense Visual Descriptors"
            takes 0, 2, 4 and 5 of DINO ViT-S, a choice that fits that checkpoint alone.)
    """

    def __init__(self, backbone: Backbone, heads: tuple[int, ...] | None = None) -> None:
        found = _last_attention(backbone)
        if found is None:
            raise ConfigError(f"{backbone.name!r} has no class token whose attention could be read")
        self._query, self._key, self._count = found
        if heads is not None and not all(0 <= head < self._count for head in heads):
            raise ConfigError(f"heads={heads} of the attention: {backbone.name!r} has heads 0 to {self._count - 1}")
        self._heads = heads
        self._seen: dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def recording(self) -> Iterator["AttentionRecorder"]:
        """While this is open, every pass of the backbone is recorded."""
        hooks = [
            self._query.register_forward_hook(lambda module, given, out: self._seen.update(query=out)),
            self._key.register_forward_hook(lambda module, given, out: self._seen.update(key=out)),
        ]
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()
            self._seen.clear()

    def of_grid(self, rows: int, columns: int) -> torch.Tensor:
        """``(B, rows, columns)`` attention to the patches in the last pass, after softmax, mean over heads."""
        query, key = (
            self._seen[name].float().unflatten(-1, (self._count, -1)).transpose(1, 2) for name in ("query", "key")
        )
        logits = (query[:, :, :1] @ key.transpose(2, 3))[:, :, 0] / query.shape[-1] ** 0.5
        weights = logits.softmax(-1)[..., -rows * columns :]
        chosen = weights if self._heads is None else weights[:, list(self._heads)]
        return chosen.mean(1).unflatten(-1, (rows, columns)).clone()


def _last_attention(backbone: Any) -> tuple[nn.Module, nn.Module, int] | None:
    # A hybrid's class token is that of the encoder inside.
    encoder = getattr(backbone, "learned", backbone)
    find = getattr(encoder, "last_attention", None)
    return None if find is None else find()
