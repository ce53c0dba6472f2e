"""Cross-attention between the cells of two images: what CODER's joining of equal positions cannot see."""

import torch
from torch import nn
from torch.nn import functional

_HEADS = 4


class CrossAttention(nn.Module):
    """Each cell looks at all cells of the other image, and adds what it learns from that to its features.

    A cell's message comes from its own features, what it attended to, the product of the two (which tells how alike
    they are, channel by channel) and the cosine to its nearest cell there. The module begins as the identity. Its
    weights are shared by both images, so exchanging them exchanges the results.

    Source: the optional addition to CODER; the message after a concatenation as in SuperGlue (Sarlin et al., 2020).

    Args:
        d: channels of a cell; there are four heads where it is a multiple of four, else one.
    """

    def __init__(self, d: int) -> None:
        super().__init__()
        self.heads = _HEADS if d % _HEADS == 0 else 1
        self.norm = nn.LayerNorm(d)
        self.query, self.key, self.value = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        last = nn.Linear(d, d)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.message = nn.Sequential(nn.Linear(3 * d + 1, d), nn.GELU(), last)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B, d, h, w)`` features of both images, informed of each other."""
        cells_a, cells_b = (self.norm(features.flatten(2).mT) for features in (a, b))
        return a + self._messages(cells_a, cells_b, a.shape), b + self._messages(cells_b, cells_a, b.shape)

    def _messages(self, own: torch.Tensor, other: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """``(B, d, h, w)`` from normalised cells ``(B, n, d)`` of both images."""
        query, key, value = self._split(self.query(own)), self._split(self.key(other)), self._split(self.value(other))
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        nearest = (functional.normalize(own, dim=-1) @ functional.normalize(other, dim=-1).mT).amax(-1, keepdim=True)
        messages = self.message(torch.cat([own, attended, own * attended, nearest], -1))
        return messages.mT.reshape(shape)

    def _split(self, cells: torch.Tensor) -> torch.Tensor:
        """``(B, heads, n, d / heads)``."""
        return cells.unflatten(-1, (self.heads, -1)).transpose(1, 2)
