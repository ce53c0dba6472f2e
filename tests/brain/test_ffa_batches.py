"""What FFA vectors must not depend on: their batch and what the token cache holds; and what provenance says they do."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.ffa import FFAConfig, FFAExtractor, ffa_preset
from fiftyone_selfsame.brain.token_cache import TokenCache
from fiftyone_selfsame.fixtures.readable_encoder import (
    GivenPixels,
    ReadableBackbone,
    block,
    noise,
    vector_of,
)
from PIL import Image


@pytest.mark.parametrize("batch_size", [None, 1, 2, 5])
def test_a_vector_does_not_depend_on_its_batch(batch_size):
    extractor = FFAExtractor(ReadableBackbone())
    images = [noise((20 + seed, 50 - seed), seed) for seed in range(5)]

    results = extractor.embed([extractor.prepare(image) for image in images], batch_size)

    for image, result in zip(images, results, strict=True):
        assert np.allclose(result.vector, vector_of(image).vector, atol=1e-6)
    assert max(extractor.backbone.calls) == (batch_size or 5)


def test_no_images_give_no_vectors():
    assert FFAExtractor(ReadableBackbone()).embed([]) == []


def test_aspect_keeping_pictures_say_which_may_share_a_batch():
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(resize="aspect"))

    assert extractor.prepare(noise((40, 80))).group_key == extractor.prepare(noise((20, 40))).group_key
    assert extractor.prepare(noise((40, 80))).group_key != extractor.prepare(noise((80, 40))).group_key


class MemoryCache(dict):
    def put(self, key, tokens):
        self[key] = tokens
        return tokens


def test_tokens_of_a_known_picture_come_from_the_cache():
    cache, images = MemoryCache(), [noise(seed=seed) for seed in range(3)]
    fresh = [vector_of(image, block()).vector for image in images]

    for pictures, encoded in [(1, 1), (3, 2), (3, 0)]:
        extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(), cache)
        batch = [extractor.prepare(images[i], block(), content_hash=f"h{i}") for i in range(pictures)]
        results = extractor.embed(batch)
        assert sum(extractor.backbone.calls) == encoded
        for result, expected in zip(results, fresh[:pictures], strict=True):
            assert np.allclose(result.vector, expected, atol=1e-6)


def test_with_a_cache_on_disk_a_vector_does_not_depend_on_what_was_cached(tmp_path):
    cache = TokenCache(tmp_path)
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(), cache)

    first, second = (extractor.embed([extractor.prepare(noise(), content_hash="h")])[0] for _ in range(2))

    assert extractor.backbone.calls == [1]
    assert np.array_equal(first.vector, second.vector)
    assert np.allclose(first.vector, vector_of(noise()).vector, atol=1e-3)


def test_cut_outs_are_never_cached_but_the_untouched_fallback_is():
    cache = MemoryCache()
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(encode="cutout"), cache)

    extractor.embed([extractor.prepare(noise(), block(), content_hash="h")])
    assert not cache
    extractor.embed([extractor.prepare(noise(), np.zeros((40, 60)), content_hash="h")])
    assert len(cache) == 1


def test_cached_tokens_are_not_shared_between_ways_to_preprocess():
    cache = MemoryCache()
    configs = [{}, {"size": 16}, {"resize": "letterbox"}, {"final_norm": False}]

    for config in configs:
        extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(**config), cache)
        extractor.embed([extractor.prepare(noise(), content_hash="h")])

    assert len(cache) == len(configs)


def test_cached_tokens_are_shared_by_routes_but_not_by_scales_of_decoding():
    cache, image = MemoryCache(), noise((80, 120))
    reduced = np.asarray(Image.fromarray(image).reduce(2))
    extractor = FFAExtractor(ReadableBackbone(), None, FFAConfig(), cache)

    extractor.embed([extractor.prepare(reduced, content_hash="h", image_hw=(80, 120))])
    at_full_scale = extractor.embed(extractor.prepare_objects(image, [[0, 0, 60, 60]], None, "image", False, "h"))[0]
    extractor.embed([extractor.prepare(image, content_hash="h")])

    assert extractor.backbone.calls == [1, 1]
    alone = FFAExtractor(ReadableBackbone()).embed_objects(image, [[0, 0, 60, 60]], route="image")[0]
    assert np.array_equal(at_full_scale.vector, alone.vector)


def test_provenance_names_everything_that_vectors_depend_on():
    extractor = FFAExtractor(ReadableBackbone(), GivenPixels(block()), FFAConfig(weights="soft"))

    record = json.loads(json.dumps(extractor.config_dict()))

    assert record == {
        "model": "readable",
        "weights_hash": "abc",
        "precision": "fp32",
        "foreground": "given",
        "foreground_hash": "def",
        "encode": "original",
        "pooling": "patch",
        "weights": "soft",
        "resize": "squash",
        "size": 32,
        "final_norm": True,
        "released_mask": False,
        "fast_decode": True,
    }


def test_impossible_options_are_refused_by_name():
    for options, text in [
        ({"encode": "Crop-Img"}, "encode='Crop-Img' is unknown; use one of original, cutout"),
        ({"pooling": "max"}, "pooling='max'"),
        ({"weights": "firm"}, "weights='firm'"),
        ({"resize": "crop"}, "resize='crop'"),
        ({"released_mask": True, "resize": "letterbox"}, "released_mask"),
        ({"released_mask": True, "weights": "soft"}, "released_mask"),
    ]:
        with pytest.raises(ConfigError, match=text):
            FFAConfig(**options)
    with pytest.raises(ConfigError, match="size=30 is not a multiple of the patch size 4; use 28 or 32"):
        FFAExtractor(ReadableBackbone(), None, FFAConfig(size=30))
    with pytest.raises(ConfigError, match="preset='best' is unknown; use one of default, paper"):
        FFAConfig.preset("best")
    with pytest.raises(ConfigError, match=r"Crop-Both.*Crop-Feat and Crop-Img"):
        FFAConfig.from_released_name("Crop-Both")


def test_a_preset_names_a_whole_pipeline():
    assert (ffa_preset("paper").backbone, ffa_preset("paper").foreground) == ("dinov2-base", "carvekit")
    assert ffa_preset("default").config == FFAConfig()
