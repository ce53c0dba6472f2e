import json

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.foreground import centre_ellipse, unique_masks
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.benchmarks.quality import main
from PIL import Image


@pytest.fixture
def folder(tmp_path):
    """Two parts with one masked picture each, the first of them listed twice, and a picture without a mask."""
    for name, (top, left) in {"a": (20, 30), "b": (30, 20)}.items():
        image = np.full((64, 80, 3), (40, 120, 50), np.uint8)
        mask = np.zeros((64, 80), np.uint8)
        image[top : top + 20, left : left + 24] = (200, 30, 30)
        mask[top : top + 20, left : left + 24] = 255
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        Image.fromarray(mask).convert("1").save(tmp_path / f"{name}_mask.png")
    items = [
        {"image": "a.png", "mask": "a_mask.png", "part": "first"},
        {"image": "a.png", "mask": "a_mask.png", "part": "first"},
        {"image": "b.png", "mask": "b_mask.png", "part": "second"},
        {"image": "b.png", "part": "second"},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "toy", "items": items}))
    return tmp_path


def measured(folder, *arguments):
    out = folder / "out.json"
    status = main(["foreground", "--data", str(folder), "--device", "cpu", "--json", str(out), *arguments])
    return status, json.loads(out.read_text()) if out.exists() else None


def test_every_method_is_measured_on_all_masks_and_on_each_part(folder, capsys):
    status, report = measured(folder, "--model", "embedded", "--methods", "one_pass", "grabcut")

    rows = {(row["method"], row["group"]): row for row in report["rows"]}
    assert status == 0
    assert {method for method, _ in rows} == {
        "full_image",
        "centre_ellipse",
        "mask_on_patches",
        "one_pass",
        "grabcut",
    }
    assert [rows["grabcut", group]["n"] for group in ("all", "first", "second")] == [2, 1, 1]
    assert rows["full_image", "all"]["iou"] == pytest.approx(20 * 24 / (64 * 80))
    assert rows["grabcut", "all"]["iou"] > 0.9
    assert rows["mask_on_patches", "all"]["iou"] > 0.9
    assert report["settings"]["encoder_seconds_per_image"] > 0
    assert "2 of 4 items" in capsys.readouterr().out


def test_a_method_asked_for_by_name_must_have_its_weights(folder, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    monkeypatch.setattr("carvekit.utils.download_models.downloader.cache_dir", tmp_path)

    status, report = measured(folder, "--model", "embedded", "--methods", "carvekit")

    assert (status, report) == (1, None)
    assert "tracer_b7.pth" in capsys.readouterr().err


def test_data_without_masks_are_refused(folder, capsys):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["items"] = manifest["items"][3:]
    (folder / "manifest.json").write_text(json.dumps(manifest))

    assert measured(folder, "--model", "embedded")[0] == 1
    assert "no item has a mask" in capsys.readouterr().err


def test_a_picture_with_two_masks_counts_twice_and_a_repeated_entry_once(folder):
    assert [item.path.name for item in unique_masks(load_manifest(folder).items)] == ["a.png", "b.png"]


def test_the_trivial_ellipse_spans_half_of_each_side():
    ellipse = centre_ellipse(80, 40)

    assert ellipse.any(1).sum() == 40
    assert ellipse.any(0).sum() == 20
