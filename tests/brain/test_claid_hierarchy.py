"""The CLAID detector: small images worked by hand, the literal form, edge cases, and the choice of an engine."""

import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain import claid
from fiftyone_selfsame.brain.claid import affinity, similarity
from fiftyone_selfsame.brain.claid.hierarchy import Hierarchy, detect, detect_batch
from fiftyone_selfsame.brain.claid.options import PRESETS, DetectorOptions, detector_preset
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from hypothesis import assume, given, settings
from hypothesis import strategies as st

ENGINES = ("numpy", "compiled", "torch")
EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES)


def assert_same(one: Hierarchy, other: Hierarchy):
    for field in fields(Hierarchy):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def halves(height, width):
    """Tokens ``(h, w, 4)`` that are alike within the left and within the right half; the right ones are longer."""
    features = np.zeros((height, width, 4), np.float32)
    features[:, : width // 2, 0] = 1
    features[:, width // 2 :, 1] = 2
    return features


@EVERY_ENGINE
def test_two_unlike_halves_are_two_regions(engine):
    (found,) = detect_batch(halves(6, 10)[None], DetectorOptions(), engine=engine)

    assert len(found) == 2
    left, right = found.masks
    assert left[:, :5].all()
    assert not left[:, 5:].any()
    np.testing.assert_array_equal(right, ~left)
    assert found.grid_hw == (6, 10)
    assert found.level.tolist() == [1, 1]
    assert found.parent.tolist() == [-1, -1]
    assert found.side.tolist() == [0, 1]
    assert found.size.tolist() == [30, 30]
    # All the 30 long tokens tie with the last one of the top 18.
    assert found.hits.tolist() == [0, 30]
    assert found.emitted.tolist() == [False, True]
    assert found.cbar.tolist() == [1, 1]
    assert found.connect.tolist() == [pytest.approx(30 / 29)] * 2
    assert found.expanded.tolist() == [False, False]
    # All patches have 30 links: the first is the low seed and the last the high one, and nothing has to move.
    assert found.cuts.tolist() == [[-1, 60, 30, 30, 0, 59, 1, 0]]


@EVERY_ENGINE
def test_one_cluster_in_two_places_is_two_regions(engine):
    features = np.zeros((5, 16, 3), np.float32)
    features[..., 0] = 1
    features[:, 6:11] = [0, 1, 0]

    (found,) = detect_batch(features[None], DetectorOptions(), engine=engine)

    assert sorted(found.size.tolist()) == [25, 25, 30]
    outer = found.masks[found.masks[:, 0, 0] | found.masks[:, 0, 15]]
    assert [mask.sum() for mask in outer] == [30, 25]
    assert len(found.cuts) == 1


@EVERY_ENGINE
def test_a_loose_region_is_bisected_in_turn(engine):
    features = np.zeros((6, 18, 3), np.float32)
    # Of the three parts, the first two are a little alike, not linked, and the third is opposite to both.
    features[:, :6] = [1, 0, 0.4]
    features[:, 6:12] = [0, 1, 0.4]
    features[:, 12:] = [-1, -1, 0]

    (found,) = detect_batch(features[None], DetectorOptions(), engine=engine)

    assert found.level.tolist() == [1, 1, 2, 2]
    assert sorted(found.size[:2].tolist()) == [36, 72]
    parent = int(found.size.argmax())
    assert found.parent[2:].tolist() == [parent, parent]
    assert found.size[2:].tolist() == [36, 36]
    assert found.expanded.tolist() == [size == 72 for size in found.size]


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    preset=st.sampled_from(sorted(PRESETS)),
    order=st.sampled_from(["hash", "raster", "pyrandom"]),
    least=st.sampled_from([2, 5, 15]),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_all_forms_find_the_literal_regions(literal, blobs, seed, height, width, preset, order, least, kind):
    features = blobs(seed, height, width, kind=kind)
    options = detector_preset(preset, order=order, seed=seed % 5, min_patches=least)
    unit = literal.literal_unit_rows(features.reshape(height * width, -1))
    # Where rounding decides about a link, there is nothing to compare.
    assume(np.abs(unit @ unit.T - 0.2).min() > (4e-6 if kind == np.float32 else 1e-12))

    expected = literal.literal_detect(features, options)

    for engine in ENGINES if order != "pyrandom" else ENGINES[:2]:
        (found,) = detect_batch(features[None], options, engine=engine)
        patches = [frozenset(np.flatnonzero(mask).tolist()) for mask in found.masks]
        assert list(zip(found.level.tolist(), patches, strict=True)) == expected, engine


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    preset=st.sampled_from(sorted(PRESETS)),
    engine=st.sampled_from(["numpy", "compiled"]),
    block=st.sampled_from([1, 7, 64, 512]),
)
def test_an_image_without_a_gram_matrix_has_the_same_regions(blobs, seed, height, width, preset, engine, block):
    features = blobs(seed, height, width, kind=np.float64)[None]
    (expected,) = detect_batch(features, PRESETS[preset], engine=engine)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "GRAM_BYTES", 0)
        patch.setattr(similarity, "_BLOCK", block)
        (found,) = detect_batch(features, PRESETS[preset], engine=engine)

    assert_same(found, expected)


def test_more_than_10000_patches_do_without_a_gram_matrix(monkeypatch):
    def refuse(unit):
        raise AssertionError("a Gram matrix of more than 10,000 patches")

    monkeypatch.setattr(affinity, "half_gram", refuse)

    found = detect(halves(101, 100))

    assert found.size.tolist() == [5050, 5050]
    assert found.masks[0, :, :50].all()
    with pytest.raises(AssertionError, match="a Gram matrix"):
        detect(halves(100, 100))


@EVERY_ENGINE
@pytest.mark.parametrize("grid", [(1, 1), (1, 14), (2, 7)])
def test_an_image_of_fewer_patches_than_a_region_has_none(blobs, engine, grid):
    features = blobs(0, *grid)

    (found,) = detect_batch(features[None], DetectorOptions(), engine=engine)

    assert len(found) == 0
    assert found.masks.shape == (0, *grid)
    assert found.cuts.shape == (0, 8)


@EVERY_ENGINE
@pytest.mark.parametrize("least", [1, 2])
def test_single_patches_are_no_trouble(blobs, engine, least):
    options = DetectorOptions(min_patches=least)

    (one,) = detect_batch(blobs(0, 1, 1)[None], options, engine=engine)
    (two,) = detect_batch(np.array([[[[1, 0], [0, 1]]]], np.float32), options, engine=engine)

    assert len(one) == 0
    assert two.size.tolist() == ([1, 1] if least == 1 else [])
    assert two.connect.tolist() == two.cbar.tolist() == ([1, 1] if least == 1 else [])
    assert not two.expanded.any()


@EVERY_ENGINE
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("token", [np.zeros(37), np.random.default_rng(0).standard_normal(37)], ids=["zeros", "random"])
def test_identical_patches_are_not_divided(engine, preset, token):
    features = np.tile(token.astype(np.float32), (1, 23, 31, 1))

    (found,) = detect_batch(features, PRESETS[preset], engine=engine)

    assert len(found) == 0
    assert found.cuts[:, :4].tolist() == [[-1, 713, 713, 0]]
    assert found.cuts[:, 6:].tolist() == [[1, 0]]


@EVERY_ENGINE
def test_where_all_patches_are_linked_the_sweeps_alone_divide_them(literal, engine):
    generator = np.random.default_rng(1)
    features = (4 + generator.standard_normal((8, 8, 6))).astype(np.float32)
    features[:, 4:, :3] += 6
    assert literal.literal_affinity(features.reshape(64, 6))[0].all()

    (found,) = detect_batch(features[None], DetectorOptions(), engine=engine)

    assert found.cuts[0, 7] > 0
    assert len(found) > 0
    # Nothing is looser than the threshold, so that one bisection is all.
    assert not found.expanded.any()
    assert len(found.cuts) == 1


@EVERY_ENGINE
def test_tokens_of_zeros_are_linked_to_nothing_and_are_no_trouble(engine):
    features = np.zeros((6, 20, 4), np.float32)
    features[:, :5] = halves(6, 10)[:, :5]
    features[:, 15:] = halves(6, 10)[:, 5:]

    (found,) = detect_batch(features[None], DetectorOptions(), engine=engine)

    # The first bisection parts the right end from the rest, and the second one the left end from the zeros.
    assert found.size.tolist() == [90, 30, 60, 30]
    assert found.expanded.tolist() == [True, False, True, False]
    assert found.cbar.tolist() == [pytest.approx(30 * 29 / (90 * 89)), 1, 0, 1]
    # Zeros are bisected, since they are not linked, and do not come apart.
    assert found.cuts[:, :4].tolist() == [[-1, 120, 90, 30], [0, 90, 60, 30], [2, 60, 60, 0]]


@EVERY_ENGINE
@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_tokens_that_are_not_finite_are_refused(blobs, engine, fault):
    batch = np.stack([blobs(seed, 6, 7) for seed in range(3)])
    batch[1, 2, 3, 4] = fault

    with pytest.raises(ImageError, match="tokens of image 1 are not finite"):
        detect_batch(batch, engine=engine)


def test_one_image_with_tokens_that_are_not_finite_is_refused():
    with pytest.raises(ImageError, match="tokens are not finite"):
        detect(np.full((6, 7, 3), np.nan, np.float32))


def test_tokens_of_another_shape_are_refused():
    with pytest.raises(ConfigError, match=r"features has shape \(60, 4\); it must be \(h, w, C\)"):
        detect(np.zeros((60, 4), np.float32))
    with pytest.raises(ConfigError, match=r"features has shape \(6, 10, 4\); it must be \(B, h, w, C\)"):
        detect_batch(torch.zeros(6, 10, 4))


@EVERY_ENGINE
def test_an_empty_batch_has_no_hierarchies(engine):
    assert detect_batch(torch.zeros(0, 6, 10, 4), engine=engine) == []


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tokens_of_any_floating_type_will_do_and_are_left_as_they_are(kind):
    features = torch.from_numpy(halves(6, 10)).to(kind).requires_grad_()
    before = features.detach().clone()

    found = detect(features)

    assert found.size.tolist() == [30, 30]
    assert torch.equal(features, before)
    assert_same(found, detect_batch(features[None])[0])


def test_views_of_tokens_will_do(blobs):
    features = blobs(4, 12, 14)
    turned = features[::-1, ::2]
    frozen = np.ascontiguousarray(turned)
    frozen.flags.writeable = False

    assert_same(detect(turned), detect(frozen))


def test_normalised_cuts_divide_as_well():
    found = detect(halves(6, 10), DetectorOptions(cut="ncut"))

    assert found.size.tolist() == [30, 30]
    assert found.cuts.tolist() == [[-1, 60, 30, 30, -1, -1, 0, 0]]


def test_the_seed_changes_regions_only_where_there_is_chance(blobs):
    features = blobs(1, 16, 16)

    def trees(order):
        options = DetectorOptions(order=order, min_patches=4)
        return [detect(features, replace(options, seed=seed)).masks.tobytes() for seed in range(6)]

    assert len(set(trees("raster"))) == 1
    assert len(set(trees("hash"))) > 1
    assert len(set(trees("pyrandom"))) > 1


def test_epochs_end_at_the_maximum(blobs):
    found = detect(blobs(0, 16, 16), DetectorOptions(max_epochs=1))

    assert (found.cuts[:, 6] == 1).all()


def test_an_unknown_engine_is_refused():
    with pytest.raises(ConfigError, match="engine='cuda' is unknown; use one of auto, compiled, numpy, torch"):
        detect_batch(torch.zeros(1, 6, 10, 4), engine="cuda")


@pytest.mark.parametrize("options", [DetectorOptions(order="pyrandom"), DetectorOptions(cut="ncut")])
def test_what_the_batched_engine_cannot_do_is_left_to_the_others(blobs, options):
    features = torch.from_numpy(blobs(0, 6, 10))[None]

    assert_same(detect_batch(features, options)[0], detect_batch(features, options, engine="numpy")[0])
    with pytest.raises(ConfigError, match="engine='torch' has no order="):
        detect_batch(features, options, engine="torch")


def test_without_numba_there_is_the_array_form(blobs, monkeypatch):
    features = blobs(0, 12, 14)
    expected = detect(features)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "fiftyone_selfsame.brain.claid.compiled", raising=False)
    monkeypatch.delattr(claid, "compiled", raising=False)

    assert_same(detect(features), expected)
    with pytest.raises(ConfigError, match=r"engine='compiled' needs numba .* or use engine='numpy'"):
        detect_batch(features[None], engine="compiled")
