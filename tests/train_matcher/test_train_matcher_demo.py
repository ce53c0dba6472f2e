"""The command that trains the demo matcher, in small, and the matcher that comes with the package."""

import dataclasses
import json
import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.loader import load_pair_matcher
from fiftyone_selfsame.brain.cosalient.registry import DEMO_FOLDER
from fiftyone_selfsame.brain.cosalient.training import TrainingConfig
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fixtures.demo_photos import PHOTOS
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from fiftyone_selfsame.fixtures.train_matcher.data import Splits, load_pairs
from fiftyone_selfsame.fixtures.train_matcher.runs import Run, all_runs, finish_runs
from fiftyone_selfsame.fixtures.train_matcher.tables import interval, published_tables, summary
from fiftyone_selfsame.fixtures.train_matcher.untrained import untrained_rows


@pytest.fixture(scope="module")
def tiny_pairs():
    """All pairs of the packaged scenes, to train and to measure on alike: there are too few to split."""
    manifest = json.loads((TINY_FOLDER / "coseg" / "manifest.json").read_text())
    assert manifest["pairs"]
    parts = load_pairs(TINY_FOLDER)
    everything = [*parts.train, *parts.validation, *parts.test]
    return Splits(everything, everything, everything)


def test_splits_share_no_object_and_are_half_matching():
    parts = load_pairs(TINY_FOLDER)
    named = [
        {name for one in pairs for name in (one.object_a, one.object_b)}
        for pairs in (parts.train, parts.validation, parts.test)
    ]
    assert not named[0] & named[1]
    assert not named[0] & named[2]
    assert not named[1] & named[2]
    for pairs in (parts.train, parts.validation, parts.test):
        matching = sum(one.match for one in pairs)
        assert len(pairs) - matching >= matching
        assert all((one.mask_a is None) == (not one.match) for one in pairs)


def test_a_folder_without_pairs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--preset matching"):
        load_pairs(tmp_path)


def test_finished_runs_are_not_repeated(tiny_pairs, tmp_path):
    budget = TrainingConfig(segment_steps=1, match_steps=2, batch_size=2, validate_every=1)
    runs = [Run("tokens", "region", "cosine", 0), Run("coder", "image", "cosine", 0)]
    first = list(finish_runs(runs, tiny_pairs, tmp_path, budget))
    assert [result["key"] for result in first] == [run.key for run in runs]
    assert all(0 <= result["average_precision"] <= 1 for result in first)
    assert list(finish_runs(runs, tiny_pairs, tmp_path, budget)) == []
    assert len(all_runs()) == 3 * (3 * 3 + 2)


def test_intervals_are_students():
    # By hand: mean 2, deviation 1, t(0.975, 2) = 4.3027.
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.3027 / math.sqrt(3), abs=1e-4))
    assert math.isnan(interval([1.0])[1])
    results = [
        {"head": "image", "precision": p, "recall": 1.0, "f1": p, "average_precision": p, "iou": p} for p in (0.4, 0.6)
    ]
    assert summary(results, ["head"])[0]["precision"].startswith("0.500 ± 1.27")
    assert "0.81" in published_tables()


def test_rows_of_what_needs_no_training_are_of_the_same_pairs(tiny_pairs):
    rows = {row["method"]: row for row in untrained_rows(tiny_pairs)}
    assert list(rows) == ["training_free", "ORB", "always match"]
    # Whoever always says match has the share of matches for its precision, and finds all.
    share = sum(one.match for one in tiny_pairs.test) / len(tiny_pairs.test)
    always = rows["always match"]
    assert (always["precision"], always["recall"]) == (pytest.approx(share), 1)
    assert always["f1"] == pytest.approx(2 * share / (1 + share))
    assert 0 < rows["training_free"]["iou"] < 1
    assert "iou" not in rows["ORB"]
    # The threshold is the best of these very pairs, so no other answer to all of them can be better.
    assert all(row["f1"] >= always["f1"] - 1e-9 for row in rows.values())


def test_the_demo_matcher_is_small_and_says_what_it_is():
    assert sum(path.stat().st_size for path in DEMO_FOLDER.iterdir()) < 6e6
    card = (DEMO_FOLDER / "README.md").read_text()
    assert "demo" in card
    assert "rendered" in card
    figures = json.loads((DEMO_FOLDER / "figures.json").read_text())
    assert f"| test pairs | {figures['test_pairs']} |" in card


def test_the_demo_matcher_tells_a_turned_carton_from_a_fruit():
    matcher = load_pair_matcher("demo", device="cpu", refine=False)
    names = ("arla-standard-milk__00", "arla-standard-milk__04", "lemon__display")
    images = [decode_image(str(PHOTOS / f"{name}.jpg")) for name in names]
    carton, turned, lemon = matcher.describe([matcher.prepare(image) for image in images])
    same, other = matcher.compare([(carton, turned), (carton, lemon)])
    assert same.score > other.score
    assert same.match
    assert np.isfinite(list(same.scores.values())).all()
    assert dataclasses.asdict(matcher.config)["encoder"] == "tokens"
