"""What tells a suspicious match without annotations: everything that the label-free scores look at, in one go."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import ConfigError
from ..geometry import Geometry, points_to_canvas
from ..metrics.label_free import MatchEvidence
from ..metrics.label_free_points import reflected_points
from .features import ImageFeatures
from .grids import as_points
from .instance_distance import instance_distance
from .keypoint_groups import KeypointGroups
from .matching import KeypointMatches, KeypointQuery, MatchConfig, match_keypoints


@dataclass(frozen=True)
class EvidenceQuery:
    """Points of one picture to be found in another, and what helps to judge the matches.

    Attributes:
        source, target: the described pictures, with their masks where those are known.
        points: ``(n, 2)`` ``(x, y)`` in pixels of the source picture; NaN where the source does not show them.
        mirrored_target: the described mirror image of the target; None leaves out what needs it.
        groups: partners and part groups of the n keypoints; None where they have no names: then the reflection of a
            match in its object's axis stands in for the partner's.
        category: within which similarities are ranked.
        source_box, target_box: longer side of the object's box in pixels of its picture; None takes the extent of the
            mask, or of the whole picture where there is none.
        target_region: ``(h, w)`` bool: cells of the target that may be found; None allows the whole picture.
    """

    source: ImageFeatures
    target: ImageFeatures
    points: np.ndarray
    mirrored_target: ImageFeatures | None = None
    groups: KeypointGroups | None = None
    category: str = ""
    source_box: float | None = None
    target_box: float | None = None
    target_region: np.ndarray | None = None


def match_with_evidence(
    queries: Sequence[EvidenceQuery], config: MatchConfig | None = None, *, instance_distances: bool = True
) -> tuple[list[KeypointMatches], MatchEvidence]:
    """Finds the keypoints of many pairs, and gathers what their label-free scores need.

    Args:
        queries: pairs, all on grids of the same size; give them in portions of some dozens, for the similarities of all
            are held at once.
        config: how keypoints are matched; the round trip and the similarities are always kept.
        instance_distances: compare the pictures of a pair as wholes, too, which costs more than all the rest.

    Returns:
        the matches of each query, and the evidence of all of them together, whose rows are the points in order.

    Raises:
        ConfigError: the grids differ, groups do not fit their points, or as of :func:`.matching.match_keypoints`.
    """
    _check(queries)
    config = replace(config or MatchConfig(), round_trip=True, keep_similarity=True)
    plain = [KeypointQuery(one.source, one.target, one.points, one.target_region) for one in queries]
    matches = match_keypoints(plain, config)
    counts = [len(as_points(one.points)) for one in queries]
    partners, paired, groups = _relations(queries, counts)
    distances = [_instance_distances(one) if instance_distances else (np.nan, np.nan) for one in queries]
    evidence = MatchEvidence(
        similarity=_joined([one.maps for one in matches], queries),
        cell=float(queries[0].target.geometry.patch) if queries else 1.0,
        points=_canvas([one.points for one in queries], [one.source.geometry for one in queries]),
        matches=_canvas([one.points for one in matches], [one.target.geometry for one in queries]),
        pairs=np.repeat(np.arange(len(queries)), counts),
        categories=[one.category for one in queries],
        target_box=np.array([_box(one.target, one.target_box) for one in queries]),
        source_box=np.array([_box(one.source, one.source_box) for one in queries]),
        partners=partners,
        paired=paired,
        groups=groups,
        returned=_canvas([one.returned for one in matches], [one.source.geometry for one in queries]),
        mirrored_matches=_mirrored(queries, config),
        canvas_width=np.array([one.target.geometry.canvas_hw[1] for one in queries], float),
        reflected=_reflected(queries, matches),
        imd_identity=np.array([identity for identity, _ in distances]),
        imd_mirrored=np.array([mirrored for _, mirrored in distances]),
    )
    return matches, evidence


def _check(queries: Sequence[EvidenceQuery]) -> None:
    grids = {(one.target.geometry.grid_hw, one.target.geometry.patch) for one in queries}
    if len(grids) > 1:
        raise ConfigError("targets lie on grids of different sizes; describe all of them at one size")
    for one in queries:
        if one.groups is not None and len(one.groups) != len(as_points(one.points)):
            raise ConfigError(f"{len(one.groups)} keypoints have groups, but {len(one.points)} points were given")


def _joined(maps: Sequence[np.ndarray | None], queries: Sequence[EvidenceQuery]) -> np.ndarray:
    found = [one for one in maps if one is not None]
    return np.concatenate(found) if found else np.empty((0, 1, 1), np.float32)


def _canvas(points: Sequence[np.ndarray | None], geometries: Sequence[Geometry]) -> np.ndarray:
    """Points of all queries in pixels of their canvases, ``(n, 2)``."""
    placed = [
        points_to_canvas(as_points(some), geometry)
        for some, geometry in zip(points, geometries, strict=True)
        if some is not None
    ]
    return np.concatenate([np.empty((0, 2)), *placed])


def _relations(queries: Sequence[EvidenceQuery], counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the partners that the source shows, whether there is a partner at all, and part groups."""
    partners, paired, groups = [np.empty(0, int)], [np.empty(0, bool)], [np.empty(0, int)]
    start = 0
    for query, count in zip(queries, counts, strict=True):
        own = np.arange(count)
        permutation = own if query.groups is None else query.groups.permutation
        shown = np.isfinite(as_points(query.points)).all(axis=1)
        has_partner = permutation != own
        partners.append(np.where(has_partner & shown[permutation], permutation + start, -1))
        paired.append(has_partner)
        groups.append(own if query.groups is None else query.groups.group_ids)
        start += count
    return np.concatenate(partners), np.concatenate(paired), np.concatenate(groups)


def _box(picture: ImageFeatures, given: float | None) -> float:
    """Longer side of the object in pixels of the canvas."""
    geometry = picture.geometry
    if given is not None:
        return given * max(geometry.content[2:]) / max(geometry.image_hw)
    rows, columns = np.nonzero(picture.foreground())
    return float(max(np.ptp(rows), np.ptp(columns)) + 1) * geometry.patch if len(rows) else np.nan


def _mirrored(queries: Sequence[EvidenceQuery], config: MatchConfig) -> np.ndarray | None:
    """Where the points of all queries are found in mirrored targets, in pixels of their canvases."""
    known = [one for one in queries if one.mirrored_target is not None]
    if not known:
        return None
    plain = replace(config, round_trip=False, keep_similarity=False)
    turned = [
        KeypointQuery(
            one.source,
            one.mirrored_target or one.target,
            one.points if one.mirrored_target is not None else np.full_like(as_points(one.points), np.nan),
            None if one.target_region is None else one.target_region[:, ::-1],
        )
        for one in queries
    ]
    found = match_keypoints(turned, plain)
    return _canvas([one.points for one in found], [one.target.geometry for one in turned])


def _reflected(queries: Sequence[EvidenceQuery], matches: Sequence[KeypointMatches]) -> np.ndarray | None:
    """Reflections of nameless matches in the axis of their object, in pixels of the canvas; NaN for the others."""
    if not any(query.groups is None and query.target.region is not None for query in queries):
        return None
    rows = [np.empty((0, 2))]
    for query, found in zip(queries, matches, strict=True):
        region, geometry = query.target.region, query.target.geometry
        if query.groups is None and region is not None and region.any():
            places = points_to_canvas(found.points, geometry) / geometry.patch
            rows.append(reflected_points(places, region) * geometry.patch)
        else:
            rows.append(np.full((len(found.points), 2), np.nan))
    return np.concatenate(rows)


def _instance_distances(query: EvidenceQuery) -> tuple[float, float]:
    """Of the source to the target and to its mirror image; NaN where the latter is not known."""
    if query.mirrored_target is None:
        return float("nan"), float("nan")
    identity, mirrored = (
        instance_distance(query.source.features, one.features, query.source.foreground(), one.foreground())
        for one in (query.target, query.mirrored_target)
    )
    return identity, mirrored
