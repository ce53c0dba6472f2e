"""CODER and the twins: sizes, what a cell sees, and which image depends on which."""

import pytest
import torch
from fiftyone_selfsame.brain.cosalient.coder import Coder
from fiftyone_selfsame.brain.cosalient.cross_attention import CrossAttention
from fiftyone_selfsame.brain.cosalient.twins import ResNetTwins, TokenTwins
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.model_folders import make_resnet_folder

WIDTHS = (4, 4, 8, 8)


def _images(count=2, side=64, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _weights(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _coder(**options):
    torch.manual_seed(0)
    return Coder(WIDTHS, 8, **options).eval()


class _Colours:
    """A backbone whose tokens are the mean colours of patches of 16 pixels, and their squares."""

    patch_size, dim = 16, 6

    def tokens(self, images, *, final_norm=True):
        means = torch.nn.functional.avg_pool2d(images, 16).permute(0, 2, 3, 1)
        return type("Tokens", (), {"patch": torch.cat([means, means.square()], -1) + 0.1})()


def test_the_blocks_of_usual_width_have_the_known_numbers_of_weights():
    coder = Coder((64, 128, 256, 512), 512)
    assert [_weights(block) for block in coder.stream_a] == [38_976, 295_680, 1_181_184, 4_721_664]
    assert _weights(Coder((64, 128, 256, 512), 512, shared=False)) == 2 * _weights(coder)


def test_four_blocks_give_a_grid_of_one_thirty_second():
    coder = _coder()
    a, b = coder.pair(coder.describe(_images(side=96)), coder.describe(_images(side=96, seed=1)))
    assert a.shape == b.shape == (2, 8, 3, 3)
    assert coder.stride == 32


def test_a_cell_of_coder_sees_148_pixels_of_its_own_image():
    # All weights positive and nothing normalised, so that a path between pixel and cell shows as a gradient.
    coder = Coder((2, 2, 2, 2), 2).eval()
    with torch.no_grad():
        for parameter in coder.parameters():
            parameter.fill_(0.1)
    # Average pooling has the field of max-pooling, and shows all of it.
    for block in coder.stream_a:
        block[-1] = torch.nn.AvgPool2d(block[-1].kernel_size)
    image = torch.ones(1, 3, 320, 320, requires_grad=True)
    coder.pair(image, torch.ones(1, 3, 320, 320))[0][0, 0, 5, 5].backward()
    seen = (image.grad[0, 0] != 0).any(0).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 148


def test_features_of_coder_depend_on_the_other_image_and_those_of_twins_do_not():
    first, second, third = (_images(seed=seed) for seed in range(3))
    for encoder, expected in ((_coder(), True), (ResNetTwins((8, 8, 8, 8), 8).eval(), False)):
        described = [encoder.describe(images) for images in (first, second, third)]
        beside_second = encoder.pair(described[0], described[1])[0]
        beside_third = encoder.pair(described[0], described[2])[0]
        assert (not torch.equal(beside_second, beside_third)) == expected


@pytest.mark.parametrize("shared", [True, False])
def test_exchanging_the_images_exchanges_the_features_if_the_streams_share_their_weights(shared):
    coder = _coder(shared=shared)
    first, second = coder.describe(_images()), coder.describe(_images(seed=1))
    a, b = coder.pair(first, second)
    turned_b, turned_a = coder.pair(second, first)
    assert torch.allclose(a, turned_a, atol=1e-6) == shared
    assert torch.allclose(b, turned_b, atol=1e-6) == shared


def test_another_number_of_channels_is_reached_by_a_projection():
    coder = Coder(WIDTHS, 5)
    assert coder.pair(_images(), _images())[0].shape[1] == 5


def test_resnet_twins_are_a_resnet_50_in_their_usual_widths():
    twins = ResNetTwins((256, 512, 1024, 2048), 512)
    # 23.5 million without the classifier.
    assert _weights(twins.embedder) + _weights(twins.encoder) == 23_508_032
    assert twins.describe(_images(1, 64)).shape == (1, 512, 2, 2)


def test_resnet_twins_take_over_the_weights_of_a_folder(tmp_path):
    folder = make_resnet_folder(tmp_path / "resnet", embedding_size=2, hidden_sizes=[8, 8, 8, 8], depths=[3, 4, 6, 3])
    one, other = (ResNetTwins((8, 8, 8, 8), 8).eval() for _ in range(2))
    other.project = one.project
    assert not torch.equal(one.describe(_images()), other.describe(_images()))
    for twins in (one, other):
        twins.start_from(str(folder))
    assert torch.equal(one.describe(_images()), other.describe(_images()))


def test_weights_of_another_width_are_refused(tmp_path):
    folder = make_resnet_folder(tmp_path / "resnet")
    with pytest.raises(ConfigError, match="widths"):
        ResNetTwins((8, 8, 8, 8), 8).start_from(str(folder))


def test_frozen_tokens_have_unit_length_and_no_weights_in_the_module():
    twins = TokenTwins(_Colours(), 4)
    tokens = twins.inputs(_images(side=48))
    assert tokens.shape == (2, 6, 3, 3)
    torch.testing.assert_close(tokens.norm(dim=1), torch.ones(2, 3, 3))
    assert twins.describe(tokens).shape == (2, 4, 3, 3)
    assert set(twins.state_dict()) == {"project.weight", "project.bias"}


def test_cross_attention_begins_as_the_identity():
    a, b = torch.randn(2, 8, 3, 3), torch.randn(2, 8, 3, 3)
    found_a, found_b = CrossAttention(8)(a, b)
    assert torch.equal(found_a, a)
    assert torch.equal(found_b, b)


def test_with_cross_attention_a_cell_sees_far_places_of_the_other_image_and_no_order():
    torch.manual_seed(0)
    mixing = CrossAttention(8)
    torch.nn.init.normal_(mixing.message[-1].weight)
    a, b = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 4, 4)
    changed = b.clone()
    changed[..., 3, 3] *= -1
    assert not torch.allclose(mixing(a, b)[0][..., 0, 0], mixing(a, changed)[0][..., 0, 0])
    torch.testing.assert_close(mixing(a, b)[0], mixing(a, b.flip(2, 3))[0])
    torch.testing.assert_close(mixing(a, b)[1], mixing(b, a)[0])
