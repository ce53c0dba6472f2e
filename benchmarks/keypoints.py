"""``quality keypoints``: does the most similar patch of another image lie on the same point of the object?"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional

from ..brain.backbones import Backbone, default_backbone_name, load_backbone
from ..brain.backbones.catalog import UNTRAINED
from ..brain.correspondence.features import FeatureConfig, FeatureExtractor
from ..brain.correspondence.views import IDENTITY
from ..brain.errors import ConfigError
from ..brain.ffa_weights import content_coverage
from ..brain.geometry import Geometry, image_to_canvas, plan_geometry, points_to_canvas, points_to_image
from ..brain.metrics.keypoints import correct_points, pck_scores, pck_threshold, swapped_points
from ..fixtures.scenes.packaged import TINY_FOLDER
from .describe import read_image
from .keypoints_data import Question, mirror_questions, read_questions
from .keypoints_matching import INSTANCE, NONE, TRUE_POSE, Answers, Features, answer, describe_items
from .keypoints_study import Study, tables
from .manifest import Item, Manifest, load_manifest
from .report import emit, format_markdown, format_table

# Share of the longer side of the target's box within which a point is correct: PCK@0.1.
ALPHA = 0.1

RAW_COLOUR = "raw colour"


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("keypoints", help=__doc__, description=__doc__)
    parser.add_argument("--data", required=True, help="folder with a manifest.json of `keypoints` and pairs that share")
    parser.add_argument("--model", help="backbone name or model folder (default: the best at hand)")
    parser.add_argument("--size", type=int, help="side of the encoder's input in pixels")
    parser.add_argument("--grey", action="store_true", help="take the colour out of all images first")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "--scenes",
        default=TINY_FOLDER,
        help="folder of rendered scenes, whose poses are known (default: the packaged set)",
    )
    parser.add_argument("--bootstrap", type=int, default=500, help="resamples of the pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="print tables for a page of the documentation")
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures the model, the untrained stand-in and raw colour, then matching with and without pose alignment."""
    if options.bootstrap < 1:
        raise ConfigError(f"--bootstrap {options.bootstrap} must be at least 1")
    manifest = load_manifest(options.data)
    cases = read_cases(manifest)
    backbone = load_backbone(options.model or default_backbone_name(), device=options.device)
    size = options.size or backbone.default_size
    methods: dict[str, Descriptor] = {backbone.name: TokenDescriptor(backbone, size)}
    untrained = load_backbone(UNTRAINED, device=options.device)
    if untrained.weights_hash != backbone.weights_hash:
        patch = untrained.patch_size
        # The same resolution as far as its patches allow.
        methods[untrained.name] = TokenDescriptor(untrained, options.size and max(1, round(size / patch)) * patch)
    methods[RAW_COLOUR] = ColourDescriptor(size, backbone.patch_size)
    rows = measure(methods, cases, grey=options.grey)
    title = f"keypoints on {manifest.name}: PCK@{ALPHA} of {len(cases)} pairs"
    settings = {
        "model": backbone.name,
        "weights_hash": backbone.weights_hash,
        "size": size,
        "grey": options.grey,
        "alpha": ALPHA,
        "bootstrap": options.bootstrap,
        "seed": options.seed,
        "scenes": str(options.scenes),
    }
    extractor = FeatureExtractor(backbone, FeatureConfig(size))
    studies = {
        found.name: study_set(found, extractor, options)
        for found in (manifest, load_manifest(Path(options.scenes) / "keypoints"))
    }
    emit(
        rows,
        data=manifest.folder,
        settings={**settings, "studies": studies},
        json_path=options.json,
        title=title,
        markdown=options.markdown,
    )
    as_table = format_markdown if options.markdown else format_table
    for name, found in studies.items():
        for heading, lines in found.items():
            print(f"\n{name}, {heading}\n\n{as_table(lines)}")


def study_set(manifest: Manifest, extractor: FeatureExtractor, options: argparse.Namespace) -> dict[str, Any]:
    """All tables on one set, by their headings; pictures are described once.

    Raises:
        ConfigError: the manifest has no pairs, or faults.
    """
    questions = read_questions(manifest)
    if not questions:
        raise ConfigError(f"{manifest.folder}: no pair has `shared` keypoints; nothing can be matched")
    items = {item.id: item for one in questions for item in (one.source, one.target)}
    print(f"{manifest.name}: describing {len(items)} pictures ...", file=sys.stderr, flush=True)
    features = describe_items(extractor, list(items.values()), grey=options.grey)
    print(f"{manifest.name}: matching {len(questions)} pairs ...", file=sys.stderr, flush=True)
    found = dict(tables(_study(questions, features, list(answer(questions, features)), options)))
    sizes = {name: features[name, IDENTITY].geometry.image_hw for name in items}
    own = mirror_questions(questions, sizes)
    if own:
        control = _study(own, features, list(answer(own, features, (NONE, INSTANCE, TRUE_POSE))), options)
        found["control: each picture and its own mirror image, swaps"] = control.swap_rows()
    return found


def _study(
    questions: Sequence[Question], features: Features, answers: Sequence[Answers], options: argparse.Namespace
) -> Study:
    return Study(questions, features, answers, options.bootstrap, options.seed)


@dataclass(frozen=True)
class Case:
    """One pair: K points seen in both images.

    Attributes:
        source, target: the two images.
        part: part of the data set.
        points: ``(K, 2)`` ``(x, y)`` in pixels of the source image.
        targets: ``(K, 2)`` the same points in the target image.
        partners: ``(K, 2)`` their left-right partners in the target image; NaN where hidden or where there is none.
        threshold: largest error of a correct prediction, in pixels of the target image; None takes the share ``ALPHA``
            of the image's longer side.
    """

    source: Item
    target: Item
    part: str
    points: np.ndarray
    targets: np.ndarray
    partners: np.ndarray
    threshold: float | None


def read_cases(manifest: Manifest) -> list[Case]:
    """The pairs of a manifest whose items have ``keypoints`` (name to ``[x, y]`` in pixels of the stored image).

    Raises:
        ConfigError: there are none, or a pair names an item or a point that the manifest does not have.
    """
    items = {item.id: item for item in manifest.items}
    partners = {
        part: {name: other for a, b in couples for name, other in ((a, b), (b, a))}
        for part, couples in manifest.extra.get("left_right_partners", {}).items()
    }
    cases = [_case(pair, items, partners) for pair in manifest.pairs if pair.get("shared")]
    if not cases:
        raise ConfigError(f"{manifest.folder}: no pair has `shared` keypoints; PCK cannot be measured")
    return cases


def _case(pair: Mapping[str, Any], items: Mapping[str, Item], partners: Mapping[str, Mapping[str, str]]) -> Case:
    ends = [items.get(pair[end]) for end in ("a", "b")]
    if None in ends:
        raise ConfigError(f"pair {pair['a']!r}, {pair['b']!r}: one of them is not an item of the manifest")
    source, target = ends
    part = str(pair.get("part", target.group))
    at_source, at_target = (item.extra.get("keypoints", {}) for item in (source, target))
    missing = [name for name in pair["shared"] if name not in at_source or name not in at_target]
    if missing:
        raise ConfigError(f"pair {source.id!r}, {target.id!r}: keypoint {missing[0]!r} is not annotated in both images")
    twins = [at_target.get(partners.get(part, {}).get(name)) or (np.nan, np.nan) for name in pair["shared"]]
    box = target.extra.get("bbox")
    return Case(
        source=source,
        target=target,
        part=part,
        points=np.array([at_source[name] for name in pair["shared"]], float),
        targets=np.array([at_target[name] for name in pair["shared"]], float),
        partners=np.array(twins, float),
        threshold=None if box is None else pck_threshold((box[2], box[3]), ALPHA),
    )


@dataclass(frozen=True)
class Described:
    """The descriptors of one image.

    Attributes:
        geometry: its placement on the canvas.
        grid: ``(h, w, C)`` one descriptor per patch cell.
    """

    geometry: Geometry
    grid: torch.Tensor


class Descriptor(Protocol):
    """Describes the patch cells of an image; the less two descriptors differ (Euclidean), the more alike the cells."""

    def describe(self, image: np.ndarray) -> Described:
        """Descriptors of an ``(H, W, 3)`` uint8 image, letterboxed onto a square canvas."""
        ...


class TokenDescriptor:
    """An encoder's patch tokens at unit length, so that the nearest one has the largest cosine.

    Args:
        backbone: the encoder.
        size: side of the canvas in pixels; None takes the encoder's own.

    Raises:
        ConfigError: the size is not a multiple of the patch.
    """

    def __init__(self, backbone: Backbone, size: int | None = None) -> None:
        self._backbone = backbone
        self._size = size or backbone.default_size
        self._place((1, 1))

    def describe(self, image: np.ndarray) -> Described:
        geometry = self._place((image.shape[0], image.shape[1]))
        tokens = self._backbone.tokens(image_to_canvas(image, geometry)[None]).patch[0]
        return Described(geometry, functional.normalize(tokens, dim=-1).cpu())

    def _place(self, image_hw: tuple[int, int]) -> Geometry:
        return plan_geometry(image_hw, self._size, self._backbone.patch_size, "letterbox")


class ColourDescriptor:
    """The mean RGB of each patch cell and that of the 3 × 3 cells around it, ``(h, w, 6)``: what colour alone can do.

    Colours are compared as they are: their cosine would not tell black from white. With the neighbours, a third more
    points are found than with the cell's own colour.

    Args:
        size: side of the canvas in pixels.
        patch: side of a cell in pixels.
    """

    def __init__(self, size: int, patch: int) -> None:
        self._size = size
        self._patch = patch

    def describe(self, image: np.ndarray) -> Described:
        geometry = plan_geometry((image.shape[0], image.shape[1]), self._size, self._patch, "letterbox")
        own = functional.avg_pool2d(image_to_canvas(image, geometry), self._patch)
        around = functional.avg_pool2d(functional.pad(own[None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[0]
        return Described(geometry, torch.cat([own, around]).permute(1, 2, 0))


def predict(source: Described, target: Described, points: np.ndarray) -> np.ndarray:
    """Where points of one image lie in another: the centre of the cell whose descriptor is nearest.

    The descriptor of a point is that of the cell it lies in, as in the published evaluations; interpolating it between
    cells finds fewer points. Padding around the target picture is never chosen.

    Args:
        source, target: the two images.
        points: ``(K, 2)`` in pixels of the source image.

    Returns:
        ``(K, 2)`` in pixels of the target image.
    """
    rows, columns = source.geometry.grid_hw
    cells = np.floor(points_to_canvas(points, source.geometry) / source.geometry.patch).astype(int)
    # A point on the very edge of the canvas belongs to the last cell.
    x, y = (np.clip(cells[:, axis], 0, n - 1) for axis, n in ((0, columns), (1, rows)))
    distances = torch.cdist(source.grid[y, x], target.grid.flatten(0, 1))
    padding = torch.from_numpy(content_coverage(target.geometry).ravel() == 0)
    best = distances.masked_fill(padding, torch.inf).argmin(1).numpy()
    row, column = np.divmod(best, target.geometry.grid_hw[1])
    centres = (np.stack([column, row], 1) + 0.5) * target.geometry.patch
    return points_to_image(centres, target.geometry)


def measure(methods: Mapping[str, Descriptor], cases: Sequence[Case], *, grey: bool = False) -> list[dict[str, Any]]:
    """Rows of all methods, on all pairs and on each part. The descriptors of all images are held in memory."""
    parts = {"all": list(range(len(cases)))}
    for part in sorted({case.part for case in cases}):
        parts[part] = [index for index, case in enumerate(cases) if case.part == part]
    rows = []
    for method, descriptor in methods.items():
        verdicts = judge(descriptor, cases, grey=grey)
        for part, members in parts.items():
            rows.append({"method": method, "group": part, "scope": "all", **_figures([verdicts[i] for i in members])})
    return sorted(rows, key=lambda row: list(parts).index(row["group"]))


@dataclass(frozen=True)
class Verdict:
    """What became of the K points of a pair: ``(K,)`` bool each; ``swapped`` is False without a visible partner."""

    correct: np.ndarray
    swapped: np.ndarray
    has_partner: np.ndarray


def judge(descriptor: Descriptor, cases: Sequence[Case], *, grey: bool = False) -> list[Verdict]:
    """The verdict on every pair."""
    described: dict[str, Described] = {}
    verdicts = []
    for case in cases:
        for item in (case.source, case.target):
            if item.id not in described:
                described[item.id] = descriptor.describe(read_image(item, grey=grey))
        source, target = described[case.source.id], described[case.target.id]
        predictions = predict(source, target, case.points)
        height, width = target.geometry.image_hw
        threshold = pck_threshold((width, height), ALPHA) if case.threshold is None else case.threshold
        has_partner = np.isfinite(case.partners).all(1)
        swapped = np.zeros(len(has_partner), bool)
        swapped[has_partner] = swapped_points(
            predictions[has_partner], case.targets[has_partner], case.partners[has_partner]
        )
        verdicts.append(Verdict(correct_points(predictions, case.targets, threshold), swapped, has_partner))
    return verdicts


def _figures(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """PCK of all points and of those whose partner is visible too, and the share of the latter that are swapped."""
    scores = pck_scores([verdict.correct for verdict in verdicts])
    paired = pck_scores([verdict.correct[verdict.has_partner] for verdict in verdicts])
    swaps = pck_scores([verdict.swapped[verdict.has_partner] for verdict in verdicts])
    return {
        "pck_per_point": scores.per_point,
        "pck_per_image": scores.per_image,
        "paired_pck_per_point": paired.per_point,
        "swaps": swaps.per_point,
        "n_pairs": scores.n_images,
        "n": scores.n_points,
        "n_paired": paired.n_points,
    }
