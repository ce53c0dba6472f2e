"""Pairs as the batches of training: pictures that are decoded, or encoded, once and varied at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from ..backbones.encoder import Placement
from ..errors import ImageError
from ..geometry import image_to_canvas, plan_geometry
from ..images import decode_image
from .network import PairNetwork
from .pair_data import PairExample

# Frozen tokens are computed for so many pictures at a time.
_ENCODED = 16

# A picture is cut to between this share of its sides and the whole, and its colours change by at most so much.
_LEAST_CROP, _JITTER = 0.7, 0.25


@dataclass(frozen=True)
class Batch:
    """Some pairs.

    Attributes:
        inputs_a, inputs_b: what :meth:`.PairNetwork.segment` takes.
        masks_a, masks_b: ``(B, h, w)`` coverage of each cell by the true common object; 0 where it is not known.
        match: ``(B,)`` bool.
        masked: ``(B,)`` bool: a matching pair whose masks are known.
    """

    inputs_a: torch.Tensor
    inputs_b: torch.Tensor
    masks_a: torch.Tensor
    masks_b: torch.Tensor
    match: torch.Tensor
    masked: torch.Tensor

    def turned(self) -> "Batch":
        """The same pairs with their images exchanged."""
        return Batch(self.inputs_b, self.inputs_a, self.masks_b, self.masks_a, self.match, self.masked)


class PairPictures:
    """The pictures of pairs as a network takes them.

    Those of a frozen encoder are encoded when first asked for, in half precision; all others are kept as bytes.

    Args:
        network: whose inputs and grid they are for.
        placement: where it runs.
    """

    def __init__(self, network: PairNetwork, placement: Placement) -> None:
        self._network, self._placement = network, placement
        self._side, self._grid = network.config.side, network.grid_side
        self.frozen = network.encoder.frozen
        self._kept: dict[str, torch.Tensor] = {}
        self._masks: dict[str, torch.Tensor] = {}

    def encode(self, paths: Sequence[str]) -> None:
        """Makes pictures ready that are not yet.

        Raises:
            ImageError: one cannot be read.
        """
        todo = [path for path in dict.fromkeys(paths) if path not in self._kept]
        for start in range(0, len(todo), _ENCODED):
            chunk = todo[start : start + _ENCODED]
            canvases = torch.stack([self._canvas(path) for path in chunk])
            if self.frozen:
                with torch.no_grad():
                    made = self._network.inputs(canvases.to(self._placement.device)).half().cpu()
            else:
                made = (canvases * 255).round().byte()
            self._kept |= dict(zip(chunk, made, strict=True))

    def batch(self, examples: Sequence[PairExample], rng: np.random.Generator | None = None) -> Batch:
        """A batch of pairs; with ``rng`` each picture is varied by itself, and pairs are turned round by lot."""
        self.encode([path for one in examples for path in (one.path_a, one.path_b)])
        sides = [self._side_of(examples, side, rng) for side in "ab"]
        (inputs_a, masks_a), (inputs_b, masks_b) = sides
        match = torch.tensor([one.match for one in examples], device=inputs_a.device)
        masked = torch.tensor([_has_masks(one) for one in examples], device=inputs_a.device)
        if rng is not None:
            turn = torch.from_numpy(rng.random(len(examples)) < 0.5).to(inputs_a.device).view(-1, 1, 1, 1)
            inputs_a, inputs_b = torch.where(turn, inputs_b, inputs_a), torch.where(turn, inputs_a, inputs_b)
            masks_a, masks_b = (
                torch.where(turn[..., 0], masks_b, masks_a),
                torch.where(turn[..., 0], masks_a, masks_b),
            )
        return Batch(inputs_a, inputs_b, masks_a, masks_b, match, masked)

    def _side_of(
        self, examples: Sequence[PairExample], side: str, rng: np.random.Generator | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = self._placement.device
        pictures = torch.stack([self._kept[getattr(one, f"path_{side}")] for one in examples]).to(device).float()
        masks = torch.stack([self._mask(getattr(one, f"mask_{side}"), one) for one in examples]).to(device)
        if self.frozen:
            masks = self._to_grid(masks)
            if rng is not None:
                flip = torch.from_numpy(rng.random(len(examples)) < 0.5).to(device)
                pictures = torch.where(flip.view(-1, 1, 1, 1), pictures.flip(-1), pictures)
                masks = torch.where(flip.view(-1, 1, 1), masks.flip(-1), masks)
            return pictures, masks
        pictures = pictures / 255
        if rng is not None:
            pictures, masks = _varied(pictures, masks, rng)
        return pictures, self._to_grid(masks)

    def _to_grid(self, masks: torch.Tensor) -> torch.Tensor:
        return functional.adaptive_avg_pool2d(masks[:, None], self._grid)[:, 0]

    def _canvas(self, path: str) -> torch.Tensor:
        image = decode_image(path)
        geometry = plan_geometry((image.shape[0], image.shape[1]), self._side, self._network.encoder.stride)
        return image_to_canvas(image, geometry)

    def _mask(self, path: str | None, example: PairExample) -> torch.Tensor:
        """``(side, side)`` float, of a mask that belongs to a matching pair; 0 otherwise."""
        if path is None or not _has_masks(example):
            return torch.zeros(self._side, self._side)
        if path not in self._masks:
            try:
                with Image.open(path) as picture:
                    solid = Image.fromarray((np.asarray(picture.convert("L")) > 0).astype(np.uint8) * 255)
            except OSError as error:
                raise ImageError(f"{path}: the mask cannot be read ({error})") from error
            small = solid.resize((self._side, self._side), Image.Resampling.BOX)
            self._masks[path] = torch.from_numpy(np.array(small))
        return self._masks[path].float() / 255


def _has_masks(example: PairExample) -> bool:
    return example.match and example.mask_a is not None and example.mask_b is not None


def _varied(pictures: torch.Tensor, masks: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Each picture cut, perhaps mirrored and with other colours; its mask follows."""
    count = len(pictures)
    scale = rng.uniform(_LEAST_CROP, 1.0, count)
    shift = rng.uniform(-1, 1, (count, 2)) * (1 - scale)[:, None]
    flip = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    theta = np.zeros((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = scale * flip, scale, shift
    grid = functional.affine_grid(
        torch.from_numpy(theta).to(pictures.device), [count, 4, *pictures.shape[2:]], align_corners=False
    )
    both = functional.grid_sample(torch.cat([pictures, masks[:, None]], 1), grid, align_corners=False)
    gain = torch.from_numpy(rng.uniform(1 - _JITTER, 1 + _JITTER, (count, 3, 1, 1)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-_JITTER / 2, _JITTER / 2, (count, 1, 1, 1)).astype(np.float32))
    coloured = both[:, :3] * gain.to(both.device) + offset.to(both.device)
    return coloured.clamp(0, 1), both[:, 3].clamp(0, 1)
