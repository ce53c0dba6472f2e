"""PCK with its flavour: cases worked by hand, the definitions written out as loops, flips and permutations."""

import math

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.pck import (
    EvaluatedPair,
    PckFlavour,
    geometry_aware,
    mirror_pair_in_source,
    opposite_half,
    pair_verdicts,
    pck,
    pck_table,
    pose_sensitivity,
)
from hypothesis import given
from hypothesis import strategies as st

ALPHAS = (0.05, 0.1, 0.3)
FLAVOURS = [
    PckFlavour(alpha, average, threshold, points, exclusive)
    for alpha in ALPHAS
    for average in ("image", "point")
    for threshold in ("box", "image")
    for points in ("all", "geometry_aware")
    for exclusive in (False, True)
]


def _pair(predictions, targets=None, source=None, target=None, groups=None, **more):
    """Everything visible, every keypoint alone in its group, in a box of 100 by 50 of an image of 200 by 100."""
    size = len(predictions)
    return EvaluatedPair(
        np.array(predictions, float),
        np.array([[0, 0]] * size if targets is None else targets, float),
        np.ones(size, bool) if source is None else np.array(source, bool),
        np.ones(size, bool) if target is None else np.array(target, bool),
        np.arange(size) if groups is None else np.array(groups),
        **{"box_wh": (100, 50), "image_wh": (200, 100), **more},
    )


@st.composite
def pairs(draw, size=6):
    coordinates = st.lists(st.integers(0, 40), min_size=2 * size, max_size=2 * size)
    flags = st.lists(st.booleans(), min_size=size, max_size=size)
    places = [np.array(draw(coordinates), float).reshape(size, 2) for _ in range(2)]
    return EvaluatedPair(
        *places,
        np.array(draw(flags)),
        np.array(draw(flags)),
        np.array(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))),
        box_wh=(draw(st.integers(1, 80)), draw(st.integers(1, 80))),
        image_wh=(100, 90),
        category=draw(st.sampled_from(["cat", "dog"])),
        azimuth_difference=draw(st.sampled_from([None, 0, 3])),
    )


def _loop(pair, flavour):
    """Verdicts of a pair by the words of the definition."""
    length = flavour.alpha * max(pair.box_wh if flavour.threshold == "box" else pair.image_wh)
    verdicts = []
    for i in range(len(pair.targets)):
        if not (pair.source_visible[i] and pair.target_visible[i]):
            continue
        mates = [
            j
            for j in range(len(pair.targets))
            if j != i and pair.groups[j] == pair.groups[i] and pair.target_visible[j]
        ]
        if flavour.points == "geometry_aware" and not mates:
            continue
        own = math.dist(pair.predictions[i], pair.targets[i])
        others = [
            math.dist(pair.predictions[i], pair.targets[j]) for j in range(len(pair.targets)) if pair.target_visible[j]
        ]
        verdicts.append(own < length and (not flavour.exclusive or own <= min(others)))
    return verdicts


def _averaged(lists, average):
    lists = [one for one in lists if one]
    if not lists:
        return math.nan
    if average == "image":
        return sum(sum(one) / len(one) for one in lists) / len(lists)
    return sum(map(sum, lists)) / sum(map(len, lists))


@given(st.lists(pairs(), max_size=4), st.sampled_from(FLAVOURS))
def test_every_flavour_is_the_loop_over_its_definition(some, flavour):
    expected = [_loop(pair, flavour) for pair in some]

    result = pck(some, flavour)

    assert [pair_verdicts(pair, flavour).tolist() for pair in some] == expected
    np.testing.assert_allclose(result.value, _averaged(expected, flavour.average))
    assert (result.n_points, result.n_images) == (sum(map(len, expected)), sum(map(bool, expected)))
    assert result.flavour == flavour


@given(st.lists(pairs(), max_size=5), st.sampled_from(FLAVOURS))
def test_a_table_holds_the_pck_of_each_part_of_the_pairs(some, flavour):
    for row in pck_table(some, [flavour]):
        part = [
            pair
            for pair in some
            if row.category in (None, pair.category) and row.azimuth_difference in (None, pair.azimuth_difference)
        ]
        np.testing.assert_equal(row.value, pck(part, flavour).value)
    kinds = {(row.category, row.azimuth_difference) for row in pck_table(some, [flavour])}
    turns = {pair.azimuth_difference for pair in some} - {None}
    assert kinds == {(None, None), *((pair.category, None) for pair in some), *((None, turn) for turn in turns)}


@given(pairs(), st.permutations(range(6)), st.sampled_from(FLAVOURS))
def test_the_order_of_the_slots_does_not_matter(pair, order, flavour):
    moved = EvaluatedPair(
        *(
            getattr(pair, name)[list(order)]
            for name in ("predictions", "targets", "source_visible", "target_visible", "groups")
        ),
        box_wh=pair.box_wh,
        image_wh=pair.image_wh,
    )

    assert pck([moved], flavour).value == pytest.approx(pck([pair], flavour).value, nan_ok=True)


@given(pairs(), st.sampled_from(FLAVOURS))
def test_mirroring_the_target_picture_changes_nothing(pair, flavour):
    def mirrored(points):
        return np.stack([100 - points[:, 0], points[:, 1]], 1)

    turned = EvaluatedPair(
        mirrored(pair.predictions),
        mirrored(pair.targets),
        pair.source_visible,
        pair.target_visible,
        pair.groups,
        pair.box_wh,
        pair.image_wh,
    )

    np.testing.assert_array_equal(pair_verdicts(turned, flavour), pair_verdicts(pair, flavour))


def test_the_threshold_is_a_share_of_the_box_or_of_the_image():
    pair = _pair([[0, 9.9], [0, 10], [0, 19.9], [0, 20]])

    assert pair_verdicts(pair, PckFlavour(0.1)).tolist() == [True, False, False, False]
    assert pair_verdicts(pair, PckFlavour(0.1, threshold="image")).tolist() == [True, True, True, False]


def test_per_image_and_per_point_differ():
    few, many = _pair([[0, 0]]), _pair([[0, 0], [50, 0], [50, 0], [50, 0]])

    assert pck([few, many], PckFlavour(average="image")).value == pytest.approx((1 + 1 / 4) / 2)
    assert pck([few, many], PckFlavour(average="point")).value == pytest.approx(2 / 5)


def test_an_exclusive_pck_asks_for_the_own_place_among_all_of_the_target():
    # The first keypoint lies nearest to the second, which the source does not show.
    pair = _pair([[6, 0], [8, 0]], [[0, 0], [8, 0]], source=[True, False])

    assert pair_verdicts(pair, PckFlavour()).tolist() == [True]
    assert pair_verdicts(pair, PckFlavour(exclusive=True)).tolist() == [False]


def test_a_prediction_that_is_missing_is_wrong():
    pair = _pair([[np.nan, np.nan], [0, 0]])

    for exclusive in (False, True):
        assert pair_verdicts(pair, PckFlavour(exclusive=exclusive)).tolist() == [False, True]


def test_geometry_aware_needs_a_mate_in_the_target_whether_or_not_the_source_shows_it():
    groups = np.array([0, 0, 1, 2, 2])
    source = np.array([True, False, True, True, True])
    target = np.array([True, True, True, True, False])

    assert geometry_aware(groups, source, target).tolist() == [True, False, False, False, False]


def test_pairs_without_a_geometry_aware_point_are_skipped():
    aware, plain = _pair([[0, 0], [50, 0]], groups=[0, 0]), _pair([[50, 0], [50, 0]])

    result = pck([aware, plain], PckFlavour(points="geometry_aware"))

    assert (result.value, result.n_images, result.n_points) == (0.5, 1, 2)


def test_a_mirror_pair_in_the_source_needs_a_partner_that_it_shows():
    partners = np.array([1, 0, 2, 4, 3])
    source = np.array([True, True, True, True, False])
    target = np.array([True, False, True, True, True])

    assert mirror_pair_in_source(partners, source, target).tolist() == [True, False, False, False, False]


def test_halves_of_the_circle():
    assert opposite_half(np.array([0, 3, 4]), np.array([3, 4, 7])).tolist() == [False, True, False]


def test_pose_sensitivity_is_the_gap_as_a_share_of_the_best():
    assert pose_sensitivity([0.8, 0.6, 0.4]) == pytest.approx(0.5)
    assert pose_sensitivity([0.8, math.nan, 0.6]) == pytest.approx(0.25)
    assert math.isnan(pose_sensitivity([0.8, math.nan]))
    assert math.isnan(pose_sensitivity([0.0, 0.0]))


def test_a_value_says_which_pck_it_is():
    (result, *_) = pck_table([_pair([[0, 0]], category="cat")], [PckFlavour(0.05, "point", "image", exclusive=True)])

    assert str(result) == "PCK†@0.05 per point, image threshold: 100.0 % (1 points of 1 pairs)"
    assert result.as_row()["metric"] == result.flavour.label
    assert PckFlavour(points="geometry_aware").label == "PCK@0.1 per image, box threshold, geometry-aware points"


def test_no_two_flavours_share_a_key_or_a_label():
    flavours = [*FLAVOURS, PckFlavour(0.1000001), PckFlavour(1), PckFlavour(0.00001)]

    assert len({one.key for one in flavours}) == len({one.label for one in flavours}) == len(flavours)
    assert all(one.key.isidentifier() for one in flavours)
    assert PckFlavour(1).key == PckFlavour(1.0).key


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 0}, {"alpha": math.nan}, {"average": "pair"}, {"threshold": "bbox"}, {"points": "some"}],
)
def test_a_flavour_that_there_is_not_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PckFlavour(**wrong)


def test_pairs_that_cannot_be_judged_are_refused():
    with pytest.raises(ConfigError, match="has no target box"):
        pck([_pair([[0, 0]], box_wh=None)], PckFlavour())
    with pytest.raises(ConfigError, match="no extent"):
        pck([_pair([[0, 0]], box_wh=(0, 0))], PckFlavour())
    with pytest.raises(ConfigError, match=r"\(K, 2\)"):
        _pair([[0, 0]], [[0, 0], [1, 1]])
    with pytest.raises(ConfigError, match="no finite place"):
        _pair([[0, 0]], [[np.nan, 0]])
