"""8-connected components of many labelled grids at once, by handing the least index from neighbour to neighbour."""

from typing import NamedTuple

import numpy as np
import torch

from .batched_nodes import Nodes

# Rounds between two questions to the device whether anything still changes.
_ROUNDS = 4


class Parts(NamedTuple):
    """The components that bisected nodes fall into, R of them, the largest first.

    Attributes:
        owner: ``(B, n)`` int64 component of a patch, R for none; on the device, and so is the next one.
        image: ``(R,)`` int64 image of a component.
        sizes: ``(R,)`` int64 patches, on the host, and so are the others.
        node: ``(R,)`` int64 node.
        side: ``(R,)`` int64 cluster, 0 or 1.
        first: ``(R,)`` int64 first patch in raster order.
    """

    owner: torch.Tensor
    image: torch.Tensor
    sizes: np.ndarray
    node: np.ndarray
    side: np.ndarray
    first: np.ndarray


def split_components(
    nodes: Nodes, labels: torch.Tensor, images: int, grid_hw: tuple[int, int], min_patches: int
) -> Parts:
    """8-connected components of both clusters of every node, without those of fewer than ``min_patches`` patches.

    A node whose patches all have label 0 has no parts.

    Args:
        nodes: what was bisected.
        labels: ``(N, m)`` bool, True in cluster 1.
        images: of the batch.
        grid_hw: height and width of the patch grid.
    """
    n, device = grid_hw[0] * grid_hw[1], labels.device
    mark = 2 * torch.arange(len(labels), device=device)[:, None] + labels
    # What is padded, or not split, goes to one place behind all images.
    kept = nodes.valid & labels.any(1, keepdim=True)
    place = (nodes.image[:, None] * n + nodes.patches).masked_fill(~kept, images * n)
    marks = torch.full((images * n + 1,), -1, device=device).scatter_(0, place.view(-1), mark.view(-1))[:-1]

    first = first_of_component(marks.view(images, n), grid_hw)
    first = (first + torch.arange(images, device=device)[:, None] * n).view(-1)
    sizes = torch.zeros_like(first).scatter_add_(0, first, torch.ones_like(first))
    found = ((sizes >= min_patches) & (marks >= 0)).nonzero()[:, 0]
    on_host = torch.stack([found, sizes[found], marks[found]]).cpu().numpy()
    order = np.argsort(-on_host[1], kind="stable")
    numbers = torch.full_like(first, len(order))
    sorted_found = found[torch.from_numpy(order).to(device)]
    numbers[sorted_found] = torch.arange(len(order), device=device)
    firsts, part_sizes, part_marks = on_host[:, order]
    owner = numbers[first].view(images, n)
    return Parts(owner, sorted_found // n, part_sizes, part_marks // 2, part_marks % 2, firsts % n)


def first_of_component(marks: torch.Tensor, grid_hw: tuple[int, int]) -> torch.Tensor:
    """The first patch, in raster order, of the component that a patch belongs to.

    Args:
        marks: ``(B, n)`` int64; neighbours are connected where they have the same mark.
        grid_hw: height and width of the grid, n patches together.

    Returns:
        ``(B, n)`` int64 patches.
    """
    images, n = marks.shape
    around = _neighbours(grid_hw, marks.device)
    own = torch.arange(n, device=marks.device)
    connected = torch.where(marks[:, around] == marks[:, None], around, own).view(images, -1)
    first = own.expand(images, n)
    while True:
        before = first
        for _ in range(_ROUNDS):
            nearby = first.gather(1, connected).view(images, 8, n)
            for half in (4, 2, 1):
                nearby = torch.minimum(nearby[:, :half], nearby[:, half:])
            first = torch.minimum(first, nearby[:, 0])
            # Whoever is first of my first is first of mine, too: chains shorten to a half, and again.
            first = first.gather(1, first)
            first = first.gather(1, first)
        if torch.equal(first, before):
            return first


def _neighbours(grid_hw: tuple[int, int], device: torch.device) -> torch.Tensor:
    """``(8, n)`` int64 patches around every patch; beyond the edge it is the patch itself or another neighbour."""
    height, width = grid_hw
    row = torch.arange(height, device=device)[:, None]
    column = torch.arange(width, device=device)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    around = [(row + dy).clamp(0, height - 1) * width + (column + dx).clamp(0, width - 1) for dy, dx in steps]
    return torch.stack([one.reshape(-1) for one in around])
