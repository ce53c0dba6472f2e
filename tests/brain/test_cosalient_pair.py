"""Co-salient masks without training: invariants, and the clusters form against a literal reading of its steps."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.comparison import Picture, full_size
from fiftyone_selfsame.brain.cosalient.cosalient_set import cosalient_set
from fiftyone_selfsame.brain.cosalient.patches import Patches, find_partners, mean_of_nearest
from fiftyone_selfsame.brain.cosalient.scores import pair_scores, token_pairs
from fiftyone_selfsame.brain.cosalient.spherical_kmeans import spherical_kmeans
from fiftyone_selfsame.brain.cosalient.training_free import PAPER, PairConfig, cosalient_pair, otsu_level, tidy
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import plan_geometry

SIDE = 16
CONFIGS = [PairConfig(), PAPER]


def picture(tokens, saliency, valid=None):
    height, width = saliency.shape
    tokens = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    geometry = plan_geometry((height * 4, width * 4), 4 * max(height, width), 4, "letterbox")
    small = np.zeros((height * 4, width * 4, 3), np.uint8)
    valid = np.ones((height, width), bool) if valid is None else valid
    return Picture((height * 4, width * 4), geometry, tokens.astype(np.float32), saliency, valid, small)


def scene(seed, place, thing=0, size=6):
    """A picture of a ground of its own, with a patterned object at a place (row, column)."""
    rng = np.random.default_rng(seed)
    own = np.random.default_rng(1000 + thing)
    tokens = rng.standard_normal(24) + 0.5 * rng.standard_normal((SIDE, SIDE, 24))
    kind = 3 * own.standard_normal(24)
    pattern = kind + own.standard_normal((size, size, 24))
    row, column = place
    tokens[row : row + size, column : column + size] = pattern + 0.15 * rng.standard_normal(pattern.shape)
    saliency = np.full((SIDE, SIDE), 0.1, np.float32)
    saliency[row : row + size, column : column + size] = 0.9
    return picture(tokens, saliency)


def truth(place, size=6):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[place[0] : place[0] + size, place[1] : place[1] + size] = True
    return mask


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_object_is_found_where_it_is_in_either_picture(config):
    pair = cosalient_pair(scene(1, (2, 3)), scene(2, (8, 7)), config)
    assert not pair.no_common_region
    assert iou(pair.mask_a, truth((2, 3))) > 0.9
    assert iou(pair.mask_b, truth((8, 7))) > 0.9


@pytest.mark.parametrize("config", CONFIGS)
def test_the_order_of_the_pictures_does_not_matter(config):
    first, second = scene(3, (1, 1)), scene(4, (9, 4))
    one, other = cosalient_pair(first, second, config), cosalient_pair(second, first, config)
    assert (one.map_a == other.map_b).all()
    assert (one.mask_b == other.mask_a).all()
    assert pair_scores(one).as_row() == pytest.approx(pair_scores(other).as_row(), abs=1e-6)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_picture_with_itself_is_consistent_everywhere_and_scores_one(config):
    itself = scene(5, (4, 4))
    pair = cosalient_pair(itself, itself, config)
    assert (pair.partners.error_a == 0).all()
    scores = pair_scores(pair)
    assert scores.similarity == pytest.approx(1, abs=1e-5)
    assert scores.consistency == 1
    assert scores.ffa == pytest.approx(1, abs=1e-5)
    assert (pair.mask_a == pair.mask_b).all()
    assert iou(pair.mask_a, truth((4, 4))) > 0.9


@pytest.mark.parametrize("config", CONFIGS)
def test_mirroring_the_second_picture_mirrors_its_mask_and_leaves_the_first(config):
    first, second = scene(6, (2, 8)), scene(7, (7, 1))
    mirrored = picture(second.tokens[:, ::-1], second.saliency[:, ::-1])
    plain, flipped = cosalient_pair(first, second, config), cosalient_pair(first, mirrored, config)
    assert (flipped.mask_a == plain.mask_a).all()
    assert (flipped.mask_b == plain.mask_b[:, ::-1]).all()


@pytest.mark.parametrize("config", CONFIGS)
def test_the_scale_of_tokens_does_not_matter(config):
    first, second = scene(8, (2, 8)), scene(9, (7, 1))
    scaled = Picture(**{**vars(second), "tokens": second.tokens * np.float32(4)})
    plain, other = cosalient_pair(first, second, config), cosalient_pair(first, scaled, config)
    assert (plain.mask_a == other.mask_a).all()
    assert (plain.mask_b == other.mask_b).all()


@pytest.mark.parametrize("config", CONFIGS)
def test_pictures_with_nothing_in_common_get_empty_masks_and_a_flag(config):
    rng = np.random.default_rng(10)
    tokens = rng.standard_normal((2, SIDE, SIDE, 12))
    wide = np.zeros((2, SIDE, SIDE, 24))
    wide[0, ..., :12], wide[1, ..., 12:] = tokens
    saliency = scene(0, (4, 4)).saliency
    pair = cosalient_pair(picture(wide[0], saliency), picture(wide[1], saliency), config)
    assert pair.no_common_region
    assert not pair.mask_a.any()
    assert not pair.mask_b.any()
    assert pair_scores(pair).similarity < 0.1


@pytest.mark.parametrize("config", CONFIGS)
def test_padding_is_never_part_of_a_mask(config):
    first, second = scene(11, (2, 3)), scene(12, (8, 7))
    valid = np.ones((SIDE, SIDE), bool)
    valid[:, :5] = False
    cropped = picture(second.tokens, second.saliency, valid)
    pair = cosalient_pair(first, cropped, config)
    assert not pair.mask_b[:, :5].any()
    assert pair.mask_b.any()


def test_clusters_agree_with_a_literal_reading_of_the_steps():
    first, second = scene(13, (2, 3)), scene(14, (8, 7), size=5)
    pair = cosalient_pair(first, second, PAPER)
    expected = literal_foreground(Patches.of(first), Patches.of(second))
    inside_a, inside_b = pair.inside()
    for inside, wanted in zip((inside_a, inside_b), expected, strict=True):
        assert (inside & wanted).sum() / wanted.sum() > 0.95


def literal_foreground(a, b):
    """Which patches lie in foreground clusters, patch by patch and cluster by cluster (steps 1 to 3)."""
    cosine = a.tokens @ b.tokens.T
    clusters = spherical_kmeans(np.concatenate([a.tokens, b.tokens]), 4, 16, 0.975)
    label = clusters.label[: len(a.tokens)], clusters.label[len(a.tokens) :]
    chosen = []
    for cluster in range(len(clusters.centres)):
        good = True
        for own, mine, theirs, sim in ((a, *label, cosine), (b, *label[::-1], cosine.T)):
            members = [i for i in range(len(own.tokens)) if mine[i] == cluster]
            consistent = 0
            for i in members:
                partner = sim[i].argmax()
                back = sim[:, partner].argmax()
                near = max(abs(own.places[i] - own.places[back])) <= 1
                consistent += near and theirs[partner] == cluster
            good &= len(members) >= max(4, 0.005 * len(own.tokens))
            good &= bool(members) and np.mean(own.saliency[members]) > otsu_level(own.saliency)
            good &= bool(members) and consistent / len(members) >= 0.1
        if good:
            chosen.append(cluster)
    return np.isin(label[0], chosen), np.isin(label[1], chosen)


def test_partners_are_those_of_the_whole_similarity_matrix():
    a, b = Patches.of(scene(15, (1, 1))), Patches.of(scene(16, (3, 3)))
    cosine = a.tokens @ b.tokens.T
    partners = find_partners(a, b)
    assert (partners.of_a == cosine.argmax(1)).all()
    assert (partners.of_b == cosine.argmax(0)).all()
    for patch in range(0, len(a.tokens), 17):
        back = cosine.argmax(0)[cosine.argmax(1)[patch]]
        assert partners.error_a[patch] == max(abs(a.places[patch] - a.places[back]))


def test_mean_of_nearest_averages_the_largest_cosines_and_is_minus_one_without_keys():
    queries = np.eye(3, dtype=np.float32)
    keys = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 1]], np.float32)
    assert mean_of_nearest(queries, keys, 2) == pytest.approx([0.8, 0.4, 0.5])
    assert mean_of_nearest(queries, keys[:1], 5) == pytest.approx([1, 0, 0])
    assert mean_of_nearest(queries, keys[:0], 2) == pytest.approx([-1, -1, -1])


def test_lines_are_mutual_partners_in_the_masks_the_strongest_first_and_spread():
    pair = cosalient_pair(scene(17, (2, 3)), scene(18, (8, 7)))
    lines = token_pairs(pair, 4)
    assert len(lines) == 4
    assert (np.diff(lines[:, 4]) <= 0).all()
    rows = lines.astype(int)
    assert pair.mask_a[rows[:, 0], rows[:, 1]].all()
    assert pair.mask_b[rows[:, 2], rows[:, 3]].all()
    assert len(np.unique(rows[:, :2], axis=0)) == 4
    gaps = np.abs(rows[:, None, :2] - rows[None, :, :2]).max(-1)[~np.eye(4, dtype=bool)]
    assert gaps.min() >= 2


def test_otsu_splits_two_heaps_between_them_and_refuses_equal_values():
    assert otsu_level(np.array([0.1, 0.12, 0.9, 0.92, 0.94])) == pytest.approx(0.51)
    assert otsu_level(np.full(5, 0.3)) == np.inf


def test_tidy_fills_holes_and_drops_crumbs():
    mask = np.zeros((20, 20), bool)
    mask[2:8, 2:8] = True
    mask[4, 4] = False
    mask[15, 15] = True
    found = tidy(mask, 0.01)
    assert found.sum() == 36
    assert found[4, 4]
    assert not found[15, 15]


@pytest.mark.parametrize("config", CONFIGS)
def test_a_set_has_in_common_what_most_of_its_pictures_show(config):
    places = [(2, 3), (8, 7), (5, 5), (1, 9)]
    found = cosalient_set([scene(20 + n, place) for n, place in enumerate(places)], config)
    for evidence, place in zip(found, places, strict=True):
        assert iou(evidence > 0, truth(place)) > 0.85


def test_a_picture_of_a_set_that_lacks_the_object_gets_an_empty_mask():
    pictures = [scene(30 + n, (2 + n, 3)) for n in range(4)]
    lacking = scene(40, (6, 6), thing=9)
    found = cosalient_set([*pictures, lacking])
    assert all((evidence > 0).any() for evidence in found[:4])
    assert not (found[4] > 0).any()


def test_two_pictures_are_compared_as_a_pair_when_they_are_a_set():
    first, second = scene(50, (2, 3)), scene(51, (8, 7))
    pair = cosalient_pair(first, second)
    found = cosalient_set([first, second])
    assert (found[0] == pair.map_a).all()
    assert (found[1] == pair.map_b).all()


def test_clusters_do_not_depend_on_the_order_of_the_vectors():
    rng = np.random.default_rng(60)
    vectors = np.repeat(rng.standard_normal((5, 8)), 20, axis=0) + 0.1 * rng.standard_normal((100, 8))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    order = rng.permutation(100)
    plain, shuffled = spherical_kmeans(vectors, 2, 12, 0.975), spherical_kmeans(vectors[order], 2, 12, 0.975)
    assert (plain.label[order] == shuffled.label).all()
    assert len(plain.centres) >= 5
    for heap in range(5):
        assert (
            len(
                set(plain.label[20 * heap : 20 * heap + 20])
                & set(np.delete(plain.label, np.s_[20 * heap : 20 * heap + 20]))
            )
            == 0
        )


def test_more_clusters_than_vectors_are_not_made():
    vectors = np.eye(3, dtype=np.float32)
    assert len(spherical_kmeans(vectors, 4, 16, 0.975).centres) == 3


def test_settings_out_of_range_are_refused_by_name():
    with pytest.raises(ConfigError, match="method='best'"):
        PairConfig(method="best")
    with pytest.raises(ConfigError, match="min_consistent"):
        PairConfig(min_consistent=1.5)
    with pytest.raises(ConfigError, match="rounds"):
        PairConfig(rounds=0)


def test_a_mask_in_the_size_of_its_image_keeps_its_shape():
    mask = np.zeros((10, 10), bool)
    mask[2:6, 3:7] = True
    large = full_size(mask, (40, 50))
    assert large.shape == (40, 50)
    assert large[8:24, 15:35].mean() > 0.95
    assert large.sum() == pytest.approx(16 * 20, rel=0.2)
    assert full_size(mask, (10, 10)) is mask
