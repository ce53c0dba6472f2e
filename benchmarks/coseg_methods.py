"""What the methods answer on labelled pairs: how alike two pictures are, and which region they have in common."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from ..brain.backbones import Backbone
from ..brain.cosalient.baselines import always_match, orb_descriptors, orb_score
from ..brain.cosalient.comparison import PairMatcher, PairOutcome, Picture, full_size
from ..brain.ffa import FFAExtractor
from ..brain.ffa_config import ffa_preset
from ..brain.foreground.grabcut import GrabCut
from ..brain.foreground.one_pass import OnePassForeground
from ..brain.images import decode_image
from ..brain.metrics.masks import iou
from .coseg_data import LabelledPair
from .describe import TokenMemory, embed
from .foreground import read_mask
from .manifest import Item

# Images, and pairs, held in full size at a time.
_BATCH = 16

FREE, GRABCUT, FFA, ORB = "training_free", "grabcut", "ffa", "orb"


@dataclass(frozen=True)
class Answers:
    """What one method says of n pairs.

    Attributes:
        name: of the method.
        scores: ``(n,)`` how sure it is of a match, on a scale of its own.
        ious: ``(n,)`` mean of the IoU of both images' masks; NaN where it is not asked for, None for a method without
            masks.
        empty: ``(n,)`` bool, whether a mask of the pair is empty; None for a method without masks.
        threshold: the threshold that it comes with; None for a method that has none.
    """

    name: str
    scores: np.ndarray
    ious: np.ndarray | None = None
    empty: np.ndarray | None = None
    threshold: float | None = None


def matcher_answers(
    name: str, load: Callable[[bool], PairMatcher], items: Sequence[Item], pairs: Sequence[LabelledPair]
) -> Answers:
    """Answers of a pair matcher. Only masks that are compared with the truth are refined: scores do not depend on it.

    Args:
        name: of the row.
        load: gives the matcher, with refined masks or without.
        items: the images.
        pairs: rows of them.
    """
    matcher, plain = load(True), load(False)
    pictures = _described(matcher, items)
    outcomes = list(_compared(plain, pictures, pairs))
    empty = [outcome.no_common_region or not (outcome.mask_a.any() and outcome.mask_b.any()) for outcome in outcomes]
    masked = [index for index, pair in enumerate(pairs) if pair.has_masks]
    ious = np.full(len(pairs), np.nan)
    refined = _compared(matcher, pictures, [pairs[index] for index in masked])
    for done, (index, outcome) in enumerate(zip(masked, refined, strict=True)):
        if done % 50 == 0:
            print(f"{name}: masks of {done} of {len(masked)} pairs", file=sys.stderr, flush=True)
        ends = ((pairs[index].a, outcome.mask_a), (pairs[index].b, outcome.mask_b))
        ious[index] = np.mean([_iou_of(items[row], full_size(mask, pictures[row].image_hw)) for row, mask in ends])
    scores = np.array([outcome.score for outcome in outcomes])
    return Answers(name, scores, ious, np.array(empty), matcher.threshold)


def foreground_answers(items: Sequence[Item], pairs: Sequence[LabelledPair], backbone: Backbone) -> Iterator[Answers]:
    """Methods that look at one image at a time, and compare two by the cosine of their averaged tokens.

    ``grabcut`` and ``whole_image`` have masks; ``ffa`` is the vector that the package makes on its own.
    """
    config = ffa_preset("default").config
    memory = TokenMemory()
    average = FFAExtractor(backbone, None, replace(config, encode="original", pooling="patch"), memory)
    one_pass = FFAExtractor(backbone, OnePassForeground(), config, memory)
    vectors: dict[str, list[np.ndarray]] = {GRABCUT: [], "whole_image": [], FFA: []}
    found: dict[str, list[tuple[float, bool]]] = {GRABCUT: [], "whole_image": []}
    for batch, images in _images(items):
        masks = GrabCut().masks(images)
        memory.clear()
        vectors[GRABCUT].append(embed(average, images, masks))
        vectors["whole_image"].append(embed(average, images, None))
        vectors[FFA].append(embed(one_pass, images, None))
        for item, image, mask in zip(batch, images, masks, strict=True):
            bool_mask = mask > 0.5
            found[GRABCUT].append((_iou_of(item, bool_mask), not bool_mask.any()))
            found["whole_image"].append((_iou_of(item, np.ones(image.shape[:2], bool)), False))
    for name, parts in vectors.items():
        scores = _cosines(np.concatenate(parts), pairs)
        if name not in found:
            yield Answers(name, scores)
            continue
        singles, empty = (np.array(values) for values in zip(*found[name], strict=True))
        yield Answers(name, scores, _pair_means(singles, pairs), _either(empty, pairs))


def orb_answers(items: Sequence[Item], pairs: Sequence[LabelledPair]) -> Answers:
    """How many ORB features find a partner."""
    descriptors = [orb_descriptors(image) for _, images in _images(items) for image in images]
    scores = [orb_score(descriptors[pair.a], descriptors[pair.b]) for pair in pairs]
    return Answers(ORB, np.array(scores, float))


def always_answers(pairs: Sequence[LabelledPair]) -> Answers:
    """Yes to every pair."""
    return Answers("always_match", always_match(len(pairs)))


def _described(matcher: PairMatcher, items: Sequence[Item]) -> list[Picture]:
    return [
        picture
        for _, images in _images(items)
        for picture in matcher.describe([matcher.prepare(image) for image in images])
    ]


def _compared(
    matcher: PairMatcher, pictures: Sequence[Picture], pairs: Sequence[LabelledPair]
) -> Iterator[PairOutcome]:
    todo = iter(pairs)
    while batch := list(islice(todo, _BATCH)):
        yield from matcher.compare([(pictures[pair.a], pictures[pair.b]) for pair in batch])


def _images(items: Sequence[Item]) -> Iterator[tuple[Sequence[Item], list[np.ndarray]]]:
    for start in range(0, len(items), _BATCH):
        batch = items[start : start + _BATCH]
        yield batch, [decode_image(item.path) for item in batch]


def _iou_of(item: Item, mask: np.ndarray) -> float:
    return iou(mask, read_mask(item, mask))


def _cosines(vectors: np.ndarray, pairs: Sequence[LabelledPair]) -> np.ndarray:
    return np.array([float(vectors[pair.a] @ vectors[pair.b]) for pair in pairs])


def _pair_means(singles: np.ndarray, pairs: Sequence[LabelledPair]) -> np.ndarray:
    return np.array([(singles[pair.a] + singles[pair.b]) / 2 if pair.has_masks else np.nan for pair in pairs])


def _either(flags: np.ndarray, pairs: Sequence[LabelledPair]) -> np.ndarray:
    return np.array([bool(flags[pair.a] or flags[pair.b]) for pair in pairs])
