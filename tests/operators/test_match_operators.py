"""Operators on pairs, as the App calls them: forms in the usual situations, and runs through the executor."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.registry import list_matchers
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from PIL import Image

MADE = ("keypoint-pairs", "shelf-pairs", "bare")


@pytest.fixture
def blocks(fo_dataset, tmp_path, monkeypatch):
    """Twelve pictures with a block of one of two colours, and twelve labelled pairs of them."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    paths = []
    for number in range(12):
        picture = rng.integers(60, 90, (64, 80, 3)).astype(np.uint8)
        picture[10:50, 10 + 2 * number : 45 + 2 * number] = ((220, 40, 40), (40, 60, 230))[number % 2]
        paths.append(tmp_path / f"block{number:02d}.png")
        Image.fromarray(picture).save(paths[-1])
    dataset = fo_dataset(paths)
    ids = dataset.values("id")
    ends = [(i, i + 2, "match") for i in range(0, 10)] + [(i, i + 1, "non_match") for i in range(0, 11)]
    pairs = create_pairs(dataset, pairs=[(ids[a], ids[b], label) for a, b, label in ends])
    yield dataset, pairs
    pairs.delete()


def test_forms_say_what_to_do_where_they_cannot_work(operator, request_of, form, blocks):
    dataset, _ = blocks
    assert "holds no pairs" in str(form(operator("match_objects"), request_of(dataset))["problem"])
    assert "Select exactly two" in str(form(operator("create_pairs"), request_of(dataset))["problem"])
    assert "Train on a dataset of pairs" in str(form(operator("train_matcher"), request_of(dataset))["problem"])


def test_forms_resolve_on_pairs_and_on_a_selection(operator, request_of, form, blocks):
    dataset, pairs = blocks
    assert "problem" not in form(operator("match_objects"), request_of(pairs))
    assert "problem" not in form(operator("compute_cosalient_masks"), request_of(pairs))
    training = form(operator("train_matcher"), request_of(pairs, {"kind": "network", "name": "mine"}))
    assert {"name", "kind", "labels", "encoder", "head", "steps"} <= set(training)
    assert training["answers"]["view"]["label"] == "10 matching and 11 other pairs have an answer."
    decided = form(operator("train_matcher"), request_of(pairs, {"labels": "decisions"}))
    assert decided["answers"]["view"]["label"] == "0 matching and 0 other pairs have an answer."
    assert "Matching panel" in decided["answers"]["view"]["description"]
    assert "belongs to a matcher" in str(form(operator("train_matcher"), request_of(pairs, {"name": "demo"}))["name"])
    two = request_of(dataset, selected=dataset.values("id")[:2])
    assert "problem" not in form(operator("create_pairs"), two)


def test_pairs_are_made_matched_and_masked_as_the_app_does_it(operator, request_of, run_in_app, blocks):
    dataset, pairs = blocks
    ctx = request_of(dataset, {"name": "two-blocks"}, selected=dataset.values("id")[:2])
    try:
        assert run_in_app(operator("create_pairs"), ctx)[1]["counts"]["pairs"] == 1
        two = fo.load_dataset("two-blocks")
        options = {"model": "embedded-hybrid", "advanced": {"refine": False, "device": "cpu"}}
        assert run_in_app(operator("match_objects"), request_of(two, options))[1]["counts"]["done"] == 1
        assert run_in_app(operator("compute_cosalient_masks"), request_of(two, options))[1]["counts"]["done"] == 2
        assert two.select_group_slices().count("cosalient") == 2
    finally:
        fo.delete_dataset("two-blocks")
    missing = run_in_app(operator("train_matcher"), request_of(pairs, {}))[1]
    assert missing["error"] == "name: give the matcher a name"


def test_a_matcher_is_calibrated_from_the_form_and_a_loss_is_plotted(operator, request_of, run_in_app, blocks):
    _, pairs = blocks
    train = operator("train_matcher")
    params = {"name": "mine", "model": "embedded-hybrid", "advanced": {"device": "cpu"}}
    assert run_in_app(train, request_of(pairs, params))[1]["details"]["figures"]["f1"] > 0.6
    assert "mine" in [info.name for info in list_matchers()]
    curve = {"details": {"curve": [[1, 0.7], [2, 0.5]]}, "notices": [], "failed": [], "counts": {}, "summary": "done"}
    assert train.summary_form(curve).to_json()["type"]["properties"]["curve"]["view"]["data"][0]["y"] == [0.7, 0.5]


def test_pairs_get_the_keypoints_of_their_images_unless_other_fields_are_chosen(operator, request_of, run_in_app, form):
    dataset = fo.Dataset()
    try:
        keypoints = fo.Keypoints(keypoints=[fo.Keypoint(label="ear", points=[[0.5, 0.5]])])
        for number in range(2):
            path = f"/nowhere/{number}.png"
            dataset.add_sample(fo.Sample(filepath=path, points=keypoints.copy(), shelf=number, kind="toy"))
        selected = dataset.values("id")
        shown = form(operator("create_pairs"), request_of(dataset, selected=selected))["fields"]
        assert shown["default"] == ["points"]
        assert [choice["value"] for choice in shown["view"]["choices"]] == ["points", "shelf", "kind"]

        for name, chosen in {
            "keypoint-pairs": {},
            "shelf-pairs": {"fields": ["shelf"]},
            "bare": {"fields": []},
        }.items():
            run_in_app(operator("create_pairs"), request_of(dataset, {"name": name, **chosen}, selected=selected))
        copied = {name: set(fo.load_dataset(name).get_field_schema()) & {"points", "shelf"} for name in MADE}
        assert copied == {"keypoint-pairs": {"points"}, "shelf-pairs": {"shelf"}, "bare": set()}
    finally:
        for name in (dataset.name, *MADE):
            if fo.dataset_exists(name):
                fo.delete_dataset(name)
