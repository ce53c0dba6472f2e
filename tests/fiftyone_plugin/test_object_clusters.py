"""Same-object clusters in FiftyOne: what is written where, what survives a re-clustering, what is refused."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.cluster_store import ClusterFields, category, kept_names
from fiftyone_selfsame.fiftyone_plugin.cluster_views import show_object_clusters
from fiftyone_selfsame.fiftyone_plugin.decisions import decide
from fiftyone_selfsame.fiftyone_plugin.group_table import group_members, group_table
from fiftyone_selfsame.fiftyone_plugin.object_clusters import (
    cluster_objects,
    cluster_objects_steps,
    truth_scores,
)
from fiftyone_selfsame.fiftyone_plugin.runs import load_record


def views_of(*counts, seed=0, noise=0.05, dim=32):
    """Vectors of ``counts[n]`` views of object n, and the objects; views of one object have a cosine of about 0.93."""
    rng = np.random.default_rng(seed)
    objects = np.repeat(np.arange(len(counts)), counts)
    centres = rng.normal(size=(len(counts), dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres[objects] + rng.normal(scale=noise, size=(len(objects), dim))).astype(np.float32), objects


# Five views of one object, four of another, three of a third, and a loner.
VECTORS, OBJECTS = views_of(5, 4, 3, 1)


def clustered(samples, key="objects", **options):
    """cluster_objects by plain cosine, so that what it finds is known beforehand: views of one object lie above 0.5."""
    return cluster_objects(samples, key, **{"similarity": "cosine", "threshold": 0.5, **options})


@pytest.fixture
def image_dataset(vector_dataset):
    dataset = vector_dataset(VECTORS)
    dataset.set_values("object", [f"object {number}" for number in OBJECTS])
    return dataset


@pytest.fixture
def scene_dataset(fo_dataset):
    """Four scenes; object n is in scene n % 4, so that no two views of an object share one. The last has no labels."""
    dataset = fo_dataset([f"/none/scene{number}.png" for number in range(5)])
    dataset.add_sample_field("truth", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("truth.detections.ffa", fo.VectorField)
    dataset.add_sample_field("truth.detections.identity", fo.IntField)
    labels = [[] for _ in range(4)]
    for row, vector in enumerate(VECTORS):
        label = fo.Detection(label="thing", bounding_box=[0.1, 0.1, 0.2, 0.2])
        label["ffa"], label["identity"] = vector, int(OBJECTS[row])
        labels[row % 4].append(label)
    for sample, own in zip(dataset, labels, strict=False):
        sample["truth"] = fo.Detections(detections=own)
        sample.save()
    return dataset


def same_partition(found, truth):
    """Whether two labellings agree up to the numbers."""
    return [[a == b for b in found] for a in found] == [[a == b for b in truth] for a in truth]


def test_images_of_one_object_share_a_cluster_and_the_largest_is_number_0(image_dataset):
    summary = clustered(image_dataset)

    assert image_dataset.values("objects_cluster") == [0] * 5 + [1] * 4 + [2] * 3 + [None]
    assert image_dataset.values("objects_size") == [5] * 5 + [4] * 4 + [3] * 3 + [1]
    names = ["cluster 00"] * 5 + ["cluster 01"] * 4 + ["cluster 02"] * 3 + ["no cluster"]
    assert image_dataset.values("objects_category") == names
    confidence, outlier = image_dataset.values(["objects_confidence", "objects_outlier"])
    assert confidence[-1] is None
    assert all(0.0 <= value <= 1.0 for value in confidence[:-1] + outlier)
    assert summary.counts == {
        "total": 13, "done": 13, "skipped": 0, "failed": 0, "clusters": 3, "members": 12, "outliers": 1, "largest": 5,
    }  # fmt: skip
    assert load_record(image_dataset, "objects")["counts"] == summary.counts


def test_fields_are_indexed_described_and_say_where_they_come_from(image_dataset):
    summary = clustered(image_dataset, "things")

    assert {"things_cluster", "things_size", "things_outlier"} <= set(image_dataset.list_indexes())
    field = image_dataset.get_field("things_cluster")
    assert "0 is the largest" in field.description
    assert (field.info["method"], field.info["run"]) == ("cluster_objects", "things")
    assert field.info["threshold"] == summary.details["threshold"]
    groups = {group.name: group.paths for group in image_dataset.app_config.sidebar_groups}
    assert groups["selfsame"][:3] == ["things_cluster", "things_size", "things_confidence"]
    assert groups["selfsame internals"] == ["things_error"]
    assert summary.details["threshold_reason"]


def test_the_same_object_in_different_scenes_comes_together(scene_dataset):
    summary = clustered(scene_dataset, patches_field="truth", truth_field="identity")

    found, truth = scene_dataset.values(["truth.detections.objects_cluster", "truth.detections.identity"], unwind=True)
    expected = [None if number == 3 else int(number) for number in truth if number is not None]
    assert [value for value, number in zip(found, truth, strict=True) if number is not None] == expected
    assert summary.counts["total"] == 13
    assert summary.details["ari"] == 1.0
    assert not [name for name in scene_dataset.get_field_schema() if name.startswith("objects_")]
    assert "truth.detections.objects_cluster" in scene_dataset.list_indexes()
    assert load_record(scene_dataset, "objects")["config"]["patches_field"] == "truth"


def test_the_view_shows_objects_as_patches_cluster_after_cluster(scene_dataset):
    clustered(scene_dataset, patches_field="truth")

    view = show_object_clusters(scene_dataset)
    assert view.values("truth.objects_cluster") == [0] * 5 + [1] * 4 + [2] * 3
    confidence = view.values("truth.objects_confidence")
    assert confidence[:5] == sorted(confidence[:5], reverse=True)
    assert show_object_clusters(scene_dataset, min_size=4).values("truth.objects_cluster") == [0] * 5 + [1] * 4
    outlier = show_object_clusters(scene_dataset, outliers_first=True).values("truth.objects_outlier")
    assert outlier == sorted(outlier, reverse=True)
    assert len(show_object_clusters(scene_dataset, as_groups=True)) == 3
    part = scene_dataset.filter_labels("truth", fo.ViewField("identity") == 1)
    assert show_object_clusters(part).values("truth.objects_cluster") == [1] * 4


def test_the_view_of_images_is_made_of_indexed_fields_and_no_ids(image_dataset):
    clustered(image_dataset)

    view = show_object_clusters(image_dataset)
    assert view.values("objects_cluster") == [0] * 5 + [1] * 4 + [2] * 3
    confidence = view.values("objects_confidence")
    assert confidence[:5] == sorted(confidence[:5], reverse=True)
    assert len(show_object_clusters(image_dataset.limit(7), min_size=5)) == 5
    outlier = show_object_clusters(image_dataset, outliers_first=True).values("objects_outlier")
    assert outlier == sorted(outlier, reverse=True)
    assert len(show_object_clusters(image_dataset, as_groups=True)) == 3
    stages = str(view._serialize())
    assert not any(sample_id in stages for sample_id in image_dataset.values("id"))


def test_the_table_of_the_panels_reads_both_kinds_of_clusters(image_dataset, scene_dataset):
    for dataset, options in ((image_dataset, {}), (scene_dataset, {"patches_field": "truth"})):
        clustered(dataset, **options)
        assert group_table(dataset, "objects").size.tolist() == [5, 4, 3]
        assert len(group_members(dataset, "objects", [1])[1]) == 4


def test_merged_and_split_clusters_stay_so_when_clustered_again(image_dataset):
    clustered(image_dataset)
    ids = image_dataset.values("id")
    decide(image_dataset, "objects", "merge", groups=[1, 2])
    decide(image_dataset, "objects", "split", groups=[0], members=ids[:2])

    summary = clustered(image_dataset)

    found = image_dataset.values("objects_cluster")
    assert same_partition(found[:12], [1, 1, 2, 2, 2, *[0] * 7])
    assert summary.details["must_links"] > 0
    assert summary.details["cannot_links"] == 6
    assert "decisions of reviewers were honoured" in " ".join(summary.notices)


def test_decisions_about_images_that_are_gone_are_ignored(image_dataset):
    clustered(image_dataset)
    decide(image_dataset, "objects", "merge", groups=[1, 2])
    ids = image_dataset.values("id")
    image_dataset.delete_samples([ids[5], ids[9]])

    clustered(image_dataset)

    assert same_partition(image_dataset.values("objects_cluster")[:10], [0] * 5 + [1] * 5)


def test_a_cluster_that_mostly_persists_keeps_its_name(image_dataset):
    clustered(image_dataset)
    decide(image_dataset, "objects", "name", groups=[1], name="the mug")

    more = image_dataset.match({"object": {"$ne": "object 0"}})
    clustered(more)

    # Without the largest cluster the mug is number 0, and images outside the view have no results any more.
    assert image_dataset.values("objects_cluster") == [None] * 5 + [0] * 4 + [1] * 3 + [None]
    assert image_dataset.values("objects_name") == [None] * 5 + ["the mug"] * 4 + [None] * 4
    assert image_dataset.values("objects_category")[:5] == [None] * 5


def test_a_name_goes_to_the_cluster_with_most_of_its_members_or_to_none(image_dataset):
    clustered(image_dataset)
    decide(image_dataset, "objects", "name", groups=[0], name="five")
    ids, fields = image_dataset.values("id"), ClusterFields("objects")

    def names(*label):
        return kept_names(image_dataset, fields, ids[: len(label)], np.array(label))

    assert names(1, 1, 1, 2, 2) == {1: "five"}
    assert names(1, 1, 2, 2, -1) == {}
    assert names(*[0] * 5, *[0] * 4) == {0: "five"}
    assert names(*[0] * 5, *[0] * 7) == {}


def test_agreement_with_true_identities_counts_what_is_outside_as_alone(image_dataset):
    ids = image_dataset.values("id")
    truth = ["a"] * 5 + ["b"] * 4 + [None] * 4
    image_dataset.set_values("truth", truth)
    label = np.array([0, 0, 0, -1, -1, 1, 1, 1, 1, *[0] * 4])

    scores = truth_scores(image_dataset, ClusterFields("objects").place, "truth", ids, label)

    from sklearn.metrics import adjusted_rand_score

    assert scores["ari"] == pytest.approx(adjusted_rand_score([0] * 5 + [1] * 4, [0, 0, 0, 7, 8, 1, 1, 1, 1]))
    assert scores["ari_items"] == 9
    assert truth_scores(image_dataset, ClusterFields("objects").place, "truth", ids[9:], label[9:])["ari"] is None


def test_the_summary_has_the_index_against_a_truth_field(image_dataset):
    summary = clustered(image_dataset, truth_field="object")
    assert summary.details["ari"] == 1.0
    assert "adjusted Rand index 1.000 against 13 true identities" in " ".join(summary.notices)


def test_what_has_no_vector_is_left_out_with_a_reason(image_dataset, scene_dataset):
    image_dataset.set_values("ffa", {image_dataset.first().id: None}, key_field="id")
    summary = clustered(image_dataset)
    assert summary.counts["failed"] == 1
    assert "no vector in 'ffa'" in image_dataset.values("objects_error")[0]
    assert image_dataset.values("objects_cluster")[0] is None

    sample = scene_dataset.first()
    sample.truth.detections[0]["ffa"] = None
    sample.save()
    clustered(scene_dataset, patches_field="truth")
    assert "no vector" in scene_dataset.first().truth.detections[0]["objects_error"]


def test_clustering_objects_after_images_under_one_key_leaves_no_result_of_the_images(scene_dataset):
    scene_dataset.add_sample_field("ffa", fo.VectorField)
    scene_dataset.set_values("ffa", list(VECTORS[:5]))
    clustered(scene_dataset)
    assert scene_dataset.values("objects_cluster") == [0] * 5

    clustered(scene_dataset, patches_field="truth")

    assert scene_dataset.values("objects_cluster") == [None] * 5
    assert scene_dataset.values("objects_category") == [None] * 5


def test_at_most_a_hundred_categories_are_given():
    assert len({category(number) for number in range(-1, 5000)}) == 100


def test_neither_vectors_nor_other_fields_are_altered_and_progress_ends_complete(image_dataset):
    before = np.stack(image_dataset.values("ffa"))
    reports = list(cluster_objects_steps(image_dataset, similarity="cosine", threshold=0.5))
    np.testing.assert_array_equal(np.stack(image_dataset.values("ffa")), before)
    assert reports[-1].fraction == 1.0
    assert [report.settled for report in reports] == sorted(report.settled for report in reports)


@pytest.mark.parametrize("method", ["agglomerative", "hdbscan", "components"])
def test_every_method_finds_objects_that_are_far_apart(image_dataset, method):
    clustered(image_dataset, method=method)
    assert same_partition(image_dataset.values("objects_cluster")[:12], OBJECTS[:12].tolist())


def test_without_options_objects_are_told_apart_at_a_threshold_from_the_data(vector_dataset):
    vectors, objects = views_of(*[4] * 15, seed=2)
    dataset = vector_dataset(vectors)

    summary = cluster_objects(dataset)

    assert same_partition(dataset.values("objects_cluster"), objects.tolist())
    assert summary.details["threshold_reason"] not in ("", "given")
    assert load_record(dataset, "objects")["config"]["similarity"] == "reciprocal"


@pytest.mark.parametrize("patches_field", [None, "truth"])
def test_a_second_look_compares_regions_of_the_pictures_and_one_that_is_gone_is_like_nothing(
    block_dataset, ffa, patches_field
):
    dataset = block_dataset(9)
    ffa(dataset, model="embedded-hybrid", objects_field=patches_field)
    last = dataset.last()
    last.filepath = "/none/gone.png"
    last.save()

    clustered(dataset, patches_field=patches_field, verify="regions", threshold=0.85, device="cpu")

    path = "objects_cluster" if patches_field is None else "truth.detections.objects_cluster"
    found = dataset.values(path, unwind=True)
    assert same_partition(found, [number % 3 for number in range(8)] + [None])
    assert found[-1] is None


REFUSED = [
    ({"method": "kmeans"}, "kmeans"),
    ({"similarity": "euclid"}, "euclid"),
    ({"threshold": 2.0}, "threshold"),
    ({"min_size": 1}, "min_size"),
    ({"patches_field": "nothing"}, "no field with detections"),
    ({"embeddings": "object"}, "not a VectorField"),
    ({"truth_field": "nothing"}, "no such field"),
    ({"key": "not a name"}, "cannot be a field name"),
    ({"key": "mine"}, "was not made by cluster_objects"),
    ({"verify": "nothing"}, "verify"),
    ({"verify": "regions"}, "was not made by compute_ffa"),
]


def test_what_cannot_work_is_refused_and_nothing_is_written(image_dataset):
    image_dataset.add_sample_field("mine_cluster", fo.IntField)
    before = set(image_dataset.get_field_schema())
    for options, message in REFUSED:
        with pytest.raises(ConfigError, match=message):
            clustered(image_dataset, **options)
    assert set(image_dataset.get_field_schema()) == before
    assert not image_dataset.list_runs()


def test_an_empty_view_leaves_no_record_and_an_unknown_key_is_explained(image_dataset):
    assert clustered(image_dataset.limit(0)).key is None
    with pytest.raises(ConfigError, match="run cluster_objects first"):
        show_object_clusters(image_dataset)
    clustered(image_dataset)
    with pytest.raises(ConfigError, match="there are 'objects'"):
        show_object_clusters(image_dataset, "other")
    with pytest.raises(ConfigError, match="min_size"):
        show_object_clusters(image_dataset, min_size=1)


def test_the_order_of_the_samples_does_not_matter(vector_dataset):
    dataset = vector_dataset(VECTORS[::-1])
    clustered(dataset)
    assert dataset.values("objects_cluster") == [None] + [2] * 3 + [1] * 4 + [0] * 5
