"""The small rendered set that comes with the package."""

import pytest
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER
from fiftyone_selfsame.fixtures.scenes.records import read_scenes


@pytest.fixture(scope="session")
def tiny_scenes():
    """All images of the packaged set, by name."""
    return {image.name: image for image in read_scenes(TINY_FOLDER)}


@pytest.fixture(scope="session")
def tiny_shots():
    """The shots that the packaged set was taken of, by name."""
    from fiftyone_selfsame.fixtures.scenes.plan import PRESETS, shots

    return {shot.name: shot for shot in shots(PRESETS["tiny"], 0)}
