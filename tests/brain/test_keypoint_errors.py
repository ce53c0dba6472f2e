"""Types of keypoint errors: each rule by hand, the rules as a loop, flips and permutations, and their tables."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics.keypoint_error_table import error_table, inversion_table
from fiftyone_selfsame.brain.metrics.keypoint_errors import ERROR_TYPES, NOT_IN_TARGET, ErrorFlavour, judge_pair
from fiftyone_selfsame.brain.metrics.pck import EvaluatedPair, PckFlavour, pair_verdicts
from hypothesis import given
from hypothesis import strategies as st

# Left and right ear, left and right front and back paw (one group), nose.
PARTNERS = np.array([1, 0, 3, 2, 5, 4, 6])
GROUPS = np.array([0, 0, 1, 1, 1, 1, 2])
PLACES = np.array([[20, 0], [80, 0], [20, 100], [80, 100], [0, 200], [100, 200], [50, 50]], float)
K = len(PLACES)


def _pair(predictions, source=None, target=None, **more):
    """T is 10: a tenth of a box of 100."""
    seen = [np.ones(K, bool) if one is None else np.array(one, bool) for one in (source, target)]
    return EvaluatedPair(np.array(predictions, float), PLACES, *seen, GROUPS, **{"box_wh": (100, 80), **more})


def _with(**places):
    """The true places but for those given by slot: ``_with(s0=(1, 2))``."""
    predictions = PLACES.copy()
    for slot, place in places.items():
        predictions[int(slot[1:])] = place
    return predictions


@st.composite
def pairs(draw):
    coordinates = st.lists(st.integers(0, 24), min_size=2 * K, max_size=2 * K)
    flags = st.lists(st.booleans(), min_size=K, max_size=K)
    predictions, targets = (np.array(draw(coordinates), float).reshape(K, 2) for _ in range(2))
    predictions[draw(st.lists(st.integers(0, K - 1), max_size=2))] = np.nan
    return EvaluatedPair(
        predictions,
        targets,
        np.array(draw(flags)),
        np.array(draw(flags)),
        GROUPS,
        (draw(st.integers(10, 100)), 10),
    )


def _type(i, pair, threshold, box):
    """The rules of the notes in their order, for one slot that the source shows."""
    p, shown = pair.predictions[i], [j for j in range(K) if pair.target_visible[j]]
    missing = bool(np.isnan(p).any())
    distance = {j: math.inf if missing else math.dist(p, pair.targets[j]) for j in shown}
    partner, mates = PARTNERS[i], [j for j in shown if GROUPS[j] == GROUPS[i] and j != i]
    if i not in shown:
        if partner != i and distance.get(partner, math.inf) < threshold:
            return "phantom_mirror"
        return "phantom_group" if any(distance[j] < threshold for j in mates) else "not_in_target"
    least = min(distance.values())
    nearest = [j for j in shown if distance[j] == least]
    if distance[i] < threshold:
        return "correct" if i in nearest else "correct_ambiguous"
    if least < threshold:
        if partner != i and partner in nearest:
            return "swap_mirror"
        return "swap_group" if set(mates) & set(nearest) else "swap_other"
    if distance[i] < 2 * threshold:
        return "jitter"
    x0, y0, x1, y1 = box
    return "miss_object" if not missing and x0 <= p[0] <= x1 and y0 <= p[1] <= y1 else "miss_background"


@given(pairs())
def test_types_are_those_of_the_rules_one_after_the_other(pair):
    box = (3, 3, 15, 18)
    threshold = 0.1 * max(pair.box_wh)

    found = judge_pair(pair, PARTNERS, box=box)

    expected = [_type(i, pair, threshold, box) if pair.source_visible[i] else None for i in range(K)]
    assert found.types.tolist() == expected


@given(pairs())
def test_types_agree_with_pck(pair):
    types = judge_pair(pair, PARTNERS).types

    judged = types[pair.judged].astype(str)
    assert set(judged) <= set(ERROR_TYPES) - set(NOT_IN_TARGET)
    assert set(types[pair.source_visible & ~pair.target_visible]) <= set(NOT_IN_TARGET)
    correct = np.isin(judged, ["correct", "correct_ambiguous"])
    np.testing.assert_array_equal(correct, pair_verdicts(pair, PckFlavour()))
    np.testing.assert_array_equal(judged == "correct", pair_verdicts(pair, PckFlavour(exclusive=True)))


@given(pairs(), st.permutations(range(K)))
def test_the_order_of_the_slots_does_not_matter(pair, order):
    order = np.array(order)
    moved = replace(
        pair,
        **{
            name: getattr(pair, name)[order]
            for name in ("predictions", "targets", "source_visible", "target_visible", "groups")
        },
    )
    plain, turned = judge_pair(pair, PARTNERS), judge_pair(moved, np.argsort(order)[PARTNERS[order]])

    assert turned.types.tolist() == plain.types[order].tolist()
    assert (turned.gain, turned.inverted) == (plain.gain, plain.inverted)


@given(pairs())
def test_a_mirrored_picture_with_left_and_right_exchanged_is_judged_alike(pair):
    """Slot i of the mirrored picture is slot pi(i) of the plain one, in the target and among the predictions."""

    def mirrored(points):
        return np.stack([100 - points[:, 0], points[:, 1]], 1)[PARTNERS]

    turned = replace(
        pair,
        predictions=mirrored(pair.predictions),
        targets=mirrored(pair.targets),
        source_visible=pair.source_visible[PARTNERS],
        target_visible=pair.target_visible[PARTNERS],
    )
    plain = judge_pair(pair, PARTNERS, box=(10, 0, 30, 30))
    found = judge_pair(turned, PARTNERS, box=(70, 0, 90, 30))

    assert found.types.tolist() == plain.types[PARTNERS].tolist()
    assert (found.gain, found.inverted) == (plain.gain, plain.inverted)
    np.testing.assert_array_equal(found.d_norm, plain.d_norm[PARTNERS])
    np.testing.assert_array_equal(found.d_mirror_norm, plain.d_mirror_norm[PARTNERS])


@pytest.mark.parametrize(
    ("slot", "place", "expected"),
    [
        (0, (20, 9.9), "correct"),
        (0, (75, 5), "swap_mirror"),
        (2, (80, 100), "swap_mirror"),
        (2, (5, 200), "swap_group"),
        (0, (50, 55), "swap_other"),
        (0, (20, 10), "jitter"),
        (0, (20, 19.9), "jitter"),
        (0, (20, 20), "miss_object"),
        (0, (300, 300), "miss_background"),
    ],
)
def test_each_type_by_hand(slot, place, expected):
    found = judge_pair(_pair(_with(**{f"s{slot}": place})), PARTNERS, box=(0, 0, 100, 200))

    assert found.types[slot] == expected
    assert found.d_norm[slot] == pytest.approx(math.dist(place, PLACES[slot]) / 100)
    assert found.d_mirror_norm[slot] == pytest.approx(math.dist(place, PLACES[PARTNERS[slot]]) / 100)
    others = np.delete(found.types, slot)
    assert set(others) == {"correct"}


def test_close_neighbours_make_a_correct_point_ambiguous():
    pair = replace(_pair(_with(s0=(26, 0))), targets=np.where(np.arange(K)[:, None] == 6, [[30, 0]], PLACES))

    assert judge_pair(pair, PARTNERS).types[0] == "correct_ambiguous"


def test_a_keypoint_that_the_target_hides_can_be_a_phantom():
    target = [False, True, False, True, True, True, False]
    predictions = _with(s0=(80, 5), s2=(5, 200), s6=(80, 0))

    found = judge_pair(_pair(predictions, target=target), PARTNERS)

    assert found.types[[0, 2, 6]].tolist() == ["phantom_mirror", "phantom_group", "not_in_target"]
    assert np.isnan(found.d_norm[[0, 2, 6]]).all()
    assert found.nearest_slot[[0, 2, 6]].tolist() == [1, 4, 1]


def test_the_mask_says_what_is_on_the_object():
    mask = np.zeros((300, 300), bool)
    mask[150:, 150:] = True
    points = {"s0": (160, 160), "s1": (140, 160), "s6": (400, 400)}

    found = judge_pair(_pair(_with(**points)), PARTNERS, mask=mask, box=(0, 0, 500, 500))

    assert found.types[[0, 1, 6]].tolist() == ["miss_object", "miss_background", "miss_background"]
    assert judge_pair(_pair(_with(**points)), PARTNERS).types[6] == "miss_object"


def test_what_the_source_does_not_show_has_no_type_and_what_was_not_found_has_no_neighbour():
    source = np.ones(K, bool)
    source[6] = False
    found = judge_pair(_pair(_with(s0=(np.nan, np.nan)), source=source), PARTNERS)

    assert found.types[6] is None
    assert found.types[0] == "miss_background"
    assert found.nearest_slot[0] == -1
    assert np.isinf(found.d_norm[0])


def test_a_pair_that_exchanges_left_and_right_is_inverted():
    exchanged = PLACES[PARTNERS]

    found = judge_pair(_pair(exchanged), PARTNERS)

    # All three couples are mended.
    assert (found.inverted, found.gain) == (True, 6)
    assert found.types.tolist() == ["swap_mirror"] * 6 + ["correct"]


def test_single_swaps_do_not_make_a_pair_inverted():
    one = judge_pair(_pair(_with(s0=(80, 0))), PARTNERS)
    half = judge_pair(_pair(np.concatenate([PLACES[[1, 0, 3]], PLACES[3:]])), PARTNERS)
    hidden = judge_pair(_pair(PLACES[PARTNERS], target=[1, 1, 1, 0, 0, 1, 1], source=[1, 0, 1, 1, 1, 1, 1]), PARTNERS)

    assert (one.inverted, one.gain) == (False, 1 - 5)
    # Three of six are swapped, and the other three are right: nothing is gained.
    assert (half.inverted, half.gain) == (False, 0)
    # Only the left ear can be judged, which is too few.
    assert (hidden.inverted, hidden.gain) == (False, None)


def test_half_of_the_keypoints_must_be_swapped_for_a_pair_to_be_inverted():
    nowhere = (500, 500)
    three = _with(s0=(80, 0), s1=(20, 0), s2=(80, 100), s3=nowhere, s4=nowhere, s5=nowhere)
    two = _with(s0=(80, 0), s1=(20, 0), s2=nowhere, s3=nowhere, s4=nowhere, s5=nowhere)

    found = [judge_pair(_pair(places), PARTNERS) for places in (three, two)]

    assert [(one.inverted, one.gain) for one in found] == [(True, 3), (False, 2)]


def test_of_equally_near_places_the_partner_comes_before_a_mate_of_a_lower_slot():
    targets = PLACES.copy()
    targets[[2, 4]] = [[300, 0], [306, 0]]

    found = judge_pair(replace(_pair(_with(s5=(303, 0))), targets=targets), PARTNERS)

    assert (found.types[5], found.nearest_slot[5]) == ("swap_mirror", 4)


def test_tables_count_each_cell_and_state_the_flavour():
    cat = judge_pair(_pair(_with(s0=(80, 0)), category="cat", azimuth_difference=2), PARTNERS)
    dog = judge_pair(_pair(PLACES[PARTNERS], category="dog"), PARTNERS)

    (everything,) = error_table([cat, dog])
    rows = error_table([cat, dog], ["category", "geometry_aware", "azimuth_difference"])

    assert everything["metric"] == "error types at T = 0.1 of the box"
    assert (everything["n"], everything["swap_mirror"], everything["correct"]) == (14, 7, 7)
    assert everything["share_swap_mirror"] == pytest.approx(0.5)
    assert sum(everything[f"share_{kind}"] for kind in ERROR_TYPES) == pytest.approx(1)
    cells = [(row["category"], row["geometry_aware"], row["azimuth_difference"], row["n"]) for row in rows]
    assert cells == [("cat", False, 2, 1), ("cat", True, 2, 6), ("dog", False, None, 1), ("dog", True, None, 6)]
    assert [row["azimuth_difference"] for row in error_table([dog, cat], ["azimuth_difference"])] == [2, None]
    assert [(row["category"], row["n_inverted"], row["share_inverted"]) for row in inversion_table([cat, dog])] == [
        ("cat", 0, 0.0),
        ("dog", 1, 1.0),
    ]
    assert error_table([]) == inversion_table([]) == []


def test_tables_refuse_to_mix():
    box, image = (
        judge_pair(_pair(PLACES, image_wh=(200, 200)), PARTNERS, ErrorFlavour(threshold=kind))
        for kind in ("box", "image")
    )
    with pytest.raises(ConfigError, match="different flavours"):
        error_table([box, image])
    with pytest.raises(ConfigError, match="no split by 'colour'"):
        error_table([box], ["colour"])


def test_what_does_not_fit_is_refused():
    for partners in ([1, 2, 0, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5, 7], [0, 1], [0, 1, 2, 3, 4, 5, -1]):
        with pytest.raises(ConfigError, match="partners"):
            judge_pair(_pair(PLACES), np.array(partners))
    with pytest.raises(ConfigError, match="mask of shape"):
        judge_pair(_pair(PLACES), PARTNERS, mask=np.ones((2, 2, 1), bool))
    for wrong in ({"alpha": -1}, {"threshold": "picture"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ErrorFlavour(**wrong)
