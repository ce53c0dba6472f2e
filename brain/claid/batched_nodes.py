"""Sets of patches of many images, as padded arrays: how they are gathered, and which patches they are bisected from."""

from dataclasses import dataclass

import numpy as np
import torch

from .batched_gram import count_bits, pack_bits


@dataclass(frozen=True)
class Nodes:
    """Disjoint sets of patches, the largest set first; rows are padded to its size.

    Attributes:
        sizes: ``(N,)`` patches of each, on the host, descending.
        image: ``(N,)`` int64 positions in the batch.
        patches: ``(N, m)`` int64, ascending; padded with 0.
        valid: ``(N, m)`` bool, False where padded.
        degree: ``(N, m)`` int64 links of a patch within its set; see :func:`.affinity.degrees`; 0 where padded.
    """

    sizes: np.ndarray
    image: torch.Tensor
    patches: torch.Tensor
    valid: torch.Tensor
    degree: torch.Tensor

    def take(self, rows: np.ndarray) -> "Nodes":
        """Some of the nodes; ``rows`` ascend."""
        sizes = self.sizes[rows]
        index = torch.from_numpy(rows).to(self.image.device)
        width = int(sizes.max(initial=0))
        padded = (values[index, :width] for values in (self.patches, self.valid, self.degree))
        return Nodes(sizes, self.image[index], *padded)


def gather_nodes(links: torch.Tensor, owner: torch.Tensor, image: torch.Tensor, sizes: np.ndarray) -> Nodes:
    """Sets from a map of what belongs to whom.

    Args:
        links: ``(B, n, W)`` rows of links as bits; see :class:`.batched_gram.Images`.
        owner: ``(B, n)`` int64 set of a patch, 0, ..., N - 1; N for none.
        image: ``(N,)`` int64 image of a set.
        sizes: ``(N,)`` patches of the sets, on the host, descending; at least one set.
    """
    n, device, total = owner.shape[1], owner.device, int(sizes.sum())
    members = owner.view(-1).argsort(stable=True)[:total]
    inside = pack_bits(owner[image] == torch.arange(len(sizes), device=device)[:, None])
    degree = count_bits(links.view(-1, links.shape[2])[members] & inside[owner.view(-1)[members]])

    column = torch.arange(int(sizes[0]), device=device)
    start = torch.from_numpy(np.cumsum(sizes) - sizes).to(device)[:, None]
    valid = column < torch.from_numpy(sizes).to(device)[:, None]
    place = (start + column).clamp(max=total - 1)
    return Nodes(sizes, image, (members[place] % n) * valid, valid, degree[place] * valid)


def pick_seeds(nodes: Nodes) -> torch.Tensor:
    """``(N, 2)`` positions of the patches of lowest and highest degree; see :func:`.affinity.pick_seeds`."""
    width = nodes.patches.shape[1]
    column = torch.arange(width, device=nodes.degree.device)
    # One number for degree and position, so that ties are decided: by the first position, or by the last.
    ranked = nodes.degree * width + column
    lowest = ranked.masked_fill(~nodes.valid, torch.iinfo(torch.int64).max).amin(1)
    highest = ranked.masked_fill(~nodes.valid, -1).amax(1)
    return torch.stack([lowest, highest], 1) % width
