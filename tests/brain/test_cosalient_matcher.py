"""The training-free matcher from images to outcomes, and its settings."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.cosalient import free_matcher
from fiftyone_selfsame.brain.cosalient.calibration import Calibration
from fiftyone_selfsame.brain.cosalient.comparison import MAX_LINES
from fiftyone_selfsame.brain.cosalient.default_calibration import SCORES, UNCALIBRATED
from fiftyone_selfsame.brain.cosalient.free_matcher import FreeConfig, TrainingFreeMatcher, match_preset
from fiftyone_selfsame.brain.cosalient.training_free import PAPER, PairConfig
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder

CALIBRATION = Calibration(SCORES, (1.0, 1.0, 1.0), -1.0, threshold=0.6, fitted_on=9)


@pytest.fixture(scope="module")
def hybrid():
    return load_backbone("embedded-hybrid", device="cpu")


@pytest.fixture(scope="module")
def matcher(hybrid):
    return TrainingFreeMatcher(hybrid)


def photograph(place, thing=(210, 60, 40), ground=(70, 110, 80), seed=0, height=160, width=200):
    """A striped disc of 60 pixels at a place (x, y) on a noisy ground, and where the disc is."""
    rows, columns = np.mgrid[:height, :width]
    disc = (columns - place[0]) ** 2 + (rows - place[1]) ** 2 < 30**2
    image = np.broadcast_to(np.array(ground), (height, width, 3)).copy()
    stripes = (((rows - place[1]) // 6) % 2)[..., None]
    image[disc] = np.where(stripes, thing, np.array(thing) // 2)[disc]
    noise = np.random.default_rng(seed).integers(-12, 12, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), disc


def described(matcher, *images, masks=None):
    masks = masks or [None] * len(images)
    return matcher.describe([matcher.prepare(image, mask) for image, mask in zip(images, masks, strict=True)])


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_the_common_object_is_cut_out_of_both_images(matcher):
    (first, here), (second, there) = photograph((70, 80)), photograph((130, 70), ground=(150, 150, 200), seed=1)
    outcome = matcher.compare([tuple(described(matcher, first, second))])[0]
    assert not outcome.no_common_region
    assert iou(outcome.mask_a, here) > 0.9
    assert iou(outcome.mask_b, there) > 0.9


def test_both_orders_of_a_pair_have_one_outcome(matcher):
    first, second = described(matcher, photograph((70, 80))[0], photograph((130, 70), seed=1)[0])
    ahead, back = matcher.compare([(first, second), (second, first)])
    assert ahead.score == pytest.approx(back.score, abs=1e-6)
    assert (ahead.mask_a == back.mask_b).all()
    assert (ahead.mask_b == back.mask_a).all()
    assert ahead.lines[:, [2, 3, 0, 1, 4]] == pytest.approx(back.lines, abs=1e-5)


def test_an_image_with_itself_has_scores_of_one_and_straight_lines(matcher):
    itself = described(matcher, photograph((70, 80))[0])[0]
    outcome = matcher.compare([(itself, itself)])[0]
    assert outcome.scores == pytest.approx({"similarity": 1, "consistency": 1, "ffa": 1}, abs=1e-4)
    assert outcome.match
    assert 0 < len(outcome.lines) <= MAX_LINES
    assert (outcome.lines[:, :2] == outcome.lines[:, 2:4]).all()


def test_lines_end_on_the_object_in_both_images(matcher):
    (first, here), (second, there) = photograph((70, 80)), photograph((130, 70), seed=1)
    lines = matcher.compare([tuple(described(matcher, first, second))])[0].lines
    for ends, disc in ((lines[:, :2], here), (lines[:, 2:4], there)):
        x, y = (ends * (200, 160)).astype(int).T
        assert disc[y, x].mean() > 0.8


def test_nothing_in_common_is_no_match_whatever_the_threshold(hybrid):
    strict = TrainingFreeMatcher(hybrid, FreeConfig(pair=PairConfig(min_consistent=1.0)), threshold=0.0)
    first, second = photograph((70, 80))[0], photograph((130, 70), thing=(30, 60, 200), seed=1)[0]
    outcome = strict.compare([tuple(described(strict, first, second))])[0]
    assert outcome.no_common_region
    assert not outcome.match
    assert not outcome.mask_a.any()
    assert not outcome.mask_b.any()
    assert len(outcome.lines) == 0
    assert 0 <= outcome.score <= 1


def test_a_match_is_a_score_that_reaches_the_threshold(hybrid, matcher):
    pair = tuple(described(matcher, photograph((70, 80))[0], photograph((130, 70), seed=1)[0]))
    score = matcher.compare([pair])[0].score
    for threshold, wanted in ((score, True), (np.nextafter(score, 2), False)):
        assert TrainingFreeMatcher(hybrid, threshold=threshold).compare([pair])[0].match == wanted


def test_a_mask_that_is_given_stands_in_for_the_saliency(matcher):
    image, disc = photograph((70, 80))
    corner = np.zeros_like(disc)
    corner[100:, 120:] = True
    given, own = described(matcher, image, image, masks=[corner, None])
    rows = own.saliency.shape[0]
    assert own.saliency[rows // 2].max() > 0.5
    assert given.saliency[: rows // 2 + 1].max() == 0
    assert given.saliency.max() == pytest.approx(1)


def test_an_image_is_described_alike_alone_and_among_others_of_another_shape(matcher):
    wide, tall = photograph((70, 80))[0], photograph((60, 120), height=220, width=120)[0]
    alone, together = described(matcher, tall)[0], described(matcher, wide, tall, wide)
    assert together[1].tokens == pytest.approx(alone.tokens, abs=1e-5)
    assert together[0].image_hw == (160, 200)
    assert together[1].image_hw == (220, 120)


def test_tokens_have_unit_length_where_the_picture_is_and_vanish_on_padding(matcher):
    picture = described(matcher, photograph((60, 40), height=90, width=200)[0])[0]
    lengths = np.linalg.norm(picture.tokens, axis=-1)
    assert lengths[picture.valid] == pytest.approx(1, abs=1e-5)
    assert (lengths[~picture.valid] == 0).all()
    assert (picture.saliency[~picture.valid] == 0).all()


def test_a_plain_image_and_a_tiny_one_are_compared_without_failing(matcher):
    plain, tiny = np.full((50, 80, 3), 128, np.uint8), np.zeros((1, 1, 3), np.uint8)
    outcome = matcher.compare([tuple(described(matcher, plain, tiny))])[0]
    assert outcome.mask_b.shape == (1, 1)
    assert np.isfinite(outcome.score)


def test_a_set_has_the_common_object_cut_out_of_each_image(matcher):
    shots = [photograph((60 + 25 * n, 70), ground=(60 * n, 110, 150), seed=n) for n in range(3)]
    outcome = matcher.compare_set(described(matcher, *(image for image, _ in shots)))
    assert not outcome.no_common_region
    for mask, (_, disc) in zip(outcome.masks, shots, strict=True):
        assert iou(mask, disc) > 0.85


def test_without_refinement_masks_are_made_of_patches_and_scores_stay(hybrid, matcher):
    rough = TrainingFreeMatcher(hybrid, FreeConfig(refine=False))
    images = photograph((70, 80))[0], photograph((130, 70), seed=1)[0]
    plain, fine = (m.compare([tuple(described(m, *images))])[0] for m in (rough, matcher))
    assert plain.scores == pytest.approx(fine.scores)
    assert (plain.mask_a != fine.mask_a).any()


def test_settings_hold_what_outcomes_depend_on_and_are_json(matcher):
    settings = json.loads(json.dumps(matcher.settings()))
    assert settings["model"] == "embedded-hybrid"
    assert settings["pair"]["method"] == "mutual"
    assert settings["calibration"]["fitted_on"] > 0
    assert settings["threshold"] == matcher.threshold
    assert settings["size"] == matcher.size


def test_the_shipped_calibration_is_used_at_the_settings_that_it_was_fitted_at(hybrid):
    assert TrainingFreeMatcher(hybrid).calibrated
    assert TrainingFreeMatcher(hybrid, FreeConfig(refine=False)).calibrated
    for config in (FreeConfig(saliency="one_pass"), FreeConfig(pair=PAPER), FreeConfig(size=448)):
        other = TrainingFreeMatcher(hybrid, config)
        assert not other.calibrated
        assert other.calibration is UNCALIBRATED
    assert TrainingFreeMatcher(hybrid, FreeConfig(pair=PAPER), CALIBRATION).threshold == 0.6


def test_a_calibration_of_another_model_is_refused(hybrid):
    foreign = Calibration(SCORES, (1.0, 1.0, 1.0), 0.0, fitted_on=9, weights_hash="other")
    with pytest.raises(ConfigError, match="fitted on scores of another model than 'embedded-hybrid'"):
        TrainingFreeMatcher(hybrid, calibration=foreign)


def test_a_size_that_patches_do_not_divide_is_refused(hybrid):
    with pytest.raises(ConfigError, match="multiple"):
        TrainingFreeMatcher(hybrid, FreeConfig(size=333))


def test_the_paper_preset_takes_attention_where_the_encoder_has_it_and_runs(tmp_path):
    backbone = load_backbone(str(make_model_folder("dino", tmp_path / "dino", seed=3)), device="cpu")
    config = match_preset("paper", backbone)
    assert (config.saliency, config.pair.method, config.pair.saliency_level) == ("attention", "clusters", 0.065)
    matcher = TrainingFreeMatcher(backbone, config)
    picture = described(matcher, photograph((70, 80))[0])[0]
    assert picture.saliency.max() == 1
    assert matcher.compare([(picture, picture)])[0].scores["ffa"] == pytest.approx(1, abs=1e-4)


def test_the_paper_preset_takes_the_tokens_own_foreground_elsewhere(tmp_path):
    backbone = load_backbone(str(make_model_folder("siglip", tmp_path / "siglip", seed=3)), device="cpu")
    assert match_preset("paper", backbone) == FreeConfig(pair=PAPER, saliency="one_pass")
    assert match_preset("default", backbone) == FreeConfig()
    with pytest.raises(ConfigError, match="'default' or 'paper'"):
        match_preset("best", backbone)


def test_an_image_is_encoded_once_for_all_its_pairs(matcher, monkeypatch):
    pictures = described(matcher, photograph((70, 80))[0], photograph((130, 70), seed=1)[0])
    monkeypatch.setattr(matcher.backbone, "tokens", lambda *_: pytest.fail("encoded again"))
    assert len(matcher.compare([tuple(pictures), tuple(pictures[::-1])])) == 2


def test_large_images_are_kept_as_small_copies(matcher):
    picture = described(matcher, photograph((300, 200), height=400, width=800)[0])[0]
    assert picture.small.shape == (160, free_matcher._SMALL_SIDE, 3)
    assert picture.image_hw == (400, 800)
