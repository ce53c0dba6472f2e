"""CLAID: the hierarchy of regions of an image, found by bisecting its patches again and again.

Source: "Class Agnostic Instance-level Descriptor for Instance Search" (arXiv:2506.16745), section III. The patches of
an image are bisected by k-sums; both halves fall into connected components, each a region; and a region that is
loosely linked is bisected in turn.
"""

from collections import deque
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np
import torch

from ..errors import ConfigError, ImageError
from .affinity import count_links, energy_set, initial_labels, pick_seeds, unpack_links
from .bisect import Split
from .components import connectivity
from .options import PRESETS, DetectorOptions
from .orders import Orders
from .similarity import Kernels, Similarity, array_kernels, compiled_kernels, similarity_of

EngineName = Literal["auto", "compiled", "numpy", "torch"]


@dataclass(frozen=True)
class Hierarchy:
    """All R regions of an image, emitted or not, breadth-first: parents in order, side 0 before side 1, then by the
    first patch in raster order; and the K bisections that they come from.

    Attributes:
        grid_hw: height and width of the patch grid.
        masks: ``(R, h, w)`` bool.
        level: ``(R,)`` int32; 1 for the parts of the whole image, which is no region itself.
        parent: ``(R,)`` int32 row of the parent; -1 for the whole image.
        side: ``(R,)`` int32 cluster of the parent's bisection, 0 or 1.
        size: ``(R,)`` int32 patches.
        hits: ``(R,)`` int32 high-energy patches.
        connect: ``(R,)`` float64 connectivity as the program has it; see :func:`.components.connectivity`.
        cbar: ``(R,)`` float64 connectivity as the paper has it.
        emitted: ``(R,)`` bool: enough high-energy patches to be something; the other regions are dummies.
        expanded: ``(R,)`` bool: bisected further.
        cuts: ``(K, 8)`` int32 per bisection: row of the region (-1: whole image), its size, the sizes of cluster 0 and
            1, the seeds of lowest and highest degree (patches; -1 for normalised cuts), epochs, moves.
    """

    grid_hw: tuple[int, int]
    masks: np.ndarray
    level: np.ndarray
    parent: np.ndarray
    side: np.ndarray
    size: np.ndarray
    hits: np.ndarray
    connect: np.ndarray
    cbar: np.ndarray
    emitted: np.ndarray
    expanded: np.ndarray
    cuts: np.ndarray

    def __len__(self) -> int:
        return len(self.level)


class HierarchyBuilder:
    """Collects regions and bisections, in breadth-first order, and says which regions to bisect further.

    Args:
        grid_hw: height and width of the patch grid.
        high_energy: ``(n,)`` bool high-energy patches.
        options: of the detector.
    """

    def __init__(self, grid_hw: tuple[int, int], high_energy: np.ndarray, options: DetectorOptions) -> None:
        self._grid_hw = grid_hw
        self._high_energy = high_energy
        self._options = options
        self._patches: list[np.ndarray] = []
        self._levels: list[int] = []
        self._rows: list[tuple[float, ...]] = []
        self._cuts: list[tuple[int, ...]] = []

    def add_region(self, parent: int, side: int, patches: np.ndarray, links: int) -> tuple[int, bool]:
        """Adds a region.

        Args:
            parent: row of the parent; -1 for the whole image.
            side: cluster of the parent's bisection that the region is a component of.
            patches: ``(m,)`` int raster indices.
            links: ordered pairs of two different patches of the region that are linked.

        Returns:
            its row, and whether it is to be bisected.
        """
        size = len(patches)
        level = 1 if parent < 0 else self._levels[parent] + 1
        hits = int(np.count_nonzero(self._high_energy[patches]))
        expanded = self._options.expands(links, size)
        emitted = self._options.emits(hits, size)
        self._patches.append(patches)
        self._levels.append(level)
        self._rows.append((level, parent, side, size, hits, *connectivity(links, size), emitted, expanded))
        return len(self._rows) - 1, expanded

    def add_cut(self, row: int, labels: np.ndarray, seeds: tuple[int, int], epochs: int, moves: int) -> None:
        """Adds a bisection of the region of a row (-1: whole image), whose ``labels`` are ``(m,)`` 0 or 1."""
        ones = int(np.count_nonzero(labels))
        self._cuts.append((row, len(labels), len(labels) - ones, ones, *seeds, epochs, moves))

    def build(self) -> Hierarchy:
        """The hierarchy of all that was added."""
        masks = np.zeros((len(self._rows), self._grid_hw[0] * self._grid_hw[1]), bool)
        for mask, patches in zip(masks, self._patches, strict=True):
            mask[patches] = True
        columns = np.array(self._rows, np.float64).reshape(-1, len(_COLUMNS)).T
        table = {name: column.astype(kind) for (name, kind), column in zip(_COLUMNS.items(), columns, strict=True)}
        cuts = np.array(self._cuts, np.int32).reshape(-1, 8)
        return Hierarchy(self._grid_hw, masks.reshape(-1, *self._grid_hw), **table, cuts=cuts)


_FLOATS, _BOOLS = ("connect", "cbar"), ("emitted", "expanded")
_COLUMNS = {
    field.name: np.float64 if field.name in _FLOATS else np.bool_ if field.name in _BOOLS else np.int32
    for field in fields(Hierarchy)
    if field.name not in ("grid_hw", "masks", "cuts")
}


def detect(features: np.ndarray | torch.Tensor, options: DetectorOptions = PRESETS["default"]) -> Hierarchy:
    """Finds the regions of one image on the CPU.

    Args:
        features: ``(h, w, C)`` tokens, as they leave the encoder's final norm. float64 is computed with as it is,
            other types as float32. More than 10,000 patches are processed without a Gram matrix: slower, but within
            memory.
        options: of the detector.

    Raises:
        ConfigError: ``features`` has another shape.
        ImageError: a token is not finite.
    """
    if features.ndim != 3:
        raise ConfigError(f"features has shape {tuple(features.shape)}; it must be (h, w, C)")
    return _detect(_as_array(features), options, _kernels("auto"))


def detect_batch(
    features: torch.Tensor | np.ndarray,
    options: DetectorOptions = PRESETS["default"],
    *,
    engine: EngineName = "auto",
) -> list[Hierarchy]:
    """Finds the regions of several images; each result is what :func:`detect` returns for the image alone.

    Args:
        features: ``(B, h, w, C)`` tokens.
        options: of the detector.
        engine: ``"compiled"`` (numba) and ``"numpy"`` work on the CPU, image by image; ``"torch"`` works on the device
            of the tokens, all images at once. ``"auto"`` takes ``"torch"`` for tokens on a GPU, else ``"compiled"``
            where numba is installed, else ``"numpy"``.

    Raises:
        ConfigError: ``features`` has another shape, or the engine is unknown, not installed, or cannot do what the
            options ask for.
        ImageError: a token is not finite.
    """
    if features.ndim != 4:
        raise ConfigError(f"features has shape {tuple(features.shape)}; it must be (B, h, w, C)")
    if engine not in get_args(EngineName):
        raise ConfigError(f"engine={engine!r} is unknown; use one of {', '.join(get_args(EngineName))}")
    batchable = options.order != "pyrandom" and options.cut == "ksums"
    if engine == "torch" and not batchable:
        raise ConfigError(
            f"engine='torch' has no order={options.order!r} with cut={options.cut!r}; use order='hash' and "
            "cut='ksums' with it, or engine='auto'"
        )
    on_gpu = isinstance(features, torch.Tensor) and features.is_cuda
    if engine == "torch" or (engine == "auto" and batchable and on_gpu):
        from .batched import detect_batched

        return detect_batched(torch.as_tensor(features), options)
    kernels = _kernels(engine)
    return [_detect(_as_array(one), options, kernels, f"tokens of image {i}") for i, one in enumerate(features)]


def _kernels(engine: EngineName) -> Kernels:
    """The loops of an engine that works on the CPU."""
    if engine == "numpy":
        return array_kernels()
    try:
        return compiled_kernels()
    except ImportError as error:
        if engine == "auto":
            return array_kernels()
        raise ConfigError(f"engine='compiled' needs numba ({error}); install it, or use engine='numpy'") from error


def _as_array(features: np.ndarray | torch.Tensor) -> np.ndarray:
    """The tokens on the CPU, float64 if they are, else float32."""
    if isinstance(features, torch.Tensor):
        kind = torch.float64 if features.dtype == torch.float64 else torch.float32
        features = features.detach().to("cpu", kind).numpy()
    return np.ascontiguousarray(features, np.float64 if features.dtype == np.float64 else np.float32)


def _detect(features: np.ndarray, options: DetectorOptions, kernels: Kernels, name: str = "tokens") -> Hierarchy:
    """The whole algorithm, on one image: from the queue of sets to be bisected to the regions."""
    height, width, channels = features.shape
    unit, lengths, energies = kernels.unit_rows(features.reshape(-1, channels))
    if not np.isfinite(energies).all():
        raise ImageError(f"{name} are not finite; the image or the model is broken")
    n = len(unit)
    builder = HierarchyBuilder((height, width), energy_set(energies, options), options)
    if n < options.min_patches:
        return builder.build()
    similarity = similarity_of(unit, lengths, options, kernels)
    orders = Orders(n, options)
    everything = np.arange(n)
    queue = deque([(-1, everything, kernels.degrees(similarity.links, everything))])
    while queue:
        row, patches, degree = queue.popleft()
        seeds, split = _split(similarity, patches, degree, orders, options)
        builder.add_cut(row, split.labels, seeds, split.epochs, split.moves)
        if split.labels.all() or not split.labels.any():
            continue
        for side in (0, 1):
            for part in kernels.components(patches[split.labels == side], (height, width), options.min_patches):
                degree = kernels.degrees(similarity.links, part)
                child, expanded = builder.add_region(row, side, part, count_links(degree))
                if expanded:
                    queue.append((child, part, degree))
    return builder.build()


def _split(
    similarity: Similarity, patches: np.ndarray, degree: np.ndarray, orders: Orders, options: DetectorOptions
) -> tuple[tuple[int, int], Split]:
    """Bisects one set of patches; returns the seeds, as patches, and how it ended."""
    n = len(similarity.links)
    if options.cut == "ncut":
        from .ncut import ncut_bisect

        linked = unpack_links(similarity.links[patches], n)[:, patches]
        return (-1, -1), Split(ncut_bisect(linked), 0, 0)
    low, high = (int(patches[position]) for position in pick_seeds(degree))
    if options.init == "affinity":
        low_row, high_row = unpack_links(similarity.links[[low, high]], n)[:, patches]
    else:
        low_row, high_row = (similarity.cosines(seed, patches) for seed in (low, high))
    signs = np.zeros(n)
    signs[patches] = 1.0 - 2.0 * initial_labels(low_row, high_row, options.init)
    epochs, moves = similarity.bisect(signs, orders.of_node(patches))
    return (low, high), Split((signs[patches] < 0).astype(np.uint8), epochs, moves)
