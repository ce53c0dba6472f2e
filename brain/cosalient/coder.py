"""CODER, the co-dependent encoder: two streams that look at each other's features after every block.

    F_1 = psi_1(image),   F_i = psi_i([F_{i-1} of the own image, F_{i-1} of the other image]),   i = 2 ... 4

Source: "Unstructured Object Matching using Co-Salient Region Segmentation" (SCOTT), the section on CODER. The paper
gives blocks of convolution, ReLU and max-pooling and a grid of 1/32 of the image's side, which four poolings by two do
not reach: here the first block pools by four. It gives no widths either; the usual ones double from 64 to 512. A cell
sees 148 × 148 pixels of its own image and, since features are joined cell by cell, of the same place in the other.
"""

from collections.abc import Sequence

import torch
from torch import nn

_FIRST_POOL, _POOL = 4, 2
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Coder(nn.Module):
    """A :class:`~.network.PairEncoder` whose features of an image depend on the other image from the second block on.

    Args:
        widths: channels of the blocks.
        d: channels of the features; a 1×1 convolution follows where the last block has others.
        shared: one set of weights for both streams, so that exchanging the images exchanges the features.
    """

    frozen = False

    def __init__(self, widths: Sequence[int], d: int, *, shared: bool = True) -> None:
        super().__init__()
        self.stride = _FIRST_POOL * _POOL ** (len(widths) - 1)
        self.stream_a = _stream(widths)
        self.stream_b = None if shared else _stream(widths)
        self.project: nn.Module = nn.Identity() if widths[-1] == d else nn.Conv2d(widths[-1], d, 1)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """The images ``(B, 3, H, W)`` in [0, 1] as they are: nothing here is frozen."""
        return images

    def describe(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalised images: features of one image alone do not exist."""
        mean, std = (inputs.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        return (inputs - mean) / std

    def pair(self, described_a: torch.Tensor, described_b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features ``(B, d, H/32, W/32)`` of both images, in the light of each other."""
        a, b = described_a, described_b
        for index, block_a in enumerate(self.stream_a):
            if index:
                a, b = torch.cat([a, b], 1), torch.cat([b, a], 1)
            if self.stream_b is None:
                # One batch, or else its normalisation would tell the two streams apart.
                a, b = block_a(torch.cat([a, b])).chunk(2)
            else:
                a, b = block_a(a), self.stream_b[index](b)
        return self.project(a), self.project(b)


def _stream(widths: Sequence[int]) -> nn.ModuleList:
    inputs = [3, *(2 * width for width in widths[:-1])]
    pools = [_FIRST_POOL] + [_POOL] * (len(widths) - 1)
    return nn.ModuleList(_block(*sizes) for sizes in zip(inputs, widths, pools, strict=True))


def _block(inputs: int, width: int, pool: int) -> nn.Sequential:
    """Two 3×3 convolutions with batch normalisation and ReLU, then max-pooling."""
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.MaxPool2d(pool))
