import os

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.image_quality import QualityScores, image_quality
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.brain.keeper import KeeperPolicy

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
