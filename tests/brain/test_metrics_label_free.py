"""All label-free scores at once: what each is made of, and that what cannot be scored is None and never 0."""

from dataclasses import replace

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.metrics import label_free_pairs, label_free_peaks, label_free_points, match_filters
from fiftyone_selfsame.brain.metrics.label_free import MATCH_SCORES, PAIR_SCORES, MatchEvidence, label_free_scores

CELL, SIDE = 10, 10


def _evidence():
    """Two pairs: left and right ear (a group), nose and tail; and the ears of another, of which one was not found."""
    generator = np.random.default_rng(5)
    matches = np.array([[25.0, 15], [75, 15], [45, 45], [95, 85], [15, 15], [np.nan, np.nan]])
    return MatchEvidence(
        similarity=generator.uniform(0.1, 0.9, (6, SIDE, SIDE)),
        cell=CELL,
        points=matches[[0, 1, 2, 3, 4, 4]] + [3, -2],
        matches=matches,
        pairs=np.array([0, 0, 0, 0, 1, 1]),
        categories=["cat", "cat"],
        target_box=np.array([80.0, 60]),
        source_box=np.array([90.0, 50]),
        partners=np.array([1, 0, -1, -1, 5, 4]),
        paired=np.array([True, True, False, False, True, True]),
        groups=np.array([0, 0, 1, 2, 0, 0]),
        returned=matches[[0, 1, 2, 3, 4, 4]] + 10,
        mirrored_matches=generator.uniform(0, 100, (6, 2)),
        canvas_width=100.0,
        sphere_source=generator.normal(size=(6, 3)),
        sphere_target=generator.normal(size=(6, 3)),
        sphere_free_matches=matches[::-1][[5, 4, 3, 2, 1, 0]] + 6,
        imd_identity=np.array([0.5, 0.2]),
        imd_mirrored=np.array([0.2, 0.2]),
    )


def _none(scores):
    return {name for name, value in scores.items() if value is None}


def test_there_are_fourteen_scores():
    scores = label_free_scores(_evidence())

    assert len(MATCH_SCORES + PAIR_SCORES) == 14
    assert tuple(scores.matches) == MATCH_SCORES
    assert tuple(scores.pairs) == PAIR_SCORES
    assert _none(scores.of_match(0)) == set()
    assert _none(scores.of_pair(0)) == set()


def test_each_score_is_that_of_its_own_function():
    evidence = _evidence()
    cells = label_free_points.cells_of(evidence.matches, CELL)
    box, found = evidence.target_box[evidence.pairs], np.isfinite(evidence.matches).all(1)
    back = label_free_points.mirrored_back(evidence.mirrored_matches, 100)
    strengths = label_free_peaks.value_at(evidence.similarity, cells)
    layout = evidence.points, evidence.matches, evidence.pairs, 2
    expected = {
        "peak_ratio": label_free_peaks.peak_ratio(evidence.similarity, cells, 0.1 * box / CELL),
        "mirror_peak_ratio": label_free_peaks.mirror_peak_ratio(
            evidence.similarity, cells, np.where(evidence.partners[:, None] < 0, -1, cells[evidence.partners])
        ),
        "mirror_insensitivity": label_free_points.mirror_insensitivity(evidence.matches, back, box, evidence.paired),
        "flip_inconsistency": label_free_points.flip_inconsistency(evidence.matches, back, evidence.partners, box),
        "cycle_error": label_free_points.cycle_error(
            evidence.points, evidence.returned, evidence.source_box[evidence.pairs]
        ),
        "sphere_angle": match_filters.sphere_angles(evidence.sphere_source, evidence.sphere_target),
        "sphere_disagreement": label_free_points.sphere_disagreement(
            evidence.matches, evidence.sphere_free_matches, box
        ),
        "collision": label_free_points.collision(evidence.matches, evidence.pairs, evidence.groups, box),
        "assignment_change": label_free_points.assignment_change(
            evidence.similarity, evidence.matches, evidence.pairs, evidence.groups, CELL
        ),
        "low_similarity": label_free_peaks.low_similarity(strengths, np.array(["cat"] * 6)),
        "softmax_spread": label_free_peaks.softmax_spread(evidence.similarity),
    }
    scores = label_free_scores(evidence)

    for name, values in expected.items():
        np.testing.assert_allclose(scores.matches[name], np.where(found, values, np.nan), err_msg=name)
    np.testing.assert_allclose(scores.similarity, strengths)
    np.testing.assert_allclose(scores.pairs["imd_gap"], [np.log(2.5), 0], atol=1e-12)
    np.testing.assert_allclose(scores.pairs["reflection_gap"], label_free_pairs.reflection_gap(*layout))
    np.testing.assert_allclose(scores.pairs["triplet_orientation"], label_free_pairs.triplet_orientation(*layout))


def test_what_cannot_be_scored_is_none():
    scores = label_free_scores(_evidence())

    # The nose lies on the plane of symmetry and is alone in its group.
    sided = {"mirror_peak_ratio", "mirror_insensitivity", "flip_inconsistency"}
    grouped = {"collision", "assignment_change"}
    assert _none(scores.of_match(2)) == sided | grouped
    # The partner of the fifth was not found: nobody else is in its group, and its own side can still be tested.
    assert _none(scores.of_match(4)) == {"mirror_peak_ratio"} | grouped
    assert _none(scores.of_match(5)) == set(MATCH_SCORES)
    # One match has no layout.
    assert _none(scores.of_pair(1)) == {"reflection_gap", "triplet_orientation"}
    assert scores.of_pair(1)["imd_gap"] == 0


def test_evidence_that_is_missing_leaves_its_scores_out():
    names = ("returned", "mirrored_matches", "sphere_source", "sphere_free_matches", "imd_identity")
    bare = label_free_scores(replace(_evidence(), **dict.fromkeys(names)))
    boxless = label_free_scores(replace(_evidence(), target_box=np.full(2, np.nan), source_box=np.full(2, np.nan)))

    absent = {"mirror_insensitivity", "flip_inconsistency", "cycle_error", "sphere_angle", "sphere_disagreement"}
    assert _none(bare.of_match(0)) == absent
    assert _none(bare.of_pair(0)) == {"imd_gap"}
    by_box = (absent - {"sphere_angle"}) | {"peak_ratio", "collision"}
    assert _none(boxless.of_match(0)) == by_box


def test_the_reflection_stands_in_for_a_partner_only_where_there_is_none():
    reflected = np.full((6, 2), np.nan)
    reflected[[0, 2]] = [[5.0, 5], [55, 5]]
    evidence = replace(_evidence(), reflected=reflected)

    plain, helped = (label_free_scores(one).matches["mirror_peak_ratio"] for one in (_evidence(), evidence))

    assert helped[0] == plain[0]
    assert helped[2] == pytest.approx(evidence.similarity[2, 0, 5] / evidence.similarity[2, 4, 4])
    assert np.isnan(helped[3])


def test_pairs_are_scored_as_each_alone():
    evidence = _evidence()
    first = {
        name: getattr(evidence, name)[:4]
        for name in (
            *("similarity", "points", "matches", "pairs", "partners", "paired", "groups", "returned"),
            *("mirrored_matches", "sphere_source", "sphere_target", "sphere_free_matches"),
        )
    }
    first |= {
        name: getattr(evidence, name)[:1]
        for name in ("categories", "target_box", "source_box", "imd_identity", "imd_mirrored")
    }
    together, alone = label_free_scores(evidence), label_free_scores(replace(evidence, **first))

    for name in set(MATCH_SCORES) - {"low_similarity"}:
        np.testing.assert_array_equal(together.matches[name][:4], alone.matches[name], err_msg=name)
    for name in PAIR_SCORES:
        np.testing.assert_array_equal(together.pairs[name][:1], alone.pairs[name], err_msg=name)


def test_nothing_has_no_scores():
    empty = {name: np.empty((0, 2)) for name in ("points", "matches")}
    empty |= {name: np.empty(0, int) for name in ("pairs", "groups", "partners")}

    scores = label_free_scores(
        MatchEvidence(
            np.empty((0, 3, 3)),
            CELL,
            **empty,
            categories=[],
            target_box=np.empty(0),
            source_box=np.empty(0),
            paired=np.empty(0, bool),
        )
    )

    assert {len(column) for column in (*scores.matches.values(), *scores.pairs.values())} == {0}


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="returned has shape"):
        replace(_evidence(), returned=np.zeros((2, 2)))
    with pytest.raises(ConfigError, match=r"must be \(6, h, w\)"):
        replace(_evidence(), similarity=np.zeros((6, 3)))
