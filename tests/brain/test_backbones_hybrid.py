"""Learned tokens beside the statistics of each patch, against statistics counted pixel by pixel."""

import colorsys
import itertools
import math
from dataclasses import replace

import pytest
import torch
from fiftyone_selfsame.brain.backbones import embedded, list_backbones, load_backbone, loader
from fiftyone_selfsame.brain.backbones.hybrid import HYBRID_CONFIG, HybridBackbone, HybridConfig, patch_statistics
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder

SMALL = HybridConfig(gradient_share=0.25, hues=6, saturations=3, values=2, directions=4, strengths=3)


@pytest.fixture(scope="module", params=["dinov2", "convnextv2", "siglip"])
def learned(request, tmp_path_factory):
    folder = make_model_folder(request.param, tmp_path_factory.mktemp("models") / request.param, seed=3)
    return load_backbone(str(folder), device="cpu")


def images(rows, columns, patch, batch=2, seed=0):
    return torch.rand(batch, 3, rows * patch, columns * patch, generator=torch.Generator().manual_seed(seed))


def cosine(a, b):
    return torch.cosine_similarity(a, b, dim=-1)


def soft(value, count, cyclic=False):
    """{bin: share} of one value between its two neighbours."""
    position = value * (count if cyclic else count - 1)
    below, rest = int(position), position - int(position)
    above = (below + 1) % count if cyclic else min(below + 1, count - 1)
    shares = {below % count: 1 - rest}
    shares[above] = shares.get(above, 0) + rest
    return shares


def literal_statistics(image, config):
    """One patch ``(3, P, P)``, P odd, pixel by pixel; the patch is the whole image, so that its edge repeats."""
    side = image.shape[-1]
    colours, gradients = torch.zeros(config.colours), torch.zeros(config.gradients)
    grey = (torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1) * image).sum(0)
    for y, x in itertools.product(range(side), repeat=2):
        h, s, v = colorsys.rgb_to_hsv(*image[:, y, x].tolist())
        for (hue, a), (saturation, b), (value, c) in itertools.product(
            soft(h, config.hues, True).items(), soft(s, config.saturations).items(), soft(v, config.values).items()
        ):
            row = 0 if saturation == 0 else 1 + hue * (config.saturations - 1) + saturation - 1
            colours[row * config.values + value] += a * b * c
        across = float(grey[y, min(x + 1, side - 1)] - grey[y, max(x - 1, 0)]) / 2
        down = float(grey[min(y + 1, side - 1), x] - grey[max(y - 1, 0), x]) / 2
        octaves = math.log2(config.strongest / config.weakest)
        strength = math.log2(max(math.hypot(across, down), config.weakest) / config.weakest) / octaves
        for (direction, a), (size, b) in itertools.product(
            soft(math.atan2(down, across) / math.pi % 1, config.directions, True).items(),
            soft(min(strength, 1), config.strengths).items(),
        ):
            gradients[0 if size == 0 else 1 + direction * (config.strengths - 1) + size - 1] += a * b
    parts = [part.sqrt() / side for part in (colours, gradients)]
    return torch.cat([math.sqrt(1 - config.gradient_share) * parts[0], math.sqrt(config.gradient_share) * parts[1]])


# --- statistics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, HYBRID_CONFIG])
def test_statistics_equal_those_counted_pixel_by_pixel(config):
    pixels = images(1, 1, 7, batch=3)
    pixels[2] = 0.4 + 0.05 * pixels[2]
    expected = torch.stack([literal_statistics(image, config) for image in pixels])
    torch.testing.assert_close(patch_statistics(pixels, 7, config)[:, 0, 0], expected, rtol=1e-3, atol=1e-4)


def test_each_patch_has_the_statistics_of_its_own_pixels_at_half_the_resolution():
    flat = torch.rand(1, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    whole = patch_statistics(flat.repeat_interleave(14, 2).repeat_interleave(14, 3), 14, SMALL)
    colours = whole[..., : SMALL.colours]
    for row, column in itertools.product(range(2), range(3)):
        alone = patch_statistics(flat[:, :, row : row + 1, column : column + 1].expand(1, 3, 14, 14), 14, SMALL)
        torch.testing.assert_close(colours[0, row, column], alone[0, 0, 0, : SMALL.colours])


def test_statistics_have_unit_length_on_any_picture():
    pixels = images(2, 3, 16, batch=5)
    pixels[0], pixels[1], pixels[2] = 0.0, 1.0, pixels[2].mean(0)
    statistics = patch_statistics(pixels, 16)
    assert statistics.shape == (5, 2, 3, HYBRID_CONFIG.dim)
    torch.testing.assert_close(statistics.norm(dim=-1), torch.ones(5, 2, 3))
    assert (statistics >= 0).all()


def test_statistics_change_smoothly_with_the_colour():
    base = torch.tensor([0.7, 0.3, 0.2]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    hues = torch.linspace(0, 1, 200)
    pixels = torch.cat([torch.tensor(colorsys.hsv_to_rgb(float(h), 0.7, 0.6)).view(1, 3, 1, 1) for h in hues])
    walk = patch_statistics(pixels.expand(-1, -1, 16, 16), 16)[:, 0, 0]
    assert cosine(walk[1:], walk[:-1]).min() > 0.93
    torch.testing.assert_close(walk[0], walk[-1], rtol=1e-3, atol=1e-3)
    dimmed = patch_statistics(base * 0.9, 16)
    assert cosine(dimmed, patch_statistics(base, 16)).min() > 0.98


def test_pictures_without_colour_are_told_apart_by_their_gradients():
    ramp = torch.linspace(0, 1, 32)
    across, down = ramp.expand(3, 32, 32), ramp[:, None].expand(3, 32, 32)
    a, b = patch_statistics(torch.stack([across, down]), 16).mean((1, 2))
    assert cosine(a, b) < 0.8


# --- tokens -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("final_norm", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_cosine_of_two_tokens_is_the_weighted_mean_of_both_cosines(learned, share, final_norm):
    hybrid = HybridBackbone(learned, replace(HYBRID_CONFIG, statistics_share=share))
    pixels = images(3, 4, learned.patch_size)

    tokens = hybrid.tokens(pixels, final_norm=final_norm)

    own, statistics = learned.tokens(pixels, final_norm=final_norm), patch_statistics(pixels, learned.patch_size)
    expected = (1 - share) * cosine(own.patch[0], own.patch[1]) + share * cosine(statistics[0], statistics[1])
    torch.testing.assert_close(cosine(tokens.patch[0], tokens.patch[1]), expected, rtol=1e-4, atol=1e-5)
    means = statistics.mean((1, 2))
    expected = (1 - share) * cosine(own.cls[0], own.cls[1]) + share * cosine(means[0], means[1])
    torch.testing.assert_close(cosine(tokens.cls[0], tokens.cls[1]), expected, rtol=1e-4, atol=1e-5)
    assert tokens.patch.shape == (2, 3, 4, hybrid.dim)
    assert tokens.cls.shape == (2, hybrid.dim)
    assert tokens.patch.dtype == tokens.cls.dtype == torch.float32


def test_an_image_has_the_same_tokens_alone_and_in_a_large_batch(learned):
    hybrid = HybridBackbone(learned)
    pixels = images(2, 3, learned.patch_size, batch=11)
    together = hybrid.tokens(pixels)
    for i in (0, 7, 10):
        torch.testing.assert_close(hybrid.tokens(pixels[i : i + 1]).patch[0], together.patch[i], rtol=1e-4, atol=1e-5)


def test_tokens_are_ordinary_tensors_whatever_the_images_are(learned):
    pixels = images(2, 2, learned.patch_size).requires_grad_()
    tokens = HybridBackbone(learned).tokens(pixels)
    head = torch.nn.Linear(tokens.patch.shape[-1], 1)
    head(tokens.patch).sum().backward()
    assert not tokens.patch.requires_grad
    assert head.weight.grad.abs().sum() > 0


def test_all_but_name_hash_and_channels_is_that_of_the_learned_model(learned):
    hybrid = HybridBackbone(learned)
    for attribute in ("patch_size", "default_size", "device", "precision"):
        assert getattr(hybrid, attribute) == getattr(learned, attribute)
    assert hybrid.name == f"{learned.name}-hybrid"
    assert hybrid.dim == learned.dim + HYBRID_CONFIG.dim


def test_the_hash_follows_the_learned_weights_and_every_constant(learned):
    hashes = {learned.weights_hash, HybridBackbone(learned).weights_hash}
    for change in (
        {"statistics_share": 0.123},
        {"gradient_share": 0.123},
        {"hues": 7},
        {"saturations": 5},
        {"values": 5},
        {"directions": 5},
        {"strengths": 5},
        {"weakest": 0.01},
        {"strongest": 0.2},
    ):
        hashes.add(HybridBackbone(learned, replace(HYBRID_CONFIG, **change)).weights_hash)
    assert len(hashes) == 11
    assert HybridBackbone(learned).weights_hash == HybridBackbone(learned).weights_hash


@pytest.mark.parametrize("pixels", [torch.rand(1, 3, 30, 33), torch.rand(3, 28, 28), torch.zeros(1, 3, 28, 28).byte()])
def test_input_of_a_wrong_shape_or_type_is_refused(learned, pixels):
    with pytest.raises(ConfigError):
        HybridBackbone(learned).tokens(pixels)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"statistics_share": 1.5}, "statistics_share=1.5 is not between 0 and 1"),
        ({"gradient_share": -0.1}, "gradient_share=-0.1"),
        ({"values": 1}, "values=1: at least two"),
        ({"weakest": 0.5}, "0 < weakest < strongest"),
    ],
)
def test_settings_out_of_range_are_named(setting, says):
    with pytest.raises(ConfigError, match=says):
        HybridConfig(**setting)


# --- by name ----------------------------------------------------------------------------------------------------


def test_the_embedded_hybrid_wraps_the_trained_model_and_is_loaded_once(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "EMBEDDED_FOLDER", make_model_folder("convnextv2", tmp_path / "embedded"))
    loader._loaded.clear()

    hybrid = load_backbone("embedded-hybrid", device="cpu")

    info = next(info for info in list_backbones() if info.name == "embedded-hybrid")
    assert hybrid.name == "embedded-hybrid"
    assert (info.dim, info.patch_size, info.default_size) == (hybrid.dim, hybrid.patch_size, hybrid.default_size)
    assert info.label == "Embedded small ConvNeXt V2 with colour statistics, demo grade (not DINOv2)"
    assert hybrid.learned.weights_hash == load_backbone("embedded", device="cpu").weights_hash
    assert load_backbone("embedded-hybrid", device="cpu") is hybrid


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu(tmp_path):
    folder = str(make_model_folder("convnextv2", tmp_path))
    pixels = images(3, 5, 16)
    cpu, gpu = (HybridBackbone(load_backbone(folder, device=d, precision="fp32")) for d in ("cpu", "cuda"))
    torch.testing.assert_close(gpu.tokens(pixels).patch.cpu(), cpu.tokens(pixels).patch, rtol=1e-3, atol=1e-3)
