"""Features inside a denoising network: where they are taken, FreeU, and how those of overlapping crops are joined.

Features are hidden states of the decoder. Source of the places: Zhang et al., "A Tale of Two Features: Stable Diffusion
Complements DINO for Zero-Shot Semantic Correspondence" (NeurIPS 2023). FreeU: Si et al., "FreeU: Free Lunch in
Diffusion U-Net" (CVPR 2024).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class FreeU:
    """Gains of one width of hidden states: of their first half, and of the low frequencies of the skip beside them."""

    backbone: float
    skip: float


# Of the widest hidden states of the decoder and of those two stages finer, as in the release of "Telling Left from
# Right" (1280 and 640 channels of Stable Diffusion 1.5).
RELEASED_FREEU = (FreeU(1.2, 0.9), FreeU(1.4, 0.2))

# Frequencies on either side of zero, along each axis, that count as low.
_LOW = 1


class _Enough(Exception):  # noqa: N818 (no error)
    """Ends a pass whose last features have been taken."""


def run_with_taps(unet: Any, run: Callable[[], Any], *, freeu: bool) -> list[torch.Tensor]:
    """Runs a network and takes the hidden states that enter the last layer of each decoder stage but the finest.

    These are the states before the skip connection joins them. What the network does after the last of them is not
    computed.

    Args:
        unet: a ``UNet2DConditionModel``.
        run: runs it once.
        freeu: multiply states and skips as FreeU does. The release keeps states by reference, so that those taken bear
            the gain, too; so they do here.

    Returns:
        ``(B, C_k, h_k, w_k)`` from the coarsest to the finest.
    """
    taps: list[torch.Tensor] = []
    with _hooks(unet, taps, freeu), contextlib.suppress(_Enough):
        run()
    return taps


@contextlib.contextmanager
def _hooks(unet: Any, taps: list[torch.Tensor], freeu: bool) -> Iterator[None]:
    handles = []
    blocks = unet.up_blocks[:-1]
    gains = _gains(unet) if freeu else {}
    entering = unet.mid_block.resnets[-1].out_channels
    for number, block in enumerate(blocks):
        for index, resnet in enumerate(block.resnets):
            tapped = index == len(block.resnets) - 1
            last = tapped and number == len(blocks) - 1
            hook = _hook(entering, gains.get(entering), taps if tapped else None, last)
            handles.append(resnet.register_forward_pre_hook(hook))
            entering = resnet.out_channels
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gains(unet: Any) -> dict[int, FreeU]:
    """FreeU's gains by the number of channels of the hidden states."""
    widths = list(unet.config.block_out_channels)
    finer = widths[-3] if len(widths) > 2 else widths[0]
    return {finer: RELEASED_FREEU[1], widths[-1]: RELEASED_FREEU[0]}


def _hook(
    channels: int, gain: FreeU | None, taps: list[torch.Tensor] | None, last: bool
) -> Callable[[Any, tuple], tuple | None]:
    """A hook on a layer whose input is ``channels`` of hidden states beside those of a skip connection."""

    def before(module: Any, inputs: tuple) -> tuple | None:
        joined = inputs[0]
        if gain is not None:
            joined = torch.cat(boosted(joined[:, :channels], joined[:, channels:], gain), dim=1)
        if taps is not None:
            # A copy: the network may go on in the same memory.
            taps.append(joined[:, :channels].detach().clone())
        if last:
            raise _Enough
        return None if gain is None else (joined, *inputs[1:])

    return before


def boosted(states: torch.Tensor, skip: torch.Tensor, gain: FreeU) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states with the first half of their channels multiplied, and skips with their low frequencies multiplied.

    Args:
        states: ``(B, C, h, w)``.
        skip: ``(B, C', h, w)``.
        gain: by how much.
    """
    half = states.shape[1] // 2
    states = torch.cat([states[:, :half] * gain.backbone, states[:, half:]], dim=1)
    height, width = skip.shape[2:]
    spectrum = torch.fft.fftshift(torch.fft.fftn(skip.float(), dim=(2, 3)), dim=(2, 3))
    factor = torch.ones(height, width, device=skip.device)
    # Half open, as published: zero itself and the frequency below it.
    rows, columns = (slice(max(0, side // 2 - _LOW), side // 2 + _LOW) for side in (height, width))
    factor[rows, columns] = gain.skip
    filtered = torch.fft.ifftn(torch.fft.ifftshift(spectrum * factor, dim=(2, 3)), dim=(2, 3)).real
    return states, filtered.to(skip.dtype)


def crop_offsets(size: int, crop: int, unit: int) -> list[int]:
    """Where the fewest crops that cover a side begin, evenly spread on multiples of a unit.

    Args:
        size: of the side in pixels, a multiple of ``unit``.
        crop: of a crop in pixels, likewise; at most ``size``.
        unit: pixels of the coarsest cell.
    """
    count = -(-size // crop)
    steps = (size - crop) // unit
    return [round(number * steps / max(1, count - 1)) * unit for number in range(count)]


def stitched(
    parts: Sequence[Sequence[torch.Tensor]], corners: Sequence[tuple[int, int]], crop: int, size: int
) -> list[torch.Tensor]:
    """Joins the features of overlapping crops; where crops overlap, their mean counts.

    Args:
        parts: per crop its layers ``(C_k, h_k, w_k)``.
        corners: per crop the row and column in pixels where it begins.
        crop: side of the crops in pixels.
        size: side of the whole in pixels.

    Returns:
        per layer ``(H_k, W_k, C_k)`` float32.
    """
    joined = []
    for layers in zip(*parts, strict=True):
        channels, cells = layers[0].shape[:2]
        stride = crop // cells
        side = size // stride
        total = torch.zeros(channels, side, side, device=layers[0].device)
        count = torch.zeros(side, side, device=layers[0].device)
        for layer, (top, left) in zip(layers, corners, strict=True):
            rows, columns = (slice(start // stride, start // stride + cells) for start in (top, left))
            total[:, rows, columns] += layer.float()
            count[rows, columns] += 1
        joined.append((total / count).permute(1, 2, 0).contiguous())
    return joined
