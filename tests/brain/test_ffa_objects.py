"""FFA vectors of the objects of an image, and object-to-object matching of two images."""

import itertools

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.backbones.base import Tokens
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.brain.ffa import FFAConfig, FFAExtractor
from fiftyone_selfsame.brain.objects import match_objects
from hypothesis import given
from hypothesis import strategies as st


class ColourBackbone:
    """Token of a patch: its mean colour and 0.01, so that every vector has a direction."""

    name, weights_hash, precision = "colour", "abc", "fp32"
    patch_size, dim, default_size = 4, 4, 48
    device = torch.device("cpu")

    def __init__(self):
        self.calls = []

    def tokens(self, images, *, final_norm=True):
        self.calls.append(len(images))
        colours = torch.nn.functional.avg_pool2d(images, 4).permute(0, 2, 3, 1)
        patch = torch.cat([colours, torch.full_like(colours[..., :1], 0.01)], -1)
        return Tokens(patch, patch.mean((1, 2)))


class BrightPixels:
    """A pixel foreground: everything that is not black."""

    name, weights_hash = "bright", "def"
    in_worker, full_scale = False, False

    def __init__(self):
        self.asked = []

    def masks(self, images):
        self.asked += [image.shape[:2] for image in images]
        return [(image.max(2) > 30).astype(np.float32) for image in images]


class BrightTokens:
    """A token foreground: patches that are not black."""

    name, weights_hash = "bright tokens", "ghi"

    def coverage(self, patch_tokens, valid=None):
        return (patch_tokens[..., :3].amax(-1) > 0.3).float() * valid


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
BOXES = np.array([[8, 8, 16, 16], [60, 40, 24, 16]], float)


def scene() -> np.ndarray:
    """A red square and a green rectangle, exactly in their boxes, on a black ground of 96 by 72 pixels."""
    image = np.zeros((72, 96, 3), np.uint8)
    image[8:24, 8:24] = RED
    image[40:56, 60:84] = GREEN
    return image


def full_masks():
    masks = []
    for x, y, w, h in BOXES.astype(int):
        mask = np.zeros((72, 96), bool)
        mask[y : y + h, x : x + w] = True
        masks.append(mask)
    return masks


def colour_of(result) -> np.ndarray:
    """The colour of a vector in [0, 1], the largest channel being 1."""
    return result.vector[:3] / result.vector[:3].max()


def embed(foreground=None, boxes=BOXES, masks=None, route="crop", exclusive=False, image=None, **config):
    extractor = FFAExtractor(ColourBackbone(), foreground, FFAConfig(**config))
    results = extractor.embed_objects(scene() if image is None else image, boxes, masks, route, exclusive)
    return extractor, results


@pytest.mark.parametrize("route", ["crop", "image"])
@pytest.mark.parametrize("kind", ["image-sized", "box-sized", "coarse"])
def test_each_object_gets_the_colour_under_its_mask(route, kind):
    masks = {
        "image-sized": full_masks(),
        "box-sized": [np.ones((16, 16), bool), np.ones((16, 24), bool)],
        "coarse": [np.ones((2, 2), bool), np.ones((1, 1), bool)],
    }[kind]

    _, results = embed(masks=masks, route=route)

    assert np.allclose(colour_of(results[0]), (1, 0, 0), atol=0.03)
    assert np.allclose(colour_of(results[1]), (0, 1, 0), atol=0.03)
    assert not any(result.fallback for result in results)


def test_the_image_route_encodes_the_image_once_and_the_crop_route_every_object():
    image_route, _ = embed(masks=full_masks(), route="image")
    crop_route, _ = embed(masks=full_masks(), route="crop")

    assert image_route.backbone.calls == [1]
    assert crop_route.backbone.calls == [2]


def test_the_image_route_agrees_with_the_mask_of_a_whole_image():
    extractor, results = embed(masks=full_masks(), route="image")

    for mask, result in zip(full_masks(), results, strict=True):
        whole = extractor.embed([extractor.prepare(scene(), mask)])[0]
        assert np.allclose(result.vector, whole.vector, atol=1e-6)
        assert result.n_patches == whole.n_patches
        assert result.foreground_fraction == pytest.approx(whole.foreground_fraction)


def test_a_crop_shows_the_box_with_an_eighth_of_margin_in_a_letterbox():
    extractor = FFAExtractor(ColourBackbone())

    first, second = extractor.prepare_objects(scene(), BOXES, full_masks())

    assert first.geometry.image_hw == (20, 20)
    assert second.geometry.image_hw == (20, 30)
    assert second.geometry.content == (8, 0, 32, 48)
    assert first.group_key == second.group_key == (48, 48)


def test_a_crop_at_the_border_ends_with_the_image():
    extractor = FFAExtractor(ColourBackbone())

    (prepared,) = extractor.prepare_objects(scene(), np.array([[-10, 60, 30, 40]]))

    assert prepared.geometry.image_hw == (17, 24)


@pytest.mark.parametrize("foreground", [BrightPixels(), BrightTokens()])
@pytest.mark.parametrize("route", ["crop", "image"])
def test_without_masks_the_foreground_is_found_inside_the_box_only(foreground, route):
    image = scene()
    image[20:60, 30:50] = BLUE
    boxes = np.array([[0, 0, 32, 32], [52, 32, 40, 32.0]])

    _, results = embed(foreground, boxes, route=route, image=image)

    assert np.allclose(colour_of(results[0]), (1, 0, 0), atol=0.15)
    assert np.allclose(colour_of(results[1]), (0, 1, 0), atol=0.15)
    assert not any(result.fallback for result in results)


def test_on_the_image_route_a_pixel_foreground_looks_at_the_image_once():
    foreground = BrightPixels()

    embed(foreground, route="image")

    assert foreground.asked == [(72, 96)]


@pytest.mark.parametrize("foreground", [None, BrightPixels(), BrightTokens()])
@pytest.mark.parametrize("route", ["crop", "image"])
def test_where_nothing_is_found_the_inscribed_ellipse_stands_in_and_is_flagged(foreground, route):
    image = np.zeros((72, 96, 3), np.uint8)

    _, (result,) = embed(foreground, np.array([[24, 24, 32, 32]]), image=image, route=route)

    assert result.fallback
    area = np.pi / 4 * 32**2 / (40**2 if route == "crop" else 72 * 96)
    assert result.coverage.sum() / (12 * 12) == pytest.approx(area, rel=0.03)
    assert result.foreground_fraction == 0


@pytest.mark.parametrize("route", ["crop", "image"])
def test_an_empty_mask_falls_back_to_the_ellipse_too(route):
    _, results = embed(masks=[np.zeros((5, 5), bool), np.ones((5, 5), bool)], route=route)

    assert [result.fallback for result in results] == [True, False]


@pytest.mark.parametrize("route", ["crop", "image"])
def test_an_overlap_belongs_to_both_objects_unless_it_is_exclusive(route):
    image = np.zeros((48, 48, 3), np.uint8)
    image[:, :24], image[:, 24:] = RED, GREEN
    boxes = np.array([[0, 0, 48, 48], [24, 0, 24, 48]], float)
    left_and_right, right = np.ones((48, 48), bool), np.ones((48, 24), bool)
    left_and_right[:, 24:] = np.arange(48)[:, None] % 2 == 0

    shared, exclusive = (
        embed(None, boxes, [left_and_right, right], route, option, image, weights="soft")[1] for option in (False, True)
    )

    assert shared[0].coverage.sum() > exclusive[0].coverage.sum()
    assert np.allclose(colour_of(exclusive[0]), (1, 0, 0), atol=0.05)
    assert np.allclose(exclusive[1].vector, shared[1].vector, atol=1e-6)


def test_an_object_that_loses_all_patches_keeps_its_own_mask_and_is_flagged():
    boxes = np.array([[0, 0, 48, 48], [8, 8, 8, 8]], float)
    image = np.zeros((48, 48, 3), np.uint8)

    _, results = embed(None, boxes, [np.ones((48, 48), bool), np.ones((8, 8), bool)], "image", True, image)

    assert [result.fallback for result in results] == [False, True]
    assert results[1].n_patches == 4


def test_the_crop_route_can_cut_objects_out():
    image = scene()
    image[image.max(2) == 0] = BLUE

    _, (result, _) = embed(masks=full_masks(), encode="cutout", pooling="cls", image=image)

    assert np.allclose(colour_of(result), (1, 0, 0), atol=0.02)


@pytest.mark.parametrize("config", [{"encode": "cutout"}, {"pooling": "cls"}])
def test_the_image_route_refuses_what_needs_an_encoding_per_object(config):
    with pytest.raises(ConfigError, match=r"route='image'.*route='crop'"):
        embed(masks=full_masks(), route="image", **config)


@pytest.mark.parametrize(
    "box", [[np.nan, 0, 4, 4], [0, 0, np.inf, 4], [0, 0, 0, 4], [5, 5, -3, 4], [200, 0, 4, 4], [0, -9, 4, 4]]
)
def test_a_box_without_a_part_inside_the_image_is_named(box):
    with pytest.raises(ImageError, match=r"object 1: the box .* no part inside the 96×72 image"):
        embed(boxes=np.array([[0, 0, 5, 5], box], float))


def test_masks_and_boxes_must_go_together():
    with pytest.raises(ConfigError, match="2 boxes but 1 masks"):
        embed(masks=[None])
    with pytest.raises(ConfigError, match=r"route='tile'.*crop, image"):
        embed(route="tile")


@pytest.mark.parametrize("route", ["crop", "image"])
def test_an_image_without_objects_gives_no_vectors(route):
    extractor, results = embed(boxes=np.zeros((0, 4)), route=route)

    assert results == []
    assert extractor.backbone.calls == []


def test_objects_of_several_images_share_a_batch():
    extractor = FFAExtractor(ColourBackbone())
    images = [scene(), scene()[:, ::-1].copy()]
    flipped = BOXES.copy()
    flipped[:, 0] = 96 - BOXES[:, 0] - BOXES[:, 2]

    prepared = [
        one
        for image, boxes in zip(images, (BOXES, flipped), strict=True)
        for one in extractor.prepare_objects(image, boxes, [np.ones((2, 2))] * 2, route="image")
    ]
    results = extractor.embed(prepared)

    assert extractor.backbone.calls == [2]
    assert np.allclose(results[0].vector, results[2].vector, atol=1e-5)
    assert np.allclose(results[1].vector, results[3].vector, atol=1e-5)


@pytest.mark.parametrize("route", ["crop", "image"])
@pytest.mark.parametrize("box", [(89.0, 45.0, 80.0, 115.0), (95.9, 71.9, 50.0, 50.0), (-30.0, -30.0, 30.2, 30.2)])
def test_of_a_box_that_reaches_far_out_of_the_image_the_visible_part_counts(route, box):
    _, (result,) = embed(boxes=np.array([box]), route=route)

    assert result.fallback
    assert result.coverage.max() > 0


@given(
    boxes=st.lists(st.tuples(*[st.floats(-20, 90)] * 2, *[st.floats(0.01, 120)] * 2), min_size=1, max_size=4),
    route=st.sampled_from(["crop", "image"]),
    exclusive=st.booleans(),
    masked=st.booleans(),
)
def test_every_box_that_meets_the_image_gets_a_unit_vector(boxes, route, exclusive, masked):
    boxes = np.array([box for box in boxes if box[0] + box[2] > 0.01 and box[1] + box[3] > 0.01 and box[1] < 72])
    masks = [np.ones((3, 3), bool)] * len(boxes) if masked else None

    _, results = embed(BrightTokens(), boxes, masks, route, exclusive)

    assert len(results) == len(boxes)
    for result in results:
        assert np.linalg.norm(result.vector) == pytest.approx(1, abs=1e-5)
        assert result.n_patches >= 1


def unit(rows, n, seed):
    vectors = np.random.default_rng(seed).normal(size=(rows, n)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(n=st.integers(1, 4), m=st.integers(1, 4), seed=st.integers(0, 50))
def test_the_assignment_is_the_best_of_all_one_to_one_assignments(n, m, seed):
    a, b = unit(n, 5, seed), unit(m, 5, seed + 1000)

    score, assignment, matrix = match_objects(a, b)

    few, many = sorted((n, m))
    pairs = matrix if n <= m else matrix.T
    best = max(sum(pairs[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(many), few))
    assert sum(similarity for _, _, similarity in assignment) == pytest.approx(best, abs=1e-5)
    assert score == assignment[0][2] == max(similarity for _, _, similarity in assignment)
    assert len({i for i, _, _ in assignment}) == len({j for _, j, _ in assignment}) == few
    assert np.allclose(matrix, a @ b.T, atol=1e-6)


def test_a_permuted_copy_is_matched_to_itself():
    a = unit(5, 16, 0)
    order = [3, 1, 4, 0, 2]

    score, assignment, _ = match_objects(a, a[order])

    assert score == pytest.approx(1)
    assert {(i, j) for i, j, _ in assignment} == {(i, order.index(i)) for i in range(5)}


def test_an_image_without_objects_matches_nothing():
    score, assignment, matrix = match_objects(np.zeros((0, 8)), unit(3, 8, 0))

    assert np.isnan(score)
    assert assignment == []
    assert matrix.shape == (0, 3)


def test_vectors_of_two_models_are_refused():
    with pytest.raises(ConfigError, match="one model for both"):
        match_objects(unit(2, 8, 0), unit(2, 9, 0))
