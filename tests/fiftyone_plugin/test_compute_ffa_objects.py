"""compute_ffa on the objects of images, and what FiftyOne Brain makes of its vectors."""

import time

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.ffa import FFAExtractor
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fiftyone_plugin.followups import Followups
from fiftyone_selfsame.fiftyone_plugin.runs import load_record

BOX = [0.25, 0.25, 0.5, 0.5]


@pytest.mark.parametrize("route", ["crop", "image"])
def test_every_detection_gets_a_vector(fo_dataset, photos, ffa, tiny_model, route):
    paths = photos(3)
    dataset = fo_dataset(paths)
    boxes = [[0, 0, 0.5, 1], BOX]
    mask = np.ones((4, 4), bool)
    dataset.set_values(
        "gt",
        [
            fo.Detections(detections=[fo.Detection(bounding_box=box, mask=mask) for box in boxes]),
            fo.Detections(detections=[]),
            None,
        ],
    )

    summary = ffa(dataset, objects_field="gt", object_route=route)
    again = ffa(dataset, objects_field="gt", object_route=route)

    extractor = FFAExtractor(load_backbone(tiny_model, device="cpu"))
    pixels = np.array(boxes) * (80, 60, 80, 60)
    expected = [r.vector for r in extractor.embed_objects(decode_image(paths[0]), pixels, [mask, mask], route=route)]
    vectors = dataset.values("gt.detections.ffa")
    np.testing.assert_allclose(np.stack(vectors[0]), expected, atol=1e-5)
    assert vectors[1:] == [[], None]
    assert dataset.values("gt.detections.ffa_fallback")[0] == [False, False]
    assert summary.counts["done"] == 3
    assert (again.counts["done"], again.counts["skipped"]) == (0, 3)
    assert load_record(dataset, "gt_ffa")["config"]["object_route"] == route


def test_a_new_or_moved_detection_is_noticed(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(2))
    dataset.set_values("gt", [fo.Detections(detections=[fo.Detection(bounding_box=BOX)]) for _ in range(2)])
    ffa(dataset, objects_field="gt")

    sample = dataset.first()
    sample["gt"].detections.append(fo.Detection(bounding_box=[0, 0, 0.3, 0.3]))
    sample.save()
    summary = ffa(dataset, objects_field="gt")

    assert summary.counts == {"total": 2, "done": 1, "skipped": 1, "failed": 0}
    assert dataset.count("gt.detections.ffa") == 3


def test_a_broken_box_costs_only_itself_its_vector(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(1))
    boxes = [BOX, [0.5, 0.5, 0.0, 0.2], [2, 2, 0.1, 0.1], [0, 0, float("nan"), 1]]
    dataset.set_values("gt", [fo.Detections(detections=[fo.Detection(bounding_box=box) for box in boxes])])

    summary = ffa(dataset, objects_field="gt")

    assert [vector is None for vector in dataset.values("gt.detections.ffa")[0]] == [False, True, True, True]
    assert "3 of 4 boxes are empty" in dataset.first()["gt_ffa_error"]
    assert summary.counts == {"total": 1, "done": 0, "skipped": 0, "failed": 1}


def test_only_the_detections_of_a_filtered_view_are_embedded(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(1))
    dataset.set_values(
        "gt", [fo.Detections(detections=[fo.Detection(label=label, bounding_box=BOX) for label in "ab"])]
    )

    ffa(dataset.filter_labels("gt", F("label") == "b"), objects_field="gt")

    assert [vector is None for vector in dataset.values("gt.detections.ffa")[0]] == [True, False]


def test_similarity_and_visualization_are_made_on_request(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(12))

    summary = ffa(dataset, similarity_key="like", visualization_key="map")
    nearest = dataset.sort_by_similarity(dataset.first().id, k=3, brain_key="like")
    replaced = ffa(dataset, similarity_key="like", visualization_key="map")

    assert nearest.first().id == dataset.first().id
    assert dataset.get_brain_info("like").config.embeddings_field == "ffa"
    assert dataset.get_brain_info("map").config.method == "umap"
    assert np.isfinite(np.array(dataset.values("map_points"), float)).all()
    assert summary.details["similarity_key"] == "like"
    assert replaced.counts["done"] == 0
    assert not replaced.notices


def test_the_rate_is_that_of_the_images_whatever_follows_them(fo_dataset, photos, ffa, monkeypatch):
    dataset, pause = fo_dataset(photos(3)), 2.0

    def slow(self, samples, summary):
        time.sleep(pause)
        yield from ()

    monkeypatch.setattr(Followups, "run", slow)
    summary = ffa(dataset)

    record = load_record(dataset, "ffa")
    assert summary.seconds - summary.processing_seconds >= pause
    assert summary.images_per_second == 3 / summary.processing_seconds
    assert record["seconds"] - record["processing_seconds"] >= pause - 0.01


def test_samples_without_a_vector_are_left_out_of_brain_runs(fo_dataset, photos, ffa):
    paths = photos(5)
    paths[2].write_bytes(b"")
    dataset = fo_dataset(paths)

    summary = ffa(dataset, similarity_key="like", visualization_key="map")

    assert dataset.load_brain_results("like").total_index_size == 4
    assert len(dataset.load_brain_results("map").points) == 4
    assert any("few for UMAP" in notice for notice in summary.notices)
    assert dataset.values("map_points")[2] is None


@pytest.mark.parametrize("n", [1, 2, 3, 9, 10])
def test_a_map_of_a_handful_of_images_does_not_crash(fo_dataset, photos, ffa, n):
    dataset = fo_dataset(photos(n))

    summary = ffa(dataset, visualization_key="map")

    assert summary.counts["done"] == n
    assert dataset.has_brain_run("map") == (n >= 3)
    assert bool(summary.notices) == (n < 10)


def test_vectors_of_detections_can_be_searched_and_mapped(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(6))
    boxes = (BOX, [0, 0, 1, 1])
    labels = [fo.Detections(detections=[fo.Detection(bounding_box=box) for box in boxes]) for _ in range(6)]
    dataset.set_values("gt", labels)

    ffa(dataset, objects_field="gt", similarity_key="like", visualization_key="map")

    patches = dataset.to_patches("gt")
    assert len(patches.sort_by_similarity(patches.first().id, k=4, brain_key="like")) == 4
    assert dataset.load_brain_results("map").points.shape == (12, 2)


def test_brain_keys_of_others_are_not_taken(fo_dataset, photos, ffa):
    import fiftyone.brain as fob

    dataset = fo_dataset(photos(3))
    fob.compute_similarity(dataset, embeddings=np.eye(3), brain_key="mine", backend="sklearn")

    with pytest.raises(ConfigError, match="similarity_key='mine' is taken"):
        ffa(dataset, similarity_key="mine")
    with pytest.raises(ConfigError, match="not a valid brain key"):
        ffa(dataset, visualization_key="my map")
    with pytest.raises(ConfigError, match="must differ"):
        ffa(dataset, similarity_key="x", visualization_key="x")

    assert not dataset.has_field("ffa")
