"""Evaluation and symmetry errors in the App: their forms in every state, and runs through the executor."""

import base64
import inspect
from pathlib import Path

import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.evaluation_forms import parse_alphas
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fiftyone_plugin.symmetry_errors import find_symmetry_errors
from fiftyone_selfsame.operators.evaluate_correspondences import EvaluateCorrespondences
from fiftyone_selfsame.operators.find_symmetry_errors import FindSymmetryErrors

PCK = "PCK@0.1 per image, image threshold"


def compute(pairs, key="corr", keypoints="points"):
    options = {"model": "embedded-hybrid", "size": 96, "device": "cpu", "progress": False}
    return compute_correspondences(pairs, key, keypoints=keypoints, **options)


def test_the_operators_offer_what_the_functions_take():
    for operator, function, python_only in (
        (EvaluateCorrespondences, evaluate_correspondences, {"path"}),
        (FindSymmetryErrors, find_symmetry_errors, set()),
    ):
        taken = set(inspect.signature(function).parameters)
        assert set(operator.options) == taken - {"samples", "progress"} - python_only


@pytest.mark.parametrize("operator", [EvaluateCorrespondences(), FindSymmetryErrors()])
def test_forms_say_what_is_missing(request_of, form, mirrored, operator):
    dataset, pairs = mirrored
    assert "holds no pairs" in str(form(operator, request_of(dataset))["problem"])
    assert "Compute correspondences" in str(form(operator, request_of(pairs))["problem"])


def test_the_form_of_an_evaluation_asks_for_what_matters_now(request_of, form, mirrored):
    _, pairs = mirrored
    compute(pairs, "free", keypoints=None)
    operator = EvaluateCorrespondences()
    assert "No run looked for keypoints" in str(form(operator, request_of(pairs))["problem"])
    with pytest.raises(ConfigError, match="the run 'free' found matches without keypoints"):
        evaluate_correspondences(pairs, "free", progress=False)
    compute(pairs)
    shown = form(operator, request_of(pairs))
    assert shown["key"]["type"]["values"] == ["corr"]
    assert shown["alphas"]["default"] == "0.1"
    assert shown["category"]["type"]["values"] == ["auto", "species", "viewpoint"]
    assert shown["azimuth"]["type"]["values"] == ["auto", "viewpoint"]
    # The run knew no objects.
    assert "threshold" not in shown
    assert form(operator, request_of(pairs, {"alphas": "0.1; 0.2"}))["alphas"]["invalid"]


def test_an_evaluation_from_the_app_tells_its_flavours_and_hands_out_the_report(request_of, run_in_app, mirrored):
    _, pairs = mirrored
    compute(pairs)
    params = {"alphas": "0.1, 0.05", "category": "species", "azimuth": "viewpoint", "download": True, "path": "/etc/x"}
    requests, shown = run_in_app(EvaluateCorrespondences(), request_of(pairs, params))
    assert shown["counts"]["done"] == 1
    assert any(notice.startswith(f"{PCK}: ") for notice in shown["notices"])
    assert not Path("/etc/x.csv").exists()
    rows = shown["details"]["pck"]
    assert {row["category"] for row in rows} == {None, "tabby"}
    assert {row["azimuth_difference"] for row in rows} == {None, 4}
    sent = [one["params"] for one in requests if one["operator_uri"].endswith("browser_download")]
    assert [one["filename"] for one in sent] == ["corr_eval.csv", "corr_eval.md"]
    table = base64.b64decode(sent[0]["url"].split(",")[1]).decode()
    assert f'"{PCK}"' in table


def test_symmetry_errors_from_the_app_show_the_riskiest_first(request_of, run_in_app, form, mirrored):
    _, pairs = mirrored
    compute(pairs)
    shown = form(FindSymmetryErrors(), request_of(pairs))
    assert {"key", "use_types", "fit_weights"} <= set(shown)
    assert "fit_weights" not in form(FindSymmetryErrors(), request_of(pairs, {"use_types": False}))
    requests, shown = run_in_app(FindSymmetryErrors(), request_of(pairs))
    assert shown["counts"]["swaps"] == 2
    active = next(one["params"] for one in requests if one["operator_uri"].endswith("set_active_fields"))
    assert "corr_risk" in str(active)
    assert any(one["operator_uri"].endswith("set_view") for one in requests)
    _, shown = run_in_app(FindSymmetryErrors(), request_of(pairs, {"use_types": False, "fit_weights": True}))
    assert shown["counts"]["swaps"] == 0
    assert load_record(pairs, "corr_risk")["config"]["ground_truth"] is False


def test_shares_are_read_as_they_are_typed():
    assert parse_alphas("0.1, 0.05") == [0.1, 0.05]
    assert parse_alphas([0.2]) == [0.2]
    for wrong in ("", "a", "0", "1.5", "0.1,,0.2"):
        with pytest.raises(ConfigError, match="are no shares"):
            parse_alphas(wrong)
