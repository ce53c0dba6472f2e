"""Trained networks as pair matchers, and the loader of all matchers."""

import dataclasses

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.backbones.encoder import Placement
from fiftyone_selfsame.brain.cosalient.calibration import Calibration
from fiftyone_selfsame.brain.cosalient.free_matcher import TrainingFreeMatcher
from fiftyone_selfsame.brain.cosalient.loader import load_pair_matcher
from fiftyone_selfsame.brain.cosalient.matcher_folder import save_logistic, save_network
from fiftyone_selfsame.brain.cosalient.network import PairNetwork
from fiftyone_selfsame.brain.cosalient.network_config import NetworkConfig
from fiftyone_selfsame.brain.cosalient.trained_matcher import TrainedMatcher
from fiftyone_selfsame.brain.cosalient.training_free import PAPER
from fiftyone_selfsame.brain.errors import ConfigError

TINY = NetworkConfig(widths=(4, 4, 8, 8), d=8, mask_width=8, match_width=8, side=96, k=4)
CPU = Placement(torch.device("cpu"), torch.float32)


def _network(bias=2.0, **options):
    """A network whose masks hold the whole image (or, with a negative bias, nothing)."""
    torch.manual_seed(0)
    network = PairNetwork(dataclasses.replace(TINY, **options))
    for head in (network.mask_head_a, network.mask_head_b):
        if head is not None:
            torch.nn.init.constant_(head.layers[-1].bias, bias)
    return network


def _matcher(threshold=0.0, refine=False, placement=CPU, **options):
    return TrainedMatcher(
        _network(**options), name="mine", digest="00", threshold=threshold, placement=placement, refine=refine
    )


def _pictures(matcher, count=2, masks=None):
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 255, (60 + 10 * i, 90, 3)).astype(np.uint8) for i in range(count)]
    masks = masks or [None] * count
    return matcher.describe([matcher.prepare(*one) for one in zip(images, masks, strict=True)])


@pytest.mark.parametrize("options", [{}, {"symmetric": False}, {"symmetric": False, "shared": False}])
def test_both_orders_of_a_pair_have_one_outcome(options):
    matcher = _matcher(refine=True, **options)
    first, second = _pictures(matcher)
    ahead, back = matcher.compare([(first, second), (second, first)])
    assert ahead.score == pytest.approx(back.score, abs=1e-6)
    assert (ahead.mask_a == back.mask_b).all()
    assert (ahead.mask_b == back.mask_a).all()
    assert ahead.mask_a.any()


def test_an_outcome_has_masks_of_the_canvas_named_scores_and_lines_within_the_images():
    matcher = _matcher()
    outcome = matcher.compare([tuple(_pictures(matcher))])[0]
    assert outcome.mask_a.shape == outcome.mask_b.shape == (96, 96)
    assert set(outcome.scores) == {"similarity", "consistency", "ffa"}
    assert outcome.lines.shape[1] == 5
    assert len(outcome.lines) > 0
    assert ((outcome.lines[:, :4] >= 0) & (outcome.lines[:, :4] <= 1)).all()
    assert not outcome.no_common_region


def test_a_match_is_a_score_that_reaches_the_threshold():
    matcher = _matcher()
    pair = tuple(_pictures(matcher))
    score = matcher.compare([pair])[0].score
    found = []
    for threshold in (score, np.nextafter(score, 1)):
        matcher.threshold = threshold
        found.append(matcher.compare([pair])[0].match)
    assert found == [True, False]


def test_an_empty_mask_is_no_common_region_and_no_match():
    matcher = _matcher(bias=-5.0)
    outcome = matcher.compare([tuple(_pictures(matcher))])[0]
    assert outcome.no_common_region
    assert not outcome.match
    assert not outcome.mask_a.any()
    assert not outcome.mask_b.any()
    assert len(outcome.lines) == 0


def test_masks_stay_inside_a_foreground_that_is_given():
    left = np.zeros((30, 30), bool)
    left[:, :10] = True
    matcher = _matcher()
    outcome = matcher.compare([tuple(_pictures(matcher, masks=[left, None]))])[0]
    assert outcome.mask_a[:, :16].all()
    assert not outcome.mask_a[:, 48:].any()
    assert outcome.mask_b.all()


def test_a_set_has_masks_for_the_images_that_match_another():
    matcher = _matcher()
    everything = np.ones((5, 5), bool)
    pictures = _pictures(matcher, 3, [None, everything, ~everything])
    outcome = matcher.compare_set(pictures)
    assert [bool(mask.any()) for mask in outcome.masks] == [True, True, False]
    assert not outcome.no_common_region


def test_a_set_without_any_match_has_nothing_in_common():
    matcher = _matcher(threshold=1.1)
    outcome = matcher.compare_set(_pictures(matcher, 3))
    assert outcome.no_common_region
    assert not any(mask.any() for mask in outcome.masks)


def test_the_cost_of_a_set_grows_with_its_images_and_not_with_their_square(monkeypatch):
    matcher = _matcher()
    pictures = _pictures(matcher) * 15
    compared = []
    ask = matcher._ask
    monkeypatch.setattr(matcher, "_ask", lambda pairs: compared.extend(pairs) or ask(pairs))
    matcher.compare_set(pictures)
    assert len(compared) == 4 * 30


def test_one_picture_is_no_set():
    matcher = _matcher()
    with pytest.raises(ConfigError, match="at least two"):
        matcher.compare_set(_pictures(matcher, 1))


def test_pictures_of_another_matcher_are_refused():
    free = TrainingFreeMatcher(load_backbone("embedded-untrained", device="cpu"))
    foreign = free.describe([free.prepare(np.zeros((40, 40, 3), np.uint8))])
    with pytest.raises(ConfigError, match="described itself"):
        _matcher().compare([(foreign[0], foreign[0])])


def test_half_precision_gives_nearly_the_same_score():
    exact, half = _matcher(), _matcher(placement=Placement(torch.device("cpu"), torch.bfloat16))
    scores = [matcher.compare([tuple(_pictures(matcher))])[0].score for matcher in (exact, half)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert half.settings()["precision"] == "bf16"


def test_a_network_is_loaded_from_its_folder_with_its_threshold(tmp_path):
    save_network(tmp_path / "mine", _network(), threshold=0.3, facts={})
    matcher = load_pair_matcher(tmp_path / "mine", device="cpu")
    assert matcher.threshold == 0.3
    outcome = matcher.compare([tuple(_pictures(matcher))])[0]
    plain = _matcher()
    assert outcome.score == pytest.approx(plain.compare([tuple(_pictures(plain))])[0].score, abs=1e-3)
    assert matcher.settings()["refine"]


def test_a_changed_threshold_does_not_stay_in_memory(tmp_path):
    save_network(tmp_path / "mine", _network(), threshold=0.3, facts={})
    load_pair_matcher(tmp_path / "mine").threshold = 0.9
    assert load_pair_matcher(tmp_path / "mine").threshold == 0.3


def test_a_network_of_tokens_is_loaded_with_its_backbone(tmp_path):
    config = NetworkConfig("tokens", backbone="embedded-untrained", d=8, mask_width=8, match_width=8, side=84, k=4)
    save_network(tmp_path / "mine", PairNetwork(config), threshold=0.3, facts={})
    matcher = load_pair_matcher(tmp_path / "mine", device="cpu")
    outcome = matcher.compare([tuple(_pictures(matcher))])[0]
    assert 0 <= outcome.score <= 1


def test_a_calibration_is_loaded_as_a_training_free_matcher_of_its_name_and_options(tmp_path):
    calibration = Calibration(("similarity", "consistency", "ffa"), (1.0, 1.0, 1.0), -2.0, threshold=0.6, fitted_on=9)
    free = {"model": "embedded-untrained", "saliency": "one_pass"}
    save_logistic(tmp_path / "mine", calibration, free=free, facts={})
    matcher = load_pair_matcher(str(tmp_path / "mine"), refine=False, device="cpu")
    assert matcher.name == str(tmp_path / "mine")
    assert (matcher.threshold, matcher.calibration) == (0.6, calibration)
    assert matcher.backbone.name == "embedded-untrained"
    assert (matcher.config.saliency, matcher.config.refine) == ("one_pass", False)


def test_the_training_free_matcher_takes_the_options_given():
    matcher = load_pair_matcher(model="embedded-untrained", saliency="one_pass", refine=False, device="cpu")
    assert matcher.name == "training_free"
    assert (matcher.config.saliency, matcher.config.refine) == ("one_pass", False)
    usual = load_pair_matcher(model="embedded-untrained", saliency="auto", device="cpu")
    assert usual.config == TrainingFreeMatcher(usual.backbone).config


def test_joint_clusters_as_published_have_a_name_of_their_own():
    published = load_pair_matcher("training_free_paper", model="embedded-untrained", device="cpu")
    assert (published.name, published.config.pair.method) == ("training_free_paper", "clusters")
    assert published.settings()["matcher"] == "training_free_paper"
    given = load_pair_matcher("training_free_paper", model="embedded-untrained", saliency="foreground", device="cpu")
    assert (given.config.saliency, given.config.pair) == ("foreground", PAPER)


@pytest.mark.parametrize("option", [{"model": "embedded"}, {"saliency": "one_pass"}])
def test_options_of_the_training_free_matcher_are_refused_with_a_trained_one(tmp_path, option):
    save_network(tmp_path / "mine", _network(), threshold=0.3, facts={})
    with pytest.raises(ConfigError, match=f"{next(iter(option))}="):
        load_pair_matcher(tmp_path / "mine", **option)
