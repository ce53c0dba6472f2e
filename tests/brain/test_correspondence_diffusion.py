"""Features of a denoising network: against its decoder walked through by hand, and joined from overlapping crops."""

import shutil
import sys

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.diffusion import (
    DiffusionConfig,
    DiffusionFeatures,
    _number_format,
    find_diffusion_folder,
    local_diffusion_models,
)
from fiftyone_selfsame.brain.correspondence.diffusion_taps import (
    FreeU,
    boosted,
    crop_offsets,
    run_with_taps,
    stitched,
)
from fiftyone_selfsame.brain.correspondence.features import FeatureConfig, FeatureExtractor
from fiftyone_selfsame.brain.correspondence.joint_features import project_jointly
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.fixtures.diffusion_folders import WIDTHS, make_diffusion_folder
from hypothesis import given
from hypothesis import strategies as st

SMALL = {"size": 192, "crop": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("diffusers")
    return make_diffusion_folder(tmp_path_factory.mktemp("diffusion") / "tiny")


def _network(folder, **options):
    config = DiffusionConfig(**{**SMALL, **options})
    return DiffusionFeatures(str(folder), config, device="cpu", precision="fp32")


def _image(seed=0, height=60, width=90):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _by_hand(unet, sample, timestep, condition, freeu):
    """What enters the last layer of each decoder stage but the finest, walking through the network stage by stage."""
    from diffusers.utils.torch_utils import fourier_filter

    embedded = unet.time_embedding(unet.time_proj(torch.tensor([timestep])).to(sample.dtype))
    state = unet.conv_in(sample)
    skips = [state]
    for block in unet.down_blocks:
        options = {"encoder_hidden_states": condition} if getattr(block, "has_cross_attention", False) else {}
        state, outputs = block(hidden_states=state, temb=embedded, **options)
        skips += outputs
    state = unet.mid_block(state, embedded, encoder_hidden_states=condition)
    taps = []
    for block in unet.up_blocks:
        attentions = getattr(block, "attentions", [None] * len(block.resnets))
        for index, (resnet, attention) in enumerate(zip(block.resnets, attentions, strict=True)):
            skip = skips.pop()
            channels = state.shape[1]
            if freeu and channels in (WIDTHS[-1], WIDTHS[1]):
                backbone, low = (1.2, 0.9) if channels == WIDTHS[-1] else (1.4, 0.2)
                state = state.clone()
                state[:, : channels // 2] *= backbone
                skip = fourier_filter(skip, threshold=1, scale=low)
            if index == len(block.resnets) - 1:
                taps.append(state)
            state = resnet(torch.cat([state, skip], dim=1), embedded)
            if attention is not None:
                state = attention(state, encoder_hidden_states=condition, return_dict=False)[0]
        for upsampler in block.upsamplers or []:
            state = upsampler(state)
    return taps[:-1]


@pytest.mark.parametrize("freeu", [False, True])
def test_taps_are_the_states_that_enter_the_last_layers_of_the_decoder(folder, freeu):
    network = _network(folder)
    unet, condition = network._unet, network._condition
    sample = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        taps = run_with_taps(unet, lambda: unet(sample, 50, encoder_hidden_states=condition), freeu=freeu)
        expected = _by_hand(unet, sample, 50, condition, freeu)

    assert [tuple(tap.shape[1:]) for tap in taps] == [(32, 2, 2), (32, 4, 4), (16, 8, 8)]
    for tap, one in zip(taps, expected, strict=True):
        torch.testing.assert_close(tap, one, rtol=1e-4, atol=1e-5)


def test_the_network_is_left_as_it_was(folder):
    unet, condition = _network(folder)._unet, torch.zeros(1, 8, 16)
    sample = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def plain():
        with torch.inference_mode():
            return unet(sample, 50, encoder_hidden_states=condition).sample

    before = plain()
    run_with_taps(unet, plain, freeu=True)

    assert torch.equal(plain(), before)


def test_layers_have_a_cell_for_64_32_and_16_pixels_of_the_canvas(folder):
    layers = _network(folder).layers(_image())

    assert [tuple(layer.shape) for layer in layers] == [(3, 3, 32), (6, 6, 32), (12, 12, 16)]
    assert all(layer.dtype == torch.float32 and not layer.is_inference() for layer in layers)
    assert all(torch.equal(a, b) for a, b in zip(layers, _network(folder).layers(_image()), strict=True))


def test_the_full_network_has_the_published_layers():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(sample_size=64, cross_attention_dim=768)
        sample, condition = torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)
        taps = run_with_taps(unet, lambda: unet(sample, 50, encoder_hidden_states=condition), freeu=False)

    # A crop of 512 pixels; a canvas of 960 has 15, 30 and 60 cells along each side.
    assert [tuple(tap.shape) for tap in taps] == [(1, 1280, 8, 8), (1, 1280, 16, 16), (1, 640, 32, 32)]


@pytest.mark.parametrize("option", [{"timestep": 300}, {"prompt": "a cat"}, {"freeu": True}, {"seed": 1}])
def test_every_option_changes_the_features_and_stands_in_the_settings(folder, option):
    plain, changed = _network(folder), _network(folder, **option)

    assert not torch.allclose(plain.layers(_image())[0], changed.layers(_image())[0], atol=1e-3)
    assert changed.settings() == {**plain.settings(), **option}
    assert changed.weights_hash == plain.weights_hash


def test_the_noise_follows_the_schedule(folder):
    import diffusers

    network = _network(folder, timestep=120)
    schedule = diffusers.DDPMScheduler.from_pretrained(folder / "scheduler")

    assert network._signal == pytest.approx(float(schedule.alphas_cumprod[120]), rel=1e-5)


def test_features_join_those_of_a_backbone_and_of_a_pair(folder):
    class Means:
        name, weights_hash, precision = "means", "0", "fp32"
        patch_size, dim, default_size, device = 16, 3, 64, torch.device("cpu")

        def tokens(self, images, *, final_norm=True):
            means = torch.nn.functional.avg_pool2d(images, 16).permute(0, 2, 3, 1)
            return type("Tokens", (), {"patch": means + 0.1, "cls": means.mean((1, 2))})()

    network = _network(folder)
    whole = FeatureExtractor(Means(), FeatureConfig(size=192), second=network)
    extractor = FeatureExtractor(Means(), FeatureConfig(size=192, components=5), second=network)

    first, second = extractor(_image(0)), extractor(_image(1))
    projected, _ = project_jointly([first, second], 5)

    assert whole(_image(0)).features.shape == (12, 12, 16 + 32 + 32 + 3)
    assert projected.features.shape == (12, 12, 3 * 5 + 3)
    assert extractor.settings()["second"]["weights_hash"] == network.weights_hash


def test_another_model_has_another_hash(folder, tmp_path):
    other = make_diffusion_folder(tmp_path / "other", seed=1)

    assert _network(other).weights_hash != _network(folder).weights_hash


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        ("unet/diffusion_pytorch_model.safetensors", "safetensors"),
        ("scheduler/scheduler_config.json", "scheduler_config"),
        ("tokenizer/vocab.json", "tokenizer"),
    ],
)
def test_a_folder_that_lacks_a_part_is_named(folder, tmp_path, broken, word):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / broken).unlink()

    with pytest.raises(ModelError, match=word):
        _network(copy)


def test_half_precision_files_are_taken_where_there_are_no_others(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    for part, name in (
        ("unet", "diffusion_pytorch_model"),
        ("vae", "diffusion_pytorch_model"),
        ("text_encoder", "model"),
    ):
        (copy / part / f"{name}.safetensors").rename(copy / part / f"{name}.fp16.safetensors")

    layers = _network(copy).layers(_image())

    assert all(torch.equal(a, b) for a, b in zip(layers, _network(folder).layers(_image()), strict=True))


def test_a_size_that_is_no_multiple_of_the_coarsest_cell_is_refused(folder):
    with pytest.raises(ConfigError, match="crop=100 is not a multiple of 64"):
        _network(folder, crop=100)


def test_without_the_package_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)

    with pytest.raises(ConfigError, match=r'pip install "fiftyone-selfsame\[diffusion\]"'):
        DiffusionFeatures(device="cpu")


def test_a_model_that_is_nowhere_is_named_with_a_place_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    for name in ("some/thing-that-is-not-here", "nothing"):
        with pytest.raises(ModelError, match="SELFSAME_MODELS_DIR"):
            find_diffusion_folder(name)
    (tmp_path / "some--thing" / "unet").mkdir(parents=True)

    assert find_diffusion_folder("some/thing") == tmp_path / "some--thing"


def test_local_models_are_listed_by_the_names_that_find_them(tmp_path, monkeypatch):
    monkeypatch.delenv("SELFSAME_MODELS_DIR", raising=False)
    assert local_diffusion_models() == []
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    for name in ("some/thing", "own"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "config.json").write_text("{}")
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text("{}")

    assert local_diffusion_models() == ["own", "some/thing"]
    assert [find_diffusion_folder(name) for name in ("own", "some/thing")] == [
        tmp_path / "own",
        tmp_path / "some/thing",
    ]


def test_on_a_gpu_numbers_have_the_published_format():
    gpu, cpu = torch.device("cuda"), torch.device("cpu")

    formats = [_number_format("auto", gpu), _number_format("auto", cpu), _number_format("bf16", gpu)]

    assert formats == [torch.float16, torch.float32, torch.bfloat16]


@pytest.mark.parametrize("options", [{"timestep": 1000}, {"crop": 2000}, {"crop": 0}])
def test_options_that_cannot_work_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        DiffusionConfig(**options)


def test_the_published_crops_overlap_by_half_a_cell_of_their_grid():
    assert crop_offsets(960, 512, 64) == [0, 448]
    assert crop_offsets(512, 512, 64) == [0]
    assert crop_offsets(1280, 512, 64) == [0, 384, 768]


@given(units=st.integers(1, 40), crop_units=st.integers(1, 12))
def test_crops_cover_the_whole_side(units, crop_units):
    crop_units = min(units, crop_units)
    offsets = crop_offsets(units * 64, crop_units * 64, 64)

    covered = {start // 64 + cell for start in offsets for cell in range(crop_units)}
    assert covered == set(range(units))
    assert all(start % 64 == 0 for start in offsets)


@given(seed=st.integers(0, 99))
def test_crops_of_one_map_join_to_that_map(seed):
    whole = [torch.randn(c, n, n, generator=torch.Generator().manual_seed(seed)) for c, n in ((3, 15), (2, 30))]
    corners = [(top, left) for top in (0, 448) for left in (0, 448)]

    def cut(layer, top, left):
        cell = 960 // layer.shape[1]
        rows, columns = (slice(start // cell, (start + 512) // cell) for start in (top, left))
        return layer[:, rows, columns]

    joined = stitched([[cut(layer, *corner) for layer in whole] for corner in corners], corners, 512, 960)

    for layer, found in zip(whole, joined, strict=True):
        torch.testing.assert_close(found.permute(2, 0, 1), layer)


def test_where_crops_overlap_their_mean_counts():
    parts = [[torch.full((1, 2, 2), value)] for value in (1.0, 3.0)]

    (joined,) = stitched(parts, [(0, 0), (0, 64)], 128, 192)

    assert joined[0, :, 0].tolist() == [1, 2, 3]


def test_only_the_lowest_frequencies_of_a_skip_are_multiplied():
    states, skip = torch.ones(1, 4, 6, 6), torch.full((1, 2, 6, 6), 2.0)
    wave = torch.cos(torch.arange(6) * 2 * torch.pi / 3)[None, None, None, :]

    boosted_states, filtered = boosted(states, skip + wave, FreeU(1.5, 0.5))

    assert boosted_states[0, :, 0, 0].tolist() == [1.5, 1.5, 1, 1]
    torch.testing.assert_close(filtered, (1.0 + wave).expand(1, 2, 6, 6), atol=1e-5, rtol=0)
