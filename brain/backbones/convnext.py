"""ConvNeXt V2 of `transformers` behind the interface of all backbones."""

from typing import Any

import torch
from torch import nn

from .catalog import Family, default_input_size
from .encoder import Encoder, Grid, ModelIdentity, Placement, one_side


class ConvNextBackbone(Encoder):
    """A frozen ConvNeXt V2, whose patch tokens are the output of its last stage.

    Each location of that map is the token of one patch, of ``patch_size`` pixels a side: the stride of the whole
    network. The receptive field is larger than the patch, as a transformer's is. The final layer norm, which the model
    applies to the mean over all locations, is applied to each token.

    ``cls`` is the model's pooled embedding: the layer norm of the mean of the raw tokens, or with
    ``final_norm=False`` that mean itself.
    """

    def __init__(self, model: nn.Module, family: Family, placement: Placement, identity: ModelIdentity) -> None:
        config: Any = model.config
        patch = total_stride(one_side(config.patch_size, "patch_size", identity.name), len(config.hidden_sizes))
        grid = Grid(patch, int(config.hidden_sizes[-1]), default_input_size(patch))
        super().__init__(model, family, placement, identity, grid)

    def _encode(self, pixels: torch.Tensor, final_norm: bool) -> tuple[torch.Tensor, torch.Tensor]:
        # Whatever a config.json asks for: the maps of the early stages would take many times the memory of the result.
        output = self._model(pixel_values=pixels, output_hidden_states=False)
        raw = output.last_hidden_state.permute(0, 2, 3, 1).float()
        pooled = raw.mean((1, 2))
        return (self._norm(raw), self._norm(pooled)) if final_norm else (raw, pooled)


def total_stride(patch_size: int, stages: int) -> int:
    """Pixels per side of a token's patch: the stem divides by ``patch_size``, each later stage by two."""
    return patch_size * 2 ** (stages - 1)
