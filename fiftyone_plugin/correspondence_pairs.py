"""From described pictures to the matches of their pairs, judged by annotations where there are any."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..brain.correspondence.aligned_evidence import JudgedQuery, chosen_views, match_aligned_with_evidence
from ..brain.correspondence.alignment import AlignedMatches, AlignedQuery, Alignment, match_aligned
from ..brain.correspondence.features import ImageFeatures
from ..brain.correspondence.instance_distance import instance_distance
from ..brain.correspondence.keypoint_free import keypoint_free_matches
from ..brain.correspondence.keypoint_groups import KeypointGroups, groups_from_couples
from ..brain.correspondence.views import IDENTITY, MIRROR, View
from ..brain.geometry import points_to_canvas
from ..brain.metrics.kap import KapSamples, kap_samples
from ..brain.metrics.keypoint_errors import KeypointErrors, judge_pair
from ..brain.metrics.label_free import MATCH_SCORES, PAIR_SCORES, label_free_scores
from ..brain.metrics.pck import EvaluatedPair, pck
from .correspondence_setup import CorrespondenceOptions
from .judged_pairs import evaluated_pair
from .keypoint_inputs import PairKeypoints

# What of the label-free scores a pair has by itself: there are no spheres here, and ranks are taken over all pairs.
POINT_SCORES = tuple(
    name for name in MATCH_SCORES if name not in ("sphere_angle", "sphere_disagreement", "low_similarity")
)


@dataclass(frozen=True)
class DescribedPair:
    """The described pictures of a pair.

    Attributes:
        source: in all views that are tried.
        target: untouched, and mirrored where the label-free scores ask for it.
        keypoints: to be found; None finds matches without any.
        target_mask: ``(H, W)`` bool foreground of the target at full size.
    """

    source: Mapping[View, ImageFeatures]
    target: Mapping[View, ImageFeatures]
    keypoints: PairKeypoints | None
    target_mask: np.ndarray | None


@dataclass(frozen=True, eq=False)
class PairMatches:
    """The n matches of a pair. Points are ``(x, y)`` relative to their images.

    Attributes:
        names: of the keypoints; numbers from 1 where there are none.
        source, target: ``(n, 2)`` float64.
        similarity: ``(n,)`` float cosine.
        mutual: ``(n,)`` bool: whether the way back leads to the cell that one came from.
        handed_over: ``(n,)`` bool: whether the match is that of a turned source.
        scores: label-free scores of the matches by name, ``(n,)`` each, NaN where there is none.
        pair_scores: label-free scores of the pair by name, NaN where there is none.
        view: name of the view of the source that was chosen.
        distance: instance matching distance of the untouched pictures.
        distance_mirrored: likewise to the mirrored target; NaN where it was not asked.
        category: of the object in the source.
        types: n error types; None where there is nothing to judge by.
        distances: ``(n,)`` from the true places over the reference length; NaN where the target does not show them.
        inverted: whether exchanging mirror partners mends the pair; None where there is nothing to judge by.
        pck: of the pair; NaN where no keypoint is annotated in both.
        judged: how many keypoints the PCK is of.
        kap: detections of the pair; None where similarities were not kept, or there is no box.
    """

    names: tuple[str, ...]
    source: np.ndarray
    target: np.ndarray
    similarity: np.ndarray
    mutual: np.ndarray
    handed_over: np.ndarray
    scores: Mapping[str, np.ndarray]
    pair_scores: Mapping[str, float]
    view: str
    distance: float
    distance_mirrored: float
    category: str
    types: np.ndarray | None = None
    distances: np.ndarray | None = None
    inverted: bool | None = None
    pck: float = float("nan")
    judged: int = 0
    kap: KapSamples | None = None


@dataclass(frozen=True)
class _Asked:
    """The question that a pair puts: K points in pixels of the source, and what is known of them."""

    query: AlignedQuery
    groups: KeypointGroups
    named: bool


def match_pairs(pairs: Sequence[DescribedPair], options: CorrespondenceOptions) -> list[PairMatches]:
    """Matches described pairs, a block at a time."""
    if not pairs:
        return []
    alignments = chosen_views(((pair.source, pair.target[IDENTITY]) for pair in pairs), options.align_config)
    asked = [_asked(pair, alignment, options) for pair, alignment in zip(pairs, alignments, strict=True)]
    found, facts = (_with_scores if options.label_free else _plainly)(pairs, asked, alignments, options)
    return [
        _judged(pair, one, matches, own, options)
        for pair, one, matches, own in zip(pairs, asked, found, facts, strict=True)
    ]


@dataclass(frozen=True)
class _Facts:
    """What is known of a pair besides its matches: see :class:`PairMatches`."""

    scores: Mapping[str, np.ndarray]
    pair_scores: Mapping[str, float]
    distance: float
    distance_mirrored: float
    kap: KapSamples | None = None


def _asked(pair: DescribedPair, alignment: Alignment, options: CorrespondenceOptions) -> _Asked:
    source, target = pair.source[IDENTITY], pair.target[IDENTITY]
    if pair.keypoints is None:
        points = _free_points(pair, alignment, options)
        groups = groups_from_couples([str(number + 1) for number in range(len(points))], ())
        seen = np.ones(len(points), bool)
        query = AlignedQuery(pair.source, target, points, groups.permutation, seen, seen, target.foreground())
        return _Asked(query, groups, False)
    keypoints = pair.keypoints
    points = keypoints.source * _size(source)
    visible, target_visible = (np.isfinite(one).all(1) for one in (keypoints.source, keypoints.target))
    query = AlignedQuery(pair.source, target, points, keypoints.groups.permutation, visible, target_visible)
    return _Asked(query, keypoints.groups, True)


def _free_points(pair: DescribedPair, alignment: Alignment, options: CorrespondenceOptions) -> np.ndarray:
    """``(n, 2)`` points of the untouched source that are worth matching, chosen in its best view."""
    view = alignment.view
    free = keypoint_free_matches(
        pair.source[view], pair.target[IDENTITY], options.count, decoding=options.match_config.decode
    )
    return view.original_points(free.source_points, pair.source[IDENTITY].geometry.image_hw)


def _with_scores(
    pairs: Sequence[DescribedPair],
    asked: Sequence[_Asked],
    alignments: Sequence[Alignment],
    options: CorrespondenceOptions,
) -> tuple[list[AlignedMatches], list[_Facts]]:
    queries = [
        JudgedQuery(
            one.query,
            pair.target[MIRROR],
            one.groups if one.named else None,
            "" if pair.keypoints is None else pair.keypoints.category,
        )
        for pair, one in zip(pairs, asked, strict=True)
    ]
    found, evidence = match_aligned_with_evidence(
        queries, options.match_config, options.align_config, alignments=alignments
    )
    scores = label_free_scores(evidence)
    facts = []
    for number in range(len(pairs)):
        rows = evidence.pairs == number
        facts.append(
            _Facts(
                {name: scores.matches[name][rows] for name in POINT_SCORES},
                {name: float(scores.pairs[name][number]) for name in PAIR_SCORES},
                float(evidence.imd_identity[number]) if evidence.imd_identity is not None else float("nan"),
                float(evidence.imd_mirrored[number]) if evidence.imd_mirrored is not None else float("nan"),
                _kap(pairs[number], evidence.similarity[rows], options),
            )
        )
    return found, facts


def _plainly(
    pairs: Sequence[DescribedPair],
    asked: Sequence[_Asked],
    alignments: Sequence[Alignment],
    options: CorrespondenceOptions,
) -> tuple[list[AlignedMatches], list[_Facts]]:
    queries = [one.query for one in asked]
    found = match_aligned(queries, options.match_config, options.align_config, alignments=alignments)
    facts = []
    for pair in pairs:
        source, target = pair.source[IDENTITY], pair.target[IDENTITY]
        distance = instance_distance(source.features, target.features, source.foreground(), target.foreground())
        facts.append(_Facts({}, {}, distance, float("nan")))
    return found, facts


def _judged(
    pair: DescribedPair, asked: _Asked, found: AlignedMatches, facts: _Facts, options: CorrespondenceOptions
) -> PairMatches:
    """What is stored of a pair: its matches, without the points that were not found, and their verdicts."""
    matches, target_size = found.matches, _size(pair.target[IDENTITY])
    mutual = np.zeros(len(matches.points), bool) if matches.mutual is None else matches.mutual
    kept = np.isfinite(matches.points).all(1) & asked.query.visible
    kept &= mutual | (not options.mutual_only)
    evaluated = _evaluated(pair, np.where(kept[:, None], matches.points / target_size, np.nan), options)
    errors = None if evaluated is None else _errors(pair, evaluated, options)
    share = float("nan") if evaluated is None else pck([evaluated], options.pck_flavour).value
    return PairMatches(
        names=tuple(name for name, keep in zip(asked.groups.names, kept, strict=True) if keep),
        source=(asked.query.points / _size(pair.source[IDENTITY]))[kept],
        target=(matches.points / target_size)[kept],
        similarity=matches.similarity[kept],
        mutual=mutual[kept],
        handed_over=found.handed_over[kept],
        scores={name: values[kept] for name, values in facts.scores.items()},
        pair_scores=facts.pair_scores,
        view=found.alignment.view.name,
        distance=facts.distance,
        distance_mirrored=facts.distance_mirrored,
        category="" if pair.keypoints is None else pair.keypoints.category,
        types=None if errors is None else errors.types[kept],
        distances=None if errors is None else errors.d_norm[kept],
        inverted=None if errors is None or errors.gain is None else errors.inverted,
        pck=share,
        judged=0 if evaluated is None else int(evaluated.judged.sum()),
        kap=facts.kap,
    )


def _evaluated(pair: DescribedPair, predictions: np.ndarray, options: CorrespondenceOptions) -> EvaluatedPair | None:
    """The pair as its metrics take it; None where there is nothing to judge by."""
    if pair.keypoints is None:
        return None
    image_hw = pair.target[IDENTITY].geometry.image_hw
    return evaluated_pair(pair.keypoints, predictions, image_hw, pair.target_mask, options.error_flavour.threshold)


def _kap(pair: DescribedPair, similarity: np.ndarray, options: CorrespondenceOptions) -> KapSamples | None:
    """Detections of the keypoints that the source shows; None where there is no box that their radius is a share of."""
    evaluated = _evaluated(pair, np.full((len(similarity), 2), np.nan), options)
    if evaluated is None or options.error_flavour.threshold != "box":
        return None
    geometry, shown = pair.target[IDENTITY].geometry, evaluated.source_visible
    scale = max(geometry.content[2:]) / max(geometry.image_hw)
    radius = options.error_flavour.alpha * evaluated.reference_length("box") * scale
    places = points_to_canvas(evaluated.targets, geometry)
    return kap_samples(similarity[shown], places[shown], evaluated.target_visible[shown], radius, float(geometry.patch))


def _errors(pair: DescribedPair, evaluated: EvaluatedPair, options: CorrespondenceOptions) -> KeypointErrors:
    assert pair.keypoints is not None
    return judge_pair(evaluated, pair.keypoints.groups.permutation, options.error_flavour, mask=pair.target_mask)


def _size(picture: ImageFeatures) -> np.ndarray:
    """Width and height of the picture in pixels."""
    height, width = picture.geometry.image_hw
    return np.array([width, height], np.float64)
