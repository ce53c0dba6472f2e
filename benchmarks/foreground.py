"""``quality foreground``: mean IoU of each foreground method on photographs with hand-drawn masks."""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from ..brain.backbones import Backbone, default_backbone_name, load_backbone
from ..brain.errors import ConfigError, ModelError
from ..brain.ffa import FFAConfig
from ..brain.ffa_weights import content_coverage
from ..brain.foreground import FOREGROUNDS, TokenForeground, load_foreground
from ..brain.geometry import (
    RESIZE_MODES,
    Geometry,
    ResizeMode,
    image_to_canvas,
    mask_to_patches,
    patches_to_mask,
    plan_geometry,
)
from ..brain.images import decode_image
from ..brain.metrics.masks import binarise, iou, pixel_precision
from .manifest import Item, load_manifest
from .report import emit

# Half axes of the centred ellipse that a method must beat, as shares of the picture's half sides.
_ELLIPSE = 0.5


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("foreground", help=__doc__, description=__doc__)
    parser.add_argument("--data", required=True, help="folder with a manifest.json whose items have a mask")
    methods = [name for name in FOREGROUNDS if name != "none"]
    parser.add_argument("--methods", nargs="+", choices=methods, help="default: all whose weights can be had")
    parser.add_argument("--model", help="encoder for one_pass: name or model folder (default: the best at hand)")
    parser.add_argument("--size", type=int, help="side of the encoder's input in pixels")
    parser.add_argument("--resize", choices=RESIZE_MODES, default=FFAConfig().resize)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures all methods and prints one row per method and part of the data."""
    manifest = load_manifest(options.data)
    items = unique_masks(manifest.items)
    if not items:
        raise ConfigError(f"{manifest.folder}: no item has a mask; foregrounds cannot be measured")
    if len(items) < len(manifest.items):
        print(f"{len(manifest.items) - len(items)} of {len(manifest.items)} items have no mask of their own: left out")
    grid = PatchGrid(options.model or default_backbone_name(), options.size, options.resize, options.device)
    methods = {**trivial_methods(grid), **_load_methods(options, grid)}
    rows = measure(methods, items, options.batch_size)
    settings = {**grid.settings, "device": options.device, "batch_size": options.batch_size}
    if grid.seconds:
        settings["encoder_seconds_per_image"] = grid.seconds / len(items)
    title = f"foreground on {manifest.name}: {len(items)} masks; one_pass on tokens of {grid.backbone.name}"
    emit(rows, data=manifest.folder, settings=settings, json_path=options.json, title=title)
    if grid.seconds and "one_pass" in methods:
        share = methods["one_pass"].seconds / grid.seconds
        print(f"one_pass adds {share:.1%} to the encoder's {grid.seconds / len(items):.3f} seconds per image")


def unique_masks(items: Sequence[Item]) -> list[Item]:
    """The items that have a mask, each picture and mask once."""
    found = {(item.path.resolve(), item.mask_path.resolve()): item for item in items if item.mask_path is not None}
    return list(found.values())


def measure(methods: dict[str, "Method"], items: Sequence[Item], batch_size: int) -> list[dict[str, Any]]:
    """Rows of all methods, on all items and on each part.

    Args:
        methods: by name.
        items: items with a mask.
        batch_size: images held in memory at a time.
    """
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        images = [decode_image(item.path) for item in batch]
        truths = [read_mask(item, image) for item, image in zip(batch, images, strict=True)]
        for name, method in methods.items():
            masks = method.masks(images, truths)
            scores[name] += [
                (iou(mask, truth), pixel_precision(mask, truth)) for mask, truth in zip(masks, truths, strict=True)
            ]
    parts = {"all": list(range(len(items)))}
    for part in sorted({item.group for item in items if item.group is not None}):
        parts[part] = [index for index, item in enumerate(items) if item.group == part]
    return [
        _row(name, part, np.array([values[index] for index in members]), methods[name].seconds / len(items))
        for part, members in parts.items()
        for name, values in scores.items()
    ]


def _row(method: str, part: str, scores: np.ndarray, seconds: float) -> dict[str, Any]:
    figures = {"iou": scores[:, 0].mean(), "pixel_precision": scores[:, 1].mean(), "n": len(scores)}
    return {"method": method, "group": part, "scope": "all", **figures, "seconds_per_image": seconds}


def read_mask(item: Item, image: np.ndarray) -> np.ndarray:
    """``(H, W)`` bool, the true mask of an item.

    Raises:
        ConfigError: the mask is missing or differs from its image in size.
    """
    path = item.mask_path
    if path is None or not path.is_file():
        raise ConfigError(f"the mask of item {item.id!r} is missing: {path}")
    with Image.open(path) as file:
        mask = binarise(np.asarray(file.convert("L")))
    if mask.shape != image.shape[:2]:
        raise ConfigError(f"{path}: size {mask.shape} differs from that of its image, {image.shape[:2]}")
    return mask


class Method(Protocol):
    """What is measured: masks for images, and the seconds that they took; only trivial methods look at the truth."""

    seconds: float

    def masks(self, images: list[np.ndarray], truths: list[np.ndarray]) -> list[np.ndarray]:
        """Soft or bool masks of the images' sizes."""
        ...


class PatchGrid:
    """The encoder and where images lie on its patch grid.

    Args:
        model: backbone name or model folder.
        size: side of the encoder's input in pixels; None for the backbone's own.
        resize: how images are fitted to it.
        device: where it runs.
    """

    def __init__(self, model: str, size: int | None, resize: ResizeMode, device: str) -> None:
        self.backbone: Backbone = load_backbone(model, device=device)
        self.seconds = 0.0
        self._size = size or self.backbone.default_size
        self._resize: ResizeMode = resize
        self.settings = {
            "model": self.backbone.name,
            "weights_hash": self.backbone.weights_hash,
            "size": self._size,
            "resize": resize,
        }

    def place(self, image: np.ndarray) -> Geometry:
        """Where an image or mask lies."""
        return plan_geometry((image.shape[0], image.shape[1]), self._size, self.backbone.patch_size, self._resize)

    def encode(self, canvases: torch.Tensor) -> torch.Tensor:
        """``(B, H, W, C)`` patch tokens; the time is added to ``seconds``."""
        began = time.perf_counter()
        patch = self.backbone.tokens(canvases).patch
        if patch.device.type == "cuda":
            torch.cuda.synchronize(patch.device)
        self.seconds += time.perf_counter() - began
        return patch


class _FromTokens:
    """A method that looks at tokens; its seconds are what it adds to the encoder's."""

    def __init__(self, foreground: TokenForeground, grid: PatchGrid) -> None:
        self.seconds = 0.0
        self._foreground = foreground
        self._grid = grid

    def masks(self, images: list[np.ndarray], truths: list[np.ndarray]) -> list[np.ndarray]:
        masks: dict[int, np.ndarray] = {}
        places = [self._grid.place(image) for image in images]
        for canvas_hw in {place.canvas_hw for place in places}:
            members = [index for index, place in enumerate(places) if place.canvas_hw == canvas_hw]
            patch = self._grid.encode(torch.stack([image_to_canvas(images[i], places[i]) for i in members]))
            valid = torch.from_numpy(np.stack([content_coverage(places[i]) > 0 for i in members])).to(patch.device)
            began = time.perf_counter()
            coverage = self._foreground.coverage(patch, valid).cpu().numpy()
            self.seconds += time.perf_counter() - began
            masks.update({i: patches_to_mask(c, places[i]) for i, c in zip(members, coverage, strict=True)})
        return [masks[index] for index in range(len(images))]


class _Timed:
    """A method given as a function of images and true masks."""

    def __init__(self, function: Callable[[list[np.ndarray], list[np.ndarray]], list[np.ndarray]]) -> None:
        self.seconds = 0.0
        self._function = function

    def masks(self, images: list[np.ndarray], truths: list[np.ndarray]) -> list[np.ndarray]:
        began = time.perf_counter()
        masks = self._function(images, truths)
        self.seconds += time.perf_counter() - began
        return masks


def trivial_methods(grid: PatchGrid) -> dict[str, Method]:
    """Rows to read the others by: everything, an ellipse in the middle, and the truth as the patch grid holds it."""

    def on_patches(images: list[np.ndarray], truths: list[np.ndarray]) -> list[np.ndarray]:
        places = [grid.place(truth) for truth in truths]
        return [
            patches_to_mask(mask_to_patches(truth, place), place) for truth, place in zip(truths, places, strict=True)
        ]

    return {
        "full_image": _Timed(lambda images, truths: [np.ones(truth.shape, bool) for truth in truths]),
        "centre_ellipse": _Timed(lambda images, truths: [centre_ellipse(*truth.shape) for truth in truths]),
        "mask_on_patches": _Timed(on_patches),
    }


def centre_ellipse(height: int, width: int) -> np.ndarray:
    """``(H, W)`` bool: a centred ellipse of half the picture's height and width."""
    rows, columns = (((np.arange(n) + 0.5) / n * 2 - 1) ** 2 for n in (height, width))
    return rows[:, None] + columns[None, :] < _ELLIPSE**2


def _load_methods(options: argparse.Namespace, grid: PatchGrid) -> dict[str, Method]:
    """The methods that the user named; or all, saying which are left out for want of weights."""
    methods: dict[str, Method] = {}
    for name in options.methods or [name for name in FOREGROUNDS if name != "none"]:
        try:
            foreground = load_foreground(name, device=options.device)
        except ModelError as error:
            if options.methods:
                raise
            print(f"no {name} rows: {error}")
            continue
        methods[name] = _from_tokens_or_pixels(foreground, grid)
    return methods


def _from_tokens_or_pixels(foreground: Any, grid: PatchGrid) -> Method:
    if hasattr(foreground, "coverage"):
        return _FromTokens(foreground, grid)
    return _Timed(lambda images, truths: foreground.masks(images))
