"""Decisions of a reviewer: what each does to tags, fields and groups, and that each is undone exactly."""

import itertools
import random
import threading

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin import decision_members
from fiftyone_selfsame.fiftyone_plugin.decision_log import STORE, DecisionLog
from fiftyone_selfsame.fiftyone_plugin.decision_members import DROP, KEEP, REJECT
from fiftyone_selfsame.fiftyone_plugin.decisions import (
    ACTIONS,
    constraints_of,
    decide,
    decision_log,
    review_progress,
    undo_decision,
)
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fixtures.reviewed_runs import make_run

GROUPS = [0, 0, 0, 0, 1, 1, None]


@pytest.fixture
def dataset(fo_dataset):
    """Groups 0: samples 0 to 3, of which 1 is the keeper; 1: samples 4, 5, of which 4 is; sample 6 alone."""
    dataset = fo_dataset([f"/{n}.png" for n in range(7)])
    dataset.add_sample_field("ffa", fo.VectorField)
    vectors = [[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0, 1], [0.1, 1], [-1, -1]]
    dataset.set_values("ffa", [np.array(vector, np.float32) for vector in vectors])
    make_run(dataset, GROUPS, quality=[1.0, 4.0, 2.0, 3.0, 2.0, 1.0, 0.0], shot=[0, 0, 1, 1, 0, 0, None])
    return dataset


@pytest.fixture
def objects(fo_dataset):
    """Two images with three boxes each: group 0 has the first two of both, group 1 the last ones."""
    dataset = fo_dataset(["/a.png", "/b.png"])
    labels = [[fo.Detection(label="x", bounding_box=[0, 0, 0.1, 0.1]) for _ in range(3)] for _ in range(2)]
    dataset.set_values("boxes", [fo.Detections(detections=three) for three in labels])
    make_run(dataset, [0, 0, 1, 0, 0, 1], key="obj", patches_field="boxes", quality=[1.0, 2.0, 1.0, 0.0, 0.0, 0.0])
    return dataset


def tags(dataset, root=""):
    rows = dataset.values(f"{root}tags")
    return [sorted(row or ()) for row in (itertools.chain.from_iterable(rows) if root else rows)]


def everything(dataset, root="", key=""):
    """Tags and all values of all runs, without the fields that are empty everywhere."""
    schema = dataset.get_field_schema(flat=True)
    names = [path for path in schema if path.startswith(f"{root}{key}") and "_" in path.removeprefix(root)]
    names = [path for path in names if path not in ("created_at", "last_modified_at")]
    columns = {path: dataset.values(path, unwind=bool(root)) for path in names if "bounding" not in path}
    return tags(dataset, root), {name: column for name, column in columns.items() if any(v is not None for v in column)}


def column(dataset, name):
    return dataset.values(f"dup_{name}")


# ------------------------------------------------------------------------------------------------------ what stays


def test_keep_best_keeps_the_keeper_and_drops_the_others(dataset):
    decision = decide(dataset, "dup", "keep_best", groups=[0])

    assert tags(dataset) == [[DROP], [KEEP], [DROP], [DROP], [], [], []]
    assert column(dataset, "decision") == ["drop", "keep", "drop", "drop", None, None, None]
    assert (decision.counts["keep"], decision.counts["drop"]) == (1, 3)
    assert load_record(dataset, "dup")["details"]["decisions"] == {"decisions": 1, "keep": 1, "drop": 3, "reject": 0}


def test_the_other_actions_say_what_else_stays(dataset):
    ids = dataset.values("id")

    decide(dataset, "dup", "keep_all", groups=[0, 1])
    assert tags(dataset) == [[KEEP]] * 6 + [[]]
    decide(dataset, "dup", "keep_chosen", groups=[0], members=[ids[0], ids[2]])
    assert tags(dataset)[:4] == [[KEEP], [DROP], [KEEP], [DROP]]
    decide(dataset, "dup", "keep_shots", groups=[0])
    assert tags(dataset)[:4] == [[DROP], [KEEP], [DROP], [KEEP]]
    decide(dataset, "dup", "reject", groups=[1])
    assert tags(dataset)[4:] == [[REJECT], [REJECT], []]
    assert column(dataset, "group") == GROUPS


def test_shots_that_were_not_told_apart_cannot_be_kept(dataset):
    dataset.clear_sample_field("dup_shot")

    with pytest.raises(ConfigError, match="shots=True"):
        decide(dataset, "dup", "keep_shots", groups=[0])


def test_a_tag_given_by_hand_stands_unless_that_very_member_is_chosen(dataset):
    ids = dataset.values("id")
    dataset[0:1].tag_samples(KEEP)
    dataset[1:2].tag_samples(DROP)

    decision = decide(dataset, "dup", "keep_best", groups=[0])
    assert tags(dataset)[:4] == [[KEEP], [DROP], [DROP], [KEEP]]
    assert column(dataset, "decision")[:4] == ["keep", "drop", "drop", "keep"]
    assert decision.counts["by_hand"] == 1

    decide(dataset, "dup", "keep_chosen", groups=[0], members=[ids[1]])
    assert tags(dataset)[:4] == [[DROP], [KEEP], [DROP], [DROP]]
    undo_decision(dataset, "dup")
    undo_decision(dataset, "dup")
    assert tags(dataset) == [[KEEP], [DROP], [], [], [], [], []]


# ------------------------------------------------------------------------------------------- who belongs together


def test_split_makes_the_chosen_members_a_group_with_its_own_keeper(dataset):
    ids = dataset.values("id")
    decide(dataset, "dup", "keep_best", groups=[0])

    decision = decide(dataset, "dup", "split", groups=[0], members=[ids[2], ids[3]])

    assert decision.result == (0, 2)
    assert column(dataset, "group") == [0, 0, 2, 2, 1, 1, None]
    assert column(dataset, "size") == [2, 2, 2, 2, 2, 2, 1]
    assert column(dataset, "role")[:4] == ["duplicate", "keeper", "duplicate", "keeper"]
    assert column(dataset, "of")[2:4] == [ids[3], None]
    assert column(dataset, "similarity")[2] == pytest.approx(0.2 / np.hypot(1, 0.2))
    assert column(dataset, "decision")[:4] == [None] * 4
    assert tags(dataset)[:4] == [[]] * 4


def test_a_single_member_that_is_split_off_is_in_no_group(dataset):
    decide(dataset, "dup", "split", groups=[1], members=[dataset.last().id, dataset.values("id")[5]][1:])

    assert column(dataset, "group")[4:] == [None, None, None]
    assert column(dataset, "role")[4:] == ["unique"] * 3


def test_merge_makes_one_group_with_the_better_keeper_and_tells_the_shots_apart(dataset):
    ids = dataset.values("id")

    decide(dataset, "dup", "merge", groups=[1, 0])

    assert column(dataset, "group") == [0] * 6 + [None]
    assert column(dataset, "size") == [6] * 6 + [1]
    assert column(dataset, "role")[:6].count("keeper") == 1
    assert column(dataset, "of")[4:6] == [ids[1], ids[1]]
    assert column(dataset, "similarity")[4] == pytest.approx(0.1 / np.hypot(1, 0.1))
    assert column(dataset, "kind")[:6] == ["same_object"] * 6
    shots = column(dataset, "shot")
    assert len(set(shots[:2]) | set(shots[2:4]) | set(shots[4:6])) == 3


def test_rejected_members_leave_their_group(dataset):
    ids = dataset.values("id")

    decide(dataset, "dup", "reject", groups=[0], members=[ids[1]])

    assert column(dataset, "group") == [0, None, 0, 0, 1, 1, None]
    assert column(dataset, "role")[:4] == ["duplicate", "unique", "duplicate", "keeper"]
    assert column(dataset, "decision")[:2] == [None, "reject"]
    assert tags(dataset)[:2] == [[], [REJECT]]


def test_clusters_are_confirmed_named_split_and_merged(dataset):
    ids = dataset.values("id")
    make_run(dataset, GROUPS, key="objects", method="cluster_objects", confidence=[0.9, 0.8, 0.7, 0.6, 1.0, 0.5, None])
    before = everything(dataset)

    decide(dataset, "objects", "confirm", groups=[1])
    decide(dataset, "objects", "name", groups=[0], name="red car")
    decide(dataset, "objects", "split", groups=[0], members=ids[2:4])
    decide(dataset, "objects", "reject", groups=[2], members=[ids[3]])

    assert dataset.values("objects_decision") == [None, None, None, "reject", "keep", "keep", None]
    assert dataset.values("objects_cluster") == [0, 0, None, None, 1, 1, None]
    assert dataset.values("objects_name") == ["red car", "red car", None, None, None, None, None]
    assert dataset.values("objects_category") == ["cluster 00"] * 2 + ["no cluster"] * 2 + ["cluster 01"] * 2 + [
        "no cluster"
    ]
    decide(dataset, "objects", "merge", groups=[0, 1])
    assert dataset.values("objects_name") == ["red car"] * 2 + [None] * 2 + ["red car"] * 2 + [None]
    assert [undo_decision(dataset, "objects").action for _ in range(5)] == [
        "merge",
        "reject",
        "split",
        "name",
        "confirm",
    ]
    assert everything(dataset) == before


def test_objects_are_decided_on_like_images(objects):
    root = "boxes.detections."
    ids = objects.values(f"{root}id", unwind=True)
    before = everything(objects, root)

    decide(objects, "obj", "keep_best", groups=[0])
    assert tags(objects, root) == [[DROP], [KEEP], [], [DROP], [DROP], []]
    assert tags(objects) == [[], []]
    assert review_progress(objects, "obj") == {
        "groups": 2,
        "decided": 1,
        "keep": 1,
        "drop": 3,
        "reject": 0,
        "undoable": 1,
    }
    decide(objects, "obj", "split", groups=[0], members=ids[3:5])
    assert objects.values(f"{root}obj_group", unwind=True) == [0, 0, 1, 2, 2, 1]
    undo_decision(objects, "obj")
    undo_decision(objects, "obj")

    assert everything(objects, root) == before


# -------------------------------------------------------------------------------------------------- undo and log


def _any_decision(chance, dataset, key):
    """A random decision that is possible now, as arguments of decide()."""
    numbers = [n for n in dataset.distinct(f"{key}_group") if n is not None]
    action = chance.choice(ACTIONS)
    if action == "merge":
        return action, {"groups": chance.sample(numbers, min(2, len(numbers)))}
    group = chance.choice(numbers)
    ids = dataset.match({f"{key}_group": group}).values("id")
    members = chance.sample(ids, chance.randint(1, len(ids) - 1))
    if action in ("keep_chosen", "split") or (action == "reject" and chance.random() < 0.5):
        return action, {"groups": [group], "members": members}
    return action, {"groups": [group], **({"name": f"n{chance.random()}"} if action == "name" else {})}


def test_undo_goes_back_to_any_depth_whatever_was_decided(fo_dataset):
    chance = random.Random(0)
    dataset = fo_dataset([f"/{n}.png" for n in range(30)])
    make_run(
        dataset,
        [n // 6 for n in range(30)],
        quality=[chance.random() for _ in range(30)],
        shot=[n % 2 for n in range(30)],
    )
    for n, tag in ((1, KEEP), (2, DROP), (3, "mine"), (9, REJECT)):
        dataset[n : n + 1].tag_samples(tag)
    states = []
    while len(states) < 40:
        state = everything(dataset)
        action, arguments = _any_decision(chance, dataset, "dup")
        try:
            decide(dataset, "dup", action, **arguments)
        except ConfigError:
            assert everything(dataset) == state
            continue
        if len(decision_log(dataset, "dup")) > len(states):
            states.append(state)
    assert len({decision.action for decision in decision_log(dataset, "dup")}) > 6

    for state in reversed(states):
        undo_decision(dataset, "dup")
        assert everything(dataset) == state
    assert undo_decision(dataset, "dup") is None


def test_the_log_tells_the_decisions_and_the_progress_follows(dataset):
    decide(dataset, "dup", "keep_best", groups=[0])
    decide(dataset, "dup", "reject", groups=[1])

    log = decision_log(dataset, "dup")
    progress = review_progress(dataset, "dup")
    undo_decision(dataset, "dup")

    assert [(entry.sequence, entry.action, entry.groups) for entry in log] == [
        (1, "keep_best", (0,)),
        (2, "reject", (1,)),
    ]
    assert progress == {"groups": 2, "decided": 2, "keep": 1, "drop": 3, "reject": 2, "undoable": 2}
    assert review_progress(dataset, "dup") == {**progress, "decided": 1, "reject": 0, "undoable": 1}
    assert load_record(dataset, "dup")["details"]["decisions"]["reject"] == 0


def test_the_same_decision_twice_in_a_row_is_made_once(dataset):
    first = decide(dataset, "dup", "keep_best", groups=[0])

    assert decide(dataset, "dup", "keep_best", groups=[0]) == first
    assert len(decision_log(dataset, "dup")) == 1


def test_two_fast_clicks_are_decided_one_after_the_other(dataset):
    ids = dataset.values("id")
    before = everything(dataset)
    requests = [("keep_best", {"groups": [0]}), ("split", {"groups": [0], "members": ids[:2]})] * 3
    threads = [
        threading.Thread(target=decide, args=(dataset, "dup", action), kwargs=options)
        for action, options in requests[:2]
    ] + [threading.Thread(target=decide, args=(dataset, "dup", "reject"), kwargs={"groups": [1]}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    sequences = [entry.sequence for entry in decision_log(dataset, "dup")]
    assert sequences == list(range(1, len(sequences) + 1))
    assert column(dataset, "group") == [2, 2, 0, 0, 1, 1, None]
    while undo_decision(dataset, "dup"):
        pass
    assert everything(dataset) == before


def test_a_decision_that_was_killed_half_way_can_be_undone(dataset, monkeypatch):
    before = everything(dataset)

    def die(self, operations, ids=None):
        type(self)._sample_collection.fget(self).bulk_write(operations[:1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fo.Dataset, "_bulk_write", die)
        with pytest.raises(KeyboardInterrupt):
            decide(dataset, "dup", "merge", groups=[0, 1])
    assert everything(dataset) != before

    undo_decision(dataset, "dup")

    assert everything(dataset) == before


def test_what_decisions_on_two_keys_share_is_undone_in_order(dataset):
    make_run(dataset, [0, 0, None, None, None, None, None], key="exact", method="find_exact_duplicates")
    decide(dataset, "exact", "keep_best", groups=[0])
    exact = tags(dataset)
    assert exact[:2] == [[KEEP], [DROP]]

    decide(dataset, "dup", "keep_best", groups=[0])
    assert tags(dataset)[:2] == [[DROP], [KEEP]]
    with pytest.raises(ConfigError, match=r"undo those first: undo_decision\(dataset, 'dup'\)"):
        undo_decision(dataset, "exact")
    undo_decision(dataset, "dup")
    assert tags(dataset) == exact
    undo_decision(dataset, "exact")
    assert tags(dataset) == [[]] * 7


def test_after_a_new_search_undo_restores_tags_and_leaves_the_new_groups(dataset):
    ids = dataset.values("id")
    decide(dataset, "dup", "keep_best", groups=[1])
    decide(dataset, "dup", "split", groups=[0], members=ids[:2])
    decide(dataset, "dup", "keep_best", groups=[0])
    dataset.set_values("dup_group", [5] * 7)
    make_run(dataset, [5] * 7, quality=[0.0] * 7)
    groups = everything(dataset)[1]["dup_group"]

    for _ in range(3):
        undo_decision(dataset, "dup")

    assert everything(dataset)[1]["dup_group"] == groups
    assert tags(dataset) == [[]] * 7


def test_a_decision_on_more_members_than_one_document_holds_is_undone_whole(dataset, monkeypatch):
    from fiftyone_selfsame.fiftyone_plugin import decision_log as module

    monkeypatch.setattr(module, "_CHANGES_PER_PART", 2)
    monkeypatch.setattr(decision_members, "_WRITE_CHUNK", 2)
    before = everything(dataset)

    decide(dataset, "dup", "keep_best", groups=[0, 1])
    assert tags(dataset) == [[DROP], [KEEP], [DROP], [DROP], [KEEP], [DROP], []]
    undo_decision(dataset, "dup")

    assert everything(dataset) == before
    assert decision_log(dataset, "dup") == []


def test_the_log_follows_a_clone_and_goes_with_the_dataset(dataset):
    decide(dataset, "dup", "keep_best", groups=[0])
    clone = dataset.clone()
    try:
        assert undo_decision(clone, "dup").action == "keep_best"
        assert tags(clone) == [[]] * 7
        assert tags(dataset)[1] == [KEEP]
    finally:
        clone.delete()
    documents, log_id = DecisionLog(dataset)._documents, dataset._doc.id
    assert documents.count_documents({"store_name": STORE, "dataset_id": log_id}) == 1
    dataset.delete()
    assert documents.count_documents({"store_name": STORE, "dataset_id": log_id}) == 0


# ------------------------------------------------------------------------------------------------- constraints


def test_decisions_tell_a_new_search_who_belongs_together(dataset):
    ids = dataset.values("id")
    decide(dataset, "dup", "keep_best", groups=[1])
    decide(dataset, "dup", "split", groups=[0], members=ids[:2])
    decide(dataset, "dup", "confirm", groups=[0])
    decide(dataset, "dup", "reject", groups=[2])

    together, apart = constraints_of(dataset, "dup")

    assert sorted(map(sorted, together)) == sorted([sorted(ids[4:6]), sorted(ids[2:4])])
    assert ([sorted(ids[:2]), sorted(ids[2:4])]) in [list(pair) for pair in apart]
    assert ([ids[0]], [ids[1]]) in apart
    undo_decision(dataset, "dup")
    assert ([ids[0]], [ids[1]]) not in constraints_of(dataset, "dup")[1]


def test_later_decisions_overrule_earlier_ones_so_that_constraints_never_contradict_each_other():
    from fiftyone_selfsame.fiftyone_plugin.decision_links import replay
    from fiftyone_selfsame.fiftyone_plugin.decision_log import Links

    chance, ids = random.Random(1), list("abcdefgh")
    for _ in range(200):
        decisions = []
        for _ in range(chance.randint(1, 8)):
            some = chance.sample(ids, chance.randint(2, 5))
            cut = chance.randint(1, len(some) - 1)
            kinds = [Links(together=[some]), Links(apart=[(some[:cut], some[cut:])]), Links(strangers=[some])]
            decisions.append(chance.choice(kinds))
        together, apart = replay(decisions)
        whole = {member: number for number, found in enumerate(together) for member in found}
        assert sum(map(len, together)) == len(whole)
        for one, other in apart:
            assert not {whole.get(a, a) for a in one} & {whole.get(b, b) for b in other}
        # The last decision holds to the letter.
        last = decisions[-1]
        for found in last.together:
            assert len({whole[member] for member in found}) == 1
        cut_pairs = {frozenset((a, b)) for one, other in apart for a in one for b in other}
        for one, other in last.apart:
            assert {frozenset((a, b)) for a in one for b in other} <= cut_pairs


# ----------------------------------------------------------------------------------------------------- refusals


REFUSALS = [
    ("delete", {"groups": [0]}, "use one of keep_best"),
    ("keep_best", {"groups": []}, "names no group"),
    ("keep_best", {"groups": [9]}, "has no group 9"),
    ("keep_best", {"groups": ["0"]}, "no number of a group"),
    ("keep_best", {"groups": [0], "members": ["x"]}, "whole groups"),
    ("keep_chosen", {"groups": [0], "members": ["x"]}, "no member of group 0"),
    ("keep_chosen", {"groups": [0]}, "lose all its members"),
    ("split", {"groups": [0]}, "choose some members"),
    ("split", {"groups": [0, 1]}, "one group at a time"),
    ("merge", {"groups": [0]}, "at least two"),
    ("name", {"groups": [0], "name": 5}, "must be text"),
]


def test_what_cannot_be_decided_is_refused_and_changes_nothing(dataset):
    before = everything(dataset)

    for action, arguments, message in REFUSALS:
        with pytest.raises(ConfigError, match=message):
            decide(dataset, "dup", action, **arguments)

    assert everything(dataset) == before
    assert decision_log(dataset, "dup") == []


def test_an_unknown_run_is_refused_with_those_there_are(dataset):
    with pytest.raises(ConfigError, match="key 'other'; there are 'dup'"):
        decide(dataset, "other", "keep_best", groups=[0])
