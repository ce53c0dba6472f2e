"""Places read from similarities: against loops over all cells, and what flips and excluded cells do to them."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.decoding import DECODINGS, DecodeConfig, decode
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


def _maps(seed, count, height, width, dtype=torch.float64):
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1


def _slow(similarity, config, valid):
    """Column and row, cell by cell."""
    height, width = similarity.shape
    cells = [(row, column) for row in range(height) for column in range(width) if valid[row, column]]
    if not cells:
        return np.nan, np.nan
    peak = max(cells, key=lambda cell: (similarity[cell], -cell[0], -cell[1]))
    if config.method == "nearest":
        return peak[1], peak[0]
    values = {}
    for row, column in cells:
        value = similarity[row, column]
        if config.method == "window" and max(abs(row - peak[0]), abs(column - peak[1])) > config.radius:
            if config.window_fill == "mask":
                continue
            value = 0.0
        if config.method == "gaussian":
            value *= np.exp(-((row - peak[0]) ** 2 + (column - peak[1]) ** 2) / (2 * config.sigma**2))
        values[row, column] = value / config.temperature
    top = max(values.values())
    weights = {cell: np.exp(value - top) for cell, value in values.items()}
    total = sum(weights.values())
    return (
        sum(weight * cell[1] for cell, weight in weights.items()) / total,
        sum(weight * cell[0] for cell, weight in weights.items()) / total,
    )


@given(
    grid=grids,
    method=st.sampled_from(DECODINGS),
    fill=st.sampled_from(["mask", "zero"]),
    radius=st.integers(0, 4),
    temperature=st.sampled_from([0.02, 0.3]),
    excluded=st.booleans(),
    seed=st.integers(0, 999),
)
def test_every_way_agrees_with_a_loop_over_the_cells(grid, method, fill, radius, temperature, excluded, seed):
    config = DecodeConfig(method, temperature, radius, 1.5, fill)
    maps = _maps(seed, 3, *grid)
    valid = _maps(seed + 1, 3, *grid) > (0 if excluded else -2)

    found = decode(maps, config, valid)

    expected = [_slow(one.numpy(), config, allowed.numpy()) for one, allowed in zip(maps, valid, strict=True)]
    np.testing.assert_allclose(found.places, expected, rtol=1e-5, atol=1e-6)
    reachable = valid.flatten(1).any(1)
    peaks = torch.where(valid, maps, -torch.inf).flatten(1).amax(1)
    assert torch.equal(found.peaks[reachable], peaks[reachable])
    assert found.peaks[~reachable].isnan().all()


@given(grid=grids, method=st.sampled_from(DECODINGS), seed=st.integers(0, 999))
def test_a_flipped_map_gives_the_flipped_place(grid, method, seed):
    maps, config = _maps(seed, 4, *grid), DecodeConfig(method, radius=2)

    places, flipped = decode(maps, config).places, decode(maps.flip(2), config).places

    np.testing.assert_allclose(flipped[:, 0], grid[1] - 1 - places[:, 0], atol=1e-9)
    np.testing.assert_allclose(flipped[:, 1], places[:, 1], atol=1e-9)


@given(grid=grids, method=st.sampled_from(DECODINGS), seed=st.integers(0, 999))
def test_points_are_decoded_as_if_alone_and_lie_on_the_grid(grid, method, seed):
    maps, config = _maps(seed, 5, *grid), DecodeConfig(method)
    order = torch.tensor([3, 0, 4, 1, 2])

    found, shuffled = decode(maps, config), decode(maps[order], config)

    assert torch.equal(found.places[order], shuffled.places)
    assert (found.places >= 0).all()
    assert (found.places <= torch.tensor([grid[1] - 1, grid[0] - 1]) + 1e-9).all()


def test_a_weak_match_drifts_to_the_middle_only_under_the_published_fill():
    maps = torch.full((1, 21, 21), -0.5)
    maps[0, 2, 3] = -0.1

    masked = decode(maps, DecodeConfig("window", radius=1)).places[0]
    filled = decode(maps, DecodeConfig("window", radius=1, window_fill="zero")).places[0]

    assert torch.allclose(masked, torch.tensor([3.0, 2.0]), atol=1e-3)
    assert torch.allclose(filled, torch.tensor([10.0, 10.0]), atol=0.2)


def test_a_peak_between_two_cells_is_found_between_them():
    maps = torch.zeros(1, 5, 5)
    maps[0, 2, 1] = maps[0, 2, 2] = 1.0

    assert decode(maps, DecodeConfig("window", radius=1)).places[0].tolist() == pytest.approx([1.5, 2.0])
    assert decode(maps, DecodeConfig("nearest")).places[0].tolist() == [1.0, 2.0]


def test_half_precision_stays_finite_at_a_low_temperature():
    found = decode(_maps(0, 6, 12, 12, torch.float32).half(), DecodeConfig("window"))

    assert found.places.isfinite().all()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"method": "best"}, "nearest, soft, window, gaussian"),
        ({"window_fill": "nan"}, "mask, zero"),
        ({"temperature": 0.0}, "positive"),
        ({"radius": -1}, "negative"),
    ],
)
def test_options_that_cannot_work_are_refused(options, word):
    with pytest.raises(ConfigError, match=word):
        DecodeConfig(**options)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ConfigError, match="give \\(n, h, w\\)"):
        decode(torch.zeros(3, 3))
    with pytest.raises(ConfigError, match="valid cells"):
        decode(torch.zeros(1, 3, 3), valid=torch.ones(3, 4, dtype=torch.bool))


def test_no_points_give_no_places():
    assert decode(torch.zeros(0, 4, 4)).places.shape == (0, 2)
