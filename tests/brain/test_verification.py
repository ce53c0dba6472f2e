"""A second look at pairs: tokens that are matched by hand, read from pictures, and held in memory."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.ffa import FFAExtractor
from fiftyone_selfsame.brain.foreground import load_foreground
from fiftyone_selfsame.brain.verification import TokenReader, TokenVerifier, foreground_tokens, match_score


def test_a_match_is_the_mean_of_best_cosines_in_both_directions():
    a = np.eye(3)[[0, 1]]
    b = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])

    # Of a: 1 and 0.8; of b: 0.8, 0 and 1.
    assert match_score(a, b) == pytest.approx(((1 + 0.8) / 2 + (0.8 + 0 + 1) / 3) / 2)
    assert match_score(b, a) == pytest.approx(match_score(a, b))
    assert match_score(a, a[::-1]) == pytest.approx(1)


def test_only_the_foreground_is_matched_and_all_of_a_picture_without_any():
    tokens = np.arange(1, 25, dtype=float).reshape(4, 3, 2)
    coverage = np.zeros((4, 3))
    coverage[1:3, 1:] = 0.9

    inside, everything = foreground_tokens(tokens, coverage), foreground_tokens(tokens, np.zeros((4, 3)))

    expected = tokens[1:3, 1:].reshape(-1, 2)
    assert np.allclose(inside, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-3)
    assert len(everything) == 12
    assert len(foreground_tokens(tokens, np.ones((4, 3)), most=5)) == 5


def test_pairs_are_scored_in_their_order_and_each_row_is_read_once_while_it_is_held():
    rng = np.random.default_rng(0)
    tokens = [rng.normal(size=(5, 4)) for _ in range(6)]
    tokens = [t / np.linalg.norm(t, axis=1, keepdims=True) for t in tokens]
    pairs = np.array([(4, 5), (0, 1), (2, 3), (0, 5), (1, 4)])
    reads = []

    def read(rows):
        reads.extend(rows)
        return [tokens[row] for row in rows]

    roomy = TokenVerifier(read, block=2)(pairs)
    assert sorted(reads) == [0, 1, 2, 3, 4, 5]
    cramped = TokenVerifier(read, capacity=1, block=1)(pairs)

    expected = [match_score(tokens[a], tokens[b]) for a, b in pairs]
    assert roomy == pytest.approx(expected, abs=1e-6)
    assert cramped == pytest.approx(expected, abs=1e-6)
    assert TokenVerifier(read)(np.empty((0, 2), int)).shape == (0,)


def test_the_reader_gives_each_picture_its_own_tokens_and_takes_masks_from_the_caller():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (64 + 16 * k, 96, 3), np.uint8) for k in range(3)]
    extractor = FFAExtractor(load_backbone("embedded-untrained", device="cpu"), load_foreground("one_pass"))
    mask = np.zeros((64, 96), bool)
    mask[16:48, 24:72] = True

    together = TokenReader(extractor, batch_size=2).read(images)
    alone = [TokenReader(extractor).read([image])[0] for image in images]
    masked = TokenReader(extractor).read(images[:1], [mask])[0]

    for a, b in zip(together, alone, strict=True):
        assert a.shape == b.shape
        assert np.allclose(a.astype(float), b.astype(float), atol=5e-3)
        assert np.allclose(np.linalg.norm(a.astype(float), axis=1), 1, atol=5e-3)
    share = len(masked) / extractor.prepare(images[0]).geometry.canvas_hw[0] ** 2 * extractor.backbone.patch_size**2
    assert 0 < share < 0.5
