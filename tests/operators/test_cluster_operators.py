"""The operators of clusters and leaks: their forms, and what they do in the App and from Python."""

import base64

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.cluster_views import show_object_clusters
from fiftyone_selfsame.fiftyone_plugin.leaks import find_leaks
from fiftyone_selfsame.fiftyone_plugin.object_clusters import cluster_objects
from fiftyone_selfsame.operators.cluster_objects import ClusterObjects
from fiftyone_selfsame.operators.find_leaks import FindLeaks
from fiftyone_selfsame.operators.show_object_clusters import ShowObjectClusters

CLUSTERED = {"similarity": "cosine", "threshold": 0.9}


def names(requests):
    return [request["operator_uri"].split("/")[-1] for request in requests]


@pytest.fixture
def split_dataset(vector_dataset):
    """Pictures 0 and 1 are the same, in two splits; picture 2 is near them."""
    vector_dataset.set_values("split", ["train", "test", "train", "test"])
    return vector_dataset


@pytest.fixture
def scene_dataset(fo_dataset, pictures):
    """Each picture has one object with a vector, of which 0 and 2 are the same."""
    dataset = fo_dataset(pictures)
    vectors = np.eye(4, dtype=np.float32)[[0, 1, 0, 2]]
    labels = [fo.Detection(label="thing", bounding_box=[0, 0, 1, 1], ffa=vector) for vector in vectors]
    dataset.add_sample_field("truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("truth.detections.ffa", fo.VectorField)
    dataset.set_values("truth", [fo.Detections(detections=[label]) for label in labels])
    return dataset


# ----------------------------------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("operator", [ClusterObjects, ShowObjectClusters, FindLeaks])
def test_an_empty_dataset_is_refused_in_the_form(operator, request_of, fo_dataset, form, notices):
    properties = form(operator(), request_of(fo_dataset()))
    assert properties["problem"]["invalid"]
    assert "no images" in notices(properties)


def test_the_form_of_clusters_counts_vectors_and_shows_what_belongs_to_the_method(
    request_of, vector_dataset, form, notices
):
    vector_dataset.set_values("object", list("aabb"))
    properties = form(ClusterObjects(), request_of(vector_dataset))
    assert "4 images with a vector" in notices(properties)
    assert "object" in properties["truth_field"]["type"]["values"]
    advanced = properties["advanced"]["type"]["properties"]
    assert "max_diameter" not in advanced
    linked = form(ClusterObjects(), request_of(vector_dataset, {"method": "components"}))
    assert "max_diameter" in linked["advanced"]["type"]["properties"]


def test_without_vectors_the_form_says_what_to_run_first(request_of, dataset, form, notices):
    properties = form(ClusterObjects(), request_of(dataset))
    assert properties["problem"]["invalid"]
    assert "Compute FFA embeddings" in notices(properties)


def test_a_key_of_another_computation_is_refused(request_of, split_dataset, form):
    find_leaks(split_dataset, "taken", threshold=0.9)
    properties = form(ClusterObjects(), request_of(split_dataset, {"key": "taken"}))
    assert properties["key"]["invalid"]
    assert "taken" in properties["key"]["error_message"]


def test_there_is_nothing_to_show_before_there_are_clusters(request_of, vector_dataset, form, notices):
    properties = form(ShowObjectClusters(), request_of(vector_dataset))
    assert "Cluster objects" in notices(properties)
    cluster_objects(vector_dataset, **CLUSTERED)
    assert "1 cluster with 3 images" in notices(form(ShowObjectClusters(), request_of(vector_dataset)))


def test_the_form_of_leaks_offers_fields_tags_and_pairs(request_of, split_dataset, form, notices):
    properties = form(FindLeaks(), request_of(split_dataset))
    assert properties["split_field"]["default"] == "split"
    assert "task" not in properties
    assert "4 images with a vector" in notices(properties)

    split_dataset.delete_sample_field("split")
    for sample, tag in zip(split_dataset, ("train", "test", "blurred", "test"), strict=True):
        sample.tags = [tag]
        sample.save()
    chosen = form(FindLeaks(), request_of(split_dataset))
    assert chosen["split_field"]["default"] == "tags of samples"
    assert chosen["split_tags"]["default"] == ["train", "test"]
    other = form(FindLeaks(), request_of(split_dataset, {"between": "datasets"}))
    assert "split_field" not in other
    assert "problem" in other or "other" in other


def test_without_anything_that_names_a_split_the_form_says_so(request_of, vector_dataset, form, notices):
    assert "neither a field nor a tag" in notices(form(FindLeaks(), request_of(vector_dataset)))


def test_an_earlier_search_for_leaks_can_be_shown_or_taken_back(request_of, split_dataset, form, notices):
    find_leaks(split_dataset, threshold=0.9)
    assert form(FindLeaks(), request_of(split_dataset))["task"]["type"]["values"] == ["search", "show", "clear"]
    properties = form(FindLeaks(), request_of(split_dataset, {"task": "clear"}))
    assert "images in 'test'" in notices(properties)
    assert properties["key"]["default"] == "leaks"


# ------------------------------------------------------------------------------------------------------------- runs


def test_clustering_in_the_app_reloads_shows_the_fields_and_says_how_many(request_of, vector_dataset, run_in_app):
    ctx = request_of(vector_dataset, {"embeddings": "ffa", "method": "agglomerative", "advanced": CLUSTERED})
    requests, result = run_in_app(ClusterObjects(), ctx)

    assert names(requests)[-3:] == ["reload_dataset", "set_active_fields", "notify"]
    assert requests[-1]["params"]["message"] == "1 cluster with 3 images, the largest of 3; 1 are in none"
    assert result["counts"]["clusters"] == 1
    assert vector_dataset.values("objects_cluster") == [0, 0, 0, None]


def test_objects_are_clustered_and_shown_as_patches(request_of, scene_dataset, run_in_app):
    params = {"patches_field": "truth", "advanced": CLUSTERED, "max_diameter": 0.1}
    requests, _ = run_in_app(ClusterObjects(), request_of(scene_dataset, params))
    assert "1 cluster with 2 objects" in requests[-1]["params"]["message"]

    requests, _ = run_in_app(ShowObjectClusters(), request_of(scene_dataset))
    assert names(requests) == ["reload_dataset", "set_view"]
    assert requests[-1]["params"]["view"][-2]["_cls"].endswith("ToPatches")
    assert len(show_object_clusters(scene_dataset)) == 2


def test_nothing_to_show_is_said_and_leaves_the_grid(request_of, vector_dataset, run_in_app):
    cluster_objects(vector_dataset, **CLUSTERED)
    requests, result = run_in_app(ShowObjectClusters(), request_of(vector_dataset, {"min_size": 9}))
    assert requests == []
    assert "no such cluster" in result["error"]


def test_leaks_are_shown_side_by_side_and_the_pairs_can_be_downloaded(request_of, split_dataset, run_in_app):
    ctx = request_of(split_dataset, {"split_field": "split", "threshold": 0.9, "download": True})
    requests, result = run_in_app(FindLeaks(), ctx)

    assert names(requests)[-4:] == ["reload_dataset", "set_active_fields", "set_view", "browser_download"]
    assert result["counts"]["pairs"] == 2
    lines = base64.b64decode(requests[-1]["params"]["url"].split(",")[1]).decode().splitlines()
    assert lines[0].startswith("similarity,split_a")
    assert len(lines) == 3
    assert requests[-1]["params"]["filename"] == "leaks.csv"


def test_an_earlier_search_is_shown_again_and_taken_back_in_the_app(request_of, split_dataset, run_in_app):
    find_leaks(split_dataset, "mine", threshold=0.9)

    requests, result = run_in_app(FindLeaks(), request_of(split_dataset, {"task": "show", "threshold": 0.5}))
    assert names(requests) == ["reload_dataset", "set_active_fields", "set_view"]
    assert result is None
    _, result = run_in_app(FindLeaks(), request_of(split_dataset, {"task": "clear", "key": "mine"}))
    assert result["counts"] == {"untagged": 2}
    assert not split_dataset.has_run("mine")


def test_tags_that_were_chosen_in_the_form_are_the_splits(request_of, vector_dataset):
    for sample, tag in zip(vector_dataset, "abab", strict=True):
        sample.tags = [tag]
        sample.save()
    params = {"split_field": "tags of samples", "split_tags": ["a", "b"], "duplicates": "vectors", "threshold": 0.9}
    result = FindLeaks().execute(request_of(vector_dataset, params, from_app=False))
    assert result["details"]["splits"] == {"a": 2, "b": 2}


def test_what_the_form_no_longer_shows_is_not_passed_on(request_of, split_dataset):
    params = {"between": "splits", "other": "somewhere", "split_field": "split"}
    assert FindLeaks().arguments(request_of(split_dataset, params)) == {"split_field": "split"}
    params = {"between": "datasets", "other": "somewhere", "duplicates": "dup"}
    assert FindLeaks().arguments(request_of(split_dataset, params)) == {"other": "somewhere"}


def test_each_operator_offers_the_arguments_of_its_function():
    import inspect

    for operator, function in (
        (ClusterObjects, cluster_objects),
        (ShowObjectClusters, show_object_clusters),
        (FindLeaks, find_leaks),
    ):
        arguments = set(inspect.signature(function).parameters) - {"samples", "progress"}
        assert set(operator.options) == arguments
        assert operator().config.name == function.__name__
        assert isinstance(operator(), foo.Operator)


def test_faults_are_raised_outside_of_the_app(request_of, vector_dataset):
    with pytest.raises(ConfigError, match="tells 0 splits apart"):
        FindLeaks().execute(request_of(vector_dataset, {"task": "search"}, from_app=False))
