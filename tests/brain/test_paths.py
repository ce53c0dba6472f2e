"""Where Selfsame keeps its files."""

from pathlib import Path

from fiftyone_selfsame.brain.paths import home, models_dir


def test_the_environment_decides_and_a_tilde_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path))
    monkeypatch.setenv("SELFSAME_MODELS_DIR", "~/models")
    assert home() == tmp_path
    assert models_dir() == Path.home() / "models"


def test_without_it_the_users_home_is_used_and_there_is_no_models_folder(monkeypatch):
    monkeypatch.delenv("SELFSAME_HOME")
    monkeypatch.setenv("SELFSAME_MODELS_DIR", "")
    assert home() == Path.home() / ".selfsame"
    assert models_dir() is None
