"""Objects: enough of them, alike in topology, different in shape and look, standing, with mirrored keypoints."""

import numpy as np
import pytest
from fiftyone_selfsame.fixtures.scenes.categories import CATEGORIES
from fiftyone_selfsame.fixtures.scenes.dials import Dials
from fiftyone_selfsame.fixtures.scenes.manifests import keypoint_groups
from fiftyone_selfsame.fixtures.scenes.objects import template, thing
from fiftyone_selfsame.fixtures.scenes.solids import mirrored_name
from scipy.spatial import cKDTree

BY_NAME = {category.name: category for category in CATEGORIES}
every_category = pytest.mark.parametrize("name", BY_NAME)
every_sided_category = pytest.mark.parametrize("name", [name for name, entry in BY_NAME.items() if entry.sided])


# Pedals stand opposite each other on their axle, as on any bicycle.
OPPOSED = {("bicycle", "left pedal"), ("bicycle", "left crank end"), ("bicycle", "left crank")}


def instances(name, count=3):
    return [BY_NAME[name].build(Dials(name, number, number)) for number in range(count)]


def test_there_are_enough_categories_of_every_kind():
    assert len(BY_NAME) == len(CATEGORIES) >= 24
    assert sum(entry.sided for entry in CATEGORIES) >= 8
    assert sum(entry.movable for entry in CATEGORIES) >= 4
    assert {"quadruped", "bird", "car", "bus", "bicycle", "aeroplane", "chair", "table"} <= BY_NAME.keys()
    assert {"household", "tool", "toy", "fruit", "package", "animal", "vehicle", "furniture", "soft"} == {
        entry.group for entry in CATEGORIES
    }


@every_category
def test_all_instances_share_the_topology_of_the_template(name):
    parts = {part.name: part for part in BY_NAME[name].build(Dials(name)).parts}

    for solid in instances(name):
        assert len({part.name for part in solid.parts}) == len(solid.parts)
        for part in solid.parts:
            assert part.points.shape == parts[part.name].points.shape
            assert part.closed == parts[part.name].closed
            assert np.isfinite(part.points).all()


@every_category
def test_an_object_stands_on_the_ground(name):
    for solid in instances(name):
        lowest = min(part.points[..., 2].min() for part in solid.parts)
        assert abs(lowest) < 2e-3


@every_category
def test_no_two_instances_are_alike_in_shape_or_in_look(name):
    first, second, third = instances(name)

    for one, other in ((first, second), (first, third), (second, third)):
        shared = [(a, b) for a in one.parts for b in other.parts if a.name == b.name]
        assert max(np.abs(a.points - b.points).max() for a, b in shared) > 1e-3
        assert any(
            np.shape(a.material.texture) != np.shape(b.material.texture)
            or np.abs(np.asarray(a.material.texture) - np.asarray(b.material.texture)).mean() > 0.01
            for a, b in shared
        )


@every_category
def test_an_instance_is_the_same_whenever_it_is_built(name):
    first, again = (BY_NAME[name].build(Dials(name, 5, 2)) for _ in range(2))

    for one, other in zip(first.parts, again.parts, strict=True):
        np.testing.assert_array_equal(one.points, other.points)
        np.testing.assert_array_equal(one.material.texture, other.material.texture)


@pytest.mark.parametrize("name", [name for name, entry in BY_NAME.items() if entry.movable])
def test_a_movable_object_changes_its_pose_and_nothing_else(name):
    rest, moved = (BY_NAME[name].build(Dials(name, 1, pose)) for pose in (0, 1))

    assert [part.name for part in rest.parts] == [part.name for part in moved.parts]
    assert max(np.abs(a.points - b.points).max() for a, b in zip(rest.parts, moved.parts, strict=True)) > 2e-3
    for one, other in zip(rest.parts, moved.parts, strict=True):
        np.testing.assert_array_equal(one.material.texture, other.material.texture)


@every_category
def test_keypoints_lie_on_parts_that_the_template_has(name):
    solid = BY_NAME[name].build(Dials(name))
    sizes = {part.name: part.points.shape[0] * part.points.shape[1] for part in solid.parts}

    assert solid.keypoints
    assert all(0 <= index < sizes[part] for part, index in solid.keypoints.values())
    for instance in instances(name):
        assert {key: value for key, value in solid.keypoints.items() if key in instance.keypoints} == instance.keypoints


@every_sided_category
def test_mirrored_keypoints_lie_mirrored(name):
    solid = BY_NAME[name].build(Dials(name))
    points = {part.name: part.points.reshape(-1, 3) for part in solid.parts}
    at = {key: points[part][index] for key, (part, index) in solid.keypoints.items()}
    sided = [key for key in at if key.startswith(("left ", "right "))]

    assert len(sided) >= 4
    for key in sided:
        assert at[key][1] > 0 if key.startswith("left ") else at[key][1] < 0
        if key.startswith("left ") and (name, key) not in OPPOSED:
            np.testing.assert_allclose(at[mirrored_name(key)], at[key] * [1, -1, 1], atol=1e-6)


@every_sided_category
def test_mirrored_parts_have_mirrored_surface_coordinates(name):
    known = template(name).parts
    # A bus has doors on one side only; a mug is one body, symmetric in itself.
    paired = [part for part in known if part.startswith("left ") and mirrored_name(part) in known]

    for part in paired:
        number, coordinates = known[part]
        other, partner = known[mirrored_name(part)]
        assert number != other
        if (name, part) not in OPPOSED:
            np.testing.assert_allclose(partner, coordinates * [1, -1, 1] + [0, 1, 0], atol=1e-9)


@every_sided_category
def test_the_template_is_symmetric_as_a_whole(name):
    points = np.concatenate([coordinates.reshape(-1, 3) for _, coordinates in template(name).parts.values()])
    mirrored = points * [1, -1, 1] + [0, 1, 0]

    distance, _ = cKDTree(points).query(mirrored)
    assert np.quantile(distance, 0.9) < 0.06


@every_category
def test_part_groups_name_keypoints_that_exist(name):
    keypoints = BY_NAME[name].build(Dials(name)).keypoints
    members = [member for group in BY_NAME[name].part_groups.values() for member in group]

    assert set(members) <= set(keypoints)
    assert len(members) == len(set(members))


@every_category
def test_keypoint_tables_follow_the_format_of_the_reference(name):
    table = keypoint_groups(BY_NAME[name])
    slots = table["used_slots"]

    assert sorted(slot for group in table["geometry_groups"] for slot in group) == slots
    assert sorted(table["flip_permutation"]) == slots
    assert [table["flip_permutation"][other] for other in table["flip_permutation"]] == slots
    for left, right in table["counterparts"]:
        assert {table["side"][left], table["side"][right]} == {1, 2}
        assert table["flip_permutation"][left] == right


def test_things_are_drawn_to_sizes_that_fit_on_one_table():
    for name in BY_NAME:
        drawn = thing(name, 0, 0)
        points = np.concatenate([piece.mesh.points for piece in drawn.pieces])
        assert 0.08 < np.linalg.norm(np.ptp(points, axis=0)) < 0.6
        assert abs(points[:, 2].min()) < 2e-3
