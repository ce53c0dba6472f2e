"""What the batched detector computes once per image: Gram matrices in full precision, links as bits, and energies."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from .affinity import LEAST_NORM
from .options import DetectorOptions

# Rows of a Gram matrix are computed in this many blocks.
_GRAM_BLOCKS = 4


@dataclass(frozen=True)
class Images:
    """The images of a batch.

    Attributes:
        unit: ``(B, n, C)`` tokens of unit length; see :func:`.affinity.unit_rows`.
        lengths: ``(B, n)`` float64 squared lengths of these.
        gram: ``(B, n, n)`` products of all pairs.
        links: ``(B, n, ceil(n / 64))`` int64, rows of links as bits: bit k of word w is patch 64 w + k.
        energies: ``(B, n)`` float64 L1 norms of the tokens as they came, not finite where a token is not.
    """

    unit: torch.Tensor
    lengths: torch.Tensor
    gram: torch.Tensor
    links: torch.Tensor
    energies: torch.Tensor


def describe_images(features: torch.Tensor, options: DetectorOptions) -> Images:
    """All of this for a batch.

    Every image is worked on by itself: what a matrix product rounds to depends on the shape of the whole product, so
    that a product for a batch would make the regions of an image depend on its neighbours.

    Args:
        features: ``(B, n, C)`` tokens; float64 stays so, all else becomes float32.
        options: ``alpha`` is used.
    """
    images, n, _ = features.shape
    unit = features.to(torch.float64 if features.dtype == torch.float64 else torch.float32, copy=True)
    lengths, energies = (features.new_empty((images, n), dtype=torch.float64) for _ in range(2))
    gram = unit.new_empty((images, n, n))
    links = features.new_empty((images, n, -(-n // 64)), dtype=torch.int64)
    with full_precision(), torch.autocast(features.device.type, enabled=False):
        for one in range(images):
            tokens = unit[one]
            energies[one] = tokens.abs().sum(1, dtype=torch.float64)
            norms = tokens.double().square().sum(1, keepdim=True).sqrt().clamp(min=LEAST_NORM)
            tokens /= norms.to(tokens.dtype)
            lengths[one] = tokens.double().square().sum(1)
            _fill_gram(tokens, gram[one])
            links[one] = pack_bits(gram[one] > options.alpha)
    return Images(unit, lengths, gram, links, energies)


def _fill_gram(unit: torch.Tensor, gram: torch.Tensor) -> None:
    """Products of all rows with all rows, in blocks, so that most of what is above the diagonal is only copied."""
    step = -(-len(unit) // _GRAM_BLOCKS)
    for top in range(0, len(unit), step):
        rows, known = slice(top, top + step), slice(0, top)
        torch.mm(unit[rows], unit[: top + step].T, out=gram[rows, : top + step])
        gram[known, rows] = gram[rows, known].T


def high_energy(energies: torch.Tensor, options: DetectorOptions) -> torch.Tensor:
    """``(B, n)`` bool: the patches of the top ``theta`` of their images, and ties; see :func:`.affinity.energy_set`."""
    threshold = energies.kthvalue(options.rank(energies.shape[1]) + 1, dim=1, keepdim=True).values
    return energies >= threshold


def pack_bits(marks: torch.Tensor) -> torch.Tensor:
    """``(..., n)`` bool to ``(..., ceil(n / 64))`` int64; bit k of word w is element 64 w + k."""
    n = marks.shape[-1]
    octets = marks.new_zeros((*marks.shape[:-1], -(-n // 64) * 64))
    octets[..., :n] = marks
    # Eight bytes of 0 or 1, read as one number: the product collects their bits in its highest byte.
    packed = (octets.view(torch.int64) * _COLLECT) >> 56
    return packed.to(torch.uint8).view(torch.int64)


def count_bits(words: torch.Tensor) -> torch.Tensor:
    """``(..., W)`` int64 to ``(...)`` int64: ones in all words of a row."""
    # Sums of neighbouring fields of 1, 2 and 4 bits, then of all bytes, in the highest one.
    words = words - ((words >> 1) & _ODD_BITS)
    words = (words & _ODD_PAIRS) + ((words >> 2) & _ODD_PAIRS)
    words = (words + (words >> 4)) & _LOW_NIBBLES
    return ((words * _EVERY_BYTE) >> 56).sum(-1)


_COLLECT = 0x0102040810204080
_ODD_BITS = 0x5555555555555555
_ODD_PAIRS = 0x3333333333333333
_LOW_NIBBLES = 0x0F0F0F0F0F0F0F0F
_EVERY_BYTE = 0x0101010101010101


@contextmanager
def full_precision() -> Iterator[None]:
    """Matrix products of float32 within are ones of float32: no TF32 and no bfloat16, whatever the caller allows.

    With TF32, half of all trees come out different.
    """
    all_backends: Any = torch.backends
    backends = [all_backends.cuda.matmul, all_backends.mkldnn.matmul] if _HAS_SETTINGS else []
    before = [backend.fp32_precision for backend in backends]
    overall = None if _HAS_SETTINGS else torch.get_float32_matmul_precision()
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        if overall is not None:
            torch.set_float32_matmul_precision("highest")
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
        if overall is not None:
            torch.set_float32_matmul_precision(overall)


# Newer versions of torch have a setting per backend, and refuse to tell the older one where both have been used.
_HAS_SETTINGS = hasattr(torch.backends.cuda.matmul, "fp32_precision")
