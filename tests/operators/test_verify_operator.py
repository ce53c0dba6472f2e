"""The operator that looks again at doubtful pairs: its form, its runs in the App and through the executor."""

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from PIL import Image

PLUGIN = "@selfsame/curation"
URI = f"{PLUGIN}/verify_pairs"

OPTIONS = {"model": "embedded-hybrid", "advanced": {"device": "cpu", "band": 1.0}}


def _block(place):
    """A dark picture with a striped red block."""
    picture = np.random.default_rng(place).integers(20, 40, (96, 128, 3)).astype(np.uint8)
    picture[16:80, 20 + place : 76 + place] = (210, 40, 40)
    picture[16:80, 20 + place : 76 + place : 6] = 240
    return picture


def _disc():
    """A light picture with a green disc."""
    picture = np.full((96, 128, 3), 220, np.uint8)
    rows, columns = np.mgrid[:96, :128]
    picture[(rows - 50) ** 2 + (columns - 60) ** 2 < 900] = (30, 150, 60)
    return picture


@pytest.fixture
def searched(fo_dataset, tmp_path, operator):
    """Two groups: images 0 and 1 show one block and are weakly linked; 2 and 3 have little in common but the vector."""
    pictures = [_block(0), _block(30), _block(10), _disc()]
    paths = [tmp_path / f"picture{number}.png" for number in range(4)]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    dataset = fo_dataset(paths)
    dataset.add_sample_field("ffa", fo.VectorField)
    angles = np.deg2rad([0, 17.5, 90, 104])
    dataset.set_values("ffa", list(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)))
    operator("find_duplicates")(dataset, threshold=0.95, shots=False)
    return dataset


def _riskier(dataset):
    """The images of the riskiest group."""
    risk = dataset.values("dup_risk")
    return [row for row, value in enumerate(risk) if value == max(risk)]


# ----------------------------------------------------------------------------------------------------------- form


def test_without_a_duplicate_search_of_images_the_form_says_what_to_do(operator, request_of, vector_dataset, form):
    verify = operator("verify_pairs")
    assert "Search for duplicates first" in str(form(verify, request_of(vector_dataset))["problem"])
    operator("find_exact_duplicates")(vector_dataset)
    things = [fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1], look=v)]) for v in np.eye(4)]
    vector_dataset.set_values("things", things)
    vector_dataset.add_sample_field("things.detections.look", fo.VectorField)
    operator("find_duplicates")(vector_dataset, "parts", embeddings="look", patches_field="things", threshold=0.95)

    properties = form(verify, request_of(vector_dataset))

    assert properties["problem"]["invalid"]
    assert set(properties) <= {"problem", "view_target"}


def test_the_form_offers_searches_matchers_and_limits(operator, request_of, searched, form):
    operator("find_duplicates")(searched, "again", threshold=0.95, shots=False)
    properties = form(operator("verify_pairs"), request_of(searched))

    assert properties["key"]["type"]["values"] == ["again", "dup"]
    assert properties["key"]["default"] == "again"
    assert properties["matcher"]["default"] == "training_free"
    assert (properties["max_pairs"]["default"], properties["max_pairs"]["type"]["min"]) == (500, 1)
    advanced = properties["advanced"]["type"]["properties"]
    assert set(advanced) == {"band", "threshold", "device", "num_workers", "overwrite"}
    assert [advanced["band"]["type"][end] for end in ("min", "max")] == [0, 1]
    assert "model" in properties
    assert "model" not in form(operator("verify_pairs"), request_of(searched, {"matcher": "somebody's"}))


def test_bad_input_is_shown_in_the_form_and_stops_the_executor(operator, request_of, searched, form, tmp_path):
    before = searched.values("dup_risk")
    prop = form(operator("verify_pairs"), request_of(searched, {"model": str(tmp_path)}))["model"]
    assert prop["invalid"]
    assert "SELFSAME_MODELS_DIR" in prop["error_message"]
    bad = [
        ({"model": str(tmp_path)}, "SELFSAME_MODELS_DIR"),
        ({"key": "nothing"}, "Invalid enum value"),
        ({"max_pairs": 0}, "greater than"),
        ({"advanced": {"band": 2.0}}, "less than"),
    ]
    for params, reason in bad:
        with pytest.raises(ExecutionError, match=reason):
            foo.execute_operator(URI, dataset=searched, params=params)
    assert searched.values("dup_risk") == before


# ------------------------------------------------------------------------------------------------------ execution


def test_the_executor_turns_the_order_of_risk_and_leaves_the_groups(searched):
    groups, before = searched.values("dup_group"), searched.values("dup_risk")
    assert _riskier(searched) == [0, 1]

    result = foo.execute_operator(URI, dataset=searched, params=OPTIONS).result

    expected = {"total": 2, "done": 2, "skipped": 0, "failed": 0, "confirmed": 1, "refuted": 1}
    assert result["counts"] == expected
    assert _riskier(searched) == [2, 3]
    after = searched.values("dup_risk")
    assert after[0] < before[0]
    assert after[2] > before[2]
    assert searched.values("dup_group") == groups
    assert foo.execute_operator(URI, dataset=searched, params=OPTIONS).result["counts"]["skipped"] == 2


def test_the_app_sees_progress_the_reload_and_the_summary(operator, request_of, run_in_app, searched):
    params = {"key": "dup", "matcher": "training_free", **OPTIONS}
    requests, result = run_in_app(operator("verify_pairs"), request_of(searched, params))

    assert [request["operator_uri"].split("/")[-1] for request in requests[-2:]] == ["reload_dataset", "notify"]
    assert requests[-1]["params"]["message"] == "1 link confirmed, 1 refuted"
    steps = [request["params"] for request in requests if request["operator_uri"].endswith("set_progress")]
    assert any(step["label"].startswith("Comparing doubtful pairs: 2 of 2") for step in steps)
    assert all(0 <= step["progress"] <= 1 for step in steps)
    assert "1 confirmed, 1 refuted" in result["summary"]


def test_a_fault_of_the_run_is_shown_as_a_sentence(operator, request_of, run_in_app, searched):
    searched.set_values("ffa", list(np.eye(4, 2, dtype=np.float32)))
    _, result = run_in_app(operator("verify_pairs"), request_of(searched, OPTIONS))
    assert "have changed since" in result["form"]["error"]["view"]["description"]
