"""What is gathered about matches for their label-free scores, and what these say of planted errors."""

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig
from fiftyone_selfsame.brain.correspondence.evidence import EvidenceQuery, match_with_evidence
from fiftyone_selfsame.brain.correspondence.features import ImageFeatures
from fiftyone_selfsame.brain.correspondence.fusion import unit_features
from fiftyone_selfsame.brain.correspondence.grids import picture_cells
from fiftyone_selfsame.brain.correspondence.instance_distance import instance_distance
from fiftyone_selfsame.brain.correspondence.keypoint_groups import groups_from_couples
from fiftyone_selfsame.brain.correspondence.matching import KeypointQuery, MatchConfig, match_keypoints
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.geometry import plan_geometry, points_to_canvas
from fiftyone_selfsame.brain.metrics.label_free import MATCH_SCORES, PAIR_SCORES, label_free_scores

PATCH, SIDE = 8, 12
GROUPS = groups_from_couples(["left ear", "right ear", "nose"], [("left ear", "right ear")])
POINTS = np.array([[30.0, 20], [90, 25], [60, 60]])


def _picture(seed, image_hw=(80, 120), side=SIDE, region=None):
    geometry = plan_geometry(image_hw, side * PATCH, PATCH, "letterbox")
    tokens = torch.randn(side, side, 6, generator=torch.Generator().manual_seed(seed))
    return ImageFeatures(unit_features(tokens), geometry, picture_cells(geometry), region)


def _region():
    region = np.zeros((SIDE, SIDE), bool)
    region[3:8, 2:11] = True
    return region


def test_evidence_is_that_of_every_pair_in_order_on_the_canvas():
    pictures = [_picture(0), _picture(1, (120, 80), region=_region()), _picture(2)]
    other = np.array([[10.0, 10], [np.nan, np.nan]])
    queries = [
        EvidenceQuery(pictures[0], pictures[1], POINTS, pictures[2], GROUPS, "cat", target_box=60),
        EvidenceQuery(pictures[1], pictures[2], other, category="dog"),
    ]

    matches, evidence = match_with_evidence(queries, MatchConfig(DecodeConfig("nearest")))

    plain = match_keypoints(
        [KeypointQuery(one.source, one.target, one.points) for one in queries],
        MatchConfig(DecodeConfig("nearest"), round_trip=True),
    )
    for found, expected in zip(matches, plain, strict=True):
        np.testing.assert_array_equal(found.points, expected.points)
    first, second = slice(0, 3), slice(3, 5)
    assert evidence.pairs.tolist() == [0, 0, 0, 1, 1]
    assert list(evidence.categories) == ["cat", "dog"]
    np.testing.assert_allclose(evidence.points[first], points_to_canvas(POINTS, pictures[0].geometry))
    np.testing.assert_allclose(evidence.matches[first], points_to_canvas(plain[0].points, pictures[1].geometry))
    np.testing.assert_allclose(evidence.returned[first], points_to_canvas(plain[0].returned, pictures[0].geometry))
    assert evidence.similarity.shape == (5, SIDE, SIDE)
    for row in (0, 1, 2, 3):
        query, one = (queries[0], plain[0]) if row < 3 else (queries[1], plain[1])
        index = row if row < 3 else 0
        descriptor = query.source.features.flatten(0, 1)[one.source_cells[index]]
        product = np.where(query.target.valid, query.target.features @ descriptor, -np.inf)
        np.testing.assert_allclose(evidence.similarity[row], product, atol=1e-5)
    assert np.isneginf(evidence.similarity[4]).all()
    assert np.isnan(evidence.matches[second][1]).all()
    assert evidence.partners.tolist() == [1, 0, -1, -1, -1]
    assert evidence.paired.tolist() == [True, True, False, False, False]
    assert evidence.groups.tolist()[0] == evidence.groups.tolist()[1] != evidence.groups.tolist()[2]
    # 120 pixels of the picture are 96 of the canvas; the region of the second picture is 9 cells wide.
    assert evidence.target_box.tolist() == [pytest.approx(48), pytest.approx(96)]
    assert evidence.source_box.tolist() == [pytest.approx(96), pytest.approx(72)]


def test_mirrored_targets_are_matched_and_compared_as_wholes():
    source, target = _picture(0, region=_region()), _picture(1, region=_region())
    mirrored = _picture(2, region=_region()[:, ::-1])
    queries = [EvidenceQuery(source, target, POINTS, mirrored), EvidenceQuery(source, target, POINTS)]

    _, evidence = match_with_evidence(queries)

    (expected,) = match_keypoints([KeypointQuery(source, mirrored, POINTS)])
    np.testing.assert_allclose(evidence.mirrored_matches[:3], points_to_canvas(expected.points, mirrored.geometry))
    assert np.isnan(evidence.mirrored_matches[3:]).all()
    distances = [
        instance_distance(source.features, one.features, source.region, one.region) for one in (target, mirrored)
    ]
    np.testing.assert_allclose([evidence.imd_identity[0], evidence.imd_mirrored[0]], distances)
    assert np.isnan([evidence.imd_identity[1], evidence.imd_mirrored[1]]).all()
    _, spared = match_with_evidence(queries[:1], instance_distances=False)
    assert np.isnan(spared.imd_identity).all()


def test_a_hidden_keypoint_lends_no_partner():
    points = POINTS.copy()
    points[1] = np.nan

    _, evidence = match_with_evidence([EvidenceQuery(_picture(0), _picture(1), points, groups=GROUPS)])

    assert evidence.partners.tolist() == [-1, 0, -1]
    assert evidence.paired.tolist() == [True, True, False]


def test_nameless_points_have_the_reflection_in_the_object_for_a_partner():
    region = np.zeros((SIDE, SIDE), bool)
    region[2:10, 4:8] = True
    target = _picture(1, (96, 96), region=region)

    matches, evidence = match_with_evidence([EvidenceQuery(_picture(0), target, POINTS)])

    found = matches[0].points
    # The axis is upright and in the middle of the canvas.
    np.testing.assert_allclose(evidence.reflected, np.stack([96 - found[:, 0], found[:, 1]], 1), atol=1e-6)
    _, named = match_with_evidence([EvidenceQuery(_picture(0), target, POINTS, groups=GROUPS)])
    assert named.reflected is None


def test_scores_of_a_swap_stand_out():
    # Both ears look alike but for a trace of their side, and the target's traces are exchanged.
    features = torch.zeros(SIDE, SIDE, 4)
    features[..., 3] = 1
    source, target = features.clone(), features.clone()
    for place, trace in (((4, 2), 0.1), ((4, 9), -0.1)):
        source[place] = torch.tensor([1.0, 0, trace, 0])
        target[place] = torch.tensor([1.0, 0, -trace, 0])
    source[8, 6] = target[8, 6] = torch.tensor([0.0, 1, 0, 0])
    geometry = plan_geometry((96, 96), SIDE * PATCH, PATCH, "letterbox")
    a, b = (ImageFeatures(unit_features(one), geometry, picture_cells(geometry)) for one in (source, target))
    mirror = ImageFeatures(b.features.flip(1).contiguous(), geometry, b.valid)
    points = np.array([[20.0, 36], [76, 36], [52, 68]])

    matches, evidence = match_with_evidence([EvidenceQuery(a, b, points, mirror, GROUPS)])
    scores = label_free_scores(evidence)

    assert matches[0].points.round().tolist() == [[76, 36], [20, 36], [52, 68]]
    ears, nose = scores.matches["mirror_peak_ratio"][:2], scores.matches["peak_ratio"][2]
    assert (ears > 0.95).all()
    assert nose < 0.1
    assert (scores.matches["peak_ratio"][:2] > 0.95).all()
    assert np.isnan(scores.matches["mirror_peak_ratio"][2])
    # The round trip does not notice.
    np.testing.assert_allclose(scores.matches["cycle_error"], 0, atol=1e-6)
    assert set(scores.matches) == set(MATCH_SCORES)
    assert set(scores.pairs) == set(PAIR_SCORES)


def test_grids_of_two_sizes_and_groups_of_other_keypoints_are_refused():
    with pytest.raises(ConfigError, match="one size"):
        match_with_evidence(
            [EvidenceQuery(_picture(0), _picture(k, side=side), POINTS) for k, side in ((1, 12), (2, 9))]
        )
    with pytest.raises(ConfigError, match="3 keypoints have groups"):
        match_with_evidence([EvidenceQuery(_picture(0), _picture(1), POINTS[:2], groups=GROUPS)])


def test_no_pairs_and_pairs_without_points_have_no_evidence():
    assert match_with_evidence([])[0] == []
    _, evidence = match_with_evidence([EvidenceQuery(_picture(0), _picture(1), np.zeros((0, 2)))])

    assert evidence.similarity.shape == (0, SIDE, SIDE)
    assert len(label_free_scores(evidence).similarity) == 0
