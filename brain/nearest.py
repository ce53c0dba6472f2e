"""The k nearest neighbours of every row by raw cosine, exactly, and the pairs that are neighbours of each other.

Every product of two blocks serves both: its rows find neighbours among its columns, its columns among its rows.
"""

from collections.abc import Generator, Iterable

import numpy as np
import torch

from .blockwise import DENSE, Hits, Rows, Screen, Tile, reaching
from .errors import ConfigError
from .pairs import PairCollector, Pairs, check_threshold, exhaust

# Cosines this close are a tie: whom float32 puts first among equals says nothing about the images.
TIE = 1e-6

# Rows whose neighbours are put in order at a time.
_PORTION = 2048

# Less than any cosine: the similarity of a place among the nearest that is still free.
_FREE = -2.0


def knn(
    vectors: np.ndarray, k: int, *, block: int | None = None, device: str = "auto"
) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` nearest other rows of each row by raw cosine.

    Exact up to ties: among neighbours within 1e-6 of the k-th best, any may be left out.

    Args:
        vectors: ``(n, d)``, as for :func:`.neighbors.radius_pairs`.
        k: neighbours per row; at most ``n - 1`` are returned.

    Returns:
        ``(n, k)`` int32 rows and ``(n, k)`` float32 cosines, the nearest first.

    Raises:
        ConfigError: as :func:`.neighbors.radius_pairs`.
    """
    return exhaust(knn_steps(vectors, k, block=block, device=device))


def knn_steps(
    vectors: np.ndarray, k: int, *, block: int | None = None, device: str = "auto"
) -> Generator[float, None, tuple[np.ndarray, np.ndarray]]:
    """:func:`knn` as a generator that yields the share of work done, in [0, 1]."""
    return (yield from _knn_steps(Rows(vectors, block, device), _check_k(k)))


def mutual_knn_pairs(
    vectors: np.ndarray,
    k: int,
    *,
    threshold: float = -1.0,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Pairs:
    """Pairs of rows that are both among the ``k`` nearest of the other, ties included.

    A pair counts if its cosine reaches the k-th best of either row to within 1e-6. So a hundred copies of one image
    are all mutual neighbours for any ``k``, and the order of the rows does not matter.

    Args:
        vectors: ``(n, d)``, as for :func:`.neighbors.radius_pairs`.
        k: neighbours per row.
        threshold: least cosine of a pair, in [-1, 1].

    Raises:
        ConfigError: as :func:`.neighbors.radius_pairs`.
    """
    steps = mutual_knn_pairs_steps(vectors, k, threshold=threshold, block=block, device=device, max_pairs=max_pairs)
    return exhaust(steps)


def mutual_knn_pairs_steps(
    vectors: np.ndarray,
    k: int,
    *,
    threshold: float = -1.0,
    block: int | None = None,
    device: str = "auto",
    max_pairs: int | None = None,
) -> Generator[float, None, Pairs]:
    """:func:`mutual_knn_pairs` as a generator that yields the share of work done, in [0, 1]."""
    check_threshold(threshold)
    rows = Rows(vectors, block, device)
    # One neighbour more than asked shows whether the k-th place is tied.
    neighbours, cosines = yield from _knn_steps(rows, _check_k(k) + 1)
    kth = cosines[:, min(k, cosines.shape[1]) - 1] if cosines.size else np.empty(len(rows), np.float32)
    collector = PairCollector(threshold, max_pairs)
    collector.add(_mutual(_listed(neighbours, cosines), kth, threshold), 1.0)
    if cosines.shape[1] > k:
        for start, stop in rows.ranges(rows.block):
            tied = start + np.flatnonzero(cosines[start:stop, k] >= kth[start:stop] - TIE)
            for hits in _tied_hits(rows, tied, kth):
                collector.add(_mutual(hits, kth, threshold), 1.0)
    return collector.pairs()


def _knn_steps(rows: Rows, k: int) -> Generator[float, None, tuple[np.ndarray, np.ndarray]]:
    n = len(rows)
    k = min(k, max(n - 1, 0))
    if not k:
        return np.empty((n, 0), np.int32), np.empty((n, 0), np.float32)
    nearest = _Nearest(Screen(rows, rows), k)
    for done, parts in nearest.screen.sweep(nearest.candidates):
        nearest.add(Hits.joined(parts))
        yield done
    return nearest.index, rows_in_order(rows, nearest.index)


def nearest_to(rows: Rows, index: np.ndarray, k: int) -> np.ndarray:
    """``(m, k)`` int64: the nearest other rows of the ``m`` rows in ``index``, in no particular order."""
    block = rows.unit_tensor(index)
    own = torch.from_numpy(index).to(rows.device)
    best = torch.empty(len(index), 0, device=rows.device)
    chosen = torch.empty(len(index), 0, dtype=torch.int64, device=rows.device)
    for s, e in rows.ranges(rows.block):
        product = block @ rows.unit_tensor(slice(s, e)).T
        here = torch.nonzero((own >= s) & (own < e)).ravel()
        product[here, own[here] - s] = -torch.inf
        values, columns = product.topk(min(k, e - s), dim=1, sorted=False)
        values, columns = torch.cat([best, values], 1), torch.cat([chosen, columns + s], 1)
        best, places = values.topk(min(k, values.shape[1]), dim=1, sorted=False)
        chosen = columns.gather(1, places)
    return chosen.cpu().numpy()


def rows_in_order(rows: Rows, index: np.ndarray) -> np.ndarray:
    """Sorts the neighbours of each row by their exact cosine, in place; equals by their number.

    Args:
        index: ``(n, k)`` int32 rows; -1 stands for none and goes last.

    Returns:
        ``(n, k)`` float32 cosines, the largest first; -1 for none.
    """
    k = index.shape[1]
    similarity = np.empty(index.shape, np.float32)
    for start, stop in rows.ranges(_PORTION):
        chosen = index[start:stop]
        exact = rows.cosines(np.repeat(np.arange(start, stop), k), chosen.ravel()).reshape(chosen.shape)
        exact[chosen < 0] = -1
        order = np.lexsort((chosen, chosen < 0, -exact), axis=1)
        index[start:stop] = np.take_along_axis(chosen, order, axis=1)
        similarity[start:stop] = np.take_along_axis(exact, order, axis=1)
    return similarity


class _Nearest:
    """The best neighbours of every row so far: ``(n, k)`` rows and similarities, the nearest first."""

    def __init__(self, screen: Screen, k: int) -> None:
        self.screen, self.k = screen, k
        self.index = np.full((len(screen.left), k), -1, np.int32)
        self.similarity = np.full((len(screen.left), k), _FREE, np.float32)

    def candidates(self, tile: Tile) -> Hits:
        """From a row ``i`` to what may be a neighbour ``j``, in both directions; runs in many threads.

        The k-th places that others change meanwhile only rise, so an old one lets through more, never less.
        """
        ways = [_Way(tile, turned) for turned in ((False,) if tile.diagonal else (False, True))]
        hits = [self._few(way, tile.product) for way in ways]
        if any(found is None for found in hits):
            fine = self.screen.fine(tile)
            hits = [
                found or (self._few(way, fine, fine=True) if self.screen.coarse else None) or self._best(way, fine)
                for way, found in zip(ways, hits, strict=True)
            ]
        return Hits.joined([found for found in hits if found])

    def add(self, hits: Hits) -> None:
        """Takes candidates into the lists that they belong to."""
        better = hits.similarity > self.similarity[hits.i, -1]
        i, j, similarity = hits.i[better], hits.j[better], hits.similarity[better]
        changed = np.unique(i)
        owner = np.concatenate([np.repeat(changed, self.k), i])
        index = np.concatenate([self.index[changed].ravel(), j])
        similarity = np.concatenate([self.similarity[changed].ravel(), similarity])
        order = np.lexsort((-similarity, owner))
        first = np.searchsorted(owner[order], changed)
        best = order[first[:, None] + np.arange(self.k)]
        self.index[changed], self.similarity[changed] = index[best], similarity[best]

    def _few(self, way: "_Way", product: torch.Tensor, *, fine: bool = False) -> Hits | None:
        """All pairs that may belong to the nearest, or None where these are a good part of the tile."""
        places = self.similarity[way.own, -1].astype(np.float64)
        limits = places - self.screen.error(places, fine=fine)
        if limits.min() <= 0:
            return None
        product = way.turn(product)
        i, j = reaching(product, limits)
        if len(i) > DENSE * product.numel():
            return None
        if way.diagonal:
            i, j = i[i != j], j[i != j]
        rows, columns = (i + way.own.start).astype(np.int32), (j + way.other.start).astype(np.int32)
        if self.screen.coarse and not fine:
            similarity = self.screen.left.cosines(rows, columns) if len(rows) else np.empty(0, np.float32)
        else:
            places_found = (torch.from_numpy(position).to(product.device) for position in (i, j))
            similarity = product[tuple(places_found)].cpu().numpy()
        return Hits(rows, columns, similarity)

    def _best(self, way: "_Way", product: torch.Tensor) -> Hits:
        """The best of each row of a tile."""
        product = way.turn(product)
        if way.diagonal:
            product.fill_diagonal_(-torch.inf)
        values, columns = product.topk(min(self.k, product.shape[1]), dim=1, sorted=False)
        rows = np.repeat(np.arange(way.own.start, way.own.stop, dtype=np.int32), values.shape[1])
        found = (columns + way.other.start).to(torch.int32).ravel().cpu().numpy()
        return Hits(rows, found, values.ravel().cpu().numpy())


class _Way:
    """One of the two directions in which a tile is read: whose neighbours are sought, and among which rows."""

    def __init__(self, tile: Tile, turned: bool) -> None:
        self.turned, self.diagonal = turned, tile.diagonal
        self.own, self.other = (tile.columns, tile.rows) if turned else (tile.rows, tile.columns)

    def turn(self, product: torch.Tensor) -> torch.Tensor:
        return product.T if self.turned else product


def _listed(neighbours: np.ndarray, cosines: np.ndarray) -> Hits:
    own = np.repeat(np.arange(len(neighbours), dtype=np.int32), neighbours.shape[1])
    return Hits(own, neighbours.ravel(), cosines.ravel())


def _tied_hits(rows: Rows, tied: np.ndarray, kth: np.ndarray) -> Iterable[Hits]:
    """All neighbours of rows whose k-th place is shared, down to that place."""
    if not len(tied):
        return
    block = rows.unit_tensor(tied)
    limit = torch.from_numpy(kth[tied] - np.float32(2 * TIE)).to(rows.device)
    for s, e in rows.ranges(rows.block):
        reached = block @ rows.unit_tensor(slice(s, e)).T >= limit[:, None]
        i, j = (position.cpu().numpy() for position in torch.nonzero(reached, as_tuple=True))
        i, j = tied[i], j + s
        i, j = i[i != j], j[i != j]
        if len(i):
            yield Hits(i.astype(np.int32), j.astype(np.int32), rows.cosines(i, j))


def _mutual(hits: Hits, kth: np.ndarray, threshold: float) -> Hits:
    """The hits that reach the k-th place of both rows, each turned so that ``i < j``."""
    i, j = np.minimum(hits.i, hits.j), np.maximum(hits.i, hits.j)
    keep = (hits.similarity >= np.maximum(kth[i], kth[j]) - TIE) & (hits.similarity >= np.float32(threshold))
    return Hits(i[keep], j[keep], hits.similarity[keep])


def _check_k(k: int) -> int:
    if k < 1:
        raise ConfigError(f"k={k!r} must be at least 1")
    return k
