"""Tables of the keypoint study, on descriptors whose matches are known, and on the packaged scenes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fiftyone_selfsame.benchmarks.keypoints_data import Question, mirror_questions, read_questions
from fiftyone_selfsame.benchmarks.keypoints_matching import INSTANCE, MUTUAL, NONE, answer, describe_items
from fiftyone_selfsame.benchmarks.keypoints_resampling import Resamples, counts, drawn_pictures, ratio
from fiftyone_selfsame.benchmarks.keypoints_study import Study, tables, turned_name, verdict
from fiftyone_selfsame.benchmarks.manifest import Item, load_manifest
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.correspondence.features import FeatureConfig, FeatureExtractor, ImageFeatures
from fiftyone_selfsame.brain.correspondence.grids import picture_cells
from fiftyone_selfsame.brain.correspondence.keypoint_groups import groups_from_couples
from fiftyone_selfsame.brain.correspondence.views import IDENTITY, MIRROR
from fiftyone_selfsame.brain.geometry import plan_geometry
from fiftyone_selfsame.fixtures.scenes.packaged import TINY_FOLDER

SIDE, PATCH, CELLS = 112, 14, 8
GROUPS = groups_from_couples(["nose", "ear_L", "ear_R"], [("ear_L", "ear_R")])
PLACES = {"nose": (4, 1), "ear_L": (1, 3), "ear_R": (2, 6)}
# What cells look like: the ground, an ear on the left of the picture and one on its right, a nose of either profile.
GROUND, NEAR, FAR, NOSE_LEFT, NOSE_RIGHT = range(5)


def item(name, azimuth):
    extra = {"bbox": [0, 0, SIDE, SIDE], "azimuth_bin": azimuth}
    return Item(name, Path(name), None, name, "face", "faces", extra)


def features(looks):
    """A picture whose cells are unit vectors, all at right angles but where they look alike."""
    grid = torch.zeros(CELLS, CELLS, 5)
    grid[..., GROUND] = 1
    for (row, column), look in looks.items():
        grid[row, column] = torch.eye(5)[look]
    geometry = plan_geometry((SIDE, SIDE), SIDE, PATCH, "letterbox")
    return ImageFeatures(grid, geometry, picture_cells(geometry))


def centres(places):
    return np.array([[PATCH * (column + 0.5), PATCH * (row + 0.5)] for row, column in places], float)


def turned_pair(azimuths=(2, 6)):
    """A profile and the same from the other side, where the left ear looks as the right one did; only the nose tells.

    As they are, both ears are taken for each other; from the mirrored source, all is found.
    """
    looks = dict(zip(PLACES.values(), (NOSE_LEFT, NEAR, FAR), strict=True))
    mirrored = {(row, CELLS - 1 - column): look for (row, column), look in looks.items()}
    mirrored[PLACES["nose"][0], CELLS - 1 - PLACES["nose"][1]] = NOSE_RIGHT
    back = {(row, CELLS - 1 - column): look for (row, column), look in mirrored.items()}
    back[PLACES["nose"]] = NOSE_LEFT
    described = {("a", IDENTITY): looks, ("a", MIRROR): mirrored, ("b", IDENTITY): mirrored, ("b", MIRROR): back}
    places = list(PLACES.values())
    flipped = [(row, CELLS - 1 - column) for row, column in places]
    difference = min((azimuths[0] - azimuths[1]) % 8, (azimuths[1] - azimuths[0]) % 8)
    gain = difference - min(sum(azimuths) % 8, -sum(azimuths) % 8)
    one = Question(
        item("a", azimuths[0]),
        item("b", azimuths[1]),
        "faces",
        GROUPS,
        centres(places),
        centres([flipped[0], flipped[2], flipped[1]]),
        azimuth_difference=difference,
        mirror_gain=gain,
    )
    return one, {key: features(value) for key, value in described.items()}


def study(questions, described, rounds=10):
    return Study(questions, described, list(answer(questions, described)), rounds, 0)


def by(rows, **wanted):
    (row,) = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
    return row


def test_alignment_mends_a_profile_seen_from_the_other_side():
    one, described = turned_pair()

    found = study([one], described)

    for method in ("nearest", "window"):
        plain = by(found.swap_rows(), group=turned_name(), method=method, alignment=NONE)
        aligned = by(found.swap_rows(), group=turned_name(), method=method, alignment=INSTANCE)
        assert (plain["swaps"], plain["swap_mirror"], plain["flipped"], plain["n"]) == (1, 1, 0, 2)
        assert (aligned["swaps"], aligned["swap_mirror"], aligned["flipped"], aligned["change"]) == (0, 0, 1, -1)
    verdicts = {(row["required"].split()[3].strip(","), row["verdict"]) for row in found.requirement_rows()}
    # Mutual neighbours alone leave out the nose, the one thing that tells both sides apart.
    assert verdicts == {(INSTANCE, "pass"), (MUTUAL, "FAIL")}


def test_every_pair_stands_in_one_row_of_the_poses_with_its_swaps_before_and_after():
    one, described = turned_pair()

    row = by(study([one], described).pose_rows(), group="all", criterion=INSTANCE)

    assert (row["target_faces"], row["chosen"], row["pairs"], row["handed_over"]) == ("mirrored", "mirror", 1, 3)
    assert (row["swaps"], row["swaps_aligned"], row["swaps_true_pose"], row["n"]) == (2, 0, 0, 2)


def test_a_wrong_truth_shows_as_a_wrong_decision():
    # The pictures are those of opposite sides, but the azimuths say that both face alike.
    one, described = turned_pair(azimuths=(2, 2))

    found = study([one], described)

    row = by(found.pose_rows(), group="all", criterion=INSTANCE)
    assert (row["target_faces"], row["chosen"], row["swaps_true_pose"]) == ("as the source", "mirror", 2)
    decision = by(found.decision_rows(), group="all", criterion=INSTANCE)
    assert (decision["right"], decision["flipped_when_not"], decision["mirrored"], decision["not"]) == (0, 1, 0, 1)


def test_pck_is_labelled_and_counted_by_flavour():
    one, described = turned_pair()

    rows = study([one], described).pck_rows()

    label = "PCK@0.1 per point, box threshold"
    # As it is, the source's nose has a look that the target lacks, and the ears are exchanged.
    assert by(rows, metric=label, method="nearest", alignment=NONE)["value"] == 0
    assert by(rows, metric=label, method="nearest", alignment=INSTANCE)["value"] == 1
    geometry = by(rows, metric=f"{label}, geometry-aware points", method="nearest", alignment=INSTANCE)
    assert (geometry["value"], geometry["n"]) == (1, 2)
    assert len(rows) == len({row["metric"] for row in rows}) * 4


def test_kap_of_exchanged_ears_rises_with_alignment():
    one, described = turned_pair()

    plain, aligned = study([one], described).kap_rows()

    assert (plain["samples"], plain["positives"]) == (6, 3)
    assert aligned["value"] > plain["value"]


def test_label_free_scores_are_held_against_the_mistaken_parts():
    one, described = turned_pair()

    rows = study([one], described).label_free_rows()

    assert len(rows) == 14
    assert {row["n"] for row in rows} == {3}
    # No sphere mapper, nothing to score.
    assert by(rows, score="sphere_angle")["scorable"] == 0
    partnered = by(rows, score="flip_inconsistency")
    assert (partnered["scorable"], partnered["mistaken"]) == (2, 2)
    # The nose is found nowhere and the ears in one place each: the most similar matches are the mistaken ones.
    assert by(rows, score="low_similarity")["auroc"] == 0


def test_tables_leave_out_what_a_set_does_not_have():
    one, described = turned_pair(azimuths=(1, 1))

    headings = list(tables(study([one], described)))

    assert not any(heading.startswith("required") for heading in headings)
    assert "KAP" in headings


@pytest.mark.parametrize(
    ("change", "high", "expected"), [(-0.1, -0.01, "pass"), (-0.1, 0.0, "not shown"), (0.0, 0.1, "FAIL")]
)
def test_a_fall_that_may_be_chance_is_not_called_one(change, high, expected):
    assert verdict(change, high) == expected


def test_shares_and_intervals_are_those_of_pairs_repeated_one_by_one():
    verdicts = [np.array(one, bool) for one in ([1, 0], [1, 1, 1], [], [0])]
    hits, totals = counts(verdicts)
    weights = np.random.default_rng(3).integers(3, size=(200, 4))
    found = Resamples(weights)

    pooled, means = [], []
    for row in weights:
        chosen = [verdicts[pair] for pair in np.repeat(np.arange(4), row) if len(verdicts[pair])]
        pooled.append(np.concatenate(chosen).mean() if chosen else np.nan)
        means.append(np.mean([one.mean() for one in chosen]) if chosen else np.nan)
    for estimate, value, values in (
        (found.share(hits, totals), 4 / 6, pooled),
        (found.mean_share(hits, totals), (0.5 + 1 + 0) / 3, means),
    ):
        assert estimate.value == pytest.approx(value)
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.nanpercentile(values, (2.5, 97.5))))


def test_rows_count_as_often_as_their_pair_was_drawn():
    found = Resamples(np.array([[2, 0], [0, 2], [1, 1]]))

    seen = []
    estimate = found.of_rows(lambda rows: float(seen.append(list(rows)) or len(rows)), np.array([0, 0, 1]))

    assert seen == [[0, 0, 1, 1], [2, 2], [0, 1, 2], [0, 1, 2]]
    assert estimate.value == 3
    assert np.isnan(ratio(np.array(0.0), np.array(0.0)))


def test_a_pair_counts_as_often_as_both_its_pictures_were_drawn():
    found = drawn_pictures([("a", "b"), ("a", "a"), ("b", "b")], 50, 0)

    draws = []
    found.of_rows(lambda rows: float(draws.append(np.bincount(rows, minlength=3)) or 0), np.arange(3))

    # A pair of a picture with itself counts as often as that picture was drawn.
    drawn = np.array(draws[:-1])
    assert (drawn[:, 0] == drawn[:, 1] * drawn[:, 2]).all()
    assert (drawn[:, 1] + drawn[:, 2] == 2).all()
    assert len(np.unique(drawn, axis=0)) == 3


def test_with_the_embedded_model_every_picture_is_told_from_its_mirror_image():
    manifest = load_manifest(TINY_FOLDER / "keypoints")
    questions = [one for one in read_questions(manifest) if one.part == "quadruped"]
    sources = list({one.source.id: one.source for one in questions}.values())
    extractor = FeatureExtractor(load_backbone("embedded-hybrid", device="cpu"), FeatureConfig(size=336))
    described = describe_items(extractor, sources, grey=False)
    own = mirror_questions(questions, {one.id: described[one.id, IDENTITY].geometry.image_hw for one in sources})

    rows = Study(own, described, list(answer(own, described, (NONE, INSTANCE))), 5, 0).swap_rows()

    plain = by(rows, group="all", method="nearest", alignment=NONE)
    aligned = by(rows, group="all", method="nearest", alignment=INSTANCE)
    assert plain["swaps"] > 0.7
    assert aligned["flipped"] == 1
    assert aligned["swaps"] < 0.1


def test_criteria_of_whole_pictures_and_of_foregrounds_are_both_tried():
    one, described = turned_pair()

    assert {row["criterion"] for row in study([one], described).decision_rows()} == {INSTANCE, MUTUAL}
