"""Manifests of the packaged set: readable by the benchmarks, and true."""

import json
import shutil

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.fixtures.scenes.copies import EDITS
from fiftyone_selfsame.fixtures.scenes.manifests import write_manifests
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from PIL import Image


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The packaged pictures with manifests made anew."""
    target = tmp_path_factory.mktemp("manifests") / "scenes"
    shutil.copytree(TINY_FOLDER, target)
    write_manifests(target)
    return target


def test_the_identity_manifest_has_every_object_several_times_in_each_group(folder):
    manifest = load_manifest(folder, require=("object_id", "category", "group", "mask_path"))

    for group in ("lighting", "pose", "in-the-wild"):
        members = [item.object_id for item in manifest.items if item.group == group]
        assert len(set(members)) >= 20
        assert all(members.count(name) >= 2 for name in set(members))


def test_masks_are_those_of_the_subjects(folder, tiny_scenes):
    for item in load_manifest(folder).items[:20]:
        mask = np.asarray(Image.open(item.mask_path)) > 0
        np.testing.assert_array_equal(mask, tiny_scenes[item.id].instances() == 1)


def test_keypoint_pairs_are_of_one_category_with_keypoints_seen_in_both(folder):
    manifest = load_manifest(folder / "keypoints")
    items = {item.id: item.extra for item in manifest.items}
    partners = json.loads((folder / "keypoints" / "manifest.json").read_text())["left_right_partners"]

    assert len(manifest.pairs) > 50
    assert {pair["azimuth_difference"] for pair in manifest.pairs} == {0, 1, 2, 3, 4}
    assert {pair["same_object"] for pair in manifest.pairs} == {True, False}
    for pair in manifest.pairs:
        one, other = items[pair["a"]], items[pair["b"]]
        assert one["category"] == other["category"] == pair["part"]
        assert set(pair["shared"]) == set(one["keypoints"]) & set(other["keypoints"])
        assert len(pair["shared"]) >= 3
    assert ["left headlight", "right headlight"] in partners["car"] or len(partners["car"]) >= 3


def test_visible_keypoints_lie_inside_the_box_or_at_its_rim(folder):
    for item in load_manifest(folder / "keypoints").items:
        x, y, width, height = item.extra["bbox"]
        for px, py in item.extra["keypoints"].values():
            assert x - 2 <= px <= x + width + 2
            assert y - 2 <= py <= y + height + 2


def test_unstructured_pairs_match_by_object_and_the_hard_ones_share_the_category(folder):
    manifest = load_manifest(folder / "coseg", require=("object_id", "mask_path"))
    items = {item.id: item for item in manifest.items}
    kinds = set()

    for pair in manifest.pairs:
        one, other = items[pair["a"]], items[pair["b"]]
        assert (one.object_id == other.object_id) == (pair["label"] == "match")
        if pair["label"] == "non-match":
            assert (one.category == other.category) == pair["hard"]
        kinds.add((pair["label"], pair.get("hard")))
    assert kinds == {("match", None), ("non-match", True), ("non-match", False)}


def test_copies_are_made_by_every_edit_and_resemble_their_original(folder):
    manifest = load_manifest(folder / "neardup")
    paths = {item.id: item.path for item in manifest.items}

    assert {pair["transform"] for pair in manifest.pairs} == EDITS.keys()
    for pair in manifest.pairs[: 2 * len(EDITS)]:
        one, other = (
            np.asarray(Image.open(paths[pair[end]]).convert("L").resize((8, 8)), float).ravel() for end in ("a", "b")
        )
        # These move what is in the picture; the others change it where it is.
        if pair["transform"] not in ("mirror", "crop", "border"):
            assert np.corrcoef(one, other)[0, 1] > 0.6, pair["transform"]
        assert paths[pair["a"]].read_bytes() != paths[pair["b"]].read_bytes()


def test_search_pictures_list_every_visible_object_with_its_box(folder, tiny_scenes):
    items = json.loads((folder / "search" / "manifest.json").read_text())["items"]
    seen = [entry["object_id"] for item in items for entry in item["objects"]]

    assert {len(item["objects"]) for item in items} >= {1, 2, 3, 4, 5}
    assert any(seen.count(name) > 1 for name in seen)
    for item in items:
        for entry in item["objects"]:
            visible = tiny_scenes[item["id"]].instances() == entry["index"]
            assert visible.any()
            assert entry["bbox"][2] * entry["bbox"][3] >= visible.sum()


def test_writing_manifests_again_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    write_manifests(folder)

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
