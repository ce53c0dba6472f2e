"""What must hold for the regions of any image, by any engine and options."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.claid.hierarchy import Hierarchy, detect, detect_batch
from fiftyone_selfsame.brain.claid.options import PRESETS
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

seeds = st.integers(0, 2**32 - 1)
sides = st.integers(1, 16)
presets = st.sampled_from(sorted(PRESETS)).map(PRESETS.get)
engines = st.sampled_from(["numpy", "compiled", "torch"])
few = settings(max_examples=40)


def regions(hierarchy: Hierarchy):
    """Every region with the patches that it was cut from."""
    everything = np.ones(hierarchy.grid_hw, bool)
    parents = [everything if parent < 0 else hierarchy.masks[parent] for parent in hierarchy.parent]
    return zip(hierarchy.masks, parents, strict=True)


def assert_same(one: Hierarchy, other: Hierarchy):
    for field in fields(Hierarchy):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


@few
@given(seed=seeds, height=sides, width=sides, options=presets, engine=engines, least=st.sampled_from([1, 4, 15]))
def test_children_are_large_connected_parts_of_their_parents(blobs, seed, height, width, options, engine, least):
    options = replace(options, min_patches=least)

    (found,) = detect_batch(blobs(seed, height, width)[None], options, engine=engine)

    for mask, parent in regions(found):
        assert not (mask & ~parent).any()
        assert mask.sum() < parent.sum()
        assert mask.sum() >= least
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    for parent in np.unique(found.parent):
        assert found.masks[found.parent == parent].sum(0).max() == 1


@few
@given(seed=seeds, height=sides, width=sides, options=presets, engine=engines)
def test_the_figures_of_a_region_follow_from_its_patches(literal, blobs, seed, height, width, options, engine):
    features = blobs(seed, height, width, kind=np.float64)
    (found,) = detect_batch(features[None], options, engine=engine)

    affinity, high_energy = literal.literal_affinity(features.reshape(height * width, -1))
    for row, mask in enumerate(found.masks):
        expected = literal._figures(affinity, high_energy, np.flatnonzero(mask), options)
        for name in ("size", "hits", "emitted", "expanded"):
            assert getattr(found, name)[row] == expected[name], name
        assert found.connect[row] == pytest.approx(expected["connect"], abs=1e-9)
        assert found.cbar[row] == pytest.approx(expected["cbar"], abs=1e-9)
        parent = found.parent[row]
        assert found.level[row] == (1 if parent < 0 else found.level[parent] + 1)


@few
@given(seed=seeds, height=sides, width=sides, options=presets, engine=engines)
def test_every_bisection_is_recorded_and_only_loose_regions_are_bisected(blobs, seed, height, width, options, engine):
    options = replace(options, min_patches=3)

    (found,) = detect_batch(blobs(seed, height, width)[None], options, engine=engine)

    wanted = np.flatnonzero(found.expanded).tolist()
    assert found.cuts[:, 0].tolist() == ([-1, *wanted] if height * width >= 3 else [])
    for row, size, zeros, ones, low, high, epochs, _ in found.cuts:
        mask = np.ones(found.grid_hw, bool) if row < 0 else found.masks[row]
        assert size == mask.sum() == zeros + ones
        assert mask.flat[low]
        assert mask.flat[high]
        assert 1 <= epochs <= options.max_epochs
        children = found.parent == row
        for side, part in ((0, zeros), (1, ones)):
            assert found.size[children & (found.side == side)].sum() <= part
    assert set(found.parent) <= {-1, *wanted}
    assert (np.diff(found.level) >= 0).all()
    assert (np.diff(found.parent) >= 0).all()


@few
@given(seed=seeds, options=presets, engine=engines, order=st.permutations(range(5)))
def test_neither_the_order_of_a_batch_nor_its_size_matters(blobs, seed, options, engine, order):
    batch = torch.from_numpy(np.stack([blobs(seed + index, 9, 12) for index in range(5)]))

    alone = [detect_batch(one[None], options, engine=engine)[0] for one in batch]
    permuted = detect_batch(batch[list(order)], options, engine=engine)

    for index, found in zip(order, permuted, strict=True):
        assert_same(found, alone[index])


@few
@given(seed=seeds, height=sides, width=sides, options=presets)
def test_engines_agree(blobs, seed, height, width, options):
    features = blobs(seed, height, width, kind=np.float64)[None]

    (expected,) = detect_batch(features, options, engine="numpy")

    for engine in ("compiled", "torch"):
        (found,) = detect_batch(features, options, engine=engine)
        assert_same(replace(found, connect=expected.connect, cbar=expected.cbar), expected)


@few
@given(seed=seeds, height=sides, width=sides, scale=st.sampled_from([0.5, 2.0, 1024.0]))
def test_the_scale_of_the_tokens_does_not_matter(blobs, seed, height, width, scale):
    features = blobs(seed, height, width)

    assert_same(detect(features * np.float32(scale)), detect(features))


@few
@given(seed=seeds, n=st.integers(1, 200))
def test_a_grid_of_one_row_has_the_regions_of_one_column(blobs, seed, n):
    # Raster indices, and so the order of the visits, are the same; only neighbours above and below are not there.
    features = blobs(seed, 1, n)

    row, column = detect(features), detect(features.reshape(n, 1, -1))

    np.testing.assert_array_equal(row.masks.reshape(-1, n), column.masks.reshape(-1, n))
    np.testing.assert_array_equal(row.cuts, column.cuts)
    assert (row.grid_hw, column.grid_hw) == ((1, n), (n, 1))


@few
@given(seed=seeds, height=sides, width=sides, low=st.sampled_from([0.0, 0.1, 0.2]), high=st.sampled_from([0.3, 0.5]))
def test_tau2_decides_what_is_emitted_and_changes_no_region(blobs, seed, height, width, low, high):
    features = blobs(seed, height, width)

    loose = detect(features, replace(PRESETS["default"], tau2=low))
    strict = detect(features, replace(PRESETS["default"], tau2=high))

    assert_same(replace(loose, emitted=strict.emitted), strict)
    assert not (strict.emitted & ~loose.emitted).any()
    np.testing.assert_array_equal(strict.emitted, strict.hits * 10 > strict.size * round(high * 10))
