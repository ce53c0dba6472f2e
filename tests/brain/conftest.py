"""What tests of the CLAID detector share: its literal form, and maps of tokens that fall into regions."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def literal():
    """The detector written out step by step, as a module."""
    path = Path(__file__).resolve().parent.parent / "claid_literal.py"
    spec = importlib.util.spec_from_file_location("claid_literal", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def blobs():
    """``blobs(seed, h, w, channels=12, kind=np.float32)``: tokens ``(h, w, C)`` of round regions, alike in groups."""

    def make(seed, height, width, channels=12, kind=np.float32):
        generator = np.random.default_rng(seed)
        centres = generator.uniform(0, 1, (7, 2)) * (height, width)
        rows, columns = np.mgrid[:height, :width]
        distances = (rows[..., None] - centres[:, 0]) ** 2 + (columns[..., None] - centres[:, 1]) ** 2
        prototypes = generator.standard_normal((7, channels)) + 0.5 * generator.standard_normal(channels)
        prototypes *= generator.uniform(0.5, 2, (7, 1))
        noise = generator.standard_normal((height, width, channels))
        return (prototypes[distances.argmin(-1)] + 0.6 * noise).astype(kind)

    return make
