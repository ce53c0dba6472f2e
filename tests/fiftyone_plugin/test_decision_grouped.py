"""Decisions on the pictures of a grouped dataset: exported with all slices, and applied to the dropped ones alone."""

import csv

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin.decision_apply import apply_decisions
from fiftyone_selfsame.fiftyone_plugin.decision_export import export_decisions
from fiftyone_selfsame.fiftyone_plugin.decisions import decide
from fiftyone_selfsame.fiftyone_plugin.runs import RunSummary, register_run

# All but the right picture of the first group.
KEPT = ["/left0.png", "/left1.png", "/right1.png", "/scan0.pcd", "/scan1.pcd"]


@pytest.fixture
def dataset(fo_dataset):
    """Two groups of a left and a right picture and a scan; the first group's right picture is dropped for its left."""
    dataset = fo_dataset()
    dataset.add_group_field("group", default="left")
    samples = []
    for number in range(2):
        group = fo.Group()
        for slice_name, suffix in (("left", "png"), ("right", "png"), ("scan", "pcd")):
            file = f"/{slice_name}{number}.{suffix}"
            samples.append(fo.Sample(filepath=file, group=group.element(slice_name)))
    dataset.add_samples(samples, progress=False)
    pictures = dataset.select_group_slices(media_type="image")
    for name, kind in {"group": fo.IntField, "size": fo.IntField, "role": fo.StringField, "of": fo.StringField}.items():
        dataset.add_sample_field(f"dup_{name}", kind)
    by_file = dict(zip(*pictures.values(["filepath", "id"]), strict=True))
    pair = [by_file["/left0.png"], by_file["/right0.png"]]
    pictures.set_values("dup_group", dict.fromkeys(pair, 0), key_field="id")
    pictures.set_values("dup_size", dict.fromkeys(pair, 2), key_field="id")
    pictures.set_values("dup_role", dict(zip(pair, ("keeper", "duplicate"), strict=True)), key_field="id")
    pictures.set_values("dup_of", {pair[1]: pair[0]}, key_field="id")
    register_run(dataset, RunSummary("dup", "find_duplicates"), {"patches_field": None, "keep": 1})
    decide(dataset, "dup", "keep_best", groups=[0])
    return dataset


def files_of(dataset):
    return sorted(dataset.select_group_slices(_allow_mixed=True).values("filepath"))


def test_the_table_names_pictures_of_every_slice(dataset, tmp_path):
    export_decisions(dataset, path=tmp_path / "grouped.csv", progress=False)

    with open(tmp_path / "grouped.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["file"], row["keeper_file"], row["decision"]) for row in rows] == [
        ("/left0.png", "/left0.png", "keep"),
        ("/right0.png", "/left0.png", "drop"),
    ]


def test_the_clone_has_all_slices_but_the_dropped(dataset):
    name = f"{dataset.name}-cleaned"

    export_decisions(dataset, to="dataset", name=name, progress=False)

    clone = fo.load_dataset(name)
    found = clone.media_type, files_of(clone)
    clone.delete()
    assert found == ("group", KEPT)
    assert len(files_of(dataset)) == 6


def test_the_saved_view_says_that_it_holds_pictures_only(dataset):
    summary = export_decisions(dataset, to="view", progress=False)

    assert "only the image slices" in str(summary)
    assert sorted(dataset.load_saved_view("dup_kept").values("filepath")) == KEPT[:3]


def test_only_the_dropped_pictures_are_deleted(dataset):
    assert apply_decisions(dataset, progress=False).details["examples"] == ["/right0.png"]

    apply_decisions(dataset, dry_run=False, confirm=dataset.name, progress=False)

    assert files_of(dataset) == KEPT
