"""Distances between objects as wholes, poses by templates, and sources that are turned before they are matched."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence import instance_distance as distances_module
from fiftyone_selfsame.brain.correspondence.alignment import (
    AlignConfig,
    AlignedQuery,
    align,
    hand_over,
    match_aligned,
    mirrored_order,
    nearest_view,
    view_points,
)
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig
from fiftyone_selfsame.brain.correspondence.features import ImageFeatures
from fiftyone_selfsame.brain.correspondence.fusion import unit_features
from fiftyone_selfsame.brain.correspondence.grids import picture_cells
from fiftyone_selfsame.brain.correspondence.instance_distance import instance_distance, mutual_distance
from fiftyone_selfsame.brain.correspondence.matching import MatchConfig
from fiftyone_selfsame.brain.correspondence.templates import (
    POSES,
    four_way_pose,
    template_distances,
    two_way_pose,
)
from fiftyone_selfsame.brain.correspondence.views import ALL_VIEWS, IDENTITY, MIRROR, MIRROR_VIEWS, View
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import plan_geometry
from hypothesis import given
from hypothesis import strategies as st

PATCH, SIDE = 8, 8
NEAREST = MatchConfig(DecodeConfig("nearest"), round_trip=True)


def _features(seed, side=SIDE, channels=6):
    return unit_features(torch.randn(side, side, channels, generator=torch.Generator().manual_seed(seed)))


def _picture(features, region=None):
    side = len(features) * PATCH
    geometry = plan_geometry((side, side), side, PATCH, "letterbox")
    return ImageFeatures(features, geometry, picture_cells(geometry), region)


def _turned(view, features):
    """What an ideal encoder would make of the turned picture."""
    return torch.from_numpy(view.apply(features.numpy()))


def _views(features, views):
    return {view: _picture(_turned(view, features)) for view in views}


def _slow_distance(source, target, source_region, target_region):
    found = []
    for place in np.argwhere(source_region):
        others = [np.linalg.norm(source[tuple(place)] - target[tuple(q)]) for q in np.argwhere(target_region)]
        found.append(min(others))
    return found


@given(seed=st.integers(0, 999), scale=st.floats(0.2, 3.0), block=st.integers(1, 20))
def test_the_distance_agrees_with_loops_over_both_objects(seed, scale, block):
    source, target = _features(seed, 4) * scale, _features(seed + 1, 5)
    regions = [np.random.default_rng(seed + k).uniform(size=(n, n)) < 0.5 for k, n in ((0, 4), (1, 5))]
    original, distances_module._BLOCK = distances_module._BLOCK, block

    try:
        mean, total, loose = (
            instance_distance(source, target, regions[0], other, reduce=reduce)
            for other, reduce in ((regions[1], "mean"), (regions[1], "sum"), (None, "mean"))
        )
    finally:
        distances_module._BLOCK = original

    if not regions[0].any():
        assert np.isnan([mean, total, loose]).all()
        return
    everywhere = _slow_distance(source.numpy(), target.numpy(), regions[0], np.ones((5, 5), bool))
    assert loose == pytest.approx(np.mean(everywhere), abs=1e-5)
    if regions[1].any():
        slow = _slow_distance(source.numpy(), target.numpy(), *regions)
        assert (mean, total) == (pytest.approx(np.mean(slow), abs=1e-5), pytest.approx(np.sum(slow), abs=1e-4))


@given(seed=st.integers(0, 999))
def test_the_mutual_distance_agrees_with_loops_and_is_symmetric(seed):
    source, target = _features(seed, 4), _features(seed + 1, 5)
    a, b = (one.flatten(0, 1).numpy() for one in (source, target))
    table = np.linalg.norm(a[:, None] - b[None], axis=2)
    mutual = [table[i, j] for i, j in enumerate(table.argmin(1)) if table[:, j].argmin() == i]

    assert mutual_distance(source, target) == pytest.approx(np.mean(mutual), abs=1e-5)
    assert mutual_distance(target, source) == pytest.approx(np.mean(mutual), abs=1e-5)


@given(seed=st.integers(0, 999), view=st.sampled_from(ALL_VIEWS))
def test_distances_do_not_depend_on_how_both_pictures_are_turned_together(seed, view):
    source, target = _features(seed), _features(seed + 1)

    for distance in (instance_distance, mutual_distance):
        plain = distance(source, target)
        assert distance(_turned(view, source), _turned(view, target)) == pytest.approx(plain, abs=1e-5)


def test_an_unknown_sum_and_a_wrong_region_are_refused():
    with pytest.raises(ConfigError, match="mean, sum"):
        instance_distance(_features(0), _features(1), reduce="max")
    with pytest.raises(ConfigError, match="both must agree"):
        instance_distance(_features(0), _features(1), np.ones((3, 3), bool))


# An ideal encoder's features move with the picture, so that a set of tokens, without places, is the same in each view.
# What tells views apart is that features of a real encoder know their place: here, that is two more channels.
def _with_sides(features, strength=1.0):
    height, width, _ = features.shape
    across = torch.linspace(-1, 1, width).expand(height, width)
    down = torch.linspace(-0.5, 0.5, height)[:, None].expand(height, width)
    return unit_features(torch.cat([features, strength * torch.stack([across, down], 2)], 2))


def _sided_views(features, views):
    return {view: _picture(_with_sides(_turned(view, features))) for view in views}


@pytest.mark.parametrize("criterion", ["imd", "mutual"])
@pytest.mark.parametrize("facing", MIRROR_VIEWS)
def test_the_view_that_faces_as_the_target_does_is_chosen(criterion, facing):
    source = _features(3)
    target = _picture(_with_sides(_turned(facing, source)))

    found = align(_sided_views(source, MIRROR_VIEWS), target, AlignConfig(criterion))

    assert found.view == facing
    assert found.distances[facing] < 1e-3 < max(found.distances.values())


def test_the_background_decides_only_without_masks():
    source, region = _features(0, channels=4), np.zeros((SIDE, SIDE), bool)
    region[3:5, 2:6] = True
    # The object is turned, the background, which outweighs it, is not.
    scene = torch.where(torch.from_numpy(region)[..., None], _turned(MIRROR, source), source)
    target = _picture(_with_sides(scene), region)
    views = {view: _picture(_with_sides(_turned(view, source)), view.apply(region)) for view in MIRROR_VIEWS}

    assert align(views, target).view == MIRROR
    assert align(views, target, AlignConfig("mutual")).view == IDENTITY


def test_equal_and_missing_distances_leave_the_picture_as_it_is():
    assert nearest_view({MIRROR: 0.5, IDENTITY: 0.5}) == IDENTITY
    assert nearest_view({IDENTITY: np.nan, MIRROR: 0.1}) == IDENTITY
    assert nearest_view({IDENTITY: 0.3, MIRROR: np.nan, View(False, 1): 0.2}) == View(False, 1)


def test_align_without_the_untouched_picture_is_refused():
    with pytest.raises(ConfigError, match="untouched"):
        align({MIRROR: _picture(_features(0))}, _picture(_features(1)))


@given(n=st.integers(1, 12), seed=st.integers(0, 999))
def test_couples_change_places_only_together(n, seed):
    generator = np.random.default_rng(seed)
    partners, visible = np.arange(n), generator.uniform(size=n) < 0.6
    for a, b in generator.permutation(n)[: n // 2 * 2].reshape(-1, 2)[: n // 3]:
        partners[a], partners[b] = b, a

    order = mirrored_order(partners, visible)

    assert (order[order] == np.arange(n)).all()
    for slot, other in enumerate(order):
        assert other == (partners[slot] if visible[slot] and visible[partners[slot]] else slot)
    points = generator.uniform(0, 60, (n, 2))
    mirrored = view_points(points, MIRROR, (60, 60), partners, visible)
    np.testing.assert_allclose(view_points(mirrored, MIRROR, (60, 60), partners, visible), points)


@pytest.mark.parametrize("partners", [[1, 2, 0], [0, 5], [[0, 1]], [-1]])
def test_partners_that_are_no_couples_are_refused(partners):
    with pytest.raises(ConfigError, match="both directions"):
        mirrored_order(np.array(partners))


def test_only_mirroring_takes_partners_into_account():
    partners, visible = np.array([1, 0, 2, 4, 3]), np.array([True, True, True, True, False])

    assert hand_over(MIRROR, partners, visible).tolist() == [True, True, True, False, False]
    assert hand_over(View(False, 1), partners, visible).tolist() == visible.tolist()
    assert hand_over(IDENTITY, partners, visible).tolist() == [False] * 5


def _face(facing):
    """A face seen from the front: left and right ears look alike, and the side of the picture is all that differs."""
    features = torch.zeros(SIDE, SIDE, 3)
    features[..., 2] = 1
    for column in (1, 6):
        features[2, column] = torch.tensor([1.0, 0.0, 0.0])
    features[5, 4 if facing == IDENTITY else 3] = torch.tensor([0.0, 1.0, 0.0])
    return _with_sides(features, 0.6)


def test_an_aligned_match_puts_left_and_right_where_they_belong():
    # Source: left ear in column 1, nose in column 4. The target faces the other way: its left ear is in column 6.
    source, target = _picture(_face(IDENTITY)), _picture(_face(MIRROR))
    views = {IDENTITY: source, MIRROR: _picture(_face(MIRROR))}
    points = np.array([[12.0, 20], [52, 20], [36, 44]])
    query = AlignedQuery(views, target, points, np.array([1, 0, 2]), np.array([True, True, True]))

    (found,) = match_aligned([query], NEAREST)

    assert found.alignment.view == MIRROR
    assert found.plain.points[:2].tolist() == [[12, 20], [52, 20]]
    # Row i asks for the mirrored place of its partner: the mirrored right ear looks like a left one.
    assert found.matches.points.tolist() == [[12, 20], [52, 20], [28, 44]]
    assert found.handed_over.all()
    assert found.matches.mutual.all()


def test_source_visibility_is_the_default_and_mutual_visibility_a_switch():
    views = {IDENTITY: _picture(_face(IDENTITY)), MIRROR: _picture(_face(MIRROR))}
    points, seen = np.array([[12.0, 20], [52, 20], [36, 44]]), np.array([True, True, True])
    hidden = np.array([True, False, True])
    query = AlignedQuery(views, views[MIRROR], points, np.array([1, 0, 2]), seen, hidden)

    (by_source,) = match_aligned([query], NEAREST)
    (by_both,) = match_aligned([query], NEAREST, AlignConfig(visibility="mutual"))

    assert by_source.handed_over.tolist() == [True, True, True]
    assert by_both.handed_over.tolist() == [False, False, True]
    np.testing.assert_array_equal(by_both.matches.points[:2], by_both.plain.points[:2])
    with pytest.raises(ConfigError, match="target_visible"):
        match_aligned(
            [AlignedQuery(views, views[MIRROR], points, np.array([1, 0, 2]), seen)],
            NEAREST,
            AlignConfig(visibility="mutual"),
        )


@given(seed=st.integers(0, 999), facing=st.sampled_from(ALL_VIEWS))
def test_keypoints_of_a_turned_target_are_found_through_the_right_view(seed, facing):
    source = _features(seed, channels=12)
    # Only the right view's sides agree with the target's; the pull is weak enough to leave the matches alone.
    target, views = (
        _picture(_with_sides(_turned(facing, source), 0.3)),
        {view: _picture(_with_sides(_turned(view, source), 0.3)) for view in ALL_VIEWS},
    )
    cells = np.random.default_rng(seed).choice(SIDE * SIDE, 6, replace=False)
    points = np.stack([cells % SIDE, cells // SIDE], 1) * PATCH + PATCH / 2.0
    query = AlignedQuery(views, target, points, np.arange(6), np.ones(6, bool))

    (found,) = match_aligned([query], NEAREST)

    assert found.alignment.view == facing
    np.testing.assert_allclose(found.matches.points, facing.points(points, (64, 64)))
    np.testing.assert_allclose(found.matches.returned, points)


def test_aligned_pairs_together_give_what_each_gives_alone():
    queries = []
    for seed in range(4):
        source = _features(seed)
        facing = MIRROR_VIEWS[seed % 2]
        points = np.random.default_rng(seed).uniform(0, 64, (3 + seed, 2))
        partners = np.arange(3 + seed)
        partners[:2] = 1, 0
        views = _sided_views(source, MIRROR_VIEWS)
        queries.append(
            AlignedQuery(
                views, _picture(_with_sides(_turned(facing, source))), points, partners, np.ones(3 + seed, bool)
            )
        )

    together = match_aligned(queries, NEAREST)

    assert [one.alignment.view for one in together] == [IDENTITY, MIRROR, IDENTITY, MIRROR]
    for query, one in zip(queries, together, strict=True):
        (alone,) = match_aligned([query], NEAREST)
        np.testing.assert_allclose(one.matches.points, alone.matches.points)
        np.testing.assert_allclose(one.plain.points, alone.plain.points)


def test_keypoints_without_partners_or_visibility_are_refused():
    views = {IDENTITY: _picture(_face(IDENTITY))}
    with pytest.raises(ConfigError, match="3 points, 2 partners"):
        match_aligned([AlignedQuery(views, views[IDENTITY], np.ones((3, 2)), np.arange(2), np.ones(3, bool))])


@pytest.mark.parametrize("option", ["criterion", "imd_masks", "imd_reduce", "visibility"])
def test_unknown_options_are_refused_by_name(option):
    with pytest.raises(ConfigError, match=f"{option}='best'"):
        AlignConfig(**{option: "best"})


def test_poses_are_voted_for_by_the_sets():
    nearest = np.eye(4)[[1, 3, 3]] * -1.0

    assert POSES[four_way_pose(nearest)] == "right"
    # One vote each: the first pose in the fixed order counts.
    assert POSES[four_way_pose(np.eye(4)[[3, 2, 1]] * -1.0)] == "front"
    front, right = two_way_pose(nearest)
    assert (bool(front), bool(right)) == (False, True)
    assert four_way_pose(np.stack([nearest, nearest])).tolist() == [3, 3]
    with pytest.raises(ConfigError, match="give \\(sets, 4\\)"):
        four_way_pose(np.zeros((3, 5)))


def test_a_picture_is_nearest_to_the_template_it_looks_like():
    templates = [[_picture(_features(10 * number + pose)) for pose in range(4)] for number in range(3)]
    region = np.zeros((SIDE, SIDE), bool)
    region[2:6, 2:6] = True
    noise = 0.2 * torch.randn(SIDE, SIDE, 6, generator=torch.Generator().manual_seed(5))
    picture = _picture(unit_features(templates[1][2].features + noise), region)

    distances = template_distances(picture, templates)

    assert distances.shape == (3, 4)
    assert distances.argmin() == 6
    assert distances[1, 2] == pytest.approx(
        instance_distance(picture.features, templates[1][2].features, region), abs=1e-6
    )
    with pytest.raises(ConfigError, match="one template per pose"):
        template_distances(picture, [templates[0], templates[1][:2]])
