"""The engine below `neighbors`: blocks of unit vectors, products of blocks, and exact cosines of single pairs.

Every cosine that leaves this module is computed in float64 from the vectors as given and rounded to float32 once. So
it does not depend on the block size, the device or the order of the rows, and identical vectors have exactly 1. The
products of whole blocks, where nearly all the time goes, only *screen*: they run in bfloat16 where the processor
multiplies that much faster (AMX, tensor cores), else in float32, and what they let through is everything that could
reach the threshold under a proven bound of their rounding error.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeVar

import numpy as np
import torch

from .backbones.device import resolve_device
from .errors import ConfigError
from .threads import Workers

# On a CPU, a product of this size stays in the cache of its core.
BLOCK_CPU, BLOCK_GPU = 1024, 8192

# A panel of this many blocks stays converted while the columns pass by, which pays for converting the columns.
PANEL_CPU, PANEL_GPU = 16, 32

# Vectors shorter than this have no direction that float32 could hold.
MIN_NORM = 1e-30

# Vectors converted or gathered at a time: few enough to stay in the processor's cache, and next to no memory.
_CHUNK = 256

# Vectors that a worker measures at a time.
_PORTION = 16_384

# Time of one float64 multiply-add in a matrix product against one in a pair gathered from memory.
_GATHER_COST = 150

# Share of a block's pairs from which computing it again in float32 costs less than deciding them one by one.
DENSE = 0.005

_INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}

R = TypeVar("R")


@dataclass(frozen=True)
class Hits:
    """Pairs found in a block: int32 rows and float32 cosines, each ``(p,)``."""

    i: np.ndarray
    j: np.ndarray
    similarity: np.ndarray

    @classmethod
    def joined(cls, parts: list["Hits"]) -> "Hits":
        """All pairs of a list, which may be empty."""
        return cls(
            np.concatenate([np.empty(0, np.int32), *(part.i for part in parts)]),
            np.concatenate([np.empty(0, np.int32), *(part.j for part in parts)]),
            np.concatenate([np.empty(0, np.float32), *(part.similarity for part in parts)]),
        )


class Rows:
    """The caller's vectors, checked and never modified, with access to their unit-length forms.

    Args:
        vectors: ``(n, d)`` float16, float32 or float64 array; may be memory-mapped.
        block: rows of a block; None chooses.
        device: where blocks are multiplied.

    Raises:
        ConfigError: the shape or type is wrong, the device is missing, or rows are zero or not finite (named).
    """

    def __init__(self, vectors: np.ndarray, block: int | None = None, device: str = "auto") -> None:
        if vectors.ndim != 2 or vectors.shape[1] == 0 or vectors.dtype.kind != "f":
            raise ConfigError(
                f"vectors must be an (n, d) array of floating-point numbers, not {vectors.shape} {vectors.dtype}"
            )
        if len(vectors) > np.iinfo(np.int32).max:
            raise ConfigError(f"{len(vectors):,} vectors are too many; row numbers end at 2,147,483,647")
        resolved = resolve_device(device)
        # Apple's GPUs lack float64, in which cosines are decided.
        self.device = torch.device("cpu") if resolved.type == "mps" else resolved
        on_gpu = self.device.type == "cuda"
        self.block = (BLOCK_GPU if on_gpu else BLOCK_CPU) if block is None else block
        if self.block < 1:
            raise ConfigError(f"block={block} must be at least 1; leave it out to let it be chosen")
        self.panel = self.block * (PANEL_GPU if on_gpu else PANEL_CPU)
        self.workers = 1 if on_gpu else torch.get_num_threads()
        self.vectors = vectors
        self.norms = np.concatenate([np.empty(0), *self.measure(lambda s, e: _norms(vectors[s:e]))])
        _reject(np.flatnonzero(~(self.norms >= MIN_NORM) | (self.norms > np.finfo(np.float32).max)))

    def __len__(self) -> int:
        return len(self.vectors)

    def ranges(self, block: int, start: int = 0, stop: int | None = None) -> list[tuple[int, int]]:
        """``(start, stop)`` of the blocks between two rows."""
        end = len(self.vectors) if stop is None else min(stop, len(self.vectors))
        return [(s, min(s + block, end)) for s in range(start, end, block)]

    def measure(self, function: Callable[[int, int], R]) -> list[R]:
        """``function(start, stop)`` of all rows in small chunks, in order."""
        portions = self.ranges(_PORTION)
        with Workers(min(self.workers, len(portions))) as workers:
            results = workers.map(lambda portion: [function(s, e) for s, e in self.ranges(_CHUNK, *portion)], portions)
            return [result for portion in results for result in portion]

    def unit(self, index: slice | np.ndarray) -> np.ndarray:
        """``(m, d)`` float32 unit vectors of the chosen rows; a fresh array."""
        rows = np.array(self.vectors[index], dtype=np.float32)
        rows /= self.norms[index, None].astype(np.float32)
        return rows

    def unit_tensor(self, index: slice | np.ndarray) -> torch.Tensor:
        """The same on the device."""
        return torch.from_numpy(self.unit(index)).to(self.device)

    def double(self, index: np.ndarray) -> np.ndarray:
        """``(m, d)`` float64 vectors of the chosen rows, as given."""
        return np.asarray(self.vectors[index], np.float64)

    def cosines(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """``(p,)`` float32 cosines of pairs of rows, decided in float64."""
        return cosines(self, i, self, j)


def cosines(left: Rows, i: np.ndarray, right: Rows, j: np.ndarray) -> np.ndarray:
    """``(p,)`` float32 cosines of rows ``i`` of one set of vectors with rows ``j`` of another, decided in float64."""
    rows, columns = np.unique(i), np.unique(j)
    if len(rows) * len(columns) <= min(len(i) * _GATHER_COST, max(left.block**2, BLOCK_CPU**2)):
        factors = [torch.from_numpy(part).to(left.device) for part in (left.double(rows), right.double(columns))]
        product = torch.mm(factors[0], factors[1].T).cpu().numpy()
        dots = product[np.searchsorted(rows, i), np.searchsorted(columns, j)]
    else:
        chunks = [slice(s, s + _CHUNK) for s in range(0, len(i), _CHUNK)]
        dots = np.concatenate([np.einsum("nd,nd->n", left.double(i[c]), right.double(j[c])) for c in chunks])
    return np.clip(dots / (left.norms[i] * right.norms[j]), -1.0, 1.0).astype(np.float32)


@dataclass(frozen=True)
class Tile:
    """The screened product of two blocks.

    Attributes:
        product: ``(r, c)`` cosines in the screening format; its memory is used again for the next tile.
        row, column: the rows of the left and right vectors at which the blocks start.
        diagonal: whether pairs of a row with itself, or in either order, lie in the tile.
    """

    product: torch.Tensor
    row: int
    column: int
    diagonal: bool

    @property
    def rows(self) -> slice:
        return slice(self.row, self.row + self.product.shape[0])

    @property
    def columns(self) -> slice:
        return slice(self.column, self.column + self.product.shape[1])


class Screen:
    """Products of blocks of two sets of vectors in a quick number format, and the bound of their error."""

    def __init__(self, left: Rows, right: Rows) -> None:
        self.left, self.right = left, right
        self.dim = left.vectors.shape[1]
        self.dtype = screening_dtype(left.device, self.dim)
        self._rounds = _rounds_inputs(left.device, self.dim)
        self.coarse = self._rounds or self.dtype != torch.float32
        self._residual = 2.0**-8 if self._rounds else 0.0
        if self.dtype != torch.float32:
            self._residual = max(_residual(rows) for rows in ([left] if left is right else [left, right]))

    def sweep(self, work: Callable[[Tile], R], start: int = 0) -> Iterator[tuple[float, list[R]]]:
        """What ``work`` makes of all tiles, in portions, each with the share of work done.

        Of vectors with themselves, only tiles on and above the diagonal are multiplied. Held at any time: two panels
        and, for each worker, a block of vectors and a block of products in the screening format.

        Args:
            work: is called in the threads of several workers.
            start: columns before this row are left out.
        """
        plan = self._plan(start)
        total, done = sum(_cells(*task) for task in plan), 0
        with Workers(min(self.left.workers, len(plan))) as workers:
            tasks = ((panel, task) for panel, task in self._with_panels(plan, workers))
            results = workers.map(lambda item: self._multiply(item[0], *item[1], work), tasks)
            for task, result in zip(plan, results, strict=True):
                done += _cells(*task)
                yield done / total, result

    def fine(self, tile: Tile) -> torch.Tensor:
        """The product of a tile to float32's precision at least."""
        if not self.coarse:
            return tile.product
        factors = self.left.unit_tensor(tile.rows), self.right.unit_tensor(tile.columns).T
        return (factors[0].double() @ factors[1].double()).float() if self._rounds else factors[0] @ factors[1]

    def error(self, cosine: np.ndarray, *, fine: bool = False) -> np.ndarray:
        """How far below its cosine the product of a pair may come out, for pairs of at least ``cosine``.

        With rounded vectors x̂ = x − r: |x·y − x̂·ŷ| ≤ |r||ŷ| + |x̂||s| + |r||s| by Cauchy-Schwarz, |r| being measured.
        To this come d sums in float32 and the rounding of the product to the format.
        """
        residual, dtype = (0.0, torch.float32) if fine else (self._residual, self.dtype)
        sums = self.dim * 2.0**-23 + 1e-6
        rounding = torch.finfo(dtype).eps / 2 * (np.abs(cosine) + 3 * residual)
        return residual * (2.0 + 3.0 * residual) + sums + rounding

    def _plan(self, start: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
        """Panels of rows and the blocks of columns to multiply them with."""
        same = self.left is self.right
        plan = []
        for first, last in self.left.ranges(self.left.panel):
            for s, e in self.right.ranges(self.left.block, max(start, first) if same else start):
                plan.append(((first, min(last, e) if same else last), (s, e)))
        return plan

    def _with_panels(
        self, plan: list[tuple[tuple[int, int], tuple[int, int]]], workers: Workers
    ) -> Iterator[tuple[torch.Tensor, tuple[tuple[int, int], tuple[int, int]]]]:
        held, panel = -1, torch.empty(0)
        for rows, columns in plan:
            if rows[0] != held:
                held = rows[0]
                panel = self._panel(held, workers)
            yield panel, (rows, columns)

    def _panel(self, start: int, workers: Workers) -> torch.Tensor:
        stop = min(start + self.left.panel, len(self.left))
        panel = torch.empty(stop - start, self.dim, dtype=self.dtype, device=self.left.device)

        def fill(part: tuple[int, int]) -> None:
            panel[part[0] - start : part[1] - start] = self._convert(self.left, *part)

        list(workers.map(fill, self.left.ranges(self.left.block, start, stop)))
        return panel

    def _multiply(
        self, panel: torch.Tensor, rows: tuple[int, int], columns: tuple[int, int], work: Callable[[Tile], R]
    ) -> list[R]:
        left, (first, stop), (s, e) = self.left, rows, columns
        right = self._convert(self.right, s, e).T
        memory = torch.empty(min(left.block, stop - first) * (e - s), dtype=self.dtype, device=left.device)
        results = []
        for row, end in left.ranges(left.block, first, stop):
            product = memory[: (end - row) * (e - s)].view(end - row, e - s)
            torch.mm(panel[row - first : end - first], right, out=product)
            results.append(work(Tile(product, row, s, left is self.right and end > s)))
        return results

    def _convert(self, rows: Rows, start: int, stop: int) -> torch.Tensor:
        """The unit vectors of some rows in the screening format."""
        if rows.device.type != "cpu":
            return rows.unit_tensor(slice(start, stop)).to(self.dtype)
        out = torch.empty(stop - start, self.dim, dtype=self.dtype)
        for s, e in rows.ranges(_CHUNK, start, stop):
            out[s - start : e - start] = torch.from_numpy(rows.unit(slice(s, e)))
        return out


def join_hits(left: Rows, right: Rows, threshold: float, *, start: int = 0) -> Iterator[tuple[float, Hits]]:
    """All pairs with a cosine of at least ``threshold``, in portions, each with the share of work done.

    If both are the same object, pairs have ``i < j``.

    Args:
        start: pairs whose ``j`` lies below are left out.
    """
    screen = Screen(left, right)
    for done, parts in screen.sweep(partial(_decide, screen, threshold), start):
        yield done, Hits.joined(parts)


def _decide(screen: Screen, threshold: float, tile: Tile) -> Hits:
    i, j = reaching(tile.product, _limits(screen, threshold, tile))
    if screen.coarse and len(i) > DENSE * tile.product.numel():
        # Very many lie near the threshold, few of them within float32's error.
        i, j = reaching(screen.fine(tile), _limits(screen, threshold, tile, fine=True))
    i, j = i + tile.row, j + tile.column
    if tile.diagonal:
        i, j = i[i < j], j[i < j]
    similarity = cosines(screen.left, i, screen.right, j) if len(i) else np.empty(0, np.float32)
    keep = similarity >= np.float32(threshold)
    return Hits(i[keep].astype(np.int32), j[keep].astype(np.int32), similarity[keep])


def _limits(screen: Screen, threshold: float, tile: Tile, *, fine: bool = False) -> np.ndarray:
    limits = np.full(tile.product.shape[0], threshold)
    return limits - screen.error(limits, fine=fine)


def reaching(product: torch.Tensor, limits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the rows of a ``(r, c)`` product reach their limit, at least: two int64 arrays of positions.

    Args:
        limits: ``(r,)`` float64; rounded down to the format of the product.
    """
    least = np.nextafter(limits.astype(np.float32), np.float32(-np.inf))
    if product.device.type != "cpu" or not least.min(initial=1.0) > 0:
        i, j = torch.nonzero(product >= torch.from_numpy(least).to(product.device)[:, None], as_tuple=True)
        return i.cpu().numpy(), j.cpu().numpy()
    # Positive floats are ordered as the integers of their bits, which numpy compares many times faster. The upper
    # half of a float32's bits is that number in bfloat16, rounded down.
    bits = product.view(_INTEGERS[product.dtype]).numpy()
    whole = least.view(np.int32)
    floor = whole if product.dtype == torch.float32 else (whole >> 16).astype(np.int16)
    rows = np.flatnonzero(bits.max(axis=1) >= floor)
    flat = np.flatnonzero(bits[rows] >= floor[rows, None])
    return rows[flat // bits.shape[1]], flat % bits.shape[1]


def _cells(rows: tuple[int, int], columns: tuple[int, int]) -> int:
    return (rows[1] - rows[0]) * (columns[1] - columns[0])


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


def _residual(rows: Rows) -> float:
    """The largest length of what rounding to bfloat16 takes off a unit vector."""

    def worst(start: int, stop: int) -> float:
        unit = torch.from_numpy(rows.unit(slice(start, stop)))
        return float((unit - unit.bfloat16().float()).square().sum(dim=1).max())

    return max(rows.measure(worst), default=0.0) ** 0.5 + 1e-6


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
