"""The project's own models: the trained one, wherever it comes from, and the untrained stand-in."""

import json
import shutil

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import (
    default,
    default_backbone_name,
    default_backbone_notice,
    embedded,
    list_backbones,
    load_backbone,
    loader,
    untrained,
)
from fiftyone_selfsame.brain.backbones.catalog import OFFLINE_DEFAULT
from fiftyone_selfsame.brain.errors import ModelError
from fiftyone_selfsame.brain.geometry import image_to_canvas, plan_geometry
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fixtures.model_folders import make_model_folder
from safetensors.torch import load_file, save_file


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path / "none"))
    default._hub_answers.cache_clear()
    loader._loaded.clear()
    yield
    loader._loaded.clear()


@pytest.fixture
def embed(tmp_path, monkeypatch):
    """Puts a tiny model in the place of the trained one."""

    def put(family, **overrides):
        folder = make_model_folder(family, tmp_path / "embedded", **overrides)
        monkeypatch.setattr(embedded, "EMBEDDED_FOLDER", folder)
        return folder

    return put


@pytest.fixture
def absent(tmp_path, monkeypatch):
    """A copy of the package that was made without the trained model."""
    monkeypatch.setattr(embedded, "EMBEDDED_FOLDER", tmp_path / "absent")


def listed(name):
    return next(info for info in list_backbones() if info.name == name)


# --- the trained model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "overrides", "patch", "dim", "named"),
    [
        ("dinov2", {}, 14, 32, "ViT"),
        ("dinov2", {"patch_size": 16, "image_size": 64}, 16, 32, "ViT"),
        ("convnextv2", {}, 16, 32, "ConvNeXt V2"),
        ("convnextv2", {"hidden_sizes": [8, 24], "depths": [1, 1], "num_stages": 2}, 8, 24, "ConvNeXt V2"),
    ],
)
def test_the_catalogue_tells_of_the_folder_what_loading_it_finds(embed, family, overrides, patch, dim, named):
    embed(family, **overrides)

    backbone, info = load_backbone("embedded", device="cpu"), listed("embedded")

    assert (backbone.name, backbone.patch_size, backbone.dim) == ("embedded", patch, dim)
    assert (info.patch_size, info.dim, info.default_size) == (patch, dim, backbone.default_size)
    assert info.label == f"Embedded small {named}, demo grade (not DINOv2)"


def test_the_number_of_weights_does_not_depend_on_how_they_are_stored(embed):
    folder = embed("convnextv2", hidden_sizes=[32, 64, 256], depths=[1, 1, 4])
    loaded = load_backbone("embedded", device="cpu")
    weights = sum(p.numel() for module in (loaded._model, loaded._norm) for p in module.parameters())

    whole = listed("embedded").parameters
    store_in_half_precision(folder)

    assert whole == listed("embedded").parameters == round(weights / 1e6) > 0


@pytest.mark.parametrize("family", ["dinov2", "convnextv2"])
def test_weights_stored_in_half_precision_are_used_in_float32(embed, family):
    folder = embed(family)
    store_in_half_precision(folder)
    rounded = shutil.copytree(folder, folder.parent / "rounded")
    tensors = load_file(rounded / "model.safetensors")
    save_file({k: v.float() for k, v in tensors.items()}, rounded / "model.safetensors", metadata={"format": "pt"})

    half, whole = load_backbone("embedded", device="cpu"), load_backbone(str(rounded), device="cpu")

    assert {p.dtype for p in half._model.parameters()} == {torch.float32}
    pixels = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    assert torch.equal(half.tokens(pixels).patch, whole.tokens(pixels).patch)


def store_in_half_precision(folder):
    path = folder / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "config.json").write_text('{"model_type": "dinov2"}'), "lacks the sizes"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "convnextv2"}'), "lacks the sizes"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>404</html>"), "broken weight file"),
    ],
)
def test_a_damaged_folder_is_named_by_the_catalogue(embed, damage, says):
    folder = embed("dinov2")
    damage(folder)
    with pytest.raises(ModelError, match=f"{says}.*install the package again") as caught:
        list_backbones()
    assert str(folder) in str(caught.value)


def test_without_network_and_dinov2_the_trained_model_is_the_default_and_of_demo_grade(embed):
    embed("convnextv2")
    assert default_backbone_name() == OFFLINE_DEFAULT
    assert f"its own small model ({OFFLINE_DEFAULT}), of demo grade" in default_backbone_notice()
    assert "untrained" not in default_backbone_notice()
    assert load_backbone(default_backbone_name(), device="cpu").name == OFFLINE_DEFAULT


# --- the untrained stand-in -------------------------------------------------------------------------------------


def test_the_stand_in_can_be_had_beside_the_trained_model(embed):
    embed("convnextv2")
    trained, stand_in = load_backbone("embedded", device="cpu"), load_backbone("embedded-untrained", device="cpu")
    assert (trained.dim, stand_in.dim) == (32, 192)
    assert load_backbone("embedded-untrained", device="cpu") is stand_in


def test_where_the_trained_model_is_missing_the_stand_in_takes_its_place_and_says_so(absent):
    backbone, info = load_backbone("embedded", device="cpu"), listed("embedded")
    assert backbone is load_backbone("embedded-untrained", device="cpu")
    assert backbone.name == "embedded-untrained"
    assert "untrained" in info.label
    assert "not DINOv2" in info.label
    assert (info.dim, info.patch_size, info.default_size) == (192, 14, backbone.default_size)
    assert load_backbone("embedded-hybrid", device="cpu").name == "embedded-untrained-hybrid"
    assert "untrained" in listed("embedded-hybrid").label
    assert "untrained" in default_backbone_notice()


def test_the_weights_of_the_stand_in_are_the_same_on_every_machine():
    assert load_backbone("embedded-untrained", device="cpu").weights_hash == (
        "1eb4008b145146efcce30e10acdc3f002851757817e24700c138082940a03217"
    )


def test_seeded_values_depend_on_the_name_and_have_the_variance_asked_for():
    a = untrained.seeded_array("encoder.layer.0.mlp.fc1.weight", (768, 192))
    b = untrained.seeded_array("encoder.layer.1.mlp.fc1.weight", (768, 192))
    patch = untrained.seeded_array("embeddings.patch_embeddings.projection.weight", (192, 3, 14, 14))
    assert not np.array_equal(a, b)
    assert abs(float(a.mean())) < 0.002
    assert a.std() * np.sqrt(192) == pytest.approx(2.0, rel=0.02)
    assert patch.std() * np.sqrt(588) == pytest.approx(1.0, rel=0.1)


def test_tokens_of_different_photographs_differ_and_retrieve_objects(shared_dir):
    """Average tokens of every third photograph: a random order would reach a top-1 of about 3 %."""
    root = shared_dir / "data" / "objid_wild"
    items = json.loads((root / "manifest.json").read_text())["items"]
    items = [item for item in items if item["object_id"] in sorted({i["object_id"] for i in items})[::3]]
    backbone = load_backbone("embedded-untrained", device="cpu")

    vectors = []
    for item in items:
        image = decode_image(root / item["path"])
        canvas = image_to_canvas(image, plan_geometry(image.shape[:2], 112, backbone.patch_size))
        vectors.append(backbone.tokens(canvas[None]).patch.mean((1, 2))[0].numpy())
    unit = np.stack(vectors) / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -1)

    objects = np.array([item["object_id"] for item in items])
    assert np.median(similarity) < 0.9
    assert np.mean(similarity > 0.999) < 0.001
    assert np.mean(objects[similarity.argmax(1)] == objects) > 0.3
