"""How far patches stand out: the class token's attention against the encoder's own, and what is refused."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.cosalient.saliency import (
    AttentionRecorder,
    attention_saliency,
    check_saliency,
    one_pass_saliency,
)
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder


def backbone_of(family, tmp_path):
    return load_backbone(str(make_model_folder(family, tmp_path / family, seed=3)), device="cpu")


def images(backbone, rows=4, columns=5):
    size = (2, 3, rows * backbone.patch_size, columns * backbone.patch_size)
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["dino", "dinov2", "dinov2_with_registers"])
@pytest.mark.parametrize("heads", [None, (1,)])
def test_the_recorded_attention_is_that_of_the_encoders_own_last_block(family, heads, tmp_path):
    backbone = backbone_of(family, tmp_path)
    recorder = AttentionRecorder(backbone, heads)
    with recorder.recording():
        backbone.tokens(images(backbone))
        found = recorder.of_grid(4, 5)
        backbone._model.set_attn_implementation("eager")
        attentions = []
        capture = backbone._model.forward
        backbone._model.forward = lambda **given: (
            attentions.append(capture(**given, output_attentions=True)) or (attentions[-1])
        )
        backbone.tokens(images(backbone))
    expected = attentions[0].attentions[-1][:, :, 0, -20:]
    expected = expected.mean(1) if heads is None else expected[:, 1]
    assert found.shape == (2, 4, 5)
    assert torch.allclose(found.flatten(1), expected, atol=1e-6)


def test_nothing_is_recorded_outside_of_the_recording(tmp_path):
    backbone = backbone_of("dinov2", tmp_path)
    recorder = AttentionRecorder(backbone)
    with recorder.recording():
        backbone.tokens(images(backbone))
    backbone.tokens(images(backbone))
    assert not recorder._seen


def test_attention_is_stretched_over_the_patches_that_show_the_picture():
    attention = torch.tensor([[[9.0, 1.0], [2.0, 3.0]]])
    valid = torch.tensor([[[False, True], [True, True]]])
    assert attention_saliency(attention, valid).tolist() == [[[0.0, 0.0], [0.5, 1.0]]]


def test_equal_attention_is_no_saliency():
    found = attention_saliency(torch.full((1, 2, 2), 0.25), torch.ones(1, 2, 2, dtype=torch.bool))
    assert found.tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_the_one_pass_saliency_finds_the_patches_that_differ_from_the_frame():
    tokens = torch.tensor(np.random.default_rng(0).normal(0, 0.1, (1, 12, 12, 8)), dtype=torch.float32)
    tokens[..., 0] += 1
    tokens[:, 4:8, 4:8, 0] -= 2
    found = one_pass_saliency(tokens, torch.ones(1, 12, 12, dtype=torch.bool))[0]
    # Its corners are rounded off, as the map is smoothed.
    assert found[5:7, 5:7].min() > 0.95
    assert found[0].mean() < 0.2


def test_an_unknown_saliency_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(ConfigError, match=r"saliency='edges'.*foreground, one_pass, attention"):
        check_saliency("edges", backbone_of("dinov2", tmp_path))


@pytest.mark.parametrize("family", ["siglip", "convnextv2"])
def test_attention_of_an_encoder_without_a_class_token_is_refused_with_a_way_out(family, tmp_path):
    backbone = backbone_of(family, tmp_path)
    with pytest.raises(ConfigError, match="saliency='foreground'"):
        check_saliency("attention", backbone)
    with pytest.raises(ConfigError, match="no class token"):
        AttentionRecorder(backbone)


def test_a_head_that_the_encoder_lacks_is_refused_with_those_it_has(tmp_path):
    with pytest.raises(ConfigError, match="heads 0 to 1"):
        AttentionRecorder(backbone_of("dinov2", tmp_path), (0, 2))
