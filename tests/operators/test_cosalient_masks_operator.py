"""The operator that masks common objects: which groups its form offers, which names it refuses, runs on groups."""

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

URI = "@selfsame/curation/compute_cosalient_masks"

OPTIONS = {"model": "embedded-hybrid", "advanced": {"device": "cpu", "refine": False}}


@pytest.fixture
def grouped(vector_dataset, operator, tmp_path, monkeypatch):
    """Four pictures, the first two of which are equal and form a group of the run "exact"."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    operator("find_exact_duplicates")(vector_dataset)
    return vector_dataset


def test_the_form_offers_the_groups_of_runs_on_images_the_latest_first(operator, request_of, grouped, form):
    operator("find_duplicates")(grouped, threshold=0.95)
    things = [fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1], look=v)]) for v in np.eye(4)]
    grouped.set_values("things", things)
    grouped.add_sample_field("things.detections.look", fo.VectorField)
    operator("find_duplicates")(grouped, "parts", embeddings="look", patches_field="things", threshold=0.95)

    properties = form(operator("compute_cosalient_masks"), request_of(grouped))

    assert properties["key"]["type"]["values"] == ["dup", "exact", "auto"]
    assert properties["key"]["default"] == "dup"
    assert not properties["field"]["invalid"]
    assert "threshold" not in properties["advanced"]["type"]["properties"]


def test_a_field_of_another_computation_is_refused_in_the_form_and_by_the_executor(operator, request_of, grouped, form):
    operator("compute_foreground")(grouped, "grabcut", field="mine")
    for name, reason in (("mine", "taken by a run of compute_foreground"), ("two words", "cannot be a field name")):
        prop = form(operator("compute_cosalient_masks"), request_of(grouped, {"field": name}))["field"]
        assert prop["invalid"]
        assert reason in prop["error_message"]
        with pytest.raises(ExecutionError, match=reason):
            foo.execute_operator(URI, dataset=grouped, params={"field": name})


def test_groups_of_a_run_are_masked_through_the_executor_and_in_the_app(operator, request_of, grouped, run_in_app):
    result = foo.execute_operator(URI, dataset=grouped, params={"key": "exact", **OPTIONS}).result
    assert (result["counts"]["sets"], result["counts"]["done"]) == (1, 2)
    assert [sample["cosalient"] is None for sample in grouped] == [False, False, True, True]

    requests, again = run_in_app(operator("compute_cosalient_masks"), request_of(grouped, {"key": "exact", **OPTIONS}))

    assert again["counts"]["skipped"] == 2
    names = [request["operator_uri"].split("/")[-1] for request in requests[-3:]]
    assert names == ["reload_dataset", "set_active_fields", "notify"]


def test_all_images_of_the_target_can_be_one_set(operator, request_of, grouped, run_in_app):
    params = {"key": "auto", **OPTIONS}
    _, result = run_in_app(operator("compute_cosalient_masks"), request_of(grouped, params, view=grouped.limit(3)))
    assert (result["counts"]["sets"], result["counts"]["total"]) == (1, 3)
