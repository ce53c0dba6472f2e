"""Symmetry errors from pictures to suspects: features of the embedded model, and an annotation with sides exchanged."""

import numpy as np
import pytest
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.keypoint_exchange import exchange_labels
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fiftyone_plugin.symmetry_errors import find_symmetry_errors

SIDE = 160
POINTS = np.array([[52.0, 44], [104, 52], [60, 104], [112, 108], [84, 76]])
# How far each picture shows another part of the scene; the last ones are mirrored, which exchanges sides.
SHIFTS = [(0, 0), (16, 0), (0, 16), (-16, 16), (16, 16), (8, 8)]
MIRRORED = (4, 5)
WRONG = 3


@pytest.fixture
def scene(scene_pairs):
    """Six pictures of one scene, two of them mirrored; in the annotation of the fourth the eyes are exchanged."""
    return scene_pairs((SIDE, SIDE), POINTS, SHIFTS, MIRRORED, WRONG)


def compute(pairs):
    options = {"model": "embedded-hybrid", "size": SIDE, "device": "cpu", "progress": False}
    return compute_correspondences(pairs, "corr", keypoints="points", **options)


def test_an_exchange_is_found_mended_and_no_suspect_is_left(scene):
    dataset, pairs = scene
    compute(pairs)
    find_symmetry_errors(pairs, "corr", progress=False)
    details = load_record(pairs, "corr_risk")["details"]
    wrong = dataset.values("id")[WRONG]
    rows = {row.pair_id: row for row in read_pairs(pairs)}
    sides = [getattr(rows[one["pair_id"]], one["side"]).origin_id for one in details["suspects"][:5]]
    assert wrong in sides
    assert sides[0] == wrong
    # Mirrored pictures have true swaps, and more of them.
    assert load_record(pairs, "corr_risk")["counts"]["swaps"] > 2 * len(details["suspects"])
    first = details["suspects"][0]
    exchange_labels(pairs, **{name: first[name] for name in ("pair_id", "side", "partners")})
    before = load_record(pairs, "corr")["details"]["pck"]
    again = compute(pairs)
    assert again.counts["done"] == len(SHIFTS) - 1
    assert all(again.details["pck"][flavour] > before[flavour] for flavour in before)
    find_symmetry_errors(pairs, "corr", progress=False)
    assert load_record(pairs, "corr_risk")["details"]["suspects"] == []


def test_an_evaluation_gives_what_the_run_itself_counted(scene):
    _, pairs = scene
    summary = compute(pairs)
    rows = evaluate_correspondences(pairs, "corr", progress=False).details["pck"]
    whole = {row["metric"]: row["value"] for row in rows if row["category"] is None}
    for metric, value in summary.details["pck"].items():
        assert whole[metric] == pytest.approx(value)
    assert 0 < value < 1
