"""The Python side of the panels: what their events answer, and what they make the App do."""

import numpy as np
import pytest
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates
from fiftyone_selfsame.fiftyone_plugin.leaks import find_leaks
from fiftyone_selfsame.fiftyone_plugin.object_clusters import cluster_objects
from fiftyone_selfsame.fiftyone_plugin.panels import PANELS, DuplicatesPanel, ObjectsPanel
from fiftyone_selfsame.fiftyone_plugin.panels.cluster_map import compute_map

NO_SHARPNESS = {"sharpness": 0, "exposure": 0, "file_size": 0}


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians), np.zeros(len(degrees))], axis=1)


@pytest.fixture
def grouped(vector_dataset):
    """Group 0 of three pictures, the last one the largest; group 1 of two; and a loner."""
    dataset = vector_dataset(angles(0, 1, 3, 90, 92, 200), sizes=[16, 16, 64, 32, 16, 16])
    find_duplicates(dataset, threshold=0.99, keeper=NO_SHARPNESS, progress=False)
    return dataset


@pytest.fixture
def clustered(vector_dataset):
    """Cluster 0 of three pictures, cluster 1 of two, and a loner."""
    dataset = vector_dataset(angles(0, 4, 8, 120, 124, 240))
    cluster_objects(dataset, "objects", similarity="cosine", threshold=0.9, progress=False)
    return dataset


def test_the_view_is_told_where_to_send_every_event():
    for panel in (cls() for cls in PANELS):
        view = panel.render(None).to_json()["view"]

        assert view["component"] == panel.component
        assert {name: view[name] for name in panel.events} == {n: f"{panel.uri}#{n}" for n in panel.events}


def test_the_view_in_javascript_calls_only_events_that_the_panels_answer():
    import re
    from pathlib import Path

    import fiftyone_selfsame

    scripts = (Path(fiftyone_selfsame.__file__).with_name("fiftyone_plugin") / "js").glob("*.js")
    called = {name for script in scripts for name in re.findall(r'(?:call|drawMap)\("(\w+)"', script.read_text())}

    assert called == {event for panel in PANELS for event in panel.events}


def test_without_a_run_the_panel_offers_the_next_step(ask, vector_dataset, photos, fo_dataset):
    assert ask(DuplicatesPanel(), "overview", vector_dataset(angles(0, 1)))["start"]["operator"] == "find_duplicates"
    assert ask(ObjectsPanel(), "overview", vector_dataset(angles(0, 1)))["start"]["operator"] == "cluster_objects"
    assert ask(DuplicatesPanel(), "overview", fo_dataset(photos(1)))["start"]["operator"] == "compute_ffa"


def test_the_overview_has_the_run_its_histogram_and_its_groups(ask, grouped):
    answer = ask(DuplicatesPanel(), "overview", grouped, key="no such key")

    assert answer["key"] == "dup"
    assert answer["run"]["threshold"] == 0.99
    assert sum(answer["run"]["histogram"]["counts"]) == 6
    assert [(row["group"], row["size"], len(row["members"])) for row in answer["page"]["groups"]] == [
        (0, 3, 3),
        (1, 2, 2),
    ]
    assert answer["progress"] == {"groups": 2, "decided": 0, "keep": 0, "drop": 0, "reject": 0, "undoable": 0}


def test_groups_are_sorted_filtered_and_paged(ask, vector_dataset, monkeypatch):
    from fiftyone_selfsame.fiftyone_plugin.panels import group_pages

    monkeypatch.setattr(group_pages, "PAGE_SIZE", 2)
    dataset = vector_dataset(angles(0, 1, 2, 60, 66, 120, 123, 200))
    find_duplicates(dataset, threshold=0.99, progress=False)
    panel = DuplicatesPanel()

    def listed(**options):
        page = ask(panel, "list_groups", dataset, key="dup", **options)["page"]
        return [row["group"] for row in page["groups"]], page["total"], page["page"], page["pages"]

    assert listed(sort="size") == ([0, 1], 3, 0, 2)
    assert listed(sort="size", page=9) == ([2], 3, 1, 2)
    order, *_ = listed(sort="similarity")
    similarity = dict(zip(dataset.values("dup_group"), dataset.values("dup_similarity"), strict=True))
    assert similarity.keys() >= set(order)
    assert order[0] == min((0, 1, 2), key=lambda g: min(s for n, s in pairs_of(dataset) if n == g))
    ask(panel, "decide", dataset, key="dup", action="keep_best", groups=[0])
    assert listed(sort="size", undecided=True) == ([1, 2], 2, 0, 1)
    assert listed(sort="size", kind="no such kind") == ([], 0, 0, 1)


def pairs_of(dataset):
    return zip(*dataset.match({"dup_group": {"$gte": 0}}).values(["dup_group", "dup_similarity"]), strict=True)


def test_opening_a_group_lists_its_members_keeper_first_and_the_grid_follows_on_request(ask, grouped):
    panel = DuplicatesPanel()

    answer = ask(panel, "open_group", grouped, key="dup", group=0)

    ids = grouped.values("id")
    assert [member["id"] for member in answer["members"]] == [ids[2], ids[1], ids[0]]
    assert [member["role"] for member in answer["members"]] == ["keeper", "duplicate", "duplicate"]
    assert ask.requests == {}
    ask(panel, "open_group", grouped, key="dup", group=0, follow=True)
    assert "set_view" in ask.requests
    stages = ask.requests["set_view"]["view"]
    assert stages[0]["_cls"].endswith("Match")
    assert ids[0] not in str(stages), "the view must not be a list of ids"


def test_a_preview_counts_the_groups_of_another_threshold(ask, grouped):
    # 1 degree apart: 0.99985; 2 degrees: 0.99939; 3 degrees: 0.99863.
    answer = ask(DuplicatesPanel(), "preview", grouped, key="dup", threshold=0.9997)

    assert (answer["groups"], answer["duplicates"], answer["largest"]) == (1, 1, 2)
    assert grouped.count("dup_group") == 5
    assert "must be a number" in ask(DuplicatesPanel(), "preview", grouped, key="dup", threshold="x")["error"]


def test_decisions_are_undone_in_reverse_to_any_depth(ask, grouped):
    panel = DuplicatesPanel()
    kept = ask(panel, "decide", grouped, key="dup", action="keep_best", groups=[0])
    ids = grouped.values("id")
    ask(panel, "decide", grouped, key="dup", action="keep_chosen", groups=[1], members=[ids[4]])

    assert [member["decision"] for member in kept["opened"]["members"]] == ["keep", "drop", "drop"]
    assert kept["progress"]["decided"] == 1
    assert grouped.values("dup_decision") == ["drop", "drop", "keep", "drop", "keep", None]
    first, second = (ask(panel, "undo", grouped, key="dup") for _ in range(2))
    assert (first["groups"], second["groups"]) == ([1], [0])
    assert second["progress"]["undoable"] == 0
    assert grouped.count_sample_tags() == {}
    assert ask(panel, "undo", grouped, key="dup") == {"error": "There is no decision to undo."}


def test_a_split_opens_the_group_that_came_of_it(ask, grouped):
    ids = grouped.values("id")

    answer = ask(
        DuplicatesPanel(), "decide", grouped, key="dup", action="split", groups=[0], members=ids[:2], follow=True
    )

    assert {member["id"] for member in answer["opened"]["members"]} <= set(ids[:3])
    assert answer["opened"]["members"]
    assert "set_view" in ask.requests


def test_groups_of_objects_come_with_their_boxes_and_the_grid_shows_patches(ask, block_dataset):
    dataset = block_dataset(4)
    dataset.set_values("truth.detections.vec", [[vector] for vector in angles(0, 1, 90, 180)], dynamic=True)
    find_duplicates(dataset, "boxes", embeddings="vec", patches_field="truth", threshold=0.99, progress=False)
    panel = DuplicatesPanel()

    run = ask(panel, "overview", dataset)["run"]
    members = ask(panel, "open_group", dataset, key="boxes", group=0, follow=True)["members"]

    assert (run["level"], run["patches_field"]) == ("objects", "truth")
    labels = {label.id: label.bounding_box for label in dataset.values("truth.detections", unwind=True)}
    assert {member["id"]: list(member["box"]) for member in members} == dict(list(labels.items())[:2])
    assert any(stage["_cls"].endswith("ToPatches") for stage in ask.requests["set_view"]["view"])


def test_what_cannot_be_done_is_said_and_does_not_take_the_panel_down(ask, grouped):
    panel = DuplicatesPanel()

    assert "'gone'" in ask(panel, "open_group", grouped, key="gone", group=0)["error"]
    assert "whole number" in ask(panel, "open_group", grouped, key="dup", group="x")["error"]
    assert "unknown" in ask(panel, "decide", grouped, key="dup", action="burn", groups=[0])["error"]
    assert "does not open" in ask(panel, "prompt", grouped, key="dup", operator="delete_everything")["error"]


def test_a_button_opens_the_form_of_its_operator_filled_in_for_the_whole_dataset(ask, grouped):
    form = {"key": "dup", "source": "pairs", "threshold": 0.995}

    ask(DuplicatesPanel(), "prompt", grouped, operator="find_duplicates", form=form)

    request = ask.requests["prompt_user_for_operation"]
    assert request["operator_uri"] == "@selfsame/curation/find_duplicates"
    assert request["params"] == {**form, "view_target": "DATASET"}
    assert request["on_success"].endswith("#prompted")


def test_leaks_are_shown_in_pairs_below_the_table_of_splits(ask, grouped):
    panel = DuplicatesPanel()
    assert ask(panel, "leaks", grouped)["report"] is None
    grouped.set_values("split", ["train", "test", "train", "train", "train", "test"])
    find_leaks(grouped, duplicates="dup", progress=False)

    answer = ask(panel, "leaks", grouped)

    assert answer["report"]["splits"] == ["test", "train"]
    assert answer["report"]["table"] == [[0, 2], [0, 0]]
    assert [{side["split"] for side in pair} for pair in answer["pairs"]] == [{"test", "train"}] * 2
    ids = grouped.values("id")
    assert {side["id"] for pair in answer["pairs"] for side in pair} == set(ids[:3])


def test_clusters_with_likely_mistakes_come_first_and_carry_their_names(ask, clustered):
    panel = ObjectsPanel()
    ask(panel, "decide", clustered, key="objects", action="name", groups=[1], name="the <b>mug</b>")

    answer = ask(panel, "overview", clustered)

    rows = answer["page"]["groups"]
    assert {row["group"]: row["name"] for row in rows} == {0: None, 1: "the <b>mug</b>"}
    assert [row["risk"] for row in rows] == sorted((row["risk"] for row in rows), reverse=True)
    assert ask(panel, "open_group", clustered, key="objects", group=1)["name"] == "the <b>mug</b>"
    assert "Type a name" in ask(panel, "decide", clustered, key="objects", action="name", groups=[0], name=" ")["error"]


def test_the_map_has_a_point_per_image_in_its_present_cluster(ask, clustered):
    panel = ObjectsPanel()

    before = ask(panel, "map", clustered, key="objects")
    ids = clustered.values("id")
    ask(panel, "decide", clustered, key="objects", action="merge", groups=[0, 1])
    after = ask(panel, "map", clustered, key="objects")

    assert before["samples"] == ids
    assert before["cluster"] == [0, 0, 0, 1, 1, -1]
    assert (len(before["x"]), len(before["y"])) == (6, 6)
    assert (after["x"], len(set(after["cluster"][:5]))) == (before["x"], 1)
    # Neighbours on the map are neighbours in the space of the vectors, which is a plane here.
    points = np.stack([before["x"], before["y"]], axis=1)
    assert np.linalg.norm(points[0] - points[1]) < np.linalg.norm(points[0] - points[3])


def test_the_map_of_a_visualization_run_is_preferred(ask, clustered):
    import fiftyone.brain as fob

    points = np.arange(12, dtype=float).reshape(6, 2)
    fob.compute_visualization(clustered, embeddings="ffa", points=points, brain_key="mine", progress=False)

    answer = ask(ObjectsPanel(), "map", clustered, key="objects")

    assert answer["x"] == [0, 2, 4, 6, 8, 10]
    assert "mine" in answer["text"]
    assert not answer["can_compute"]


def test_too_few_vectors_for_a_map_are_refused(clustered):
    from fiftyone_selfsame.brain.errors import ConfigError
    from fiftyone_selfsame.fiftyone_plugin.runs import load_record

    with pytest.raises(ConfigError, match="6 vectors are too few"):
        compute_map(clustered, load_record(clustered, "objects"))
