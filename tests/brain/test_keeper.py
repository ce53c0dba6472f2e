import os

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.image_quality import QualityScores, image_quality
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.brain.keeper import KeeperPolicy, choose_keepers

PLAIN = QualityScores(pixels=1000, sharpness=0.1, exposure=0.5, file_size=1000)


@pytest.mark.parametrize(
    ("measure", "weight"),
    [("pixels", "resolution"), ("sharpness", "sharpness"), ("exposure", "exposure"), ("file_size", "file_size")],
)
def test_each_weight_rewards_more_of_its_measure_and_a_negative_one_less(measure, weight):
    better = QualityScores(**{**vars(PLAIN), measure: vars(PLAIN)[measure] * 2})
    nothing = dict.fromkeys(("resolution", "sharpness", "exposure", "file_size"), 0.0)

    for value, sign in ((1.0, 1), (0.0, 0), (-1.0, -1)):
        plain, other = KeeperPolicy(**{**nothing, weight: value}).score([PLAIN, better])
        assert np.sign(other - plain) == sign


def test_twice_the_pixels_are_worth_the_weight_of_resolution():
    larger = QualityScores(2000, 0.1, 0.5, 1000)

    plain, better = KeeperPolicy(resolution=3.0).score([PLAIN, larger])

    assert better - plain == pytest.approx(3.0)


def test_an_image_without_measures_is_kept_last_and_a_blank_one_has_a_finite_score():
    blank = QualityScores(1, 0.0, 0.0, 1)

    scores = KeeperPolicy().score([None, blank, PLAIN])

    assert scores[0] == -np.inf
    assert np.isfinite(scores[1:]).all()


def test_a_policy_from_a_form_keeps_the_defaults_it_does_not_name():
    assert KeeperPolicy.from_dict({"sharpness": 2.0}) == KeeperPolicy(sharpness=2.0)


@pytest.mark.parametrize("weights", [{"beauty": 1.0}, {"sharpness": "high"}, {"sharpness": float("nan")}])
def test_unknown_measures_and_weights_that_are_no_numbers_are_named(weights):
    with pytest.raises(ConfigError, match=next(iter(weights))):
        KeeperPolicy.from_dict(weights)


def test_the_original_is_kept_over_every_damaged_copy_of_real_photographs(shared_dir):
    import json

    folder = shared_dir / "data" / "neardup"
    manifest = json.loads((folder / "manifest.json").read_text())
    paths = {item["id"]: folder / item["path"] for item in manifest["items"]}
    damage = {"jpeg_q15", "resize_half", "crop_80", "blur", "gamma", "grey"}
    pairs = [(pair["a"], pair["b"]) for pair in manifest["pairs"] if pair.get("transform") in damage]

    def quality(name: str) -> QualityScores:
        return image_quality(decode_image(paths[name]), os.path.getsize(paths[name]))

    kept = [np.argmax(KeeperPolicy().score([quality(original), quality(copy)])) for original, copy in pairs]

    assert len(kept) > 0
    assert kept == [0] * len(kept)


def test_milder_compression_more_foreground_and_more_labels_raise_the_score_by_their_weights():
    nothing = dict.fromkeys(("resolution", "sharpness", "exposure", "file_size"), 0.0)
    mild = QualityScores(PLAIN.pixels, PLAIN.sharpness, PLAIN.exposure, 4 * PLAIN.file_size)
    shares = np.array([0.25, 0.75])

    compression = KeeperPolicy(**nothing, compression=2.0).score([PLAIN, mild])
    foreground = KeeperPolicy(**nothing, foreground=2.0).score([PLAIN, PLAIN], foreground=shares)
    labels = KeeperPolicy(**nothing, labels=-1.0).score([PLAIN, None], labels=shares)

    # 1000 bytes for 1000 pixels are 8 bits per pixel, four times the bytes 32.
    assert compression.tolist() == [6.0, 10.0]
    assert foreground.tolist() == [0.5, 1.5]
    assert labels.tolist() == [-0.25, -np.inf]


def test_as_many_of_each_group_are_kept_as_asked_for_the_best_first():
    labels = np.array([0, 0, 0, -1, 1, 1, 0])
    scores = np.array([1.0, 3.0, 3.0, 9.0, -np.inf, -np.inf, 2.0])

    assert choose_keepers(labels, scores).tolist() == [False, True, False, False, True, False, False]
    assert choose_keepers(labels, scores, rule_keep=3).tolist() == [False, True, True, False, True, True, True]
    assert choose_keepers(np.full(3, -1), np.zeros(3)).tolist() == [False, False, False]
    assert choose_keepers(np.array([], int), np.array([])).tolist() == []


def test_diverse_keepers_are_the_best_and_those_least_like_the_chosen():
    degrees = np.radians([0, 10, 80, 40])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1) * [[1], [2], [3], [4]]
    scores = np.array([5.0, 4.0, 1.0, 2.0])

    two = choose_keepers(np.zeros(4, int), scores, rule_keep=2, vectors=vectors)
    three = choose_keepers(np.zeros(4, int), scores, rule_keep=3, vectors=vectors)

    assert two.tolist() == [True, False, True, False]
    assert three.tolist() == [True, False, True, True]


def test_diverse_keepers_that_could_not_be_measured_come_last_however_far_away():
    vectors = np.array([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.0, 1.0]])
    scores = np.array([3.0, 2.0, 1.0, -np.inf])

    two = choose_keepers(np.zeros(4, int), scores, rule_keep=2, vectors=vectors)
    four = choose_keepers(np.zeros(4, int), scores, rule_keep=4, vectors=vectors)

    assert two.tolist() == [True, False, True, False]
    assert four.tolist() == [True] * 4


def test_diverse_keepers_of_many_groups_equal_a_search_of_each_group_by_itself():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(-1, 12, 150), generator.permutation(150).astype(float)
    vectors = generator.normal(size=(150, 5))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    keepers = choose_keepers(labels, scores, rule_keep=3, vectors=vectors)

    for group in range(12):
        rest = sorted(np.flatnonzero(labels == group), key=lambda row: -scores[row])
        chosen = [rest.pop(0)]
        while rest and len(chosen) < 3:
            chosen.append(min(rest, key=lambda row: max(unit[row] @ unit[other] for other in chosen)))
            rest.remove(chosen[-1])
        assert set(np.flatnonzero(keepers & (labels == group))) == set(chosen)
    assert not keepers[labels < 0].any()
