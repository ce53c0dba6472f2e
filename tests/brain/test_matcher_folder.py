"""Folders of trained matchers: what is written, what comes back, what is refused, and the list of them."""

import json

import pytest
import torch
from fiftyone_selfsame.brain.cosalient import registry
from fiftyone_selfsame.brain.cosalient.calibration import Calibration
from fiftyone_selfsame.brain.cosalient.matcher_folder import (
    load_network,
    open_matcher_folder,
    save_logistic,
    save_network,
)
from fiftyone_selfsame.brain.cosalient.network import PairNetwork
from fiftyone_selfsame.brain.cosalient.network_config import NetworkConfig
from fiftyone_selfsame.brain.errors import ConfigError, ModelError

TINY = NetworkConfig(widths=(4, 4, 8, 8), d=8, mask_width=8, match_width=8, side=96, k=4)
TOKENS = NetworkConfig("tokens", backbone="embedded", d=8, mask_width=8, match_width=8, side=96, k=4)
SCORES = ("similarity", "consistency", "ffa")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return PairNetwork(TINY)


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    """A home folder without matchers, and a package without a demo matcher."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(registry, "DEMO_FOLDER", tmp_path / "no-demo")
    return tmp_path / "home"


def test_a_network_comes_back_with_its_options_threshold_facts_and_weights(tmp_path, network):
    save_network(tmp_path / "mine", network, threshold=0.35, facts={"pairs": 120})
    folder = open_matcher_folder(tmp_path / "mine")
    assert (folder.kind, folder.threshold, folder.facts) == ("network", 0.35, {"pairs": 120})
    assert folder.network == TINY
    loaded = load_network(folder).state_dict()
    for name, value in network.state_dict().items():
        assert loaded[name].dtype == value.dtype
        torch.testing.assert_close(loaded[name], value, rtol=1e-3, atol=1e-6)


def test_weights_are_written_in_half_precision(tmp_path, network):
    save_network(tmp_path / "mine", network, threshold=0.5, facts={})
    weights = sum(parameter.numel() for parameter in network.parameters())
    assert (tmp_path / "mine" / "model.safetensors").stat().st_size < 2 * weights + 20_000


def test_the_card_names_the_matcher_its_threshold_options_and_facts(tmp_path, network):
    save_network(tmp_path / "mine", network, threshold=0.35, facts={"training pairs": 120})
    card = (tmp_path / "mine" / "README.md").read_text()
    assert card.startswith("# mine\n")
    assert "0.35" in card
    assert "| training pairs | 120 |" in card
    assert "| encoder | coder |" in card


def test_a_card_of_ones_own_is_taken_as_it_is(tmp_path, network):
    save_network(tmp_path / "mine", network, threshold=0.35, facts={}, card="# Mine\n")
    assert (tmp_path / "mine" / "README.md").read_text() == "# Mine\n"


def test_a_calibration_comes_back_with_the_arguments_of_its_scores(tmp_path):
    calibration = Calibration(SCORES, (1.0, 2.0, 3.0), -2.0, threshold=0.6, fitted_on=40)
    save_logistic(tmp_path / "mine", calibration, free={"model": "embedded"}, facts={})
    folder = open_matcher_folder(tmp_path / "mine")
    assert (folder.kind, folder.threshold, folder.free, folder.network) == (
        "logistic",
        0.6,
        {"model": "embedded"},
        None,
    )
    assert Calibration.load(tmp_path / "mine" / "calibration.json") == calibration


def test_a_matcher_replaces_one_of_the_other_kind(tmp_path, network):
    save_logistic(tmp_path / "mine", Calibration(SCORES, (1.0, 1.0, 1.0), 0.0), free={}, facts={})
    save_network(tmp_path / "mine", network, threshold=0.5, facts={})
    assert open_matcher_folder(tmp_path / "mine").kind == "network"
    assert not (tmp_path / "mine" / "calibration.json").exists()


def test_the_digest_tells_weights_and_options_apart_but_not_names(tmp_path, network):
    first, copy = (save_network(tmp_path / name, network, threshold=0.5, facts={}) for name in ("first", "copy"))
    with torch.no_grad():
        next(network.parameters()).add_(1)
    other = save_network(tmp_path / "other", network, threshold=0.5, facts={})
    assert first.digest() == copy.digest() != other.digest()


def test_a_folder_whose_writing_was_cut_off_is_not_taken_for_complete(tmp_path, network, monkeypatch):
    save_network(tmp_path / "mine", network, threshold=0.5, facts={})
    monkeypatch.setattr("safetensors.torch.save_file", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_network(tmp_path / "mine", network, threshold=0.7, facts={})
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        open_matcher_folder(tmp_path / "mine")


@pytest.mark.parametrize(
    ("key", "value"),
    [("format", "other"), ("version", 2), ("kind", "forest"), ("threshold", "high"), ("network", {"d": 0})],
)
def test_a_config_that_says_something_else_is_refused(tmp_path, network, key, value):
    save_network(tmp_path / "mine", network, threshold=0.5, facts={})
    path = tmp_path / "mine" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ModelError, match="mine"):
        open_matcher_folder(tmp_path / "mine")


def test_broken_weights_are_an_error_with_the_path(tmp_path, network):
    save_network(tmp_path / "mine", network, threshold=0.5, facts={})
    (tmp_path / "mine" / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match=r"mine/model\.safetensors"):
        load_network(open_matcher_folder(tmp_path / "mine"))


def test_weights_of_other_widths_are_refused(tmp_path, network):
    save_network(tmp_path / "mine", network, threshold=0.5, facts={})
    path = tmp_path / "mine" / "config.json"
    content = json.loads(path.read_text())
    content["network"]["mask_width"] = 16
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_network(open_matcher_folder(tmp_path / "mine"))


def test_a_network_of_tokens_keeps_the_backbone_out_and_refuses_another_one(tmp_path):
    from fiftyone_selfsame.brain.backbones import load_backbone

    save_network(tmp_path / "mine", PairNetwork(TOKENS), threshold=0.5, facts={})
    folder = open_matcher_folder(tmp_path / "mine")
    assert folder.backbone_hash == load_backbone("embedded").weights_hash
    assert not [name for name in load_network(folder).state_dict() if "backbone" in name]
    with pytest.raises(ModelError, match="another 'embedded-untrained'"):
        load_network(folder, load_backbone("embedded-untrained"))


def test_the_list_begins_with_the_training_free_matcher_and_leaves_out_unfinished_folders(own_home, network):
    save_network(registry.new_matcher_folder("kites"), network, threshold=0.5, facts={})
    (own_home / "matchers" / "unfinished").mkdir()
    assert [info.name for info in registry.list_matchers()] == ["training_free", "training_free_paper", "kites"]
    assert registry.list_matchers()[2].folder.path == own_home / "matchers" / "kites"


def test_the_list_has_the_demo_matcher_where_the_package_brings_one(own_home, network):
    save_network(registry.DEMO_FOLDER, network, threshold=0.5, facts={})
    assert [info.name for info in registry.list_matchers()] == ["training_free", "training_free_paper", "demo"]
    assert registry.find_matcher_folder("demo").path == registry.DEMO_FOLDER


def test_a_matcher_is_found_by_its_name_or_by_its_folder(own_home, network, tmp_path):
    save_network(registry.new_matcher_folder("kites"), network, threshold=0.5, facts={})
    save_network(tmp_path / "elsewhere", network, threshold=0.5, facts={})
    assert registry.find_matcher_folder("kites").path == own_home / "matchers" / "kites"
    assert registry.find_matcher_folder(tmp_path / "elsewhere").path == tmp_path / "elsewhere"


def test_an_unknown_name_gets_a_hint(own_home, network):
    save_network(registry.new_matcher_folder("kites"), network, threshold=0.5, facts={})
    with pytest.raises(ConfigError, match="did you mean 'kites'"):
        registry.find_matcher_folder("kite")


def test_a_missing_demo_is_an_error_of_the_package_and_not_of_the_name(own_home):
    with pytest.raises(ModelError, match="not part of this copy"):
        registry.find_matcher_folder("demo")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 81, "demo", "training_free"])
def test_a_new_matcher_needs_a_plain_name_of_its_own(own_home, name):
    with pytest.raises(ConfigError, match="matcher name"):
        registry.new_matcher_folder(name)
