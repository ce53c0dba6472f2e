"""The methods that `quality search` compares: what they cut an image into, and how they describe it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..brain.claid.regions import RegionExtractor
from ..brain.ffa import FFAExtractor
from ..brain.images import decode_image
from .search_data import Picture

# Cells along each axis and the side of one, in shares of the image's: the whole image, quarters, overlapping quarters
# every eighth of the way, sixteenths.
_GRID = ((1, 1.0), (2, 1 / 2), (3, 1 / 2), (4, 1 / 4))
GRID_BOXES = sum(n * n for n, _ in _GRID)

# From an image ``(H, W, 3)`` to the boxes ``(R, 4)``, corners in pixels, and unit vectors ``(R, D)`` of its regions.
RegionMaker = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
# From an image and boxes on it to their unit vectors ``(T, D)``.
QueryMaker = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """One method: the regions of an image, and the vectors of query boxes that are compared with them."""

    regions: RegionMaker
    queries: QueryMaker


@dataclass(frozen=True)
class Described:
    """What a method made of one picture.

    Attributes:
        boxes: ``(R, 4)`` corners of its regions, in pixels.
        vectors: ``(R, D)`` unit vectors of its regions.
        queries: ``(T, D)`` unit vectors of the picture's objects, asked for by their boxes.
        seconds: time that finding and describing the regions took.
    """

    boxes: np.ndarray
    vectors: np.ndarray
    queries: np.ndarray
    seconds: float


def search_methods(extractor: RegionExtractor, ffa: FFAExtractor) -> dict[str, Method]:
    """All methods by name; those of the extractor share its descriptor and thus their queries."""
    return {
        "claid": Method(lambda image: _claid(extractor, image), extractor.describe),
        "grid": Method(lambda image: _fixed(extractor, image, grid_boxes(image.shape[:2])), extractor.describe),
        "full_image": Method(lambda image: _fixed(extractor, image, _whole(image)), extractor.describe),
        "ffa": Method(lambda image: _ffa(ffa, image), lambda image, boxes: _ffa_objects(ffa, image, boxes)),
    }


def describe_pictures(methods: Mapping[str, Method], pictures: Sequence[Picture]) -> dict[str, list[Described]]:
    """What each method makes of each picture, and of ``claid+image``: the regions and the whole image as one more."""
    described: dict[str, list[Described]] = {name: [] for name in methods}
    for method in methods.values():
        # The first call compiles and allocates, which is not to be timed.
        method.regions(decode_image(pictures[0].item.path))
    for picture in pictures:
        image = decode_image(picture.item.path)
        queries: dict[QueryMaker, np.ndarray] = {}
        for name, method in methods.items():
            if method.queries not in queries:
                queries[method.queries] = method.queries(image, picture.boxes)
            start = time.perf_counter()
            boxes, vectors = method.regions(image)
            seconds = time.perf_counter() - start
            described[name].append(Described(boxes, vectors, queries[method.queries], seconds))
    if {"claid", "full_image"} <= described.keys():
        both = zip(described["claid"], described["full_image"], strict=True)
        described["claid+image"] = [_joined(regions, whole) for regions, whole in both]
    return described


def grid_boxes(image_hw: tuple[int, ...]) -> np.ndarray:
    """``(GRID_BOXES, 4)`` boxes that take no notice of what is on the image."""
    height, width = image_hw[:2]
    boxes = []
    for n, side in _GRID:
        starts = np.linspace(0, 1 - side, n)
        boxes += [(x * width, y * height, (x + side) * width, (y + side) * height) for y in starts for x in starts]
    return np.array(boxes)


def _claid(extractor: RegionExtractor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (regions,) = extractor.extract([extractor.prepare(image)])
    return regions.boxes, regions.vectors


def _fixed(extractor: RegionExtractor, image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return boxes, extractor.describe(image, boxes)


def _ffa(extractor: FFAExtractor, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (result,) = extractor.embed([extractor.prepare(image)])
    return _whole(image), result.vector[None]


def _ffa_objects(extractor: FFAExtractor, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """FFA vectors of crops around boxes."""
    sides = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    return np.array([result.vector for result in extractor.embed_objects(image, sides)]).reshape(len(boxes), -1)


def _whole(image: np.ndarray) -> np.ndarray:
    return np.array([[0.0, 0.0, image.shape[1], image.shape[0]]])


def _joined(one: Described, other: Described) -> Described:
    return Described(
        np.concatenate([one.boxes, other.boxes]),
        np.concatenate([one.vectors, other.vectors]),
        one.queries,
        one.seconds + other.seconds,
    )
