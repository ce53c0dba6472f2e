import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.benchmarks.neardup import best_of_each_kind, figures, measure, read_truth, with_sister_images
from fiftyone_selfsame.benchmarks.neardup_methods import (
    Finder,
    brain_finder,
    digest_finders,
    imagededup_finders,
    imagehash_finders,
    shot_finder,
    vector_finder,
)
from fiftyone_selfsame.benchmarks.neardup_table import against_peers
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from PIL import Image


def scene(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((90, 75), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two scenes: one with a copy as BMP and a JPEG copy, one with a turned view; and an image of a sister set."""
    root = tmp_path_factory.mktemp("sets")
    images = root / "neardup" / "images"
    images.mkdir(parents=True)
    (root / "sister").mkdir()
    scene(1).save(images / "a.png")
    scene(1).save(images / "a_again.bmp")
    scene(1).save(images / "a_small.jpg", quality=20)
    scene(2).save(images / "b.png")
    scene(3).save(images / "b_turned.png")
    scene(2).save(root / "sister" / "b.png")
    names = {"a.png": "a", "a_again.bmp": "a", "a_small.jpg": "a", "b.png": "b", "b_turned.png": "b"}
    items = [{"path": f"images/{name}", "object_id": thing} for name, thing in names.items()]
    pairs = [
        {"a": "a", "b": "a_again", "relation": "exact"},
        {"a": "a", "b": "a_small", "relation": "copy", "transform": "jpeg_q20"},
        {"a": "b", "b": "b_turned", "relation": "burst_repose"},
        {"a": "../sister/b.png", "b": "b", "relation": "near_duplicate"},
    ]
    manifest = {"name": "tiny", "items": items, "pairs": pairs}
    (root / "neardup" / "manifest.json").write_text(json.dumps(manifest))
    return root / "neardup"


@pytest.fixture(scope="module")
def data(folder):
    manifest = load_manifest(folder)
    items = with_sister_images(manifest.items, manifest.pairs, manifest.folder)
    truth = read_truth(items, manifest.pairs, by_transform=True)
    return SimpleNamespace(items=items, truth=truth, paths=[item.path for item in items])


def called(matrix: np.ndarray) -> set[tuple[int, int]]:
    return set(map(tuple, np.argwhere(np.triu(matrix, 1)).tolist()))


# Rows of `data`: 0 a, 1 a_again, 2 a_small, 3 b, 4 b_turned, 5 the sister's copy of b.
def test_truth_has_labelled_duplicates_labelled_others_and_ignores_unlabelled_pairs_of_one_object(data):
    assert called(data.truth.positive) == {(0, 1), (0, 2), (3, 5)}
    across = {(i, j) for i in (0, 1, 2) for j in (3, 4, 5)}
    assert called(data.truth.negative) == across | {(3, 4), (4, 5)}
    assert set(data.truth.kinds) == {"exact", "copy", "copy/jpeg_q20", "burst_repose", "near_duplicate"}


@pytest.mark.parametrize("call", [lambda path: path.stem, lambda path: path.name, lambda path: f"images/{path.name}"])
def test_pairs_may_name_images_by_id_file_name_or_path(folder, tmp_path, call):
    shutil.copytree(folder, tmp_path / "set")
    record = json.loads((folder / "manifest.json").read_text())
    record["pairs"] = [{"a": call(Path("a.png")), "b": call(Path("a_small.jpg")), "relation": "copy"}]
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(record))

    (pair,) = load_manifest(tmp_path / "set").pairs

    assert pair == {"a": "a", "b": "a_small", "relation": "copy"}


def test_the_pairs_of_the_demo_images_are_found():
    manifest = load_manifest(Path(__file__).parents[2] / "fixtures" / "demo_images")

    items = with_sister_images(manifest.items, manifest.pairs, manifest.folder)

    assert len(items) == len(manifest.items)
    assert read_truth(items, manifest.pairs).positive.sum() == len(manifest.pairs) > 0


def test_a_pair_that_names_no_image_is_an_error(folder):
    manifest = load_manifest(folder)
    for name in ("nobody", "../sister/nobody.png"):
        with pytest.raises(ConfigError, match="nobody"):
            with_sister_images(manifest.items, [{"a": "a", "b": name, "relation": "copy"}], folder)


def test_a_set_that_was_copied_without_its_sisters_is_measured_without_their_pairs(folder, tmp_path, capsys):
    alone = tmp_path / "neardup"
    shutil.copytree(folder, alone)
    options = ["--model", str(make_model_folder("dinov2", tmp_path / "model")), "--size", "56", "--device", "cpu"]

    status = main(["neardup", "--data", str(alone), *options, "--json", str(tmp_path / "out.json")])

    record = json.loads((tmp_path / "out.json").read_text())
    assert status == 0
    assert "1 pairs name images of sister sets" in capsys.readouterr().out
    assert record["settings"]["pairs_left_out"] == 1
    assert "near_duplicate" not in {row["group"] for row in record["rows"]}


def test_a_set_without_duplicates_is_an_error(data):
    with pytest.raises(ConfigError, match="neardup needs some"):
        read_truth(data.items, [{"a": "b", "b": "b_turned", "relation": "burst_repose"}])


def test_figures_count_hits_misses_and_false_pairs(data):
    found = np.zeros((6, 6), bool)
    found[[0, 3, 1, 1], [1, 4, 2, 3]] = True  # a hit, a turned view, an ignored pair, two different objects

    overall = figures(found, data.truth, "all")

    assert (overall["n_pairs"], overall["false_pairs"]) == (3, 2)
    assert overall["precision"] == pytest.approx(1 / 3)
    assert overall["recall"] == pytest.approx(1 / 3)
    assert overall["f1"] == pytest.approx(1 / 3)


def test_figures_of_one_kind_look_at_its_own_images_only_and_others_have_no_precision(data):
    found = np.zeros((6, 6), bool)
    found[[0, 3, 1], [1, 4, 3]] = True

    assert figures(found, data.truth, "exact")["precision"] == 1.0
    assert figures(found, data.truth, "copy")["precision"] is None
    turned = figures(found, data.truth, "burst_repose")
    assert (turned["flagged"], turned["precision"], turned["f1"]) == (1.0, None, None)


def test_a_method_is_measured_at_its_default_and_at_its_best_threshold(data):
    distance = np.full((6, 6), 9)
    distance[[0, 0, 3, 3], [1, 2, 5, 4]] = [0, 2, 3, 4]
    finder = Finder("made_up", lambda threshold: distance <= threshold, 9, range(10), "")

    overall = {row["scope"]: row for row in measure(finder, data.truth) if row["group"] == "all"}

    assert (overall["best"]["threshold"], overall["best"]["f1"]) == (3, 1.0)
    assert (overall["default"]["threshold"], overall["default"]["recall"]) == (9, 1.0)
    assert overall["default"]["precision"] < 0.5


def test_digests_find_equal_bytes_and_equal_pixels(data):
    by_bytes, by_pixels = digest_finders(data.paths)

    assert called(by_bytes.find(None)) == {(3, 5)}
    assert called(by_pixels.find(None)) == {(0, 1), (3, 5)}


def test_hashes_of_both_packages_find_the_copies_and_no_other_scene(data):
    finders = [*imagehash_finders(data.paths), *imagededup_finders(data.paths)]

    names = ["phash", "dhash", "imagededup_phash", "imagededup_dhash", "imagededup_ahash", "imagededup_whash"]
    assert [finder.name for finder in finders] == names
    for finder in finders:
        assert called(finder.find(8)) == {(0, 1), (0, 2), (1, 2), (3, 5)}, finder.name
        assert len(called(finder.find(64))) == 15


@pytest.fixture
def vectors():
    """Two tight pairs and a stranger, far from the origin: raw cosines are all above 0.9."""
    offsets = np.array([[1, 0, 0], [1, 0.02, 0], [-1, 0, 0], [-1, 0.02, 0], [0, 0, 2]])
    return (np.array([5.0, 5, 5]) + offsets).astype(np.float32)


POSITIVES = np.array([[0, 1], [2, 3]])


def test_own_search_compares_raw_cosines(vectors):
    finder = vector_finder("ffa", vectors, POSITIVES)

    assert called(finder.find(0.9999)) == {(0, 1), (2, 3)}
    assert called(finder.find(0.5)) == {(i, j) for i in range(5) for j in range(i + 1, 5)}


def test_fiftyone_brain_runs_on_the_same_vectors_and_leaves_them_and_the_database_alone(vectors, tmp_path):
    import fiftyone as fo

    before, datasets = vectors.copy(), fo.list_datasets()

    (found,) = [called(finder.find(0.2)) for finder in brain_finder(vectors, [tmp_path / "x.jpg"] * 5, POSITIVES)]

    assert found == {(0, 1), (2, 3)}
    np.testing.assert_array_equal(vectors, before)
    assert fo.list_datasets() == datasets


def test_the_command_measures_every_method_side_by_side_and_writes_json(folder, tmp_path, capsys):
    model = make_model_folder("dinov2", tmp_path / "model")
    command = ["neardup", "--data", str(folder), "--model", str(model), "--size", "56", "--foreground", "none"]

    status = main([*command, "--json", str(tmp_path / "out.json")])

    assert status == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    own, others = (
        {"ffa", "full_average", "selfsame", "file_digest", "pixel_digest"},
        {"fiftyone_brain", "phash", "dhash"},
    )
    hashes = {f"imagededup_{kind}" for kind in ("phash", "dhash", "ahash", "whash")}
    assert {row["method"] for row in rows} == own | others | hashes
    by_pixels = [row for row in rows if (row["method"], row["group"]) == ("pixel_digest", "all")]
    assert [(row["precision"], row["n_pairs"]) for row in by_pixels] == [(1.0, 3)]
    printed = capsys.readouterr().out
    assert "imagehash names no default" in printed
    assert printed.rstrip().splitlines()[-1].split()[0] == "near_duplicate"


def test_same_shots_are_found_even_where_the_vectors_point_elsewhere(data, monkeypatch):
    monkeypatch.setattr("fiftyone_selfsame.benchmarks.neardup_methods.SHOT_CANDIDATES", 2)
    misleading = np.eye(6, dtype=np.float32)

    finder = shot_finder(data.paths, [misleading], np.argwhere(data.truth.positive))

    assert called(finder.find(finder.default)) == {(0, 1), (0, 2), (1, 2), (3, 5)}
    # Equal pixels score 1, whatever the features say.
    assert called(finder.find(1.0)) == {(0, 1), (3, 5)}


def test_the_best_of_each_kind_may_have_its_own_threshold(data):
    distance = np.full((6, 6), 9)
    distance[[0, 1, 0, 3], [1, 3, 2, 5]] = [0, 1, 2, 3]
    finder = Finder("made_up", lambda threshold: distance <= threshold, 0, range(5), "")

    best = best_of_each_kind(finder, data.truth)

    # Alone, (0, 1) is had without a false pair; all three pairs together only at the price of (1, 3).
    assert (best["exact"], best["near_duplicate"]) == (1.0, 1.0)
    assert best["all"] == pytest.approx(2 * 3 / (4 + 3))
    assert "burst_repose" not in best


def test_the_last_table_says_kind_by_kind_who_is_ahead_and_by_how_much():
    scores = {"selfsame": (0.9, 0.95), "phash": (0.5, 0.7), "dhash": (0.6, 0.8), "fiftyone_brain": (0.1, 0.9)}
    rows = [
        {"method": method, "group": "all", "scope": scope, "f1": f1}
        for method, both in scores.items()
        for scope, f1 in zip(("default", "best"), both, strict=True)
    ]

    (row,) = against_peers(rows, {method: {"all": both[1]} for method, both in scores.items()})

    assert (row["selfsame"], row["selfsame_best"]) == (0.9, 0.95)
    assert (row["fiftyone_brain"], row["imagehash"], row["imagededup"]) == (0.9, 0.8, None)
    assert (row["ahead"], row["verdict"], row["oracle"]) == (0.0, "tie", 0.9)
