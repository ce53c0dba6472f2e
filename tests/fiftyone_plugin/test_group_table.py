"""What panels read of a run: rows of groups, their members and views, for images and for objects."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates
from fiftyone_selfsame.fiftyone_plugin.group_table import group_fields, group_members, group_table, group_view

NO_SHARPNESS = {"sharpness": 0, "exposure": 0, "file_size": 0}


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


@pytest.fixture
def grouped(vector_dataset):
    """A group of three whose last picture is the largest, a group of two, and a loner."""
    dataset = vector_dataset(angles(0, 1, 3, 90, 92, 200), sizes=[16, 16, 64, 32, 16, 16])
    find_duplicates(dataset, threshold=0.99, keeper=NO_SHARPNESS)
    return dataset


def test_there_is_one_row_per_group_with_the_least_similarity_to_the_keeper(grouped):
    table = group_table(grouped, "dup")

    assert table.group.tolist() == [0, 1]
    assert table.size.tolist() == [3, 2]
    np.testing.assert_allclose(table.similarity, np.cos(np.radians([3, 2])), atol=1e-6)
    assert len(table.kind) == len(table) == 2
    assert table.decided.tolist() == [False, False]


def test_a_decision_on_any_member_marks_the_group_as_decided(grouped):
    grouped.add_sample_field("dup_decision", fo.StringField)
    sample = grouped.match({"dup_group": 1}).first()
    sample["dup_decision"] = "keep"
    sample.save()

    assert group_table(grouped, "dup").decided.tolist() == [False, True]


def test_only_groups_with_members_in_the_view_have_a_row(grouped):
    table = group_table(grouped.match({"dup_group": 1}), "dup")

    assert table.group.tolist() == [1]
    assert table.size.tolist() == [2]


def test_members_come_keeper_first_and_then_by_falling_similarity(grouped):
    members = group_members(grouped, "dup", [0, 7])

    assert members[7] == []
    ids = grouped.values("id")
    assert [member.id for member in members[0]] == [ids[2], ids[1], ids[0]]
    keeper, second, _ = members[0]
    assert (keeper.role, keeper.similarity, keeper.box, keeper.tags) == ("keeper", 1.0, None, ())
    assert second.similarity == pytest.approx(float(np.cos(np.radians(2))), abs=1e-6)
    assert second.filepath == grouped[ids[1]].filepath
    assert [len(group) for group in group_members(grouped, "dup", [0, 1], limit=2).values()] == [2, 2]


def test_the_view_of_groups_names_no_ids(grouped):
    view = group_view(grouped, "dup", [1, 0])

    assert view.values("dup_group") == [0, 0, 0, 1, 1]
    assert view.values("dup_role")[0] == "keeper"
    assert grouped.first().id not in str(view._serialize())
    assert group_view(grouped, "dup", 1).values("dup_group") == [1, 1]


def test_more_groups_than_a_view_should_carry_are_refused(grouped):
    with pytest.raises(ConfigError, match="at most 200"):
        group_view(grouped, "dup", range(201))
    with pytest.raises(ConfigError, match="there are 'dup'"):
        group_table(grouped, "other")


def test_a_run_of_clusters_is_read_by_its_own_names():
    record = {"key": "objects", "method": "cluster_objects", "config": {"patches_field": "gt"}}

    fields = group_fields(record)

    assert fields.number == "gt.detections.objects_cluster"
    assert fields.similarity == "gt.detections.objects_confidence"
    assert fields.order == [(fields.number, 1), (fields.similarity, -1)]
