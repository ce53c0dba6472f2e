"""``quality neardup``: which copies, bursts and leaks are found, and which look-alikes are taken for them?"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..brain.errors import ConfigError
from .identity import build_describer
from .manifest import Item, load_manifest
from .neardup_methods import (
    Finder,
    brain_finder,
    digest_finders,
    imagededup_finders,
    imagehash_finders,
    shot_finder,
    vector_finder,
)
from .neardup_table import TITLE, against_peers
from .report import emit, format_table

# Labelled pairs of these relations are duplicates; those of any other relation show one object, but are none.
DUPLICATES = ("exact", "near_duplicate", "copy", "mirrored_copy")

NEGATIVES = "pairs of another relation or of different objects; unlabelled pairs of one object are ignored"

OVERALL = "all"

# Ids of pairs that begin so are not ids of items, but files of a neighbouring set.
_SISTER = "../"


@dataclass(frozen=True)
class Truth:
    """What is known of each pair of n images; all matrices are ``(n, n)`` bool, true above the diagonal only.

    Attributes:
        kinds: relation (or ``relation/transform``) → its labelled pairs.
        positive: pairs that are duplicates.
        negative: pairs that are none: labelled as another relation, or unlabelled and of different objects. Unlabelled
            pairs of one object are in neither matrix: two copies of one photograph are no error.
    """

    kinds: dict[str, np.ndarray]
    positive: np.ndarray
    negative: np.ndarray


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("neardup", help=__doc__, description=__doc__)
    parser.add_argument("--data", required=True, help="folder with a manifest.json that has labelled pairs")
    parser.add_argument("--model", help="backbone name or model folder (default: that of the preset)")
    parser.add_argument("--foreground", help="foreground method of ffa, or 'none' (default: that of the preset)")
    parser.add_argument("--preset", default="default", help="preset of ffa (default: %(default)s)")
    parser.add_argument("--pooling", choices=("patch", "cls"), help="pooling of ffa (default: that of the preset)")
    parser.add_argument("--size", type=int, help="side of the encoder's input in pixels")
    parser.add_argument("--by-transform", action="store_true", help="a row for each kind of edit, too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures all methods and prints a row per method, kind of pair and choice of threshold."""
    manifest = load_manifest(options.data)
    pairs = without_absent_sisters(manifest.pairs, manifest.folder)
    if len(pairs) < len(manifest.pairs):
        print(f"{len(manifest.pairs) - len(pairs)} pairs name images of sister sets that are not here: left out")
    items = with_sister_images(manifest.items, pairs, manifest.folder)
    truth = read_truth(items, pairs, by_transform=options.by_transform)
    unset = dict.fromkeys(("encode", "weights", "resize"))
    describer, described = build_describer(argparse.Namespace(**{**vars(options), **unset, "grey": False}))
    rows, notes, single = [], {}, {}
    for finder in _finders(items, describer.collect(items, options.batch_size), truth):
        print(f"{finder.name} ...", file=sys.stderr, flush=True)
        rows += measure(finder, truth)
        notes[finder.name] = finder.note
        single[finder.name] = best_of_each_kind(finder, truth)
    print("\n".join(f"{name}: {note}" for name, note in notes.items()))
    settings = {
        **described,
        "thresholds": notes,
        "duplicates": DUPLICATES,
        "negatives": NEGATIVES,
        "pairs_left_out": len(manifest.pairs) - len(pairs),
    }
    title = f"neardup on {manifest.name}: {len(items)} images, {int(truth.positive.sum())} pairs of duplicates"
    table = against_peers(rows, single)
    emit(rows, data=manifest.folder, settings={**settings, "against_peers": table}, json_path=options.json, title=title)
    print(f"\n{TITLE}\n{format_table(table)}")


def without_absent_sisters(pairs: Sequence[Mapping[str, Any]], folder: Path) -> list[Mapping[str, Any]]:
    """The pairs but for those with an image ``../name/...`` that is not there: a set may be copied without sisters."""
    return [
        pair
        for pair in pairs
        if all((folder / name).is_file() for name in (pair["a"], pair["b"]) if name.startswith(_SISTER))
    ]


def with_sister_images(items: Sequence[Item], pairs: Sequence[Mapping[str, Any]], folder: Path) -> list[Item]:
    """The items, and the images of sister sets (``../name/images/file``) that pairs refer to.

    Raises:
        ConfigError: a pair names an image that is nowhere.
    """
    found = {item.id: item for item in items}
    for name in (name for pair in pairs for name in (pair["a"], pair["b"])):
        if name in found:
            continue
        path = folder / name
        if not name.startswith(_SISTER) or not path.is_file():
            raise ConfigError(f"{folder}/manifest.json: a pair names {name!r}, which is no item and no file beside it")
        found[name] = replace(items[0], id=name, path=path, mask_path=None, object_id=None, category=None, extra={})
    return list(found.values())


def read_truth(items: Sequence[Item], pairs: Sequence[Mapping[str, Any]], *, by_transform: bool = False) -> Truth:
    """What the manifest says of each pair of images.

    Raises:
        ConfigError: no pair is labelled as a duplicate.
    """
    rows = {item.id: row for row, item in enumerate(items)}
    n = len(items)
    kinds: dict[str, np.ndarray] = {}
    for pair in pairs:
        i, j = sorted((rows[pair["a"]], rows[pair["b"]]))
        for kind in _kinds(pair, by_transform):
            kinds.setdefault(kind, np.zeros((n, n), bool))[i, j] = True
    duplicates = [kinds[kind] for kind in DUPLICATES if kind in kinds]
    if not duplicates:
        raise ConfigError(f"the manifest labels no pairs as {', '.join(DUPLICATES)}; neardup needs some")
    positive = np.any(duplicates, axis=0)
    labelled = np.any(list(kinds.values()), axis=0)
    objects = np.array([item.object_id if item.object_id is not None else f"image {item.id}" for item in items])
    other_object = objects[:, None] != objects[None, :]
    negative = np.triu(other_object | labelled, 1) & ~positive
    return Truth(kinds, positive, negative)


def measure(finder: Finder, truth: Truth) -> Iterator[dict[str, Any]]:
    """Rows of one method: scope ``default`` at the threshold it comes with, ``best`` at that of its highest F1."""
    scopes = {"default": finder.default}
    if finder.levels:
        scopes["best"] = max(finder.levels, key=lambda level: figures(finder.find(level), truth, OVERALL)["f1"] or 0.0)
    for scope, threshold in scopes.items():
        found = finder.find(threshold)
        for group in (OVERALL, *truth.kinds):
            row = {"method": finder.name, "group": group, "scope": scope}
            yield {**row, **figures(found, truth, group), "threshold": threshold}


def best_of_each_kind(finder: Finder, truth: Truth) -> dict[str, float]:
    """For each kind of duplicate, and for all, the highest F1 there is at any threshold: at one that suits it alone."""
    found = [finder.find(level) for level in (*finder.levels, finder.default)]
    best = {}
    for group in (OVERALL, *truth.kinds):
        scores = [figures(matrix, truth, group)["f1"] for matrix in found]
        if None not in scores:
            best[group] = max(scores)
    return best


def figures(found: np.ndarray, truth: Truth, group: str) -> dict[str, Any]:
    """Precision, recall and F1 of one kind of pair, or of all.

    For one kind, only images that occur in its pairs are looked at, so that its precision is that of a dataset with
    nothing else in it. Kinds that are no duplicates have no precision: ``flagged`` says which share of them is taken
    for duplicates.

    Args:
        found: ``(n, n)`` bool: pairs that a method calls duplicates.
        truth: what is known.
        group: a kind of ``truth.kinds``, or ``all``.
    """
    if group == OVERALL:
        pairs, negative = truth.positive, truth.negative
    else:
        pairs = truth.kinds[group]
        pool = pairs.any(axis=0) | pairs.any(axis=1)
        negative = truth.negative & pool[:, None] & pool[None, :]
    n_pairs, hits, false = (int(np.count_nonzero(mask)) for mask in (pairs, found & pairs, found & negative))
    figure: dict[str, Any] = {"n_pairs": n_pairs, "flagged": hits / n_pairs}
    if not (pairs & truth.positive).any():
        return {"precision": None, "recall": None, "f1": None, **figure, "false_pairs": None}
    return {
        "precision": hits / (hits + false) if hits + false else None,
        "recall": hits / n_pairs,
        "f1": 2 * hits / (hits + false + n_pairs),
        **figure,
        "false_pairs": false,
    }


def _finders(items: Sequence[Item], vectors: dict[str, np.ndarray], truth: Truth) -> Iterator[Finder]:
    paths = [item.path for item in items]
    positives = np.argwhere(truth.positive)
    yield vector_finder("ffa", vectors["ffa"], positives)
    yield vector_finder("full_average", vectors["full_average"], positives)
    yield shot_finder(paths, [vectors["ffa"], vectors["full_average"]], positives)
    yield from brain_finder(vectors["ffa"], paths, positives)
    others: tuple[Callable[[Sequence[Path]], Iterator[Finder]], ...] = (
        digest_finders,
        imagehash_finders,
        imagededup_finders,
    )
    for others_of in others:
        yield from others_of(paths)


def _kinds(pair: Mapping[str, Any], by_transform: bool) -> Iterator[str]:
    yield pair["relation"]
    if by_transform and pair.get("transform"):
        yield f"{pair['relation']}/{pair['transform']}"
