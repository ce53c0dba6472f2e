"""Keypoints found with the help of turned views, together with what their label-free scores need."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..metrics.label_free import MatchEvidence
from .alignment import AlignConfig, AlignedMatches, AlignedQuery, Alignment, align, match_aligned, view_points
from .evidence import EvidenceQuery, match_with_evidence
from .features import ImageFeatures
from .grids import as_points
from .keypoint_groups import KeypointGroups
from .matching import MatchConfig
from .views import IDENTITY, View


@dataclass(frozen=True)
class JudgedQuery:
    """Keypoints to be found in another picture, and what helps to judge the matches.

    Attributes:
        aligned: the points, the views of the source and the target.
        mirrored_target: the described mirror image of the target; None leaves out what needs it.
        groups: partners and part groups of the points; None where they have no names.
        category: within which similarities are ranked.
        source_box, target_box: as in :class:`.evidence.EvidenceQuery`.
    """

    aligned: AlignedQuery
    mirrored_target: ImageFeatures | None = None
    groups: KeypointGroups | None = None
    category: str = ""
    source_box: float | None = None
    target_box: float | None = None


def chosen_views(
    pairs: Iterable[tuple[Mapping[View, ImageFeatures], ImageFeatures]], config: AlignConfig | None = None
) -> list[Alignment]:
    """The best view of each source.

    Args:
        pairs: the described views of each source, and its target. Where there is but one view, nothing is compared.
        config: how sources are aligned.

    Raises:
        ConfigError: as of :func:`.alignment.align`.
    """
    return [
        align(views, target, config) if len(views) > 1 else Alignment(IDENTITY, {IDENTITY: float("nan")})
        for views, target in pairs
    ]


def match_aligned_with_evidence(
    queries: Sequence[JudgedQuery],
    config: MatchConfig | None = None,
    align_config: AlignConfig | None = None,
    *,
    alignments: Sequence[Alignment] | None = None,
) -> tuple[list[AlignedMatches], MatchEvidence]:
    """As :func:`.alignment.match_aligned`, with the evidence of the matches that were taken in the end.

    Of a keypoint that was handed over to a turned view, similarities and ways back are those of the turned picture;
    what concerns pairs as wholes is that of the untouched one.

    Args:
        queries: pairs on grids of one size, at least one; some dozens at a time, for all similarities are held at once.
        config: how keypoints are matched; the round trip is always made.
        align_config: how sources are aligned.
        alignments: what :func:`chosen_views` found, where it has been asked before.

    Raises:
        ConfigError: as of :func:`.alignment.match_aligned` and :func:`.evidence.match_with_evidence`.
    """
    config = replace(config or MatchConfig(), round_trip=True)
    aligned = [one.aligned for one in queries]
    found = alignments or chosen_views(((one.views, one.target) for one in aligned), align_config)
    outcomes = match_aligned(aligned, config, align_config, alignments=found)
    plain = match_with_evidence([_plain(one) for one in queries], config)[1]
    turned = [number for number, one in enumerate(found) if one.view != IDENTITY]
    if not turned:
        return outcomes, plain
    helped = [_turned(queries[number], outcomes[number]) for number in turned]
    evidence = match_with_evidence(helped, config, instance_distances=False)[1]
    return outcomes, _merged(plain, evidence, outcomes, turned)


def _plain(query: JudgedQuery) -> EvidenceQuery:
    own = query.aligned
    points = np.where(np.asarray(own.visible, bool)[:, None], as_points(own.points), np.nan)
    return EvidenceQuery(
        own.views[IDENTITY],
        own.target,
        points,
        query.mirrored_target,
        query.groups,
        query.category,
        query.source_box,
        query.target_box,
        own.target_region,
    )


def _turned(query: JudgedQuery, outcome: AlignedMatches) -> EvidenceQuery:
    """The same question from the view that was chosen; only the rows that were handed over are used."""
    own, view = query.aligned, outcome.alignment.view
    image_hw = own.views[IDENTITY].geometry.image_hw
    points = view_points(own.points, view, image_hw, own.partners, outcome.handed_over)
    points = np.where(outcome.handed_over[:, None], points, np.nan)
    return replace(_plain(query), source=own.views[view], points=points)


def _merged(
    plain: MatchEvidence, turned: MatchEvidence, outcomes: Sequence[AlignedMatches], numbers: Sequence[int]
) -> MatchEvidence:
    handed_over = np.concatenate([one.handed_over for one in outcomes])
    rows = np.flatnonzero(handed_over & np.isin(plain.pairs, numbers))
    theirs = np.concatenate([outcomes[number].handed_over for number in numbers])

    def merge(ours: np.ndarray | None, others: np.ndarray | None) -> np.ndarray | None:
        if ours is None or others is None:
            return ours
        merged = ours.copy()
        merged[rows] = others[theirs]
        return merged

    returned = plain.returned
    if returned is not None and turned.returned is not None:
        # A way back ends in the frame of the turned picture: how far from its start is all that is carried over.
        returned = returned.copy()
        returned[rows] = plain.points[rows] + (turned.returned - turned.points)[theirs]
    similarity, matches = merge(plain.similarity, turned.similarity), merge(plain.matches, turned.matches)
    assert similarity is not None
    assert matches is not None
    return replace(
        plain,
        similarity=similarity,
        matches=matches,
        returned=returned,
        mirrored_matches=merge(plain.mirrored_matches, turned.mirrored_matches),
        reflected=merge(plain.reflected, turned.reflected),
    )
