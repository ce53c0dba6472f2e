"""The engine below `neighbors`: blocks of unit vectors, products of blocks, and exact cosines of single pairs.

Every cosine that leaves this module is computed in float64 from the vectors as given and rounded to float32 once. So
it does not depend on the block size, the device or the order of the rows, and identical vectors have exactly 1. The
products of whole blocks, where nearly all the time goes, only *screen*: they run in bfloat16 where the processor
multiplies that much faster (AMX, tensor cores), else in float32, and what they let through is everything that could
reach the threshold under a proven bound of their rounding error.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch

from .backbones.device import resolve_device
from .errors import ConfigError

BLOCK_CPU, BLOCK_GPU = 2048, 8192

# A panel of this many blocks stays converted while the columns pass by, which pays for converting the columns.
PANEL_BLOCKS = 8

# Vectors shorter than this have no direction that float32 could hold.
MIN_NORM = 1e-30

# Vectors converted or gathered at a time: few enough to stay in the processor's cache, and next to no memory.
_CHUNK = 256

# Time of one float64 multiply-add in a matrix product against one in a pair gathered from memory.
_GATHER_COST = 150

# Share of a block's pairs from which screening it again in float32 costs less than deciding them one by one.
_DENSE = 0.001

_INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}


@dataclass(frozen=True)
class Hits:
    """Pairs found in a block: int32 rows and float32 cosines, each ``(p,)``."""

    i: np.ndarray
    j: np.ndarray
    similarity: np.ndarray


class Rows:
    """The caller's vectors, checked and never modified, with access to their unit-length forms.

    Args:
        vectors: ``(n, d)`` float16, float32 or float64 array; may be memory-mapped.
        block: rows of a block; None chooses.
        device: where blocks are multiplied.

    Raises:
        ConfigError: the shape or type is wrong, the device is missing, or rows are zero or not finite (named).
    """

    def __init__(self, vectors: np.ndarray, block: int | None, device: str) -> None:
        if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind != "f":
            raise ConfigError(
                f"vectors must be an (n, d) array of floating-point numbers, not {vectors.shape} {vectors.dtype}"
            )
        if len(vectors) > np.iinfo(np.int32).max:
            raise ConfigError(f"{len(vectors):,} vectors are too many; row numbers end at 2,147,483,647")
        resolved = resolve_device(device)
        # Apple's GPUs lack float64, in which cosines are decided.
        self.device = torch.device("cpu") if resolved.type == "mps" else resolved
        self.block = (BLOCK_GPU if self.device.type == "cuda" else BLOCK_CPU) if block is None else block
        if self.block < 1:
            raise ConfigError(f"block={block} must be at least 1; leave it out to let it be chosen")
        self.vectors = vectors
        self.norms = np.concatenate([np.empty(0), *(_norms(vectors[s:e]) for s, e in self.ranges(_CHUNK))])
        _reject(np.flatnonzero(~(self.norms >= MIN_NORM) | (self.norms > np.finfo(np.float32).max)))

    def __len__(self) -> int:
        return len(self.vectors)

    def ranges(self, block: int, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """``(start, stop)`` of the blocks between two rows."""
        end = len(self.vectors) if stop is None else min(stop, len(self.vectors))
        return [(s, min(s + block, end)) for s in range(start, end, block)]

    def unit(self, index: slice | np.ndarray) -> np.ndarray:
        """``(m, d)`` float32 unit vectors of the chosen rows; a fresh array."""
        rows = np.array(self.vectors[index], dtype=np.float32)
        rows /= self.norms[index, None].astype(np.float32)
        return rows

    def unit_tensor(self, index: slice | np.ndarray) -> torch.Tensor:
        """The same on the device."""
        return torch.from_numpy(self.unit(index)).to(self.device)

    def cosines(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """``(p,)`` float32 cosines of pairs of rows, decided in float64."""
        rows, columns = np.unique(i), np.unique(j)
        if len(rows) * len(columns) <= min(len(i) * _GATHER_COST, self.block**2):
            factors = (torch.from_numpy(self._double(index)).to(self.device) for index in (rows, columns))
            product = torch.mm(next(factors), next(factors).T).cpu().numpy()
            dots = product[np.searchsorted(rows, i), np.searchsorted(columns, j)]
        else:
            dots = np.concatenate([self._dots(i[s : s + _CHUNK], j[s : s + _CHUNK]) for s in range(0, len(i), _CHUNK)])
        return np.clip(dots / (self.norms[i] * self.norms[j]), -1.0, 1.0).astype(np.float32)

    def _dots(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return np.einsum("nd,nd->n", self._double(i), self._double(j))

    def _double(self, index: np.ndarray) -> np.ndarray:
        return np.asarray(self.vectors[index], np.float64)


def radius_hits(rows: Rows, threshold: float) -> Iterator[tuple[float, Hits]]:
    """All pairs ``i < j`` with a cosine of at least ``threshold``, block by block, each with the share of work done.

    Only blocks on and above the diagonal are multiplied. Held at any time: a panel and a block of vectors in the
    screening format, one block of products, and the pairs of one block.
    """
    screen = _Screen(rows, threshold)
    done = 0.0
    for start, stop in rows.ranges(rows.block * PANEL_BLOCKS):
        panel = screen.convert(start, stop, screen.panel)
        blocks = [(s, panel[s - start : e - start]) for s, e in rows.ranges(rows.block, start, stop)]
        for s, e in rows.ranges(rows.block, start):
            columns = screen.convert(s, e, screen.columns) if s >= stop else panel[s - start : e - start]
            for row_start, block in blocks:
                if row_start > s:
                    break
                i, j = screen.candidates(block, columns)
                if screen.coarse and len(i) > _DENSE * len(block) * len(columns):
                    i, j = screen.fine_candidates(slice(row_start, row_start + len(block)), slice(s, e))
                share = len(block) * len(columns) / len(rows) ** 2
                if row_start == s:
                    i, j = i[i < j], j[i < j]
                done += share if row_start == s else 2 * share
                yield min(done, 1.0), _decide(rows, i + row_start, j + s, threshold)


def _decide(rows: Rows, i: np.ndarray, j: np.ndarray, threshold: float) -> Hits:
    similarity = rows.cosines(i, j) if len(i) else np.empty(0, np.float32)
    keep = similarity >= np.float32(threshold)
    return Hits(i[keep].astype(np.int32), j[keep].astype(np.int32), similarity[keep])


class _Screen:
    """Products of blocks in a quick number format, cut at a limit that no pair of interest can fall below."""

    def __init__(self, rows: Rows, threshold: float) -> None:
        self.rows = rows
        self.dtype = screening_dtype(rows.device, rows.vectors.shape[1])
        self.coarse = self.dtype != torch.float32
        self.threshold = threshold
        self.limit = threshold - self._error(self.dtype)
        block, (n, d) = min(rows.block, len(rows)), rows.vectors.shape
        self.panel = torch.empty(min(block * PANEL_BLOCKS, n), d, dtype=self.dtype, device=rows.device)
        self.columns = torch.empty(block, d, dtype=self.dtype, device=rows.device)
        self._product = torch.empty(block * block, dtype=self.dtype, device=rows.device)

    def convert(self, start: int, stop: int, out: torch.Tensor) -> torch.Tensor:
        """The unit vectors of some rows in the screening format, written to the head of ``out``."""
        if out.device.type != "cpu":
            out[: stop - start] = self.rows.unit_tensor(slice(start, stop))
            return out[: stop - start]
        # In numpy and in pieces: PyTorch would wake all its threads for each piece, which on a busy machine takes
        # longer than the work.
        target = out.view(_INTEGERS[self.dtype]).numpy()
        for s, e in self.rows.ranges(_CHUNK, start, stop):
            unit = self.rows.unit(slice(s, e))
            target[s - start : e - start] = unit.view(np.int32) if self.dtype == torch.float32 else _bfloat16(unit)
        return out[: stop - start]

    def candidates(self, block: torch.Tensor, columns: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Positions in the two blocks of the pairs that may reach the threshold: two int64 arrays."""
        shape = len(block), len(columns)
        product = torch.mm(block, columns.T, out=self._product[: shape[0] * shape[1]].view(shape))
        return _at_least(product, self.limit)

    def fine_candidates(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """The same in float32: where very many pairs lie near the threshold, few of them within float32's error."""
        product = self.rows.unit_tensor(rows) @ self.rows.unit_tensor(columns).T
        return _at_least(product, self.threshold - self._error(torch.float32))

    def _error(self, dtype: torch.dtype) -> float:
        """Bound of |screened − exact| near the threshold.

        With rounded vectors x̂ = x − r: |x·y − x̂·ŷ| ≤ |r||ŷ| + |x̂||s| + |r||s| by Cauchy-Schwarz, |r| being measured.
        To this come d sums in float32 and the rounding of the product to the format.
        """
        residual = self._residual if dtype != torch.float32 else self._float32_residual
        sums = self.rows.vectors.shape[1] * 2.0**-23 + 1e-6
        rounding = torch.finfo(dtype).eps / 2 * (abs(self.threshold) + 3 * residual)
        return residual * (2.0 + 3.0 * residual) + sums + rounding

    @cached_property
    def _residual(self) -> float:
        worst = 0.0
        for start, stop in self.rows.ranges(_CHUNK):
            unit = self.rows.unit(slice(start, stop))
            unit -= (_bfloat16(unit).astype(np.int32) << 16).view(np.float32)
            worst = max(worst, float(np.einsum("nd,nd->n", unit, unit).max()))
        return worst**0.5 + 1e-6

    @cached_property
    def _float32_residual(self) -> float:
        return 2.0**-8 if _rounds_inputs(self.rows.device, self.rows.vectors.shape[1]) else 0.0


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of finite float32 values rounded to bfloat16 (to nearest, ties to even), as int16."""
    bits = values.view(np.uint32)
    return ((bits + ((bits >> 16) & 1) + 0x7FFF) >> 16).astype(np.uint16).view(np.int16)


def _at_least(product: torch.Tensor, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Where a ``(r, c)`` product reaches a limit: two int64 arrays."""
    rounded = torch.tensor(limit, dtype=product.dtype)
    if float(rounded) > limit:
        rounded = torch.nextafter(rounded, torch.tensor(-2.0, dtype=product.dtype))
    if product.device.type != "cpu" or rounded <= 0:
        i, j = torch.nonzero(product >= rounded.to(product.device), as_tuple=True)
        return i.cpu().numpy(), j.cpu().numpy()
    # Positive floats are ordered as the integers of their bits, which numpy compares many times faster.
    bits = product.view(_INTEGERS[product.dtype]).numpy()
    least = rounded.view(_INTEGERS[product.dtype]).item()
    rows = np.flatnonzero(bits.max(axis=1) >= least)
    flat = np.flatnonzero(bits[rows] >= least)
    return rows[flat // bits.shape[1]], flat % bits.shape[1]


@lru_cache(maxsize=8)
def screening_dtype(device: torch.device, dim: int) -> torch.dtype:
    """The number format that multiplies blocks faster here: timed once, because no flag tells it across vendors.

    The choice changes how long a search takes, never what it finds. On CUDA it is float32: fast enough there, while
    bfloat16 products may be summed in bfloat16, for which no bound holds.
    """
    if device.type == "cuda":
        return torch.float32
    seconds = {dtype: _product_seconds(device, dim, dtype) for dtype in (torch.float32, torch.bfloat16)}
    return min(seconds, key=lambda dtype: seconds[dtype])


def _product_seconds(device: torch.device, dim: int, dtype: torch.dtype) -> float:
    try:
        block = torch.ones(512, dim, dtype=dtype, device=device)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            (block @ block.T)[0, 0].item()
            times.append(time.perf_counter() - start)
    except RuntimeError:  # the build lacks this product
        return float("inf")
    return min(times)


def _rounds_inputs(device: torch.device, dim: int) -> bool:
    """Whether float32 products are secretly made of TF32 or bfloat16 numbers, as PyTorch's global switches allow."""
    block = torch.full((512, dim), 1.0 + 2.0**-12, device=device)
    return float((block @ block.T)[0, 0]) < dim * (1.0 + 2.0**-12)


def _norms(vectors: np.ndarray) -> np.ndarray:
    rows = vectors.astype(np.float64)
    return np.sqrt(np.einsum("nd,nd->n", rows, rows))


def _reject(bad: np.ndarray) -> None:
    if len(bad):
        names = ", ".join(map(str, bad[:10])) + (", ..." if len(bad) > 10 else "")
        raise ConfigError(
            f"vectors of {len(bad):,} rows are zero or not finite and have no direction (rows {names});"
            " leave them out or compute them again"
        )
