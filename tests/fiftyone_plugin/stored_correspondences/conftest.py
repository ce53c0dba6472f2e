"""Correspondences as a run stores them, with places and scores that a test chooses; pictures are 100 pixels wide."""

from dataclasses import dataclass, field, fields

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.correspondence.keypoint_groups import groups_from_names
from fiftyone_selfsame.brain.metrics.keypoint_errors import judge_pair
from fiftyone_selfsame.brain.metrics.label_free import PAIR_SCORES
from fiftyone_selfsame.brain.metrics.pck import pck
from fiftyone_selfsame.fiftyone_plugin.correspondence_fields import (
    METHOD,
    CorrespondenceFields,
    MatchedPair,
    write_correspondences,
)
from fiftyone_selfsame.fiftyone_plugin.correspondence_labels import PairLabels
from fiftyone_selfsame.fiftyone_plugin.correspondence_pairs import POINT_SCORES, PairMatches
from fiftyone_selfsame.fiftyone_plugin.correspondence_setup import CorrespondenceOptions
from fiftyone_selfsame.fiftyone_plugin.correspondence_table import rank_points, read_points, write_ranks, write_table
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.judged_pairs import evaluated_pair
from fiftyone_selfsame.fiftyone_plugin.pairs import check_pairs, read_pairs
from fiftyone_selfsame.fiftyone_plugin.provenance import config_hash
from fiftyone_selfsame.fiftyone_plugin.runs import RunSummary, register_run
from fiftyone_selfsame.fiftyone_plugin.stored_matches import match_provenance
from PIL import Image

SIDE = 100
NAMES = ["left eye", "right eye", "left paw", "right paw", "nose"]


@dataclass(frozen=True)
class Shot:
    """A picture: places of its keypoints in pixels by name, and what stands in fields of its sample."""

    points: dict
    category: str = "cat"
    box: tuple | None = None
    values: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """A pair: numbers of its pictures, where keypoints were found, and scores; a number goes for all matches."""

    source: int
    target: int
    places: dict
    similarity: dict | float = 0.9
    scores: dict = field(default_factory=dict)
    pair_scores: dict = field(default_factory=dict)


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Tables and reports go to a folder of this test."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))


@pytest.fixture
def stored(fo_dataset, tmp_path):
    """``stored(shots, found, key=..., **options)``: the dataset of the shots, and its pairs with a finished run."""
    created = []

    def make(shots, found, key="corr", **options):
        dataset = fo_dataset(_files(tmp_path, len(shots)))
        dataset.default_skeleton = fo.KeypointSkeleton(labels=NAMES, edges=[])
        dataset.set_values("points", [_label(shot) for shot in shots])
        copied = ["points", *_extra(dataset, shots)]
        ids = dataset.values("id")
        chosen = [(ids[one.source], ids[one.target]) for one in found]
        pairs = create_pairs(dataset, pairs=chosen, fields=copied)
        created.append(pairs)
        _store(pairs, shots, found, CorrespondenceFields(key, CorrespondenceOptions(**options)))
        return dataset, pairs

    yield make
    for pairs in created:
        pairs.delete()


def _files(folder, count):
    paths = [folder / f"shot{number:02d}.png" for number in range(count)]
    for number, path in enumerate(paths):
        Image.new("RGB", (SIDE, SIDE), (number, 0, 0)).save(path)
    return paths


def _label(shot):
    missing = (np.nan, np.nan)
    points = [[value / SIDE for value in shot.points.get(name, missing)] for name in NAMES]
    return fo.Keypoints(keypoints=[fo.Keypoint(label=shot.category, points=points)])


def _extra(dataset, shots):
    """Fields besides the keypoints."""
    names = sorted({name for shot in shots for name in shot.values})
    for name in names:
        dataset.set_values(name, [shot.values.get(name) for shot in shots])
    if not any(shot.box for shot in shots):
        return names
    boxes = [[] if shot.box is None else [fo.Detection(label="cat", bounding_box=shot.box)] for shot in shots]
    dataset.set_values("box", [fo.Detections(detections=own) for own in boxes])
    return [*names, "box"]


def _store(pairs, shots, found, result):
    """Writes a run as compute_correspondences does."""
    options = result.options
    kept = {one.name: getattr(options, one.name) for one in fields(options)}
    left = ("model", "size", "device", "precision", "cache_tokens")
    settings = {name: value for name, value in kept.items() if name not in left}
    settings |= {"features": {"model": "by hand"}, "keypoints": "points"}
    labels = PairLabels(pairs, check_pairs(pairs), "points", None, options.foreground_field)
    rows = read_pairs(pairs)
    own = labels.read([member.id for row in rows for member in (row.source, row.target)])
    result.declare(pairs, {"method": METHOD, "run": result.key, **settings})
    matched = []
    for row, one in zip(rows, found, strict=True):
        sides = (own[row.source.id], own[row.target.id])
        keypoints = labels.keypoints.pair(sides[0].keypoints, sides[1].keypoints)
        provenance = match_provenance(config_hash(METHOD, settings), row, *sides)
        matched.append(MatchedPair(row, _matches(shots[one.target], one, keypoints, options), provenance))
    write_correspondences(pairs, result, matched)
    table = rank_points(read_points(pairs, result), result)
    write_ranks(pairs, result, table)
    counts = {"total": len(rows), "done": len(rows), "skipped": 0, "failed": 0, "matches": len(table)}
    summary = RunSummary(result.key, METHOD, counts)
    summary.details = {"table": str(write_table(pairs, result.key, table))}
    register_run(pairs, summary, {**settings, "key": result.key, "write_back": False})


def _matches(target, one, keypoints, options):
    names = [name for name in NAMES if name in one.places]
    slots = [NAMES.index(name) for name in names]
    places = np.full((len(NAMES), 2), np.nan)
    places[slots] = [np.array(one.places[name]) / SIDE for name in names]
    mask = _mask(target)
    evaluated = evaluated_pair(keypoints, places, (SIDE, SIDE), mask, options.error_flavour.threshold)
    errors = None
    if evaluated is not None:
        partners = groups_from_names(NAMES).permutation
        errors = judge_pair(evaluated, partners, options.error_flavour, mask=mask)
    scores = dict.fromkeys(POINT_SCORES, np.nan) | one.scores if options.label_free else {}
    pair_scores = dict.fromkeys(PAIR_SCORES, np.nan) | one.pair_scores if options.label_free else {}
    return PairMatches(
        names=tuple(names),
        source=keypoints.source[slots],
        target=places[slots],
        similarity=_spread(one.similarity, names),
        mutual=np.ones(len(names), bool),
        handed_over=np.zeros(len(names), bool),
        scores={name: _spread(values, names) for name, values in scores.items()},
        pair_scores=pair_scores,
        view="identity",
        distance=0.5,
        distance_mirrored=float("nan"),
        category=keypoints.category,
        types=None if errors is None else errors.types[slots],
        distances=None if errors is None else errors.d_norm[slots],
        inverted=None if errors is None or errors.gain is None else errors.inverted,
        pck=float("nan") if evaluated is None else pck([evaluated], options.pck_flavour).value,
        judged=0 if evaluated is None else int(evaluated.judged.sum()),
    )


def _mask(shot):
    if shot.box is None:
        return None
    left, top, width, height = (round(value * SIDE) for value in shot.box)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + height, left : left + width] = True
    return mask


def _spread(values, names):
    given = values if isinstance(values, dict) else dict.fromkeys(names, values)
    return np.array([given.get(name, np.nan) for name in names], float)


@pytest.fixture
def shot():
    """Makes a :class:`Shot`."""
    return Shot


@pytest.fixture
def match():
    """Makes a :class:`Found`."""
    return Found
