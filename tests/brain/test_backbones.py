"""Every supported architecture against a literal use of the `transformers` model that it wraps."""

import os
import shutil

import pytest
import torch
import transformers
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import FAMILIES, make_model_folder

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {family: make_model_folder(family, root / family, seed=3) for family in FAMILIES}


def images(rows, columns, patch, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, 3, rows * patch, columns * patch, generator=generator)


def normalised(pixels, mean, std):
    return (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def literal(family, folder, pixels, rows, columns):
    """Patch and class tokens after and before the norm, straight from the class in `transformers`.

    What enters the model's own last norm is caught at its door, as versions differ in what they call hidden states.
    """
    if family == "convnextv2":
        return literal_convnext(folder, pixels)
    classes = {
        "dinov2": "Dinov2Model",
        "dinov2_with_registers": "Dinov2WithRegistersModel",
        "dino": "ViTModel",
        "siglip2": "Siglip2VisionModel",
    }
    model = getattr(transformers, classes.get(family, "SiglipVisionModel")).from_pretrained(folder).eval()
    tower = getattr(model, "vision_model", model)
    caught = []
    norm = tower.post_layernorm if family.startswith("siglip") else tower.layernorm
    norm.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        output = model(**literal_inputs(family, pixels, rows, columns))
    after, before = output.last_hidden_state, caught[0]
    shape = (len(pixels), rows, columns, after.shape[-1])
    if family.startswith("siglip"):
        return after.reshape(shape), before.reshape(shape), output.pooler_output, output.pooler_output
    first = 5 if family == "dinov2_with_registers" else 1
    return after[:, first:].reshape(shape), before[:, first:].reshape(shape), after[:, 0], before[:, 0]


def literal_convnext(folder, pixels):
    """Location by location; the class tokens are the model's pooled output, and what enters its norm."""
    model = transformers.ConvNextV2Model.from_pretrained(folder).eval()
    caught = []
    model.layernorm.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    with torch.no_grad():
        output = model(pixel_values=normalised(pixels, *IMAGENET))
        before = torch.einsum("bchw->bhwc", output.last_hidden_state)
        after = torch.stack([model.layernorm(token) for token in before.flatten(0, 2)]).reshape(before.shape)
    return after, before, output.pooler_output, caught[0]


def literal_inputs(family, pixels, rows, columns):
    if family != "siglip2":
        values = normalised(pixels, *(HALF if family.startswith("siglip") else IMAGENET))
        return {"pixel_values": values} | ({} if "dinov2" in family else {"interpolate_pos_encoding": True})
    patches = [
        normalised(image, *HALF)[:, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16].permute(1, 2, 0).flatten()
        for image in pixels
        for r in range(rows)
        for c in range(columns)
    ]
    return {
        "pixel_values": torch.stack(patches).reshape(len(pixels), rows * columns, -1),
        "pixel_attention_mask": torch.ones(len(pixels), rows * columns, dtype=torch.long),
        "spatial_shapes": torch.tensor([[rows, columns]] * len(pixels)),
    }


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 5), (6, 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_equal_those_of_the_wrapped_model_at_any_size(family, folders, rows, columns):
    backbone = load_backbone(str(folders[family]), device="cpu")
    pixels = images(rows, columns, backbone.patch_size)

    after = backbone.tokens(pixels)
    before = backbone.tokens(pixels, final_norm=False)

    patch_after, patch_before, cls_after, cls_before = literal(family, folders[family], pixels, rows, columns)
    torch.testing.assert_close(after.patch, patch_after, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(before.patch, patch_before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(after.cls, cls_after, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(before.cls, cls_before, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after.patch, before.patch, atol=1e-2)


def test_registers_are_not_among_the_tokens(folders):
    backbone = load_backbone(str(folders["dinov2_with_registers"]), device="cpu")
    tokens = backbone.tokens(images(2, 3, backbone.patch_size, batch=1))
    assert tokens.patch.shape == (1, 2, 3, backbone.dim)


def test_siglip_without_its_head_gives_the_mean_of_the_patches_as_class_token(tmp_path):
    folder = make_model_folder("siglip_vision", tmp_path, vision_use_head=False)
    tokens = load_backbone(str(folder), device="cpu").tokens(images(4, 4, 16))
    torch.testing.assert_close(tokens.cls, tokens.patch.mean((1, 2)))


def test_dinov2_with_patches_of_16_pixels_equals_the_wrapped_model(tmp_path):
    folder = make_model_folder("dinov2", tmp_path, patch_size=16, image_size=64)
    pixels = images(3, 5, 16)
    tokens = load_backbone(str(folder), device="cpu").tokens(pixels)
    torch.testing.assert_close(tokens.patch, literal("dinov2", folder, pixels, 3, 5)[0], rtol=1e-4, atol=1e-5)


def test_convnext_keeps_no_maps_of_early_stages_whatever_its_folder_asks_for(tmp_path, monkeypatch):
    returned = []
    forward = transformers.ConvNextV2Model.forward
    monkeypatch.setattr(
        transformers.ConvNextV2Model, "forward", lambda *a, **k: returned.append(forward(*a, **k)) or returned[-1]
    )
    backbone = load_backbone(str(make_model_folder("convnextv2", tmp_path, output_hidden_states=True)), device="cpu")
    backbone.tokens(images(2, 2, 16))
    assert returned[0].hidden_states is None


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_has_the_same_tokens_alone_and_in_a_batch(family, folders):
    backbone = load_backbone(str(folders[family]), device="cpu")
    pixels = images(3, 4, backbone.patch_size, batch=3)
    together = backbone.tokens(pixels)
    for i in range(3):
        alone = backbone.tokens(pixels[i : i + 1])
        torch.testing.assert_close(alone.patch[0], together.patch[i], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.cls[0], together.cls[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_is_close_and_still_returns_float32(family, precision, folders):
    exact = load_backbone(str(folders[family]), device="cpu", precision="fp32")
    half = load_backbone(str(folders[family]), device="cpu", precision=precision)
    pixels = images(4, 3, exact.patch_size)

    expected, actual = exact.tokens(pixels), half.tokens(pixels)

    assert half.precision == precision
    assert actual.patch.dtype == actual.cls.dtype == torch.float32
    for a, b in ((expected.patch, actual.patch), (expected.cls, actual.cls)):
        assert torch.cosine_similarity(a, b, dim=-1).min() > 0.995
        assert not torch.equal(a, b)


@pytest.mark.parametrize("family", ["dinov2", "siglip"])
def test_tokens_are_ordinary_tensors_on_which_a_head_can_be_trained(family, folders):
    backbone = load_backbone(str(folders[family]), device="cpu")
    tokens = backbone.tokens(images(2, 2, backbone.patch_size))
    head = torch.nn.Linear(backbone.dim, 1)

    (head(tokens.patch).sum() + head(tokens.cls).sum()).backward()

    assert not tokens.patch.requires_grad
    assert head.weight.grad.abs().sum() > 0


def test_the_images_given_are_left_as_they_were(folders):
    backbone = load_backbone(str(folders["dinov2"]), device="cpu")
    pixels = images(2, 2, backbone.patch_size)
    copy = pixels.clone()
    backbone.tokens(pixels)
    assert torch.equal(pixels, copy)


@pytest.mark.parametrize(
    ("pixels", "named"),
    [
        (torch.rand(1, 3, 28, 30), "28×30"),
        (torch.rand(1, 3, 0, 28), "0×28"),
        (torch.rand(1, 1, 28, 28), r"\(1, 1, 28, 28\)"),
        (torch.rand(3, 28, 28), r"\(3, 28, 28\)"),
        (torch.zeros(1, 3, 28, 28, dtype=torch.uint8), "uint8"),
    ],
)
def test_input_of_a_wrong_shape_or_type_is_named_in_the_error(pixels, named, folders):
    backbone = load_backbone(str(folders["dinov2"]), device="cpu")
    with pytest.raises(ConfigError, match=named):
        backbone.tokens(pixels)


@pytest.mark.parametrize(
    ("family", "overrides", "patch", "size"),
    [
        ("dinov2", {}, 14, 336),
        ("dino", {}, 16, 336),
        ("dino", {"patch_size": 8, "image_size": 32}, 8, 224),
        ("siglip", {"patch_size": 14, "image_size": 62}, 14, 56),
        ("siglip2", {}, 16, 64),
        ("dinov2", {"patch_size": 16, "image_size": 64}, 16, 336),
        ("convnextv2", {}, 16, 336),
        ("convnextv2", {"hidden_sizes": [8, 32], "depths": [1, 1], "num_stages": 2}, 8, 224),
        ("convnextv2", {"hidden_sizes": [8, 8, 8, 32], "depths": [1, 1, 1, 1], "num_stages": 4}, 32, 320),
    ],
)
def test_the_default_size_suits_the_model_and_is_a_multiple_of_its_patch(tmp_path, family, overrides, patch, size):
    backbone = load_backbone(str(make_model_folder(family, tmp_path, **overrides)), device="cpu")
    assert (backbone.patch_size, backbone.default_size, backbone.dim) == (patch, size, 32)


def test_compilation_is_asked_for_only_when_wanted_and_changes_no_token(folders, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or model)
    pixels = images(2, 3, 14)

    plain = load_backbone(str(folders["dinov2"]), device="cpu").tokens(pixels)
    assert not compiled
    fast = load_backbone(str(folders["dinov2"]), device="cpu", compile=True).tokens(pixels)

    assert len(compiled) == 1
    assert torch.equal(plain.patch, fast.patch)


@pytest.mark.slow
@pytest.mark.skipif(
    not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))), reason="needs a C++ compiler"
)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_real_compiler_agrees_at_two_sizes(family, folders):
    plain = load_backbone(str(folders[family]), device="cpu")
    fast = load_backbone(str(folders[family]), device="cpu", compile=True)
    for rows, columns in ((2, 3), (4, 5)):
        pixels = images(rows, columns, plain.patch_size)
        torch.testing.assert_close(plain.tokens(pixels).patch, fast.tokens(pixels).patch, rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_agrees_with_the_cpu(family, folders):
    cpu = load_backbone(str(folders[family]), device="cpu")
    exact = load_backbone(str(folders[family]), device="cuda", precision="fp32")
    auto = load_backbone(str(folders[family]), device="cuda")
    pixels = images(3, 5, cpu.patch_size)

    expected = cpu.tokens(pixels).patch

    assert auto.precision in ("bf16", "fp16")
    torch.testing.assert_close(exact.tokens(pixels).patch.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert torch.cosine_similarity(auto.tokens(pixels).patch.cpu(), expected, dim=-1).min() > 0.995
