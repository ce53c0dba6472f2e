"""The packaged set in a real FiftyOne dataset."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.fixtures.scenes.dataset import scenes_dataset
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER


@pytest.fixture(scope="module")
def dataset():
    """The packaged set as a dataset."""
    made = scenes_dataset(TINY_FOLDER)
    yield made
    made.delete()


def test_every_image_is_a_sample_with_its_protocol(dataset, tiny_scenes):
    assert len(dataset) == len(tiny_scenes)
    assert dataset.count_values("protocol").keys() == {image.protocol for image in tiny_scenes.values()}
    assert dataset.match_tags("pose").distinct("background") == ["plain"]


def test_detections_carry_mask_identity_and_pose(dataset, tiny_scenes):
    sample = dataset.match({"protocol": "in-the-wild", "background": "cluttered"}).first()
    image = tiny_scenes[sample.filename.rsplit(".", 1)[0]]
    subject = sample.objects.detections[0]

    assert (subject.label, subject.object_id) == (sample.category, sample.object_id)
    assert subject.azimuth_bin in range(8)
    x, y, width, height = (round(side * image.width) for side in subject.bounding_box)
    whole = np.zeros((image.height, image.width), bool)
    whole[y : y + height, x : x + width] = subject.mask
    np.testing.assert_array_equal(whole, image.instances() == 1)


def test_whole_objects_are_at_least_as_large_as_what_is_seen_of_them(dataset):
    for sample in dataset.match({"protocol": "cosalient"}):
        for seen, whole in zip(sample.objects.detections, sample.amodal.detections, strict=True):
            if seen.mask is not None:
                assert whole.mask.sum() >= seen.mask.sum()


def test_keypoints_have_names_and_say_which_are_visible(dataset, tiny_scenes):
    sample = dataset.match({"category": "quadruped", "protocol": "pairs"}).first()
    known = tiny_scenes[sample.filename.rsplit(".", 1)[0]].objects[0].keypoints
    label = sample.keypoints.keypoints[0]

    assert label.names == dataset.info["keypoint_names"]["quadruped"]
    for name, (x, _), visible in zip(label.names, label.points, label.visible, strict=True):
        if name in known:
            assert x == pytest.approx(known[name][0] / 128)
            assert visible == bool(known[name][2])
        else:
            assert math.isnan(x)
            assert not visible


def test_segmentations_and_surface_files_are_there(dataset):
    sample = dataset.first()

    assert sample.instances.get_mask().shape == sample.parts.get_mask().shape
    assert sample.surface_path.endswith(".png")
    assert set(np.unique(sample.instances.get_mask())) - {0}
