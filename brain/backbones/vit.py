"""Vision transformers of `transformers` behind one interface: DINO, DINOv2, SigLIP, SigLIP 2 and the embedded model."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .base import Tokens
from .catalog import Family, default_input_size
from .device import PRECISION_NAMES
from .folder import ModelFolder


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


class VitBackbone:
    """A frozen vision transformer; see :class:`~.base.Backbone` for its attributes and what `tokens` promises.

    The model's last layer norm is taken out of the model and applied here, so that tokens before and after it cost
    one and the same forward pass, whatever the version of ``transformers`` calls its outputs. Position embeddings are
    interpolated as ``transformers`` does it; the first DINOv2 release spaces its samples 0.4 % closer at 336 pixels.
    """

    def __init__(
        self,
        model: nn.Module,
        family: Family,
        placement: Placement,
        *,
        name: str,
        weights_hash: str,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        self.name = name
        self.weights_hash = weights_hash
        self.device = placement.device
        self.precision = PRECISION_NAMES[placement.dtype]
        self._dtype = placement.dtype
        config: Any = model.config
        self.patch_size = _one_side(config.patch_size, "patch_size", name)
        self.dim = int(config.hidden_size)
        self.default_size = _default_size(config, family, self.patch_size)
        self._family = family
        self._prefix = int(family.class_token) + int(getattr(config, "num_register_tokens", 0))
        self._norm, self._head = _detach_norm_and_head(model, family)
        for module in (model, self._norm, self._head):
            if module is not None:
                module.eval().requires_grad_(False).to(self.device)
        model.to(memory_format=torch.channels_last)
        self._compiled = placement.compile
        self._model: Any = torch.compile(model) if placement.compile else model
        self._mean = torch.tensor(mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(1, 3, 1, 1)

    def tokens(self, images: torch.Tensor, *, final_norm: bool = True) -> Tokens:
        """Encodes a batch; the contract is :meth:`.base.Backbone.tokens`.

        ``cls`` is the class token, after or before the final norm like the patches. SigLIP has none: there it is the
        output of the attention-pooling head, which always works on normalised tokens, so that ``final_norm`` does not
        change it (or, for a checkpoint without that head, the mean of the patch tokens).

        Raises:
            ConfigError: the images are not float ``(B, 3, H, W)`` with H and W multiples of the patch size.
        """
        rows, columns = self._grid(images)
        with torch.inference_mode():
            pixels = (images.to(self.device, torch.float32) - self._mean) / self._std
            with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
                raw = self._encode(pixels.contiguous(memory_format=torch.channels_last))
                normed = self._norm(raw.float())
                pooled = None if self._head is None else self._head(normed)
            out = normed if final_norm else raw
            if pooled is None:
                pooled = out[:, 0] if self._family.class_token else out.mean(1)
        # Copies made outside of inference mode are ordinary tensors: a head may be trained on them.
        patch = out[:, self._prefix :].to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        return Tokens(patch.view(-1, rows, columns, self.dim), pooled.to(torch.float32, copy=True))

    def _grid(self, images: torch.Tensor) -> tuple[int, int]:
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

    def _encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(B, prefix + patches, C)`` tokens before the final norm."""
        inputs: dict[str, Any] = {"pixel_values": pixels}
        if self._family.patches_as_input:
            patches, shapes = _patchify(pixels, self.patch_size)
            inputs = {"pixel_values": patches, "pixel_attention_mask": None, "spatial_shapes": shapes}
        elif self._family.interpolate_flag:
            inputs["interpolate_pos_encoding"] = True
        with self._explain_compiler():
            return self._model(**inputs).last_hidden_state

    @contextlib.contextmanager
    def _explain_compiler(self) -> Iterator[None]:
        if not self._compiled:
            yield
            return
        from torch._dynamo.exc import TorchDynamoException

        try:
            yield
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"{self.name}: torch.compile failed ({reason}); run with compile=False") from error


def backbone_from_folder(folder: ModelFolder, placement: Placement, *, name: str) -> VitBackbone:
    """Loads the weights of a model folder.

    Raises:
        ModelError: the weights are broken, incomplete, or of another shape than ``config.json`` says.
    """
    model = _load_model(folder)
    return VitBackbone(
        model,
        folder.family,
        placement,
        name=name,
        weights_hash=folder.digest(),
        mean=folder.mean,
        std=folder.std,
    )


def _load_model(folder: ModelFolder) -> nn.Module:
    import transformers

    model_class = getattr(transformers, folder.family.model_class)
    options = {"add_pooling_layer": False} if folder.family.model_class == "ViTModel" else {}
    try:
        with quiet_loading():
            model, report = model_class.from_pretrained(
                folder.path,
                local_files_only=True,
                use_safetensors=folder.weights[0].suffix == ".safetensors",
                weights_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except MemoryError:
        raise
    # The readers of weight files raise whatever they please (pickle, struct, zip, safetensors, key errors ...).
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{folder.path}: the model cannot be loaded ({reason[:300]}); the files are broken or do not belong"
            " together: download the model again"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if missing:
        raise ModelError(
            f"{folder.path}: the weights lack {len(missing)} tensors of the model ({', '.join(missing[:3])} ...), so"
            " they are incomplete, belong to another architecture or come from a newer transformers: download the"
            " model again, or update transformers"
        )
    return model


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps the loader from printing tables about text towers and from using up the caller's random numbers.

    Nothing is hidden by this: weights that are really missing are raised as errors.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _detach_norm_and_head(model: nn.Module, family: Family) -> tuple[nn.Module, nn.Module | None]:
    # transformers 4 nests SigLIP's tower in `vision_model`; version 5 does not.
    tower: Any = getattr(model, "vision_model", model)
    norm = getattr(tower, family.final_norm)
    setattr(tower, family.final_norm, nn.Identity())
    head = None
    if getattr(tower, "use_head", False):
        head, tower.head, tower.use_head = tower.head, nn.Identity(), False
    return norm, head


def _patchify(pixels: torch.Tensor, patch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """``(B, 3, H, W)`` to ``(B, h·w, patch·patch·3)``, channels last within a patch, and the ``(B, 2)`` grid sizes."""
    batch, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cells = pixels.reshape(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    shapes = torch.tensor([[rows, columns]]).expand(batch, 2)
    return cells.reshape(batch, rows * columns, -1), shapes


def _one_side(value: object, key: str, name: str) -> int:
    sides = tuple(value) if isinstance(value, list | tuple) else (value,)
    if len(set(sides)) != 1 or not isinstance(sides[0], int):
        raise ModelError(f"{name}: {key}={value!r} in config.json is not square; only square ones are supported")
    return sides[0]


def _default_size(config: Any, family: Family, patch: int) -> int:
    """SigLIP keeps the resolution it was trained at; the others were trained for, or bear well, any size."""
    if family.patches_as_input:
        return round(config.num_patches**0.5) * patch
    if not family.class_token:
        return _one_side(config.image_size, "image_size", "SigLIP") // patch * patch
    return default_input_size(patch)
