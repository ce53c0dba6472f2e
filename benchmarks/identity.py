"""``quality identity``: do images of one object find each other? FFA beside simpler vectors and baselines."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..brain.backbones import default_backbone_name, load_backbone
from ..brain.errors import ConfigError
from ..brain.ffa import FFAExtractor, ffa_preset
from ..brain.ffa_config import ENCODES, POOLINGS, PRESETS
from ..brain.ffa_weights import WEIGHT_MODES
from ..brain.foreground import load_foreground
from ..brain.geometry import RESIZE_MODES
from ..brain.images import decode_image
from ..brain.metrics.clustering import clustering_scores
from ..brain.metrics.retrieval import retrieval_scores
from .clusters import cluster_rows, second_look
from .describe import HAS_IMAGEHASH, Describer, TokenMemory, pixel_masks, similarity_of
from .manifest import Item, load_manifest
from .report import emit

# The manifest's own masks as foreground, which shows what a perfect foreground method would give.
GIVEN_MASKS = "mask"


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("identity", help=__doc__, description=__doc__)
    parser.add_argument("--data", required=True, help="folder with a manifest.json whose items have an object_id")
    parser.add_argument("--model", help="backbone name or model folder (default: that of the preset)")
    parser.add_argument("--foreground", help=f"foreground method, 'none', or '{GIVEN_MASKS}' for the manifest's masks")
    parser.add_argument("--preset", default="default", choices=tuple(PRESETS))
    parser.add_argument("--encode", choices=ENCODES)
    parser.add_argument("--pooling", choices=POOLINGS)
    parser.add_argument("--weights", choices=WEIGHT_MODES)
    parser.add_argument("--resize", choices=RESIZE_MODES)
    parser.add_argument("--size", type=int, help="side of the encoder's input in pixels")
    parser.add_argument("--grey", action="store_true", help="take the colour out of all images first")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--json", help="file to write the rows to; those of the clusters go beside it")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures all methods, and prints one row per method, group and scope and one per way to cluster FFA vectors."""
    manifest = load_manifest(options.data)
    items = [item for item in manifest.items if item.object_id is not None]
    if len(items) < 2:
        raise ConfigError(f"{manifest.folder}: fewer than two items have an object_id; identity cannot be measured")
    if len(items) < len(manifest.items):
        print(f"{len(manifest.items) - len(items)} of {len(manifest.items)} items have no object_id and are left out")
    if not HAS_IMAGEHASH:
        print("no phash row: the package imagehash is not installed (pip install 'fiftyone-selfsame[bench]')")
    extractors, describer, settings = _methods(options)
    vectors = describer.collect(items, options.batch_size)
    title = f"{manifest.name}: {len(items)} images, {len({item.object_id for item in items})} objects"
    rows = identity_rows(vectors, items)
    emit(rows, data=manifest.folder, settings=settings, json_path=options.json, title=f"identity on {title}")
    masks = _given_masks if settings["foreground"] == GIVEN_MASKS else None
    look = second_look(extractors["ffa"], items, masks=masks, grey=options.grey, batch_size=options.batch_size)
    found = cluster_rows(vectors["ffa"], [item.object_id for item in items], look)
    path = options.json and Path(options.json).with_suffix(".clusters.json")
    emit(found, data=manifest.folder, settings=settings, json_path=path, title=f"clusters of FFA vectors on {title}")


def identity_rows(vectors: dict[str, np.ndarray], items: Sequence[Item]) -> list[dict[str, Any]]:
    """Figures of every method in every group and scope.

    Args:
        vectors: method → ``(n, d)`` unit vectors.
        items: the n images.
    """
    rows = []
    for group, members in groups(items).items():
        objects = [items[index].object_id for index in members]
        categories = [items[index].category for index in members]
        known = None if None in categories else categories
        for scope in ("all",) if known is None else ("all", "category"):
            scope_ids = known if scope == "category" else None
            for method, matrix in vectors.items():
                row = {"method": method, "group": group, "scope": scope}
                rows.append({**row, **_figures(method, matrix[members], objects, scope_ids, known)})
    return rows


def groups(items: Sequence[Item]) -> dict[str, list[int]]:
    """The groups of the protocol, name → indices: everything, each group of the manifest, and relit frames.

    Relit images are made from one frame of the pose group; the protocol also asks for them together with that frame.
    """
    found = {"all": list(range(len(items)))}
    for name in sorted({item.group for item in items if item.group is not None}):
        found[name] = [index for index, item in enumerate(items) if item.group == name]
    base = [index for index, item in enumerate(items) if item.extra.get("view") == "pose00" and item.group == "pose"]
    if "lighting" in found and base:
        found["lighting+pose00"] = sorted(found["lighting"] + base)
    return found


def _figures(
    method: str, vectors: np.ndarray, objects: list, scope_ids: list | None, categories: list | None
) -> dict[str, Any]:
    similarity = similarity_of(method, vectors)
    found = retrieval_scores(similarity, objects, scope_ids, categories)
    clusters = clustering_scores(similarity, objects, scope_ids, vectors)
    return {
        "top1": found.top1,
        "map": found.map,
        "macro_map": found.macro_map,
        "ari": clusters.ari,
        "ari_kmeans": clusters.ari_kmeans,
        "ari_free": clusters.ari_free,
        "chance_top1": found.chance_top1,
        "chance_map": found.chance_map,
        "n": found.n_queries,
        "skipped": found.n_skipped,
    }


def build_describer(options: argparse.Namespace) -> tuple[Describer, dict[str, Any]]:
    """The methods that the options of this command ask for, and the settings to report."""
    return _methods(options)[1:]


def _methods(options: argparse.Namespace) -> tuple[dict[str, FFAExtractor], Describer, dict[str, Any]]:
    preset = ffa_preset(options.preset)
    chosen = ("encode", "pooling", "weights", "resize", "size")
    config = preset.config_with(**{name: getattr(options, name) for name in chosen})
    plain = replace(config, encode="original", pooling="patch")
    backbone = load_backbone(options.model or preset.backbone or default_backbone_name(), device=options.device)
    name = options.foreground or preset.foreground
    foreground = None if name == GIVEN_MASKS else load_foreground(name, device=options.device)
    memory = TokenMemory()
    extractors = {
        "full_average": FFAExtractor(backbone, None, plain, memory),
        "class_token": FFAExtractor(backbone, None, replace(plain, pooling="cls"), memory),
        "ffa": FFAExtractor(backbone, foreground, config, memory),
    }
    masks = _given_masks if name == GIVEN_MASKS else pixel_masks(foreground)
    settings = {**extractors["ffa"].config_dict(), "foreground": name, "grey": options.grey}
    return extractors, Describer(extractors, memory, masks=masks, masked={"ffa"}, grey=options.grey), settings


def _given_masks(items: Sequence[Item], images: list[np.ndarray]) -> list[np.ndarray]:
    return [_read_mask(item) for item in items]


def _read_mask(item: Item) -> np.ndarray:
    if item.mask_path is None:
        raise ConfigError(f"--foreground {GIVEN_MASKS}: item {item.id!r} has no mask in the manifest")
    return decode_image(item.mask_path)[..., 0] > 127
