"""Part groups and mirror partners: read off names, from tables and files, and as told."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.brain.correspondence.keypoint_groups import (
    KeypointGroups,
    groups_from_couples,
    groups_from_names,
    groups_from_table,
    known_groups,
    parse_couples,
)
from fiftyone_selfsame.brain.correspondence.readers.groups_file import read_groups
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.scenes.categories import CATEGORIES
from fiftyone_selfsame.fixtures.scenes.manifests import keypoint_groups
from hypothesis import given
from hypothesis import strategies as st

FACE = ["left eye", "right eye", "nose"]
TABLE = {"flip_permutation": [1, 0, 2], "geometry_groups": [[0, 1], [2]], "side": [1, 2, 0]}


@pytest.mark.parametrize(
    "couple",
    [
        ("left_eye", "right_eye"),
        ("LeftPaw", "RightPaw"),
        ("Ohr links", "Ohr rechts"),
        ("linkes Auge", "rechtes Auge"),
        ("L_Shoulder", "R_Shoulder"),
        ("ear.l", "ear.r"),
        ("lEar", "rEar"),
        ("paw_FL", "paw_FR"),
        ("LH", "RH"),
        ("leftear", "rightear"),
        ("earleft", "earright"),
        ("lankle", "rankle"),
        ("paw1LH_top", "paw4RH_top"),
        ("wheel front left", "wheel front right"),
    ],
)
def test_a_couple_is_read_off_its_names_in_either_order(couple):
    for names in (["nose", *couple], [*couple[::-1], "nose"]):
        groups = groups_from_names(names)

        assert {frozenset(pair) for pair in groups.couples} == {frozenset(couple)}
        sides = dict(zip(groups.names, groups.sides, strict=True))
        assert sides == {couple[0]: "left", couple[1]: "right", "nose": None}


@pytest.mark.parametrize(
    "names",
    [
        ["upright", "lip", "brow"],
        ["left eye", "nose", "tail"],
        ["left", "upright"],
        ["ear_1", "ear_2"],
        ["left eye", "right ear"],
    ],
)
def test_what_only_looks_like_a_side_makes_no_couple(names):
    groups = groups_from_names(names)

    assert groups.couples == ()
    assert groups.sides == (None,) * len(names)


def test_paws_are_one_part_whatever_their_side_and_place():
    names = ["left front paw", "right front paw", "left back paw", "right back paw", "forehead", "tail"]
    joined = groups_from_names(["forepaw_L", "forepaw_R", "hindpaw_L", "hindpaw_R", "forehead"])

    assert groups_from_names(names).parts == (tuple(names[:4]),)
    assert groups_from_names(names).couples == (tuple(names[:2]), tuple(names[2:4]))
    assert joined.parts == (("forepaw_L", "forepaw_R", "hindpaw_L", "hindpaw_R"),)
    assert joined.couples == (("forepaw_L", "forepaw_R"), ("hindpaw_L", "hindpaw_R"))


def test_numbered_parts_without_a_side_are_one_part():
    assert groups_from_names(["leg 1", "leg 2", "leg 3", "seat"]).parts == (("leg 1", "leg 2", "leg 3"),)


@pytest.mark.parametrize("data_set", ["ap10k", "coco"])
def test_partners_read_off_names_are_those_of_the_tables(data_set):
    known = known_groups(data_set)

    for styled in (str, str.title, lambda name: name.replace(" ", "_")):
        read = groups_from_names([styled(name) for name in known.names])
        assert read.partners == known.partners
        assert read.sides == known.sides


def test_partners_read_off_names_are_those_of_the_photographs(shared_dir):
    manifest = json.loads((shared_dir / "data" / "keypoints" / "manifest.json").read_text())

    for part, couples in manifest["left_right_partners"].items():
        names = sorted({name for item in manifest["items"] if item["part"] == part for name in item["keypoints"]})
        assert {frozenset(one) for one in groups_from_names(names).couples} == {frozenset(one) for one in couples}


@given(st.permutations(known_groups("coco").names))
def test_the_order_of_the_names_does_not_matter(names):
    plain, moved = known_groups("coco"), groups_from_names(names)

    assert {frozenset(pair) for pair in moved.couples} == {frozenset(pair) for pair in plain.couples}
    assert {frozenset(part) for part in moved.parts} == {frozenset(part) for part in plain.parts}


def test_tables_of_rendered_categories_are_read():
    for category in CATEGORIES:
        table = keypoint_groups(category)

        groups = groups_from_table(table)

        assert groups.names == tuple(table["names"])
        assert [list(pair) for pair in groups.couples] == [
            [table["names"][slot] for slot in couple] for couple in table["counterparts"]
        ]


def test_couples_and_parts_as_told():
    names = ["a", "b", "c", "d", "e"]

    couples = groups_from_couples(names, [("a", "b"), ("c", "d")], first_is="right")
    parts = groups_from_couples(names, [("a", "b")], [("a", "c", "d")])

    assert couples.partners == (1, 0, 3, 2, 4)
    assert couples.groups == (0, 0, 1, 1, 2)
    assert couples.sides == ("right", "left", "right", "left", None)
    assert parts.partners == (1, 0, 2, 3, 4)
    assert parts.parts == (("a", "c", "d"),)
    assert parts.sides == (None,) * 5


def test_only_visible_couples_change_places():
    groups = groups_from_couples(["a", "b", "c"], [("a", "b")])

    found = groups.permutation_given(np.array([[True, True, True], [True, False, True]]))

    assert found.tolist() == [[1, 0, 2], [0, 1, 2]]


def test_more_slots_are_each_alone():
    groups = groups_from_couples(["a", "b"], [("a", "b")]).resized(4)

    assert groups.names == ("a", "b", "2", "3")
    assert (groups.groups, groups.partners) == ((0, 0, 1, 2), (1, 0, 2, 3))
    with pytest.raises(ConfigError, match="cannot hold"):
        groups.resized(3)


def test_couples_are_parsed_as_typed():
    typed = "left ear = right ear; left eye=right eye\n paw L = paw R ;"

    assert parse_couples(typed) == [("left ear", "right ear"), ("left eye", "right eye"), ("paw L", "paw R")]
    for wrong in ("ear", "a = b = c", "a = "):
        with pytest.raises(ConfigError, match="no mirror couple"):
            parse_couples(wrong)


@pytest.mark.parametrize(
    ("couples", "parts", "message"),
    [
        ([("left eye", "left ear")], None, "no keypoint is called 'left ear'"),
        ([("left eye",)], None, "has two keypoints"),
        ([("left eye", "right eye"), ("nose", "left eye")], None, "more than one mirror couple"),
        ([("nose", "nose")], None, "more than one mirror couple"),
        ([], [("nose", "left eye"), ("nose",)], "more than one part group"),
    ],
)
def test_wrong_couples_and_parts_are_refused(couples, parts, message):
    with pytest.raises(ConfigError, match=message):
        groups_from_couples(FACE, couples, parts)


def test_names_that_stand_twice_are_refused():
    with pytest.raises(ConfigError, match="'nose' stands twice"):
        groups_from_names(["nose", "nose"])


def test_partners_must_be_mutual():
    with pytest.raises(ConfigError, match="does not have it as partner"):
        KeypointGroups(("a", "b", "c"), (0, 1, 2), (1, 2, 0), (None,) * 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip_permutation": [1, 2, 0]}, "own inverse"),
        ({"flip_permutation": [1, 0, 3]}, "slots must be 0 to 2"),
        ({"flip_permutation": None}, "not a table"),
        ({"geometry_groups": [[0, 1], [1, 2]]}, "more than one part group"),
        ({"geometry_groups": [[0, -1]]}, "slots must be"),
        ({"side": [1, 2, 3]}, "sides 0, 1 or 2"),
        ({"side": [1, 2]}, "2 sides"),
        ({"names": ["a"]}, "1 names"),
    ],
)
def test_a_wrong_table_is_refused_with_its_file_and_category(tmp_path, change, message):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"about": "x", "mine": {"face": TABLE, "mask": {**TABLE, **change}}}))

    with pytest.raises(ConfigError, match=message) as error:
        read_groups(path)
    assert f"{path}: mine, mask" in str(error.value)


def test_a_file_of_tables_is_read(tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"about": "x", "mine": {"face": {**TABLE, "names": FACE}}}))

    assert read_groups(path) == {"mine": {"face": groups_from_names(FACE)}}
    for content in ("[1]", "{", '{"mine": 3}'):
        path.write_text(content)
        with pytest.raises(ConfigError, match=r"groups\.json"):
            read_groups(path)
    with pytest.raises(ConfigError, match=r"absent\.json"):
        read_groups(tmp_path / "absent.json")


def test_unknown_data_sets_and_categories_are_refused_with_what_there_is():
    with pytest.raises(ConfigError, match="ap10k, coco, spair71k"):
        known_groups("cub")
    with pytest.raises(ConfigError, match=r"'giraffe'.*aeroplane"):
        known_groups("spair71k", "giraffe")
