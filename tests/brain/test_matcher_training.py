"""Training of pair networks: what gets a gradient, what is left to chance, and that a kill changes nothing."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.backbones.encoder import Placement
from fiftyone_selfsame.brain.cosalient.loader import load_pair_matcher
from fiftyone_selfsame.brain.cosalient.matcher_folder import load_network, open_matcher_folder
from fiftyone_selfsame.brain.cosalient.network import PairNetwork
from fiftyone_selfsame.brain.cosalient.network_config import NetworkConfig
from fiftyone_selfsame.brain.cosalient.pair_data import PairExample, mine_pairs, split_pairs
from fiftyone_selfsame.brain.cosalient.training import (
    TrainingConfig,
    decision_loss,
    predict,
    regions,
    segmentation_loss,
    train_pair_network,
)
from fiftyone_selfsame.brain.cosalient.training_batches import PairPictures
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from PIL import Image

TINY = NetworkConfig(widths=(6, 8, 8, 12), d=12, mask_width=8, match_width=8, side=64, k=2, head="region")
QUICK = TrainingConfig(
    segment_steps=3, match_steps=6, batch_size=4, validate_every=3, checkpoint_every=2, patience=None, seed=4
)
CPU = Placement(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def blobs(tmp_path_factory):
    """Pictures of a block of one of six colours at any place, and labelled pairs of them with masks."""
    folder = tmp_path_factory.mktemp("blobs")
    rng = np.random.default_rng(5)
    colours = [(220, 40, 40), (40, 200, 60), (50, 60, 230), (220, 210, 40), (200, 50, 210), (40, 200, 210)]
    files = []
    for number in range(36):
        picture = rng.integers(90, 120, (64, 64, 3)).astype(np.uint8)
        mask = np.zeros((64, 64), np.uint8)
        y, x = rng.integers(0, 32, 2)
        picture[y : y + 32, x : x + 32] = colours[number % 6]
        mask[y : y + 32, x : x + 32] = 255
        files.append((folder / f"{number:02d}.png", folder / f"{number:02d}-mask.png"))
        Image.fromarray(picture).save(files[-1][0])
        Image.fromarray(mask).save(files[-1][1])
    pairs = []
    for i in range(36):
        for j in range(i + 1, 36):
            match = i % 6 == j % 6
            if match or rng.random() < 0.18:
                masks = (str(files[i][1]), str(files[j][1])) if match else (None, None)
                pairs.append(
                    PairExample(str(files[i][0]), str(files[j][0]), match, *masks, f"block{i % 6}", f"block{j % 6}")
                )
    return pairs


def _run(steps):
    reports = []
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return end.value, reports


def _weights(folder):
    return load_network(open_matcher_folder(folder), None).state_dict()


def _network(**options):
    torch.manual_seed(1)
    return PairNetwork(dataclasses.replace(TINY, **options))


def _gradient(parameters):
    return sum(float(one.grad.abs().sum()) for one in parameters if one.grad is not None)


def test_pairs_that_do_not_match_give_the_masks_no_gradient_but_the_encoder_one(blobs):
    network = _network()
    others = [one for one in blobs if not one.match][:4]
    batch = PairPictures(network, CPU).batch(others)
    found = network.segment(batch.inputs_a, batch.inputs_b)
    output = network.decide(found, *regions(found, batch, torch.zeros(4, dtype=torch.bool)))
    (segmentation_loss(found, batch) + decision_loss(output, batch)).backward()
    assert _gradient(network.mask_head_a.parameters()) == 0
    assert _gradient(network.encoder.parameters()) > 0
    assert _gradient(network.match_head.parameters()) > 0


def test_in_a_mixed_batch_the_masks_learn_from_matching_pairs_alone(blobs):
    network = _network()
    network.eval()
    matching, others = [one for one in blobs if one.match][:2], [one for one in blobs if not one.match][:2]

    def head_gradient(pairs):
        network.zero_grad()
        batch = PairPictures(network, CPU).batch(pairs)
        found = network.segment(batch.inputs_a, batch.inputs_b)
        segmentation_loss(found, batch).backward()
        return [one.grad.clone() for one in network.mask_head_a.parameters()]

    for mixed, alone in zip(head_gradient(matching + others), head_gradient(matching), strict=True):
        torch.testing.assert_close(mixed, alone, rtol=1e-4, atol=1e-6)


def test_true_masks_select_regions_only_where_asked_and_known(blobs):
    network = _network()
    pairs = [next(one for one in blobs if one.match), next(one for one in blobs if not one.match)]
    batch = PairPictures(network, CPU).batch(pairs)
    found = network.segment(batch.inputs_a, batch.inputs_b)
    mask, predicted = regions(found, batch, torch.tensor([True, False]))[0]
    assert torch.equal(mask, batch.masks_a[0])
    torch.testing.assert_close(predicted, found.mask_logits_a[1].sigmoid())
    assert not mask.requires_grad
    # 32 x 32 pixels of 64 x 64 on a grid of 2 x 2 cells.
    assert batch.masks_a[0].mean() == pytest.approx(0.25)
    assert not batch.masks_a[1].any()


def test_masks_follow_their_pictures_when_these_are_cut_and_mirrored(blobs):
    network = _network()
    pictures = PairPictures(network, CPU)
    matching = [one for one in blobs if one.match][:8]
    batch = pictures.batch(matching, np.random.default_rng(0))
    # The block is what is colourful; on the grid it must lie where the mask says.
    colourful = (batch.inputs_a.max(1).values - batch.inputs_a.min(1).values > 0.35).float()
    seen = torch.nn.functional.adaptive_avg_pool2d(colourful[:, None], network.grid_side)[:, 0]
    assert (seen - batch.masks_a).abs().mean() < 0.05
    again = pictures.batch(matching, np.random.default_rng(0))
    assert torch.equal(batch.inputs_a, again.inputs_a)
    assert not torch.equal(batch.inputs_a, pictures.batch(matching, np.random.default_rng(1)).inputs_a)


def test_a_killed_training_ends_with_the_same_weights(blobs, tmp_path):
    train, validation = split_pairs(blobs, 0.34, 0)
    whole, reports = _run(train_pair_network(train, validation, TINY, QUICK, folder=tmp_path / "a", name="a"))
    assert [one.stage for one in reports if one.stage != "encoding"] == ["segment"] * 3 + ["match"] * 6
    killed = train_pair_network(train, validation, TINY, QUICK, folder=tmp_path / "b", name="b")
    for progress in killed:
        if progress.step == 5 and progress.stage == "match":
            killed.close()
            break
    assert (tmp_path / "b" / "checkpoint.pt").is_file()
    resumed, reports = _run(train_pair_network(train, validation, TINY, QUICK, folder=tmp_path / "b", name="b"))
    assert [one.step for one in reports if one.stage == "match"] == [5, 6, 7, 8, 9]
    assert resumed.history == whole.history
    assert resumed.threshold == whole.threshold
    first, second = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "b" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_training_is_left_aside(blobs, tmp_path):
    train, validation = split_pairs(blobs, 0.34, 0)
    started = train_pair_network(train, validation, TINY, QUICK, folder=tmp_path, name="a")
    while next(started).step < 4:
        pass
    started.close()
    other = dataclasses.replace(QUICK, seed=9)
    _, reports = _run(train_pair_network(train, validation, TINY, other, folder=tmp_path, name="a"))
    assert min(one.step for one in reports if one.stage == "segment") == 1


@pytest.mark.slow
def test_it_learns_to_tell_blocks_of_colours_it_never_saw(blobs, tmp_path):
    train, validation = split_pairs(blobs, 0.34, 1)
    config = TrainingConfig(
        segment_steps=60, match_steps=160, batch_size=12, validate_every=40, learning_rate=3e-3, patience=None
    )
    options = dataclasses.replace(TINY, widths=(8, 12, 16, 24), d=24, mask_width=16)
    report, _ = _run(train_pair_network(train, validation, options, config, folder=tmp_path, name="blocks"))
    share = sum(one.match for one in validation) / len(validation)
    assert report.figures["average_precision"] > share + 0.6 * (1 - share)
    assert "validation average_precision" in (tmp_path / "README.md").read_text()


def test_the_threshold_is_that_of_the_best_f1_on_validation_pairs(blobs, tmp_path):
    train, validation = split_pairs(blobs, 0.34, 0)
    report, _ = _run(train_pair_network(train, validation, TINY, QUICK, folder=tmp_path, name="a"))
    folder = open_matcher_folder(tmp_path)
    network = load_network(folder, None)
    scores, truth, _ = predict(network, PairPictures(network, CPU), validation)
    best = max(
        2 * (truth & (scores >= level)).sum() / ((scores >= level).sum() + truth.sum()) for level in np.unique(scores)
    )
    chosen = scores >= folder.threshold
    # Weights are kept in half precision, which moves scores a little.
    assert 2 * (truth & chosen).sum() / (chosen.sum() + truth.sum()) >= best - 0.1
    assert folder.threshold == report.threshold


def test_it_stops_early_and_keeps_the_best_weights(blobs, tmp_path):
    train, validation = split_pairs(blobs, 0.34, 0)
    still = dataclasses.replace(QUICK, learning_rate=1e-12, match_steps=60, validate_every=1, patience=3)
    report, _ = _run(train_pair_network(train, validation, TINY, still, folder=tmp_path, name="a"))
    assert report.steps < 3 + 60


@pytest.mark.parametrize(("precision", "symmetric"), [("bf16", True), ("fp32", False)])
def test_other_number_formats_and_one_order_only(blobs, tmp_path, precision, symmetric):
    train, validation = split_pairs(blobs, 0.34, 0)
    network = dataclasses.replace(TINY, symmetric=symmetric, head="matcher")
    steps = train_pair_network(
        train, validation, network, QUICK, folder=tmp_path, name="a", precision=precision, device="cpu"
    )
    report, _ = _run(steps)
    assert all(math.isfinite(entry["loss"]) for entry in report.history)
    assert all(value.dtype != torch.bfloat16 for value in _weights(tmp_path).values())


def test_tokens_of_a_frozen_backbone_are_computed_once(blobs, tmp_path, monkeypatch):
    backbone = load_backbone("embedded-untrained", device="cpu")
    network = NetworkConfig(encoder="tokens", backbone="embedded-untrained", d=8, mask_width=8, match_width=8, side=56)
    train, validation = split_pairs(blobs, 0.34, 0)
    seen, tokens = [], type(backbone).tokens

    def counted(self, images):
        seen.append(len(images))
        return tokens(self, images)

    monkeypatch.setattr(type(backbone), "tokens", counted)
    config = dataclasses.replace(QUICK, segment_steps=1, match_steps=2, validate_every=2)
    _run(train_pair_network(train, validation, network, config, folder=tmp_path, name="t", backbone=backbone))
    images = {path for one in (*train, *validation) for path in (one.path_a, one.path_b)}
    assert sum(seen) == len(images)
    assert load_pair_matcher(tmp_path, device="cpu").threshold > 0


def test_without_masks_only_the_decision_is_trained(blobs, tmp_path):
    plain = [dataclasses.replace(one, mask_a=None, mask_b=None) for one in blobs]
    train, validation = split_pairs(plain, 0.34, 0)
    report, reports = _run(train_pair_network(train, validation, TINY, QUICK, folder=tmp_path, name="a"))
    assert "iou" not in report.figures
    assert {one.stage for one in reports} == {"encoding", "match"}


def test_halves_share_no_object_and_no_image(blobs):
    train, validation = split_pairs(blobs, 0.34, 0)
    for part in ("path", "object"):
        both = [{getattr(one, f"{part}_{side}") for one in half for side in "ab"} for half in (train, validation)]
        assert not both[0] & both[1]
    assert split_pairs(blobs, 0.34, 0) == (train, validation)
    unnamed = [dataclasses.replace(one, object_a=None, object_b=None) for one in blobs]
    train, validation = split_pairs(unnamed, 0.34, 0)
    assert not {one.path_a for one in train} & {one.path_a for one in validation}


def test_too_few_labels_are_refused_with_their_number(blobs, tmp_path):
    with pytest.raises(ConfigError, match="3 matching and 0 other pairs"):
        split_pairs([one for one in blobs if one.match][:3], 0.3, 0)
    with pytest.raises(ConfigError, match="both matching and other pairs"):
        next(train_pair_network(blobs[:1], blobs, TINY, QUICK, folder=tmp_path, name="a"))
    with pytest.raises(ConfigError, match="batch_size=1"):
        TrainingConfig(batch_size=1)
    with pytest.raises(ConfigError, match="validation_share"):
        split_pairs(blobs, 1.0, 0)


def test_a_picture_that_cannot_be_read_is_named(blobs, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    train, validation = split_pairs(blobs, 0.34, 0)
    pairs = [*train, dataclasses.replace(train[0], path_a=str(broken))]
    with pytest.raises(ImageError, match=r"broken\.png"):
        _run(train_pair_network(pairs, validation, TINY, QUICK, folder=tmp_path / "m", name="a"))


def test_mined_pairs_are_of_one_product_or_the_look_alikes_of_others():
    vectors = np.array([[1, 0], [0.9, 0.1], [0.95, 0.05], [0, 1], [0.1, 1]], float)
    products = ["a", "a", "b", "c", None]
    pairs = mine_pairs(vectors, products, count=4, seed=0)
    assert (0, 1, True) in pairs
    negatives = [pair[:2] for pair in pairs if not pair[2]]
    # By hand: b lies next to both pictures of a; c is far from all; the one without a product takes no part.
    assert negatives in ([(0, 2)], [(1, 2)])
    with pytest.raises(ConfigError, match="nothing to learn from"):
        mine_pairs(vectors, ["a", "b", "c", "d", "e"], count=4, seed=0)
