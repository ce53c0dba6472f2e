"""The heads of a pair network besides MATCHER: co-salient masks, regions from masks, and embeddings that decide.

Source: "Unstructured Object Matching using Co-Salient Region Segmentation" (SCOTT), the sections on co-salient
segmentation and on the baselines. The paper selects regions with the true masks and says nothing of empty ones; here
the predicted mask stands in, and a mask without a cell gives way to its most probable ones, which the result admits.
"""

import math

import torch
from torch import nn

# Cells of a region whose mask is empty: this share of the grid, but not fewer than so many.
_WEAK_SHARE = 0.01
_WEAK_LEAST = 4

_MASK_LAYERS = 4


class CosalientHead(nn.Module):
    """sigma: where the object of both images lies in one of them. Four 3×3 to ``width``, then 1×1 to a logit.

    Args:
        d: channels of the features of one image.
        width: channels inside the head.
    """

    def __init__(self, d: int, *, width: int = 256) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(_MASK_LAYERS):
            layers += [nn.Conv2d(width if index else 2 * d, width, 3, padding=1), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 1))

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """``(B, h, w)`` logits from the features ``(B, d, h, w)`` of both images."""
        return self.layers(torch.cat([first, second], 1))[:, 0]


def select_region(features: torch.Tensor, mask: torch.Tensor, alpha: float = 0.5) -> tuple[torch.Tensor, bool]:
    """The tokens of the cells whose mask exceeds ``alpha``.

    Args:
        features: ``(d, h, w)`` of one image.
        mask: ``(h, w)`` probability or coverage in [0, 1]; no gradient flows into it.
        alpha: threshold of the mask.

    Returns:
        ``(P, d)`` tokens in raster order, P being at least 1, and whether the region is weak: no cell exceeded
        ``alpha``, and the likeliest 1 % of the cells (at least four, if there are as many) stand in.
    """
    values = mask.detach().flatten()
    cells = (values > alpha).nonzero()[:, 0]
    weak = not len(cells)
    if weak:
        count = min(len(values), max(_WEAK_LEAST, math.ceil(_WEAK_SHARE * len(values))))
        cells = values.topk(count).indices.sort().values
    return features.flatten(1)[:, cells].mT, weak


class EmbeddingHead(nn.Module):
    """The decision from the mean tokens of two images or regions: their absolute difference and their product.

    It does not depend on which of the two comes first.

    Args:
        d: channels of a token.
        width: channels inside the head.
    """

    def __init__(self, d: int, *, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 * d, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The logit, a scalar, of one pair of token sets ``(P, d)`` and ``(Q, d)``."""
        mean_a, mean_b = a.mean(0), b.mean(0)
        return self.layers(torch.cat([(mean_a - mean_b).abs(), mean_a * mean_b]))[0]
