"""Evidence of matches from turned sources: as if the source had been turned beforehand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.aligned_evidence import (
    JudgedQuery,
    chosen_views,
    match_aligned_with_evidence,
)
from fiftyone_selfsame.brain.correspondence.alignment import AlignedQuery, Alignment
from fiftyone_selfsame.brain.correspondence.decoding import DecodeConfig
from fiftyone_selfsame.brain.correspondence.evidence import EvidenceQuery, match_with_evidence
from fiftyone_selfsame.brain.correspondence.features import ImageFeatures
from fiftyone_selfsame.brain.correspondence.fusion import unit_features
from fiftyone_selfsame.brain.correspondence.grids import picture_cells
from fiftyone_selfsame.brain.correspondence.keypoint_groups import groups_from_couples
from fiftyone_selfsame.brain.correspondence.matching import MatchConfig
from fiftyone_selfsame.brain.correspondence.views import IDENTITY, MIRROR, View
from fiftyone_selfsame.brain.geometry import plan_geometry
from fiftyone_selfsame.brain.metrics.label_free import MATCH_SCORES, label_free_scores

PATCH, SIDE = 8, 10
NEAREST = MatchConfig(DecodeConfig("nearest"))
GROUPS = groups_from_couples(["left", "right", "nose"], [("left", "right")])
POINTS = np.array([[12.0, 20.0], [60.0, 20.0], [36.0, 60.0]])


def _random(seed):
    return unit_features(torch.randn(SIDE, SIDE, 16, generator=torch.Generator().manual_seed(seed)))


def _picture(features):
    geometry = plan_geometry((SIDE * PATCH, SIDE * PATCH), SIDE * PATCH, PATCH, "letterbox")
    return ImageFeatures(features, geometry, picture_cells(geometry))


def _turned(view, features):
    """What an ideal encoder would make of the turned picture."""
    return torch.from_numpy(view.apply(features.numpy()))


def _chosen(view):
    return Alignment(view, {})


def _pair(view, seed=0):
    """A source, and a target that shows it turned and a little changed."""
    source = _random(seed)
    return source, unit_features(_turned(view, source) + 0.05 * _random(seed + 100))


def _query(source, target, views, groups=GROUPS):
    visible = np.ones(len(POINTS), bool)
    described = {view: _picture(_turned(view, source)) for view in views}
    aligned = AlignedQuery(described, _picture(target), POINTS, np.array([1, 0, 2]), visible, visible)
    return JudgedQuery(aligned, _picture(_turned(MIRROR, target)), groups)


def test_scores_are_those_of_a_source_that_was_mirrored_beforehand():
    source, target = _pair(MIRROR)
    query = _query(source, target, (IDENTITY, MIRROR))
    outcomes, evidence = match_aligned_with_evidence([query], NEAREST, alignments=[_chosen(MIRROR)])
    places = MIRROR.points(POINTS, (SIDE * PATCH, SIDE * PATCH))[[1, 0, 2]]
    beforehand = EvidenceQuery(
        _picture(_turned(MIRROR, source)), _picture(target), places, _picture(_turned(MIRROR, target)), GROUPS
    )
    matches, expected = match_with_evidence([beforehand], NEAREST)
    assert outcomes[0].handed_over.all()
    np.testing.assert_allclose(outcomes[0].matches.points, matches[0].points)
    ours, theirs = label_free_scores(evidence).matches, label_free_scores(expected).matches
    for name in MATCH_SCORES:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-6, err_msg=name)


def test_keypoints_whose_partner_is_hidden_have_the_evidence_of_the_untouched_source():
    source, target = _pair(MIRROR, 1)
    query = _query(source, target, (IDENTITY, MIRROR))
    visible = np.array([True, False, True])
    query = replace(query, aligned=replace(query.aligned, visible=visible))
    outcomes, evidence = match_aligned_with_evidence([query], NEAREST, alignments=[_chosen(MIRROR)])
    assert outcomes[0].handed_over.tolist() == [False, False, True]
    plain = match_aligned_with_evidence([query], NEAREST, alignments=[_chosen(IDENTITY)])[1]
    turned = match_aligned_with_evidence(
        [_query(source, target, (IDENTITY, MIRROR))], NEAREST, alignments=[_chosen(MIRROR)]
    )[1]
    for name in ("similarity", "matches", "mirrored_matches", "returned"):
        ours = getattr(evidence, name)
        np.testing.assert_allclose(ours[:2], getattr(plain, name)[:2], atol=1e-6, err_msg=name)
        np.testing.assert_allclose(ours[2], getattr(turned, name)[2], atol=1e-6, err_msg=name)
    assert np.isnan(evidence.matches[1]).all()


def test_a_way_back_through_a_turned_picture_is_as_long_as_it_is_there():
    turn = View(quarter_turns=1)
    source, target = _pair(turn, 3)
    query = _query(source, target, (IDENTITY, turn))
    outcomes, evidence = match_aligned_with_evidence([query], NEAREST, alignments=[_chosen(turn)])
    found = np.linalg.norm(evidence.points - evidence.returned, axis=1)
    expected = np.linalg.norm(POINTS - outcomes[0].matches.returned, axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found <= PATCH).all()


def test_pairs_of_a_block_do_not_influence_each_other():
    queries = [
        _query(*_pair(IDENTITY, 5), (IDENTITY, MIRROR)),
        _query(*_pair(MIRROR, 6), (IDENTITY, MIRROR)),
        _query(*_pair(MIRROR, 7), (IDENTITY, MIRROR)),
    ]
    chosen = [_chosen(IDENTITY), _chosen(MIRROR), _chosen(MIRROR)]
    together = match_aligned_with_evidence(queries, NEAREST, alignments=chosen)[1]
    for number, query in enumerate(queries):
        alone = match_aligned_with_evidence([query], NEAREST, alignments=[chosen[number]])[1]
        rows = together.pairs == number
        for name in ("similarity", "matches", "returned", "mirrored_matches", "points"):
            np.testing.assert_allclose(getattr(together, name)[rows], getattr(alone, name), atol=1e-6, err_msg=name)


def test_the_nearest_view_is_chosen_and_of_a_single_one_nothing_is_compared():
    source, other = _picture(_random(8)), _picture(_random(9))
    (found,) = chosen_views([({IDENTITY: source}, other)])
    assert found.view == IDENTITY
    assert np.isnan(found.distances[IDENTITY])
    (found,) = chosen_views([({IDENTITY: source, MIRROR: other}, other)])
    assert found.view == MIRROR
    assert found.distances[MIRROR] == pytest.approx(0, abs=1e-5)
