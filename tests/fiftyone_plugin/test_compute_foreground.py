"""compute_foreground: mask files and the labels that point to them."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.paths import home
from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa, compute_foreground
from fiftyone_selfsame.fiftyone_plugin.mask_store import MaskStore, as_foreground, read_mask
from PIL import Image


@pytest.fixture
def foreground(tiny_model):
    def run(samples, method="grabcut", field="foreground", **options):
        defaults = {"model": tiny_model, "device": "cpu", "progress": False}
        return compute_foreground(samples, method, field, **{**defaults, **options})

    return run


@pytest.mark.parametrize("method", ["one_pass", "grabcut"])
def test_masks_are_segmentations_on_disk_of_the_size_of_the_image(fo_dataset, photos, foreground, method):
    dataset = fo_dataset(photos(3))

    summary = foreground(dataset, method)

    assert summary.counts["done"] == 3
    for sample in dataset:
        mask = sample["foreground"].get_mask()
        assert isinstance(sample["foreground"], fo.Segmentation)
        assert mask.shape == (60, 80)
        assert set(np.unique(mask)) <= {0, 255}
        assert 0 <= sample["foreground_fraction"] <= 1
    assert dataset.mask_targets["foreground"] == {255: "foreground"}
    assert dataset.get_field("foreground").info["mask_dir"] == summary.details["mask_dir"]


def test_masks_go_under_the_home_folder_by_dataset_and_field(fo_dataset, photos, foreground):
    dataset = fo_dataset(photos(1))

    foreground(dataset)

    expected = home() / "masks" / dataset.slug / "foreground" / f"{dataset.first().id}.png"
    assert Path(dataset.first()["foreground"].mask_path) == expected


def test_other_mask_targets_of_the_dataset_stay(fo_dataset, photos, foreground):
    dataset = fo_dataset(photos(1))
    dataset.mask_targets = {"parts": {1: "wheel"}}
    dataset.save()

    foreground(dataset)

    assert fo.load_dataset(dataset.name).mask_targets == {"parts": {1: "wheel"}, "foreground": {255: "foreground"}}


def test_a_mask_file_that_vanished_is_made_again(fo_dataset, photos, foreground):
    dataset = fo_dataset(photos(2))
    foreground(dataset)
    lost = Path(dataset.first()["foreground"].mask_path)

    lost.unlink()
    summary = foreground(dataset)

    assert summary.counts == {"total": 2, "done": 1, "skipped": 1, "failed": 0}
    assert lost.is_file()


def test_masks_of_the_dataset_feed_ffa(fo_dataset, photos, foreground, tiny_model):
    dataset = fo_dataset(photos(2))
    foreground(dataset)

    compute_ffa(dataset, model=tiny_model, foreground="field:foreground", device="cpu", progress=False)

    fractions = zip(*dataset.values(["foreground_fraction", "ffa_foreground_fraction"]), strict=True)
    assert all(mask == pytest.approx(vector, abs=0.02) for mask, vector in fractions)


@pytest.mark.parametrize("method", ["none", "field:gt"])
def test_methods_that_find_no_foreground_are_refused(fo_dataset, photos, foreground, method):
    with pytest.raises(ConfigError, match=f"method='{method}'"):
        foreground(fo_dataset(photos(1)), method)


@pytest.mark.parametrize("option", ["batch_size", "num_workers"])
def test_numbers_below_one_are_refused(fo_dataset, photos, foreground, option):
    with pytest.raises(ConfigError, match=f"{option}=0"):
        foreground(fo_dataset(photos(1)), **{option: 0})


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(fo_dataset, photos, foreground, tmp_path):
    (tmp_path / "file").touch()
    dataset = fo_dataset(photos(1))

    with pytest.raises(ConfigError, match=r"mask_dir .*cannot be created"):
        foreground(dataset, mask_dir=tmp_path / "file" / "masks")

    assert not dataset.has_field("foreground")


def test_a_mask_file_is_complete_or_absent(fo_dataset, tmp_path, monkeypatch):
    store = MaskStore(fo_dataset(), "foreground", tmp_path)
    monkeypatch.setattr(Image.Image, "save", lambda *_, **__: (_ for _ in ()).throw(OSError("No space left")))

    with pytest.raises(OSError, match="No space left"):
        store.write("id", np.ones((2, 2), bool))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB", "RGBA"])
def test_mask_files_of_every_kind_are_read(tmp_path, mode):
    truth = np.array([[False, True], [True, False]])
    picture = Image.fromarray(truth.astype(np.uint8) * 255)
    if mode == "I;16":
        picture = Image.fromarray(truth.astype(np.uint16) * 300)
    elif mode == "P":
        picture = Image.fromarray(truth.astype(np.uint8), "P")
        picture.putpalette([9, 9, 9, 200, 0, 0])
    else:
        picture = picture.convert(mode)
    picture.save(tmp_path / "mask.png")

    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), truth)


def test_colour_masks_in_memory_are_foreground_where_not_black():
    np.testing.assert_array_equal(as_foreground(np.array([[[0, 0, 0], [0, 1, 0]]])), [[False, True]])
