"""The duplicate operators: their forms in every state, and what they do in the App, from Python and delegated."""

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

PLUGIN = "@selfsame/curation"
URI = f"{PLUGIN}/find_duplicates"


def names(requests):
    return [request["operator_uri"].split("/")[-1] for request in requests]


# ----------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "name", ["find_duplicates", "show_duplicate_groups", "tag_duplicates", "find_exact_duplicates"]
)
def test_an_empty_dataset_is_refused_in_the_form(operator, request_of, fo_dataset, name, form, notices):
    properties = form(operator(name), request_of(fo_dataset()))
    assert properties["problem"]["invalid"]
    assert "no images" in notices(properties)


def test_without_a_dataset_the_form_says_so(operator, request_of, form, notices):
    properties = form(operator("undo_duplicate_tags"), request_of(None))
    assert "Open a dataset" in notices(properties)


def test_without_vectors_the_form_says_what_to_run_first(operator, request_of, dataset, form, notices):
    properties = form(operator("find_duplicates"), request_of(dataset))
    assert properties["problem"]["invalid"]
    assert "Compute FFA embeddings" in notices(properties)


def test_the_form_counts_vectors_and_suggests_a_threshold(operator, request_of, vector_dataset, form, notices):
    vector_dataset.first().clear_field("ffa")
    vector_dataset.set_values("ffa", {vector_dataset.first().id: None}, key_field="id")
    properties = form(operator("find_duplicates"), request_of(vector_dataset))
    assert "3 images with a vector will be compared; 1 without one are left out" in notices(properties)
    assert "Empty: 0.95" in properties["threshold"]["view"]["description"]
    assert "k" not in properties
    assert "source" not in properties


def test_mutual_neighbours_bring_in_their_number(operator, request_of, vector_dataset, form):
    properties = form(operator("find_duplicates"), request_of(vector_dataset, {"method": "mutual_knn"}))
    assert properties["k"]["default"] == 10


def test_objects_are_offered_where_some_have_vectors(operator, request_of, vector_dataset, form, notices):
    find = operator("find_duplicates")
    assert "patches_field" not in form(find, request_of(vector_dataset))
    boxes = [fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1], look=v)]) for v in np.eye(4)]
    vector_dataset.set_values("things", boxes)
    vector_dataset.add_sample_field("things.detections.look", fo.VectorField)

    images = form(find, request_of(vector_dataset))
    objects = form(find, request_of(vector_dataset, {"patches_field": "things"}))

    assert images["patches_field"]["type"]["values"] == ["auto", "things"]
    assert images["embeddings"]["type"]["values"] == ["ffa"]
    assert objects["embeddings"]["type"]["values"] == ["look"]
    assert "4 objects with a vector" in notices(objects)
    assert operator("find_duplicates").arguments(request_of(vector_dataset, {"patches_field": "auto"})) == {}


def test_what_is_new_can_be_added_to_the_last_search(operator, request_of, vector_dataset, form, run_in_app):
    find = operator("find_duplicates")
    find(vector_dataset[:3], threshold=0.95)

    offered = form(find, request_of(vector_dataset, {"source": "new"}))
    _, result = run_in_app(find, request_of(vector_dataset, {"source": "new"}))

    assert "method" not in offered
    assert "that of the last search" in offered["threshold"]["view"]["description"]
    assert result["details"]["compared"] == 1


def test_a_key_of_another_computation_is_refused(operator, request_of, vector_dataset, form):
    foo.get_operator(f"{PLUGIN}/find_exact_duplicates")(vector_dataset, "taken")
    properties = form(operator("find_duplicates"), request_of(vector_dataset, {"key": "taken"}))
    assert properties["key"]["invalid"]
    assert "taken" in properties["key"]["error_message"]


@pytest.mark.parametrize("bad", ["two words", "id", "1st"])
def test_a_key_that_cannot_be_a_field_name_is_refused(operator, request_of, vector_dataset, bad, form):
    properties = form(operator("find_duplicates"), request_of(vector_dataset, {"key": bad}))
    assert properties["key"]["invalid"]


def test_the_chooser_of_the_target_appears_with_a_view_and_a_selection(operator, request_of, vector_dataset, form):
    view = vector_dataset.limit(3)
    ctx = request_of(vector_dataset, view=view, selected=[vector_dataset.first().id])
    properties = form(operator("find_duplicates"), ctx)
    assert properties["view_target"]["type"]["values"] == ["DATASET", "CURRENT_VIEW", "SELECTED_SAMPLES"]


def test_counts_follow_the_chosen_target_also_while_a_prompt_is_open(
    operator, request_of, vector_dataset, form, notices
):
    def count(target):
        ctx = request_of(vector_dataset, {"view_target": target}, view=vector_dataset.limit(3), prompt_id="one prompt")
        return notices(form(operator("find_duplicates"), ctx))

    assert "3 images" in count("CURRENT_VIEW")
    assert "4 images" in count("DATASET")
    assert "3 images" in count("CURRENT_VIEW")


def test_counts_are_remembered_only_while_a_prompt_is_open(operator, request_of, vector_dataset, form, notices):
    find = operator("find_duplicates")
    assert "4 images" in notices(form(find, request_of(vector_dataset, prompt_id="a")))
    vector_dataset.delete_samples([vector_dataset.last().id])
    assert "4 images" in notices(form(find, request_of(vector_dataset, prompt_id="a")))
    assert "3 images" in notices(form(find, request_of(vector_dataset, prompt_id="b")))
    assert "3 images" in notices(form(find, request_of(vector_dataset)))


def test_kept_pairs_let_the_threshold_move_with_live_counts(operator, request_of, vector_dataset, form, notices):
    find = operator("find_duplicates")
    find(vector_dataset, threshold=0.95)
    offered = form(find, request_of(vector_dataset))
    assert offered["source"]["type"]["values"] == ["search", "new", "pairs"]
    moved = form(find, request_of(vector_dataset, {"source": "pairs", "threshold": 0.99}))
    assert "At 0.9900: 1 group with 1 duplicate" in notices(moved)
    assert "embeddings" in moved
    assert "method" not in moved


def test_a_threshold_below_the_kept_pairs_is_refused(operator, request_of, vector_dataset, form):
    find = operator("find_duplicates")
    find(vector_dataset, threshold=0.95)
    prop = form(find, request_of(vector_dataset, {"source": "pairs", "threshold": -0.9}))["threshold"]
    assert prop["type"]["min"] > -0.9


def test_show_and_tag_forms_offer_the_finished_searches_latest_first(
    operator, request_of, vector_dataset, form, notices
):
    foo.get_operator(f"{PLUGIN}/find_exact_duplicates")(vector_dataset)
    operator("find_duplicates")(vector_dataset, threshold=0.95)
    shown = form(operator("show_duplicate_groups"), request_of(vector_dataset))
    assert shown["key"]["type"]["values"] == ["dup", "exact"]
    assert shown["key"]["default"] == "dup"
    assert "At 0.9500: 1 group with 2 duplicates, the largest of 3 images" in notices(shown)
    exact = form(operator("show_duplicate_groups"), request_of(vector_dataset, {"key": "exact"}))
    assert "threshold" not in exact
    assert "1 group with 1 duplicate, the largest of 2 images" in notices(exact)
    tags = form(operator("tag_duplicates"), request_of(vector_dataset))
    assert "1 are the best of their group, 2 are duplicates of those, 1 are in no group" in notices(tags)
    assert "drop_duplicates" in tags["action"]["type"]["values"]


def test_undo_is_refused_until_there_are_tags_and_then_says_what_it_takes_back(
    operator, request_of, vector_dataset, form, notices
):
    undo = operator("undo_duplicate_tags")
    assert form(undo, request_of(vector_dataset))["problem"]["invalid"]
    operator("find_duplicates")(vector_dataset, threshold=0.95)
    operator("tag_duplicates")(vector_dataset)
    assert "marked 1 image to keep and 2 to drop" in notices(form(undo, request_of(vector_dataset)))


def test_patches_are_refused_with_advice(operator, request_of, vector_dataset, form, notices):
    sample = vector_dataset.first()
    sample["objects"] = fo.Detections(detections=[fo.Detection(label="a", bounding_box=[0, 0, 0.5, 0.5])])
    sample.save()
    patches = vector_dataset.to_patches("objects")
    properties = form(operator("find_duplicates"), request_of(vector_dataset, view=patches))
    assert properties["problem"]["invalid"]
    assert "patches" in notices(properties)


# ------------------------------------------------------------------------------------------------------- placement


def test_buttons_appear_where_they_have_something_to_work_on(operator, request_of, dataset, vector_dataset):
    find, show = operator("find_duplicates"), operator("show_duplicate_groups")
    assert find.resolve_placement(request_of(None)) is None
    assert show.resolve_placement(request_of(None)) is None
    ctx = request_of(vector_dataset)
    assert find.resolve_placement(ctx).to_json()["place"] == "samples-grid-secondary-actions"
    assert show.resolve_placement(ctx) is None
    find(vector_dataset, threshold=0.95)
    assert show.resolve_placement(request_of(vector_dataset)) is not None


# ------------------------------------------------------------------------------------------------------- execution


def test_the_app_sees_progress_the_reload_and_the_summary(operator, request_of, vector_dataset, run_in_app):
    find = operator("find_duplicates")
    requests, result = run_in_app(find, request_of(vector_dataset, {"threshold": 0.95}))
    assert names(requests)[-2:] == ["reload_dataset", "notify"]
    steps = [request["params"] for request in requests if request["operator_uri"].endswith("set_progress")]
    assert steps[-1]["progress"] == 1.0
    assert all(0 <= step["progress"] <= 1 for step in steps)
    assert result["counts"]["groups"] == 1
    assert result["summary"].startswith("4 total, 4 done")
    assert "0.9500" in result["form"]["notice_0"]["view"]["label"]
    delegated = find.resolve_type(request_of(vector_dataset, results=result), "outputs").to_json()
    assert delegated["type"]["properties"].keys() == result["form"].keys()


def test_an_error_is_shown_in_the_app_as_a_sentence(operator, request_of, vector_dataset, run_in_app):
    find = operator("find_duplicates")
    _, result = run_in_app(find, request_of(vector_dataset, {"embeddings": "nothing"}))
    shown = result["form"]["error"]["view"]
    assert shown["name"] == "Error"
    assert "no such field" in shown["description"]
    assert "Traceback" not in shown["description"]


def test_an_unforeseen_fault_is_shown_in_the_app_too(operator, request_of, vector_dataset, monkeypatch, run_in_app):
    from fiftyone_selfsame.fiftyone_plugin import duplicates

    def broken(*_, **__):
        yield from ()
        raise RuntimeError("the disk is on fire")

    monkeypatch.setattr(duplicates, "find_duplicates_steps", broken)
    _, result = run_in_app(operator("find_duplicates"), request_of(vector_dataset))
    assert "RuntimeError: the disk is on fire" in result["error"]
    assert "log" in result["error"]


def test_a_request_cannot_set_what_the_form_does_not_offer(operator, request_of, vector_dataset):
    given = operator("find_duplicates").arguments(
        request_of(vector_dataset, {"progress": print, "key": "x", "k": None})
    )
    assert given == {"key": "x"}


def test_options_of_the_collapsed_part_and_weights_reach_the_computation(
    operator, request_of, vector_dataset, run_in_app
):
    params = {"threshold": 0.95, "advanced": {"max_diameter": 0.5, "keeper": {"file_size": -1.0, "exposure": None}}}
    run_in_app(operator("find_duplicates"), request_of(vector_dataset, params))
    config = vector_dataset.get_run_info("dup").config.config
    assert config["max_diameter"] == 0.5
    assert config["keeper"]["file_size"] == -1.0
    assert config["keeper"]["exposure"] == 1.0


def test_moving_the_threshold_in_the_app_does_not_search_again(operator, request_of, vector_dataset, run_in_app):
    find = operator("find_duplicates")
    find(vector_dataset, threshold=0.95)
    vector_dataset.set_values("ffa", list(vector_dataset.values("ffa")))
    _, result = run_in_app(find, request_of(vector_dataset, {"source": "pairs", "threshold": 0.99, "method": "x"}))
    assert result["counts"]["duplicates"] == 1


def test_the_grid_shows_the_groups(operator, request_of, vector_dataset, run_in_app):
    operator("find_duplicates")(vector_dataset, threshold=0.95)
    requests, result = run_in_app(operator("show_duplicate_groups"), request_of(vector_dataset))
    assert names(requests)[-1] == "set_view"
    assert not result
    view = fo.DatasetView._build(vector_dataset, requests[-1]["params"]["view"])
    assert len(view) == 3
    assert view.first()["dup_role"] == "keeper"


def test_an_empty_grid_is_an_explanation_instead(operator, request_of, vector_dataset, run_in_app):
    operator("find_duplicates")(vector_dataset, threshold=0.95)
    requests, result = run_in_app(operator("show_duplicate_groups"), request_of(vector_dataset, {"min_size": 9}))
    assert "set_view" not in names(requests)
    assert "no such group" in result["error"]


def test_tags_and_their_undo_through_the_app(operator, request_of, vector_dataset, run_in_app):
    operator("find_duplicates")(vector_dataset, threshold=0.95)
    requests, _result = run_in_app(operator("tag_duplicates"), request_of(vector_dataset))
    # Not reload_samples: that leaves thumbnails in the grid as they are, without the new tags.
    assert {"reload_dataset", "notify"} <= set(names(requests))
    assert vector_dataset.count_sample_tags() == {"duplicate:keep": 1, "duplicate:drop": 2}
    run_in_app(operator("undo_duplicate_tags"), request_of(vector_dataset))
    assert vector_dataset.count_sample_tags() == {}


# ---------------------------------------------------------------------------------------------------------- Python


def test_calling_an_operator_runs_the_plain_function_on_the_view(operator, vector_dataset):
    summary = operator("find_duplicates")(vector_dataset.limit(2), key="few", threshold=0.9)
    assert summary.counts["total"] == 2
    assert summary.key == "few"
    view = operator("show_duplicate_groups")(vector_dataset, "few")
    assert len(view) == 2


def test_execute_operator_returns_the_facts_and_raises_the_message(vector_dataset):
    done = foo.execute_operator(URI, dataset=vector_dataset, params={"threshold": 0.95})
    assert done.result["counts"]["groups"] == 1
    vector_dataset.set_values("ffa", {vector_dataset.last().id: np.ones(5, np.float32)}, key_field="id")
    with pytest.raises(ExecutionError, match="different models"):
        foo.execute_operator(URI, dataset=vector_dataset)


@pytest.mark.parametrize(
    ("params", "reason"),
    [({"key": "two words"}, "cannot be a field name"), ({"threshold": 3}, "less than"), ({"method": "x"}, "method")],
)
def test_a_bad_value_stops_the_execution_with_the_reason_of_the_form(vector_dataset, params, reason):
    with pytest.raises(ExecutionError, match=reason):
        foo.execute_operator(URI, dataset=vector_dataset, params=params)


def test_options_without_a_form_field_cannot_be_delegated(operator, vector_dataset):
    with pytest.raises(ValueError, match="progress cannot be passed on"):
        operator("find_duplicates")(vector_dataset, delegate=True, progress=True)


def test_a_delegated_operation_does_the_work_and_keeps_progress_and_result(operator, vector_dataset):
    from fiftyone.operators.delegated import DelegatedOperationService

    service = DelegatedOperationService()
    view = vector_dataset.limit(3)
    queued = operator("find_duplicates")(view, delegate=True, key="later", threshold=0.9, keeper={"exposure": 2.0})
    assert queued.delegated
    assert not vector_dataset.has_run("later")
    service.execute_queued_operations(operator=URI, limit=1)
    done = service.get(queued.result["id"])
    assert done.run_state == "completed"
    assert done.status.progress == 1.0
    counts = {"total": 3, "done": 3, "skipped": 0, "failed": 0, "groups": 1, "duplicates": 2, "largest": 3}
    assert done.result.result["counts"] == counts
    assert vector_dataset.get_run_info("later").config.config["keeper"]["exposure"] == 2.0
    assert vector_dataset.count("later_role") == 3


def test_a_delegated_operation_that_cannot_work_fails_with_the_message(operator, vector_dataset):
    from fiftyone.operators.delegated import DelegatedOperationService

    service = DelegatedOperationService()
    queued = operator("find_duplicates")(vector_dataset, delegate=True, threshold=0.9)
    vector_dataset.delete_sample_field("ffa")
    service.execute_queued_operations(operator=URI, limit=1)
    failed = service.get(queued.result["id"])
    assert failed.run_state == "failed"
    assert "embeddings" in str(failed.result.error)
