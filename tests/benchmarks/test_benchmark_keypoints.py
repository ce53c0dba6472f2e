"""``quality keypoints`` on pictures of coloured squares, where the nearest colour is known."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.keypoints import RAW_COLOUR, ColourDescriptor, measure, predict, read_cases
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from PIL import Image

RED, GREEN, BLUE, GROUND = (220, 20, 20), (20, 220, 20), (20, 20, 220), (90, 90, 90)


def centre(row, column):
    """Middle of a cell of 14 pixels, ``[x, y]``."""
    return [14.0 * column + 7, 14.0 * row + 7]


def picture(squares, rows=8, columns=8):
    """Grey, with the given cells (row, column) and the eight around each painted in a colour."""
    image = np.full((14 * rows, 14 * columns, 3), GROUND, np.uint8)
    for (row, column), colour in squares.items():
        image[14 * (row - 1) : 14 * (row + 2), 14 * (column - 1) : 14 * (column + 2)] = colour
    return image


def write_set(folder, **target):
    """Two pictures with a nose (blue), a left (red) and a right (green) ear; in the second the ears' colours swap."""
    places = {"nose": (6, 4), "ear_L": (1, 1), "ear_R": (1, 6)}
    Image.fromarray(picture({(6, 4): BLUE, (1, 1): RED, (1, 6): GREEN})).save(folder / "a.png")
    Image.fromarray(picture({(6, 4): BLUE, (1, 1): GREEN, (1, 6): RED})).save(folder / "b.png")
    points = {name: centre(*place) for name, place in places.items()}
    second = {"image": "b.png", "part": "faces", "keypoints": points, "bbox": None, **target}
    manifest = {
        "name": "squares",
        "left_right_partners": {"faces": [["ear_L", "ear_R"]]},
        "items": [{"image": "a.png", "part": "faces", "keypoints": points, "bbox": None}, second],
        "pairs": [{"a": "a", "b": "b", "part": "faces", "shared": sorted(set(points) & set(second["keypoints"]))}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def write_scenes(folder):
    """The same pair as a rendered set, with boxes, seen from one eighth of a circle to the left and to the right."""
    (folder / "keypoints").mkdir(parents=True)
    path = write_set(folder / "keypoints", bbox=[0, 0, 112, 112], azimuth_bin=7) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["items"][0] |= {"bbox": [0, 0, 112, 112], "azimuth_bin": 1}
    path.write_text(json.dumps({**manifest, "name": "scenes"}))
    return folder


def colour_row(folder):
    rows = measure({RAW_COLOUR: ColourDescriptor(112, 14)}, read_cases(load_manifest(folder)))
    return next(row for row in rows if row["group"] == "faces")


def test_points_are_counted_as_correct_and_exchanged_ears_as_swaps(tmp_path):
    row = colour_row(write_set(tmp_path))

    assert row["pck_per_point"] == pytest.approx(1 / 3)
    assert row["pck_per_image"] == pytest.approx(1 / 3)
    assert (row["paired_pck_per_point"], row["swaps"]) == (0, 1)
    assert (row["n_pairs"], row["n"], row["n_paired"]) == (1, 3, 2)


def test_a_partner_that_is_hidden_in_the_target_leaves_no_swap_to_be_seen(tmp_path):
    row = colour_row(write_set(tmp_path, keypoints={"nose": centre(6, 4), "ear_L": centre(1, 1)}))

    assert row["n_paired"] == 0
    assert np.isnan(row["swaps"])
    assert row["pck_per_point"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(("bbox", "share"), [(None, 1 / 3), ([0, 0, 112, 112], 1 / 3), ([10, 10, 30, 40], 0)])
def test_the_box_sets_the_threshold_and_the_picture_where_there_is_none(tmp_path, bbox, share):
    # The nose is said to lie 8 pixels from its blue square: within a tenth of 112 pixels and beyond one of 40.
    points = {"nose": [centre(6, 4)[0] + 8, centre(6, 4)[1]], "ear_L": centre(1, 1), "ear_R": centre(1, 6)}

    assert colour_row(write_set(tmp_path, bbox=bbox, keypoints=points))["pck_per_point"] == pytest.approx(share)


def test_a_prediction_is_the_centre_of_the_nearest_cell_in_pixels_of_the_stored_image():
    colours = ColourDescriptor(112, 14)
    source = colours.describe(picture({(2, 5): RED}))
    target = colours.describe(np.repeat(np.repeat(picture({(2, 2): RED}, rows=4), 2, 0), 2, 1))

    found = predict(source, target, np.array([centre(2, 5), [14 * 5 + 0.5, 14 * 2 + 13.5]]))

    # The target is twice as large as the canvas shows it.
    assert np.allclose(found, [[2 * x for x in centre(2, 2)]] * 2)


def test_padding_is_never_the_answer_and_a_point_on_the_edge_belongs_to_the_last_cell():
    colours = ColourDescriptor(56, 14)
    source = colours.describe(np.full((56, 56, 3), 127, np.uint8))
    # Letterboxed with grey of the very colour that is looked for, above and below.
    target = colours.describe(np.full((28, 56, 3), 120, np.uint8))

    (x, y), _ = predict(source, target, np.array([[56.0, 56.0], [0.0, 0.0]]))

    assert 0 < x < 56
    assert 0 < y < 28


def test_the_command_measures_the_model_beside_the_untrained_one_and_raw_colour(tmp_path, capsys):
    model = str(make_model_folder("dinov2", tmp_path / "model"))
    data, out = write_set(tmp_path), tmp_path / "out.json"

    scenes = write_scenes(tmp_path / "scenes")

    options = ["--model", model, "--size", "56", "--device", "cpu", "--json", str(out), "--bootstrap", "5"]
    assert main(["keypoints", "--data", str(data), "--scenes", str(scenes), *options]) == 0

    record = json.loads(out.read_text())
    assert [row["method"] for row in record["rows"]] == [model, "embedded-untrained", RAW_COLOUR] * 2
    assert [row["group"] for row in record["rows"]] == ["all"] * 3 + ["faces"] * 3
    assert (record["settings"]["size"], record["settings"]["grey"]) == (56, False)
    assert "PCK@0.1 of 1 pairs" in capsys.readouterr().out
    photographs, rendered = record["settings"]["studies"]["squares"], record["settings"]["studies"]["scenes"]
    assert [row["pairs"] for row in rendered["KAP"]] == [1, 1]
    # Without a box there is neither KAP nor a box threshold; without azimuths, nothing is required.
    assert "KAP" not in photographs
    assert {row["n"] for row in photographs["PCK"] if "box threshold" in row["metric"]} == {0}
    assert not any(heading.startswith("required") for heading in photographs)
    assert any(heading.startswith("required") for heading in rendered)


def test_the_untrained_model_is_not_measured_twice_and_grey_pictures_have_no_colour_to_go_by(tmp_path):
    data, out = write_set(tmp_path), tmp_path / "out.json"

    scenes = str(write_scenes(tmp_path / "scenes"))
    arguments = ["keypoints", "--data", str(data), "--model", "embedded-untrained", "--device", "cpu", "--grey"]
    arguments += ["--scenes", scenes, "--bootstrap", "5"]
    assert main([*arguments, "--json", str(out)]) == 0

    rows = json.loads(out.read_text())["rows"]
    assert [row["method"] for row in rows if row["group"] == "all"] == ["embedded-untrained", RAW_COLOUR]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"pairs": []}, "no pair has `shared` keypoints"),
        ({"pairs": [{"a": "a", "b": "c", "shared": ["nose"]}]}, "'c': one of them is not an item"),
        ({"pairs": [{"a": "a", "b": "b", "shared": ["tail"]}]}, "'tail' is not annotated in both images"),
    ],
)
def test_faults_of_the_manifest_are_told(tmp_path, change, text):
    path = write_set(tmp_path) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))

    with pytest.raises(ConfigError, match=text):
        read_cases(load_manifest(tmp_path))


def test_raw_colour_finds_the_known_share_of_points_in_the_real_set(shared_dir):
    cases = read_cases(load_manifest(shared_dir / "data" / "keypoints"))

    (row, *_) = measure({RAW_COLOUR: ColourDescriptor(336, 14)}, cases)

    assert row["n_pairs"] == 245
    assert row["pck_per_point"] == pytest.approx(0.178, abs=0.01)
    # Colour does not tell left from right.
    assert row["swaps"] == pytest.approx(0.5, abs=0.05)
