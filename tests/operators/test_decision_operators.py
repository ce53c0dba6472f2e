"""The operators that export and apply decisions: their forms, and what they do for the App."""

import base64

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin.decisions import decide
from fiftyone_selfsame.fixtures.reviewed_runs import make_run
from fiftyone_selfsame.operators.apply_decisions import ApplyDecisions
from fiftyone_selfsame.operators.export_decisions import ExportDecisions


@pytest.fixture
def reviewed(fo_dataset, pictures):
    """Two pictures in a group that is decided on, of which one is dropped."""
    dataset = fo_dataset(pictures)
    make_run(dataset, [0, 0, None, None], quality=[2.0, 1.0, 0.0, 0.0])
    decide(dataset, "dup", "keep_best", groups=[0])
    return dataset


@pytest.mark.parametrize("operator", [ApplyDecisions, ExportDecisions])
def test_a_dataset_without_groups_is_refused_in_the_form(operator, request_of, fo_dataset, pictures, form, notices):
    properties = form(operator(), request_of(fo_dataset(pictures)))

    assert properties["problem"]["invalid"]
    assert "Search for duplicates first" in notices(properties)


def test_the_form_of_the_deletion_says_what_would_go_and_asks_for_the_name(request_of, reviewed, form, notices):
    properties = form(ApplyDecisions(), request_of(reviewed, {"key": "dup"}))
    assert "1 image would be deleted; 1 of the same groups stay" in notices(properties)
    assert properties["dry_run"]["default"] is True
    assert "confirm" not in properties

    wrong = form(ApplyDecisions(), request_of(reviewed, {"dry_run": False, "confirm": "something"}))
    right = form(ApplyDecisions(), request_of(reviewed, {"dry_run": False, "confirm": reviewed.name}))
    assert wrong["confirm"]["invalid"]
    assert not right["confirm"]["invalid"]


def test_a_review_without_drops_has_nothing_to_apply(request_of, reviewed, form, notices):
    decide(reviewed, "dup", "keep_all", groups=[0])

    assert "nothing to delete" in notices(form(ApplyDecisions(), request_of(reviewed)))


def test_the_app_gets_the_dry_run_first_and_then_the_deletion(run_in_app, request_of, reviewed):
    run_in_app(ApplyDecisions(), request_of(reviewed, {"key": "dup"}))
    assert len(reviewed) == 4

    run_in_app(ApplyDecisions(), request_of(reviewed, {"dry_run": False, "confirm": reviewed.name}))
    assert len(reviewed) == 3


def test_the_table_is_downloaded_and_no_path_is_taken_from_the_app(run_in_app, request_of, reviewed, tmp_path):
    sent, _ = run_in_app(ExportDecisions(), request_of(reviewed, {"path": str(tmp_path / "elsewhere.csv")}))

    (download,) = [one for one in sent if "browser_download" in one["operator_uri"]]
    text = base64.b64decode(download["params"]["url"].split(",")[1]).decode()
    assert text.count("duplicate:drop") == 1
    assert not (tmp_path / "elsewhere.csv").exists()


def test_the_app_saves_a_view_of_what_is_kept(run_in_app, request_of, reviewed):
    run_in_app(ExportDecisions(), request_of(reviewed, {"to": "view", "name": "cleaned"}))

    dataset = fo.load_dataset(reviewed.name)
    dataset.reload()
    assert len(dataset.load_saved_view("cleaned")) == 3


def test_while_a_form_is_open_the_deletion_is_planned_once_and_not_at_every_keystroke(
    request_of, reviewed, form, notices, monkeypatch
):
    from fiftyone_selfsame.fiftyone_plugin import decision_apply

    planned, plan = [], decision_apply.plan_deletion
    monkeypatch.setattr(decision_apply, "plan_deletion", lambda *given: planned.append(given) or plan(*given))

    for typed in ("", "a", reviewed.name):
        properties = form(
            ApplyDecisions(), request_of(reviewed, {"dry_run": False, "confirm": typed}, prompt_id="one prompt")
        )
        assert "1 image would be deleted" in notices(properties)

    assert len(planned) == 1
