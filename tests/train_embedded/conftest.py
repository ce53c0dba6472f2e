"""Training material in small: the packaged scenes, and a few made-up photographs."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from fiftyone_selfsame.fixtures.train_embedded.data import load_photos, load_scenes
from PIL import Image


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory):
    """Six photographs of smooth coloured noise with a manifest."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    items = []
    for number in range(6):
        small = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        name = f"{number}.png"
        Image.fromarray(small).resize((200, 170), Image.Resampling.BICUBIC).save(folder / name)
        items.append({"path": name})
    (folder / "manifest.json").write_text(json.dumps({"items": items}))
    return folder


@pytest.fixture(scope="session")
def photos(photo_folder):
    return load_photos(photo_folder)


@pytest.fixture(scope="session")
def scenes():
    return load_scenes(TINY_FOLDER)
