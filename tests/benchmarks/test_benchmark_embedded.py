"""``quality embedded`` on small made-up sets, its criteria, and the untrained twin of a model."""

import json

import numpy as np
import pytest
import torch
from fiftyone_selfsame.benchmarks.embedded_criteria import criteria
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.benchmarks.untrained import write_untrained_twin
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.errors import ModelError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from PIL import Image

PER_ENCODER = ["ffa (one_pass)", "ffa (grabcut)", "full_average", "class_token"]
BASELINES = ["histogram", "histogram_foreground", "phash"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model_folder("dinov2", tmp_path_factory.mktemp("model"))


def write_set(folder, **attributes):
    """Two objects, two noisy pictures of each; the first picture of each has two keypoints, shared by one pair."""
    folder.mkdir()
    items, rng = [], np.random.default_rng(0)
    for name, colour in {"cup": (200, 50, 96), "mug": (40, 140, 52)}.items():
        for view in range(2):
            image = rng.integers(100, 140, (64, 64, 3)).astype(np.uint8)
            image[20:44, 20 + view : 44 + view] = colour
            Image.fromarray(image).save(folder / f"{name}{view}.png")
            points = {"left": [22, 30], "right": [40, 30]}
            items.append({"path": f"{name}{view}.png", "object_id": name, "keypoints": points, **attributes})
    pairs = [{"a": "cup0", "b": "cup1", "part": "ware", "shared": ["left", "right"]}]
    (folder / "manifest.json").write_text(json.dumps({"name": "ware", "items": items, "pairs": pairs}))
    return str(folder)


def measured(tmp_path, *options):
    out = tmp_path / "out.json"
    assert main(["embedded", "--device", "cpu", "--json", str(out), *options]) == 0
    return json.loads(out.read_text())["rows"]


def test_one_table_holds_models_untrained_models_and_baselines_on_all_sets(tmp_path, model, capsys):
    wild, lighting = write_set(tmp_path / "wild"), write_set(tmp_path / "turn", group="lighting")

    rows = measured(tmp_path, "--data", wild, "--turntable", lighting, "--keypoints", wild, "--models", str(model))

    found = [(row["model"], row["method"]) for row in rows]
    encoders = [str(model), "untrained twin", "embedded-untrained"]
    expected = [(encoder, method) for encoder in encoders for method in PER_ENCODER]
    assert found == [*expected, *((None, name) for name in [*BASELINES, "chance", "raw colour"])]
    figures = [
        f"{name}{grey}_{figure}"
        for name in ("wild", "lighting")
        for grey in ("", "_grey")
        for figure in ("top1", "map")
    ]
    assert all(0 <= row[figure] <= 1 for row in rows[:-1] for figure in figures)
    assert [row["method"] for row in rows if "pck" in row] == ["ffa (one_pass)"] * 3 + ["raw colour"]
    text = capsys.readouterr().out
    assert "| model | method | wild_top1 |" in text
    assert text.count("beats every floor in the wild:") == 2
    assert text.count("beats both histograms under other lights:") == 2
    assert text.count("beats untrained tokens and raw colour on keypoints:") == 1


def test_data_that_are_not_given_leave_out_their_columns_and_criteria(tmp_path, model, capsys):
    rows = measured(tmp_path, "--data", write_set(tmp_path / "wild"), "--models", str(model))

    assert not any(name.startswith(("lighting", "pck")) for row in rows for name in row)
    text = capsys.readouterr().out
    assert "other lights" not in text
    assert "keypoints" not in text


def test_the_hybrid_has_to_beat_a_twin_that_has_its_colour_statistics_and_the_embedded_model_need_not(
    tmp_path, model, monkeypatch, capsys
):
    monkeypatch.setattr("fiftyone_selfsame.brain.backbones.embedded.EMBEDDED_FOLDER", model)

    rows = measured(tmp_path, "--data", write_set(tmp_path / "wild"))

    names = list(dict.fromkeys(row["model"] for row in rows if row["model"]))
    assert names == ["embedded", "embedded-hybrid", "untrained twin", "untrained twin-hybrid", "embedded-untrained"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "every floor" in line]
    assert len(lines) == 8
    assert not any("twin-hybrid" in line for line in lines if line.startswith("embedded ffa"))


def test_the_stand_in_has_no_twin_and_is_not_measured_twice(tmp_path):
    rows = measured(tmp_path, "--data", write_set(tmp_path / "wild"), "--models", "embedded-untrained")

    assert [row["model"] for row in rows if row["model"]] == ["embedded-untrained"] * len(PER_ENCODER)


def test_a_turntable_without_a_group_of_other_lights_is_told_in_one_line(tmp_path, model, capsys):
    data = write_set(tmp_path / "wild")

    assert main(["embedded", "--data", data, "--turntable", data, "--models", str(model)]) == 1
    assert "set 'lighting' has fewer than two images" in capsys.readouterr().err


def row(model, method, top1, average_precision, **more):
    return {"model": model, "method": method, "wild_top1": top1, "wild_map": average_precision, **more}


def test_a_criterion_names_every_rival_and_figure_that_is_not_beaten():
    rows = [
        row("ours", "ffa (one_pass)", 0.6, 0.5, pck=0.2),
        row("ours", "ffa (grabcut)", 0.7, 0.5),
        row("ours", "full_average", 0.4, 0.4),
        row("twin", "ffa (one_pass)", 0.3, 0.3, pck=0.1),
        row(None, "histogram", 0.6, 0.4),
        {"model": None, "method": "raw colour", "pck": 0.3},
    ]

    lines = [criterion.line() for criterion in criteria(rows, {"ours": ["twin"]})]

    assert lines == [
        "ours ffa (one_pass) beats every floor in the wild: no: histogram wild_top1 0.600 against 0.600",
        "ours ffa (one_pass) beats the full average of its own tokens in the wild: yes",
        "ours ffa (grabcut) beats every floor in the wild: yes",
        "ours ffa (grabcut) beats the full average of its own tokens in the wild: yes",
        "ours beats untrained tokens and raw colour on keypoints: no: raw colour pck 0.300 against 0.200",
    ]


def test_a_model_is_no_floor_of_its_own():
    rows = [row("ours", name, 0.5, 0.5) for name in PER_ENCODER]

    verdicts = criteria(rows, {"ours": ["ours"]})

    assert [verdict.failures for verdict in verdicts if "floor" in verdict.claim] == [(), ()]


@pytest.mark.parametrize("family", ["dinov2", "dino", "siglip_vision", "convnextv2"])
def test_an_untrained_twin_has_the_architecture_and_other_weights_that_are_always_the_same(tmp_path, family):
    folder = make_model_folder(family, tmp_path / "model")

    state = torch.random.get_rng_state()
    twins = [load_backbone(write_untrained_twin(folder, tmp_path / name), device="cpu") for name in ("a", "b")]
    assert torch.equal(torch.random.get_rng_state(), state)

    model = load_backbone(folder, device="cpu")
    images = torch.rand(1, 3, 64, 64) if model.patch_size == 16 else torch.rand(1, 3, 56, 56)
    mine, one, other = (backbone.tokens(images).patch for backbone in (model, *twins))
    assert mine.shape == one.shape
    assert not torch.allclose(mine, one)
    assert torch.equal(one, other)
    assert twins[0].weights_hash == twins[1].weights_hash


def test_only_a_model_folder_has_a_twin(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        write_untrained_twin(tmp_path, tmp_path / "twin")
