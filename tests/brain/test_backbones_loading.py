"""Names, folders and faults: what `load_backbone` accepts and how it explains what it refuses."""

import json
import os
import pickle
import shutil
import threading

import pytest
import torch
from fiftyone_selfsame.brain.backbones import list_backbones, load_backbone, loader
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.fixtures.model_folders import FAMILIES, make_model_folder
from safetensors.torch import load_file, save_file


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.delenv("SELFSAME_MODELS_DIR", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loader._loaded.clear()


@pytest.fixture
def folder(tmp_path):
    return make_model_folder("dinov2", tmp_path / "model")


def load(folder, **options):
    return load_backbone(folder, device="cpu", **options)


PIXELS = torch.linspace(0, 1, 3 * 28 * 42).reshape(1, 3, 28, 42)


# --- where models are found -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("dinov2-small", "dinov2-small"),
        ("dinov2-small", "facebook--dinov2-small"),
        ("dinov2-small", "facebook/dinov2-small"),
        ("facebook/dinov2-small", "facebook--dinov2-small"),
        ("facebook/dinov2-small", "facebook/dinov2-small"),
    ],
)
def test_a_model_kept_in_the_models_folder_is_found_by_name_and_by_hub_id(tmp_path, monkeypatch, name, place):
    make_model_folder("dinov2", tmp_path / place)
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))

    backbone = load_backbone(name, device="cpu")

    assert backbone.name == name
    assert backbone.dim == 32


def test_a_folder_of_ones_own_is_found_by_its_name_in_the_models_folder(tmp_path, monkeypatch):
    make_model_folder("dino", tmp_path / "my-own-model")
    monkeypatch.setenv("SELFSAME_MODELS_DIR", str(tmp_path))
    assert load_backbone("my-own-model", device="cpu").patch_size == 16


def test_a_catalogue_name_is_not_shadowed_by_a_folder_in_the_current_directory(tmp_path, monkeypatch):
    make_model_folder("dinov2", tmp_path / "dinov2-small")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
        load_backbone("dinov2-small", device="cpu")


def test_the_catalogue_has_the_released_names():
    hub_ids = {info.name: info.hub_id for info in list_backbones()}
    assert hub_ids["embedded"] is hub_ids["embedded-hybrid"] is None
    for size in ("small", "base", "large", "giant"):
        assert hub_ids[f"dinov2-{size}"] == f"facebook/dinov2-{size}"
        assert hub_ids[f"dinov2-{size}-registers"] == f"facebook/dinov2-with-registers-{size}"
    for name in ("dino-vits16", "dino-vits8", "dino-vitb16", "dino-vitb8"):
        assert hub_ids[name] == f"facebook/{name}"
    assert hub_ids["siglip-base"] == "google/siglip-base-patch16-224"
    assert hub_ids["siglip-so400m"] == "google/siglip-so400m-patch14-384"
    assert hub_ids["siglip2-base"] == "google/siglip2-base-patch16-224"
    assert hub_ids["siglip2-base-naflex"] == "google/siglip2-base-patch16-naflex"
    for info in list_backbones():
        assert info.default_size % info.patch_size == 0


# --- one model in memory ----------------------------------------------------------------------------------------


def test_the_same_arguments_give_the_same_object(folder):
    first = load(folder)
    assert load(folder) is first
    assert load(folder, precision="bf16") is not first


def test_threads_that_ask_at_once_load_once(folder, monkeypatch):
    calls = []
    real = loader.backbone_from_folder
    monkeypatch.setattr(loader, "backbone_from_folder", lambda *a, **k: calls.append(1) or real(*a, **k))
    barrier, found = threading.Barrier(8), []

    def ask():
        barrier.wait()
        found.append(load(folder))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(calls) == 1
    assert len({id(backbone) for backbone in found}) == 1


def test_weights_that_were_replaced_on_disk_are_loaded_anew(folder):
    first = load(folder)
    make_model_folder("dinov2", folder, seed=1)
    os.utime(folder / "model.safetensors", (1, 1))
    second = load(folder)
    assert second.weights_hash != first.weights_hash
    assert not torch.equal(second.tokens(PIXELS).patch, first.tokens(PIXELS).patch)


def test_only_the_last_models_stay_in_memory(tmp_path):
    folders = [make_model_folder("dinov2", tmp_path / str(seed), seed) for seed in range(4)]
    first = load(folders[0])
    for other in folders[1:]:
        load(other)
    assert len(loader._loaded) == 2
    assert load(folders[0]) is not first


# --- hash -------------------------------------------------------------------------------------------------------


def test_the_hash_follows_weights_architecture_and_normalisation_but_not_the_place(tmp_path, folder):
    base = load(folder).weights_hash
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert load(moved).weights_hash == base

    other_weights = make_model_folder("dinov2", tmp_path / "weights", seed=1)
    other_heads = shutil.copytree(folder, tmp_path / "heads")
    edit_json(other_heads / "config.json", num_attention_heads=4)
    other_mean = shutil.copytree(folder, tmp_path / "mean")
    edit_json(other_mean / "preprocessor_config.json", image_mean=[0.5, 0.5, 0.5])
    other_version = shutil.copytree(folder, tmp_path / "version")
    edit_json(other_version / "config.json", transformers_version="4.0.0")

    assert load(other_version).weights_hash == base
    assert len({base, *(load(path).weights_hash for path in (other_weights, other_heads, other_mean))}) == 4


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


# --- formats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bin_file_and_a_safetensors_file_give_the_same_tokens(family, tmp_path):
    safe = load(make_model_folder(family, tmp_path / "safe"))
    plain = load(make_model_folder(family, tmp_path / "bin", safe_serialization=False))
    pixels = torch.rand(1, 3, 2 * safe.patch_size, 3 * safe.patch_size)
    assert torch.equal(safe.tokens(pixels).patch, plain.tokens(pixels).patch)


def test_weights_split_over_several_files_are_read(folder):
    whole = load(folder).tokens(PIXELS).patch
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in parts.items():
        save_file({key: tensors[key] for key in keys}, folder / file, metadata={"format": "pt"})
    weight_map = {key: file for file, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))

    assert torch.equal(load(folder).tokens(PIXELS).patch, whole)

    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"00002-of-00002.*missing.*download"):
        load(folder)


def test_the_normalisation_of_the_folder_is_used(folder):
    edit_json(folder / "preprocessor_config.json", image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    own = load(folder).tokens(PIXELS).patch
    edit_json(folder / "preprocessor_config.json", do_normalize=False)
    raw = load(folder)
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
    torch.testing.assert_close(raw.tokens((PIXELS - mean) / std).patch, own, rtol=1e-4, atol=1e-5)


def test_without_a_preprocessor_file_the_familys_normalisation_is_used(tmp_path):
    for family in ("dinov2", "siglip"):
        named = load(make_model_folder(family, tmp_path / f"{family}-with"))
        silent = load(make_model_folder(family, tmp_path / f"{family}-without", preprocessor=False))
        pixels = torch.rand(1, 3, 4 * named.patch_size, 4 * named.patch_size)
        assert torch.equal(named.tokens(pixels).patch, silent.tokens(pixels).patch)


def test_loading_leaves_the_callers_random_numbers_alone(folder):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load(folder)
    load_backbone("embedded", device="cpu")
    assert torch.equal(torch.rand(3), expected)


# --- faults -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dinov2-smal", "did you mean 'dinov2-small'"),
        ("embeded-hybrid", "did you mean 'embedded-hybrid'"),
        ("no-such-model", "no-such-model.*siglip2-base.*SELFSAME_MODELS_DIR"),
        ("", "is unknown"),
        ("/no/such/folder", "no such folder"),
        ("./no-such-folder", "no such folder"),
        ("../x", "no such folder"),
    ],
)
def test_a_wrong_name_is_named_and_the_right_ones_are_listed(name, says):
    with pytest.raises(ConfigError, match=says):
        load_backbone(name, device="cpu")


def test_a_file_in_place_of_a_folder_is_refused(folder):
    with pytest.raises(ConfigError, match="is a file; give the folder"):
        load(folder / "model.safetensors")


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def garbage(folder):
    (folder / "model.safetensors").write_bytes(b"<html>404</html>" * 50)


def no_config(folder):
    (folder / "config.json").unlink()


def broken_config(folder):
    (folder / "config.json").write_text("{")


def list_config(folder):
    (folder / "config.json").write_text("[1]")


def other_architecture(folder):
    edit_json(folder / "config.json", model_type="bert")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def missing_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("layernorm.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def other_shape(folder):
    edit_json(folder / "config.json", hidden_size=64)


def nonsense_setting(folder):
    edit_json(folder / "config.json", hidden_size="many")


def broken_mean(folder):
    edit_json(folder / "preprocessor_config.json", image_mean=0.5)


def zero_std(folder):
    edit_json(folder / "preprocessor_config.json", image_std=[0.2, 0, 0.2])


def broken_index(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{}")


def truncated_bin(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (truncate, "cannot be loaded.*download the model again"),
        (empty, r"model.safetensors: weight file is empty \(0 bytes\); download"),
        (garbage, "cannot be loaded.*download the model again"),
        (no_config, "no config.json in this folder; give a folder in transformers format"),
        (broken_config, "config.json: broken file"),
        (list_config, "config.json: broken file"),
        (other_architecture, "'bert' is not supported; use a model whose model_type is one of dinov2"),
        (no_weights, "no weights in this folder; it needs model.safetensors"),
        (missing_tensor, "lack 1 tensors.*layernorm.weight"),
        (other_shape, "cannot be loaded|lack"),
        (nonsense_setting, "cannot be loaded"),
        (broken_mean, "image_mean is 0.5, not three numbers"),
        (zero_std, "image_std .* must not be zero"),
        (broken_index, "broken weight index"),
        (truncated_bin, "cannot be loaded.*download the model again"),
    ],
)
def test_a_damaged_folder_is_named_with_what_to_do(folder, damage, says):
    damage(folder)
    with pytest.raises(ModelError, match=says) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


def test_a_pickle_that_runs_code_is_refused_and_not_run(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    witness = tmp_path / "was-run"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(witness),)

    torch.save({"layernorm.weight": Evil()}, folder / "pytorch_model.bin", pickle_module=pickle)

    with pytest.raises(ModelError, match="cannot be loaded"):
        load(folder)
    assert not witness.exists()


def test_code_that_a_folder_brings_along_is_not_run(folder, tmp_path):
    witness = tmp_path / "was-run"
    (folder / "modeling_evil.py").write_text(f"import os\nos.mkdir({str(witness)!r})\nclass Evil: pass\n")
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"})
    load(folder)
    assert not witness.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no CUDA")
def test_a_device_that_is_not_there_is_named(folder):
    with pytest.raises(ConfigError, match=r"device='cuda' is not available.*device='auto' or 'cpu'"):
        load_backbone(str(folder), device="cuda")


@pytest.mark.parametrize("device", ["gpu", "cpu:x", "xla", "meta"])
def test_an_unknown_device_is_named(folder, device):
    with pytest.raises(ConfigError, match=f"device='{device}'"):
        load_backbone(str(folder), device=device)


def test_an_unknown_precision_is_named(folder):
    with pytest.raises(ConfigError, match="precision='int8' is unknown; use one of auto, fp32, bf16, fp16"):
        load(folder, precision="int8")


def test_automatic_precision_on_the_cpu_is_float32(folder):
    assert load(folder).precision == "fp32"
