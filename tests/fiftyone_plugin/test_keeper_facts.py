"""Rules for keepers that depend on the dataset: order, dates, labels and masks."""

from datetime import datetime
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.keeper import KeeperPolicy
from fiftyone_selfsame.fiftyone_plugin.compute import compute_foreground
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates
from fiftyone_selfsame.fiftyone_plugin.keeper_facts import keeper_scores
from PIL import Image

MEASURES = {"pixels": 256, "sharpness": 0.5, "exposure": 0.5, "file_size": 100}


@pytest.fixture
def dataset(vector_dataset):
    return vector_dataset([(1, 0.01 * number) for number in range(3)])


def best(dataset, rule, policy=None, measures=(MEASURES,) * 3):
    """Which sample has the highest score."""
    ids = dataset.values("id")
    return int(np.argmax(keeper_scores(dataset, ids, list(measures), policy or KeeperPolicy(), rule)))


def test_the_first_is_the_first_of_the_dataset_and_the_largest_has_most_pixels(dataset):
    larger = {**MEASURES, "pixels": 512}

    assert best(dataset, "first") == 0
    assert best(dataset, "largest", measures=[MEASURES, larger, MEASURES]) == 1


def test_the_newest_goes_by_a_date_of_the_users_and_else_by_when_samples_were_added(dataset):
    added = keeper_scores(dataset, dataset.values("id"), [MEASURES] * 3, KeeperPolicy(), "newest")
    assert np.isfinite(added).all()

    dataset.add_sample_field("captured", fo.DateTimeField)
    dataset.set_values("captured", [datetime(2020, 1, 1), datetime(2024, 1, 1), None])

    assert best(dataset, "newest") == 1


def test_the_first_is_that_of_the_dataset_in_any_view(dataset):
    backwards = dataset.sort_by("filepath", reverse=True)
    ids = dataset.values("id")

    scores = keeper_scores(backwards, [ids[2], ids[0], ids[0]], [MEASURES] * 3, KeeperPolicy(), "first")

    assert scores.tolist() == [-2.0, 0.0, 0.0]


@pytest.mark.parametrize("path", ["captured", "shot_on", "exif.DateTimeOriginal"])
def test_a_date_of_capture_goes_before_other_dates_and_empty_ones(dataset, path):
    dataset.add_sample_field("date_empty", fo.DateTimeField)
    dataset.add_sample_field("reviewed_at", fo.DateTimeField)
    dataset.set_values("reviewed_at", [datetime(2023, 1, day) for day in (3, 2, 1)])
    if "." in path:
        dataset.add_sample_field("exif", fo.EmbeddedDocumentField, embedded_doc_type=fo.DynamicEmbeddedDocument)
    dataset.add_sample_field(path, fo.DateTimeField)
    dataset.set_values(path, [datetime(1970, 1, 1), datetime(1970, 1, 2), None])

    scores = keeper_scores(dataset, dataset.values("id"), [MEASURES] * 3, KeeperPolicy(), "newest")

    assert scores[:2].tolist() == [0.0, 86400.0]
    assert np.isfinite(scores[2])
    assert scores[2] < 0


def test_an_updated_at_is_no_date_of_capture(dataset):
    for name, days in (("updated_at", (3, 2, 1)), ("captured", (1, 3, 2))):
        dataset.add_sample_field(name, fo.DateTimeField)
        dataset.set_values(name, [datetime(2023, 1, day) for day in days])

    assert best(dataset, "newest") == 1


def test_regions_and_masks_of_our_own_are_no_labels(dataset):
    boxes = fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1])] * 2)
    dataset.set_values("kind", [None, fo.Classification(label="x"), None])
    dataset.set_values("regions", [boxes, None, None])
    field = dataset.get_field("regions")
    field.info = {"method": "compute_claid_regions"}
    field.save()

    scores = keeper_scores(dataset, dataset.values("id"), [MEASURES] * 3, KeeperPolicy(), "most_labels")

    assert scores.tolist() == [0.0, 1.0, 0.0]


def test_most_labels_counts_those_of_all_fields(dataset):
    boxes = [fo.Detection(label="a", bounding_box=[0, 0, 1, 1]) for _ in range(3)]
    dataset.set_values("boxes", [None, None, fo.Detections(detections=boxes)])
    dataset.set_values("kind", [fo.Classification(label="x"), fo.Classification(label="y"), None])
    filled = KeeperPolicy(resolution=0, sharpness=0, exposure=0, file_size=0, labels=1.0)

    assert best(dataset, "most_labels") == 2
    scores = keeper_scores(dataset, dataset.values("id"), [MEASURES] * 3, filled, "quality")
    assert scores.tolist() == [0.5, 0.5, 0.5]


def test_more_foreground_counts_where_there_are_masks(dataset, tmp_path):
    policy = KeeperPolicy(foreground=4.0)
    assert best(dataset, "quality", policy) == 0
    masks = []
    for name, columns in (("small", 2), ("large", 6)):
        mask = np.zeros((8, 8), np.uint8)
        mask[:, :columns] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        masks.append(fo.Segmentation(mask_path=str(tmp_path / f"{name}.png")))
    dataset.add_sample_field("mask", fo.EmbeddedDocumentField, embedded_doc_type=fo.Segmentation)
    field = dataset.get_field("mask")
    field.info = {"method": "compute_foreground"}
    field.save()
    dataset.set_values("mask", [*masks, fo.Segmentation(mask_path=str(tmp_path / "absent.png"))])

    ids = dataset.values("id")
    scores = keeper_scores(dataset, ids, [MEASURES] * 3, policy, "quality")

    assert (scores - scores[2]).tolist() == [1.0, 3.0, 0.0]


def test_the_foreground_that_we_computed_counts_with_or_without_its_mask_files(fo_dataset, photos):
    dataset = fo_dataset(photos(3))
    compute_foreground(dataset, "grabcut", device="cpu", progress=False)
    expected = [float((sample["foreground"].get_mask() > 0).mean()) for sample in dataset]
    only_foreground = KeeperPolicy(resolution=0, sharpness=0, exposure=0, file_size=0, foreground=1.0)
    ids = dataset.values("id")

    dataset.set_values("foreground_fraction", {ids[0]: None}, key_field="id")
    Path(dataset[ids[1]]["foreground"].mask_path).unlink()
    scores = keeper_scores(dataset, ids, [MEASURES] * 3, only_foreground, "quality")

    assert min(expected) > 0
    assert scores == pytest.approx(expected, abs=1e-6)


def test_what_cannot_be_measured_is_kept_last_whatever_the_rule(dataset):
    for rule in ("first", "largest", "newest", "most_labels", "quality"):
        scores = keeper_scores(dataset, dataset.values("id"), [None, MEASURES, MEASURES], KeeperPolicy(), rule)
        assert scores[0] == -np.inf
        assert np.isfinite(scores[1:]).all()


def test_a_search_keeps_by_the_rule_it_is_given(dataset):
    dataset.add_sample_field("captured", fo.DateTimeField)
    dataset.set_values("captured", [datetime(2020, 1, 1), datetime(2021, 1, 1), datetime(2022, 1, 1)])

    find_duplicates(dataset, threshold=0.99, keeper_rule="newest", progress=False)

    assert dataset.values("dup_role") == ["duplicate", "duplicate", "keeper"]
