"""FFA vectors of whole images, checked on an encoder whose tokens can be read: colours and positions of patches."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones.base import Tokens
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.brain.ffa import FFAConfig, FFAExtractor
from fiftyone_selfsame.brain.geometry import RESIZE_MODES
from fiftyone_selfsame.fixtures.readable_encoder import (
    GivenPixels,
    GivenTokens,
    ReadableBackbone,
    block,
    noise,
    vector_of,
)
from hypothesis import given
from hypothesis import strategies as st


def literal_mean(image, mask_of_patches, **config) -> np.ndarray:
    """The average by a plain loop over the patches of the full-image tokens."""
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(**config))
    tokens = extractor.backbone.tokens(extractor.prepare(image).canvas[None]).patch[0].numpy()
    total = np.zeros(tokens.shape[-1])
    for i, j in np.ndindex(mask_of_patches.shape):
        total += mask_of_patches[i, j] * tokens[i, j]
    return total / np.linalg.norm(total)


def test_the_vector_is_the_unit_mean_of_the_foreground_patches():
    patches = np.zeros((8, 8))
    patches[2:6, 2:4] = 1

    result = vector_of(noise(), block())

    assert np.allclose(result.vector, literal_mean(noise(), patches), atol=1e-6)
    assert result.vector.dtype == np.float32
    assert np.linalg.norm(result.vector) == pytest.approx(1)
    assert result.n_patches == 8
    assert result.foreground_fraction == pytest.approx(0.125)
    assert not result.fallback
    assert np.allclose(result.coverage, patches, atol=1e-6)


def test_without_mask_and_foreground_all_patches_are_averaged_and_nothing_is_flagged():
    result = vector_of(noise())

    assert np.allclose(result.vector, literal_mean(noise(), np.ones((8, 8))), atol=1e-6)
    assert (result.n_patches, result.foreground_fraction, result.fallback) == (64, 1.0, False)


def test_soft_weights_are_the_coverage_itself():
    mask = np.random.default_rng(1).random((40, 60)).astype(np.float32)
    coverage = mask.reshape(8, 5, 60).mean(1)
    coverage = np.repeat(coverage, 2, axis=1).reshape(8, 8, 15).mean(2)

    result = vector_of(noise(), mask, weights="soft")

    assert np.allclose(result.coverage, coverage, atol=1e-5)
    assert np.allclose(result.vector, literal_mean(noise(), coverage), atol=1e-5)


def test_a_patch_that_is_exactly_half_covered_is_not_more_than_half_covered():
    mask = np.zeros((32, 32), bool)
    mask[:, :6] = True

    assert vector_of(noise((32, 32)), mask).n_patches == 8


def test_an_object_smaller_than_half_a_patch_is_averaged_by_coverage():
    mask = np.zeros((32, 32), bool)
    mask[6:8, 10:13] = True

    result = vector_of(noise((32, 32)), mask)

    assert result.n_patches == 2
    assert not result.fallback
    assert result.coverage[1, 2] == pytest.approx(4 / 16)
    assert result.coverage[1, 3] == pytest.approx(2 / 16)


@pytest.mark.parametrize("encode", ["original", "cutout"])
def test_an_empty_mask_falls_back_to_the_untouched_picture_and_says_so(encode):
    result = vector_of(noise(), np.zeros((40, 60)), encode=encode)

    assert result.fallback
    assert (result.n_patches, result.foreground_fraction) == (64, 0.0)
    assert np.allclose(result.vector, vector_of(noise()).vector, atol=1e-6)


def test_the_cut_out_shows_the_encoder_black_where_the_mask_is_zero_and_own_colours_elsewhere():
    image = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    mask = np.zeros((32, 32), np.float32)
    mask[:, :16] = 1.0
    mask[:, 16:24] = 0.2
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(encode="cutout"))

    canvas = (extractor.prepare(image, mask).canvas.numpy() * 255).round()

    assert (canvas[:, :, :24] == np.reshape([200, 100, 50], (3, 1, 1))).all()
    assert (canvas[:, :, 24:] == 0).all()


def test_cut_out_and_original_average_over_the_same_patches():
    original, cutout = (vector_of(noise(), block(), encode=encode) for encode in ("original", "cutout"))

    assert np.array_equal(original.coverage, cutout.coverage)
    assert original.n_patches == cutout.n_patches


def test_letterbox_padding_never_enters_the_average():
    white = np.full((20, 40, 3), 255, np.uint8)

    result = vector_of(white, resize="letterbox")

    red, green, blue, row, column, one = result.vector / result.vector[-1]
    assert (red, green, blue, one) == pytest.approx((1, 1, 1, 1), abs=1e-6)
    assert (row, column) == pytest.approx((3.5, 3.5), abs=1e-5)
    assert result.n_patches == 32
    assert result.foreground_fraction == 1


def test_a_strip_thinner_than_half_a_patch_still_gets_a_vector_in_letterbox():
    result = vector_of(noise((1, 64)), resize="letterbox")

    assert np.isfinite(result.vector).all()
    assert result.n_patches == 8
    assert not result.fallback


def test_the_class_token_of_the_original_needs_no_foreground():
    foreground = GivenPixels(block())

    result = vector_of(noise(), foreground=foreground, pooling="cls")

    assert foreground.asked == []
    assert np.allclose(result.vector[3:] / result.vector[3], 1)


def test_the_class_token_of_the_cut_out_sees_the_cut_out():
    image = np.full((32, 32, 3), 250, np.uint8)
    half = block((32, 32), 0, 0, 1, 0.5)

    whole, cut = (
        vector_of(image, foreground=GivenPixels(half), pooling="cls", encode=e) for e in ("original", "cutout")
    )

    assert cut.vector[0] / cut.vector[-1] == pytest.approx(whole.vector[0] / whole.vector[-1] / 2, rel=0.05)


@pytest.mark.parametrize("in_worker", [False, True])
@pytest.mark.parametrize("encode", ["original", "cutout"])
def test_a_pixel_foreground_gives_what_its_mask_would_give(in_worker, encode):
    foreground = GivenPixels(block(), in_worker)
    extractor = FFAExtractor(ReadableBackbone(), foreground, FFAConfig(encode=encode))

    prepared = [extractor.prepare(noise(seed=seed)) for seed in range(3)]
    results = extractor.embed(prepared)

    assert foreground.asked == ([1, 1, 1] if in_worker else [3])
    for seed, result in enumerate(results):
        assert np.allclose(result.vector, vector_of(noise(seed=seed), block(), encode=encode).vector, atol=1e-6)


def test_a_given_mask_takes_the_place_of_the_foreground_method():
    foreground = GivenPixels(np.ones((40, 60)))

    result = vector_of(noise(), block(), foreground)

    assert foreground.asked == []
    assert result.n_patches == 8


def test_a_token_foreground_decides_on_the_tokens_that_are_averaged():
    found = np.zeros((8, 8))
    found[1, 2] = found[3, 3] = 1

    result = vector_of(noise(), foreground=GivenTokens(found))

    assert np.allclose(result.vector, literal_mean(noise(), found), atol=1e-6)
    assert result.n_patches == 2


def test_a_token_foreground_is_told_what_is_padding_and_cannot_choose_it():
    foreground = GivenTokens(np.ones((8, 8)))

    result = vector_of(noise((20, 40)), foreground=foreground, resize="letterbox")

    assert foreground.valid[0].any(1).tolist() == [False] * 2 + [True] * 4 + [False] * 2
    assert result.n_patches == 32


def test_an_empty_token_foreground_falls_back_to_all_patches():
    result = vector_of(noise(), foreground=GivenTokens(np.zeros((8, 8))))

    assert (result.fallback, result.n_patches, result.foreground_fraction) == (True, 64, 0.0)


def test_a_token_foreground_cannot_cut_out_and_the_error_says_what_to_use():
    with pytest.raises(ConfigError, match=r"'given tokens'.*encode='original'.*'grabcut'"):
        FFAExtractor(ReadableBackbone(), GivenTokens(np.ones((8, 8))), FFAConfig(encode="cutout"))


def test_final_norm_is_passed_on():
    after, before = (vector_of(noise(), final_norm=final_norm).vector for final_norm in (True, False))

    assert not np.allclose(after, before, atol=1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf, 0.0])
def test_tokens_that_give_no_direction_are_an_error_and_not_a_vector(broken):
    class Broken(ReadableBackbone):
        def tokens(self, images, *, final_norm=True):
            tokens = super().tokens(images)
            return Tokens(torch.full_like(tokens.patch, broken), tokens.cls)

    with pytest.raises(ModelError, match=r"readable.*not finite or average to zero"):
        vector_of(noise(), backbone=Broken())


@pytest.mark.parametrize("scale", [0.4, 2, 3])
def test_a_mask_of_another_resolution_marks_the_same_part_of_the_picture(scale):
    other = block((round(40 * scale), round(60 * scale)))

    for encode in ("original", "cutout"):
        assert np.allclose(
            vector_of(noise(), other, encode=encode).vector,
            vector_of(noise(), block(), encode=encode).vector,
            atol=1e-5,
        )


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_masks_of_any_number_type_mean_the_same(dtype):
    mask = block().astype(dtype) * (1 if dtype in (bool, np.float64) else 255)

    assert np.array_equal(vector_of(noise(), mask).vector, vector_of(noise(), block()).vector)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (np.full((40, 60), 255.0), r"\[0, 1\]"),
        (np.full((40, 60), np.nan), r"\[0, 1\]"),
        (np.ones((40, 60, 3)), r"shape \(40, 60, 3\)"),
        (np.ones((0, 60)), r"shape \(0, 60\)"),
    ],
)
def test_a_mask_that_cannot_be_meant_is_refused(mask, problem):
    with pytest.raises(ConfigError, match=problem):
        vector_of(noise(), mask)


def test_a_picture_decoded_at_reduced_scale_keeps_the_geometry_of_the_full_one():
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(resize="letterbox"))
    full = np.repeat(np.repeat(noise((31, 64)), 4, 0), 4, 1)[:123]

    reduced = extractor.prepare(noise((31, 64)), image_hw=(123, 256))

    assert reduced.geometry == extractor.prepare(full).geometry
    assert extractor.decode_min_side == 64
    assert FFAExtractor(ReadableBackbone(), None, FFAConfig(fast_decode=False)).decode_min_side is None


def test_a_foreground_that_depends_on_the_scale_gets_every_pixel():
    mask = np.ones((8, 8))

    assert FFAExtractor(ReadableBackbone(), GivenPixels(mask)).decode_min_side == 64
    assert FFAExtractor(ReadableBackbone(), GivenPixels(mask, full_scale=True)).decode_min_side is None


@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    resize=st.sampled_from(RESIZE_MODES),
    encode=st.sampled_from(["original", "cutout"]),
    weights=st.sampled_from(["hard", "soft"]),
    kind=st.sampled_from(["none", "empty", "full", "pixel", "noise"]),
)
def test_every_picture_with_every_mask_gets_a_unit_vector(height, width, resize, encode, weights, kind):
    mask = {
        "none": None,
        "empty": np.zeros((height, width)),
        "full": np.ones((height, width)),
        "pixel": np.pad(np.ones((1, 1)), ((0, height - 1), (0, width - 1))),
        "noise": np.random.default_rng(0).random((height, width)),
    }[kind]

    result = vector_of(noise((height, width)), mask, resize=resize, encode=encode, weights=weights)

    assert np.isfinite(result.vector).all()
    assert np.linalg.norm(result.vector) == pytest.approx(1, abs=1e-5)
    assert (result.foreground_fraction == 0) == (kind == "empty")
    assert 0 <= result.foreground_fraction <= 1
    assert 1 <= result.n_patches <= result.coverage.size
    assert result.fallback == (kind == "empty")
