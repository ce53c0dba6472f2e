"""Features of Stable Diffusion in the App: what the form offers, tells and refuses, and a run with a local model."""

import sys

import pytest
from fiftyone_selfsame.brain.correspondence.diffusion import DEFAULT_MODEL, DiffusionConfig
from fiftyone_selfsame.fiftyone_plugin import correspondence_setup
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fixtures.diffusion_folders import make_diffusion_folder
from fiftyone_selfsame.operators.compute_correspondences import ComputeCorrespondences

NAME = "sd/tiny"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder of models that holds a tiny diffusion network."""
    pytest.importorskip("diffusers")
    kept = tmp_path_factory.mktemp("models")
    make_diffusion_folder(kept / NAME)
    return kept


@pytest.fixture
def pairs(dataset, models, tmp_path, monkeypatch):
    """One pair of pictures."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(models))
    monkeypatch.setattr(correspondence_setup, "DIFFUSION", DiffusionConfig(size=192, crop=128))
    made = create_pairs(dataset, pairs=[tuple(dataset.values("id")[:2])])
    yield made
    made.delete()


@pytest.fixture
def advanced(request_of, form, pairs):
    """``advanced("sd/tiny")``: the collapsed part of the form once a model is chosen."""

    def resolve(diffusion=None):
        params = {"advanced": {"diffusion": diffusion}} if diffusion else {}
        shown = form(ComputeCorrespondences(), request_of(pairs, params))
        return shown["advanced"]["type"]["properties"]

    return resolve


def test_the_form_offers_local_models_and_tells_what_one_takes(advanced, notices):
    plain = advanced()
    assert [choice["value"] for choice in plain["diffusion"]["view"]["choices"]] == [DEFAULT_MODEL, NAME]
    assert notices(plain) == ""

    for name in (NAME, DEFAULT_MODEL):
        chosen = advanced(name)
        assert not chosen["diffusion"]["invalid"]
        assert "GPU with some 10 GB" in notices(chosen)
        assert "on a CPU" in notices(chosen)


def test_folders_elsewhere_are_refused(advanced, models, tmp_path, monkeypatch):
    inside, outside = str(models / NAME), str(make_diffusion_folder(tmp_path / "elsewhere"))
    assert not advanced(inside)["diffusion"]["invalid"]
    for wrong in (outside, "../elsewhere", "~/elsewhere", "/etc"):
        refused = advanced(wrong)["diffusion"]
        assert refused["invalid"], wrong
        assert f"loads model folders from {models} only" in refused["error_message"]
    monkeypatch.chdir(tmp_path)
    assert advanced("elsewhere")["diffusion"]["invalid"]
    monkeypatch.delenv("SELFSAME_MODELS_DIR")
    assert "SELFSAME_MODELS_DIR" in advanced(inside)["diffusion"]["error_message"]


def test_without_the_extra_the_form_says_how_to_get_it(advanced, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)

    assert not advanced()["diffusion"]["invalid"]
    refused = advanced(NAME)["diffusion"]
    assert refused["invalid"]
    assert 'pip install "fiftyone-selfsame[diffusion]"' in refused["error_message"]


def test_a_form_that_is_refused_does_not_run(request_of, pairs):
    from fiftyone.operators.executor import ExecutionContext, ValidationContext

    def invalid(diffusion):
        ctx: ExecutionContext = request_of(pairs, {"advanced": {"diffusion": diffusion}})
        operator = ComputeCorrespondences()
        return ValidationContext(ctx, operator.resolve_input(ctx), operator).invalid

    assert invalid("/etc")
    assert not invalid(NAME)


def test_a_run_from_the_app_takes_the_local_model(request_of, run_in_app, pairs):
    options = {
        "keypoints": "auto",
        "count": 3,
        "model": "embedded-hybrid",
        "advanced": {"size": 96, "device": "cpu", "diffusion": NAME},
    }

    _, shown = run_in_app(ComputeCorrespondences(), request_of(pairs, options))

    assert shown["counts"]["done"] == 1
    assert shown["counts"]["matches"] > 0
    second = load_record(pairs, "correspondence")["config"]["features"]["second"]
    assert second["name"] == NAME
