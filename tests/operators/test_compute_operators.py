"""The operators for masks and vectors: their forms in every state, and what they do in the App and elsewhere."""

from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from fiftyone_selfsame.brain.backbones.catalog import OFFLINE_DEFAULT
from fiftyone_selfsame.fixtures.model_folders import make_model_folder

PLUGIN = "@selfsame/curation"
FFA = f"{PLUGIN}/compute_ffa"
QUICK = {"model": "embedded-untrained", "size": 56, "device": "cpu"}


@pytest.fixture
def videos(fo_dataset, tmp_path):
    return fo_dataset([tmp_path / "clip.mp4"])


@pytest.fixture
def grouped(fo_dataset, pictures):
    dataset = fo_dataset()
    dataset.add_group_field("group", default="left")
    for index in range(0, 4, 2):
        group = fo.Group()
        slices = [("left", pictures[index]), ("right", pictures[index + 1])]
        dataset.add_samples(
            [fo.Sample(filepath=str(path), group=group.element(name)) for name, path in slices],
        )
    return dataset


def test_the_form_of_an_untouched_dataset(operator, request_of, dataset, form, notices):
    properties = form(operator("compute_ffa"), request_of(dataset))
    assert "4 images: 4 to compute." in notices(properties)
    assert "of demo grade" in notices(properties)
    assert properties["model"]["view"]["choices"][0]["label"] == f"Default: {OFFLINE_DEFAULT}"
    assert "Empty: ffa_similarity" in properties["similarity_key"]["view"]["description"]
    assert "visualization_key" not in properties
    assert "objects_field" not in properties
    assert properties["advanced"]["view"]["collapsible"]


def test_label_fields_are_offered_as_foreground_and_as_objects(operator, request_of, dataset, form, notices):
    dataset.add_sample_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("parts", fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    dataset.add_sample_field("class", fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    properties = form(operator("compute_ffa"), request_of(dataset))
    foregrounds = properties["foreground"]["type"]["values"]
    assert [name for name in foregrounds if name.startswith("field:")] == ["field:boxes", "field:parts"]
    assert properties["objects_field"]["type"]["values"] == ["auto", "boxes"]
    for_objects = form(operator("compute_ffa"), request_of(dataset, {"objects_field": "boxes"}))
    assert for_objects["object_route"]["default"] == "crop"
    assert "0 objects: 0 to compute" in notices(for_objects)


def test_results_and_failures_of_an_earlier_run_are_counted(operator, request_of, dataset, form, notices):
    Path(dataset.last().filepath).write_bytes(b"")
    operator("compute_ffa")(dataset, **QUICK)
    shown = notices(form(operator("compute_ffa"), request_of(dataset)))
    assert "4 images: 1 to compute, 3 have a result already" in shown
    assert "1 failed last time" in shown


def test_the_published_pipeline_brings_its_own_defaults(operator, request_of, dataset, form):
    properties = form(operator("compute_ffa"), request_of(dataset, {"preset": "paper"}))
    assert properties["model"]["view"]["choices"][0]["label"] == "Default: dinov2-base"
    assert "CarveKit" in properties["foreground"]["view"]["choices"][0]["label"]


@pytest.mark.parametrize(
    ("name", "params", "field", "reason"),
    [
        ("compute_ffa", {"field": "two words"}, "field", "cannot be a field name"),
        ("compute_ffa", {"field": "tags"}, "field", "cannot be a field name"),
        ("compute_ffa", {"field": "note"}, "field", "is a StringField"),
        ("compute_foreground", {"field": "note"}, "field", "is a StringField"),
        ("compute_ffa", {"field": "other_vectors"}, "field", "Selfsame did not compute"),
        ("compute_ffa", {"similarity_key": "not valid"}, "similarity_key", "not a valid brain key"),
        ("compute_ffa", {"model": "/etc"}, "model", "SELFSAME_MODELS_DIR"),
        ("compute_ffa", {"model": "../elsewhere"}, "model", "SELFSAME_MODELS_DIR"),
        ("compute_foreground", {"model": "~/models/mine"}, "model", "SELFSAME_MODELS_DIR"),
    ],
)
def test_bad_input_is_marked_at_its_field(operator, request_of, dataset, form, name, params, field, reason):
    dataset.add_sample_field("note", fo.StringField)
    dataset.add_sample_field("other_vectors", fo.VectorField)
    dataset.set_values("other_vectors", [np.ones(3)] * 4)
    prop = form(operator(name), request_of(dataset, params))[field]
    assert prop["invalid"]
    assert reason in prop["error_message"]


def test_model_folders_are_offered_and_taken_from_the_configured_folder_only(
    operator, request_of, dataset, form, tmp_path, monkeypatch
):
    kept = tmp_path / "kept"
    make_model_folder("dinov2", kept / "mine")
    outside = make_model_folder("dinov2", tmp_path / "outside")
    (kept / "link").symlink_to(outside)
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(kept))

    def model_field(value):
        return form(operator("compute_ffa"), request_of(dataset, {"model": value}))["model"]

    labels = {choice["value"]: choice["label"] for choice in model_field("mine")["view"]["choices"]}
    assert labels["mine"] == "Local folder mine"
    assert not model_field("mine")["invalid"]
    assert not model_field(str(kept / "mine"))["invalid"]
    assert not model_field("facebook/dinov2-small")["invalid"]
    assert model_field(str(outside))["invalid"]
    assert model_field(str(kept / "link"))["invalid"]


def test_videos_and_patches_are_refused_with_advice(operator, request_of, videos, dataset, form, notices):
    refused = form(operator("compute_ffa"), request_of(videos))
    assert refused["problem"]["invalid"]
    assert "to_frames" in notices(refused)
    sample = dataset.first()
    sample["boxes"] = fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1])])
    sample.save()
    refused = form(operator("compute_foreground"), request_of(dataset, view=dataset.to_patches("boxes")))
    assert "objects_field" in notices(refused)


def test_grouped_datasets_are_counted_over_their_image_slices(operator, request_of, grouped, form, notices):
    ctx = request_of(grouped, {"view_target": "DATASET"}, group_slice="left")
    assert "4 images: 4 to compute" in notices(form(operator("compute_ffa"), ctx))


def test_a_brain_key_follows_the_name_of_the_field_and_is_refused_if_taken(operator, request_of, dataset, form):
    ffa = operator("compute_ffa")
    ffa(dataset, similarity_key="ffa_similarity", **QUICK)
    assert not form(ffa, request_of(dataset))["similarity_key"]["invalid"]
    other = form(ffa, request_of(dataset, {"field": "vec"}))["similarity_key"]
    assert not other["invalid"]
    assert "Empty: vec_similarity" in other["view"]["description"]
    taken = form(ffa, request_of(dataset, {"field": "vec", "similarity_key": "ffa_similarity"}))["similarity_key"]
    assert "taken by another brain run" in taken["error_message"]


def test_every_foreground_method_is_offered(operator, request_of, dataset, form):
    from fiftyone_selfsame.brain.foreground import FOREGROUNDS

    for_vectors = form(operator("compute_ffa"), request_of(dataset))["foreground"]["type"]["values"]
    assert for_vectors == ["auto", *FOREGROUNDS]
    for_masks = form(operator("compute_foreground"), request_of(dataset))["method"]["type"]["values"]
    assert [*for_masks, "none"] == list(FOREGROUNDS)


def test_forms_without_a_method_that_needs_an_encoder_do_not_ask_for_one(operator, request_of, dataset, form):
    assert "model" in form(operator("compute_foreground"), request_of(dataset))
    assert "model" not in form(operator("compute_foreground"), request_of(dataset, {"method": "grabcut"}))


# ------------------------------------------------------------------------------------------------------- execution


def test_the_app_computes_vectors_and_what_fiftyone_makes_of_them(operator, request_of, dataset, run_in_app):
    params = {**QUICK, "similarity": True, "visualization": False, "visualization_key": "map"}
    requests, result = run_in_app(operator("compute_ffa"), request_of(dataset, params))
    labels = [request["params"]["label"] for request in requests if request["operator_uri"].endswith("set_progress")]
    assert labels[0].startswith("Loading the model")
    assert labels[-1].startswith("Computing")
    assert [request["operator_uri"].split("/")[-1] for request in requests[-2:]] == ["reload_dataset", "notify"]
    assert result["counts"]["done"] == 4
    assert dataset.count("ffa") == 4
    assert dataset.list_brain_runs() == ["ffa_similarity"]


def test_the_summary_names_failures_and_says_if_a_stand_in_was_used(operator, request_of, dataset, run_in_app):
    Path(dataset.last().filepath).write_bytes(b"")
    _, result = run_in_app(operator("compute_ffa"), request_of(dataset, {"size": 112, "device": "cpu"}))
    assert "of demo grade" in result["form"]["notice_0"]["view"]["label"]
    shown = result["form"]["failures"]["view"]
    assert shown["label"] == "1 failed"
    assert "is empty (0 bytes)" in shown["description"]


def test_a_request_cannot_choose_where_files_are_written(operator, request_of, dataset, run_in_app, tmp_path):
    params = {"method": "grabcut", "mask_dir": str(tmp_path / "anywhere")}
    _, result = run_in_app(operator("compute_foreground"), request_of(dataset, params))
    assert result["counts"]["done"] == 4
    assert not (tmp_path / "anywhere").exists()


def test_only_the_selected_images_are_computed(operator, request_of, dataset, run_in_app):
    ctx = request_of(dataset, {**QUICK, "view_target": "SELECTED_SAMPLES"}, selected=[dataset.first().id])
    run_in_app(operator("compute_ffa"), ctx)
    assert [vector is not None for vector in dataset.values("ffa")] == [True, False, False, False]


def test_python_gets_the_summary_and_may_use_any_folder(operator, dataset, tmp_path):
    folder = make_model_folder("dinov2", tmp_path / "anywhere")
    summary = operator("compute_ffa")(dataset.limit(2), "mine", model=str(folder), size=56, device="cpu")
    assert summary.counts["done"] == 2
    assert dataset.count("mine") == 2


def test_execute_operator_refuses_a_folder_outside_of_the_configured_one(dataset, tmp_path):
    folder = make_model_folder("dinov2", tmp_path / "anywhere")
    with pytest.raises(ExecutionError, match="SELFSAME_MODELS_DIR"):
        foo.execute_operator(FFA, dataset=dataset, params={"model": str(folder)})


def test_a_delegated_operation_computes_the_same_vectors(operator, dataset):
    from fiftyone.operators.delegated import DelegatedOperationService

    service = DelegatedOperationService()
    queued = operator("compute_ffa")(dataset, delegate=True, similarity_key="near", **QUICK)
    assert not dataset.has_field("ffa")
    service.execute_queued_operations(operator=FFA, limit=1)
    done = service.get(queued.result["id"])
    assert done.run_state == "completed"
    assert done.result.result["counts"]["done"] == 4
    assert "summary" in done.metadata["outputs_schema"]["type"]["properties"]
    assert dataset.list_brain_runs() == ["near"]
    operator("compute_ffa")(dataset, "again", **QUICK)
    np.testing.assert_allclose(dataset.values("ffa"), dataset.values("again"), atol=1e-6)
