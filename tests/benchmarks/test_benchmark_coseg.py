import json

import numpy as np
import pytest
import torch
from fiftyone_selfsame.benchmarks import coseg
from fiftyone_selfsame.benchmarks.coseg import Study
from fiftyone_selfsame.benchmarks.coseg_data import halves_of, pair_halves, read_pairs, resamples, units_of
from fiftyone_selfsame.benchmarks.coseg_methods import Answers
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.brain.cosalient.matcher_folder import save_network
from fiftyone_selfsame.brain.cosalient.network import PairNetwork
from fiftyone_selfsame.brain.cosalient.network_config import NetworkConfig
from fiftyone_selfsame.brain.errors import ConfigError
from PIL import Image

OBJECTS = {"mug1": "mug", "mug2": "mug", "toy1": "toy", "toy2": "toy"}
COLOURS = {"mug1": (200, 30, 30), "mug2": (40, 60, 220), "toy1": (230, 200, 20), "toy2": (200, 40, 200)}


def draw(folder, name, colour, top, left):
    """A patterned square on green; returns its entry in the manifest but for what it shows."""
    image = np.random.default_rng(abs(top * 31 + left)).integers(0, 30, (64, 80, 3)).astype(np.uint8) + 40
    mask = np.zeros((64, 80), np.uint8)
    image[top : top + 24, left : left + 24] = colour
    image[top : top + 24 : 4, left : left + 24] //= 2
    mask[top : top + 24, left : left + 24] = 255
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).convert("1").save(folder / f"{name}_mask.png")
    return {"id": name, "image": f"{name}.png", "mask": f"{name}_mask.png"}


@pytest.fixture
def folder(tmp_path):
    """Two objects of two categories with two views each, a pair of composites and one of a mere category."""
    items, pairs = [], []
    for name, category in OBJECTS.items():
        for view, (top, left) in enumerate(((10, 12), (24, 40))):
            entry = draw(tmp_path, f"{name}_{view}", COLOURS[name], top, left)
            items.append({**entry, "object_id": name, "category": category, "part": "same_instance"})
        pairs.append({"a": f"{name}_0", "b": f"{name}_1", "part": "same_instance", "label": "match"})
    for first, second in (("mug1", "mug2"), ("toy1", "toy2"), ("mug1", "toy1")):
        hard = first[:3] == second[:3]
        ends = {"a": f"{first}_0", "b": f"{second}_1"}
        pairs.append({**ends, "part": "same_instance", "label": "non-match", "hard": hard})
    for part, label, extra in (
        ("composite", "match", {"object_id": "pear"}),
        ("category", "same-category", {"object_id": None}),
    ):
        for view in (0, 1):
            entry = draw(tmp_path, f"{part}_{view}", (240, 240, 250), 12 + 9 * view, 20)
            items.append({**entry, **extra, "category": "fruit", "part": part})
        pairs.append({"a": f"{part}_0", "b": f"{part}_1", "part": part, "label": label})
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "toy", "items": items, "pairs": pairs}))
    return tmp_path


def study_of(folder, rounds=20):
    manifest = load_manifest(folder)
    return Study(manifest, read_pairs(manifest), rounds, 0)


def test_every_method_is_measured_on_every_part(folder, capsys, monkeypatch):
    monkeypatch.setattr(coseg, "DEMO_FOLDER", folder / "absent")
    out = folder / "out.json"
    options = ["--model", "embedded", "--device", "cpu", "--bootstrap", "20", "--json", str(out)]

    assert main(["coseg", "--data", str(folder), *options]) == 0

    report = json.loads(out.read_text())
    ious = {(row["method"], row["group"]): row["iou"] for row in report["rows"]}
    parts = ("same_instance", "composite", "category")
    assert set(ious) == {(name, part) for name in ("training_free", "grabcut", "whole_image") for part in parts}
    assert all(ious["whole_image", part] == pytest.approx(24 * 24 / (64 * 80)) for part in parts)
    assert all(ious["grabcut", part] > 0.9 for part in parts)
    decisions = {(row["method"], row["scope"]): row for row in report["settings"]["decisions"]}
    assert {name for name, _ in decisions} == {
        "training_free",
        "grabcut",
        "whole_image",
        "ffa",
        "orb",
        "always_match",
    }
    always = decisions["always_match", "chosen"]
    assert (always["precision"], always["recall"], always["rejected_hard"]) == (4 / 6, 1, 0)
    assert always["ap"] == pytest.approx(4 / 7), "the pair across the halves counts for ap, not for the decision"
    assert decisions["grabcut", "chosen"]["empty_easy"] == 0
    assert {row["group"] for row in report["settings"]["differences"]} == {"composite", "same_instance"}
    printed = capsys.readouterr().out
    assert "no trained row" in printed
    assert "4 matching and 2 other pairs; 1 pairs across" in printed


def test_a_matcher_that_is_given_has_a_row_of_its_own(folder):
    torch.manual_seed(0)
    widths = {"widths": (8, 8, 8, 8), "d": 8, "mask_width": 8, "match_width": 8, "side": 64}
    save_network(folder / "mine", PairNetwork(NetworkConfig(k=4, **widths)), threshold=0.3, facts={})
    out = folder / "out.json"
    options = ["--model", "embedded", "--device", "cpu", "--bootstrap", "2", "--matcher", str(folder / "mine")]

    assert main(["coseg", "--data", str(folder), *options, "--json", str(out)]) == 0

    report = json.loads(out.read_text())
    assert [row["pairs"] for row in report["rows"] if row["method"] == "trained"] == [4, 1, 1]
    assert [row["scope"] for row in report["settings"]["decisions"] if row["method"] == "trained"] == [
        "chosen",
        "default",
    ]


def test_the_threshold_of_a_half_comes_from_the_other_half(folder):
    study = study_of(folder)
    # Matches of mugs score 2 and their others 0, those of toys 7 and 4: a threshold in common would suit neither.
    scores = np.array([2, 2, 7, 7, 0, 4, 9, 0, 0], float)

    chosen = next(study.decision_rows(Answers("toy", scores)))

    # Toys are judged by 1 (all are matches), mugs by 5.5 (none is).
    assert (chosen["precision"], chosen["recall"]) == (2 / 3, 0.5)
    assert chosen["rejected_hard"] == 0.5
    assert chosen["rejected_easy"] is None, "the easy pair lies across the halves"


def test_a_matcher_is_also_judged_at_its_own_threshold(folder):
    scores = np.array([2, 2, 7, 7, 0, 4, 9, 0, 0], float)
    rows = list(study_of(folder).decision_rows(Answers("toy", scores, threshold=1.0)))

    assert [row["scope"] for row in rows] == ["chosen", "default"]
    assert (rows[1]["precision"], rows[1]["recall"]) == (4 / 5, 1.0)


def test_empty_masks_are_counted_on_pairs_of_different_objects_alone(folder):
    empty = np.array([1, 1, 1, 1, 1, 0, 1, 1, 1], bool)
    row = next(study_of(folder).decision_rows(Answers("toy", np.arange(9.0), empty=empty)))

    assert (row["empty_hard"], row["empty_easy"]) == (0.5, 1.0)


def test_differences_are_those_of_the_same_resamples(folder):
    study = study_of(folder, 200)
    scores = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], float)
    ious = np.array([0.1, 0.4, 0.6, 0.9, np.nan, np.nan, np.nan, 0.5, 0.5])
    answers = {
        "training_free": Answers("training_free", scores, ious),
        "grabcut": Answers("grabcut", scores, ious - 0.05),
        "ffa": Answers("ffa", scores),
        "orb": Answers("orb", 1 - scores),
    }

    rows = {(row["required"], row["group"]): row for row in study.difference_rows(answers)}

    shifted = rows["iou above grabcut", "same_instance"]
    assert [shifted[name] for name in ("more", "low", "high")] == pytest.approx([0.05] * 3)
    assert shifted["verdict"] == "pass"
    same = rows["ap above ffa", "same_instance"]
    assert (same["more"], same["low"], same["high"], same["verdict"]) == (0, 0, 0, "FAIL")
    assert rows["ap above orb", "same_instance"]["verdict"] == "pass"


def test_intervals_widen_with_the_spread_between_objects(folder):
    ious = np.array([0.1, 0.4, 0.6, 0.9, np.nan, np.nan, np.nan, 0.5, 0.5])
    rows = {row["group"]: row for row in study_of(folder, 400).mask_rows(Answers("toy", np.zeros(9), ious))}

    wide, narrow = rows["same_instance"], rows["composite"]
    assert wide["iou"] == pytest.approx(0.5)
    assert 0.1 <= wide["low"] < 0.35
    assert 0.65 < wide["high"] <= 0.9
    assert (narrow["low"], narrow["high"]) == (0.5, 0.5), "there is one object"


def test_halves_keep_categories_whole_and_pairs_across_have_none(folder):
    manifest = load_manifest(folder)
    pairs, units = read_pairs(manifest), units_of(manifest.items)
    halves = halves_of(manifest.items[:8], units[:8])

    assert halves == {"mug1": 0, "mug2": 0, "toy1": 1, "toy2": 1}
    assert pair_halves(pairs[:7], units, halves).tolist() == [0, 0, 1, 1, 0, 1, -1]
    assert units[-1] == "any fruit"


def test_resamples_draw_as_many_objects_as_there_are(folder):
    manifest = load_manifest(folder)
    pairs, units = read_pairs(manifest)[:7], units_of(manifest.items)
    drawn = np.array(list(resamples(pairs, units, 300, 0)))

    assert (drawn[:, :4].sum(axis=1) == 4).all()
    assert (drawn[:, 4] == drawn[:, 0] * drawn[:, 1]).all()
    assert drawn[:, :4].mean(axis=0) == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pairs": []}, "no `pairs`"),
        ({"pairs": [{"a": "mug1_0", "b": "nowhere", "label": "match"}]}, "'nowhere'"),
        ({"pairs": [{"a": "mug1_0", "b": "mug1_1", "label": "maybe"}]}, "'maybe'"),
    ],
)
def test_what_a_manifest_lacks_is_said(folder, change, message):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ConfigError, match=message):
        read_pairs(load_manifest(folder))


def test_objects_of_one_category_cannot_be_split(folder):
    path = folder / "manifest.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "items": [{**item, "category": "thing"} for item in record["items"]]}))

    with pytest.raises(ConfigError, match="one half"):
        study_of(folder)
