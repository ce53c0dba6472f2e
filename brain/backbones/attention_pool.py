"""SigLIP's attention pooling of a part of an image, which gives vectors in the space that images share with texts."""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional


@torch.no_grad()
def attention_pool(head: nn.Module, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """What the model's own pooling head makes of each region, as if the tokens were the region's alone.

    The tokens still know the whole image: only the head's attention is restricted. Keys and values are computed once
    for all regions. A weight w between 0 and 1 counts a token w times, as ``softmax(score + log w)``; with all
    weights 1 the result is the model's embedding of the image.

    Args:
        head: the pooling head of a SigLIP or SigLIP 2 image encoder.
        tokens: ``(n, C)`` patch tokens of an image after the final norm, on the head's device.
        weights: ``(R, n)`` of each token for each region, in [0, 1].

    Returns:
        ``(R, C)`` float32; a region without any weight has zeros.
    """
    parts: Any = head
    attention = parts.attention
    count, dim = tokens.shape
    heads = attention.num_heads
    weights = weights.to(tokens.device, torch.float32)
    empty = weights.sum(1, keepdim=True) <= 0
    query_weight, *memory_weights = attention.in_proj_weight.chunk(3)
    query_bias, *memory_biases = attention.in_proj_bias.chunk(3)
    query = functional.linear(parts.probe[0], query_weight, query_bias).view(heads, -1, 1)
    keys, values = (
        functional.linear(tokens.float(), weight, bias).view(count, heads, -1).transpose(0, 1)
        for weight, bias in zip(memory_weights, memory_biases, strict=True)
    )
    scores = (keys @ query).squeeze(-1) / math.sqrt(dim // heads)
    logits = scores + torch.where(empty, 1.0, weights).log()[:, None]
    attended = torch.einsum("rhn,hnd->rhd", logits.softmax(-1), values).flatten(1)
    pooled = attention.out_proj(attended)
    pooled = pooled + parts.mlp(parts.layernorm(pooled))
    return torch.where(empty, 0.0, pooled)
