"""``quality embedded``: what the embedded models have learned, beside their untrained twin, colour and hashes."""

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..brain.backbones import Backbone, load_backbone
from ..brain.backbones.catalog import EMBEDDED, HYBRID, UNTRAINED
from ..brain.backbones.embedded import embedded_folder
from ..brain.backbones.hub import find_model_folder
from ..brain.backbones.hybrid import HybridBackbone
from ..brain.errors import ConfigError
from ..brain.ffa import FFAConfig, FFAExtractor
from ..brain.foreground import load_foreground
from ..brain.metrics.retrieval import retrieval_scores
from .describe import Describer, TokenMemory, pixel_masks, similarity_of
from .embedded_criteria import FFA_GRABCUT, FFA_ONE_PASS, FULL_AVERAGE, LIGHTING, PCK, WILD, column, criteria
from .keypoints import RAW_COLOUR, ColourDescriptor, Descriptor, TokenDescriptor, measure, read_cases
from .manifest import Item, load_manifest
from .report import emit
from .untrained import write_untrained_twin

MODELS = (EMBEDDED, HYBRID)
TWIN = "untrained twin"
HYBRID_TWIN = "untrained twin-hybrid"


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("embedded", help=__doc__, description=__doc__)
    parser.add_argument("--data", required=True, help="photographs of objects: manifest.json with an object_id each")
    parser.add_argument("--turntable", help="folder whose manifest.json has a group `lighting` with object_ids")
    parser.add_argument("--keypoints", help="folder with a manifest.json as `quality keypoints` takes it")
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="names or folders (default: %(default)s); the first gets the twin"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Prints one table, a row per method, and a line per criterion."""
    sets = _read_sets(options)
    trained = _load_trained(options.models, options.device)
    untrained = _load_untrained(options.models[0], trained, options.device)
    backbones = {**trained, **untrained}
    rows = identity_rows(backbones, sets, options.batch_size)
    if options.keypoints:
        rows = with_keypoints(rows, backbones, options.keypoints)
    settings = {"weights_hashes": {name: backbone.weights_hash for name, backbone in backbones.items()}}
    sizes = ", ".join(f"{name} ({len(items)} images)" for name, items in sets.items())
    title = f"{' and '.join(trained)} on {sizes}"
    emit(rows, data=options.data, settings=settings, json_path=options.json, title=title, markdown=True)
    print()
    for criterion in criteria(rows, {name: _rivals(backbone, untrained) for name, backbone in trained.items()}):
        print(criterion.line())


def _read_sets(options: argparse.Namespace) -> dict[str, list[Item]]:
    """The images to be told apart, by the name of their set."""
    sets = {WILD: [item for item in load_manifest(options.data).items if item.object_id is not None]}
    if options.turntable:
        items = load_manifest(options.turntable, require=["object_id"]).items
        sets[LIGHTING] = [item for item in items if item.group == "lighting"]
    for name, items in sets.items():
        if len(items) < 2:
            raise ConfigError(f"the set {name!r} has fewer than two images with an object_id; give another folder")
    return sets


def _load_trained(names: Sequence[str], device: str) -> dict[str, Backbone]:
    """The models to be judged, by their names."""
    backbones = [load_backbone(name, device=device) for name in names]
    return {backbone.name: backbone for backbone in backbones}


def _load_untrained(first: str, trained: Mapping[str, Backbone], device: str) -> dict[str, Backbone]:
    """The untrained twin of the first model, where that has a folder, and the model that the package falls back to.

    The two differ: the fallback's architecture and initial weights were chosen to be good without training. If a hybrid
    is among the trained models there is a hybrid twin, too: colour statistics alone do much.
    """
    untrained: dict[str, Backbone] = {}
    source = _folder_of(first)
    if source is not None:
        with tempfile.TemporaryDirectory(prefix="selfsame-twin-") as folder:
            untrained[TWIN] = load_backbone(write_untrained_twin(source, Path(folder)), device=device)
        if any(isinstance(backbone, HybridBackbone) for backbone in trained.values()):
            untrained[HYBRID_TWIN] = HybridBackbone(untrained[TWIN])
    return {**untrained, UNTRAINED: load_backbone(UNTRAINED, device=device)}


def _rivals(backbone: Backbone, untrained: Mapping[str, Backbone]) -> list[str]:
    """The untrained models that a trained one has to beat: colour statistics only where it has them itself."""
    return [name for name in untrained if name != HYBRID_TWIN or isinstance(backbone, HybridBackbone)]


def _folder_of(model: str) -> Path | None:
    if model in MODELS:
        own = embedded_folder()
        return None if own is None else own.path
    return None if model == UNTRAINED else find_model_folder(model)


def identity_rows(
    backbones: Mapping[str, Backbone], sets: Mapping[str, Sequence[Item]], batch_size: int
) -> list[dict[str, Any]]:
    """Top-1 and mAP of every method on every set, in colour and without; gallery: all other images of the set.

    Returns:
        one row per method with ``model`` (None for methods without one), ``method``, and the figures of all sets in
        the columns that :func:`column` names.
    """
    memory = TokenMemory()
    methods = {
        f"{name} {method}": (name, method, extractor)
        for name, backbone in backbones.items()
        for method, extractor in _extractors(backbone, memory).items()
    }
    extractors = {key: extractor for key, (_, _, extractor) in methods.items()}
    masked = {key for key, (_, method, _) in methods.items() if method == FFA_GRABCUT}
    masks = pixel_masks(load_foreground("grabcut"))
    rows: dict[str, dict[str, Any]] = {
        key: {"model": model, "method": method} for key, (model, method, _) in methods.items()
    }
    for name, items in sets.items():
        objects = [item.object_id for item in items]
        for grey in (False, True):
            describer = Describer(extractors, memory, masks=masks, masked=masked, grey=grey)
            for key, vectors in describer.collect(items, batch_size).items():
                scores = retrieval_scores(similarity_of(key, vectors), objects)
                figures = {column(name, "top1", grey): scores.top1, column(name, "map", grey): scores.map}
                rows.setdefault(key, {"model": None, "method": key}).update(figures)
            chance = {column(name, "top1", grey): scores.chance_top1, column(name, "map", grey): scores.chance_map}
            rows.setdefault("chance", {"model": None, "method": "chance"}).update(chance)
    return list(rows.values())


def _extractors(backbone: Backbone, memory: TokenMemory) -> dict[str, FFAExtractor]:
    """The ways to make a vector of one encoder's tokens; one forward pass serves them all."""
    config = FFAConfig()
    return {
        FFA_ONE_PASS: FFAExtractor(backbone, load_foreground("one_pass"), config, memory),
        FFA_GRABCUT: FFAExtractor(backbone, None, config, memory),
        FULL_AVERAGE: FFAExtractor(backbone, None, config, memory),
        "class_token": FFAExtractor(backbone, None, replace(config, pooling="cls"), memory),
    }


def with_keypoints(
    rows: Sequence[dict[str, Any]], backbones: Mapping[str, Backbone], data: str
) -> list[dict[str, Any]]:
    """The rows with PCK@0.1 per point: on the first row of each encoder, whose vectors it does not depend on.

    Raises:
        ConfigError: as :func:`.keypoints.read_cases`.
    """
    first = next(iter(backbones.values()))
    methods: dict[str, Descriptor] = {name: TokenDescriptor(backbone) for name, backbone in backbones.items()}
    methods[RAW_COLOUR] = ColourDescriptor(first.default_size, first.patch_size)
    found = measure(methods, read_cases(load_manifest(data)))
    pck = {row["method"]: row["pck_per_point"] for row in found if row["group"] == "all"}
    told = [{**row, PCK: pck[row["model"]]} if row["method"] == FFA_ONE_PASS else row for row in rows]
    return [*told, {"model": None, "method": RAW_COLOUR, PCK: pck[RAW_COLOUR]}]
