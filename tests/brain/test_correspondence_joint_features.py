"""Principal components of all views of a pair, against the slow form, and why all of them must take part."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones.base import Tokens
from fiftyone_selfsame.brain.correspondence.features import FeatureConfig, FeatureExtractor
from fiftyone_selfsame.brain.correspondence.fusion import fuse, joint_components, shared_components, unit_features
from fiftyone_selfsame.brain.correspondence.joint_features import project_jointly
from fiftyone_selfsame.brain.correspondence.views import MIRROR
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fixtures.joint_components import joint_features

SIZE = 96


class _Colours:
    """A backbone whose tokens are the mean colours of patches of 16 pixels, and their squares."""

    name, weights_hash, precision = "colours", "0", "fp32"
    patch_size, dim, default_size, device = 16, 6, 64, torch.device("cpu")

    def tokens(self, images, *, final_norm=True):
        means = torch.nn.functional.avg_pool2d(images, 16).permute(0, 2, 3, 1)
        return Tokens(torch.cat([means, means.square()], -1) + 0.1, means.mean((1, 2)))


class _Second:
    """A second network with three layers, the finest not of the backbone's grid."""

    name, weights_hash, precision, count = "second", "1", "fp32", 3

    def settings(self):
        return {"name": self.name}

    def layers(self, image):
        generator = torch.Generator().manual_seed(int(image[:, :20].sum()) % 2**31)
        return [torch.randn(n, n, c, generator=generator) for n, c in ((2, 12), (4, 8), (8, 5))]


def _image(seed):
    return np.random.default_rng(seed).integers(0, 256, (60, 90, 3), np.uint8)


def _extractor(second=None, components=3):
    return FeatureExtractor(_Colours(), FeatureConfig(SIZE, components=components), second=second)


def _views(extractor):
    """Three views of two pictures."""
    return [extractor(_image(0)), extractor(_image(0), view=MIRROR), extractor(_image(1))]


def _similarities(described):
    """Of all cells of all pictures: what does not depend on the signs of directions."""
    rows = np.concatenate([np.asarray(one, np.float64).reshape(-1, one.shape[2]) for one in described])
    return rows @ rows.T


@pytest.mark.parametrize("components", [1, 3, 100])
def test_layers_are_projected_as_the_slow_form_does(components):
    extractor = _extractor(_Second(), components)
    described = _views(extractor)

    ready = project_jointly(described, components)

    layers = [[layer.numpy() for layer in one.layers] for one in described]
    expected = joint_features(layers, [one.features.numpy() for one in described], components)
    assert [one.features.shape for one in ready] == [one.shape for one in expected]
    found = _similarities([one.features for one in ready])
    np.testing.assert_allclose(found, _similarities(expected), atol=1e-5)
    assert all(torch.allclose(one.features.norm(dim=2), torch.ones(6, 6)) for one in ready)


def test_two_pictures_are_the_published_case():
    images = [[torch.randn(3, 4, 6), torch.randn(6, 8, 4)] for _ in range(2)]

    for found, expected in zip(shared_components(images, 2), joint_components(*images, dims=2), strict=True):
        assert torch.equal(found, expected)


def _gap(target, first, second):
    """By how much the second map is farther from the target than the first."""
    target, first, second = (unit_features(one).flatten(0, 1).double() for one in (target, first, second))
    return float(torch.cdist(second, target).amin(dim=1).mean() - torch.cdist(first, target).amin(dim=1).mean())


def test_a_view_that_has_no_part_seems_nearer_than_it_is():
    generator = torch.Generator().manual_seed(0)
    unfair, fair = [], []
    for _ in range(50):
        # All three are noise: nothing sets the two views apart.
        target, tried, other = (torch.randn(3, 3, 40, generator=generator) for _ in range(3))
        known = torch.cat([target.flatten(0, 1), tried.flatten(0, 1)])
        directions = torch.linalg.svd(known - known.mean(dim=0))[2][:8]
        unfair.append(_gap(*((one - known.mean(dim=0)) @ directions.T for one in (target, tried, other))))
        fair.append(_gap(*shared_components([[target], [tried], [other]], 8)))

    assert np.mean(unfair) < -0.08
    assert abs(np.mean(fair)) < 0.02


def test_without_a_second_network_the_tokens_are_projected():
    first, second = (_extractor()(_image(seed)) for seed in (0, 1))

    ready = project_jointly([first, second], 3)

    expected = joint_components([first.tokens], [second.tokens], 3)
    for found, features in zip(ready, expected, strict=True):
        assert torch.equal(found.features, unit_features(features))
    assert ready[0].geometry == first.geometry


def test_distances_can_be_those_of_the_release():
    first, second = (_extractor(_Second())(_image(seed)) for seed in (0, 1))

    ready = project_jointly([first, second], 2, renormalise=False)

    projected, _ = joint_components(first.layers, second.layers, 2)
    grid = torch.nn.functional.interpolate(projected.permute(2, 0, 1)[None], (6, 6), mode="bilinear")[0]
    expected = fuse(grid.permute(1, 2, 0), first.features, renormalise=False)
    torch.testing.assert_close(ready[0].features, expected)
    torch.testing.assert_close(ready[0].features.norm(dim=2), torch.full((6, 6), 2**0.5))


def test_what_is_projected_holds_its_features_alone():
    described = _extractor(_Second())(_image(0))
    count = sum(n * n * c for n, c in ((2, 12), (4, 8), (8, 5)))
    assert described.nbytes == 4 * (6 * 6 * 6 + count)
    assert _extractor()(_image(0)).nbytes == 2 * 4 * 6 * 6 * 6

    (ready,) = project_jointly([described], 2)

    assert ready.nbytes == 4 * 6 * 6 * (3 * 2 + 6)


def test_features_that_were_not_kept_for_it_are_refused():
    plain = _extractor(components=None)(_image(0))
    with pytest.raises(ConfigError, match="components="):
        project_jointly([plain, plain])
    mixed = [_extractor(_Second())(_image(0)), _extractor()(_image(0))]
    with pytest.raises(ConfigError, match="must have the same layers"):
        project_jointly(mixed)
    with pytest.raises(ConfigError, match="at least one image"):
        project_jointly([])
