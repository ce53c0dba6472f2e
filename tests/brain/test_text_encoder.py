"""Text towers against the models and the tokenizers they come from; what is done where a tokenizer is missing."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from fiftyone_selfsame.brain.backbones import loader
from fiftyone_selfsame.brain.backbones.feature_maps import load_feature_maps
from fiftyone_selfsame.brain.backbones.text import TEXT_MODELS, load_text_encoder
from fiftyone_selfsame.brain.backbones.tokenizer import open_tokenizer
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.fixtures.model_folders import (
    WORDS,
    make_model_folder,
    make_resnet_folder,
    make_text_model_folder,
)
from huggingface_hub import constants

NUMBERS = {word: 3 + i for i, word in enumerate(WORDS)}


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("SELFSAME_MODELS_DIR", raising=False)
    loader._loaded.clear()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("texts")
    return {family: make_text_model_folder(family, root / family, seed=4) for family in ("siglip", "siglip2")}


def load(name):
    return load_text_encoder(name, device="cpu")


# --- tokens -----------------------------------------------------------------------------------------------------


def test_a_text_is_its_words_one_end_and_padding_up_to_a_fixed_length(folders):
    red, mug = NUMBERS["red"], NUMBERS["mug"]
    assert open_tokenizer(folders["siglip"]).encode("red mug", 6) == [red, mug, 1, 1, 1, 1]
    assert open_tokenizer(folders["siglip2"]).encode("red mug", 6) == [red, mug, 1, 0, 0, 0]


def test_a_text_that_is_too_long_is_cut_but_keeps_its_end(folders):
    expected = [NUMBERS["a"], NUMBERS["big"], NUMBERS["red"], 1]
    assert open_tokenizer(folders["siglip2"]).encode("a big red mug of the cat", 4) == expected


def test_case_and_spaces_do_not_matter_and_punctuation_only_to_siglip_2(folders):
    first, second = (open_tokenizer(folders[family]) for family in ("siglip", "siglip2"))
    assert first.encode("  Red\n MUG! ", 5) == first.encode("red mug", 5) == [NUMBERS["red"], NUMBERS["mug"], 1, 1, 1]
    assert second.encode("  Red\n MUG! ", 5) == [NUMBERS["red"], NUMBERS["mug"], NUMBERS["!"], 1, 0]


@pytest.mark.parametrize("text", ["", "  \n", "?!"])
def test_a_text_without_words_is_refused(folders, text):
    with pytest.raises(ConfigError, match="has no words"):
        load(str(folders["siglip"])).embed([text])


# --- vectors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "model_class"), [("siglip", "SiglipModel"), ("siglip2", "Siglip2Model")])
def test_vectors_are_the_text_features_of_the_whole_model(folders, family, model_class):
    model = getattr(transformers, model_class).from_pretrained(folders[family]).eval()
    padding = 1 if family == "siglip" else 0
    numbers = [[NUMBERS[word] for word in text.split()] + [1] for text in ("red mug", "a big cat")]
    with torch.no_grad():
        features = model.get_text_features(
            input_ids=torch.tensor([row + [padding] * (8 - len(row)) for row in numbers])
        )
    features = getattr(features, "pooler_output", features)

    encoder = load(str(folders[family]))
    vectors = encoder.embed(["Red mug", "a big  cat"])

    assert vectors.dtype == np.float32
    assert encoder.dim == 32
    np.testing.assert_allclose(vectors, torch.nn.functional.normalize(features, dim=1), atol=1e-5)


def test_texts_and_regions_of_one_checkpoint_have_the_same_hash_and_dimension(folders):
    for folder in folders.values():
        maps, encoder = load_feature_maps(str(folder), device="cpu"), load(str(folder))
        assert (encoder.weights_hash, encoder.dim) == (maps.weights_hash, maps.dim)


def test_many_texts_are_the_same_as_each_by_itself(folders, monkeypatch):
    encoder = load(str(folders["siglip"]))
    texts = ["red mug", "blue cat", "the big dog", "a photo", "this"]
    monkeypatch.setattr("fiftyone_selfsame.brain.backbones.text._BATCH", 2)
    together = encoder.embed(texts)
    assert together.shape == (5, 32)
    np.testing.assert_allclose(together, np.concatenate([encoder.embed([text]) for text in texts]), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.linalg.matrix_rank(together) == 5
    assert encoder.embed([]).shape == (0, 32)


def test_the_bare_text_is_embedded_unless_a_template_is_given(folders):
    encoder = load(str(folders["siglip"]))
    inside = encoder.embed(["Red mug!"], template="This is a photo of {}.")
    np.testing.assert_allclose(inside, encoder.embed(["this is a photo of red mug"]), atol=1e-6)
    assert not np.allclose(inside, encoder.embed(["red mug"]), atol=1e-2)
    with pytest.raises(ConfigError, match="template='a photo'"):
        encoder.embed(["mug"], template="a photo")


def test_the_same_arguments_give_the_same_object_until_the_vocabulary_changes(folders, tmp_path):
    folder = shutil.copytree(folders["siglip"], tmp_path / "model")
    first = load(str(folder))
    assert load(str(folder)) is first
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["tea"] = content["model"]["vocab"].pop("mug")
    (folder / "tokenizer.json").write_text(json.dumps(content))
    assert load(str(folder)).tokenizer_hash != first.tokenizer_hash
    np.testing.assert_allclose(load(str(folder)).embed(["tea"]), first.embed(["mug"]), atol=1e-6)


# --- what is found where ----------------------------------------------------------------------------------------


def test_the_names_that_know_texts_are_those_of_siglip():
    assert "siglip-base" in TEXT_MODELS
    assert "siglip2-base-naflex" in TEXT_MODELS
    assert all(name.startswith("siglip") for name in TEXT_MODELS)


@pytest.mark.parametrize("name", ["dinov2-small", "embedded", "embedded-hybrid", "resnet50"])
def test_a_name_without_texts_is_refused_with_those_that_have(name):
    with pytest.raises(ConfigError, match=f"'{name}' knows no texts; use one of siglip-base"):
        load(name)


@pytest.mark.parametrize("family", ["dinov2", "siglip_vision"])
def test_a_folder_without_a_text_tower_is_refused(tmp_path, family):
    with pytest.raises(ConfigError, match=r"has no text tower.*'siglip-base'"):
        load(str(make_model_folder(family, tmp_path)))


def test_a_network_of_maps_is_no_text_model(tmp_path):
    with pytest.raises(ModelError, match="'resnet' is not supported"):
        load(str(make_resnet_folder(tmp_path)))


def test_a_folder_without_a_tokenizer_says_what_to_put_into_it(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer.*tokenizer\.json or spiece\.model and tokenizer_config\.json"):
        load(str(make_model_folder("siglip", tmp_path)))


def test_a_folder_without_the_settings_of_its_tokenizer_is_refused(folders, tmp_path):
    folder = shutil.copytree(folders["siglip"], tmp_path / "model")
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer_config\.json"):
        load(str(folder))


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_broken_vocabulary_is_explained(folders, tmp_path, content):
    folder = shutil.copytree(folders["siglip"], tmp_path / "model")
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer\.json: broken file.*download the model again"):
        load(str(folder))


@pytest.mark.parametrize("end", [None, "<end>", {"content": "<end>"}])
def test_special_pieces_that_the_vocabulary_lacks_are_named(folders, tmp_path, end):
    folder = shutil.copytree(folders["siglip"], tmp_path / "model")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": end}))
    with pytest.raises(ModelError, match=r"eos_token or pad_token is not in the vocabulary of tokenizer\.json"):
        load(str(folder))


def test_a_vocabulary_that_needs_another_package_says_which(folders, tmp_path, monkeypatch):
    folder = shutil.copytree(folders["siglip"], tmp_path / "model")
    (folder / "tokenizer.json").rename(folder / "spiece.model")
    monkeypatch.setitem(__import__("sys").modules, "sentencepiece", None)
    with pytest.raises(ModelError, match=r"spiece\.model.*`pip install sentencepiece`"):
        load(str(folder))


def test_weights_that_lack_the_text_tower_are_explained(folders, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(folders["siglip"], tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    vision = {key: value for key, value in weights.items() if not key.startswith("text_model")}
    save_file(vision, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="the weights lack"):
        load(str(folder))


# --- the Hub's cache --------------------------------------------------------------------------------------------

COMMIT = "c" * 40


@pytest.fixture
def snapshot(tmp_path, monkeypatch):
    """The cache of the Hub as an image encoder alone leaves it: config.json and weights, no tokenizer."""
    model = tmp_path / "cache" / "models--google--siglip-base-patch16-224"
    folder = make_model_folder("siglip", model / "snapshots" / COMMIT, seed=4)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


def test_the_tokenizer_of_a_model_in_the_cache_is_downloaded_from_the_commit_of_its_weights(
    snapshot, folders, monkeypatch
):
    asked = []

    def download(hub_id, filename, revision, endpoint):
        asked.append((hub_id, filename, revision))
        return shutil.copy(folders["siglip"] / filename, snapshot / filename)

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)

    vectors = load("siglip-base").embed(["red mug"])

    hub_id = "google/siglip-base-patch16-224"
    assert asked == [(hub_id, "tokenizer_config.json", COMMIT), (hub_id, "tokenizer.json", COMMIT)]
    np.testing.assert_allclose(vectors, load(str(folders["siglip"])).embed(["red mug"]), atol=1e-6)
    load("siglip-base")
    assert len(asked) == 2


def test_without_a_network_a_tokenizer_that_is_missing_says_where_to_put_it(snapshot):
    with pytest.raises(ModelError, match=rf"without its tokenizer and HF_HUB_OFFLINE=1.*tokenizer\.json.*{COMMIT}"):
        load("siglip-base")


def test_a_download_that_fails_is_explained(snapshot, monkeypatch):
    def download(*_, **__):
        raise OSError("the line is dead")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(ModelError, match=r"siglip-base.*the line is dead"):
        load("siglip-base")


def test_a_model_that_is_not_here_at_all_says_where_to_put_its_folder():
    with pytest.raises(ModelError, match=r"'siglip2-large'.*HF_HUB_OFFLINE=1.*\$SELFSAME_MODELS_DIR/siglip2-large"):
        load("siglip2-large")
