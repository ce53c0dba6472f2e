"""Networks of feature maps against a literal use of the models they come from; names, folders and faults."""

import json

import pytest
import torch
import transformers
from fiftyone_selfsame.brain.backbones import list_backbones, load_backbone, loader
from fiftyone_selfsame.brain.backbones.attention_pool import attention_pool
from fiftyone_selfsame.brain.backbones.feature_maps import list_feature_maps, load_feature_maps
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.fixtures.model_folders import make_model_folder, make_resnet_folder, make_vgg_folder
from safetensors.torch import load_file, save_file
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("SELFSAME_MODELS_DIR", raising=False)
    loader._loaded.clear()


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    return make_resnet_folder(tmp_path_factory.mktemp("resnet"), seed=1)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    return make_vgg_folder(tmp_path_factory.mktemp("vgg"), seed=2)


@pytest.fixture(scope="module")
def siglips(tmp_path_factory):
    root = tmp_path_factory.mktemp("siglips")
    return {
        family: make_model_folder(family, root / family, seed=5) for family in ("siglip", "siglip_vision", "siglip2")
    }


def images(height, width, batch=2, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def load(name, **options):
    return load_feature_maps(name, device="cpu", **options)


# --- ResNet -----------------------------------------------------------------------------------------------------


def bottleneck(block, x):
    """One block with its batch normalisation written out."""

    def normalised(values, norm):
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return (values - norm.running_mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)

    out = x
    for index, conv in enumerate(block.layer):
        out = normalised(conv.convolution(out), conv.normalization)
        out = out.clamp(min=0) if index < 2 else out
    if hasattr(block.shortcut, "convolution"):
        x = normalised(block.shortcut.convolution(x), block.shortcut.normalization)
    return (out + x).clamp(min=0)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (75, 41)])
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_resnet_layer_is_its_blocks_run_by_hand(resnet, blocks, height, width):
    maps = load(str(resnet), layer=f"layer4.{blocks - 1}")
    pixels = images(height, width)

    found = maps.maps(pixels)

    model = transformers.ResNetModel.from_pretrained(resnet).eval()
    with torch.no_grad():
        x = model(pixel_values=(pixels - MEAN) / STD, output_hidden_states=True).hidden_states[-2]
        for block in model.encoder.stages[3].layers[:blocks]:
            x = bottleneck(block, x)
    assert found.shape == (2, -(-height // 32), -(-width // 32), 32)
    torch.testing.assert_close(found, x.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert found.min() == 0
    assert found.max() > 0.1


def test_the_last_block_of_a_resnet_is_the_models_own_output_and_the_first_is_the_default(resnet):
    pixels = images(64, 64)
    model = transformers.ResNetModel.from_pretrained(resnet).eval()
    with torch.no_grad():
        output = model(pixel_values=(pixels - MEAN) / STD).last_hidden_state
    last = load(str(resnet), layer="layer4.2").maps(pixels)
    torch.testing.assert_close(last, output.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)

    default = load(str(resnet))
    assert default.layer == "layer4.0"
    assert torch.equal(default.maps(pixels), load(str(resnet), layer="layer4.0").maps(pixels))
    assert not torch.allclose(default.maps(pixels), last, atol=1e-2)


def test_what_a_resnet_is_is_stated(resnet):
    maps = load(str(resnet))
    assert (maps.stride, maps.dim, maps.nonnegative, maps.head) == (32, 32, True, None)
    assert (maps.name, maps.precision, maps.device.type) == (str(resnet), "fp32", "cpu")
    assert len(maps.weights_hash) == 64


def test_a_resnet_that_halves_the_image_once_more_says_so(tmp_path):
    maps = load(str(make_resnet_folder(tmp_path, downsample_in_first_stage=True)))
    assert maps.stride == 64
    assert maps.maps(images(128, 192, batch=1)).shape[1:3] == (2, 3)


@pytest.mark.parametrize("size", [(1, 1), (5, 300)])
def test_a_resnet_takes_images_of_any_size(resnet, size):
    assert load(str(resnet)).maps(images(*size)).shape[1:3] == (1, -(-size[1] // 32))


# --- VGG --------------------------------------------------------------------------------------------------------


def test_vgg_is_the_last_convolution_of_torchvisions_after_its_relu(vgg):
    from torchvision.models import vgg16

    maps = load(str(vgg))
    pixels = images(64, 48)
    model = vgg16(weights=None, init_weights=False).eval()
    weights = load_file(vgg / "model.safetensors")
    model.features.load_state_dict({key[9:]: value for key, value in weights.items() if key.startswith("features.")})
    with torch.no_grad():
        x = (pixels - MEAN) / STD
        for layer in list(model.features)[:-1]:
            x = layer(x)

    found = maps.maps(pixels)

    torch.testing.assert_close(found, x.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
    assert found.min() == 0
    assert found.max() > 0.1
    assert (maps.stride, maps.dim, maps.layer, maps.nonnegative) == (16, 512, "conv5_3", True)


def test_vgg_covers_all_of_an_image_that_is_not_whole_cells(vgg):
    maps = load(str(vgg))
    pixels = images(40, 7)
    filled = MEAN.expand(2, 3, 48, 16).clone()
    filled[:, :, :40, :7] = pixels
    found = maps.maps(pixels)
    assert found.shape[1:3] == (3, 1)
    torch.testing.assert_close(found, maps.maps(filled))


def test_vgg_weights_in_a_pickle_or_at_half_precision_are_read_too(vgg, tmp_path):
    weights = {key: value.half() for key, value in load_file(vgg / "model.safetensors").items()}
    for name, save in (("model.safetensors", save_file), ("pytorch_model.bin", torch.save)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text((vgg / "config.json").read_text())
        save(weights, folder / name)
        found = load(str(folder)).maps(images(16, 16, batch=1))
        assert torch.cosine_similarity(found, load(str(vgg)).maps(images(16, 16, batch=1)), dim=-1).min() > 0.999


def test_the_normalisation_of_a_folder_of_timm_is_its_own(vgg, tmp_path):
    (tmp_path / "model.safetensors").symlink_to(vgg / "model.safetensors")
    settings = {"architecture": "vgg16", "pretrained_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    pixels = images(32, 32)
    torch.testing.assert_close(load(str(tmp_path)).maps((pixels - MEAN) / STD), load(str(vgg)).maps(pixels))


# --- both -------------------------------------------------------------------------------------------------------


def test_half_precision_is_close_and_still_returns_float32(resnet):
    exact, half = load(str(resnet), precision="fp32"), load(str(resnet), precision="bf16")
    pixels = images(96, 64)
    expected, found = exact.maps(pixels), half.maps(pixels)
    assert found.dtype == torch.float32
    assert half.precision == "bf16"
    assert not torch.equal(expected, found)
    assert torch.cosine_similarity(expected.flatten(1), found.flatten(1)).min() > 0.999


def test_maps_are_ordinary_tensors_and_the_images_stay_as_they_were(resnet):
    pixels = images(64, 64)
    copy = pixels.clone()
    found = load(str(resnet)).maps(pixels)
    nn.Linear(32, 1)(found).sum().backward()
    assert torch.equal(pixels, copy)


def test_an_image_has_the_same_map_alone_and_in_a_batch(resnet):
    maps = load(str(resnet))
    pixels = images(50, 70, batch=3)
    together = maps.maps(pixels)
    for i in range(3):
        torch.testing.assert_close(maps.maps(pixels[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "pixels", [torch.rand(3, 8, 8), torch.rand(1, 3, 0, 8), torch.zeros(1, 3, 8, 8).to(torch.uint8)]
)
def test_input_of_a_wrong_shape_or_type_is_refused(resnet, pixels):
    with pytest.raises(ConfigError, match=r"must be float \(B, 3, H, W\)"):
        load(str(resnet)).maps(pixels)


def test_convolutions_see_the_image_in_its_own_size_up_to_a_limit(resnet):
    maps = load(str(resnet))
    assert maps.canvas_hw((333, 1000), None) == (333, 1000)
    assert maps.canvas_hw((333, 1000), 1200) == (333, 1000)
    assert maps.canvas_hw((333, 1000), 500) == (166, 500)
    assert maps.canvas_hw((1, 1000), 500) == (1, 500)


# --- tokens -----------------------------------------------------------------------------------------------------


def test_the_map_of_a_backbone_is_its_tokens_after_the_norm(tmp_path):
    folder = make_model_folder("dinov2", tmp_path)
    maps = load(str(folder))
    pixels = images(42, 28)
    assert torch.equal(maps.maps(pixels), load_backbone(str(folder), device="cpu").tokens(pixels).patch)
    assert (maps.stride, maps.dim, maps.layer, maps.nonnegative, maps.head) == (14, 32, None, False, None)
    assert maps.weights_hash == load_backbone(str(folder), device="cpu").weights_hash


@pytest.mark.parametrize("name", ["embedded", "embedded-hybrid", "embedded-untrained"])
def test_the_packages_own_models_give_maps(name):
    maps = load(name)
    found = maps.maps(images(maps.stride * 2, maps.stride * 3, batch=1))
    assert found.shape == (1, 2, 3, maps.dim)
    assert not maps.nonnegative


@pytest.mark.parametrize(
    ("image_hw", "max_side", "canvas_hw"),
    [
        ((100, 100), None, (336, 336)),
        ((100, 200), None, (336, 672)),
        ((3000, 2000), None, (504, 336)),
        ((10, 20000), None, (336, 1344)),
        ((100, 200), 280, (140, 280)),
        ((200, 100), 100, (98, 56)),
        ((10, 20000), 280, (14, 280)),
    ],
)
def test_tokens_are_made_of_whole_patches_with_the_aspect_kept(tmp_path, image_hw, max_side, canvas_hw):
    maps = load(str(make_model_folder("dinov2", tmp_path)))
    assert maps.canvas_hw(image_hw, max_side) == canvas_hw


# --- SigLIP's attention pooling ---------------------------------------------------------------------------------


def own_embedding(family, folder, pixels):
    """The model's embedding of whole images by its own forward pass."""
    if family != "siglip2":
        model = transformers.SiglipVisionModel.from_pretrained(folder).eval()
        return model(pixel_values=pixels * 2 - 1, interpolate_pos_encoding=True).pooler_output
    model = transformers.Siglip2VisionModel.from_pretrained(folder).eval()
    rows, columns = pixels.shape[2] // 16, pixels.shape[3] // 16
    patches = nn.functional.unfold(pixels * 2 - 1, 16, stride=16).reshape(len(pixels), 3, 256, -1)
    return model(
        pixel_values=patches.permute(0, 3, 2, 1).flatten(2),
        pixel_attention_mask=torch.ones(len(pixels), rows * columns, dtype=torch.long),
        spatial_shapes=torch.tensor([[rows, columns]] * len(pixels)),
    ).pooler_output


@pytest.mark.parametrize("family", ["siglip", "siglip_vision", "siglip2"])
def test_attention_over_the_whole_image_is_the_models_own_embedding(siglips, family):
    maps = load(str(siglips[family]))
    pixels = images(48, 80)
    with torch.no_grad():
        expected = own_embedding(family, siglips[family], pixels)
    for tokens, embedding in zip(maps.maps(pixels), expected, strict=True):
        pooled = attention_pool(maps.head, tokens.flatten(0, 1), torch.ones(1, 15))
        torch.testing.assert_close(pooled[0], embedding, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_attention_within_a_region_is_the_head_on_its_tokens_alone(siglips, family):
    maps = load(str(siglips[family]))
    tokens = maps.maps(images(48, 80, batch=1))[0].flatten(0, 1)
    masks = torch.rand(6, 15, generator=torch.Generator().manual_seed(1)) < 0.4
    masks[0], masks[1] = False, True

    pooled = attention_pool(maps.head, tokens, masks.float())

    assert pooled[0].abs().sum() == 0
    for mask, vector in zip(masks[1:], pooled[1:], strict=True):
        with torch.no_grad():
            torch.testing.assert_close(vector, maps.head(tokens[mask][None])[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(pooled[1], pooled[2], atol=1e-2)


def test_a_weight_of_a_half_counts_as_half_a_token(siglips):
    maps = load(str(siglips["siglip"]))
    tokens = maps.maps(images(32, 32, batch=1))[0].flatten(0, 1)
    pooled = attention_pool(maps.head, tokens, torch.tensor([[1.0, 0.5, 0.0, 0.0]]))
    with torch.no_grad():
        doubled = maps.head(tokens[[0, 0, 1]][None])
    torch.testing.assert_close(pooled, doubled, rtol=1e-4, atol=1e-5)


# --- names and faults -------------------------------------------------------------------------------------------


def test_networks_of_maps_have_names_of_their_own_that_are_no_backbones():
    hub_ids = {info.name: info.hub_id for info in list_feature_maps()}
    assert hub_ids == {
        "resnet50": "microsoft/resnet-50",
        "resnet101": "microsoft/resnet-101",
        "vgg16": "timm/vgg16.tv_in1k",
    }
    assert not hub_ids.keys() & {info.name for info in list_backbones()}


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("resnet50", "resnet50"),
        ("resnet50", "microsoft--resnet-50"),
        ("microsoft/resnet-50", "microsoft/resnet-50"),
    ],
)
def test_a_network_is_found_in_the_models_folder_by_name_and_by_hub_id(tmp_path, monkeypatch, name, place):
    make_resnet_folder(tmp_path / place)
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    assert (load(name).name, load(name).dim) == (name, 32)


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "dinov2-small"])
def test_without_a_network_the_error_says_where_to_put_the_folder(name):
    with pytest.raises(ModelError, match=rf"'{name}'.*HF_HUB_OFFLINE=1.*\$SELFSAME_MODELS_DIR/{name} "):
        load(name)


def test_a_name_that_is_nearly_right_is_corrected():
    with pytest.raises(ConfigError, match=r"'resnet-50' is unknown; did you mean 'resnet50'\?.*vgg16"):
        load("resnet-50")


def test_a_network_of_maps_cannot_stand_in_for_a_backbone(resnet):
    with pytest.raises(ConfigError, match=r"'resnet50' has no tokens.*'dinov2-small'"):
        load_backbone("resnet50", device="cpu")
    with pytest.raises(ModelError, match="'resnet' is not supported"):
        load_backbone(str(resnet), device="cpu")


@pytest.mark.parametrize("layer", ["layer3.0", "conv5_3", "4"])
def test_a_layer_that_does_not_exist_is_named_with_those_there_are(resnet, layer):
    with pytest.raises(ConfigError, match=rf"layer='{layer}'.*layer4\.0, layer4\.1, layer4\.2"):
        load(str(resnet), layer=layer)


def test_a_block_that_a_small_resnet_lacks_is_refused(tmp_path):
    folder = make_resnet_folder(tmp_path, depths=[1, 1, 1, 2])
    assert load(str(folder), layer="layer4.1").layer == "layer4.1"
    with pytest.raises(ConfigError, match=r"layer='layer4\.2'.*no such block"):
        load(str(folder), layer="layer4.2")


def test_other_networks_have_no_layers_to_choose_from(vgg):
    assert load(str(vgg), layer="conv5_3").layer == "conv5_3"
    with pytest.raises(ConfigError, match=r"layer='layer4\.0'.*'conv5_3'"):
        load(str(vgg), layer="layer4.0")
    with pytest.raises(ConfigError, match=r"layer='layer4\.0'.*'embedded' is a backbone"):
        load("embedded", layer="layer4.0")


def test_the_same_arguments_give_the_same_object_and_another_layer_another(resnet):
    first = load(str(resnet))
    assert load(str(resnet)) is first
    assert load(str(resnet), layer="layer4.1") is not first


def test_the_hash_changes_with_the_weights(resnet, tmp_path):
    assert load(str(make_resnet_folder(tmp_path, seed=9))).weights_hash != load(str(resnet)).weights_hash


@pytest.mark.parametrize("make", [make_resnet_folder, make_vgg_folder])
def test_weights_that_are_missing_incomplete_or_broken_are_explained(tmp_path, make):
    folder = make(tmp_path)
    path = folder / "model.safetensors"
    weights = load_file(path)
    dropped = next(
        key for key in weights if key.endswith(("stages.3.layers.0.layer.0.convolution.weight", "28.weight"))
    )
    save_file({key: value for key, value in weights.items() if key != dropped}, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"(convolution|28)\.weight.*download the\s+model again"):
        load(str(folder))
    path.write_bytes(b"broken")
    with pytest.raises(ModelError, match="download the model again"):
        load(str(folder))
    path.unlink()
    with pytest.raises(ModelError, match=r"no weights in this folder"):
        load(str(folder))


def test_an_architecture_that_gives_no_maps_is_named_with_those_that_do(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vgg16_bn"}))
    with pytest.raises(ModelError, match=r"'vgg16_bn' is not supported.*dinov2.*resnet, vgg16"):
        load(str(tmp_path))


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu(resnet, siglips):
    pixels = images(96, 64)
    exact = load_feature_maps(str(resnet), device="cuda", precision="fp32").maps(pixels).cpu()
    torch.testing.assert_close(exact, load(str(resnet)).maps(pixels), rtol=1e-3, atol=1e-3)

    weights = (torch.rand(5, 24, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    gpu = load_feature_maps(str(siglips["siglip"]), device="cuda", precision="fp32")
    cpu = load(str(siglips["siglip"]))
    found = attention_pool(gpu.head, gpu.maps(pixels)[0].flatten(0, 1), weights).cpu()
    expected = attention_pool(cpu.head, cpu.maps(pixels)[0].flatten(0, 1), weights)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
