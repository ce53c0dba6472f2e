"""From pairs to duplicate groups of bounded diameter, and from groups to the roles of their members and their risk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .constraints import Constraints
from .errors import ConfigError
from .merging import linked_components, merge_listed, merge_measured
from .neighbors import Pairs

UNGROUPED = -1

# Rows of vectors handled at a time, which bounds the memory of copies.
_BLOCK = 1024


@dataclass(frozen=True)
class Groups:
    """The part that each of ``n`` images plays.

    Attributes:
        group: ``(n,)`` int32 group number, 0 being the largest group; -1 outside groups.
        size: ``(n,)`` int32 members of the image's group; 1 outside groups.
        role: ``(n,)`` text: ``"keeper"``, ``"duplicate"`` or ``"unique"``.
        of: ``(n,)`` int32 row of the most similar keeper of the group, for a keeper its own; -1 outside groups.
        similarity: ``(n,)`` float32 raw cosine to that keeper, 1 for a keeper; NaN outside groups.
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
    links: np.ndarray | None = None,
    constraints: Constraints | None = None,
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
        links: ``(p,)`` bool, which of the pairs join groups; None: all that reach the threshold. The others still tell
            how far apart rows are.
        constraints: rows that are one group whatever their distance, and rows that never share one. Rows that must be
            together are one thing seen from several sides: whoever is close to one of them is close to it.

    Returns:
        ``(n,)`` int32 labels: 0 is the largest group (of equal ones, that with the lowest row), -1 is no group.

    Raises:
        ConfigError: the threshold lies below that of the pairs, ``vectors`` are needed and absent, or constraints
            contradict one another.
    """
    joining = pairs if links is None else _subset(pairs, links)
    if threshold is not None:
        joining = joining.at_least(threshold)
    rules = Constraints() if constraints is None else constraints
    rules.check(n)
    if max_diameter is None and rules.empty:
        return rank_by_size(linked_components(n, np.stack([joining.i, joining.j], axis=1)))
    if max_diameter is None:
        return rank_by_size(merge_listed(n, joining, None, rules))
    floor = 1.0 - max_diameter
    if vectors is not None:
        return rank_by_size(merge_measured(n, joining, vectors, floor, rules))
    if floor < pairs.threshold - 1e-9:
        raise ConfigError(
            f"max_diameter={max_diameter:g} allows cosines down to {floor:g}, but pairs were kept down to"
            f" {pairs.threshold:g} only; pass the vectors, search down to {floor:g}, or lower max_diameter"
        )
    close = _subset(pairs, pairs.similarity >= np.float32(floor))
    return rank_by_size(merge_listed(n, joining, close, rules))


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


def number_parts(labels: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Numbers the parts of each group, such as the shots of an object, by falling size.

    Args:
        labels: ``(n,)`` group of each row, -1 for none.
        parts: ``(n,)`` int label of the part that a row belongs to; no part reaches beyond its group.

    Returns:
        ``(n,)`` int32 number of the part within its group: 0 is the largest (of equal ones, that with the lowest row),
        -1 outside groups.
    """
    numbers = np.full(len(labels), UNGROUPED, np.int32)
    members = np.flatnonzero(labels != UNGROUPED)
    _, first, inverse, counts = np.unique(parts[members], return_index=True, return_inverse=True, return_counts=True)
    home = labels[members[first]]
    order = np.lexsort((first, -counts, home))
    _, sizes = np.unique(home[order], return_counts=True)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    numbers[members] = rank[inverse]
    return numbers


def group_risk(
    labels: np.ndarray,
    pairs: Pairs,
    threshold: float,
    *,
    shots: np.ndarray | None = None,
    verified: np.ndarray | None = None,
) -> np.ndarray:
    """How doubtful each group is, so that a reviewer can look at the likely mistakes first.

    ``risk = 1 - (1 - border²) (1 - chain) (1 - mixed / 2) (1 - refuted)``. *border*: of the member that hangs on by
    the weakest best link, how near this is to the threshold (0: a cosine of 1; 1: just at the threshold). *chain*:
    share of the pairs of members that do not reach the threshold. *mixed*: share of the members outside of the largest
    shot. *refuted*: how sure a matcher is at most that a link joins two objects; a link that it confirms counts as so
    much stronger.

    Args:
        labels: ``(n,)`` group of each row, numbered from 0; -1 for none.
        pairs: the pairs that the groups were made of.
        threshold: least cosine of a link.
        verified: ``(p,)`` how sure a matcher is that a pair shows one object: 0 to 1, 0.5 at its threshold, NaN for
            pairs that it did not see. None: it saw none.
        shots: ``(n,)`` number of the shot within its group, 0 being the largest; None: nothing is mixed.

    Returns:
        ``(G,)`` float32 in [0, 1].
    """
    members = np.flatnonzero(labels != UNGROUPED)
    sizes = np.bincount(labels[members])
    home = labels[pairs.i]
    inside = (home == labels[pairs.j]) & (home != UNGROUPED) & (pairs.similarity >= np.float32(threshold))
    similarity, home = pairs.similarity[inside], home[inside]
    refuted = np.zeros(len(sizes), np.float32)
    if verified is not None:
        sure = np.nan_to_num(2 * verified[inside] - 1, nan=0.0).astype(np.float32)
        above = similarity - np.float32(threshold)
        similarity = similarity + (1 - similarity) * sure.clip(0) + above * sure.clip(max=0)
        np.maximum.at(refuted, home, -sure)
    best = np.full(len(labels), threshold, np.float32)
    for ends in (pairs.i[inside], pairs.j[inside]):
        np.maximum.at(best, ends, similarity)
    weakest = np.ones(len(sizes), np.float32)
    np.minimum.at(weakest, labels[members], best[members])
    border = np.clip((1.0 - weakest) / max(1.0 - threshold, 1e-6), 0.0, 1.0)
    chain = 1.0 - np.bincount(home, minlength=len(sizes)) / (sizes * (sizes - 1) / 2)
    outside = np.zeros(len(labels)) if shots is None else shots > 0
    mixed = np.bincount(labels[members], outside[members], len(sizes)) / sizes
    return (1.0 - (1.0 - border**2) * (1.0 - chain) * (1.0 - mixed / 2) * (1.0 - refuted)).astype(np.float32)


def assign_roles(
    labels: np.ndarray,
    quality: np.ndarray,
    *,
    vectors: np.ndarray | None = None,
    keepers: np.ndarray | None = None,
) -> Groups:
    """Names the keepers of each group and relates every other member to the most similar of them.

    Args:
        labels: ``(n,)`` group of each image, -1 for none.
        quality: ``(n,)`` scores; the highest of a group is kept, on a tie the first. Usually
            :meth:`.keeper.KeeperPolicy.score`.
        vectors: ``(n, d)`` the vectors of the search, for the similarity to the keeper; None for groups of
            identical images, whose similarity is 1.
        keepers: ``(n,)`` bool, whom to keep instead; a group without any keeps its best.
    """
    n = len(labels)
    rows = np.arange(n, dtype=np.int32)
    grouped = labels != UNGROUPED
    own_group = np.where(grouped, labels, labels.max(initial=0) + 1 + rows)
    _, own_group, counts = np.unique(own_group, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, -np.asarray(quality, np.float64), own_group))
    best = order[np.cumsum(counts) - counts].astype(np.int32)
    keep = np.zeros(n, bool) if keepers is None else keepers & grouped
    keep[best[np.bincount(own_group, keep, len(best)) == 0]] = True
    of = np.where(grouped, np.where(keep, rows, best[own_group]), np.int32(UNGROUPED)).astype(np.int32)
    similarity = np.where(grouped, np.float32(1), np.float32(np.nan))
    role = np.where(grouped, np.where(keep, "keeper", "duplicate"), "unique")
    if vectors is not None:
        _relate(own_group, np.flatnonzero(role == "duplicate"), order[keep[order]], vectors, of, similarity)
    return Groups(labels.astype(np.int32), counts[own_group].astype(np.int32), role, of, similarity)


def _relate(
    group: np.ndarray,
    members: np.ndarray,
    keepers: np.ndarray,
    vectors: np.ndarray,
    of: np.ndarray,
    similarity: np.ndarray,
) -> None:
    """Writes the most similar keeper of each member, and how similar it is; keepers are sorted by their group."""
    similarity[members] = -np.inf
    _, starts, counts = np.unique(group[keepers], return_index=True, return_counts=True)
    for rank in range(counts.max(initial=0)):
        rows = members[counts[group[members]] > rank]
        for start in range(0, len(rows), _BLOCK):
            chunk = rows[start : start + _BLOCK]
            candidates = keepers[starts[group[chunk]] + rank]
            cosine = _cosine(vectors[chunk], vectors[candidates])
            better = cosine > similarity[chunk]
            similarity[chunk[better]], of[chunk[better]] = cosine[better], candidates[better]


def _subset(pairs: Pairs, chosen: np.ndarray) -> Pairs:
    return Pairs(pairs.i[chosen], pairs.j[chosen], pairs.similarity[chosen], pairs.threshold)


def _unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", _unit(a), _unit(b)).clip(-1.0, 1.0)
