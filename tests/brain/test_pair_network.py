"""The pair network as a whole: options, gradients, symmetry, regions from true and from predicted masks."""

import dataclasses

import pytest
import torch
from fiftyone_selfsame.brain.cosalient.network import PairNetwork
from fiftyone_selfsame.brain.cosalient.network_config import PRESETS, NetworkConfig
from fiftyone_selfsame.brain.errors import ConfigError

TINY = NetworkConfig(widths=(4, 4, 8, 8), d=8, mask_width=8, match_width=8, side=96, k=4)


def _network(**options):
    torch.manual_seed(0)
    return PairNetwork(dataclasses.replace(TINY, **options))


def _images(seed=0, count=2):
    return torch.rand(count, 3, 96, 96, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("head", ["image", "region", "matcher"])
@pytest.mark.parametrize("options", [{}, {"encoder": "resnet50"}, {"cross_attention": True, "k": "auto"}])
def test_both_orders_of_a_symmetric_network_agree(head, options):
    network = _network(head=head, **options).eval()
    ahead, back = network(_images(), _images(1)), network(_images(1), _images())
    assert ahead.logit.shape == (2,)
    assert ahead.mask_logits_a.shape == (2, 3, 3)
    torch.testing.assert_close(ahead.logit, back.logit)
    torch.testing.assert_close(ahead.mask_logits_a, back.mask_logits_b)
    torch.testing.assert_close(ahead.mask_logits_b, back.mask_logits_a)


def test_the_published_form_has_two_heads_and_depends_on_the_order():
    network = _network(symmetric=False, shared=False).eval()
    ahead, back = network(_images(), _images(1)), network(_images(1), _images())
    assert network.mask_head_b is not None
    assert not torch.allclose(ahead.mask_logits_a, back.mask_logits_b, atol=1e-4)


@pytest.mark.parametrize("head", ["region", "matcher"])
def test_the_decision_teaches_the_encoder_but_not_the_co_salient_heads(head):
    network = _network(head=head, symmetric=False)
    network(_images(), _images(1)).logit.sum().backward()
    mask_heads = [*network.mask_head_a.parameters(), *network.mask_head_b.parameters()]
    assert all(parameter.grad is None for parameter in mask_heads)
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())


def test_masks_that_are_given_choose_the_regions():
    network = _network(head="region").eval()
    found = network.segment(_images(), _images(1))
    corner = torch.zeros(2, 3, 3)
    corner[:, 0, 0] = 1
    output = network.decide(found, corner, corner)
    wanted = [
        network.match_head(found.features_a[row, :, :1, 0].mT, found.features_b[row, :, :1, 0].mT) for row in range(2)
    ]
    torch.testing.assert_close(output.logit, torch.stack(wanted))
    assert output.weak_region.tolist() == [False, False]


def test_an_empty_mask_of_one_image_makes_its_pair_weak():
    network = _network()
    full, mixed = torch.ones(2, 3, 3), torch.stack([torch.zeros(3, 3), torch.ones(3, 3)])
    output = network(_images(), _images(1), full, mixed)
    assert output.weak_region.tolist() == [True, False]
    assert torch.isfinite(output.logit).all()


def test_the_image_head_looks_at_everything_whatever_the_masks():
    network = _network(head="image").eval()
    some, all_ = torch.zeros(2, 3, 3), torch.ones(2, 3, 3)
    some[:, 1, 1] = 1
    outputs = [network(_images(), _images(1), mask, mask).logit for mask in (some, all_)]
    assert torch.equal(*outputs)


def test_the_two_halves_are_the_whole():
    network = _network().eval()
    whole = network(_images(), _images(1))
    found = network.find(network.describe(_images()), network.describe(_images(1)))
    torch.testing.assert_close(network.decide(found).logit, whole.logit)


def test_segmenter_and_decider_share_all_weights_out_among_them():
    network = _network()
    segmenter, decider = network.segmenter_parameters(), network.decider_parameters()
    assert {id(one) for one in segmenter} & {id(one) for one in decider} == set()
    assert len(segmenter) + len(decider) == len(list(network.parameters()))
    network.segment(_images(), _images(1)).mask_logits_a.sum().backward()
    assert all(parameter.grad is not None for parameter in segmenter)


def test_the_decision_can_be_made_in_half_precision():
    network = _network().eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(_images(), _images(1))
    assert torch.isfinite(output.logit.float()).all()


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_options_survive_json(name):
    config = dataclasses.replace(PRESETS[name], widths=(4, 4, 8, 8))
    assert NetworkConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"encoder": "vgg"}, "encoder='vgg'"),
        ({"head": "mlp"}, "head='mlp'"),
        ({"similarity": "dot"}, "similarity='dot'"),
        ({"k": 0}, "k=0"),
        ({"k": "all"}, "k='all'"),
        ({"d": 0}, "d=0"),
        ({"alpha": 1.0}, "alpha=1.0"),
        ({"side": 100}, "96 or 128"),
        ({"widths": (4, 4)}, "widths"),
        ({"encoder": "resnet50", "widths": (6, 8, 8, 8)}, "multiples of 4"),
        ({"shared": False}, "symmetric=True needs shared=True"),
        ({"encoder": "resnet50", "shared": False, "symmetric": False}, "shared=False"),
        ({"backbone": "dinov2-small"}, "backbone='dinov2-small'"),
        ({"encoder": "tokens", "widths": None}, "backbone='embedded-hybrid'"),
        ({"encoder": "tokens", "backbone": "embedded"}, "widths"),
    ],
)
def test_options_that_cannot_work_are_refused_by_name(options, named):
    with pytest.raises(ConfigError, match=named):
        dataclasses.replace(TINY, **options)


def test_an_unknown_option_in_a_file_is_named():
    with pytest.raises(ConfigError, match="'depth'"):
        NetworkConfig.from_json({"depth": 4})


def test_an_input_that_is_no_multiple_of_the_patch_is_refused():
    with pytest.raises(ConfigError, match="96 or 112"):
        PairNetwork(NetworkConfig("tokens", backbone="embedded", side=100, d=8, mask_width=8, match_width=8))
