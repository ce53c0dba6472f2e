"""Described pictures: what is encoded, how often, and what a view, a mask and a second network change."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.backbones.base import Tokens
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig
from fiftyone_selfsame.brain.correspondence.features import FeatureConfig, FeatureExtractor, FeatureShelf
from fiftyone_selfsame.brain.correspondence.fusion import unit_features
from fiftyone_selfsame.brain.correspondence.matching import KeypointQuery, MatchConfig, match_keypoints
from fiftyone_selfsame.brain.correspondence.views import ALL_VIEWS, IDENTITY, MIRROR
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.brain.ffa import FFAExtractor
from fiftyone_selfsame.brain.ffa_config import FFAConfig
from fiftyone_selfsame.brain.geometry import image_to_canvas, plan_geometry
from fiftyone_selfsame.brain.token_cache import TokenCache

SIZE = 96


class _Colours:
    """A backbone whose tokens are the mean colours of patches of 16 pixels, and their squares."""

    name, weights_hash, precision = "colours", "0", "fp32"
    patch_size, dim, default_size, device = 16, 6, 64, torch.device("cpu")

    def __init__(self):
        self.passes = []

    def tokens(self, images, *, final_norm=True):
        self.passes.append(len(images))
        means = torch.nn.functional.avg_pool2d(images, 16).permute(0, 2, 3, 1)
        return Tokens(torch.cat([means, means.square()], -1) + 0.1 + final_norm, means.mean((1, 2)))


class _Second:
    """A second network with two layers."""

    name, weights_hash, precision, count = "second", "1", "fp32", 2

    def __init__(self):
        self.pictures = 0

    def settings(self):
        return {"name": self.name}

    def layers(self, image):
        self.pictures += 1
        generator = torch.Generator().manual_seed(int(image.sum()) % 2**31)
        return [torch.randn(3, 3, 4, generator=generator), torch.randn(6, 6, 2, generator=generator)]


def _image(seed, height=60, width=90):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def _extractor(backbone=None, **options):
    config = FeatureConfig(**{"size": SIZE, **options.pop("config", {})})
    return FeatureExtractor(backbone or _Colours(), config, **options)


def test_features_are_the_unit_tokens_of_the_letterboxed_picture_before_the_final_norm():
    backbone, image = _Colours(), _image(0)

    described = _extractor(backbone)(image)

    geometry = plan_geometry((60, 90), SIZE, 16, "letterbox")
    tokens = backbone.tokens(image_to_canvas(image, geometry)[None], final_norm=False).patch[0]
    assert described.geometry == geometry
    assert torch.allclose(described.features, unit_features(tokens))
    assert described.valid.astype(int).tolist() == [[0] * 6, [1] * 6, [1] * 6, [1] * 6, [1] * 6, [0] * 6]
    assert described.region is None
    assert (described.foreground() == described.valid).all()


def test_the_canvas_is_the_multiple_of_the_patch_nearest_to_the_published_one():
    backbone = _Colours()

    assert FeatureExtractor(backbone).size == 832
    backbone.patch_size = 14
    assert FeatureExtractor(backbone).size == 840
    with pytest.raises(ConfigError, match="multiple"):
        FeatureExtractor(backbone, FeatureConfig(size=100))


def test_pictures_are_encoded_in_batches_and_come_back_in_order():
    backbone, images = _Colours(), [_image(seed, 40 + 7 * seed, 80) for seed in range(5)]
    extractor = _extractor(backbone, batch_size=2)

    described = extractor.describe([extractor.prepare(image) for image in images])

    assert backbone.passes == [2, 2, 1]
    for image, one in zip(images, described, strict=True):
        assert torch.allclose(one.features, _extractor()(image).features, atol=1e-6)


@pytest.mark.parametrize("view", ALL_VIEWS)
def test_a_view_is_the_turned_picture_with_the_turned_mask(view):
    image, mask = _image(0), np.zeros((60, 90), bool)
    mask[:30, :45] = True

    turned = _extractor()(image, mask, view=view)
    plain = _extractor()(view.apply(image), view.apply(mask))

    assert turned.geometry == plain.geometry
    assert torch.equal(turned.features, plain.features)
    assert (turned.region == plain.region).all()
    assert (turned.foreground() == turned.region).all()


def test_cached_tokens_spare_the_encoder_and_change_nothing(tmp_path):
    backbone, cache = _Colours(), TokenCache(tmp_path)
    extractor = _extractor(backbone, token_cache=cache)
    prepared = [extractor.prepare(_image(seed), content_hash=str(seed)) for seed in (0, 1)]

    first = extractor.describe(prepared[:1])[0]
    again, other = extractor.describe(prepared)
    mirrored = extractor(_image(0), content_hash="0", view=MIRROR)

    assert backbone.passes == [1, 1, 1]
    assert torch.equal(first.features, again.features)
    assert not torch.equal(other.features, again.features)
    assert not torch.equal(mirrored.features, again.features)
    assert _extractor(backbone, token_cache=cache, config={"final_norm": True})(_image(0), content_hash="0")
    assert backbone.passes == [1, 1, 1, 1]


def test_tokens_are_shared_with_the_vectors_of_pictures(tmp_path):
    backbone, cache, image = _Colours(), TokenCache(tmp_path), _image(0)
    config = FFAConfig(resize="letterbox", size=SIZE, final_norm=False)
    ffa = FFAExtractor(backbone, None, config, token_cache=cache)
    ffa.embed([ffa.prepare(image, None, "0")])

    _extractor(backbone, token_cache=cache)(image, content_hash="0")

    assert backbone.passes == [1]


def test_a_picture_in_many_pairs_is_described_once():
    backbone, reads = _Colours(), []

    def read(name):
        reads.append(name)
        return _image(name), None, None

    shelf = FeatureShelf(_extractor(backbone), read)
    first = shelf.fetch([(0, IDENTITY), (1, IDENTITY), (0, IDENTITY), (0, MIRROR)])
    second = shelf.fetch([(1, IDENTITY), (0, MIRROR)])

    assert reads == [0, 1]
    assert sum(backbone.passes) == 3
    assert first[0, MIRROR] is second[0, MIRROR]
    assert torch.equal(first[1, IDENTITY].features, _extractor()(_image(1)).features)


def test_a_full_shelf_forgets_what_was_used_longest_ago():
    backbone = _Colours()
    # Features of 6 × 6 cells with 6 channels, in float32.
    shelf = FeatureShelf(_extractor(backbone), lambda name: (_image(name), None, None), max_bytes=2 * 864)

    shelf.fetch([(0, IDENTITY), (1, IDENTITY)])
    shelf.fetch([(0, IDENTITY), (2, IDENTITY)])
    shelf.fetch([(0, IDENTITY)])
    assert sum(backbone.passes) == 3
    shelf.fetch([(1, IDENTITY)])
    assert sum(backbone.passes) == 4


def test_a_second_network_joins_in_with_equal_say():
    image = _image(0)

    described = _extractor(second=_Second())(image)

    coarse, fine = _Second().layers(image)
    tokens = described.features[..., 6:]
    assert described.features.shape == (6, 6, 12)
    halves = described.features[..., :6].norm(dim=2), tokens.norm(dim=2)
    for half in halves:
        np.testing.assert_allclose(half, 0.5**0.5, atol=1e-5)
    # The finest layer comes first.
    direction = unit_features(described.features[..., :2])
    assert torch.allclose(direction, unit_features(fine), atol=1e-5)
    assert coarse.shape == (3, 3, 4)


def test_cached_layers_spare_the_second_network(tmp_path):
    second, cache = _Second(), TokenCache(tmp_path)
    extractor = _extractor(second=second, token_cache=cache)

    first = extractor(_image(0), content_hash="0")
    again = extractor(_image(0), content_hash="0")
    mirrored = extractor(_image(0), content_hash="0", view=MIRROR)

    assert second.pictures == 2
    assert torch.equal(first.features, again.features)
    assert torch.allclose(first.features, _extractor(second=_Second())(_image(0)).features, atol=1e-3)
    assert not torch.allclose(mirrored.features, first.features, atol=1e-3)


def test_for_principal_components_tokens_or_layers_are_kept_and_not_joined_yet():
    plain, joined = _extractor(config={"components": 3}), _extractor(config={"components": 3}, second=_Second())

    tokens, layers = plain(_image(0)), joined(_image(0))

    assert torch.equal(unit_features(tokens.tokens), tokens.features)
    assert torch.equal(layers.features, tokens.features)
    assert layers.tokens is None
    for found, expected in zip(layers.layers, _Second().layers(_image(0)), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(ConfigError, match="at least 1"):
        FeatureConfig(components=0)


def test_an_encoder_that_breaks_down_is_named():
    backbone = _Colours()
    backbone.tokens = lambda images, final_norm=True: Tokens(torch.full((1, 6, 6, 6), torch.nan), torch.zeros(1, 6))

    with pytest.raises(ModelError, match="colours"):
        _extractor(backbone)(_image(0))


def test_settings_name_everything_that_features_depend_on():
    settings = _extractor(second=_Second()).settings()

    assert (settings["backbone"], settings["size"], settings["final_norm"]) == ("colours", SIZE, False)
    assert settings["second"] == {"name": "second", "weights_hash": "1"}
    assert _extractor().settings()["second"] is None


def test_a_real_backbone_finds_the_points_of_a_shifted_picture():
    backbone = load_backbone("embedded", device="cpu", precision="fp32")
    generator = np.random.default_rng(0)
    coarse = torch.from_numpy(generator.uniform(0, 255, (1, 3, 14, 18)))
    scene = torch.nn.functional.interpolate(coarse, (280, 360), mode="bicubic")[0].clamp(0, 255)
    scene = scene.permute(1, 2, 0).numpy().astype(np.uint8)
    extractor = FeatureExtractor(backbone, FeatureConfig(size=256))
    first, second = scene[:256, :256], scene[16:272, 64:320]
    points = generator.uniform((80, 40), (240, 240), (20, 2))

    query = KeypointQuery(extractor(first), extractor(second), points)
    (found,) = match_keypoints([query], MatchConfig(DecodeConfig("window", radius=2)))

    errors = np.linalg.norm(found.points - (points - (64, 16)), axis=1)
    assert np.median(errors) < backbone.patch_size
