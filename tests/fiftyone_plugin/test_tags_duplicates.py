"""Tags for keepers and duplicates: what an action tags, that it respects hands, and that undo is exact."""

import random

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.decisions import decide
from fiftyone_selfsame.fiftyone_plugin.duplicate_tags import (
    DROP,
    KEEP,
    TAG_ACTION_LABELS,
    TAG_ACTIONS,
    tag_duplicates,
    undo_duplicate_tags,
    undoable_actions,
)
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.exact_duplicates import find_exact_duplicates
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fixtures.reviewed_runs import make_run

# The larger picture of each pair is kept.
ROLES = ["duplicate", "keeper", "keeper", "duplicate", "unique"]


@pytest.fixture
def dataset(vector_dataset):
    dataset = vector_dataset([[1, 0], [1, 0.01], [0, 1], [0.02, 1], [-1, -1]], sizes=[16, 64, 64, 16, 16])
    find_duplicates(dataset, threshold=0.99)
    assert dataset.values("dup_role") == ROLES
    return dataset


def tags(dataset):
    return [sorted(row) for row in dataset.values("tags")]


def test_keepers_and_duplicates_get_their_tags(dataset):
    summary = tag_duplicates(dataset)

    assert tags(dataset) == [[DROP], [KEEP], [KEEP], [DROP], []]
    assert summary.counts == {"total": 5, "keep": 2, "drop": 2, "replaced": 0, "by_hand": 0}
    (action,) = undoable_actions(dataset)
    assert action["config"] == {"key": "dup", "action": "drop_duplicates", "sequence": 1}
    assert load_record(dataset, "dup")["details"]["decisions"] == {"decisions": 1, "keep": 2, "drop": 2, "reject": 0}


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("drop_only", [[DROP], [], [], [DROP], []]),
        ("keep_only", [[], [KEEP], [KEEP], [], []]),
        ("keep_all", [[KEEP], [KEEP], [KEEP], [KEEP], []]),
    ],
)
def test_other_actions_tag_other_roles(dataset, action, expected):
    tag_duplicates(dataset, action=action)

    assert tags(dataset) == expected


def test_only_the_view_is_tagged(dataset):
    tag_duplicates(dataset[:2])

    assert tags(dataset) == [[DROP], [KEEP], [], [], []]


def test_tagging_twice_changes_nothing_and_records_nothing(dataset):
    tag_duplicates(dataset)
    before = tags(dataset), undoable_actions(dataset), dataset.values("last_modified_at")

    summary = tag_duplicates(dataset)

    assert (tags(dataset), undoable_actions(dataset), dataset.values("last_modified_at")) == before
    assert summary.key is None
    assert "nothing was changed" in str(summary)


def test_undo_leaves_tags_that_were_given_by_hand(dataset):
    dataset[:1].tag_samples(["mine", DROP])
    tag_duplicates(dataset)
    dataset[3:4].tag_samples("later")

    summary = undo_duplicate_tags(dataset)

    assert tags(dataset) == [sorted([DROP, "mine"]), [], [], ["later"], []]
    assert summary.counts == {"total": 4, "untagged": 3, "restored": 0, "left": 0}


def test_a_decision_by_hand_is_not_contradicted(dataset):
    dataset[:1].tag_samples(KEEP)

    summary = tag_duplicates(dataset)

    assert tags(dataset) == [[KEEP], [KEEP], [KEEP], [DROP], []]
    assert summary.counts["by_hand"] == 1


def test_after_regrouping_stale_tags_are_replaced_and_undo_brings_them_back(dataset):
    tag_duplicates(dataset)
    before = tags(dataset)
    regroup_duplicates(dataset, threshold=0.9999)
    assert dataset.values("dup_role") == ["duplicate", "keeper", "unique", "unique", "unique"]

    summary = tag_duplicates(dataset)
    after = tags(dataset)
    undo_duplicate_tags(dataset)

    assert after == [[DROP], [KEEP], [], [], []]
    assert summary.counts["replaced"] == 2
    assert tags(dataset) == before


def test_undo_goes_back_to_any_depth_whatever_was_done(vector_dataset):
    rng, chance = np.random.default_rng(0), random.Random(0)
    centres = np.repeat(rng.normal(size=(8, 12)), 3, axis=0)
    dataset = vector_dataset(centres + 0.1 * rng.normal(size=centres.shape))
    find_duplicates(dataset, threshold=0.95)
    states = []
    for _ in range(12):
        state = tags(dataset)
        view = dataset.take(12, seed=chance.randrange(1000))
        if chance.random() < 0.4:
            regroup_duplicates(dataset, threshold=chance.choice([0.95, 0.98, 0.99]))
        summary = tag_duplicates(view, action=chance.choice(list(TAG_ACTIONS)))
        if summary.key is not None:
            states.append(state)
    assert len(states) > 6

    for state in reversed(states):
        undo_duplicate_tags(dataset)
        assert tags(dataset) == state

    assert undoable_actions(dataset) == []
    with pytest.raises(ConfigError, match="no tags of duplicate run 'dup' are left to undo"):
        undo_duplicate_tags(dataset)


def test_undo_from_a_view_takes_back_the_whole_action(dataset):
    tag_duplicates(dataset)

    undo_duplicate_tags(dataset[:1])

    assert tags(dataset) == [[], [], [], [], []]


def test_keys_are_undone_one_by_one_and_in_order_where_they_meet(dataset):
    paths = dataset.values("filepath")
    with open(paths[1], "rb") as source, open(paths[2], "wb") as target:
        target.write(source.read())
    find_exact_duplicates(dataset)
    tag_duplicates(dataset, "exact")
    exact = tags(dataset)
    assert exact == [[], [KEEP], [DROP], [], []]

    tag_duplicates(dataset, "dup")
    assert tags(dataset) == [[DROP], [KEEP], [KEEP], [DROP], []]
    with pytest.raises(ConfigError, match="undo those first"):
        undo_duplicate_tags(dataset, "exact")
    undo_duplicate_tags(dataset, "dup")

    assert tags(dataset) == exact
    undo_duplicate_tags(dataset, "exact")
    assert tags(dataset) == [[], [], [], [], []]


def test_an_action_that_was_killed_half_way_can_be_undone(dataset, monkeypatch):
    def die(self, operations, ids=None):
        self._sample_collection.bulk_write(operations[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(dataset), "_bulk_write", die)
        with pytest.raises(KeyboardInterrupt):
            tag_duplicates(dataset)
    assert tags(dataset) != [[], [], [], [], []]

    undo_duplicate_tags(dataset)

    assert tags(dataset) == [[], [], [], [], []]


def test_tags_and_single_decisions_are_one_history(dataset):
    tag_duplicates(dataset)
    before = tags(dataset)
    decide(dataset, "dup", "keep_all", groups=[0])

    undo_duplicate_tags(dataset)
    assert tags(dataset) == before
    undo_duplicate_tags(dataset)

    assert tags(dataset) == [[], [], [], [], []]


def test_objects_are_tagged_by_their_own_roles(fo_dataset):
    dataset = fo_dataset(["/a.png", "/b.png"])
    boxes = [fo.Detection(label="x", bounding_box=[0, 0, 0.1, 0.1]) for _ in range(4)]
    dataset.set_values("boxes", [fo.Detections(detections=boxes[:2]), fo.Detections(detections=boxes[2:])])
    make_run(dataset, [0, None, 0, 0], patches_field="boxes")

    tag_duplicates(dataset)

    assert dataset.values("boxes.detections.tags") == [[[KEEP], []], [[DROP], [DROP]]]
    assert tags(dataset) == [[], []]
    undo_duplicate_tags(dataset)
    assert dataset.values("boxes.detections.tags") == [[[], []], [[], []]]


def test_samples_without_a_list_of_tags_can_be_tagged(dataset):
    dataset.set_field("tags", None).save()

    tag_duplicates(dataset)

    assert [row and list(row) for row in dataset.values("tags")][:2] == [[DROP], [KEEP]]


def test_unknown_actions_and_keys_are_refused(dataset):
    with pytest.raises(ConfigError, match="use one of drop_duplicates, drop_only, keep_only, keep_all"):
        tag_duplicates(dataset, action="delete")
    with pytest.raises(ConfigError, match="key 'other'; there are 'dup'"):
        tag_duplicates(dataset, "other")
    tag_duplicates(dataset)
    with pytest.raises(ConfigError, match="there are decisions on 'dup'"):
        undo_duplicate_tags(dataset, "other")
    assert set(TAG_ACTION_LABELS) == set(TAG_ACTIONS)
