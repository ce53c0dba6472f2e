"""The pair tensor of two regions, max-pooled without ever being formed, forward nor backward.

For regions A (P, d) and B (Q, d) with similarities ``sim`` (P, Q) the pair tensor of MATCHER is

    T[i, j] = sim[i, j] · [A_i, B_j]          (P, Q, 2d)

and its head reads the adaptive max-pooling of T to (K, K, 2d). For a fixed row i and channel c, ``sim[i, j] · A_ic`` is
linear in ``sim``, so its maximum over a bin of columns lies at the bin's largest similarity where A_ic is positive and
at its smallest where it is negative. The first d channels therefore need only the two extremes of each row and bin;
the other d are the same with the regions exchanged. Work falls from P·Q·2d to (P + Q)·K·d, and the result is the same
to the last bit.

Source of T: "Unstructured Object Matching using Co-Salient Region Segmentation" (SCOTT), the section on MATCHER.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from ..errors import ConfigError

# Products held at once: half a megabyte, which stays in the cache of a CPU; a GPU wants fewer and larger pieces.
_CPU_CHUNK = 1 << 17
_GPU_CHUNK = 1 << 24


def pair_pool(a: torch.Tensor, b: torch.Tensor, sim: torch.Tensor, k: int) -> torch.Tensor:
    """``adaptive_max_pool2d`` of the pair tensor to ``k`` × ``k``.

    Values are exactly those of the full tensor. So are the gradients, but for ties of products that differ before
    rounding, or are zero by their similarity, where either winner is right.

    Args:
        a: ``(P, d)`` tokens of the first region.
        b: ``(Q, d)`` tokens of the second region.
        sim: ``(P, Q)`` weights of the pairs, of any sign.
        k: side of the pooled tensor.

    Returns:
        ``(k, k, 2d)``, ``[u, v]`` being the largest ``sim[i, j] * [a[i], b[j]]`` of row bin u and column bin v.

    Raises:
        ConfigError: the shapes do not fit together, a region is empty, or ``k`` is not positive.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or sim.shape != (len(a), len(b)):
        raise ConfigError(
            f"a, b and sim have shapes {tuple(a.shape)}, {tuple(b.shape)}, {tuple(sim.shape)}; give (P, d), (Q, d) and"
            " (P, Q)"
        )
    if not sim.numel() or k < 1:
        raise ConfigError(f"regions of {len(a)} and {len(b)} tokens cannot be pooled to k={k}; all must be positive")
    return _PairPool.apply(a, b, sim, k)


class _PairPool(torch.autograd.Function):
    """Both halves of the pooled pair tensor; the backward pass finds the winners again by their values."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor, sim: torch.Tensor, k: int) -> torch.Tensor:
        d = a.shape[1]
        pooled = a.new_empty(k, k, 2 * d)
        _pool_half(a, sim, pooled[..., :d])
        _pool_half(b, sim.mT, pooled[..., d:].transpose(0, 1))
        ctx.save_for_backward(a, b, sim, pooled)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        a, b, sim, pooled = ctx.saved_tensors
        d = a.shape[1]
        grad_a, grad_sim = _half_gradients(a, sim, pooled[..., :d], gradient[..., :d])
        second = (values[..., d:].transpose(0, 1) for values in (pooled, gradient))
        grad_b, grad_sim_b = _half_gradients(b, sim.mT, *second)
        return grad_a, grad_b, grad_sim.add_(grad_sim_b.mT), None


@dataclass(frozen=True)
class _Extremes:
    """Per row and column bin, the columns that can win: of the largest, the smallest and the first similarity.

    Attributes:
        values: ``(P, 3, K)`` similarities.
        columns: ``(P, 3, K)`` their columns.
    """

    values: torch.Tensor
    columns: torch.Tensor


def _extremes(sim: torch.Tensor, k: int) -> _Extremes:
    members = _bins(sim.shape[1], k).to(sim.device)
    binned = sim[:, members]
    offsets = torch.stack([binned.argmax(-1), binned.argmin(-1), torch.zeros_like(binned[..., 0], dtype=torch.long)], 1)
    columns = members.expand(len(sim), 3, -1, -1).gather(-1, offsets[..., None])[..., 0]
    return _Extremes(sim[:, None].expand(-1, 3, -1).gather(-1, columns), columns)


def _pool_half(tokens: torch.Tensor, sim: torch.Tensor, out: torch.Tensor) -> None:
    """Writes ``out[u, v, c]``, the largest ``sim[i, j] * tokens[i, c]`` of row bin u and column bin v."""
    half = _Half.of(tokens, _extremes(sim, len(out)).values)
    for bins, rows in _pieces(tokens, len(out)):
        best = half.products(rows[:, 0])
        for member in rows.T[1:]:
            torch.maximum(best, half.products(member), out=best)
        out[bins] = best


def _half_gradients(
    tokens: torch.Tensor, sim: torch.Tensor, pooled: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of :func:`_pool_half` for the tokens ``(P, d)`` and the similarities ``(P, Q)``."""
    extremes = _extremes(sim, len(pooled))
    half = _Half.of(tokens, extremes.values)
    signs = torch.stack([tokens > 0, tokens < 0, tokens == 0], 1)
    grad_tokens, grad_values = torch.zeros_like(tokens), torch.zeros_like(extremes.values)
    for bins, rows in _pieces(tokens, len(pooled)):
        rest = gradient[bins].clone()
        won = torch.empty_like(rest)
        for member in rows.T:
            # The first of equal members takes the gradient, as PyTorch's pooling has it.
            torch.eq(half.products(member), pooled[bins], out=won)
            won.mul_(rest)
            rest.sub_(won)
            # Sums over column bins and over channels are matrix products.
            grad_tokens.index_add_(0, member, ((half.values[member] @ won) * signs[member]).sum(1))
            grad_values[:, :2].index_add_(0, member, half.signed[member] @ won.mT)
    grad_sim = torch.zeros_like(sim, memory_format=torch.contiguous_format)
    return grad_tokens, grad_sim.scatter_add_(1, extremes.columns.flatten(1), grad_values.flatten(1))


@dataclass(frozen=True)
class _Half:
    """One half of the pair tensor, by rows.

    Attributes:
        signed: ``(P, 2, d)`` the positive and the negative part of the tokens.
        values: ``(P, 3, K)`` the extremes of the similarities.
    """

    signed: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, tokens: torch.Tensor, values: torch.Tensor) -> "_Half":
        return cls(torch.stack([tokens.clamp(min=0), tokens.clamp(max=0)], 1), values)

    def products(self, rows: torch.Tensor) -> torch.Tensor:
        """``(n, K, d)`` largest products of n rows with the columns of each bin."""
        signed, values = self.signed[rows, :, None], self.values[rows, :, :, None]
        # One of the two terms is zero, so that the sum is exact.
        return (signed[:, 0] * values[:, 0]).addcmul_(signed[:, 1], values[:, 1])


def _pieces(tokens: torch.Tensor, k: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Row bins in portions whose products stay in the cache: which bins, and their rows ``(bins, size)``."""
    rows = _bins(len(tokens), k).to(tokens.device)
    budget = _CPU_CHUNK if tokens.device.type == "cpu" else _GPU_CHUNK
    step = max(1, budget // (k * tokens.shape[1]))
    for start in range(0, k, step):
        yield slice(start, start + step), rows[start : start + step]


@lru_cache(maxsize=256)
def _bins(n: int, k: int) -> torch.Tensor:
    """``(k, size)`` members of PyTorch's adaptive bins, ``floor(u n / k)`` to ``ceil((u + 1) n / k)``.

    Shorter bins repeat their last member, which changes no maximum, and never wins over its first occurrence.
    """
    first = torch.arange(k) * n // k
    last = -(torch.arange(1, k + 1) * -n // k) - 1
    size = int((last - first).max()) + 1
    return torch.minimum(first[:, None] + torch.arange(size), last[:, None])
