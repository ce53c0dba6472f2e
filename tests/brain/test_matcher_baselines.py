import cv2
import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.baselines import ORB_RATIO, always_match, orb_descriptors, orb_score
from fiftyone_selfsame.brain.errors import ConfigError


def textured(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), np.uint8)
    return cv2.resize(noise, (256, 192), interpolation=cv2.INTER_NEAREST)


def slow_score(first, second, ratio):
    """The definition, one feature at a time."""
    good = 0
    for one in first:
        distances = sorted(int(np.unpackbits(one ^ other).sum()) for other in second)
        good += distances[0] < ratio * distances[1]
    return good


def test_the_score_is_that_of_the_definition():
    generator = np.random.default_rng(0)
    first = generator.integers(0, 256, (40, 32), np.uint8)
    second = generator.integers(0, 256, (30, 32), np.uint8)
    second[:10] = first[:10] ^ (generator.random((10, 32)) < 0.3).astype(np.uint8)

    assert orb_score(first, second) == slow_score(first, second, ORB_RATIO) >= 10
    assert orb_score(first, second, 0.95) == slow_score(first, second, 0.95) > orb_score(first, second)


def test_a_picture_finds_itself_moved_and_not_another():
    image = textured(0)
    moved = np.roll(image, (5, 9), (0, 1))
    own, same, other = (orb_descriptors(picture) for picture in (image, moved, textured(1)))

    assert 100 < len(own) <= 1000
    assert orb_score(own, same) > 0.3 * len(own)
    assert orb_score(own, other) < 0.05 * len(own)


def test_at_most_so_many_features_are_kept():
    assert 10 < len(orb_descriptors(textured(0), 50)) <= 50
    with pytest.raises(ConfigError, match="keypoints=0"):
        orb_descriptors(textured(0), 0)


def test_plain_pictures_have_no_features_and_score_nothing():
    nothing = orb_descriptors(np.full((64, 64, 3), 90, np.uint8))

    assert nothing.shape == (0, 32)
    assert orb_score(nothing, orb_descriptors(textured(0))) == 0
    assert orb_score(orb_descriptors(textured(0)), nothing) == 0


def test_the_trivial_matcher_takes_all_pairs_alike():
    assert always_match(3).tolist() == [1.0, 1.0, 1.0]
