import pytest
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.brain.foreground import FOREGROUNDS, load_foreground


def test_methods_without_weights_load_by_name_and_say_which_they_are():
    assert load_foreground("one_pass").name == "one_pass"
    assert hasattr(load_foreground("one_pass"), "coverage")
    assert load_foreground("grabcut").name == "grabcut"
    assert hasattr(load_foreground("grabcut"), "masks")
    assert load_foreground("none") is None


@pytest.mark.parametrize("name", [name for name in FOREGROUNDS if name.startswith("carvekit")])
def test_every_carvekit_name_asks_for_its_own_weights(name, tmp_path):
    file = {"carvekit": "tracer_b7"}.get(name, name.removeprefix("carvekit-"))

    with pytest.raises(ModelError, match=f"{file}.pth is not in"):
        load_foreground(name, device="cpu", model_dir=tmp_path)


def test_options_reach_the_method():
    assert load_foreground("grabcut", side=64, iterations=2).config.side == 64


def test_unknown_names_and_options_are_answered_with_the_known_ones():
    with pytest.raises(ConfigError, match="'sam' is unknown; use one of one_pass, grabcut, carvekit"):
        load_foreground("sam")
    with pytest.raises(ConfigError, match="label fields are read by compute_ffa"):
        load_foreground("field:ground_truth")
    with pytest.raises(ConfigError, match="no option 'sides'; it takes side, iterations"):
        load_foreground("grabcut", sides=3)
    with pytest.raises(ConfigError, match="no options, but got components"):
        load_foreground("one_pass", components=3)
    with pytest.raises(ConfigError, match="no option 'segmenter'"):
        load_foreground("carvekit", segmenter="u2net")
