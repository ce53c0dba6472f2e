"""``quality identity`` on small made-up sets, and its histogram on the real ones."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.baselines import histogram, phash, phash_similarity
from fiftyone_selfsame.benchmarks.identity import groups, identity_rows
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from PIL import Image

# Of one brightness, so that grey pictures tell nothing; the grounds differ by view, so that only the object helps.
COLOURS = {"cup": (200, 50, 96), "mug": (40, 140, 52), "shoe": (70, 100, 180)}
GROUNDS = [(255, 255, 60), (60, 255, 255), (255, 60, 255)]
METHODS = {"full_average", "class_token", "ffa", "histogram", "phash"}


def write_set(folder, *, masks=False, **attributes):
    """Three objects, three noisy pictures of each: a square of the object's colour on coloured ground."""
    (folder / "images").mkdir(parents=True)
    items, rng = [], np.random.default_rng(0)
    for name, colour in COLOURS.items():
        for view in range(3):
            image = (GROUNDS[view] - rng.integers(0, 40, (40, 40, 3))).astype(np.uint8)
            mask = np.zeros((40, 40), np.uint8)
            mask[5 + view : 25 + view, 10 - view : 30 - view] = 255
            image[mask > 0] = np.clip(colour + rng.integers(-20, 20, (400, 3)), 0, 255)
            path = f"images/{name}{view}.png"
            Image.fromarray(image).save(folder / path)
            item = {"path": path, "object_id": name, **{key: values[view] for key, values in attributes.items()}}
            if masks:
                item["mask"] = f"images/{name}{view}_mask.png"
                Image.fromarray(mask).save(folder / item["mask"])
            items.append(item)
    (folder / "manifest.json").write_text(json.dumps({"name": "squares", "items": items}))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(make_model_folder("dinov2", tmp_path_factory.mktemp("model")))


def rows_of(tmp_path, data, model, *options):
    out = tmp_path / "out.json"
    status = main(["identity", "--data", str(data), "--model", model, "--size", "56", "--json", str(out), *options])
    assert status == 0
    return json.loads(out.read_text())


def test_a_set_with_nothing_but_object_ids_is_measured_in_one_group_and_scope(tmp_path, model):
    record = rows_of(tmp_path, write_set(tmp_path / "set"), model, "--foreground", "none")

    assert {row["method"] for row in record["rows"]} == METHODS
    assert {(row["group"], row["scope"]) for row in record["rows"]} == {("all", "all")}
    row = next(row for row in record["rows"] if row["method"] == "histogram")
    assert 0 <= row["top1"] < 1
    assert row["n"] == 9
    assert row["chance_top1"] == pytest.approx(2 / 8)
    assert row["macro_map"] is None
    assert record["settings"]["model"] == model
    assert record["settings"]["foreground"] == "none"


def test_groups_and_categories_of_the_manifest_give_more_rows(tmp_path, model):
    data = write_set(tmp_path / "set", group=["pose", "pose", "lighting"], category=["ware"] * 3)

    record = rows_of(tmp_path, data, model, "--foreground", "none")

    found = {(row["group"], row["scope"]) for row in record["rows"]}
    assert found == {(group, scope) for group in ("all", "lighting", "pose") for scope in ("all", "category")}
    lighting = [row for row in record["rows"] if row["group"] == "lighting"]
    assert all(row["n"] == 0 and row["skipped"] == 3 and row["top1"] is None for row in lighting)


def test_with_masks_the_foreground_is_averaged_and_the_histogram_looks_inside(tmp_path, model):
    record = rows_of(tmp_path, write_set(tmp_path / "set", masks=True), model, "--foreground", "mask")

    scores = {row["method"]: row for row in record["rows"]}
    assert set(scores) == {*METHODS, "histogram_foreground"}
    assert scores["histogram_foreground"]["map"] == 1
    assert scores["histogram"]["map"] < 1
    assert scores["ffa"]["map"] > scores["full_average"]["map"]


@pytest.mark.parametrize(
    ("foreground", "methods"), [("one_pass", METHODS), ("grabcut", METHODS | {"histogram_foreground"})]
)
def test_foregrounds_are_taken_by_name_and_pixel_masks_also_serve_the_histogram(tmp_path, model, foreground, methods):
    record = rows_of(tmp_path, write_set(tmp_path / "set"), model, "--foreground", foreground)

    assert {row["method"] for row in record["rows"]} == methods
    assert record["settings"]["foreground"] == foreground


def test_an_unknown_foreground_is_told_in_one_line(tmp_path, model, capsys):
    data = write_set(tmp_path / "set")

    assert main(["identity", "--data", str(data), "--model", model, "--foreground", "magic"]) == 1
    assert "foreground='magic' is unknown" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--encode", "cutout"], ["--resize", "aspect"], ["--pooling", "cls"]])
def test_the_options_of_ffa_reach_it(tmp_path, model, options):
    data = write_set(tmp_path / "set", masks=True)

    record = rows_of(tmp_path, data, model, "--foreground", "mask", *options)

    assert record["settings"][options[0].removeprefix("--")] == options[1]


def test_without_a_foreground_ffa_is_the_full_average_and_batches_do_not_matter(tmp_path, model):
    data = write_set(tmp_path / "set")

    one, many = (
        rows_of(tmp_path, data, model, "--foreground", "none", "--batch-size", size)["rows"] for size in ("1", "9")
    )

    figures = [[row[name] for name in ("top1", "map", "ari")] for row in many]
    assert figures[0] == figures[2]
    assert np.allclose(figures, [[row[name] for name in ("top1", "map", "ari")] for row in one])


def test_grey_input_takes_the_colour_from_every_method(tmp_path, model):
    record = rows_of(tmp_path, write_set(tmp_path / "set", masks=True), model, "--foreground", "mask", "--grey")

    assert record["settings"]["grey"] is True
    assert next(row for row in record["rows"] if row["method"] == "histogram_foreground")["map"] < 0.9


def test_faults_of_the_data_are_told_in_one_line(tmp_path, model, capsys):
    broken = write_set(tmp_path / "broken")
    (broken / "images" / "cup1.png").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "nonsense").mkdir()
    (tmp_path / "nonsense" / "manifest.json").write_text('{"items": [{"image_file": "a.jpg"}]}')
    nameless = write_set(tmp_path / "nameless", object_id=[None] * 3)

    for folder, text in {
        broken: "the image of item 'cup1' is missing",
        tmp_path / "empty": "no manifest.json there",
        tmp_path / "nonsense": "not a manifest",
        nameless: "fewer than two items have an object_id",
    }.items():
        assert main(["identity", "--data", str(folder), "--model", model]) == 1
        error = capsys.readouterr().err
        assert text in error
        assert len(error.splitlines()) == 1


def test_masks_that_are_missing_are_named(tmp_path, model, capsys):
    data = write_set(tmp_path / "set")

    assert main(["identity", "--data", str(data), "--model", model, "--foreground", "mask"]) == 1
    assert "item 'cup0' has no mask" in capsys.readouterr().err


def test_a_manifest_can_be_asked_for_attributes_that_no_item_may_lack(tmp_path):
    folder = write_set(tmp_path / "set")

    assert len(load_manifest(folder / "manifest.json", require=["object_id"]).items) == 9
    with pytest.raises(ConfigError, match="item 'cup0' has no `category`"):
        load_manifest(folder, require=["category"])


def test_relit_images_are_also_measured_together_with_the_frame_they_were_made_from(tmp_path):
    data = write_set(tmp_path / "set", group=["pose", "pose", "lighting"], view=["pose00", "pose01", "dim"])

    found = groups(load_manifest(data).items)

    assert found["lighting"] == [2, 5, 8]
    assert found["lighting+pose00"] == [0, 2, 3, 5, 6, 8]


def test_the_histogram_is_a_unit_vector_of_the_selected_pixels():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:, 2:] = (255, 0, 0)
    left, right = np.zeros((4, 4)), np.zeros((4, 4))
    left[:, :2], right[:, 2:] = 1, 1

    whole, one, other = histogram(image), histogram(image, left), histogram(image, right)

    assert whole.shape == (288,)
    assert np.allclose([whole @ whole, one @ one, one @ other], [1, 1, 0])
    assert whole @ one == pytest.approx(0.5**0.5)
    assert np.array_equal(histogram(image, np.zeros((4, 4))), whole)


def test_similarity_of_hashes_is_the_share_of_equal_bits():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 64, 64, 3), np.uint8)
    vectors = np.stack([phash(image) for image in images])

    similarity = phash_similarity(vectors)

    bits = vectors > 0
    expected = np.array([[(a == b).mean() for b in bits] for a in bits])
    assert np.allclose(similarity, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "group", "expected"),
    [
        ("objid_wild", "all", (0.554, 0.365, 0.05)),
        ("objid_turntable", "pose", (0.947, 0.841, 0.61)),
        ("objid_turntable", "lighting+pose00", (0.776, 0.572, 0.31)),
    ],
)
def test_the_histogram_reproduces_the_figures_known_of_the_real_sets(shared_dir, data, group, expected):
    items = load_manifest(shared_dir / "data" / data).items
    vectors = {"histogram": np.stack([histogram(decode_image(item.path)) for item in items])}

    rows = identity_rows(vectors, items)

    (row,) = (row for row in rows if (row["group"], row["scope"]) == (group, "all"))
    assert (row["top1"], row["map"], row["ari"]) == pytest.approx(expected, abs=0.005)
