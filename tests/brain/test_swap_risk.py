"""Risks that parts were confused, and the matches that speak against their annotation."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.metrics.swap_risk import SuspectEvidence, label_suspicion, swap_risk

NAN = float("nan")


def evidence(types, label_free=None, **changes):
    """Pairs of two matches each, of the left and the right eye, of images 2 i and 2 i + 1."""
    n = len(types)
    given = {
        "types": np.array(types, object),
        "label_free": np.full(n, 0.2) if label_free is None else np.array(label_free),
        "pairs": np.arange(n) // 2,
        "images": np.arange(n).reshape(-1, 2),
        "slots": np.arange(n) % 2,
        "partner_slots": 1 - np.arange(n) % 2,
        "mirror_peak_ratio": np.full(n, 0.5),
        "collision": np.zeros(n),
        "triplet_orientation": np.zeros(n // 2),
        "imd_gap": np.full(n // 2, -0.1),
    }
    return SuspectEvidence(**{**given, **changes})


def test_known_errors_come_first_by_their_confidence():
    types = ["swap_mirror", "phantom_group", "swap_other", "correct", "jitter", None, None]
    risk = swap_risk(
        types, [0.5, 0.9, 0.7, 0.95, 0.4, 0.3, 0.3], [0.1, 0.1, 0.1, 0.8, NAN, 0.9, NAN], ["cat"] * len(types)
    )
    np.testing.assert_allclose(risk, [0.5, 1.0, 0.75, 0.4, 0.0, 0.45, NAN])


def test_without_types_the_risk_is_that_of_the_scores():
    np.testing.assert_array_equal(swap_risk([None, NAN], [0.5, 0.5], [0.3, NAN], ["cat", "cat"]), [0.3, NAN])


def test_an_exchange_that_nothing_betrays_speaks_against_the_annotation():
    value, side = label_suspicion(evidence(["swap_mirror"] * 2 + ["correct"] * 2, [0.2, 0.3, 0.1, 0.1]))
    # One pair, both of its matches suspects: two of two judged and one more.
    np.testing.assert_allclose(value, [0.8 * 2 / 3, 0.7 * 2 / 3, NAN, NAN])
    assert side[:2].tolist() == [1, 1]


@pytest.mark.parametrize(
    "changes",
    [
        {"types": ["swap_mirror", "correct"]},
        {"types": ["swap_mirror", "miss_object"]},
        {"types": ["swap_group", "swap_group"]},
        {"triplet_orientation": np.ones(1)},
        {"triplet_orientation": np.full(1, NAN), "imd_gap": np.full(1, 0.3)},
        {"mirror_peak_ratio": np.array([1.0, 1.01])},
        {"collision": np.ones(2)},
        {"label_free": np.full(2, NAN)},
        {"partner_slots": np.array([0, 1])},
    ],
)
def test_true_swaps_betray_themselves(changes):
    value, _ = label_suspicion(evidence(**{"types": ["swap_mirror"] * 2, **changes}))
    assert np.isnan(value[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"types": ["swap_mirror", "phantom_mirror"]},
        {"types": ["swap_mirror", None]},
        {"triplet_orientation": np.full(1, NAN), "imd_gap": np.full(1, NAN)},
        {"triplet_orientation": np.zeros(1), "imd_gap": np.full(1, 0.3)},
        {"mirror_peak_ratio": np.full(2, NAN), "collision": np.full(2, NAN)},
    ],
)
def test_what_is_not_known_betrays_nothing(changes):
    value, _ = label_suspicion(evidence(**{"types": ["swap_mirror"] * 2, **changes}))
    assert value[0] > 0


def test_the_image_that_is_wrong_in_all_its_pairs_is_the_suspect():
    # Image 0 is in three pairs and disagrees in all; image 1 is in two pairs and agrees with 4.
    types = ["swap_mirror"] * 6 + ["correct"] * 2
    images = np.array([[0, 1], [2, 0], [0, 3], [1, 4]])
    value, side = label_suspicion(evidence(types, images=images))
    assert side[[0, 2, 4]].tolist() == [0, 1, 0]
    np.testing.assert_allclose(value[:6], 0.8 * 6 / 7)
    # Of the first pair's two images, 1 has two suspects of four judged: 2 / 5 is less.


def test_nothing_gives_nothing():
    value, side = label_suspicion(evidence([], images=np.zeros((0, 2), int)))
    assert len(value) == len(side) == 0
