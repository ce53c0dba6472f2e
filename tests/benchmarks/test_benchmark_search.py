"""``quality search`` on answers worked by hand, on made-up manifests, and as a command on the small rendered set."""

import json
from pathlib import Path

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.benchmarks.search import answer, find_queries, search_rows
from fiftyone_selfsame.benchmarks.search_data import Picture, read_pictures
from fiftyone_selfsame.benchmarks.search_methods import GRID_BOXES, Described, grid_boxes
from fiftyone_selfsame.brain.errors import ConfigError
from PIL import Image

ROOT = Path(__file__).parents[2]

CUP, TOY = np.eye(2)
LEFT, RIGHT, HALF_LEFT = [0, 0, 50, 100], [50, 0, 100, 100], [0, 0, 25, 100]


def picture(*objects):
    """A picture of ``(object id, box)``."""
    return Picture(
        None, tuple(name for name, _ in objects), np.array([box for _, box in objects], float).reshape(-1, 4)
    )


PICTURES = [
    picture(("cup", LEFT), ("toy", RIGHT)),
    picture(("cup", LEFT)),
    picture(("toy", LEFT)),
    picture(("cup", RIGHT), ("cup", LEFT)),
    picture(),
]


def described(boxes, vectors, queries=()):
    return Described(
        np.array(boxes, float).reshape(-1, 4), np.array(vectors, float).reshape(-1, 2), np.array(queries, float), 0.5
    )


# Picture 1 is found by half of its cup's box, 2 looks like a cup, 3 has no region, 4 a little like both.
MADE = [
    described([LEFT, RIGHT], [CUP, TOY], [CUP, TOY]),
    described([HALF_LEFT, RIGHT], [0.9 * CUP, 0.1 * CUP], [CUP]),
    described([LEFT], [0.95 * CUP + 0.3 * TOY], [TOY]),
    described([], [], [CUP, CUP]),
    described([LEFT], [0.2 * CUP + 0.1 * TOY], np.empty((0, 2))),
]


def test_every_object_on_another_picture_is_a_query_and_its_own_picture_no_answer():
    asked = [(query.picture, query.which, query.relevant) for query in find_queries(PICTURES)]

    assert asked == [
        (0, 0, (1, 3)),
        (0, 1, (2,)),
        (1, 0, (0, 3)),
        (2, 0, (0,)),
        (3, 0, (0, 1)),
        (3, 1, (0, 1)),
    ]


def test_an_answer_ranks_the_other_pictures_and_measures_the_boxes_found():
    cup, toy = (answer(query, PICTURES, MADE) for query in find_queries(PICTURES)[:2])

    # The cup of picture 0: picture 2 comes before picture 1, and picture 3 has no region at all.
    assert cup.relevance.tolist() == [False, True, False]
    assert cup.places.tolist() == [2, np.inf]
    assert cup.ious.tolist() == [0.5, 0]
    assert toy.relevance.tolist() == [True, False, False]
    assert (toy.places.tolist(), toy.ious.tolist()) == ([1], [1])


def test_of_several_boxes_of_the_object_the_best_matching_one_counts():
    made = [*MADE[:3], described([HALF_LEFT], [CUP], [CUP, CUP]), MADE[4]]

    cup = answer(find_queries(PICTURES)[0], PICTURES, made)

    assert cup.places.tolist() == [3, 1]
    assert cup.ious.tolist() == [0.5, 0.5]


def test_a_row_holds_the_means_over_queries_and_pictures():
    queries = find_queries(PICTURES)[:2]

    (row,) = search_rows(PICTURES, queries, {"mine": MADE})
    (within,) = search_rows(PICTURES, queries, {"mine": MADE}, miou_within=1)

    # Of two cups one is found, at place 2; the toy at place 1.
    assert row["map_50"] == row["map_all"] == pytest.approx(((1 / 2) / 2 + 1) / 2)
    assert row["miou"] == pytest.approx((0.5 / 2 + 1) / 2)
    assert within["miou"] == pytest.approx((0 + 1) / 2)
    # Six objects: both of picture 0 and that of picture 2 exactly, that of picture 1 by half, none of picture 3.
    assert (row["recall_50"], row["recall_75"]) == pytest.approx((4 / 6, 3 / 6))
    assert (row["method"], row["n"], row["regions"], row["seconds"]) == ("mine", 2, 6 / 5, 0.5)


def test_the_grid_covers_the_picture_with_boxes_of_four_sizes():
    boxes = grid_boxes((40, 80))

    assert boxes.shape == (GRID_BOXES, 4) == (30, 4)
    assert boxes[0].tolist() == [0, 0, 80, 40]
    assert sorted(set((boxes[:, 2] - boxes[:, 0]).tolist())) == [20, 40, 80]
    assert [20, 10, 60, 30] in boxes.tolist()
    assert (boxes.min(), boxes[:, 2].max(), boxes[:, 3].max()) == (0, 80, 40)


def write_set(folder, **attributes):
    """Two pictures of one cup each, a blue square on grey; ``attributes`` are of both items."""
    items = []
    for number in range(2):
        image = np.full((60, 80, 3), 90, np.uint8)
        image[10:40, 20:60] = (20, 20, 200)
        Image.fromarray(image).save(folder / f"{number}.png")
        items.append({"path": f"{number}.png", "object_id": "cup", **attributes})
    (folder / "manifest.json").write_text(json.dumps({"name": "squares", "items": items}))
    return load_manifest(folder)


def test_boxes_come_from_the_manifest_first(tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"boxes": {"0": [1, 2, 3, 4]}}))

    pictures, origin = read_pictures(write_set(tmp_path, bbox=[20, 10, 40, 30]), boxes)

    assert [one.object_ids for one in pictures] == [("cup",)] * 2
    assert pictures[0].boxes.tolist() == [[20, 10, 60, 40]]
    assert origin == "boxes of objects: 2 from the manifest"


def test_boxes_come_from_the_file_next_and_from_the_foreground_last(tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"boxes": {"0": [1, 2, 3, 4]}}))

    pictures, origin = read_pictures(write_set(tmp_path), boxes)

    assert pictures[0].boxes.tolist() == [[1, 2, 4, 6]]
    assert np.abs(pictures[1].boxes - [20, 10, 60, 40]).max() <= 1
    assert origin == "boxes of objects: 1 from the file of boxes, 1 from the GrabCut's foreground"


def test_several_objects_are_read_and_a_picture_without_any_stays_in_the_gallery(tmp_path):
    objects = [{"object_id": "cup", "bbox": [1, 2, 3, 4]}, {"object_id": "toy", "bbox": [5, 6, 7, 8]}]

    pictures, origin = read_pictures(write_set(tmp_path, objects=objects))
    assert pictures[1].object_ids == ("cup", "toy")
    assert pictures[1].boxes.tolist() == [[1, 2, 4, 6], [5, 6, 12, 14]]
    assert origin == "boxes of objects: 4 from the manifest"

    with pytest.raises(ConfigError, match="no item has `objects` or an `object_id`"):
        read_pictures(write_set(tmp_path, objects=[]))


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"objects": [{"object_id": "cup"}]}, "item '0': each of its `objects` must have"),
        ({"objects": [{"object_id": "cup", "bbox": [1, 2, 0, 4]}]}, "has no area"),
        ({"bbox": [1, 2, 3]}, "item '0': its box must be"),
    ],
)
def test_broken_boxes_are_told(tmp_path, attributes, text):
    with pytest.raises(ConfigError, match=text):
        read_pictures(write_set(tmp_path, **attributes))


def test_a_file_of_boxes_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "boxes.json").write_text("[]")

    for name in ("boxes.json", "missing.json"):
        with pytest.raises(ConfigError, match=f"--boxes .*{name}"):
            read_pictures(write_set(tmp_path), tmp_path / name)


def test_the_packaged_boxes_name_every_photograph_of_their_set(shared_dir):
    pictures, origin = read_pictures(load_manifest(shared_dir / "data" / "objid_wild"))

    assert origin == "boxes of objects: 204 from the file of boxes"
    assert all(one.boxes.shape == (1, 4) for one in pictures)


def write_squares(folder):
    """Pictures of two patterned squares on grey; of six colours each is on two pictures, beside another one each."""
    colours = [(200, 30, 30), (30, 180, 40), (40, 60, 220), (220, 200, 30), (200, 40, 200), (30, 200, 210)]
    pairs = [(0, 1), (2, 3), (4, 5), (1, 2), (3, 4), (5, 0)]
    items, rng = [], np.random.default_rng(0)
    for number, pair in enumerate(pairs):
        image = rng.integers(80, 100, (224, 224, 1), np.uint8).repeat(3, 2)
        objects = []
        for colour, (x, y) in zip(pair, ((16, 32), (128, 112)), strict=True):
            square = np.array(colours[colour]) + rng.integers(-25, 25, (80, 80, 1))
            image[y : y + 80, x : x + 80] = square.clip(0, 255)
            objects.append({"object_id": f"colour{colour}", "bbox": [x, y, 80, 80]})
        Image.fromarray(image).save(folder / f"{number}.png")
        items.append({"path": f"{number}.png", "objects": objects})
    (folder / "manifest.json").write_text(json.dumps({"name": "squares", "items": items}))


def record_of(tmp_path, data, *options):
    out = tmp_path / "out.json"
    arguments = ["search", "--data", str(data), "--model", "embedded-hybrid", "--device", "cpu", "--json", str(out)]
    assert main([*arguments, *options]) == 0
    return json.loads(out.read_text())


def test_the_command_finds_and_locates_plain_objects_by_their_regions(tmp_path, capsys):
    write_squares(tmp_path)

    record = record_of(tmp_path, tmp_path, "--alpha", "0.6", "--min-patches", "4", "--area", "box", "--norm", "R")

    rows = {row["method"]: row for row in record["rows"]}
    assert list(rows) == ["claid", "grid", "full_image", "ffa", "claid+image"]
    assert rows["claid"]["map_all"] == rows["claid"]["recall_50"] == 1
    assert rows["claid"]["miou"] > 0.8 > rows["grid"]["miou"] > rows["full_image"]["miou"]
    assert (rows["full_image"]["regions"], rows["grid"]["regions"]) == (1, GRID_BOXES)
    assert rows["claid+image"]["regions"] == pytest.approx(rows["claid"]["regions"] + 1)
    assert {row["n"] for row in rows.values()} == {12}
    settings = record["settings"]
    assert (settings["alpha"], settings["min_patches"], settings["norm"]) == (0.6, 4, "R")
    assert settings["descriptor"]["area"] == "box"
    assert "boxes of objects: 12 from the manifest" in capsys.readouterr().out


def test_the_first_pictures_alone_and_another_size_and_descriptor_can_be_asked_for(tmp_path):
    write_squares(tmp_path)

    options = ["--short-side", "96", "--long-side", "96", "--descriptor", "embedded", "--pooling", "max"]
    record = record_of(tmp_path, tmp_path, "--limit", "4", *options)

    assert {row["n"] for row in record["rows"]} == {4}
    assert (record["settings"]["short_side"], record["settings"]["long_side"]) == (96, 96)
    assert record["settings"]["descriptor"]["model"] == "embedded"
    assert record["settings"]["descriptor"]["pooling"] == "max"


def test_a_set_without_an_object_on_two_pictures_is_told(tmp_path, capsys):
    write_squares(tmp_path)

    assert main(["search", "--data", str(tmp_path), "--limit", "2"]) == 1

    assert "no object is on two pictures" in capsys.readouterr().err


def test_on_rendered_scenes_regions_find_more_than_whole_images_and_fixed_boxes(tmp_path):
    data = ROOT / "fixtures" / "scenes" / "tiny" / "search"

    record = record_of(tmp_path, data, "--alpha", "0.6", "--min-patches", "4", "--area", "box")

    rows = {row["method"]: row for row in record["rows"]}
    assert rows["claid"]["map_all"] > rows["grid"]["map_all"]
    assert rows["claid"]["recall_50"] > rows["grid"]["recall_50"]
