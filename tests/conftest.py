"""Fixtures shared by all tests: the shared data folder and a private, real FiftyOne database."""

import os
import tempfile
from pathlib import Path

import pytest
from fiftyone_selfsame.fixtures.private_database import use_private_database
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# FiftyOne reads its configuration at import: the private folders must be in place before any test imports it.
_STATE = tempfile.TemporaryDirectory(prefix="selfsame-tests-", ignore_cleanup_errors=True)
os.environ["FIFTYONE_PLUGINS_DIR"] = f"{_STATE.name}/plugins"
os.environ["FIFTYONE_MODEL_ZOO_DIR"] = f"{_STATE.name}/zoo"
os.environ["FIFTYONE_DEFAULT_DATASET_DIR"] = f"{_STATE.name}/datasets"
os.environ["FIFTYONE_DO_NOT_TRACK"] = "true"
os.environ["SELFSAME_HOME"] = f"{_STATE.name}/selfsame"
os.environ["HF_HUB_OFFLINE"] = "1"

# A server of our own: by itself FiftyOne would join one that it finds running, with somebody's datasets in it.
os.environ.pop("FIFTYONE_DATABASE_URI", None)
use_private_database()

# Import of a library in the first example, or a busy machine, must not fail a test.
settings.register_profile("selfsame", deadline=None)
settings.load_profile("selfsame")


def pytest_addoption(parser):
    parser.addoption("--shared-dir", default=str(ROOT.parent / "shared"), help="folder with data/ and reference/")
    parser.addoption("--reference-dir", default=None, help="folder of golden vectors; default: SHARED_DIR/reference")


@pytest.fixture(scope="session")
def shared_dir(request) -> Path:
    """The folder with real photographs and golden vectors, which is not part of this repository."""
    folder = Path(request.config.getoption("--shared-dir"))
    if not folder.is_dir():
        pytest.skip(f"needs the shared data folder, which is absent: {folder}")
    return folder


@pytest.fixture
def fo_dataset():
    """A factory of non-persistent datasets on a real database: ``fo_dataset([filepath, ...])``; deleted afterwards."""
    import fiftyone as fo

    created = []

    def make(filepaths=()):
        dataset = fo.Dataset()
        created.append(dataset)
        dataset.add_samples([fo.Sample(filepath=str(path)) for path in filepaths])
        return dataset

    yield make
    for dataset in created:
        if not dataset.deleted:
            dataset.delete()
