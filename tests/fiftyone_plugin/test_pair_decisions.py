"""Decisions on pairs: tags on both slices, undo to any depth, and what grouping makes of them."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.decisions import constraints_of, decide
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.object_clusters import cluster_objects
from fiftyone_selfsame.fiftyone_plugin.pair_decisions import (
    decide_pairs,
    pair_links,
    pair_progress,
    pair_verdicts,
    undo_pair_decision,
)


def angles(*degrees):
    """Unit vectors in the plane."""
    return [np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]) for angle in degrees]


@pytest.fixture
def made(vector_dataset):
    """Four images, two and two alike, and all their pairs."""
    dataset = vector_dataset(angles(0, 1, 60, 61))
    ids = dataset.values("id")
    ends = [(0, 1), (1, 2), (2, 3), (0, 2)]
    pairs = create_pairs(dataset, pairs=[(ids[a], ids[b]) for a, b in ends])
    yield dataset, pairs, [f"{ids[a]}-{ids[b]}" for a, b in ends]
    pairs.delete()


def _tags(pairs):
    """Tags of each pair, per slice."""
    flat = pairs.select_group_slices()
    found = {}
    for pair_id, name, tags in zip(*flat.values(["pair_id", "pair.name", "tags"]), strict=True):
        found.setdefault(pair_id, {})[name] = tags
    return found


def test_a_decision_tags_both_slices_and_undo_takes_back_one_after_the_other(made):
    _, pairs, names = made
    decide_pairs(pairs, names[:2], "accept")
    decide_pairs(pairs, names[1:3], "reject")
    assert _tags(pairs)[names[0]] == {"source": ["match:accept"], "target": ["match:accept"]}
    assert pair_verdicts(pairs) == {names[0]: "accept", names[1]: "reject", names[2]: "reject"}
    assert pair_progress(pairs) == {"pairs": 4, "accepted": 1, "rejected": 2, "undoable": 2}
    decide_pairs(pairs, names[:1], "clear")
    assert pair_verdicts(pairs) == {names[1]: "reject", names[2]: "reject"}
    assert undo_pair_decision(pairs) == names[:1]
    assert undo_pair_decision(pairs) == names[1:3]
    assert pair_verdicts(pairs) == dict.fromkeys(names[:2], "accept")
    assert undo_pair_decision(pairs) == names[:2]
    assert pair_verdicts(pairs) == {}
    assert not [tags for both in _tags(pairs).values() for tags in both.values() if tags]
    with pytest.raises(ConfigError, match="no decision on pairs"):
        undo_pair_decision(pairs)


def test_other_tags_stay_and_tags_given_by_hand_count(made):
    _, pairs, names = made
    pairs.match({"pair_id": names[3]}).tag_samples(["match:accept", "mine"])
    assert pair_verdicts(pairs) == {names[3]: "accept"}
    decide_pairs(pairs, [names[3]], "reject")
    assert sorted(_tags(pairs)[names[3]]["source"]) == ["match:reject", "mine"]
    undo_pair_decision(pairs)
    assert sorted(_tags(pairs)[names[3]]["source"]) == ["match:accept", "mine"]
    assert _tags(pairs)[names[3]]["target"] == []


def test_what_cannot_be_decided_is_refused_and_changes_nothing(made):
    dataset, pairs, names = made
    with pytest.raises(ConfigError, match="action='maybe'"):
        decide_pairs(pairs, names, "maybe")
    with pytest.raises(ConfigError, match="no pair 'x-y'"):
        decide_pairs(pairs, [names[0], "x-y"], "accept")
    with pytest.raises(ConfigError, match="holds no pairs"):
        decide_pairs(dataset, names, "accept")
    assert pair_progress(pairs) == {"pairs": 4, "accepted": 0, "rejected": 0, "undoable": 0}


def test_grouping_honours_decisions_on_pairs(made):
    dataset, pairs, names = made
    find_duplicates(dataset, threshold=0.99)
    numbers = dataset.values("dup_group")
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]
    decide_pairs(pairs, [names[0]], "reject")
    regroup_duplicates(dataset, "dup", threshold=0.99)
    assert dataset.values("dup_group")[:2] == [None, None]
    decide_pairs(pairs, [names[1]], "accept")
    cluster_objects(dataset, "objects", embeddings="ffa", threshold=0.9, progress=False)
    clusters = np.array(dataset.values("objects_cluster"), float)
    assert clusters[1] == clusters[2]
    assert clusters[0] != clusters[1]


def test_a_word_on_a_pair_overrules_one_on_its_group(made):
    dataset, pairs, names = made
    ids = dataset.values("id")
    find_duplicates(dataset, threshold=0.99)
    decide(dataset, "dup", "confirm", groups=[dataset.values("dup_group")[0]])
    decide_pairs(pairs, [names[0]], "reject")
    _, apart = constraints_of(dataset, "dup")
    assert ([ids[0]], [ids[1]]) in apart or ([ids[1]], [ids[0]]) in apart


def test_pairs_of_two_datasets_and_deleted_originals_do_no_harm(made, vector_dataset):
    dataset, pairs, names = made
    decide_pairs(pairs, names[:1], "accept")
    assert pair_links(dataset)[0].together == [tuple(names[0].split("-"))]
    other = fo.Dataset()
    try:
        assert pair_links(other) == []
    finally:
        other.delete()
    dataset.delete_samples(dataset.values("id")[:1])
    find_duplicates(dataset, threshold=0.99)
    assert dataset.values("dup_group")[0] is None
