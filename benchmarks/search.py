"""``quality search``: the box of one object is asked for; are the other pictures that show it found, and where in them?

Every box of an object that other pictures show too is a query once; its own picture is left out. A picture stands where
its best region stands, and the box of that region is the place found.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np

from ..brain.backbones import default_backbone_name, load_backbone
from ..brain.claid.descriptor import AREAS, REGION_POOLINGS
from ..brain.claid.presets import PRESETS, TOKENS, region_extractor, region_preset
from ..brain.claid.regions import RegionExtractor
from ..brain.claid.search import rank_images
from ..brain.errors import ConfigError
from ..brain.ffa import FFAExtractor, ffa_preset
from ..brain.foreground import load_foreground
from ..brain.metrics.localisation import hit_iou, mean_iou_of_hits, region_recall
from ..brain.metrics.retrieval import Norm, instance_search_scores
from .manifest import load_manifest
from .report import emit
from .search_data import Picture, read_pictures
from .search_methods import Described, describe_pictures, search_methods

# The arguments of this command that override parts of the preset.
_PIPELINE_OPTIONS = ("descriptor", "pooling", "area", "short_side", "long_side", "enlarge", "alpha", "min_patches")

RECALL_IOUS = (0.5, 0.75)


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("search", help=__doc__.partition("\n")[0], description=__doc__)
    parser.add_argument("--data", required=True, help="folder with a manifest.json of `objects`, or of an `object_id`")
    parser.add_argument("--boxes", help="JSON file of the boxes of pictures with one object (default: a packaged one)")
    parser.add_argument("--model", help="encoder of the detector: name or model folder (default: that of the preset)")
    parser.add_argument("--descriptor", help=f"network that describes regions, or '{TOKENS}' of the detector")
    parser.add_argument("--preset", default="default", choices=tuple(PRESETS))
    parser.add_argument("--short-side", type=int, help="the short side of larger images is reduced to this, in pixels")
    parser.add_argument("--long-side", type=int, help="the long side is at most this, in pixels")
    parser.add_argument("--enlarge", action=argparse.BooleanOptionalAction, help="enlarge smaller images to that size")
    parser.add_argument("--alpha", type=float, help="cosine above which two patches are linked")
    parser.add_argument("--min-patches", type=int, help="smaller regions are dropped")
    parser.add_argument("--pooling", choices=REGION_POOLINGS)
    parser.add_argument("--area", choices=AREAS, help="what is pooled of a region: its patches, or all of its box")
    parser.add_argument("--norm", default="min", choices=get_args(Norm), help="divisor of AP at k: min(k, R) or R")
    parser.add_argument("--miou-within", type=int, help="mIoU over relevant images among the first K (default: all)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--limit", type=int, help="use the first pictures only")
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures all methods and prints one row for each."""
    manifest = load_manifest(options.data)
    pictures, origin = read_pictures(replace(manifest, items=manifest.items[: options.limit]), options.boxes)
    queries = find_queries(pictures)
    if not queries:
        raise ConfigError(f"{manifest.folder}: no object is on two pictures; search cannot be measured")
    extractor, ffa = _build(options)
    print(origin)
    described = describe_pictures(search_methods(extractor, ffa), pictures)
    rows = search_rows(pictures, queries, described, options.norm, options.miou_within)
    settings = {
        **extractor.config_dict(),
        "ffa": ffa.config_dict(),
        "norm": options.norm,
        "miou_within": options.miou_within,
        "boxes": origin,
    }
    title = f"search on {manifest.name}: {len(queries)} queries among {len(pictures)} pictures"
    emit(rows, data=manifest.folder, settings=settings, json_path=options.json, title=title)


def _build(options: argparse.Namespace) -> tuple[RegionExtractor, FFAExtractor]:
    """The regions' pipeline and, with the same encoder, that of FFA."""
    name = options.model or region_preset(options.preset).backbone or default_backbone_name()
    backbone = load_backbone(name, device=options.device)
    given = {option: getattr(options, option) for option in _PIPELINE_OPTIONS}
    extractor = region_extractor(options.preset, backbone, given, device=options.device)
    preset = ffa_preset("default")
    return extractor, FFAExtractor(backbone, load_foreground(preset.foreground, device=options.device), preset.config)


@dataclass(frozen=True)
class Query:
    """One question: the object number ``which`` of a picture, which the ``relevant`` other pictures show too."""

    picture: int
    which: int
    relevant: tuple[int, ...]


def find_queries(pictures: Sequence[Picture]) -> list[Query]:
    """Every object of every picture that another picture shows as well."""
    queries = []
    for number, picture in enumerate(pictures):
        for which, name in enumerate(picture.object_ids):
            others = (other for other, one in enumerate(pictures) if other != number and name in one.object_ids)
            if relevant := tuple(others):
                queries.append(Query(number, which, relevant))
    return queries


def search_rows(
    pictures: Sequence[Picture],
    queries: Sequence[Query],
    described: Mapping[str, Sequence[Described]],
    norm: Norm = "min",
    miou_within: int | None = None,
) -> list[dict[str, Any]]:
    """The figures of every method.

    Args:
        pictures: the n pictures.
        queries: what is asked.
        described: method → what it made of each picture.
        norm: divisor of the average precision at a cut-off.
        miou_within: mIoU over the relevant pictures among this many first ones; None takes all relevant ones.
    """
    rows = []
    for method, made in described.items():
        answers = [answer(query, pictures, made) for query in queries]
        found = [one.relevance for one in answers]
        scores = instance_search_scores(found, [len(query.relevant) for query in queries], norm)
        recalls = region_recall([one.boxes for one in made], [one.boxes for one in pictures], RECALL_IOUS)
        rows.append(
            {
                "method": method,
                "map_50": scores.map_50,
                "map_100": scores.map_100,
                "map_all": scores.map_all,
                "miou": mean_iou_of_hits([a.ious for a in answers], [a.places for a in answers], miou_within),
                **{f"recall_{round(100 * iou)}": recall for iou, recall in zip(RECALL_IOUS, recalls, strict=True)},
                "regions": float(np.mean([len(one.boxes) for one in made])),
                "n": scores.n_queries,
                "seconds": float(np.mean([one.seconds for one in made])),
            }
        )
    return rows


@dataclass(frozen=True)
class Answer:
    """The answer to one query with R relevant pictures.

    Attributes:
        relevance: ``(N,)`` bool, the ranked list of the pictures that have a region.
        places: ``(R,)`` the places of the relevant pictures in it, from 1; ``inf`` for one that it lacks.
        ious: ``(R,)`` IoU of the box found in each with that of the object.
    """

    relevance: np.ndarray
    places: np.ndarray
    ious: np.ndarray


def answer(query: Query, pictures: Sequence[Picture], described: Sequence[Described]) -> Answer:
    """Ranks all pictures but the query's own by their best regions."""
    name = pictures[query.picture].object_ids[query.which]
    gallery = [number for number in range(len(pictures)) if number != query.picture]
    codes = np.repeat(gallery, [len(described[number].boxes) for number in gallery])
    boxes = np.concatenate([described[number].boxes for number in gallery])
    vectors = np.concatenate([described[number].vectors for number in gallery])
    vector = described[query.picture].queries[query.which]
    ranking = rank_images((vectors @ vector)[None], codes)
    places = {image: place for place, image in enumerate(ranking.images.tolist(), start=1)}
    at = [places.get(number) for number in query.relevant]
    ious = []
    for number, place in zip(query.relevant, at, strict=True):
        truths = pictures[number].boxes[[one == name for one in pictures[number].object_ids]]
        ious.append(hit_iou(None if place is None else boxes[ranking.rows[0, place - 1]], truths))
    relevance = np.isin(ranking.images, query.relevant)
    return Answer(relevance, np.array([np.inf if place is None else place for place in at]), np.array(ious))
