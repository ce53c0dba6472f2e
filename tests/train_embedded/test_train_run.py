"""Runs: killed and resumed ones end like uninterrupted ones, and leave a model folder that loads."""

import json

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from fiftyone_selfsame.fixtures.train_embedded import loop
from fiftyone_selfsame.fixtures.train_embedded.__main__ import main
from fiftyone_selfsame.fixtures.train_embedded.loop import Settings, make_batch, new_state, take_step, train
from fiftyone_selfsame.fixtures.train_embedded.model import ARCHITECTURES, build_model, tokens

SMALL = Settings(
    architecture="convnext-tiny",
    steps=6,
    photo_objects=4,
    scene_objects=4,
    side=32,
    last_side=48,
    last_share=0.34,
    warmup=2,
    mixed=False,
)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, whatever the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(state):
    return torch.cat([value.flatten() for value in state.average.state_dict().values()])


def test_a_killed_run_ends_like_one_that_was_not(photos, scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVE_EVERY", 2)
    whole = train(photos, scenes, SMALL, tmp_path / "whole", report=lambda _: None)

    def killed(state, batch, settings):
        if state.step == 5:
            raise KeyboardInterrupt
        return take_step(state, batch, settings)

    monkeypatch.setattr(loop, "take_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(photos, scenes, SMALL, tmp_path / "killed", report=lambda _: None)
    monkeypatch.setattr(loop, "take_step", take_step)
    lines = []
    resumed = train(photos, scenes, SMALL, tmp_path / "killed", report=lines.append)

    assert lines[0] == "going on after step 4"
    assert torch.equal(weights(whole), weights(resumed))


def test_another_seed_trains_another_model(photos, scenes, tmp_path):
    first = train(photos, scenes, SMALL, tmp_path / "a", report=lambda _: None)
    other = Settings(**{**SMALL.__dict__, "seed": 1})
    second = train(photos, scenes, other, tmp_path / "b", report=lambda _: None)

    assert not torch.equal(weights(first), weights(second))


def test_training_lowers_the_loss_of_the_batch_it_trains_on(photos, scenes):
    settings = Settings(**{**SMALL.__dict__, "steps": 60, "learning_rate": 3e-3})
    state = new_state(settings, torch.device("cpu"))
    batch = make_batch(photos, scenes, settings, 0)

    losses = [take_step(state, batch, settings)["total"] for _ in range(30)]

    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.2


def test_a_checkpoint_of_other_settings_is_refused(photos, tmp_path):
    train(photos, None, SMALL, tmp_path, report=lambda _: None)

    with pytest.raises(ConfigError, match="other settings"):
        train(photos, None, Settings(**{**SMALL.__dict__, "seed": 2}), tmp_path, report=lambda _: None)


def test_a_broken_checkpoint_is_named(photos, tmp_path):
    (tmp_path / loop.CHECKPOINT).write_bytes(b"half")

    with pytest.raises(ConfigError, match=r"checkpoint\.pt: the checkpoint is broken"):
        train(photos, None, SMALL, tmp_path, report=lambda _: None)


def test_nothing_to_train_on_is_an_error(tmp_path, capsys):
    assert main(["--out", str(tmp_path)]) == 2
    assert "give --scenes, --photos, or both" in capsys.readouterr().err


@pytest.mark.parametrize("bad", [{"side": 50}, {"steps": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(ConfigError):
        Settings(**{**SMALL.__dict__, **bad})


def arguments(out, *more):
    values = {"steps": 2, "photo-objects": 3, "scene-objects": 3, "side": 32, "last-side": 32, "threads": 1}
    options = [text for name, value in values.items() for text in (f"--{name}", str(value))]
    return ["--out", str(out), "--architecture", "convnext-tiny", *options, *more]


def test_the_command_writes_a_folder_that_loads_as_any_other_model(photo_folder, tmp_path, capsys):
    status = main(arguments(tmp_path, "--scenes", str(TINY_FOLDER), "--photos", str(photo_folder)))

    assert status == 0
    facts = json.loads((tmp_path / "training.json").read_text())
    assert facts["settings"]["steps"] == 2
    assert facts["data"]["photographs"] == 6
    assert (tmp_path / "train_curve.svg").read_text().startswith("<svg")
    assert len((tmp_path / "train_log.csv").read_text().splitlines()) == 2
    backbone = load_backbone(str(tmp_path), device="cpu")
    assert (backbone.patch_size, backbone.dim) == (16, 32)
    assert torch.isfinite(backbone.tokens(torch.rand(1, 3, 64, 96)).patch).all()


def test_scenes_alone_are_enough_and_the_command_says_what_is_missing(tmp_path, capsys):
    assert main(arguments(tmp_path, "--scenes", str(TINY_FOLDER))) == 0

    assert "training on scenes alone" in capsys.readouterr().out


def test_photographs_alone_are_enough_too(photo_folder, tmp_path, capsys):
    assert main(arguments(tmp_path, "--photos", str(photo_folder))) == 0

    assert "training on photographs alone" in capsys.readouterr().out


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_quick_forward_pass_computes_what_transformers_computes(name):
    model = build_model(name, 0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        state = model(pixel_values=(images - mean) / std).last_hidden_state
        expected = model.layernorm(state.permute(0, 2, 3, 1)) if state.ndim == 4 else state[:, 1:].unflatten(1, (4, 4))

        found = tokens(model, images, torch.float32)

    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_keeps_within_its_limits(name):
    model = build_model(name, 0)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters <= 6_000_000
    assert 2 * parameters <= 12 * 2**20
