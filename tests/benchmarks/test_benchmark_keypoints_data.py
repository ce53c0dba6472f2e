"""Questions from manifests, and which way the target of each faces."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.keypoints_data import GROUPS_FILE, mirror_questions, read_questions
from fiftyone_selfsame.benchmarks.manifest import load_manifest
from fiftyone_selfsame.brain.correspondence.views import MIRROR
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from PIL import Image

# A head that looks to the left of the picture: the nose left of both ears, of which the right one is nearer to it.
PROFILE = {"nose": [10.0, 50.0], "ear_R": [30.0, 20.0], "ear_L": [45.0, 25.0]}


def mirrored(points, width=100):
    """The points in the mirrored picture, with left and right exchanged as in an annotation of it."""
    swap = {"ear_L": "ear_R", "ear_R": "ear_L"}
    return {swap.get(name, name): [width - x, y] for name, (x, y) in points.items()}


def write_set(folder, first, second, **extra):
    for name in ("a", "b"):
        Image.new("RGB", (100, 80)).save(folder / f"{name}.png")
    items = [
        {"image": f"{name}.png", "part": "faces", "keypoints": points, **{k: v[i] for k, v in extra.items()}}
        for i, (name, points) in enumerate((("a", first), ("b", second)))
    ]
    shared = sorted(set(first) & set(second))
    manifest = {"left_right_partners": {"faces": [["ear_L", "ear_R"]]}, "items": items}
    manifest["pairs"] = [{"a": "a", "b": "b", "part": "faces", "shared": shared}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def question(folder, *args, **kwargs):
    (found,) = read_questions(load_manifest(write_set(folder, *args, **kwargs)))
    return found


def test_a_question_has_a_slot_for_each_name_of_the_part_and_knows_partners(tmp_path):
    found = question(tmp_path, PROFILE, {"nose": [5, 6], "ear_L": [7, 8], "tail": [1, 2], "ear_R": [3, 4]})

    assert found.groups.names == ("nose", "ear_R", "ear_L", "tail")
    assert list(found.groups.permutation) == [0, 2, 1, 3]
    assert found.groups.groups[1] == found.groups.groups[2]
    assert list(found.shown) == [True, True, True, False]
    assert list(found.can_swap) == [False, True, True, False]
    assert found.targets.tolist() == [[5, 6], [3, 4], [7, 8], [1, 2]]


def test_a_partner_that_the_target_hides_leaves_no_swap_to_be_seen(tmp_path):
    assert not question(tmp_path, PROFILE, {"nose": [5, 6], "ear_L": [7, 8]}).can_swap.any()


@pytest.mark.parametrize(
    ("target", "pose"),
    [
        (PROFILE, -1),
        ({name: [2 * x + 7, 2 * y + 9] for name, (x, y) in PROFILE.items()}, -1),
        (mirrored(PROFILE), 1),
        # Seen from the front, both layouts fit alike.
        ({"nose": [50.0, 50.0], "ear_R": [30.0, 20.0], "ear_L": [70.0, 20.0]}, 0),
    ],
)
def test_the_layout_of_the_keypoints_tells_the_pose(tmp_path, target, pose):
    source = {"nose": [50.0, 50.0], "ear_R": [30.0, 20.0], "ear_L": [70.0, 20.0]} if pose == 0 else PROFILE

    assert question(tmp_path, source, target).pose == pose


@pytest.mark.parametrize(
    ("azimuths", "difference", "pose"),
    [((2, 6), 4, 1), ((1, 7), 2, 1), ((2, 2), 0, -1), ((0, 4), 4, 0), ((7, 5), 2, -1), ((0, 7), 1, 0), ((3, 6), 3, 1)],
)
def test_azimuths_tell_it_where_they_are_known(tmp_path, azimuths, difference, pose):
    found = question(tmp_path, PROFILE, PROFILE, azimuth_bin=azimuths)

    assert (found.azimuth_difference, found.pose) == (difference, pose)


def test_the_mirror_image_of_a_source_shows_left_as_right(tmp_path):
    (found,) = mirror_questions([question(tmp_path, PROFILE, PROFILE)], {"a": (80, 100)})

    assert dict(zip(found.groups.names, found.targets.tolist(), strict=True)) == mirrored(PROFILE)
    assert (found.pose, found.target_view, found.target.id) == (1, MIRROR, "a")


def test_a_source_without_a_whole_couple_has_no_mirror_question(tmp_path):
    found = question(tmp_path, {"nose": [1, 2], "ear_L": [3, 4]}, PROFILE)

    assert mirror_questions([found], {"a": (80, 100)}) == []


def test_rendered_sets_bring_their_own_groups():
    manifest = load_manifest(TINY_FOLDER / "keypoints")

    questions = read_questions(manifest)

    assert (TINY_FOLDER / GROUPS_FILE).is_file()
    assert len(questions) == len(manifest.pairs)
    stored = [pair["azimuth_difference"] for pair in manifest.pairs]
    assert [one.azimuth_difference for one in questions] == stored
    shared = [set(np.array(one.groups.names)[one.shown & one.found]) for one in questions]
    assert shared == [set(pair["shared"]) for pair in manifest.pairs]
    wheels = next(one.groups for one in questions if one.part == "aeroplane").parts
    assert ("left main wheel", "left nose wheel", "right main wheel", "right nose wheel") in wheels


def test_a_pair_of_no_item_is_told(tmp_path):
    path = write_set(tmp_path, PROFILE, PROFILE) / "manifest.json"
    content = json.loads(path.read_text())
    content["pairs"][0]["b"] = "c"
    path.write_text(json.dumps(content))

    with pytest.raises(ConfigError, match="'c', which is no item"):
        read_questions(load_manifest(tmp_path))
