"""Left and right of one image exchanged wherever its annotation stands, and restored bit for bit."""

import bson
import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.keypoint_exchange import exchange_labels, exchanges, undo_exchange
from fiftyone_selfsame.fiftyone_plugin.pair_decisions import decide_pairs, undo_pair_decision
from fiftyone_selfsame.fiftyone_plugin.pairs import PairSpec, build_pairs

CAT = {"left eye": (20, 20), "right eye": (60, 20), "left paw": (20, 80), "nose": (40, 40)}
NAMES = ["left eye", "right eye", "left paw", "right paw", "nose"]


@pytest.fixture
def star(stored, shot, match):
    """Three pictures of a cat without a right paw; the first is in two pairs, once on either side."""
    return stored([shot(CAT)] * 3, [match(0, 1, CAT), match(2, 0, CAT)])


def points(sample):
    """Places in pixels by name, of those that are seen."""
    (label,) = sample.points.keypoints
    places = np.array(label.points, float) * 100
    return {name: tuple(place.round()) for name, place in zip(NAMES, places, strict=True) if np.isfinite(place).all()}


def raw(*datasets):
    """All labels as the database has them, bit by bit."""
    return [
        bson.encode({"value": document["points"]})
        for dataset in datasets
        for document in dataset._sample_collection.find().sort("_id", 1)
    ]


def shown(dataset, pairs):
    """Places of every original and every member of a pair, by file name."""
    found = {}
    for sample in [*dataset, *pairs.select_group_slices()]:
        found.setdefault(sample.filename, []).append(points(sample))
    return found


def test_all_partners_are_exchanged_wherever_the_image_stands(star):
    dataset, pairs = star
    before = shown(dataset, pairs)
    pair_id = pairs.values("pair_id")[0]
    made = exchange_labels(pairs, pair_id, "source")
    assert made.couples == (("left eye", "right eye"), ("left paw", "right paw"))
    assert (made.sample_id, made.field, made.pairs) == (dataset.first().id, "points", 2)
    expected = {"left eye": (60, 20), "right eye": (20, 20), "right paw": (20, 80), "nose": (40, 40)}
    after = shown(dataset, pairs)
    assert after["shot00.png"] == [expected] * 3
    assert {name: after[name] for name in ("shot01.png", "shot02.png")} == {
        name: before[name] for name in ("shot01.png", "shot02.png")
    }


def test_a_round_trip_is_equal_to_the_last_bit(star):
    dataset, pairs = star
    before = raw(dataset, pairs)
    exchange_labels(pairs, pairs.values("pair_id")[1], "target", ("right eye", "left eye"))
    assert points(dataset.first())["left eye"] == (60, 20)
    assert points(dataset.first())["left paw"] == (20, 80)
    assert raw(dataset, pairs) != before
    undo_exchange(pairs)
    assert raw(dataset, pairs) == before
    # Twice is none at all, too.
    for _ in range(2):
        exchange_labels(pairs, pairs.values("pair_id")[0], "source")
    assert raw(dataset, pairs) == before


def test_exchanges_are_undone_one_after_the_other(star):
    dataset, pairs = star
    first, second = pairs.values("pair_id")
    start = raw(dataset, pairs)
    exchange_labels(pairs, first, "source", ["left eye", "right eye"])
    between = raw(dataset, pairs)
    exchange_labels(pairs, second, "source")
    decide_pairs(pairs, [first], "accept")
    assert [(one.pair_id, one.side) for one in exchanges(pairs)] == [(first, "source"), (second, "source")]
    assert undo_exchange(pairs).pair_id == second
    assert raw(dataset, pairs) == between
    assert undo_exchange(pairs).couples == (("left eye", "right eye"),)
    assert raw(dataset, pairs) == start
    assert exchanges(pairs) == []
    with pytest.raises(ConfigError, match="there is no exchange of labels"):
        undo_exchange(pairs)
    assert undo_pair_decision(pairs) == [first]


@pytest.mark.parametrize("where", ["original", "pair"])
def test_a_label_that_somebody_has_changed_since_is_refused(star, where):
    dataset, pairs = star
    exchange_labels(pairs, pairs.values("pair_id")[0], "source")
    sample = dataset.first() if where == "original" else pairs.select_group_slices("target").last()
    sample.points.keypoints[0].points[4] = [0.5, 0.5]
    sample.save()
    left = raw(dataset, pairs)
    place = "the original sample" if where == "original" else "pair '"
    with pytest.raises(ConfigError, match=rf"shot00\.png: somebody has changed 'points' of {place}"):
        undo_exchange(pairs)
    assert raw(dataset, pairs) == left
    with pytest.raises(ConfigError, match="differs from that of pair"):
        exchange_labels(pairs, pairs.values("pair_id")[0], "source")
    assert raw(dataset, pairs) == left
    assert len(exchanges(pairs)) == 1


def test_an_exchange_that_was_broken_off_can_be_undone(star):
    dataset, pairs = star
    before, original = raw(dataset, pairs), dataset.first().points.copy()
    exchange_labels(pairs, pairs.values("pair_id")[0], "source")
    document = dataset._sample_collection.find_one({"_id": dataset.first()._id})
    untouched = bson.decode(before[0])["value"]
    assert document["points"] != untouched
    dataset._sample_collection.update_one({"_id": document["_id"]}, {"$set": {"points": untouched}})
    undo_exchange(pairs)
    assert raw(dataset, pairs) == before
    dataset.reload()
    np.testing.assert_array_equal(dataset.first().points.keypoints[0].points, original.keypoints[0].points)


def test_points_that_are_named_one_by_one_change_their_names(stored, shot, match):
    dataset, pairs = stored([shot(CAT)] * 2, [match(0, 1, CAT)])
    for sample in [*dataset, *pairs.select_group_slices()]:
        names = ["left eye", "right eye", "left paw"] if "shot00" in sample.filepath else NAMES
        sample["named"] = fo.Keypoints(
            keypoints=[fo.Keypoint(label=name, points=[[0.1 * NAMES.index(name), 0.5]]) for name in names]
        )
        sample.save()
    exchange_labels(pairs, pairs.values("pair_id")[0], "source", keypoints="named")
    for sample in (dataset.first(), pairs.select_group_slices("source").first()):
        found = {label.label: label.points[0][0] for label in sample.named.keypoints}
        # Only the left paw was there; that the right one exists, the skeleton knows.
        assert found == pytest.approx({"right eye": 0.0, "left eye": 0.1, "right paw": 0.2})


def test_what_belongs_to_a_point_goes_with_it(star):
    dataset, pairs = star
    for sample in [*dataset, *pairs.select_group_slices()]:
        label = sample.points.keypoints[0]
        label.confidence = [0.1, 0.2, 0.3, 0.4, 0.5]
        label["occluded"] = [True, False, False, False, False]
        label.tags = list("abcde")
        sample.save()
    exchange_labels(pairs, pairs.values("pair_id")[0], "source", ("left eye", "right eye"))
    dataset.reload()
    label = dataset.first().points.keypoints[0]
    assert label.confidence == [0.2, 0.1, 0.3, 0.4, 0.5]
    assert label["occluded"] == [False, True, False, False, False]
    assert label.tags == list("abcde")


def test_pairs_outlive_their_originals(star):
    dataset, pairs = star
    exchange_labels(pairs, pairs.values("pair_id")[0], "source")
    dataset.delete()
    assert points(pairs.select_group_slices("source").first())["left eye"] == (60, 20)
    undo_exchange(pairs)
    assert points(pairs.select_group_slices("source").first())["left eye"] == (20, 20)
    # The skeleton went with them: points have numbers now.
    exchange_labels(pairs, pairs.values("pair_id")[0], "source", couples="0 = 1")
    assert points(pairs.select_group_slices("source").first())["left eye"] == (60, 20)


def test_pairs_with_an_older_copy_are_left_alone_and_refused(stored, shot, match):
    dataset, pairs = stored([shot(CAT)] * 2, [match(0, 1, CAT)])
    second = create_pairs(dataset, name="again", pairs=[tuple(dataset.values("id"))], fields=["points"])
    try:
        exchange_labels(pairs, pairs.values("pair_id")[0], "source")
        # Pairs that hold an older copy are not changed behind anybody's back.
        assert points(second.select_group_slices("source").first())["left eye"] == (20, 20)
        with pytest.raises(ConfigError, match="the original sample differs from that of pair"):
            exchange_labels(second, second.values("pair_id")[0], "source", keypoints="points")
    finally:
        second.delete()


def test_of_two_datasets_only_that_of_the_side_is_changed(stored, shot, match):
    first, second = (stored([shot(CAT)] * 2, [match(0, 1, CAT)])[0] for _ in range(2))
    chosen = [PairSpec(first.first().id, second.first().id)]
    pairs = build_pairs(first, chosen, name="both", key="k", made_by={}, target_origin=second, fields=["points"])
    try:
        exchange_labels(pairs, pairs.first().pair_id, "target", ("left eye", "right eye"), keypoints="points")
        assert points(second.first())["left eye"] == (60, 20)
        assert points(pairs.select_group_slices("target").first())["left eye"] == (60, 20)
        for untouched in (first.first(), pairs.select_group_slices("source").first()):
            assert points(untouched)["left eye"] == (20, 20)
        undo_exchange(pairs)
        assert points(second.first())["left eye"] == (20, 20)
    finally:
        pairs.delete()


def test_a_field_may_hold_one_object_alone(stored, shot, match):
    dataset, pairs = stored([shot(CAT)] * 2, [match(0, 1, CAT)])
    for sample in [*dataset, *pairs.select_group_slices()]:
        sample["one"] = sample.points.keypoints[0].copy()
        sample.save()
    exchange_labels(pairs, pairs.values("pair_id")[0], "target", ("left paw", "right paw"), keypoints="one")
    for sample in (dataset.last(), pairs.select_group_slices("target").first()):
        assert np.isnan(sample.one.points[2]).all()
        assert sample.one.points[3] == [0.2, 0.8]


def test_requests_that_cannot_work_are_refused(star):
    dataset, pairs = star
    pair_id = pairs.values("pair_id")[0]
    before = raw(dataset, pairs)
    for arguments, message in (
        ((pair_id, "left"), "side='left' is unknown"),
        (("nothing", "source"), "has no pair 'nothing'"),
        ((pair_id, "source", ("left eye", "nose")), r"\('left eye', 'nose'\) are no two mirror partners"),
        ((pair_id, "source", []), "no two mirror partners; there are left eye = right eye; left paw = right paw"),
        ((pair_id, "source", "left eye"), "no two mirror partners"),
    ):
        with pytest.raises(ConfigError, match=message):
            exchange_labels(pairs, *arguments)
    with pytest.raises(ConfigError, match="fields with keypoints: points"):
        exchange_labels(pairs, pair_id, "source", keypoints="spots")
    with pytest.raises(ConfigError, match="holds no pairs"):
        exchange_labels(dataset, pair_id, "source")
    assert raw(dataset, pairs) == before
    pairs.delete_run("corr")
    with pytest.raises(ConfigError, match="name their field with keypoints="):
        exchange_labels(pairs, pair_id, "source")
