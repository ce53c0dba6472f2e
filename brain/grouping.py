"""From pairs to duplicate groups of bounded diameter, and from groups to the roles of their members."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .errors import ConfigError
from .neighbors import Pairs

UNGROUPED = -1


@dataclass(frozen=True)
class Groups:
    """The part that each of ``n`` images plays.

    Attributes:
        group: ``(n,)`` int32 group number, 0 being the largest group; -1 outside groups.
        size: ``(n,)`` int32 members of the image's group; 1 outside groups.
        role: ``(n,)`` text: ``"keeper"``, ``"duplicate"`` or ``"unique"``.
        of: ``(n,)`` int32 row of the group's keeper; -1 outside groups. A keeper points at itself.
        similarity: ``(n,)`` float32 raw cosine to the keeper; 1 for the keeper, NaN outside groups.
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
    """Groups rows that are linked by pairs.

    Returns:
        ``(n,)`` int32 labels: 0 is the largest group (ties: the one with the lowest row first), -1 in no group.
    """
    links = pairs if threshold is None else pairs.at_least(threshold)
    graph = coo_array((np.ones(len(links), bool), (links.i, links.j)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1] if n else np.empty(0, np.int32)
    return rank_by_size(labels)


def rank_by_size(labels: np.ndarray) -> np.ndarray:
    """Renumbers groups by falling size (ties: the lowest member first); groups of one become -1."""
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    rank[counts < 2] = UNGROUPED
    return rank[inverse]


def equal_groups(digests: list[str | None]) -> np.ndarray:
    """``(n,)`` int32 labels as of :func:`group_pairs` for equal digests; None (a failed image) is in no group."""
    names = [f"failed {row}" if digest is None else f"digest {digest}" for row, digest in enumerate(digests)]
    return rank_by_size(np.unique(names, return_inverse=True)[1]) if names else np.empty(0, np.int32)


def assign_roles(
    labels: np.ndarray,
    quality: np.ndarray,
    *,
    vectors: np.ndarray | None = None,
) -> Groups:
    """Names a keeper in each group and relates the other members to it.

    Args:
        labels: ``(n,)`` group of each image, -1 for none.
        quality: ``(n,)`` score, the highest of a group is kept; on a tie the first. Usually
            :meth:`.keeper.KeeperPolicy.score`.
        vectors: ``(n, d)`` the vectors of the search, for the similarity to the keeper; None for groups of
            identical images, whose similarity is 1.
    """
    n = len(labels)
    order = np.lexsort((np.arange(n), -quality, labels))
    starts = np.flatnonzero(np.diff(labels[order], prepend=np.int64(-2)))
    counts = np.diff(np.append(starts, n))
    of = np.empty(n, np.int32)
    size = np.empty(n, np.int32)
    of[order] = np.repeat(order[starts], counts)
    size[order] = np.repeat(counts, counts)
    grouped = labels != UNGROUPED
    of[~grouped], size[~grouped] = UNGROUPED, 1
    role = np.where(grouped, np.where(of == np.arange(n), "keeper", "duplicate"), "unique")
    similarity = np.where(grouped, np.float32(1), np.float32(np.nan))
    if vectors is not None:
        members = np.flatnonzero(role == "duplicate")
        similarity[members] = _cosine(vectors[members], vectors[of[members]])
    return Groups(labels.astype(np.int32), size, role, of, similarity)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float32), b.astype(np.float32)
    product = np.einsum("nd,nd->n", a, b)
    return product / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
