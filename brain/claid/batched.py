"""The detector for many images at once, in torch, on any device: all nodes of a level of all images together."""

import numpy as np
import torch

from ..errors import ConfigError, ImageError
from .affinity import count_links
from .batched_bisect import Splits, bisect_nodes
from .batched_components import Parts, split_components
from .batched_gram import describe_images, high_energy
from .batched_nodes import Nodes, gather_nodes
from .hierarchy import Hierarchy, HierarchyBuilder, detect
from .options import DetectorOptions

# Bytes on the CPU, and the share of what is free on a GPU, that may be used.
_CPU_BYTES, _GPU_SHARE = 2**30, 0.7

# Some kernels of torch count in 32 bits.
_MOST_NUMBERS = 2**31 - 1


@torch.no_grad()
def detect_batched(features: torch.Tensor, options: DetectorOptions) -> list[Hierarchy]:
    """Finds the regions of several images, on the device of their tokens.

    The regions of an image do not depend on the others, and are those that :func:`.hierarchy.detect` finds. As many
    images at once as fit into memory: a Gram matrix of 3,600 patches takes 52 MB.

    Args:
        features: ``(B, h, w, C)`` tokens, as they leave the encoder's final norm. float64 is computed with as it is,
            other types as float32, without TF32. Images that do not fit into the memory of a GPU go to the CPU.
        options: of the detector; ``order`` is ``"hash"`` or ``"raster"``, ``cut`` is ``"ksums"``.

    Raises:
        ConfigError: ``features`` has another shape, or the options ask for what only the CPU engines have.
        ImageError: a token is not finite.
    """
    if features.ndim != 4:
        raise ConfigError(f"features has shape {tuple(features.shape)}; it must be (B, h, w, C)")
    if options.order == "pyrandom":
        raise ConfigError("order='pyrandom' goes from node to node; use order='hash', or engine='compiled'")
    if options.cut != "ksums":
        raise ConfigError(f"cut={options.cut!r} is not batched; use cut='ksums', or engine='compiled'")
    at_once = images_at_once(features)
    if not at_once:
        return [detect(one, options) for one in features]
    found: list[Hierarchy] = []
    for part in features.split(at_once):
        found += _detect(part, options, len(found))
    return found


def images_at_once(features: torch.Tensor) -> int:
    """How many of the images fit into memory together; 0 if not even one does."""
    images, height, width, channels = features.shape
    n, itemsize = height * width, 8 if features.dtype == torch.float64 else 4
    # Gram matrix and links, guesses of a step, and tokens.
    needed = n * n * (itemsize + 1) + n * 4096 + n * channels * itemsize
    if features.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(features.device)
        budget = int(free * _GPU_SHARE)
    else:
        budget = max(_CPU_BYTES, needed)
    return min(max(images, 1), budget // max(needed, 1), _MOST_NUMBERS // max(n * n, 1))


def _detect(features: torch.Tensor, options: DetectorOptions, number: int) -> list[Hierarchy]:
    """The regions of images that fit into memory; ``number`` is that of the first one, for messages."""
    count, height, width, channels = features.shape
    images = describe_images(features.reshape(count, height * width, channels), options)
    finite = images.energies.isfinite().all(1).cpu()
    if not finite.all():
        broken = number + int(finite.int().argmin())
        raise ImageError(f"tokens of image {broken} are not finite; the image or the model is broken")
    small = height * width < options.min_patches
    energetic = np.zeros((count, 0), bool) if small else high_energy(images.energies, options).cpu().numpy()
    builders = [HierarchyBuilder((height, width), one, options) for one in energetic]
    if small or not count:
        return [builder.build() for builder in builders]

    everything = torch.arange(count, device=features.device)
    sizes = np.full(count, height * width)
    nodes = gather_nodes(images.links, everything[:, None].repeat(1, height * width), everything, sizes)
    rows = np.full(count, -1)
    while len(nodes.sizes):
        splits = bisect_nodes(images, nodes, options)
        parts = split_components(nodes, splits.labels, count, (height, width), options.min_patches)
        if len(parts.sizes):
            children = gather_nodes(images.links, parts.owner, parts.image, parts.sizes)
        else:
            children = nodes.take(np.zeros(0, np.int64))
        child_rows, expanded = _record(builders, nodes, rows, splits, parts, children)
        chosen = np.flatnonzero(expanded)
        nodes, rows = children.take(chosen), child_rows[chosen]
    return [builder.build() for builder in builders]


def _record(
    builders: list[HierarchyBuilder], nodes: Nodes, rows: np.ndarray, splits: Splits, parts: Parts, children: Nodes
) -> tuple[np.ndarray, np.ndarray]:
    """Adds one level to the hierarchies, in their order; returns the rows of the parts, and which to bisect further."""
    image, labels, seeds, epochs, moves = _on_host(
        nodes.image, splits.labels, splits.seeds, splits.epochs, splits.moves
    )
    patches, degree = _on_host(children.patches, children.degree)
    links = [count_links(one) for one in degree]
    child_rows, expanded = np.zeros(len(links), np.int64), np.zeros(len(links), bool)
    parts_of: list[list[int]] = [[] for _ in rows]
    for part in np.lexsort((parts.first, parts.side)):
        parts_of[parts.node[part]].append(part)
    for node in np.argsort(rows, kind="stable"):
        builder, low_high = builders[image[node]], (int(seeds[node, 0]), int(seeds[node, 1]))
        builder.add_cut(
            int(rows[node]), labels[node, : nodes.sizes[node]], low_high, int(epochs[node]), int(moves[node])
        )
        for part in parts_of[node]:
            inside = patches[part, : parts.sizes[part]]
            child_rows[part], expanded[part] = builder.add_region(
                int(rows[node]), int(parts.side[part]), inside, links[part]
            )
    return child_rows, expanded


def _on_host(*arrays: torch.Tensor) -> list[np.ndarray]:
    return [array.cpu().numpy() for array in arrays]
