"""Duplicates among objects: the same object inside different scenes groups, with results on each detection."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.duplicate_views import show_duplicate_groups
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.group_table import group_members, group_table, group_view
from PIL import Image

LEFT, RIGHT = [0.0, 0.0, 0.5, 1.0], [0.5, 0.25, 0.25, 0.5]


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


@pytest.fixture
def scenes(fo_dataset, tmp_path):
    """Three scenes of two objects: the left one of the first two pictures is the same picture, the right one of the
    second and third alike; the others are strangers."""
    noise = np.random.default_rng(0)
    same = noise.integers(0, 256, (32, 16, 3), dtype=np.uint8)
    paths = []
    for number in range(3):
        picture = noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        if number < 2:
            picture[:, :16] = same
        paths.append(tmp_path / f"scene{number}.png")
        Image.fromarray(picture).save(paths[-1])
    dataset = fo_dataset(paths)
    vectors = angles(0, 90, 0, 181, 270, 180).reshape(3, 2, 2)
    labels = [
        fo.Detections(
            detections=[
                fo.Detection(label=f"object {side}", bounding_box=box, vector=vectors[number][side])
                for side, box in enumerate((LEFT, RIGHT))
            ]
        )
        for number in range(3)
    ]
    dataset.add_sample_field("gt", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("gt.detections.vector", fo.VectorField)
    dataset.set_values("gt", labels)
    return dataset


def values(dataset, name):
    return dataset.values(f"gt.detections.dup_{name}", unwind=True)


def test_objects_group_across_scenes_and_their_results_are_attributes(scenes):
    summary = find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99)

    ids = scenes.values("gt.detections.id", unwind=True)
    assert values(scenes, "group") == [0, None, 0, 1, None, 1]
    assert values(scenes, "size") == [2, 1, 2, 2, 1, 2]
    assert values(scenes, "role")[1] == values(scenes, "role")[4] == "unique"
    duplicate = values(scenes, "role")[:3].index("duplicate")
    assert values(scenes, "of")[duplicate] == ids[2 - duplicate]
    assert values(scenes, "kind") == ["exact", None, "exact", "same_object", None, "same_object"]
    assert summary.counts["total"] == 6
    assert "dup_group" not in scenes.get_field_schema()


def test_quality_is_that_of_the_crop_and_not_of_the_scene(scenes):
    resolution = {"resolution": 1, "sharpness": 0, "exposure": 0, "file_size": 0}

    find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99, keeper=resolution)

    # 16 × 32 pixels on the left, 8 × 16 on the right.
    assert values(scenes, "quality") == [9.0, None, 9.0, 7.0, None, 7.0]


def test_panels_see_objects_with_their_boxes_and_a_view_of_patches(scenes):
    find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99)

    table = group_table(scenes, "dup")
    members = group_members(scenes, "dup", [1])[1]
    view = group_view(scenes, "dup", [0, 1])

    assert table.group.tolist() == [0, 1]
    assert table.kind == ["exact", "same_object"]
    assert [member.box for member in members] == [tuple(RIGHT)] * 2
    assert {member.label for member in members} == {"object 1"}
    assert {member.sample_id for member in members} == set(scenes.values("id")[1:])
    assert view.values("gt.dup_group") == [0, 0, 1, 1]
    assert view.values("gt.dup_role") == ["keeper", "duplicate"] * 2
    assert show_duplicate_groups(scenes, kind="exact").values("gt.dup_group") == [0, 0]
    assert len(show_duplicate_groups(scenes)) == 4
    assert len(show_duplicate_groups(scenes, as_groups=True)) == 2


def test_the_threshold_of_objects_moves_without_a_search(scenes):
    find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99)

    regroup_duplicates(scenes, threshold=0.99999)

    assert values(scenes, "group") == [0, None, 0, None, None, None]
    assert values(scenes, "role")[3] == "unique"


def test_results_of_an_earlier_run_are_cleared_on_objects_outside_the_view(scenes):
    find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99)

    find_duplicates(scenes[:2], embeddings="vector", patches_field="gt", threshold=0.99)

    assert values(scenes, "group") == [0, None, 0, None, None, None]
    assert values(scenes, "role")[4:] == [None, None]


def test_an_object_without_a_vector_or_with_a_broken_box_costs_only_itself(scenes):
    sample = scenes.first()
    sample["gt"].detections[1]["vector"] = None
    sample["gt"].detections[0].bounding_box = [2.0, 2.0, 0.1, 0.1]
    sample.save()

    summary = find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99)

    assert values(scenes, "role")[:3] == ["duplicate", None, "keeper"]
    assert "outside the image" in values(scenes, "error")[0]
    assert "compute_ffa" in values(scenes, "error")[1]
    assert len(summary.failed) == 2


def test_a_field_without_objects_is_refused_with_those_that_have_some(scenes):
    with pytest.raises(ConfigError, match="fields with detections: gt"):
        find_duplicates(scenes, embeddings="vector", patches_field="other")
    with pytest.raises(ConfigError, match="vector fields: vector"):
        find_duplicates(scenes, embeddings="ffa", patches_field="gt")


def test_a_key_that_moves_from_objects_to_images_leaves_no_group_on_the_objects(scenes):
    find_duplicates(scenes, embeddings="vector", patches_field="gt", threshold=0.99)
    scenes.add_sample_field("ffa", fo.VectorField)
    scenes.set_values("ffa", list(angles(0, 1, 90)))

    find_duplicates(scenes, threshold=0.99)

    assert scenes.values("dup_group") == [0, 0, None]
    assert set(values(scenes, "group")) == set(values(scenes, "role")) == {None}
