"""Readers of SPair-71k, PF-PASCAL and COCO, on small folders in the layout of each; broken files are named."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.brain.correspondence.keypoint_groups import groups_from_couples, known_groups
from fiftyone_selfsame.brain.correspondence.readers.coco import read_coco_keypoints
from fiftyone_selfsame.brain.correspondence.readers.pf_pascal import CATEGORIES, read_pf_pascal
from fiftyone_selfsame.brain.correspondence.readers.spair71k import read_spair71k
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.pck import PckFlavour, pck
from PIL import Image
from scipy.io import savemat


def _write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")


def _picture(path, size_wh=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_wh).save(path)


def _spair_image(folder, category, name, places, **changes):
    content = {
        "filename": f"{name}.jpg",
        "src_database": "PASCAL_VOC2012",
        "image_width": 40,
        "image_height": 30,
        "image_depth": 3,
        "category": category,
        "bndbox": [4, 5, 34, 25],
        "kps": {str(slot): places.get(slot) for slot in range(30)},
        "azimuth_id": 1,
        "pose": "Left",
        "truncated": 0,
        **changes,
    }
    _write(folder / "ImageAnnotation" / category / f"{name}.json", content)
    _picture(folder / "JPEGImages" / category / f"{name}.jpg")


@pytest.fixture
def spair(tmp_path):
    folder = tmp_path / "SPair-71k"
    _spair_image(folder, "cat", "2008_000001", {0: [7, 8], 1: [9, 10], 8: [20, 21]})
    _spair_image(folder, "cat", "2009_000002", {0: [17, 18], 2: [3, 4]}, azimuth_id=6)
    _spair_image(folder, "bus", "2010_000003", {29: [1, 2]}, azimuth_id=None)
    lines = "000001-2008_000001-2009_000002:cat\n000002-2009_000002-2008_000001:cat\n\n"
    _write(folder / "Layout" / "large" / "test.txt", lines + "000003-2010_000003-2010_000003:bus\n")
    _write(folder / "Layout" / "small" / "trn.txt", "000001-2008_000001-2009_000002:cat")
    return folder


def test_spair_pairs_in_the_order_of_the_list_with_all_keypoints_of_their_pictures(spair):
    data = read_spair71k(spair)

    assert [(pair.source.id, pair.target.id) for pair in data.pairs] == [
        ("cat/2008_000001", "cat/2009_000002"),
        ("cat/2009_000002", "cat/2008_000001"),
        ("bus/2010_000003", "bus/2010_000003"),
    ]
    first = data.pairs[0]
    assert (first.split, first.category, first.azimuth_difference) == ("test", "cat", 3)
    assert data.pairs[2].azimuth_difference is None
    source = first.source
    assert source.path == spair / "JPEGImages" / "cat" / "2008_000001.jpg"
    assert (source.size_wh, source.box, source.azimuth) == ((40, 30), (4, 5, 30, 20), 1)
    assert np.flatnonzero(source.visible).tolist() == [0, 1, 8]
    assert source.keypoints[[0, 1, 8]].tolist() == [[7, 8], [9, 10], [20, 21]]
    assert np.isnan(source.keypoints[~source.visible]).all()
    assert np.flatnonzero(first.common).tolist() == [0]
    assert len(data.images) == 3
    assert {name: len(groups) for name, groups in data.groups.items()} == {"cat": 30, "bus": 30}
    assert data.groups["cat"].partners[:15] == known_groups("spair71k", "cat").partners
    assert source.names == data.groups["cat"].names


def test_spair_small_and_its_splits(spair):
    (pair,) = read_spair71k(spair, "trn", "small").pairs

    assert pair.split == "trn"


def test_a_pair_is_evaluated_in_pixels_of_its_target(spair):
    pair = read_spair71k(spair).pairs[0]
    predictions = np.full((30, 2), np.nan)
    # The target has a box of 30 by 20: T is 3 pixels for alpha = 0.1.
    predictions[0] = 17, 20.9

    evaluated = pair.evaluated(predictions, known_groups("spair71k", "cat").resized(30))

    assert pck([evaluated], PckFlavour(0.1)).value == 1
    assert pck([evaluated], PckFlavour(0.09)).value == 0
    assert pck([evaluated], PckFlavour(0.08, threshold="image")).value == 1
    assert (evaluated.category, evaluated.azimuth_difference) == ("cat", 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bndbox": [1, 2, 3]}, "not an image annotation"),
        ({"bndbox": None}, "not an image annotation"),
        ({"kps": {"0": [1]}}, "not an image annotation"),
        ({"kps": {"30": [1, 2]}}, "keypoint slot 30"),
        ({"kps": {"0": [1, float("nan")]}}, "keypoint 0 lies at"),
        ({"azimuth_id": 8}, "azimuth_id 8"),
    ],
)
def test_a_broken_spair_annotation_is_named(spair, change, message):
    _spair_image(spair, "cat", "2009_000002", {0: [1, 2]}, **change)

    with pytest.raises(ConfigError, match=message) as error:
        read_spair71k(spair)
    assert str(spair / "ImageAnnotation" / "cat" / "2009_000002.json") in str(error.value)


def test_missing_and_broken_spair_files_are_named(spair):
    annotation, picture = (
        spair / kind / "cat" / f"2008_000001.{end}"
        for kind, end in (("ImageAnnotation", "json"), ("JPEGImages", "jpg"))
    )
    picture.unlink()
    with pytest.raises(ConfigError, match="the picture is missing") as error:
        read_spair71k(spair)
    assert str(picture) in str(error.value)
    annotation.write_text("{")
    with pytest.raises(ConfigError, match="not a JSON file") as error:
        read_spair71k(spair)
    assert str(annotation) in str(error.value)
    annotation.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_spair71k(spair)
    for line, message in (
        ("000001-2008_000001:cat", "no pair"),
        ("1-a-b:yeti", "no keypoint table of category 'yeti'"),
    ):
        _write(spair / "Layout" / "large" / "val.txt", line)
        with pytest.raises(ConfigError, match=message) as error:
            read_spair71k(spair, "val")
        assert "val.txt" in str(error.value)
    with pytest.raises(ConfigError, match=r"trn\.txt"):
        read_spair71k(spair, "trn")
    with pytest.raises(ConfigError, match="split='train'"):
        read_spair71k(spair, "train")
    with pytest.raises(ConfigError, match="size='huge'"):
        read_spair71k(spair, size="huge")


POINTS = {"2008_1": [[1, 2], [3, 4], [np.nan, np.nan]], "2008_2": [[5, 6], [np.nan, np.nan], [7, 8]]}


@pytest.fixture
def pascal(tmp_path):
    folder = tmp_path / "PF-dataset-PASCAL"
    for name, points in POINTS.items():
        (folder / "Annotations" / "cat").mkdir(parents=True, exist_ok=True)
        content = {"kps": np.array(points, float), "bbox": np.array([[2.0, 3, 32, 23]])}
        savemat(folder / "Annotations" / "cat" / f"{name}.mat", content)
        _picture(folder / "JPEGImages" / f"{name}.jpg")
    row = "PF-dataset-PASCAL/JPEGImages/2008_1.jpg,PF-dataset-PASCAL/JPEGImages/2008_2.jpg,8"
    _write(folder / "test_pairs_pf_pascal.csv", f"source_image,target_image,class,XA,YA,XB,YB\n{row},1.0,2.0,5.0,6.0\n")
    _write(folder / "train_pairs_pf_pascal.csv", f"source_image,target_image,class,flip\n{row},0\n{row},1\n")
    return folder


def test_pf_pascal_pairs_and_annotations(pascal):
    for folder in (pascal, pascal.parent):
        data = read_pf_pascal(folder)

        (pair,) = data.pairs
        assert (pair.category, pair.split, pair.azimuth_difference) == ("cat", "test", None)
        assert pair.source.path == pascal / "JPEGImages" / "2008_1.jpg"
        assert (pair.target.size_wh, pair.target.box) == ((40, 30), (2, 3, 30, 20))
        np.testing.assert_array_equal(pair.source.keypoints, POINTS["2008_1"])
        assert pair.common.tolist() == [True, False, False]
        assert data.groups["cat"] == groups_from_couples(["0", "1", "2"], [])


def test_pf_pascal_leaves_mirror_images_of_training_pairs_out(pascal):
    assert len(read_pf_pascal(pascal, "train").pairs) == 1


def test_pf_pascal_lists_beside_the_folder(pascal):
    (pascal / "train_pairs_pf_pascal.csv").rename(pascal.parent / "trn_pairs.csv")

    assert len(read_pf_pascal(pascal.parent, "train").pairs) == 1


def test_categories_of_pf_pascal_are_numbered_from_one():
    assert (CATEGORIES[0], CATEGORIES[7], CATEGORIES[19], len(CATEGORIES)) == ("aeroplane", "cat", "tvmonitor", 20)


def test_missing_and_broken_pf_pascal_files_are_named(pascal, tmp_path):
    with pytest.raises(ConfigError, match=r"val_pairs_pf_pascal\.csv: the list"):
        read_pf_pascal(pascal, "val")
    with pytest.raises(ConfigError, match="neither it nor its PF-dataset-PASCAL has Annotations"):
        read_pf_pascal(tmp_path / "JPEGImages")
    listing = pascal / "val_pairs_pf_pascal.csv"
    for row, message in (
        ("a.jpg,b.jpg,21", "21 is no category"),
        ("a.jpg,b.jpg", "not a list"),
        ("a,b,cat", "not a l"),
    ):
        _write(listing, f"source_image,target_image,class\n{row}\n")
        with pytest.raises(ConfigError, match=message) as error:
            read_pf_pascal(pascal, "val")
        assert str(listing) in str(error.value)
    file = pascal / "Annotations" / "cat" / "2008_1.mat"
    savemat(file, {"kps": np.zeros((2, 2)), "bbox": np.zeros((1, 4))})
    with pytest.raises(ConfigError, match="differ in their keypoints"):
        read_pf_pascal(pascal)
    for content in ({"bbox": np.zeros((1, 4))}, {"kps": np.zeros((3, 2)), "bbox": np.zeros((1, 3))}, {"kps": "x"}):
        savemat(file, content)
        with pytest.raises(ConfigError, match=r"2008_1\.mat"):
            read_pf_pascal(pascal)
    file.write_bytes(b"no MATLAB file")
    with pytest.raises(ConfigError, match=r"2008_1\.mat"):
        read_pf_pascal(pascal)
    file.unlink()
    with pytest.raises(ConfigError, match=r"2008_1\.mat"):
        read_pf_pascal(pascal)


def test_a_missing_picture_of_pf_pascal_is_named(pascal):
    (pascal / "JPEGImages" / "2008_2.jpg").unlink()

    with pytest.raises(ConfigError, match=r"2008_2\.jpg"):
        read_pf_pascal(pascal)


def _person(number, image, visible, **more):
    flat = [value for slot, v in enumerate(visible) for value in ((slot, 10 * number, v) if v else (0, 0, 0))]
    row = {"id": number, "image_id": image, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}
    return {**row, "keypoints": flat, "num_keypoints": sum(v > 0 for v in visible), **more}


@pytest.fixture
def coco(tmp_path):
    names = [name.replace(" ", "_") for name in known_groups("coco").names]
    content = {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "width": 40, "height": 30} for n in (7, 8, 9)],
        "categories": [
            {"id": 1, "name": "person", "supercategory": "person", "keypoints": names, "skeleton": [[1, 2]]},
            {"id": 2, "name": "kite", "supercategory": "sports"},
        ],
        "annotations": [
            _person(1, 7, [2] * 17),
            _person(2, 7, [2] * 17),
            _person(3, 8, [1] * 3 + [0] * 14),
            _person(4, 9, [2] * 2 + [0] * 15),
            _person(5, 9, [0] * 17),
            _person(6, 9, [2] * 17, iscrowd=1),
            {"id": 7, "image_id": 9, "category_id": 2, "bbox": [0, 0, 1, 1]},
        ],
    }
    _write(tmp_path / "annotations" / "person_keypoints_val2017.json", content)
    for n in (7, 8, 9):
        _picture(tmp_path / "val2017" / f"{n:012d}.jpg")
    return tmp_path


def _read_coco(folder, **options):
    return read_coco_keypoints(folder / "annotations" / "person_keypoints_val2017.json", folder / "val2017", **options)


def test_coco_objects_with_labelled_keypoints(coco):
    data = _read_coco(coco)

    assert [image.id for image in data.images] == ["1", "2", "3", "4"]
    third = data.images[2]
    assert third.path == coco / "val2017" / "000000000008.jpg"
    assert (third.size_wh, third.box, third.category) == ((40, 30), (1, 2, 30, 20), "person")
    # Occluded counts as visible.
    assert np.flatnonzero(third.visible).tolist() == [0, 1, 2]
    assert third.keypoints[2].tolist() == [2, 30]
    assert np.isnan(third.keypoints[3:]).all()
    assert data.groups["person"].partners == known_groups("coco").partners
    assert data.groups["person"].groups == known_groups("coco").groups


def test_coco_pairs_share_keypoints_and_no_picture(coco):
    data = _read_coco(coco)

    found = {frozenset((pair.source.id, pair.target.id)) for pair in data.pairs}
    assert found == {frozenset("13"), frozenset("23")}
    assert len(data.pairs) == 2
    assert {(pair.split, pair.category) for pair in data.pairs} == {("person_keypoints_val2017", "person")}
    looser = _read_coco(coco, least_common=2, split="val")
    assert {frozenset((pair.source.id, pair.target.id)) for pair in looser.pairs} == {
        frozenset(ids) for ids in ("13", "23", "14", "24", "34")
    }
    assert looser.pairs[0].split == "val"
    assert len(_read_coco(coco, least_common=2, most_pairs=3).pairs) == 3


def test_groups_can_be_given(coco):
    own = groups_from_couples(_read_coco(coco).images[0].names, [])

    assert _read_coco(coco, groups={"person": own}).groups == {"person": own}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "not keypoints in COCO's format"),
        ({"annotations": [{"id": 1}]}, "lacks 'category_id'"),
        ({"annotations": [_person(1, 99, [2] * 17)]}, "lacks 99"),
        ({"annotations": [_person(1, 7, [2] * 16)]}, "16, 2"),
        ({"annotations": [_person(1, 7, [2] * 17, keypoints=[1, 2])]}, "not keypoints"),
        ({"categories": [{"id": 1}]}, "lacks 'name'"),
    ],
)
def test_a_broken_coco_file_is_named(coco, change, message):
    file = coco / "annotations" / "person_keypoints_val2017.json"
    _write(file, json.loads(file.read_text()) | change)

    with pytest.raises(ConfigError, match=message) as error:
        _read_coco(coco)
    assert str(file) in str(error.value)


def test_a_missing_picture_of_coco_is_named(coco):
    (coco / "val2017" / "000000000008.jpg").unlink()

    with pytest.raises(ConfigError, match=r"000000000008\.jpg: the picture is missing"):
        _read_coco(coco)
