"""Keypoints as users keep them: in the order of a skeleton or by label, with names, partners and gaps."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.keypoint_inputs import KeypointsInput

NAMES = ["left eye", "right eye", "nose"]
NAN = [float("nan"), float("nan")]


@pytest.fixture
def keypoints(fo_dataset, photos):
    """A factory of datasets with these labels in ``points``, one sample per label."""

    def make(labels, names=None):
        dataset = fo_dataset(photos(len(labels)))
        if names:
            dataset.default_skeleton = fo.KeypointSkeleton(labels=names, edges=[])
        dataset.set_values("points", labels)
        return dataset

    return make


def in_order(*points, label="cat"):
    return fo.Keypoints(keypoints=[fo.Keypoint(label=label, points=list(points))])


def by_label(**points):
    return fo.Keypoints(keypoints=[fo.Keypoint(label=name, points=[point]) for name, point in points.items()])


def read_all(dataset, reader):
    """What the reader makes of each sample."""
    rows = zip(*dataset.values(reader.paths), strict=True)
    return [reader.read(dict(zip(reader.paths, row, strict=True))) for row in rows]


def test_points_in_the_order_of_a_skeleton_have_its_names_and_gaps(keypoints):
    dataset = keypoints([in_order([0.1, 0.2], NAN, [0.5, 0.6]), None, in_order(NAN, [0.3, 0.3], NAN)], NAMES)
    reader = KeypointsInput(dataset, "points")
    first, empty, last = read_all(dataset, reader)
    assert first.places == {"left eye": (0.1, 0.2), "nose": (0.5, 0.6)}
    assert (first.names, first.category, empty) == (tuple(NAMES), "cat", None)
    pair = reader.pair(first, last)
    np.testing.assert_array_equal(pair.source, [[0.1, 0.2], NAN, [0.5, 0.6]])
    np.testing.assert_array_equal(pair.target, [NAN, [0.3, 0.3], NAN])
    assert pair.groups.permutation.tolist() == [1, 0, 2]
    assert (pair.category, pair.annotated) == ("cat", True)
    assert not reader.pair(first, empty).annotated


def test_a_single_keypoint_label_will_do(keypoints):
    dataset = keypoints([fo.Keypoint(label="cat", points=[[0.1, 0.2], [0.3, 0.4]])])
    (found,) = read_all(dataset, KeypointsInput(dataset, "points"))
    assert found.places == {"0": (0.1, 0.2), "1": (0.3, 0.4)}


def test_points_with_labels_of_their_own_meet_by_name(keypoints):
    dataset = keypoints([by_label(nose=[0.1, 0.1], ear_l=[0.2, 0.2]), by_label(ear_r=[0.3, 0.3], nose=[0.4, 0.4])])
    reader = KeypointsInput(dataset, "points")
    pair = reader.pair(*read_all(dataset, reader))
    assert pair.groups.names == ("nose", "ear_l", "ear_r")
    np.testing.assert_array_equal(pair.source, [[0.1, 0.1], [0.2, 0.2], NAN])
    np.testing.assert_array_equal(pair.target, [[0.4, 0.4], NAN, [0.3, 0.3]])
    assert pair.groups.couples == (("ear_l", "ear_r"),)
    assert pair.category == ""


def test_names_come_from_the_first_dataset_that_has_them(keypoints):
    dataset = keypoints([in_order([0.1, 0.2], NAN, [0.5, 0.6])])
    original = keypoints([in_order(NAN, NAN, NAN)], NAMES)
    assert KeypointsInput(dataset, "points").skeleton is None
    assert KeypointsInput(dataset, "points", skeletons_of=[original]).skeleton == tuple(NAMES)
    dataset.skeletons = {"points": fo.KeypointSkeleton(labels=["a", "b", "c"], edges=[])}
    assert KeypointsInput(dataset, "points", skeletons_of=[original]).skeleton == ("a", "b", "c")


@pytest.mark.parametrize("couples", ["0 = 2", [("0", "2")], [["0", "2"]]])
def test_partners_can_be_told(keypoints, couples):
    dataset = keypoints([in_order([0.1, 0.2], [0.3, 0.4], [0.5, 0.6])])
    reader = KeypointsInput(dataset, "points", couples)
    groups = reader.pair(*read_all(dataset, reader), None).groups
    assert groups.permutation.tolist() == [2, 1, 0]
    assert groups.parts == (("0", "2"),)


def test_couples_that_cannot_work_are_refused_before_any_work(keypoints):
    dataset = keypoints([in_order([0.1, 0.2], NAN, NAN)], NAMES)
    with pytest.raises(ConfigError, match="no keypoint is called 'left ear'"):
        KeypointsInput(dataset, "points", [("left ear", "nose")])
    with pytest.raises(ConfigError, match="is no couple"):
        KeypointsInput(dataset, "points", [("left eye", "right eye", "nose")])
    with pytest.raises(ConfigError, match="is no mirror couple"):
        KeypointsInput(dataset, "points", "left eye, right eye")


def test_fields_of_another_kind_are_refused_with_those_that_would_do(keypoints):
    dataset = keypoints([in_order([0.1, 0.2])])
    dataset.set_values("box", [fo.Detections()])
    for field in ("box", "nothing"):
        with pytest.raises(ConfigError, match=f"keypoints='{field}' is no field with keypoints.*: points"):
            KeypointsInput(dataset, field)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (in_order([0.1, 0.2], [0.3, 0.4]), "2 points, but its skeleton names 3"),
        (fo.Keypoints(keypoints=[fo.Keypoint(points=[[0.1, 0.2], NAN, NAN]) for _ in range(2)]), "2 objects"),
        (by_label(ear=[0.1, 0.2]), "the skeleton has no keypoint 'ear'"),
        (
            fo.Keypoints(keypoints=[fo.Keypoint(label="nose", points=[[0.1, x]]) for x in (0.2, 0.3)]),
            "'nose' stands twice",
        ),
    ],
)
def test_labels_that_cannot_be_told_apart_say_why(keypoints, label, message):
    dataset = keypoints([label], NAMES)
    with pytest.raises(ConfigError, match=message):
        read_all(dataset, KeypointsInput(dataset, "points"))


def test_the_stamp_follows_points_names_and_couples(keypoints):
    dataset = keypoints([in_order([0.1, 0.2], NAN, NAN), in_order([0.1, 0.3], NAN, NAN)], NAMES)

    def stamps(**options):
        reader = KeypointsInput(dataset, "points", **options)
        rows = zip(*dataset.values(reader.paths), strict=True)
        return [reader.stamp(dict(zip(reader.paths, row, strict=True))) for row in rows]

    before = stamps()
    assert before == stamps()
    assert before[0] != before[1]
    assert before[0] != stamps(couples=[("left eye", "nose")])[0]
