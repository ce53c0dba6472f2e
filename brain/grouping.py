"""From pairs to duplicate groups of bounded diameter, and from groups to the roles of their members."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .errors import ConfigError
from .neighbors import Pairs

UNGROUPED = -1

# Rows of vectors handled at a time, which bounds the memory of copies.
_BLOCK = 1024

# Links looked up at a time: links whose ends have met meanwhile are dropped in one array operation.
_BATCH = 20_000


@dataclass(frozen=True)
class Groups:
    """The part that each of ``n`` images plays.

    Attributes:
        group: ``(n,)`` int32 group number, 0 being the largest group; -1 outside groups.
        size: ``(n,)`` int32 members of the image's group; 1 outside groups.
        role: ``(n,)`` text: ``"keeper"``, ``"duplicate"`` or ``"unique"``.
        of: ``(n,)`` int32 row of the group's keeper, for the keeper its own; -1 outside groups.
        similarity: ``(n,)`` float32 raw cosine to the keeper, 1 for the keeper; NaN outside groups.
    """

    group: np.ndarray
    size: np.ndarray
    role: np.ndarray
    of: np.ndarray
    similarity: np.ndarray


def group_pairs(
    n: int,
    pairs: Pairs,
    threshold: float | None = None,
    *,
    max_diameter: float | None = None,
    vectors: np.ndarray | None = None,
) -> np.ndarray:
    """Groups rows that are linked by pairs, so that no group is wider than ``max_diameter``.

    Links are taken from the most similar down. A link joins the groups of its two rows only if *every* pair of rows
    of the joint group has a cosine of at least ``1 - max_diameter`` (the complete-link condition). So a chain of near
    neighbours, each like the next and the ends unlike, breaks into tight groups instead of melting into one.
    The result depends on the cosines alone, not on the order of the rows; equal cosines are taken in the order of
    their rows.

    Args:
        n: number of rows.
        pairs: the pairs of a search.
        threshold: least cosine of a link; None takes all pairs.
        max_diameter: largest cosine distance (1 - cosine) within a group; None sets no limit, and groups are the
            connected components of the links.
        vectors: ``(n, d)`` the vectors of the search; needed only where the diameter allows cosines below those that
            ``pairs`` holds, or where ``pairs`` lacks some by design (mutual neighbours).

    Returns:
        ``(n,)`` int32 labels: 0 is the largest group (of equal ones, that with the lowest row), -1 is no group.

    Raises:
        ConfigError: the threshold lies below that of the pairs, or ``vectors`` are needed and absent.
    """
    links = pairs if threshold is None else pairs.at_least(threshold)
    components = _components(n, links)
    if max_diameter is None:
        return rank_by_size(components)
    floor = 1.0 - max_diameter
    if vectors is None and floor < pairs.threshold - 1e-9:
        raise ConfigError(
            f"max_diameter={max_diameter:g} allows cosines down to {floor:g}, but pairs were kept down to"
            f" {pairs.threshold:g} only; pass the vectors, search down to {floor:g}, or lower max_diameter"
        )
    within = _FromPairs(n, pairs, floor) if vectors is None else _FromVectors(vectors, floor)
    labels = np.arange(n, dtype=np.int32)
    for members, part in _by_component(components, links):
        if _all_linked(members, part, floor) or within.holds(members):
            labels[members] = members[0]
        else:
            _merge(labels, part, within)
    return rank_by_size(labels)


def equal_groups(digests: Sequence[str | None]) -> np.ndarray:
    """Groups equal digests: ``(n,)`` int32 labels as of :func:`group_pairs`; None (a failed image) is in no group."""
    seen: dict[str, int] = {}
    labels = [row if digest is None else seen.setdefault(digest, row) for row, digest in enumerate(digests)]
    return rank_by_size(np.array(labels, np.int32))


def rank_by_size(labels: np.ndarray) -> np.ndarray:
    """Renumbers groups by falling size (of equal ones, the lowest row first); groups of one become -1."""
    if not len(labels):
        return np.empty(0, np.int32)
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    rank[counts < 2] = UNGROUPED
    return rank[inverse]


def assign_roles(labels: np.ndarray, quality: np.ndarray, *, vectors: np.ndarray | None = None) -> Groups:
    """Names a keeper in each group and relates the other members to it.

    Args:
        labels: ``(n,)`` group of each image, -1 for none.
        quality: ``(n,)`` scores; the highest of a group is kept, on a tie the first. Usually
            :meth:`.keeper.KeeperPolicy.score`.
        vectors: ``(n, d)`` the vectors of the search, for the similarity to the keeper; None for groups of
            identical images, whose similarity is 1.
    """
    n = len(labels)
    rows = np.arange(n, dtype=np.int32)
    grouped = labels != UNGROUPED
    own_group = np.where(grouped, labels, labels.max(initial=0) + 1 + rows)
    _, own_group, counts = np.unique(own_group, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, -np.asarray(quality, np.float64), own_group))
    keepers = order[np.cumsum(counts) - counts].astype(np.int32)
    of = np.where(grouped, keepers[own_group], np.int32(UNGROUPED))
    role = np.where(grouped, np.where(of == rows, "keeper", "duplicate"), "unique")
    similarity = np.where(grouped, np.float32(1), np.float32(np.nan))
    if vectors is not None:
        members = np.flatnonzero(role == "duplicate")
        for start in range(0, len(members), _BLOCK):
            chunk = members[start : start + _BLOCK]
            similarity[chunk] = _cosine(vectors[chunk], vectors[of[chunk]])
    return Groups(labels.astype(np.int32), counts[own_group].astype(np.int32), role, of, similarity)


def _all_linked(members: np.ndarray, links: Pairs, floor: float) -> bool:
    m = len(members)
    return len(links) == m * (m - 1) // 2 and bool(links.similarity.min() >= np.float32(floor))


class _FromPairs:
    """The complete-link condition by counting: two groups may join if all their cross pairs are on the list."""

    def __init__(self, n: int, pairs: Pairs, floor: float) -> None:
        keep = pairs.similarity >= np.float32(floor)
        i, j = pairs.i[keep], pairs.j[keep]
        self.graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(n, n)).tocsr()
        self.graph = (self.graph + self.graph.T).tocsr()

    def holds(self, members: np.ndarray) -> bool:
        """Whether all pairs among the members are close enough."""
        degrees = np.diff(self.graph.indptr)[members]
        m = len(members)
        if degrees.min() < m - 1:
            return False
        return self.graph[members][:, members].nnz == m * (m - 1)

    def joins(self, a: list[int], b: list[int]) -> bool:
        """Whether all pairs between two groups are close enough."""
        small, large = (a, b) if len(a) < len(b) else (b, a)
        indptr, indices = self.graph.indptr, self.graph.indices
        wanted = np.sort(np.array(large, indices.dtype))
        for row in small:
            neighbours = indices[indptr[row] : indptr[row + 1]]
            if len(neighbours) < len(wanted) or not np.isin(wanted, neighbours, assume_unique=True).all():
                return False
        return True


class _FromVectors:
    """The complete-link condition by cosines between the groups."""

    def __init__(self, vectors: np.ndarray, floor: float) -> None:
        self.vectors = vectors
        # Cosines are rounded to float32: a pair that a search calls close enough must be so here, too.
        self.floor = floor - 1e-6

    def holds(self, members: np.ndarray) -> bool:
        for start in range(0, len(members), _BLOCK):
            if not self._close(members[start : start + _BLOCK], members[start:]):
                return False
        return True

    def joins(self, a: list[int], b: list[int]) -> bool:
        return self._close(np.array(a), np.array(b))

    def _close(self, a: np.ndarray, b: np.ndarray) -> bool:
        return bool((_unit(self.vectors[a]) @ _unit(self.vectors[b]).T).min() >= self.floor)


def _merge(labels: np.ndarray, links: Pairs, within: _FromPairs | _FromVectors) -> None:
    """Joins the rows of one connected component, from its strongest link down; writes the label of each row.

    Two groups that were refused once are refused for good, since groups only grow: the memory of refusals makes all
    further links between them free.
    """
    members: dict[int, list[int]] = {}
    refused: dict[int, set[int]] = defaultdict(set)
    order = np.lexsort((links.j, links.i, -links.similarity))
    for start in range(0, len(order), _BATCH):
        batch = order[start : start + _BATCH]
        batch = batch[labels[links.i[batch]] != labels[links.j[batch]]]
        for i, j in zip(links.i[batch].tolist(), links.j[batch].tolist(), strict=True):
            a, b = int(labels[i]), int(labels[j])
            if a == b or b in refused[a]:
                continue
            first, second = members.setdefault(a, [a]), members.setdefault(b, [b])
            if not within.joins(first, second):
                refused[a].add(b)
                refused[b].add(a)
                continue
            if len(first) < len(second):
                a, b, first, second = b, a, second, first
            labels[second] = a
            first += second
            _inherit(refused, a, b)
            del members[b]


def _inherit(refused: dict[int, set[int]], a: int, b: int) -> None:
    """Whoever was refused by group ``b`` is now refused by group ``a``, which took it in."""
    for other in refused.pop(b, ()):
        refused[other].discard(b)
        refused[other].add(a)
        refused[a].add(other)


def _components(n: int, links: Pairs) -> np.ndarray:
    graph = coo_array((np.ones(len(links), bool), (links.i, links.j)), shape=(n, n))
    return connected_components(graph, directed=False)[1] if n else np.empty(0, np.int32)


def _by_component(components: np.ndarray, links: Pairs) -> Iterator[tuple[np.ndarray, Pairs]]:
    """Rows and links of each connected component that has links."""
    rows = np.argsort(components, kind="stable").astype(np.int32)
    row_ends = np.cumsum(np.bincount(components)) if len(components) else np.empty(0, np.int64)
    home = components[links.i]
    order = np.argsort(home, kind="stable")
    names, starts, counts = np.unique(home[order], return_index=True, return_counts=True)
    row_starts = np.append(0, row_ends)[:-1]
    for name, start, count in zip(names, starts, counts, strict=True):
        chosen = order[start : start + count]
        part = Pairs(links.i[chosen], links.j[chosen], links.similarity[chosen], links.threshold)
        yield rows[row_starts[name] : row_ends[name]], part


def _unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", _unit(a), _unit(b)).clip(-1.0, 1.0)
