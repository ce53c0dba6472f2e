"""``quality identity``: do images of one object find each other? FFA beside simpler vectors and baselines."""

import argparse
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from ..brain.backbones import default_backbone_name, load_backbone
from ..brain.backbones.base import Tokens
from ..brain.errors import ConfigError
from ..brain.ffa import FFAExtractor, PreparedImage, ffa_preset
from ..brain.ffa_config import ENCODES, POOLINGS, PRESETS
from ..brain.ffa_weights import WEIGHT_MODES
from ..brain.foreground import load_foreground
from ..brain.geometry import RESIZE_MODES
from ..brain.images import decode_image
from ..brain.metrics.clustering import clustering_scores
from ..brain.metrics.retrieval import retrieval_scores
from .baselines import histogram, phash, phash_similarity
from .manifest import Item, load_manifest
from .report import emit

# The manifest's own masks as foreground, which shows what a perfect foreground method would give.
GIVEN_MASKS = "mask"

_HAS_IMAGEHASH = importlib.util.find_spec("imagehash") is not None


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
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures all methods and prints one row per method, group and scope."""
    manifest = load_manifest(options.data)
    items = [item for item in manifest.items if item.object_id is not None]
    if len(items) < 2:
        raise ConfigError(f"{manifest.folder}: fewer than two items have an object_id; identity cannot be measured")
    if len(items) < len(manifest.items):
        print(f"{len(manifest.items) - len(items)} of {len(manifest.items)} items have no object_id and are left out")
    if not _HAS_IMAGEHASH:
        print("no phash row: the package imagehash is not installed (pip install 'fiftyone-selfsame[bench]')")
    describer = Describer(options)
    vectors = collect(describer, items, options.batch_size)
    rows = identity_rows(vectors, items)
    title = f"identity on {manifest.name}: {len(items)} images, {len({item.object_id for item in items})} objects"
    emit(rows, data=manifest.folder, settings=describer.settings, json_path=options.json, title=title)


def collect(describer: "Describer", items: Sequence[Item], batch_size: int) -> dict[str, np.ndarray]:
    """``(n, d)`` vectors per method; images are held in memory one batch at a time."""
    batches: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(items), batch_size):
        for method, vectors in describer.vectors(items[start : start + batch_size]):
            batches.setdefault(method, []).append(vectors)
    return {method: np.concatenate(parts) for method, parts in batches.items()}


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
    similarity = phash_similarity(vectors) if method == "phash" else vectors @ vectors.T
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


class Describer:
    """Turns images into the vectors of all methods, with one forward pass for all that share it.

    Args:
        options: the parsed command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        preset = ffa_preset(options.preset)
        chosen = ("encode", "pooling", "weights", "resize", "size")
        changes = {name: getattr(options, name) for name in chosen if getattr(options, name) is not None}
        config = replace(preset.config, **changes)
        plain = replace(config, encode="original", pooling="patch")
        backbone = load_backbone(options.model or preset.backbone or default_backbone_name(), device=options.device)
        name = options.foreground or preset.foreground
        foreground = None if name == GIVEN_MASKS else load_foreground(name, device=options.device)
        self._given_masks = name == GIVEN_MASKS
        self._pixel_foreground = foreground if hasattr(foreground, "masks") else None
        self._grey = options.grey
        self._tokens = _Memory()
        self._extractors = {
            "full_average": FFAExtractor(backbone, None, plain, self._tokens),
            "class_token": FFAExtractor(backbone, None, replace(plain, pooling="cls"), self._tokens),
            "ffa": FFAExtractor(backbone, foreground, config, self._tokens),
        }
        self.settings = {**self._extractors["ffa"].config_dict(), "foreground": name, "grey": options.grey}

    def vectors(self, items: Sequence[Item]) -> Iterator[tuple[str, np.ndarray]]:
        """Method by method the ``(n, d)`` unit vectors of a batch of images."""
        images = [self._image(item) for item in items]
        masks = self._masks(items, images)
        self._tokens.clear()
        for method, extractor in self._extractors.items():
            used = masks if method == "ffa" else None
            yield method, self._embed(extractor, images, used)
        yield "histogram", np.stack([histogram(image) for image in images])
        if masks is not None:
            inside = [histogram(image, mask) for image, mask in zip(images, masks, strict=True)]
            yield "histogram_foreground", np.stack(inside)
        if _HAS_IMAGEHASH:
            yield "phash", np.stack([phash(image) for image in images])

    def _image(self, item: Item) -> np.ndarray:
        image = decode_image(item.path)
        return np.asarray(Image.fromarray(image).convert("L").convert("RGB")) if self._grey else image

    def _masks(self, items: Sequence[Item], images: list[np.ndarray]) -> list[np.ndarray] | None:
        if self._given_masks:
            return [_read_mask(item) for item in items]
        return None if self._pixel_foreground is None else self._pixel_foreground.masks(images)

    def _embed(self, extractor: FFAExtractor, images: list[np.ndarray], masks: list[np.ndarray] | None) -> np.ndarray:
        vectors: dict[int, np.ndarray] = {}
        batches: dict[tuple[int, int], list[tuple[int, PreparedImage]]] = {}
        for index, image in enumerate(images):
            prepared = extractor.prepare(image, None if masks is None else masks[index], content_hash=str(index))
            batches.setdefault(prepared.group_key, []).append((index, prepared))
        for batch in batches.values():
            results = extractor.embed([prepared for _, prepared in batch])
            vectors.update({index: result.vector for (index, _), result in zip(batch, results, strict=True)})
        return np.stack([vectors[index] for index in range(len(images))])


class _Memory:
    """The tokens of one batch in memory, so that methods which differ in pooling share the forward pass."""

    def __init__(self) -> None:
        self._tokens: dict[str, Tokens] = {}

    def get(self, key: str) -> Tokens | None:
        return self._tokens.get(key)

    def put(self, key: str, tokens: Tokens) -> Tokens:
        self._tokens[key] = tokens
        return tokens

    def clear(self) -> None:
        self._tokens.clear()


def _read_mask(item: Item) -> np.ndarray:
    if item.mask_path is None:
        raise ConfigError(f"--foreground {GIVEN_MASKS}: item {item.id!r} has no mask in the manifest")
    return decode_image(item.mask_path)[..., 0] > 127
