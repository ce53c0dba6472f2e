"""Alignment at test time: the source is turned the way the target faces before its keypoints are matched.

Source: Zhang et al., "Telling Left from Right" (CVPR 2024). Views of the source picture are compared as wholes with the
target; keypoints are matched from the best one, a mirrored left ear standing in for a right one. The release tries the
mirror image alone; quarter turns are added here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..errors import ConfigError
from .features import ImageFeatures
from .grids import as_points
from .instance_distance import REDUCTIONS, Reduction, instance_distance, mutual_distance
from .matching import KeypointMatches, KeypointQuery, MatchConfig, match_keypoints
from .views import IDENTITY, View

Criterion = Literal["imd", "mutual"]
Masks = Literal["both", "source"]
Visibility = Literal["source", "mutual"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "criterion": ("imd", "mutual"),
    "imd_masks": ("both", "source"),
    "imd_reduce": REDUCTIONS,
    "visibility": ("source", "mutual"),
}


@dataclass(frozen=True)
class AlignConfig:
    """How sources are aligned.

    Attributes:
        criterion: ``"imd"`` compares the foregrounds, which takes masks to mean much; ``"mutual"`` compares mutual
            nearest neighbours of the whole pictures.
        imd_masks: whether only the foreground of the target counts (``"both"``), or all of it (``"source"``).
        imd_reduce: see :func:`.instance_distance.instance_distance`.
        visibility: keypoints take part in the exchange of partners if both of a couple are visible in the source
            (``"source"``), or in both pictures (``"mutual"``, as released, which peeks at the answer).

    Raises:
        ConfigError: an option is unknown.
    """

    criterion: Criterion = "imd"
    imd_masks: Masks = "both"
    imd_reduce: Reduction = "mean"
    visibility: Visibility = "source"

    def __post_init__(self) -> None:
        for option, accepted in _CHOICES.items():
            value = getattr(self, option)
            if value not in accepted:
                raise ConfigError(f"{option}={value!r} is unknown; use one of {', '.join(accepted)}")


@dataclass(frozen=True)
class Alignment:
    """How a source picture has to be turned to face as the target does.

    Attributes:
        view: the best view: the untouched picture, unless another one is strictly nearer.
        distances: of every view that was tried; NaN where nothing could be compared.
    """

    view: View
    distances: Mapping[View, float]


@dataclass(frozen=True)
class AlignedQuery:
    """Keypoints of one picture to be found in another, with the help of turned views of the former.

    Attributes:
        views: the described source, untouched and in other views; :data:`.views.IDENTITY` must be among them.
        target: the described target.
        points: ``(n, 2)`` ``(x, y)`` in pixels of the untouched source picture.
        partners: ``(n,)`` int: the keypoint that takes the role of each in a mirrored picture; itself where it has no
            partner.
        visible: ``(n,)`` bool: which of them are visible in the source.
        target_visible: ``(n,)`` bool: which of them are visible in the target; only ``visibility="mutual"`` needs it.
        target_region: ``(h, w)`` bool: cells of the target that may be found; None allows the whole picture.
    """

    views: Mapping[View, ImageFeatures]
    target: ImageFeatures
    points: np.ndarray
    partners: np.ndarray
    visible: np.ndarray
    target_visible: np.ndarray | None = None
    target_region: np.ndarray | None = None


@dataclass(frozen=True)
class AlignedMatches:
    """Outcome of an aligned query.

    Attributes:
        matches: after alignment.
        plain: from the untouched source alone.
        alignment: which view was chosen, and why.
        handed_over: ``(n,)`` bool: keypoints whose match is that of the turned source.
    """

    matches: KeypointMatches
    plain: KeypointMatches
    alignment: Alignment
    handed_over: np.ndarray


def align(views: Mapping[View, ImageFeatures], target: ImageFeatures, config: AlignConfig | None = None) -> Alignment:
    """Chooses the view of a source picture that is nearest to a target.

    Args:
        views: the described source in all views to be tried, :data:`.views.IDENTITY` among them.
        target: the described target.
        config: None takes the defaults.

    Raises:
        ConfigError: the identity is missing.
    """
    config = config or AlignConfig()
    if IDENTITY not in views:
        raise ConfigError("views must hold the untouched picture: add views.IDENTITY")
    distances = {view: _distance(source, target, config) for view, source in views.items()}
    return Alignment(nearest_view(distances), distances)


def _distance(source: ImageFeatures, target: ImageFeatures, config: AlignConfig) -> float:
    if config.criterion == "mutual":
        return mutual_distance(source.features, target.features, source.valid, target.valid)
    allowed = target.foreground() if config.imd_masks == "both" else target.valid
    return instance_distance(source.features, target.features, source.foreground(), allowed, reduce=config.imd_reduce)


def nearest_view(distances: Mapping[View, float]) -> View:
    """The view with the least distance; the identity, unless another one is strictly nearer. NaN is never nearer."""
    best, least = IDENTITY, distances[IDENTITY]
    for view, distance in distances.items():
        if distance < least:
            best, least = view, distance
    return best


def mirrored_order(partners: np.ndarray, visible: np.ndarray | None = None) -> np.ndarray:
    """Whose place each keypoint takes in a mirrored picture.

    Args:
        partners: ``(n,)`` int permutation that is its own inverse: 3 stands in place 2 where 2 stands in place 3.
        visible: ``(n,)`` bool: only where both of a couple are visible do they change places; None exchanges all.

    Returns:
        ``(n,)`` int64.

    Raises:
        ConfigError: ``partners`` is no such permutation.
    """
    partners = np.asarray(partners, np.int64)
    own = np.arange(len(partners))
    if partners.ndim != 1 or ((partners < 0) | (partners >= len(partners))).any() or (partners[partners] != own).any():
        raise ConfigError("partners must name, for each keypoint, its mirror partner or itself, in both directions")
    if visible is None:
        return partners
    visible = np.asarray(visible, bool)
    return np.where(visible & visible[partners], partners, own)


def view_points(
    points: np.ndarray, view: View, image_hw: tuple[int, int], partners: np.ndarray, visible: np.ndarray
) -> np.ndarray:
    """Where in a view of the source to look for what each keypoint of the target corresponds to.

    Args:
        points: ``(n, 2)`` pixels of the untouched source.
        view: how it was turned.
        image_hw: its height and width.
        partners: as in :class:`AlignedQuery`.
        visible: ``(n,)`` bool: which keypoints take part in the exchange.

    Returns:
        ``(n, 2)`` float64 pixels of the view; in a mirrored one, couples of visible partners have changed places.
    """
    turned = view.points(points, image_hw)
    return turned[mirrored_order(partners, visible)] if view.mirrored else turned


def hand_over(view: View, partners: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Which keypoints go by the match from a turned view: in a mirrored one, those that are visible with their partner.

    Returns:
        ``(n,)`` bool; none for the untouched picture, all visible ones for a rotated one.
    """
    visible = np.asarray(visible, bool)
    if view == IDENTITY:
        return np.zeros(len(visible), bool)
    return visible & visible[np.asarray(partners, np.int64)] if view.mirrored else visible


def match_aligned(
    queries: Sequence[AlignedQuery],
    config: MatchConfig | None = None,
    align_config: AlignConfig | None = None,
    *,
    alignments: Sequence[Alignment] | None = None,
) -> list[AlignedMatches]:
    """Finds keypoints of many pairs, from sources turned the way their targets face.

    Args:
        queries: the pairs.
        config: how keypoints are matched.
        align_config: how sources are aligned.
        alignments: what :func:`align` found, where it has been asked before.

    Raises:
        ConfigError: as of :func:`align` and :func:`.matching.match_keypoints`, or partners or visibility do not fit the
            points.
    """
    settings = align_config or AlignConfig()
    lending = [_lending(query, settings.visibility) for query in queries]
    found = alignments or [align(query.views, query.target, settings) for query in queries]
    turned = [index for index, alignment in enumerate(found) if alignment.view != IDENTITY]
    plain = [_query(query, IDENTITY, visible) for query, visible in zip(queries, lending, strict=True)]
    aligned = [_query(queries[index], found[index].view, lending[index]) for index in turned]
    matches = match_keypoints([*plain, *aligned], config)
    helped = dict(zip(turned, matches[len(plain) :], strict=True))
    outcomes = []
    for index, (query, alignment) in enumerate(zip(queries, found, strict=True)):
        chosen = hand_over(alignment.view, query.partners, lending[index])
        own = matches[index]
        merged = _merged(query, own, helped[index], alignment.view, chosen) if index in helped else own
        outcomes.append(AlignedMatches(merged, own, alignment, chosen))
    return outcomes


def _lending(query: AlignedQuery, visibility: Visibility) -> np.ndarray:
    """``(n,)`` bool: which keypoints take part in the exchange of partners."""
    visible = np.asarray(query.visible, bool)
    if visibility == "mutual":
        if query.target_visible is None:
            raise ConfigError("visibility='mutual' needs target_visible; use visibility='source' without it")
        visible = visible & np.asarray(query.target_visible, bool)
    if not len(as_points(query.points)) == len(query.partners) == len(visible):
        raise ConfigError(
            f"{len(query.points)} points, {len(query.partners)} partners and {len(visible)} visible flags;"
            " give one of each per keypoint"
        )
    return visible


def _query(query: AlignedQuery, view: View, visible: np.ndarray) -> KeypointQuery:
    points = as_points(query.points)
    if view != IDENTITY:
        image_hw = query.views[IDENTITY].geometry.image_hw
        points = view_points(points, view, image_hw, query.partners, visible)
    return KeypointQuery(query.views[view], query.target, points, query.target_region)


def _merged(
    query: AlignedQuery, plain: KeypointMatches, turned: KeypointMatches, view: View, chosen: np.ndarray
) -> KeypointMatches:
    """The matches of the turned source where chosen, the others as they were; sources stay in the untouched picture."""
    merged = replace(
        plain,
        points=np.where(chosen[:, None], turned.points, plain.points),
        similarity=np.where(chosen, turned.similarity, plain.similarity),
        cells=np.where(chosen, turned.cells, plain.cells),
    )
    if plain.returned is None or turned.returned is None or plain.mutual is None or turned.mutual is None:
        return merged
    # A round trip through the mirror ends at the place of the partner, whose role one had played.
    back = view.original_points(turned.returned, query.views[IDENTITY].geometry.image_hw)
    return replace(
        merged,
        returned=np.where(chosen[:, None], back, plain.returned),
        mutual=np.where(chosen, turned.mutual, plain.mutual),
    )
