"""Bisecting many nodes of many images at once, by the same moves as one patch after the other.

A patch moves if that pays at its turn, and every move changes what it pays the patches after it. So a step *guesses*
which patches will move next (the first few, in visiting order, that it pays now), computes for every later patch what
it would be paid after the guessed moves before it, and keeps the guesses up to the first patch that then decides
otherwise. All that is kept has been decided in the very state in which the turn comes; the first guess always is. On
real maps a step makes about ten moves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch

from .batched_gram import Images
from .batched_nodes import Nodes, pick_seeds
from .bisect import LEAST_GAIN
from .options import DetectorOptions
from .orders import hash_permutation

# Guesses of one step.
_GUESSES = 16

# Steps between two looks whether epochs have ended, and looks between two waits of the host for the device.
_STEPS, _LOOKS = 2, 6

# Epochs whose visiting orders are there from the start; hardly a bisection needs more.
_EPOCHS = 16

# Numbers in the largest temporary array while the first scores are summed, if it holds more than one node.
_BLOCK = 2**25


@dataclass(frozen=True)
class Splits:
    """How the bisections of some nodes ended.

    Attributes:
        labels: ``(N, m)`` bool, True in cluster 1; False where padded.
        seeds: ``(N, 2)`` int64 patches of lowest and highest degree.
        epochs, moves: ``(N,)`` int64; see :class:`.bisect.Split`.
    """

    labels: torch.Tensor
    seeds: torch.Tensor
    epochs: torch.Tensor
    moves: torch.Tensor


def bisect_nodes(images: Images, nodes: Nodes, options: DetectorOptions) -> Splits:
    """Bisects all nodes.

    Args:
        images: of the batch.
        nodes: at least one.
        options: ``alpha``, ``init``, ``inertia``, ``order`` (not ``"pyrandom"``), ``seed`` and ``max_epochs`` are used.
    """
    gram, n = images.gram, images.gram.shape[1]
    positions = pick_seeds(nodes)
    tokens = nodes.image[:, None] * n + nodes.patches
    cosines = _pick(gram, tokens.gather(1, positions)[:, :, None] * n + nodes.patches[:, None, :])
    labels = _initial_labels(cosines, options) & nodes.valid
    epochs, moves = torch.zeros_like(nodes.image), torch.zeros_like(nodes.image)
    splits = Splits(labels, nodes.patches.gather(1, positions), epochs, moves)
    ranks = _Ranks(n, options, gram.device)
    sweeps = _start(images, nodes, tokens, labels, options)
    _turn_epochs(sweeps, ranks, options.max_epochs)
    latest = 0
    while True:
        ranks.reach(latest + _LOOKS)
        for _ in range(_LOOKS):
            for _ in range(_STEPS):
                _step(gram, sweeps)
            _turn_epochs(sweeps, ranks, options.max_epochs)
        ended, latest = _look(sweeps, ranks.last)
        if ended.all():
            _write(splits, sweeps)
            return splits
        sizes = sweeps.sizes[~ended]
        if len(sizes) * sizes[0] <= sweeps.patches.numel() // 2:
            _write(splits, sweeps)
            sweeps = sweeps.keep(np.flatnonzero(~ended))


def _initial_labels(cosines: torch.Tensor, options: DetectorOptions) -> torch.Tensor:
    """``(N, m)`` bool from ``(N, 2, m)`` cosines of the seeds; see :func:`.affinity.initial_labels`."""
    if options.init == "nearest":
        return cosines[:, 1] > cosines[:, 0]
    linked = cosines > options.alpha
    return linked[:, 1] & ~linked[:, 0]


@dataclass
class _Sweeps:
    """Where the bisections stand; all arrays of the patches are ``(N, m)``, those of the nodes ``(N, 1)``.

    Attributes:
        sizes: ``(N,)`` on the host, as in `Nodes`.
        node: rows of the nodes among those that the bisection began with.
        patches: as in `Nodes`.
        rows: where the row of a patch starts among the numbers of all Gram matrices.
        lengths: squared lengths of the patches.
        least: what a gain must exceed, negative.
        signs: +1 in cluster 0, -1 in cluster 1, 0 where padded: such a patch never gains anything.
        lead: by how much the sum of squared distances to cluster 0 exceeds that to cluster 1; times the sign it is
            what a patch gains by a change of clusters.
        ranks: when a patch has its turn in the present epoch of its node.
        cursor: rank of the last patch that has had its turn; n - 1 when all have.
        epoch, moves: the present epoch, and moves so far.
        earlier: moves before the present epoch.
    """

    sizes: np.ndarray
    node: torch.Tensor
    patches: torch.Tensor
    rows: torch.Tensor
    lengths: torch.Tensor
    least: torch.Tensor
    signs: torch.Tensor
    lead: torch.Tensor
    ranks: torch.Tensor
    cursor: torch.Tensor
    epoch: torch.Tensor
    moves: torch.Tensor
    earlier: torch.Tensor

    def keep(self, rows: np.ndarray) -> "_Sweeps":
        """Some of the bisections; ``rows`` ascend."""
        index = torch.from_numpy(rows).to(self.node.device)
        width = int(self.sizes[rows[0]])
        arrays = (getattr(self, field.name) for field in fields(self)[1:])
        return _Sweeps(self.sizes[rows], *(array[index, :width].contiguous() for array in arrays))


class _Ranks:
    """When the patches of a grid have their turns, epoch by epoch, on the device; rows are added as they are needed."""

    def __init__(self, n: int, options: DetectorOptions, device: torch.device) -> None:
        self.last = n - 1
        self._n, self._seed = n, options.seed
        self._stride = n if options.order == "hash" else 0
        self._table = torch.arange(n, device=device)[None]
        if self._stride:
            self._table = self._table[:0]
            self.reach(_EPOCHS - 1)

    def reach(self, epoch: int) -> None:
        """Makes sure that all epochs up to this one are there."""
        known = len(self._table)
        if self._stride and epoch >= known:
            orders = [hash_permutation(self._seed, e, self._n) for e in range(known, max(epoch + 1, 2 * known))]
            added = torch.from_numpy(np.argsort(orders, axis=1)).to(self._table.device)
            self._table = torch.cat([self._table, added])

    def of(self, epoch: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """``(N, m)`` int64 ranks of patches ``(N, m)`` in the epochs ``(N, 1)``."""
        return _pick(self._table, torch.add(patches, epoch, alpha=self._stride))


def _start(
    images: Images, nodes: Nodes, tokens: torch.Tensor, labels: torch.Tensor, options: DetectorOptions
) -> _Sweeps:
    """Sweeps that have not begun; ``tokens`` are ``(N, m)`` places of the patches among all of the batch."""
    n = images.gram.shape[1]
    signs = (1.0 - 2.0 * labels.double()) * nodes.valid
    lengths = _pick(images.lengths, tokens)
    size, squares = signs.sum(1, keepdim=True), (signs * lengths).sum(1, keepdim=True)
    # Epoch -1 is over, and there were moves in it: the next one begins.
    counts = torch.zeros_like(nodes.image)[:, None]
    return _Sweeps(
        sizes=nodes.sizes,
        node=torch.arange(len(nodes.sizes), device=counts.device)[:, None],
        patches=nodes.patches,
        rows=tokens * n,
        lengths=lengths,
        least=-(options.inertia * lengths).clamp(min=LEAST_GAIN),
        signs=signs,
        lead=size * lengths - 2 * _first_scores(images.unit, nodes.sizes, tokens, signs) + squares,
        ranks=torch.zeros_like(nodes.patches),
        cursor=counts + n - 1,
        epoch=counts - 1,
        moves=counts.clone(),
        earlier=counts - 1,
    )


def _first_scores(unit: torch.Tensor, sizes: np.ndarray, tokens: torch.Tensor, signs: torch.Tensor) -> torch.Tensor:
    """``(N, m)`` float64 scores to begin with, in double precision; see :func:`.bisect.start`."""
    scores = torch.zeros_like(signs)
    flat = unit.view(-1, unit.shape[2])
    for some, width in _blocks(sizes, _BLOCK // unit.shape[2]):
        part = flat[tokens[some, :width]].double()
        difference = signs[some, None, :width] @ part
        scores[some, :width] = (part @ difference.mT)[:, :, 0]
    return scores


def _blocks(sizes: np.ndarray, most: int) -> Iterator[tuple[slice, int]]:
    """Runs of nodes of similar sizes, which descend, and the largest size; ``most`` patches, or one node."""
    first = 0
    while first < len(sizes):
        width = int(sizes[first])
        similar = int(np.searchsorted(-sizes, -width // 2, side="right"))
        last = min(similar, first + max(1, most // width))
        yield slice(first, last), width
        first = last


def _step(gram: torch.Tensor, sweeps: _Sweeps) -> None:
    """Guesses moves, keeps those that hold, and makes them."""
    n = gram.shape[1]
    signs, lead, ranks, least = sweeps.signs, sweeps.lead, sweeps.ranks, sweeps.least
    over = ranks <= sweeps.cursor
    stays = torch.addcmul(least, lead, signs) <= 0
    turns, at = ranks.masked_fill(stays | over, n).topk(min(_GUESSES, ranks.shape[1]), 1, largest=False, sorted=False)
    guessed = turns < n
    sign = signs.gather(1, at) * guessed
    cosines = _pick(gram, sweeps.rows.gather(1, at)[:, :, None] + sweeps.patches[:, None, :])
    distances = sweeps.lengths[:, None, :] + sweeps.lengths.gather(1, at)[:, :, None]
    distances.sub_(cosines, alpha=2)

    # What everybody would decide after the guessed moves before them.
    earlier = distances * (turns[:, :, None] < ranks[:, None, :])
    later = torch.baddbmm(lead[:, None], sign[:, None], earlier, alpha=-2)[:, 0]
    moves = torch.addcmul(least, later, signs) > 0
    as_guessed = (moves == torch.zeros_like(over).scatter_(1, at, guessed)) | over
    stop = ranks.masked_fill(as_guessed, n).amin(1, keepdim=True)

    holds = turns < stop
    sign *= holds
    lead[:, None].baddbmm_(sign[:, None], distances, alpha=-2)
    signs.scatter_add_(1, at, -2 * sign)
    sweeps.moves += (holds & guessed).sum(1, keepdim=True)
    torch.sub(stop, 1, out=sweeps.cursor)


def _turn_epochs(sweeps: _Sweeps, ranks: _Ranks, max_epochs: int) -> None:
    """Begins the next epoch where one with moves has ended."""
    last = ranks.last
    begins = (sweeps.cursor == last) & (sweeps.moves > sweeps.earlier) & (sweeps.epoch < max_epochs - 1)
    sweeps.epoch += begins
    torch.where(begins, sweeps.moves, sweeps.earlier, out=sweeps.earlier)
    sweeps.cursor.masked_fill_(begins, -1)
    sweeps.ranks = ranks.of(sweeps.epoch, sweeps.patches)


def _look(sweeps: _Sweeps, last: int) -> tuple[np.ndarray, int]:
    """Which bisections have ended, and the latest epoch; waits for the device."""
    cursor, epoch = torch.cat([sweeps.cursor, sweeps.epoch], 1).cpu().numpy().T
    return cursor == last, int(epoch.max())


def _write(splits: Splits, sweeps: _Sweeps) -> None:
    node = sweeps.node[:, 0]
    splits.labels[node, : sweeps.signs.shape[1]] = sweeps.signs < 0
    splits.epochs[node] = sweeps.epoch[:, 0] + 1
    splits.moves[node] = sweeps.moves[:, 0]


def _pick(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """The numbers at the places ``index`` of a flattened array; several times as fast as `torch.take` on a CPU."""
    return values.view(-1).index_select(0, index.reshape(-1)).view(index.shape)
