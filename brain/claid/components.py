"""Connected components of patches on their grid, and how densely the patches of a region are linked."""

import numpy as np
from scipy import ndimage

from .options import UNLINKED_PER_LINK

_EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def components(members: np.ndarray, grid_hw: tuple[int, int], min_patches: int) -> list[np.ndarray]:
    """8-connected components of a set of patches, without those that are too small.

    Args:
        members: ``(m,)`` int patches, raster indices on the grid.
        grid_hw: height and width of the grid.
        min_patches: components of fewer patches are dropped.

    Returns:
        ascending patches of every component, ordered by their first patches.
    """
    grid = np.zeros(grid_hw, bool)
    grid.reshape(-1)[members] = True
    marks, count = ndimage.label(grid, _EIGHT_NEIGHBOURS)
    found = marks.reshape(-1)[members]
    sizes = np.bincount(found, minlength=count + 1)
    # The labels of SciPy ascend in raster order of the first patches.
    return [members[found == mark] for mark in range(1, count + 1) if sizes[mark] >= min_patches]


def connectivity(links: int, size: int) -> tuple[float, float]:
    """How densely a region is linked, as the program has it and as the paper does (section III-D).

    Args:
        links: ordered pairs of two different patches of the region that are linked.
        size: patches of the region.

    Returns:
        the program's value, which counts the links of patches with themselves and lets the other pairs count a
        little, and the paper's, the share of linked pairs. A single patch has 1 in both.
    """
    links, pairs = int(links), int(size) * (int(size) - 1)
    if not pairs:
        return 1.0, 1.0
    return (links + int(size) + (pairs - links) / UNLINKED_PER_LINK) / pairs, links / pairs
