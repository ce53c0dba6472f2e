"""Vision transformers of `transformers` behind one interface: DINO, DINOv2, SigLIP, SigLIP 2."""

from typing import Any

import torch
from torch import nn

from .catalog import Family, default_input_size
from .encoder import Encoder, Grid, ModelIdentity, Placement, one_side, taken_out, tower_of


class VitBackbone(Encoder):
    """A frozen vision transformer.

    Position embeddings are interpolated as ``transformers`` does it; the first DINOv2 release spaces its samples
    0.4 % closer at 336 pixels.

    ``cls`` is the class token, after or before the final norm like the patches. SigLIP has none: there it is the
    output of the attention-pooling head, which always works on normalised tokens, so that ``final_norm`` does not
    change it (or, for a checkpoint without that head, the mean of the patch tokens).

    Attributes:
        head: SigLIP's attention-pooling head; None for models without one.
    """

    def __init__(self, model: nn.Module, family: Family, placement: Placement, identity: ModelIdentity) -> None:
        config: Any = model.config
        self._family = family
        self._heads = int(config.num_attention_heads)
        self._prefix = int(family.class_token) + int(getattr(config, "num_register_tokens", 0))
        head = _detached_head(model)
        super().__init__(model, family, placement, identity, _grid(config, family, identity.name))
        self.head = None if head is None else self._place(head)

    def _encode(self, pixels: torch.Tensor, final_norm: bool) -> tuple[torch.Tensor, torch.Tensor]:
        raw = self._model(**self._inputs(pixels)).last_hidden_state
        normed = self._norm(raw.float())
        out = normed if final_norm else raw
        patches = out[:, self._prefix :]
        if self.head is not None:
            return patches, self.head(normed)
        return patches, out[:, 0] if self._family.class_token else out.mean(1)

    def last_attention(self) -> tuple[nn.Module, nn.Module, int] | None:
        """Projections to queries and keys of the last block, and its number of heads; None without a class token."""
        if not self._family.class_token:
            return None
        # The names differ between the architectures, and between versions of `transformers`.
        for names in (("query", "key"), ("q_proj", "k_proj")):
            found = [module for module in self._model.modules() if all(hasattr(module, name) for name in names)]
            if found:
                return getattr(found[-1], names[0]), getattr(found[-1], names[1]), self._heads
        return None

    def _inputs(self, pixels: torch.Tensor) -> dict[str, Any]:
        if self._family.patches_as_input:
            patches, shapes = _patchify(pixels, self.patch_size)
            return {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": shapes}
        if self._family.interpolate_flag:
            return {"pixel_values": pixels, "interpolate_pos_encoding": True}
        return {"pixel_values": pixels}


def _detached_head(model: nn.Module) -> nn.Module | None:
    """The attention-pooling head, taken out so that it can be given normalised tokens."""
    tower = tower_of(model)
    if not getattr(tower, "use_head", False):
        return None
    tower.use_head = False
    return taken_out(tower, "head")


def _patchify(pixels: torch.Tensor, patch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, 3, H, W)`` to ``(B, h·w, patch·patch·3)``, channels last within a patch, and the ``(B, 2)`` grid sizes."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cells = pixels.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[rows, columns]]).expand(batch, 2)
    return cells.reshape(batch, rows * columns, -1), shapes


def _grid(config: Any, family: Family, name: str) -> Grid:
    """SigLIP keeps the resolution it was trained at; the others were trained for, or bear well, any size."""
    patch = one_side(config.patch_size, "patch_size", name)
    size = default_input_size(patch)
    if family.patches_as_input:
        size = round(config.num_patches**0.5) * patch
    elif not family.class_token:
        size = one_side(config.image_size, "image_size", "SigLIP") // patch * patch
    return Grid(patch, int(config.hidden_size), size)
