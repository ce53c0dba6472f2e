"""Deleting what was decided to be dropped: never without a look first, and never more than was reviewed."""

import csv
import os

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin import decision_apply
from fiftyone_selfsame.fiftyone_plugin.decision_apply import apply_decisions
from fiftyone_selfsame.fiftyone_plugin.decisions import decide, review_progress, undo_decision
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fixtures.reviewed_runs import make_run
from PIL import Image


@pytest.fixture
def dataset(fo_dataset, tmp_path):
    """Group 0: samples 0 (keeper), 1, 2; group 1: samples 3 (keeper), 4; sample 5 alone. Group 0 is decided on."""
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"picture{number}.png")
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(paths[-1])
    dataset = fo_dataset(paths)
    make_run(dataset, [0, 0, 0, 1, 1, None], quality=[3.0, 1.0, 2.0, 2.0, 1.0, 0.0])
    decide(dataset, "dup", "keep_best", groups=[0])
    return dataset


def go(dataset, key="dup", **options):
    return apply_decisions(dataset, key, dry_run=False, confirm=dataset.name, progress=False, **options)


def test_the_dry_run_says_what_would_go_and_changes_nothing(dataset):
    before = [sample.to_dict() for sample in dataset]

    summary = apply_decisions(dataset, progress=False)

    assert summary.counts["drop"] == 2
    assert (summary.counts["groups"], summary.counts["kept"]) == (1, 1)
    assert summary.details["refusals"] == []
    assert summary.details["bytes"] == sum(map(os.path.getsize, dataset.values("filepath")[1:3]))
    assert "2 images would be removed from the dataset; files stay" in str(summary)
    assert [sample.to_dict() for sample in dataset] == before


def test_nothing_is_deleted_without_the_name_of_the_dataset(dataset):
    for confirm in (None, "", "yes", dataset.name.upper() + "x"):
        with pytest.raises(ConfigError, match=dataset.name):
            apply_decisions(dataset, dry_run=False, confirm=confirm, progress=False)
    assert len(dataset) == 6


def test_what_was_dropped_goes_and_files_and_the_other_groups_stay(dataset):
    ids, files = dataset.values("id"), dataset.values("filepath")

    summary = go(dataset)

    assert dataset.values("id") == [ids[0], *ids[3:]]
    assert all(map(os.path.exists, files))
    # The keeper is alone now, so it is in no group.
    assert dataset.values("dup_group") == [None, 1, 1, None]
    assert dataset.values("dup_size") == [1, 2, 2, 1]
    assert dataset.values("dup_role") == ["unique", "keeper", "duplicate", "unique"]
    with open(summary.details["table"], newline="") as stream:
        assert [row["file"] for row in csv.DictReader(stream) if row["decision"] == "drop"] == files[1:3]
    assert load_record(dataset, "dup")["details"]["applied"]["deleted"] == 2
    assert apply_decisions(dataset, progress=False).counts["drop"] == 0


def test_an_undo_does_not_pretend_to_bring_back_what_is_gone(dataset):
    go(dataset)

    assert review_progress(dataset, "dup")["undoable"] == 0
    with pytest.raises(ConfigError, match="cannot be brought back"):
        undo_decision(dataset, "dup")
    decide(dataset, "dup", "keep_all", groups=[1])
    assert undo_decision(dataset, "dup").action == "keep_all"


def test_a_group_that_lost_its_keeper_gets_another(dataset):
    ids = dataset.values("id")
    decide(dataset, "dup", "keep_chosen", groups=[0], members=ids[1:3])

    go(dataset)

    assert dataset.values("id") == ids[1:]
    assert dataset.values("dup_role")[:2] == ["duplicate", "keeper"]
    assert dataset.values("dup_of")[:2] == [ids[2], None]
    assert dataset.values("dup_size")[:2] == [2, 2]


def test_a_group_is_never_deleted_whole(dataset):
    dataset.match({"dup_group": 0}).set_values("dup_decision", ["drop"] * 3)
    dataset.match({"dup_group": 0}).tag_samples("duplicate:drop")

    assert "groups 0 would lose all" in str(apply_decisions(dataset, progress=False))
    with pytest.raises(ConfigError, match="groups 0 would lose all their members"):
        go(dataset)
    assert len(dataset) == 6


def test_what_nobody_reviewed_stays(dataset):
    # A tag alone is no decision on this run; a decision whose tag was taken off by hand is none any more.
    sample = dataset[dataset.values("id")[4]]
    sample.tags = ["duplicate:drop"]
    sample.save()
    undropped = dataset[dataset.values("id")[1]]
    undropped.tags = []
    undropped.save()

    summary = go(dataset)

    assert summary.counts["drop"] == 1
    assert "1 lost their tag" in str(summary)
    assert len(dataset) == 5


def test_what_is_tagged_by_hand_is_named_and_stays(dataset):
    dataset.select(dataset.values("id")[4]).tag_samples("duplicate:drop")

    summary = apply_decisions(dataset, progress=False)

    assert summary.counts["drop"] == 2
    assert "picture4.png" in str(summary)


def test_a_mark_that_no_decision_in_the_log_made_is_refused(dataset):
    marked = dataset.select(dataset.values("id")[4])
    marked.set_values("dup_decision", ["drop"])
    marked.tag_samples("duplicate:drop")

    with pytest.raises(ConfigError, match=r"no reviewer decided it.*picture4\.png"):
        go(dataset)
    assert len(dataset) == 6


def test_groups_that_changed_since_keep_something_that_was_kept(dataset):
    decided = dataset.values("dup_decision")
    # After a new search, sample 1 is beside two that nobody has decided on.
    make_run(dataset, [0, 1, 0, 1, 1, None], quality=[3.0, 1.0, 2.0, 2.0, 1.0, 0.0])
    dataset.set_values("dup_decision", decided)

    with pytest.raises(ConfigError, match="groups 1 have changed"):
        go(dataset)
    decide(dataset, "dup", "keep_best", groups=[1])
    assert go(dataset).counts["drop"] == 3


def test_if_the_keeper_was_deleted_meanwhile_the_rest_stays(dataset):
    dataset.delete_samples(dataset.values("id")[:1])

    with pytest.raises(ConfigError, match="would lose all their members"):
        go(dataset)


def test_a_deletion_that_is_killed_half_way_cannot_be_undone(dataset, monkeypatch):
    def killed(run, ids):
        dataset.delete_samples(ids[:1])
        raise KeyboardInterrupt

    monkeypatch.setattr(decision_apply, "_delete_items", killed)
    with pytest.raises(KeyboardInterrupt):
        go(dataset)

    with pytest.raises(ConfigError, match="cannot be brought back"):
        undo_decision(dataset, "dup")


def test_what_is_in_no_group_any_more_is_refused(dataset):
    make_run(dataset, [None, None, None, 0, 0, None])
    dataset.set_values("dup_decision", [None, "drop", None, None, None, None])

    with pytest.raises(ConfigError, match=r"in no group any more.*picture1\.png"):
        go(dataset)


def test_only_the_samples_of_the_view_are_deleted(dataset):
    ids = dataset.values("id")

    apply_decisions(dataset[:2], dry_run=False, confirm=dataset.name, progress=False)

    assert dataset.values("id") == [ids[0], *ids[2:]]
    assert dataset.values("dup_size")[:2] == [2, 2]


def test_files_go_only_on_request(dataset):
    files = dataset.values("filepath")

    go(dataset, delete_files=True)

    assert [os.path.exists(file) for file in files] == [True, False, False, True, True, True]


def test_a_file_that_another_sample_uses_is_not_deleted(dataset, fo_dataset):
    other = fo_dataset([dataset.values("filepath")[1]])

    with pytest.raises(ConfigError, match=f"also used by sample .* of dataset '{other.name}'"):
        go(dataset, delete_files=True)

    assert len(dataset) == 6
    assert os.path.exists(dataset.values("filepath")[1])
    other.delete()
    assert go(dataset, delete_files=True).counts["drop"] == 2


def test_of_objects_the_labels_go_and_their_images_stay(fo_dataset):
    dataset = fo_dataset(["/a.png", "/b.png"])
    labels = [[fo.Detection(label="x", bounding_box=[0, 0, 0.1, 0.1]) for _ in range(2)] for _ in range(2)]
    dataset.set_values("boxes", [fo.Detections(detections=two) for two in labels])
    make_run(dataset, [0, 1, 0, 1], key="obj", patches_field="boxes", quality=[2.0, 1.0, 1.0, 2.0])
    ids = dataset.values("boxes.detections.id")
    decide(dataset, "obj", "keep_best", groups=[0])

    with pytest.raises(ConfigError, match="objects have no files"):
        go(dataset, "obj", delete_files=True)
    go(dataset, "obj")

    assert dataset.values("boxes.detections.id") == [ids[0], ids[1][1:]]
    assert dataset.values("boxes.detections.obj_group") == [[None, 1], [1]]
