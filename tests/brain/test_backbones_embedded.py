"""The project's own model: the same weights everywhere, honest about being untrained, and of some use all the same."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.brain.backbones import embedded, list_backbones, load_backbone, loader
from fiftyone_selfsame.brain.geometry import image_to_canvas, plan_geometry
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fixtures.model_folders import make_model_folder


@pytest.fixture(autouse=True)
def _clean():
    loader._loaded.clear()
    yield
    loader._loaded.clear()


def test_the_weights_are_the_same_on_every_machine():
    assert load_backbone("embedded", device="cpu").weights_hash == (
        "1eb4008b145146efcce30e10acdc3f002851757817e24700c138082940a03217"
    )


def test_seeded_values_depend_on_the_name_and_have_the_variance_asked_for():
    a = embedded.seeded_array("encoder.layer.0.mlp.fc1.weight", (768, 192))
    b = embedded.seeded_array("encoder.layer.1.mlp.fc1.weight", (768, 192))
    patch = embedded.seeded_array("embeddings.patch_embeddings.projection.weight", (192, 3, 14, 14))
    assert not np.array_equal(a, b)
    assert abs(float(a.mean())) < 0.002
    assert a.std() * np.sqrt(192) == pytest.approx(2.0, rel=0.02)
    assert patch.std() * np.sqrt(588) == pytest.approx(1.0, rel=0.1)


def test_it_says_that_it_is_untrained_and_is_small():
    backbone = load_backbone("embedded", device="cpu")
    info = list_backbones()[0]
    assert backbone.name == "embedded-untrained"
    assert "untrained" in info.label
    assert "not DINOv2" in info.label
    assert (info.name, info.dim, info.patch_size) == ("embedded", backbone.dim, backbone.patch_size)
    assert info.default_size == backbone.default_size
    assert sum(p.numel() for p in backbone._model.parameters()) < 6e6


def test_a_trained_folder_takes_its_place(tmp_path, monkeypatch):
    folder = make_model_folder("dinov2", tmp_path / "embedded")
    for module in (embedded, loader):
        monkeypatch.setattr(module, "EMBEDDED_FOLDER", folder)

    backbone = load_backbone("embedded", device="cpu")

    assert backbone.name == "embedded"
    assert backbone.dim == 32
    info = list_backbones()[0]
    assert "untrained" not in info.label
    assert (info.dim, info.patch_size, info.default_size) == (32, 14, 336)


def test_tokens_of_different_photographs_differ_and_retrieve_objects(shared_dir):
    """Average tokens of every third photograph: a random order would reach a top-1 of about 3 %."""
    root = shared_dir / "data" / "objid_wild"
    items = json.loads((root / "manifest.json").read_text())["items"]
    items = [item for item in items if item["object_id"] in sorted({i["object_id"] for i in items})[::3]]
    backbone = load_backbone("embedded", device="cpu")

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
