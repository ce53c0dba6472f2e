"""Rules for keepers that depend on the dataset: order, dates, labels and masks."""

from datetime import datetime

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.keeper import KeeperPolicy
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
