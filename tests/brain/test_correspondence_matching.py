"""Keypoints found in other pictures: against one keypoint at a time, and what order, flips and padding do."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig
from fiftyone_selfsame.brain.correspondence.features import ImageFeatures
from fiftyone_selfsame.brain.correspondence.fusion import fuse, gather_layers, joint_components, unit_features
from fiftyone_selfsame.brain.correspondence.grids import picture_cells
from fiftyone_selfsame.brain.correspondence.matching import (
    KeypointQuery,
    MatchConfig,
    blend,
    match_keypoints,
    similarity_map,
)
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import plan_geometry
from hypothesis import given, settings
from hypothesis import strategies as st

PATCH = 8
NEAREST = MatchConfig(DecodeConfig("nearest"), round_trip=True)


def _picture(seed, image_hw=(80, 120), side=12, channels=6):
    geometry = plan_geometry(image_hw, side * PATCH, PATCH, "letterbox")
    tokens = torch.randn(side, side, channels, generator=torch.Generator().manual_seed(seed))
    return ImageFeatures(unit_features(tokens), geometry, picture_cells(geometry))


def _points(seed, image_hw=(80, 120), count=7):
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * (image_hw[1], image_hw[0])


def _slow(source, target, point):
    """The centre of the most similar cell, and the cell to which that leads back, in plain loops."""
    (top, left, height, width), (image_h, image_w) = source.geometry.content, source.geometry.image_hw
    start = int((point[1] * height / image_h + top) // PATCH), int((point[0] * width / image_w + left) // PATCH)
    found = _best(source.features[start], target)
    (top, left, height, width), (image_h, image_w) = target.geometry.content, target.geometry.image_hw
    x = ((found[1] + 0.5) * PATCH - left) * image_w / width
    y = ((found[0] + 0.5) * PATCH - top) * image_h / height
    return (x, y), start == _best(target.features[found], source)


def _best(descriptor, picture):
    best, cell = -np.inf, None
    for row in range(picture.valid.shape[0]):
        for column in range(picture.valid.shape[1]):
            similarity = float(descriptor @ picture.features[row, column])
            if picture.valid[row, column] and similarity > best:
                best, cell = similarity, (row, column)
    return cell


@settings(max_examples=15)
@given(seed=st.integers(0, 999), sizes=st.tuples(*[st.tuples(st.integers(30, 200), st.integers(30, 200))] * 2))
def test_each_keypoint_goes_where_a_plain_loop_finds_it(seed, sizes):
    source, target = _picture(seed, sizes[0]), _picture(seed + 1, sizes[1])
    points = _points(seed, sizes[0])

    (found,) = match_keypoints([KeypointQuery(source, target, points)], NEAREST)

    expected = [_slow(source, target, point) for point in points]
    np.testing.assert_allclose(found.points, [place for place, _ in expected], atol=1e-9)
    assert found.mutual.tolist() == [mutual for _, mutual in expected]


@given(seed=st.integers(0, 999), order=st.permutations(range(7)))
def test_the_order_of_keypoints_does_not_matter(seed, order):
    source, target, points = _picture(seed), _picture(seed + 1), _points(seed)

    plain, shuffled = match_keypoints(
        [KeypointQuery(source, target, points), KeypointQuery(source, target, points[list(order)])]
    )

    np.testing.assert_allclose(plain.points[list(order)], shuffled.points, atol=1e-4)


@settings(max_examples=25)
@given(seed=st.integers(0, 999), method=st.sampled_from(["nearest", "soft", "window", "gaussian"]))
def test_many_pairs_at_once_give_what_each_gives_alone(seed, method):
    config = MatchConfig(DecodeConfig(method), round_trip=True)
    pictures = [_picture(seed + k, hw) for k, hw in enumerate([(80, 120), (120, 80), (64, 64)])]
    pictures.append(_picture(seed, (50, 90), side=9))
    queries = [
        KeypointQuery(a, b, _points(seed + i, a.geometry.image_hw, 3 + i))
        for i, (a, b) in enumerate((a, b) for a in pictures for b in pictures)
    ]

    together = match_keypoints(queries, config)

    for query, one in zip(queries, together, strict=True):
        (alone,) = match_keypoints([query], config)
        np.testing.assert_allclose(one.points, alone.points, atol=1e-3)
        np.testing.assert_array_equal(one.cells, alone.cells)
        np.testing.assert_array_equal(one.mutual, alone.mutual)


def _mirrored(picture):
    assert picture.geometry.content[1] * 2 + picture.geometry.content[3] == picture.geometry.canvas_hw[1]
    return ImageFeatures(picture.features.flip(1).contiguous(), picture.geometry, picture.valid[:, ::-1].copy())


@given(seed=st.integers(0, 999), method=st.sampled_from(["nearest", "soft", "window", "gaussian"]))
def test_a_mirrored_target_gives_mirrored_matches(seed, method):
    source, target, points = _picture(seed), _picture(seed + 1), _points(seed)
    config = MatchConfig(DecodeConfig(method))

    plain, mirrored = match_keypoints(
        [KeypointQuery(source, target, points), KeypointQuery(source, _mirrored(target), points)], config
    )

    np.testing.assert_allclose(mirrored.points[:, 0], 120 - plain.points[:, 0], atol=1e-3)
    np.testing.assert_allclose(mirrored.points[:, 1], plain.points[:, 1], atol=1e-3)


def test_a_picture_finds_its_own_points_to_within_a_cell():
    picture, points = _picture(0), _points(1, count=50)

    (found,) = match_keypoints([KeypointQuery(picture, picture, points)], NEAREST)

    # A picture of 120 pixels on a canvas of 96: a cell is 10 pixels wide.
    assert np.abs(found.points - points).max() <= 5 + 1e-9
    np.testing.assert_allclose(found.similarity, 1, atol=1e-5)
    assert found.mutual.all()
    np.testing.assert_allclose(found.returned, found.points, atol=1e-9)


def test_padding_and_what_lies_outside_of_the_region_are_never_found():
    source, target = _picture(0), _picture(1, (40, 120))
    region = np.zeros((12, 12), bool)
    region[5:7, 2:4] = True
    whole, part = (KeypointQuery(source, target, _points(2, count=60), chosen) for chosen in (None, region))

    found, inside = match_keypoints([whole, part], NEAREST)

    assert (found.points >= 0).all()
    assert (found.points <= (120, 40)).all()
    assert region.ravel()[inside.cells].all()


def test_points_that_are_not_finite_are_passed_over():
    source, target, points = _picture(0), _picture(1), _points(2)
    hidden = points.copy()
    hidden[1], hidden[4, 0] = np.nan, np.inf

    plain, found = match_keypoints([KeypointQuery(source, target, one) for one in (points, hidden)], NEAREST)

    np.testing.assert_array_equal(np.isnan(found.points).all(1), [0, 1, 0, 0, 1, 0, 0])
    np.testing.assert_allclose(found.points[2], plain.points[2])
    assert found.cells[4] == found.source_cells[4] == -1
    assert np.isnan(found.similarity[1])
    assert not found.mutual[1]


def test_where_nothing_may_be_found_there_is_no_match():
    query = KeypointQuery(_picture(0), _picture(1), _points(2), np.zeros((12, 12), bool))

    (found,) = match_keypoints([query], NEAREST)

    assert np.isnan(found.points).all()
    assert (found.cells == -1).all()
    assert not found.mutual.any()


def test_pairs_without_points_and_no_pairs_at_all_are_no_error():
    (found,) = match_keypoints([KeypointQuery(_picture(0), _picture(1), np.zeros((0, 2)))], NEAREST)

    assert found.points.shape == (0, 2)
    assert match_keypoints([]) == []


def test_distances_as_similarity_agree_with_plain_arithmetic():
    descriptors, target = torch.randn(4, 5, dtype=torch.float64), torch.randn(3, 6, 5, dtype=torch.float64)

    found = similarity_map(descriptors, target, "euclidean")

    for index, row, column in np.ndindex(4, 3, 6):
        difference = descriptors[index] - target[row, column] + 1e-6
        assert found[index, row, column].item() == pytest.approx(-difference.norm().item(), abs=1e-9)


def test_distances_and_cosines_choose_the_same_cells_of_unit_features():
    query = KeypointQuery(_picture(0), _picture(1), _points(2, count=40))

    results = [
        match_keypoints([query], MatchConfig(DecodeConfig("nearest"), kind))[0] for kind in ("cosine", "euclidean")
    ]

    np.testing.assert_array_equal(results[0].cells, results[1].cells)


def test_a_blend_weighs_both_similarities():
    assert blend(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.2).tolist() == pytest.approx([0.8, 0.2])


def test_pictures_described_in_different_ways_are_refused():
    with pytest.raises(ConfigError, match="6 and 4 channels"):
        match_keypoints([KeypointQuery(_picture(0), _picture(1, channels=4), _points(2))])
    with pytest.raises(ConfigError, match="target_region"):
        match_keypoints([KeypointQuery(_picture(0), _picture(1), _points(2), np.ones((3, 3), bool))])
    with pytest.raises(ConfigError, match="euclidean"):
        MatchConfig(similarity="angle")


def test_fused_features_have_the_mean_cosine_of_both_families():
    first, second = torch.randn(2, 5), torch.randn(2, 7)

    fused = fuse(first, second)

    cosines = [torch.cosine_similarity(one[0], one[1], dim=0) for one in (first, second)]
    assert (fused[0] @ fused[1]).item() == pytest.approx(float(sum(cosines)) / 2, abs=1e-6)
    assert fused.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-6)
    assert fuse(first, second, renormalise=False).norm(dim=1).tolist() == pytest.approx([2**0.5] * 2, abs=1e-6)


def test_layers_are_enlarged_to_the_finest_grid_and_joined_in_order():
    fine, coarse = torch.randn(4, 6, 2), torch.ones(2, 3, 1) * 5

    joined = gather_layers([coarse, fine])

    assert torch.equal(joined[..., 1:], fine)
    assert torch.allclose(joined[..., 0], torch.full((4, 6), 5.0))
    with pytest.raises(ConfigError, match="at least one map"):
        gather_layers([])


@pytest.mark.parametrize("channels", [5, 200])
def test_enough_joint_components_keep_all_distances_and_few_keep_the_largest(channels):
    first, second = (
        torch.randn(6, 7, channels, generator=torch.Generator().manual_seed(k), dtype=torch.float64) for k in (0, 1)
    )

    whole, other = joint_components([first], [second], dims=channels)
    few, _ = joint_components([first], [second], dims=2)

    flat, found = (torch.cat([a.flatten(0, 1), b.flatten(0, 1)]) for a, b in ((first, second), (whole, other)))
    np.testing.assert_allclose(torch.cdist(found, found), torch.cdist(flat, flat), atol=1e-5)
    values = torch.linalg.svdvals(flat - flat.mean(0))
    assert few.shape == (6, 7, 2)
    np.testing.assert_allclose(found.norm(dim=0)[:2], values[:2], rtol=1e-4)
    np.testing.assert_allclose(few.abs(), whole[..., :2].abs(), atol=1e-9)


def test_joint_components_of_layers_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="the same layers"):
        joint_components([torch.zeros(2, 2, 3)], [torch.zeros(2, 2, 4)])
    with pytest.raises(ConfigError, match="at least 1"):
        joint_components([torch.zeros(2, 2, 3)], [torch.zeros(2, 2, 3)], dims=0)
