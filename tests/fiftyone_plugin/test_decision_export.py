"""Decisions as tables, and what is left without the dropped as a view, a dataset and files."""

import csv
import json
from datetime import timedelta
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin import decisions
from fiftyone_selfsame.fiftyone_plugin.decision_export import COLUMNS, export_decisions
from fiftyone_selfsame.fiftyone_plugin.decisions import decide, decision_log
from fiftyone_selfsame.fixtures.reviewed_runs import make_run
from PIL import Image


@pytest.fixture
def dataset(fo_dataset, tmp_path):
    """Group 0: samples 0, 1 (keeper), 2; group 1: samples 3 (keeper), 4; sample 5 alone. Group 0 is decided on."""
    paths = []
    for number in range(6):
        paths.append(tmp_path / f"picture{number}.png")
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(paths[-1])
    dataset = fo_dataset(paths)
    make_run(dataset, [0, 0, 0, 1, 1, None], quality=[1.0, 3.0, 2.0, 2.0, 1.0, 0.0])
    decide(dataset, "dup", "keep_best", groups=[0])
    return dataset


@pytest.fixture
def objects(fo_dataset):
    """Two images with two boxes each; the first boxes are one group, of which the second image's is dropped."""
    dataset = fo_dataset(["/a.png", "/b.png"])
    labels = [[fo.Detection(label="x", bounding_box=[0, 0, 0.1, 0.1]) for _ in range(2)] for _ in range(2)]
    dataset.set_values("boxes", [fo.Detections(detections=two) for two in labels])
    make_run(dataset, [0, None, 0, None], key="obj", patches_field="boxes", quality=[2.0, 0.0, 1.0, 0.0])
    decide(dataset, "obj", "keep_best", groups=[0])
    return dataset


def test_the_csv_has_a_row_for_every_member_decided_or_not(dataset, tmp_path):
    ids, files = dataset.values("id"), dataset.values("filepath")

    summary = export_decisions(dataset, path=tmp_path / "out.csv", progress=False)

    with open(tmp_path / "out.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert summary.counts == {"members": 5, "decided": 3}
    assert tuple(rows[0]) == COLUMNS
    assert [row["group"] for row in rows] == ["0", "0", "0", "1", "1"]
    assert (rows[0]["id"], rows[0]["role"], rows[0]["decision"]) == (ids[1], "keeper", "keep")
    assert {row["keeper_file"] for row in rows[:3]} == {files[1]}
    assert [row["decision"] for row in rows[1:]] == ["drop", "drop", "", ""]
    assert [row["tags"] for row in rows[1:]] == ["duplicate:drop", "duplicate:drop", "", ""]
    assert rows[0]["decided_at"].endswith("Z")
    assert rows[4]["decided_at"] == ""


def test_the_json_says_which_run_it_is_of_and_goes_to_a_place_of_the_dataset(dataset):
    summary = export_decisions(dataset, to="json", progress=False)

    found = json.loads(Path(summary.details["path"]).read_text())
    assert (found["dataset"], found["key"], len(found["members"])) == (dataset.name, "dup", 5)


def test_the_view_leaves_out_the_dropped_and_follows_the_decisions(dataset):
    summary = export_decisions(dataset, to="view", name="cleaned", progress=False)

    assert summary.counts == {"kept": 4, "total": 6}
    decide(dataset, "dup", "keep_best", groups=[1])
    assert len(dataset.load_saved_view("cleaned")) == 3
    with pytest.raises(ConfigError, match="overwrite=True"):
        export_decisions(dataset, to="view", name="cleaned", progress=False)


def test_the_clone_is_a_dataset_of_its_own(dataset):
    name = f"{dataset.name}-cleaned"

    export_decisions(dataset, to="dataset", name=name, progress=False)

    clone = fo.load_dataset(name)
    try:
        assert len(clone) == 4
        assert len(dataset) == 6
        with pytest.raises(ConfigError, match="already"):
            export_decisions(dataset, to="dataset", name=name, progress=False)
        with pytest.raises(ConfigError, match="itself"):
            export_decisions(dataset, to="dataset", name=dataset.name, overwrite=True, progress=False)
    finally:
        clone.delete()


def test_only_an_earlier_export_is_replaced_by_a_clone(dataset, fo_dataset):
    name, other = f"{dataset.name}-cleaned", fo_dataset(["/other.png"])
    export_decisions(dataset, to="dataset", name=name, progress=False)
    decide(dataset, "dup", "keep_best", groups=[1])

    export_decisions(dataset, to="dataset", name=name, overwrite=True, progress=False)
    with pytest.raises(ConfigError, match="no earlier export"):
        export_decisions(dataset, to="dataset", name=other.name, overwrite=True, progress=False)

    clone = fo.load_dataset(name)
    assert len(clone) == 3
    assert other.values("filepath") == ["/other.png"]
    clone.delete()


def test_a_name_is_no_decision_on_what_to_keep(dataset, tmp_path, monkeypatch):
    moment = decision_log(dataset, "dup")[0].time
    monkeypatch.setattr(decisions, "now", lambda: moment + timedelta(hours=1))
    decide(dataset, "dup", "name", groups=[0], name="mug")

    export_decisions(dataset, path=tmp_path / "named.csv", progress=False)

    with open(tmp_path / "named.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows[0]["name"] == "mug"
    assert rows[0]["decided_at"] == moment.isoformat(timespec="seconds") + "Z"


def test_a_keeper_outside_of_the_view_is_named_with_its_file(dataset, tmp_path):
    export_decisions(dataset[:1], path=tmp_path / "one.csv", progress=False)

    with open(tmp_path / "one.csv", newline="") as stream:
        assert [row["keeper_file"] for row in csv.DictReader(stream)] == [dataset.values("filepath")[1]]


def test_files_go_out_in_a_format_of_fiftyones(dataset, tmp_path):
    folder = tmp_path / "kept"

    export_decisions(dataset, to="export", path=folder, dataset_type="ImageDirectory", progress=False)

    assert len(list(folder.iterdir())) == 4
    with pytest.raises(ConfigError, match="not empty"):
        export_decisions(dataset, to="export", path=folder, dataset_type="ImageDirectory", progress=False)
    with pytest.raises(ConfigError, match=r"none of fiftyone\.types"):
        export_decisions(dataset, to="export", path=tmp_path / "other", dataset_type="Nonsense", progress=False)


def test_of_objects_the_dropped_labels_are_left_out_and_their_images_stay(objects, tmp_path):
    export_decisions(objects, "obj", to="view", progress=False)
    export_decisions(objects, "obj", path=tmp_path / "objects.csv", progress=False)

    view = objects.load_saved_view("obj_kept")
    assert [len(sample.boxes.detections) for sample in view] == [2, 1]
    with open(tmp_path / "objects.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    labels = objects.values("boxes.detections.id")
    assert [row["id"] for row in rows] == [labels[0][0], labels[1][0]]
    assert [row["file"] for row in rows] == ["/a.png", "/b.png"]


def test_clusters_are_exported_with_their_names(fo_dataset, tmp_path):
    dataset = fo_dataset(["/a.png", "/b.png", "/c.png"])
    make_run(dataset, [0, 0, None], key="objects", method="cluster_objects", confidence=[0.9, 0.8, 0.0])
    decide(dataset, "objects", "name", groups=[0], name="mug")

    export_decisions(dataset, "objects", path=tmp_path / "clusters.csv", progress=False)

    with open(tmp_path / "clusters.csv", newline="") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["mug", "mug"]


def test_what_is_there_already_or_unknown_is_refused(dataset, tmp_path):
    (tmp_path / "out.csv").write_text("mine")

    with pytest.raises(ConfigError, match="there already"):
        export_decisions(dataset, path=tmp_path / "out.csv", progress=False)
    with pytest.raises(ConfigError, match="csv, json, view, dataset, export"):
        export_decisions(dataset, to="xls", progress=False)
    with pytest.raises(ConfigError, match="no groups under key 'none'"):
        export_decisions(dataset, "none", progress=False)
    assert (tmp_path / "out.csv").read_text() == "mine"
