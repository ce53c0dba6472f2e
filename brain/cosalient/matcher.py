"""MATCHER: the similarities of two regions' tokens, and the head that decides from their pooled pair tensor.

Source: "Unstructured Object Matching using Co-Salient Region Segmentation" (SCOTT), the section on MATCHER. The paper
calls the head a CNN, and says no more of it.
"""

import torch
from torch import nn
from torch.nn import functional

from ..errors import ConfigError
from .network_config import PAPER_K, SIMILARITIES, Similarity
from .pair_pooling import pair_pool


def pair_similarity(a: torch.Tensor, b: torch.Tensor, kind: Similarity = "cosine") -> torch.Tensor:
    """Similarity of every token of one region to every token of the other.

    Args:
        a: ``(P, d)``.
        b: ``(Q, d)``.
        kind: ``"cosine"``; ``"l1"``: ``1 / (1 + mean|a - b|)``; ``"l2"``: ``1 / (1 + |a - b| / sqrt(d))``. The paper
            names the two distances, but not how they become weights.

    Returns:
        ``(P, Q)``.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind == "cosine":
        return functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).mT
    d = a.shape[1]
    if kind == "l1":
        return 1 / (1 + torch.cdist(a, b, p=1) / d)
    if kind == "l2":
        # The matrix form of the distance loses half of the digits where two tokens are alike.
        distances = torch.cdist(a, b, p=2, compute_mode="donot_use_mm_for_euclid_dist")
        return 1 / (1 + distances / d**0.5)
    raise ConfigError(f"similarity={kind!r} is unknown; use one of {', '.join(SIMILARITIES)}")


class MatcherHead(nn.Module):
    """Phi: the decision from the pooled pair tensor. 1×1 to ``width``, two 3×3 of stride 2, average, one logit.

    Args:
        d: channels of a token.
        width: channels inside the head.
        k: side of the pooled tensor, or ``"auto"`` for the size of the smaller region, at most 64: with more than
            that the pooling would only repeat entries.
        similarity: weight of a token pair.
        symmetric: average the logits of both orders of the regions.
    """

    def __init__(
        self,
        d: int,
        *,
        width: int = 128,
        k: int | str = PAPER_K,
        similarity: Similarity = "cosine",
        symmetric: bool = True,
    ) -> None:
        super().__init__()
        self.k, self.similarity, self.symmetric = k, similarity, symmetric
        self.phi = nn.Sequential(
            nn.Conv2d(2 * d, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, 1),
        )

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """The logit, a scalar, of one pair of regions ``(P, d)`` and ``(Q, d)``."""
        # Half precision would make ties of different similarities, and the products are cheap.
        with torch.autocast(a.device.type, enabled=False):
            a, b = a.float(), b.float()
            side = min(PAPER_K, len(a), len(b)) if self.k == "auto" else int(self.k)
            pooled = pair_pool(a, b, pair_similarity(a, b, self.similarity), side)
        orders = [pooled, _exchanged(pooled)] if self.symmetric else [pooled]
        return self.phi(torch.stack(orders).permute(0, 3, 1, 2)).mean()


def _exchanged(pooled: torch.Tensor) -> torch.Tensor:
    """The pooled tensor of the same pair in the other order."""
    first, second = pooled.transpose(0, 1).chunk(2, -1)
    return torch.cat([second, first], -1)
