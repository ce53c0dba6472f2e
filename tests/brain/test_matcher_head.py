"""MATCHER's head and the embedding heads: sizes, order of the regions, K that follows them."""

import pytest
import torch
from fiftyone_selfsame.brain.cosalient.heads import CosalientHead, EmbeddingHead, select_region
from fiftyone_selfsame.brain.cosalient.matcher import MatcherHead


def _weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _logit(head, a, b):
    return head(a, b).item()


def _regions(rows=11, columns=6, d=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, d, generator=generator), torch.randn(columns, d, generator=generator)


def test_the_heads_of_usual_width_have_the_known_numbers_of_weights():
    assert _weights(MatcherHead(512)) == 426_497
    assert _weights(CosalientHead(512)) == 4_130_049


def test_a_symmetric_head_gives_both_orders_one_logit_and_another_does_not():
    a, b = _regions()
    torch.manual_seed(0)
    symmetric, ordered = (MatcherHead(8, width=8, k=5, symmetric=flag) for flag in (True, False))
    ordered.load_state_dict(symmetric.state_dict())
    assert _logit(symmetric, a, b) == pytest.approx(_logit(symmetric, b, a), abs=1e-6)
    assert _logit(ordered, a, b) != pytest.approx(_logit(ordered, b, a), abs=1e-6)
    both = (_logit(ordered, a, b) + _logit(ordered, b, a)) / 2
    assert _logit(symmetric, a, b) == pytest.approx(both, abs=1e-6)


def test_auto_pools_to_the_smaller_region_but_to_no_more_than_64():
    a, b = _regions(11, 6)
    auto = MatcherHead(8, width=8, k="auto")
    fixed = MatcherHead(8, width=8, k=6)
    fixed.load_state_dict(auto.state_dict())
    assert _logit(auto, a, b) == _logit(fixed, a, b)
    a, b = _regions(70, 80)
    fixed.k = 64
    assert _logit(auto, a, b) == _logit(fixed, a, b)


def test_regions_of_one_token_can_be_compared():
    assert torch.isfinite(MatcherHead(8, width=8)(*_regions(1, 1)))


def test_a_region_holds_the_cells_above_alpha_in_raster_order():
    features = torch.arange(12.0).view(1, 3, 4)
    mask = torch.tensor([[0.0, 0.9, 0.0, 0.6], [0.5, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    tokens, weak = select_region(features, mask, 0.5)
    assert tokens.flatten().tolist() == [1, 3, 11]
    assert not weak


def test_an_empty_mask_gives_its_four_likeliest_cells_and_says_so():
    features = torch.arange(12.0).view(1, 3, 4)
    mask = torch.tensor([[0.0, 0.4, 0.0, 0.3], [0.2, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.1]])
    tokens, weak = select_region(features, mask, 0.5)
    assert tokens.flatten().tolist() == [1, 3, 4, 11]
    assert weak


def test_of_a_large_grid_an_empty_mask_gives_one_per_cent():
    tokens, weak = select_region(torch.zeros(2, 30, 30), torch.rand(30, 30) * 0.4, 0.5)
    assert tokens.shape == (9, 2)
    assert weak


def test_no_gradient_flows_through_the_selection_into_the_mask():
    mask = torch.full((3, 4), 0.9, requires_grad=True)
    features = torch.ones(2, 3, 4, requires_grad=True)
    select_region(features, mask)[0].sum().backward()
    assert mask.grad is None
    assert features.grad.sum() == 24


def test_an_embedding_head_does_not_care_for_the_order_of_regions_nor_of_tokens():
    a, b = _regions()
    head = EmbeddingHead(8, width=8)
    assert _logit(head, a, b) == pytest.approx(_logit(head, b, a), abs=1e-6)
    assert _logit(head, a, b) == pytest.approx(_logit(head, a.flip(0), b), abs=1e-6)
