"""Dense fields and matches without keypoints: against loops over all cells, and how far chosen points spread."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence import dense
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig
from fiftyone_selfsame.brain.correspondence.dense import dense_field, nearest_both_ways
from fiftyone_selfsame.brain.correspondence.features import ImageFeatures
from fiftyone_selfsame.brain.correspondence.fusion import unit_features
from fiftyone_selfsame.brain.correspondence.grids import picture_cells
from fiftyone_selfsame.brain.correspondence.keypoint_free import keypoint_free_matches, spread_choice
from fiftyone_selfsame.brain.correspondence.matching import KeypointQuery, MatchConfig, match_keypoints
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import plan_geometry
from hypothesis import given
from hypothesis import strategies as st

PATCH = 8


def _picture(seed, side=10, channels=5, region=None):
    geometry = plan_geometry((80, 80), side * PATCH, PATCH, "letterbox")
    tokens = torch.randn(side, side, channels, generator=torch.Generator().manual_seed(seed))
    return ImageFeatures(unit_features(tokens), geometry, picture_cells(geometry), region)


def _region(seed, share=0.3, side=10):
    return np.random.default_rng(seed).uniform(size=(side, side)) < share


@given(seed=st.integers(0, 999), decoded=st.booleans())
def test_every_cell_goes_where_a_loop_finds_it_and_back(seed, decoded):
    source, target = _picture(seed, region=_region(seed)), _picture(seed + 1, region=_region(seed + 1))
    starts, ends = (np.flatnonzero(one.foreground()) for one in (source, target))
    a, b = (one.features.flatten(0, 1).numpy() for one in (source, target))

    field = dense_field(source, target, decoding=DecodeConfig("window", radius=1) if decoded else None)

    assert field.source_cells.tolist() == starts.tolist()
    for index, start in enumerate(starts):
        found = max(ends, key=lambda end: a[start] @ b[end])
        back = max(starts, key=lambda one: a[one] @ b[found])
        assert (field.target_cells[index], field.returned_cells[index]) == (found, back)
        assert field.similarity[index] == pytest.approx(a[start] @ b[found], abs=1e-5)
        assert field.round_trip[index] == pytest.approx(np.hypot(*np.subtract(divmod(back, 10), divmod(start, 10))))
    if decoded:
        region = target.foreground()
        query = KeypointQuery(source, target, field.source_points, region)
        (expected,) = match_keypoints([query], MatchConfig(DecodeConfig("window", radius=1)))
        np.testing.assert_allclose(field.target_points, expected.points, atol=1e-3)
    else:
        centres = np.stack([field.target_cells % 10, field.target_cells // 10], 1) * 8 + 4
        np.testing.assert_allclose(field.target_points, centres)


@given(seed=st.integers(0, 999), rows=st.integers(1, 30), columns=st.integers(1, 30), block=st.integers(1, 9))
def test_blocks_of_rows_change_nothing(seed, rows, columns, block):
    generator = torch.Generator().manual_seed(seed)
    # Coarse values make many rivals equal: the first one counts.
    first, second = (torch.randint(-2, 3, (n, 2), generator=generator).double() for n in (rows, columns))
    product = first @ second.T
    original, dense._BLOCK = dense._BLOCK, block

    try:
        there, back, peaks = nearest_both_ways(first, second)
    finally:
        dense._BLOCK = original

    assert there.tolist() == [int(row.argmax()) for row in product.numpy()]
    assert back.tolist() == [int(column.argmax()) for column in product.numpy().T]
    assert torch.equal(peaks, product.amax(1))


def test_an_empty_region_has_an_empty_field():
    source, target, empty = _picture(0), _picture(1), np.zeros((10, 10), bool)

    for regions in ((empty, None), (None, empty)):
        field = dense_field(source, target, *regions, decoding=DecodeConfig())
        assert field.source_points.shape == field.target_points.shape == (0, 2)
        assert field.consistent().shape == (0,)


def test_pictures_of_different_kinds_are_refused():
    with pytest.raises(ConfigError, match="5 and 4 channels"):
        dense_field(_picture(0), _picture(1, channels=4))
    with pytest.raises(ConfigError, match="both must agree"):
        dense_field(_picture(0), _picture(1), np.ones((3, 3), bool))


def test_the_empty_mask_of_a_picture_does_not_hide_it():
    field = dense_field(_picture(0, region=np.zeros((10, 10), bool)), _picture(1))

    assert len(field.source_cells) == 100


def test_matches_without_keypoints_are_mutual_and_follow_a_known_shift():
    target = _picture(0)
    source = ImageFeatures(target.features.roll(2, dims=1), target.geometry, target.valid)
    inside = np.zeros((10, 10), bool)
    inside[:, 2:] = True

    found = keypoint_free_matches(source, target, 12, source_region=inside, decoding=DecodeConfig("nearest"))

    assert len(found.source_points) == 12
    np.testing.assert_allclose(found.source_points - found.target_points, [[16, 0]] * 12)
    assert (found.round_trip == 0).all()
    assert (np.diff(found.similarity) <= 1e-6).all()


def test_matches_that_go_astray_are_not_those_of_their_neighbourhood():
    target = _picture(0, channels=16)
    features = target.features.roll(2, dims=1)
    noise = 0.15 * torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    # Two cells in opposite corners take each other's place.
    features[1, 3], features[8, 8] = (unit_features(features[a] + noise[a]) for a in ((8, 8), (1, 3)))
    source = ImageFeatures(features, target.geometry, target.valid)
    inside = np.zeros((10, 10), bool)
    inside[:, 2:] = True
    astray = dense_field(source, target, inside, decoding=DecodeConfig("nearest"))

    found = keypoint_free_matches(source, target, 12, source_region=inside, decoding=DecodeConfig("nearest"))

    moves = astray.source_points - astray.target_points
    assert (astray.consistent() & (moves != (16, 0)).any(1)).sum() == 2
    np.testing.assert_allclose(found.source_points - found.target_points, [[16, 0]] * 12)


def test_too_few_mutual_neighbours_are_filled_up_with_near_ones():
    # Three directions only: hardly any cell of the source is the nearest of its own nearest.
    target, source = _picture(0, channels=1), _picture(1, channels=1)
    strict = dense_field(source, target).consistent().sum()

    found = keypoint_free_matches(source, target, 10)

    assert strict < 10
    assert len(found.round_trip) > strict or (dense_field(source, target).round_trip <= 2).sum() == strict
    assert (found.round_trip <= 2).all()


def test_chosen_points_spread_over_all_parts_of_the_object():
    generator = np.random.default_rng(0)
    corners = np.array([[0, 0], [0, 9], [9, 0], [9, 9]], float)
    crowd = generator.normal(0, 0.2, (200, 2))
    positions = np.concatenate([crowd, *(corner + generator.normal(0, 0.2, (5, 2)) for corner in corners[1:])])
    strength = np.concatenate([np.full(200, 0.9), np.full(15, 0.1)]) + generator.uniform(0, 0.05, 215)

    chosen = spread_choice(positions, strength, 4)

    nearest = np.linalg.norm(positions[chosen][:, None] - corners, axis=2).argmin(1)
    assert sorted(nearest) == [0, 1, 2, 3]
    assert chosen[0] == strength.argmax()
    for number, corner in zip(chosen, nearest, strict=True):
        members = np.flatnonzero(np.linalg.norm(positions[:, None] - corners, axis=2).argmin(1) == corner)
        assert strength[number] == strength[members].max()


@given(seed=st.integers(0, 999), n=st.integers(0, 30), count=st.integers(1, 12), order=st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_the_points(seed, n, count, order):
    generator = np.random.default_rng(seed)
    positions, strength = generator.normal(size=(n, 4)), generator.uniform(size=n)
    shuffled = list(range(n))
    order.shuffle(shuffled)

    chosen = spread_choice(positions, strength, count)
    again = np.array(shuffled, int)[spread_choice(positions[shuffled], strength[shuffled], count)]

    assert chosen.tolist() == again.tolist()
    assert len(set(chosen.tolist())) == min(n, count) or n > count
    assert len(chosen) <= count


def test_points_that_coincide_are_chosen_once():
    assert spread_choice(np.zeros((5, 2)), np.arange(5.0), 3).tolist() == [4]


def test_no_points_are_asked_for_in_vain():
    with pytest.raises(ConfigError, match="at least 1"):
        keypoint_free_matches(_picture(0), _picture(1), 0)
