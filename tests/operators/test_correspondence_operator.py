"""The search for correspondences in the App: its form in every state, and a run through the executor."""

import inspect

from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.correspondence_forms import ALIGNMENT_CHOICES, DECODING_CHOICES
from fiftyone_selfsame.fiftyone_plugin.correspondence_setup import ALIGNMENTS, CORRESPONDENCE_DECODINGS
from fiftyone_selfsame.operators.compute_correspondences import ComputeCorrespondences


def test_the_operator_offers_what_the_function_takes():
    taken = inspect.signature(compute_correspondences).parameters
    assert set(ComputeCorrespondences.options) == set(taken) - {"samples", "progress"}
    assert {value for value, *_ in DECODING_CHOICES} == set(CORRESPONDENCE_DECODINGS)
    assert {value for value, *_ in ALIGNMENT_CHOICES} == set(ALIGNMENTS)


def test_the_form_asks_for_what_matters_now(request_of, form, notices, mirrored):
    dataset, pairs = mirrored
    operator = ComputeCorrespondences()
    assert "holds no pairs" in str(form(operator, request_of(dataset))["problem"])
    plain = form(operator, request_of(pairs))
    assert "problem" not in plain
    assert plain["keypoints"]["default"] == "points"
    assert "couples" in plain
    assert not {"count", "visibility"} & set(plain)
    free = form(operator, request_of(pairs, {"keypoints": "auto", "alignment": "mirror"}))
    assert {"count", "visibility"} <= set(free)
    assert "couples" not in free
    wrong = form(operator, request_of(pairs, {"couples": "left eye, right eye"}))
    assert wrong["couples"]["invalid"]
    assert form(operator, request_of(pairs, {"model": "/etc"}))["model"]["invalid"]


def test_a_run_from_the_app_shows_what_it_found(request_of, run_in_app, form, mirrored):
    _, pairs = mirrored
    options = {
        "keypoints": "points",
        "model": "embedded-hybrid",
        "alignment": "mirror",
        "label_free": False,
        "couples": "left eye = right eye",
        "advanced": {"size": 96, "device": "cpu"},
    }
    requests, shown = run_in_app(ComputeCorrespondences(), request_of(pairs, options))
    assert shown["counts"] == {"total": 1, "done": 1, "skipped": 0, "failed": 0, "matches": 3}
    assert shown["details"]["errors"] == {"correct": 3}
    active = next(one["params"] for one in requests if one["operator_uri"].endswith("set_active_fields"))
    assert "correspondence" in str(active)
    assert pairs.select_group_slices().count("correspondence.keypoints") == 6
    # What was written is not offered as keypoints to look for.
    values = form(ComputeCorrespondences(), request_of(pairs))["keypoints"]["type"]["values"]
    assert values == ["points", "auto"]


def test_a_fault_is_told_in_plain_words(request_of, run_in_app, mirrored):
    _, pairs = mirrored
    params = {"keypoints": "points", "couples": "left eye = tail", "model": "embedded-hybrid"}
    _, shown = run_in_app(ComputeCorrespondences(), request_of(pairs, params))
    assert shown["error"].startswith("couple: no keypoint is called 'tail'")
