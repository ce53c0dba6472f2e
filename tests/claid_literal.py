"""CLAID's region detector, written out step by step: slow, obvious, and the measure of the fast ones.

One patch is visited at a time, with products of whole tokens in double precision, as the paper describes it and the
authors' released program does it. Tests compare the fast detectors with this one, and the speed benchmark times it.
"""

import itertools
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy import ndimage

Region = tuple[int, frozenset[int]]


def literal_detect(features: np.ndarray, options) -> list[Region]:
    """The regions of one image: ``(level, patches)`` each, breadth-first, whether emitted or not.

    Args:
        features: ``(h, w, C)`` tokens, float32 or float64.
        options: a ``DetectorOptions``.
    """
    tokens = features.reshape(-1, features.shape[-1])
    affinity, high_energy = literal_affinity(tokens, options.alpha, options.theta)
    rows = literal_regions(affinity, literal_unit_rows(tokens), high_energy, features.shape[:2], options)
    return [(row["level"], frozenset(row["patches"].tolist())) for row in rows]


def literal_unit_rows(tokens: np.ndarray) -> np.ndarray:
    """``(n, C)`` tokens of unit length; a token of zeros stays one."""
    return tokens / np.maximum(np.linalg.norm(tokens, axis=1, keepdims=True), tokens.dtype.type(1e-12))


def literal_affinity(tokens: np.ndarray, alpha: float = 0.2, theta: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Links of all pairs ``(n, n)`` float64 0 or 1, and the high-energy patches ``(n,)`` bool."""
    unit = literal_unit_rows(tokens)
    affinity = (unit @ unit.T > tokens.dtype.type(alpha)).astype(np.float64)
    energies = np.abs(tokens.astype(np.float64)).sum(1)
    rank = int((1 - Fraction(str(theta))) * len(energies))
    return affinity, energies >= np.sort(energies)[rank]


def literal_regions(affinity: np.ndarray, unit: np.ndarray, high_energy: np.ndarray, grid_hw, options) -> list[dict]:
    """The clustering stage: all regions with their figures, breadth-first, level by level.

    Args:
        affinity: ``(n, n)`` float64 0 or 1.
        unit: ``(n, C)`` tokens of unit length.
        high_energy: ``(n,)`` bool.
        grid_hw: height and width of the patch grid.
    """
    generator = random.Random(options.seed)
    rows: list[dict] = []
    queue = [{"row": -1, "level": 0, "patches": np.arange(len(unit))}] if len(unit) >= options.min_patches else []
    while queue:
        node = queue.pop(0)
        labels = _bisect_node(affinity, unit, node["patches"], generator, options)
        if not labels.any():
            continue
        for side in (0, 1):
            for patches in literal_components(node["patches"][labels == side], grid_hw, options.min_patches):
                region = _figures(affinity, high_energy, patches, options)
                region.update(row=len(rows), level=node["level"] + 1, parent=node["row"], side=side)
                rows.append(region)
                if region["expanded"]:
                    queue.append(region)
    return rows


def _bisect_node(affinity: np.ndarray, unit: np.ndarray, patches: np.ndarray, generator, options) -> np.ndarray:
    """``(m,)`` labels 0 or 1 of the patches of one node."""
    linked = affinity[np.ix_(patches, patches)]
    degrees = linked.sum(1)
    by_degree = np.argsort(degrees, kind="stable")
    low, high = by_degree[0], by_degree[-1]
    if options.init == "affinity":
        labels = (linked[high] == 1) & (linked[low] == 0)
    else:
        labels = unit[patches] @ unit[patches[high]] > unit[patches] @ unit[patches[low]]
    orders = literal_orders(patches, len(unit), options, generator)
    return literal_bisect(unit[patches], labels.astype(int), orders, options.inertia, options.max_epochs)[0]


def literal_bisect(
    unit: np.ndarray, labels: np.ndarray, orders: Iterator[list[int]], inertia: float, max_epochs: int = 501
) -> tuple[np.ndarray, int, int, list[float]]:
    """Sweeps until nothing moves: labels, epochs, moves, and the objective before and after every epoch."""
    labels = labels.copy()
    clusters = [_Cluster(unit[labels == label]) for label in (0, 1)]
    objectives = [clusters[0].objective() + clusters[1].objective()]
    moves = 0
    for order in itertools.islice(orders, max_epochs):
        before = moves
        for i in order:
            x = unit[i].astype(np.float64)
            own = int(labels[i])
            gain = clusters[own].distances(x) - clusters[1 - own].distances(x)
            if gain > max(inertia * (x @ x), 1e-6):
                labels[i] = 1 - own
                clusters[own].change(x, -1)
                clusters[1 - own].change(x, +1)
                moves += 1
        objectives.append(clusters[0].objective() + clusters[1].objective())
        if moves == before:
            break
    return labels, len(objectives) - 1, moves, objectives


class _Cluster:
    """The number of some tokens, their sum, and the sum of their squared lengths."""

    def __init__(self, tokens: np.ndarray) -> None:
        tokens = tokens.astype(np.float64)
        self.count, self.total, self.squares = len(tokens), tokens.sum(0), float((tokens**2).sum())

    def distances(self, x: np.ndarray) -> float:
        """Sum of the squared distances of one token to all of the cluster."""
        return self.count * (x @ x) - 2 * (x @ self.total) + self.squares

    def change(self, x: np.ndarray, sign: int) -> None:
        """Adds a token, or takes it out."""
        self.count += sign
        self.total += sign * x
        self.squares += sign * (x @ x)

    def objective(self) -> float:
        """Sum of the squared distances of all pairs within the cluster."""
        return self.count * self.squares - float(self.total @ self.total)


def literal_orders(patches: np.ndarray, n: int, options, generator) -> Iterator[list[int]]:
    """The visiting order of every epoch, as positions within the patches of a node."""
    position = {int(patch): index for index, patch in enumerate(patches)}
    for epoch in range(options.max_epochs):
        if options.order == "raster":
            yield list(range(len(patches)))
        elif options.order == "hash":
            yield [position[patch] for patch in literal_permutation(options.seed, epoch, n) if patch in position]
        else:
            order = list(range(len(patches)))
            generator.shuffle(order)
            yield order


@lru_cache(maxsize=1024)
def literal_permutation(seed: int, epoch: int, n: int) -> tuple[int, ...]:
    """All patches of a grid in the order of their keys."""
    return tuple(sorted(range(n), key=lambda patch: literal_key(seed, epoch, patch)))


def literal_key(seed: int, epoch: int, patch: int) -> int:
    """The key that a patch is sorted by in one epoch."""
    word = 2**64 - 1
    z = (seed + (epoch + 1) * 0x9E3779B97F4A7C15 + (patch + 1) * 0xD1B54A32D192ED03) & word
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & word
    return z ^ z >> 31


def literal_components(patches: np.ndarray, grid_hw, min_patches: int) -> list[np.ndarray]:
    """8-connected components of a set of patches, large enough ones only, by their first patch in raster order."""
    grid = np.zeros(grid_hw, bool)
    grid.flat[patches] = True
    marks, count = ndimage.label(grid, np.ones((3, 3)))
    found = [np.flatnonzero(marks == mark) for mark in range(1, count + 1)]
    return sorted((one for one in found if len(one) >= min_patches), key=lambda one: one[0])


def _figures(affinity: np.ndarray, high_energy: np.ndarray, patches: np.ndarray, options) -> dict:
    """Size, energy and connectivity of a region, and what follows from them."""
    m = len(patches)
    hits = int(high_energy[patches].sum())
    linked = affinity[np.ix_(patches, patches)]
    links = int(linked.sum() - linked.trace())
    pairs = m * (m - 1)
    connect = (links + m + 1e-5 * (pairs - links)) / pairs if pairs else 1.0
    cbar = links / pairs if pairs else 1.0
    value = connect if options.connectivity == "program" else cbar
    return {
        "patches": patches,
        "size": m,
        "hits": hits,
        "connect": connect,
        "cbar": cbar,
        "emitted": Fraction(hits, m) > Fraction(str(options.tau2)),
        "expanded": bool(pairs) and value < options.tau1,
    }
