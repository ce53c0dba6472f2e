import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.foreground.one_pass import OnePassForeground
from torch.utils.flop_counter import FlopCounterMode

METHOD = OnePassForeground()


def disc(height=24, width=24, row=0.5, column=0.45, radius=0.28):
    """``(H, W)`` bool: a disc; positions and radius are shares of the height and width."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return (y / height - row) ** 2 + (x / width - column) ** 2 < radius**2


def scene(inside, channels=64, seed=0):
    """``(1, H, W, C)`` tokens: a common vector, strong variation that means nothing, and a weak object direction."""
    generator = torch.Generator().manual_seed(seed)
    height, width = inside.shape
    common, nuisance, object_ = torch.linalg.qr(torch.randn(channels, 3, generator=generator)).Q.T
    strength = torch.randn(height, width, 1, generator=generator)
    noise = 0.02 * torch.randn(height, width, channels, generator=generator)
    return (common + 0.5 * strength * nuisance + 0.25 * inside[..., None] * object_ + noise)[None]


def iou(coverage, inside):
    found = coverage > 0.5
    return ((found & inside).sum() / (found | inside).sum()).item()


def test_an_object_is_found_though_meaningless_variation_dominates_the_tokens():
    inside = disc()

    coverage = METHOD.coverage(scene(inside))

    assert coverage.shape == (1, 24, 24)
    assert coverage.dtype == torch.float32
    assert ((coverage >= 0) & (coverage <= 1)).all()
    assert iou(coverage[0], inside) > 0.9


def test_most_of_an_object_that_reaches_over_one_edge_is_found():
    inside = disc(row=0.8, column=0.5)

    assert iou(METHOD.coverage(scene(inside))[0], inside) > 0.65


def test_an_object_of_two_unlike_parts_is_found_whole():
    inside = disc()
    tokens = scene(inside)
    lower = inside.clone()
    lower[:12] = False
    tokens = torch.where(lower[None, ..., None], tokens + 0.3 * torch.eye(64)[7], tokens)

    assert iou(METHOD.coverage(tokens)[0], inside) > 0.85


def test_a_few_wild_tokens_in_the_background_are_not_taken_for_the_object():
    inside = disc()
    tokens = scene(inside)
    for row, column in ((3, 4), (20, 3), (4, 20)):
        tokens[0, row, column] = 40 * torch.eye(64)[9]

    coverage = METHOD.coverage(tokens)[0]

    assert iou(coverage, inside) > 0.85


@pytest.mark.parametrize("factor", [-1.0, 0.001, 1000.0])
def test_neither_sign_nor_scale_of_the_tokens_matters(factor):
    tokens = scene(disc())

    torch.testing.assert_close(METHOD.coverage(factor * tokens), METHOD.coverage(tokens), atol=1e-4, rtol=0)


def test_the_coverage_flips_and_turns_with_the_picture():
    tokens = scene(disc(row=0.4))
    upright = METHOD.coverage(tokens)

    for move in (lambda x: x.flip(1), lambda x: x.flip(2), lambda x: x.transpose(1, 2)):
        assert (METHOD.coverage(move(tokens)) - move(upright)).abs().mean() < 0.01


def test_an_image_is_judged_the_same_in_any_company():
    batch = torch.cat([scene(disc(radius=0.2 + 0.05 * seed), seed=seed) for seed in range(4)])

    together = METHOD.coverage(batch)

    for index in range(4):
        torch.testing.assert_close(METHOD.coverage(batch[index : index + 1])[0], together[index], atol=1e-4, rtol=0)


def test_tokens_rounded_to_half_precision_give_nearly_the_same_coverage():
    tokens = scene(disc())

    assert (METHOD.coverage(tokens.half()) - METHOD.coverage(tokens)).abs().max() < 0.05


def test_padding_gets_no_coverage_and_has_no_influence():
    inside = disc(12, 24, row=0.5, column=0.5)
    tokens = scene(inside)
    valid = torch.zeros(1, 24, 24, dtype=torch.bool)
    valid[:, 6:18] = True
    padded = torch.full((1, 24, 24, 64), 3.0)
    padded[:, 6:18] = tokens
    repadded = padded.clone()
    repadded[~valid] = torch.randn(int((~valid).sum()), 64, generator=torch.Generator().manual_seed(1))

    coverage = METHOD.coverage(padded, valid)

    assert not coverage[~valid].any()
    assert iou(coverage[0, 6:18], inside) > 0.85
    torch.testing.assert_close(METHOD.coverage(repadded, valid), coverage, atol=1e-5, rtol=0)


def test_padded_and_unpadded_pictures_share_a_batch():
    inside = disc()
    valid = torch.ones(2, 24, 24, dtype=torch.bool)
    valid[1, :, :6] = valid[1, :, 18:] = False
    tokens = scene(inside).repeat(2, 1, 1, 1)

    coverage = METHOD.coverage(tokens, valid)

    torch.testing.assert_close(coverage[:1], METHOD.coverage(tokens[:1]), atol=1e-4, rtol=0)
    assert not coverage[1][~valid[1]].any()


def test_tokens_without_structure_have_no_foreground():
    tokens = torch.ones(2, 24, 24, 16)
    tokens[1] = 0

    assert not METHOD.coverage(tokens).any()


@pytest.mark.parametrize("grid", [(1, 1), (1, 24), (2, 2), (2, 9)])
def test_pictures_with_nothing_inside_their_frame_have_no_foreground(grid):
    tokens = torch.randn(2, *grid, 8, generator=torch.Generator().manual_seed(0))

    coverage = METHOD.coverage(tokens)

    assert coverage.shape == (2, *grid)
    assert not coverage.any()


@pytest.mark.parametrize("grid", [(3, 3), (4, 4), (3, 40), (37, 16)])
@pytest.mark.parametrize("channels", [2, 16, 70])
def test_grids_of_any_size_and_tokens_of_any_width_are_accepted(grid, channels):
    tokens = torch.randn(3, *grid, channels, generator=torch.Generator().manual_seed(0))

    coverage = METHOD.coverage(tokens)

    assert coverage.isfinite().all()
    assert ((coverage >= 0) & (coverage <= 1)).all()


def test_an_empty_valid_mask_gives_no_coverage():
    assert not METHOD.coverage(scene(disc()), torch.zeros(1, 24, 24, dtype=torch.bool)).any()


def test_tokens_that_are_not_numbers_spoil_no_other_image():
    good = scene(disc())
    broken = torch.cat([good, torch.full_like(good, torch.nan)])

    coverage = METHOD.coverage(broken)

    torch.testing.assert_close(coverage[:1], METHOD.coverage(good), atol=1e-4, rtol=0)
    assert not coverage[1].any()


def test_the_arithmetic_is_below_three_per_cent_of_even_the_smallest_backbone():
    backbone = load_backbone("embedded-untrained", device="cpu")
    images = torch.rand(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as encoder:
        tokens = backbone.tokens(images).patch
    with FlopCounterMode(display=False) as foreground:
        METHOD.coverage(tokens)

    assert foreground.get_total_flops() < 0.03 * encoder.get_total_flops()
