"""Answers to keypoint questions: each picture is described once, and matched with and without its mirror image."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..brain.correspondence.aligned_evidence import JudgedQuery, chosen_views, match_aligned_with_evidence
from ..brain.correspondence.alignment import AlignConfig, AlignedMatches, AlignedQuery, Alignment, match_aligned
from ..brain.correspondence.decoding import DecodeConfig
from ..brain.correspondence.features import FeatureExtractor, ImageFeatures
from ..brain.correspondence.matching import MatchConfig
from ..brain.correspondence.views import IDENTITY, MIRROR, MIRROR_VIEWS, View
from ..brain.metrics.label_free import MatchEvidence
from .describe import read_image
from .foreground import read_mask
from .keypoints_data import Question
from .manifest import Item

Features = Mapping[tuple[str, View], ImageFeatures]

DECODINGS = ("nearest", "window")
# Whole foregrounds compared, mutual neighbours of whole pictures compared, and the truth, which nobody has.
NONE, INSTANCE, MUTUAL, TRUE_POSE = "none", "imd", "mutual", "true_pose"
ALIGNMENTS = (NONE, INSTANCE, MUTUAL, TRUE_POSE)

# Of these the similarities to all cells are held, too.
JUDGED = (("window", NONE), ("window", INSTANCE))


@dataclass(frozen=True, eq=False)
class Answers:
    """What became of all questions.

    Attributes:
        decoding: one of :data:`DECODINGS`.
        alignment: one of :data:`ALIGNMENTS`.
        outcomes: one per question.
        evidence: of all matches together; None but for :data:`JUDGED`.
    """

    decoding: str
    alignment: str
    outcomes: Sequence[AlignedMatches]
    evidence: MatchEvidence | None


def describe_items(extractor: FeatureExtractor, items: Sequence[Item], *, grey: bool) -> Features:
    """Features of pictures as they are and mirrored, by the id of the item and the view.

    The object is where the mask says, or the box; without both it is the whole picture.
    """
    found: dict[tuple[str, View], ImageFeatures] = {}
    for item in items:
        image = read_image(item, grey=grey)
        mask = _mask(item, image)
        prepared = [extractor.prepare(image, mask, view=view) for view in MIRROR_VIEWS]
        found.update(zip([(item.id, view) for view in MIRROR_VIEWS], extractor.describe(prepared), strict=True))
    return found


def answer(
    questions: Sequence[Question], features: Features, alignments: Sequence[str] = ALIGNMENTS
) -> Iterator[Answers]:
    """Answers in every way: both decodings, each with every alignment.

    Args:
        questions: at least one.
        features: of their pictures, see :func:`describe_items`.
        alignments: those to try.
    """
    for alignment in alignments:
        chosen = _chosen(questions, features, alignment)
        queries = [_judged(one, features) for one in questions]
        for decoding in DECODINGS:
            config = MatchConfig(DecodeConfig(decoding))
            if (decoding, alignment) in JUDGED:
                outcomes, evidence = match_aligned_with_evidence(queries, config, alignments=chosen)
            else:
                outcomes = match_aligned([one.aligned for one in queries], config, alignments=chosen)
                evidence = None
            yield Answers(decoding, alignment, outcomes, evidence)


def _chosen(questions: Sequence[Question], features: Features, alignment: str) -> list[Alignment]:
    if alignment == NONE:
        return [Alignment(IDENTITY, {}) for _ in questions]
    if alignment == TRUE_POSE:
        return [Alignment(MIRROR if one.pose > 0 else IDENTITY, {}) for one in questions]
    pairs = [(_views(one, features), features[one.target.id, one.target_view]) for one in questions]
    return chosen_views(pairs, AlignConfig(criterion="imd" if alignment == INSTANCE else "mutual"))


def _views(question: Question, features: Features) -> dict[View, ImageFeatures]:
    return {view: features[question.source.id, view] for view in MIRROR_VIEWS}


def _judged(question: Question, features: Features) -> JudgedQuery:
    other = MIRROR if question.target_view == IDENTITY else IDENTITY
    boxes = [item.extra.get("bbox") for item in (question.source, question.target)]
    source_box, target_box = (float(max(box[2:])) if box else None for box in boxes)
    return JudgedQuery(
        AlignedQuery(
            _views(question, features),
            features[question.target.id, question.target_view],
            question.points,
            question.groups.permutation,
            question.shown,
        ),
        features[question.target.id, other],
        question.groups,
        question.category,
        source_box,
        target_box,
    )


def _mask(item: Item, image: np.ndarray) -> np.ndarray | None:
    if item.mask_path is not None:
        return read_mask(item, image)
    box = item.extra.get("bbox")
    if box is None:
        return None
    x, y, width, height = (round(value) for value in box)
    mask = np.zeros(image.shape[:2], bool)
    mask[max(y, 0) : y + height, max(x, 0) : x + width] = True
    return mask
