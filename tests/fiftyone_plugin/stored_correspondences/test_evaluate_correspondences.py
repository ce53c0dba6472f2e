"""Figures of stored correspondences, held against sums that can be done by hand."""

import csv
import json

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.runs import load_record

CAT = {"left eye": (20, 20), "right eye": (60, 20), "left paw": (20, 80), "right paw": (60, 80), "nose": (40, 40)}
EXCHANGED = {"left eye": CAT["right eye"], "right eye": CAT["left eye"]}
ONE_SIDE = {name: place for name, place in CAT.items() if name != "right eye"}


def evaluate(pairs, key="corr", **options):
    return evaluate_correspondences(pairs, key, progress=False, **options)


def value(rows, metric, **part):
    """The only row of a metric for a part of the data."""
    wanted = {"category": None, "azimuth_difference": None, **part}
    (found,) = [row for row in rows if row["metric"] == metric and all(row[name] == wanted[name] for name in wanted)]
    return found["value"]


@pytest.fixture
def three(stored, shot, match):
    """Three pairs: all right; eyes exchanged; and of another category one right of two, the target lacking the eye."""

    def make(**options):
        shots = [
            shot(CAT, values={"viewpoint": 0, "kind": "tabby"}, box=(0.2, 0.2, 0.4, 0.6)),
            shot(CAT, values={"viewpoint": 1}, box=(0.2, 0.2, 0.4, 0.6)),
            shot({"left eye": (20, 20), "right eye": (60, 20), "nose": (40, 40)}, "dog", (0.2, 0.2, 0.4, 0.6)),
            shot({"right eye": (60, 20), "nose": (40, 40)}, "dog", (0.2, 0.2, 0.4, 0.2), {"viewpoint": 315}),
        ]
        found = [
            match(0, 1, CAT),
            match(1, 0, {**CAT, **EXCHANGED}),
            match(2, 3, {"left eye": (60, 20), "right eye": (66, 20), "nose": (90, 90)}),
        ]
        return stored(shots, found, **options)

    return make


def test_pck_of_every_flavour_is_as_counted_by_hand(three):
    _, pairs = three()
    summary = evaluate(pairs)
    assert summary.counts == {"total": 3, "done": 3, "stale": 0, "unjudged": 0, "failed": 0}
    rows = summary.details["pck"]
    # 5 of 5, 3 of 5, and 1 of 2: the eye at a distance of 6, the nose far off.
    assert value(rows, "PCK@0.1 per image, image threshold") == pytest.approx((1 + 0.6 + 0.5) / 3)
    assert value(rows, "PCK@0.1 per point, image threshold") == pytest.approx(9 / 12)
    assert value(rows, "PCK@0.1 per point, image threshold", category="dog") == 0.5
    # Eyes and paws have a mate in the target, but for the only eye of the dog.
    assert value(rows, "PCK@0.1 per image, image threshold, geometry-aware points") == pytest.approx((1 + 0.5) / 2)
    assert value(rows, "PCK@0.1 per point, image threshold, geometry-aware points") == pytest.approx(6 / 8)
    assert value(rows, "PCK†@0.1 per point, image threshold") == pytest.approx(9 / 12)
    tighter = evaluate(pairs, alphas=[0.1, 0.05]).details["pck"]
    assert value(tighter, "PCK@0.05 per point, image threshold") == pytest.approx(8 / 12)
    assert value(tighter, "PCK@0.1 per point, image threshold") == pytest.approx(9 / 12)


def test_thresholds_are_shares_of_the_box_where_the_run_knew_it(three):
    _, pairs = three(foreground="field:box")
    rows = evaluate(pairs).details["pck"]
    # The box of the dog is 40 pixels long: 6 pixels are more than a tenth of that.
    assert value(rows, "PCK@0.1 per point, box threshold", category="dog") == 0
    rows = evaluate(pairs, threshold="image").details["pck"]
    assert value(rows, "PCK@0.1 per point, image threshold", category="dog") == 0.5


def test_errors_are_split_by_category_geometry_and_viewpoint(three):
    _, pairs = three(foreground="field:box", alpha=0.2)
    details = evaluate(pairs, azimuth="viewpoint").details
    errors = [row for row in details["errors"] if "category" in row]
    assert {row["metric"] for row in details["errors"]} == {"error types at T = 0.2 of the box"}
    by_part = {(row["category"], row["geometry_aware"], row["azimuth_difference"]): row for row in errors}
    # Degrees and numbers of eighths in one field are degrees: 1 is in the same eighth as 0. The dog has one viewpoint.
    assert set(by_part) == {("cat", False, 0), ("cat", True, 0), ("dog", False, None)}
    assert by_part["cat", True, 0]["swap_mirror"] == 2
    assert by_part["cat", True, 0]["share_correct"] == 6 / 8
    assert by_part["cat", False, 0]["correct"] == 2
    dog = by_part["dog", False, None]
    assert (dog["phantom_mirror"], dog["correct"], dog["miss_background"]) == (1, 1, 1)
    (whole,) = [row for row in details["errors"] if "category" not in row]
    assert whole["n"] == 13
    # Exchanging partners would mend the eyes and spoil the paws.
    assert details["inversions"] == [
        {
            "metric": "inverted pairs, error types at T = 0.2 of the box",
            "category": "cat",
            "n_pairs": 2,
            "n_inverted": 0,
            "share_inverted": 0.0,
        }
    ]


def test_viewpoints_split_pck_and_give_its_sensitivity(three):
    _, pairs = three()
    pairs.add_sample_field("azimuth_difference", fo.IntField)
    for pair, turn in zip(pairs.values("pair_id"), (0, 3, 4), strict=True):
        pairs.match({"pair_id": pair}).select_group_slices().set_values("azimuth_difference", [turn, turn])
    details = evaluate(pairs).details
    label = "PCK@0.1 per image, image threshold"
    assert [value(details["pck"], label, azimuth_difference=turn) for turn in (0, 3, 4)] == [1, 0.6, 0.5]
    (row,) = [one for one in details["pose_sensitivity"] if one["metric"].endswith(f"of {label}")]
    assert row["value"] == 0.5
    with pytest.raises(ConfigError, match="give one of them"):
        evaluate(pairs, azimuth="viewpoint", azimuth_difference="azimuth_difference")
    sample = pairs.first()
    sample["azimuth_difference"] = 7
    sample.save()
    with pytest.raises(ConfigError, match="is no difference of viewpoints"):
        evaluate(pairs)


def test_a_category_of_a_copied_field_takes_the_place_of_the_labels(three):
    _, pairs = three()
    rows = evaluate(pairs, category="kind").details["pck"]
    assert {row["category"] for row in rows} == {None, "tabby"}
    assert value(rows, "PCK@0.1 per point, image threshold", category="tabby") == 1
    with pytest.raises(ConfigError, match="'breed' is no field"):
        evaluate(pairs, category="breed")


def test_pairs_whose_labels_or_files_changed_are_left_out_and_counted(three):
    dataset, pairs = three()
    target = pairs.select_group_slices("target").first()
    target.points.keypoints[0].points[0] = [0.9, 0.9]
    target.save()
    summary = evaluate(pairs)
    assert (summary.counts["done"], summary.counts["stale"]) == (2, 1)
    assert value(summary.details["pck"], "PCK@0.1 per point, image threshold") == pytest.approx(4 / 7)
    assert any("1 pair left out: files or labels have changed" in notice for notice in summary.notices)
    with open(dataset.values("filepath")[3], "ab") as stream:
        stream.write(b" ")
    assert evaluate(pairs).counts["stale"] == 2


def test_pairs_that_could_not_be_matched_are_told(three):
    _, pairs = three()
    failed = pairs.values("pair_id")[1]
    pairs.match({"pair_id": failed}).select_group_slices().set_values("corr_error", ["no such file"] * 2)
    summary = evaluate(pairs)
    assert (summary.counts["done"], summary.counts["failed"]) == (2, 1)
    assert summary.failed == {failed: "no such file"}
    assert load_record(pairs, "corr_eval")["failed"] == {failed: "no such file"}


def test_targets_without_keypoints_or_box_are_left_out(stored, shot, match):
    shots = [shot(CAT, box=(0.2, 0.2, 0.4, 0.6)), shot({}, box=(0.2, 0.2, 0.4, 0.6)), shot(CAT)]
    _, pairs = stored(shots, [match(0, 1, CAT), match(0, 2, CAT)], foreground="field:box")
    summary = evaluate(pairs)
    assert summary.counts == {"total": 2, "done": 0, "stale": 0, "unjudged": 2, "failed": 0}
    assert value(summary.details["pck"], "PCK@0.1 per image, box threshold") is None
    assert evaluate(pairs, threshold="image").counts["done"] == 1


def test_a_view_judges_its_own_pairs_only(three):
    _, pairs = three()
    part = pairs.match({"pair_id": pairs.values("pair_id")[1]})
    summary = evaluate(part)
    assert summary.counts["total"] == 1
    assert value(summary.details["pck"], "PCK@0.1 per image, image threshold") == 0.6


def test_kap_comes_from_the_detections_that_the_run_kept(three):
    _, pairs = three(foreground="field:box")
    assert evaluate(pairs).details["kap"] == []
    for name, subfield in (("corr_kap_labels", fo.BooleanField), ("corr_kap_scores", fo.FloatField)):
        pairs.add_sample_field(name, fo.ListField, subfield=subfield)
    kept = [([True, False], [0.9, 0.2]), ([True, False], [0.5, 0.6]), ([False, True, False], [0.8, 0.7, 0.1])]
    for (labels, scores), sample in zip(kept, pairs.select_group_slices("source"), strict=True):
        sample["corr_kap_labels"], sample["corr_kap_scores"] = labels, scores
        sample.save()
    details = evaluate(pairs).details
    # Cats, by falling score: right, wrong, right, wrong. Dogs: wrong, right, wrong.
    cats, dogs = (1 / 1 + 2 / 3) / 2, 1 / 2
    assert details["kap"][0]["metric"] == "KAP@0.1 per category, box threshold"
    assert details["kap"][0]["value"] == pytest.approx((cats + dogs) / 2)
    assert {row["category"]: row["value"] for row in details["kap_per_category"]} == pytest.approx(
        {"cat": cats, "dog": dogs}
    )
    # They were told at the threshold of the run, and are of no use at another.
    assert evaluate(pairs, alphas=[0.2]).details["kap"] == []
    assert evaluate(pairs, threshold="image").details["kap"] == []


def test_no_figure_leaves_without_its_flavour(three, tmp_path):
    _, pairs = three(foreground="field:box")
    summary = evaluate(pairs, path=tmp_path / "out" / "report.csv", alphas=[0.1, 0.05], azimuth="viewpoint")
    words = ("threshold", "error types at T = ")
    with open(tmp_path / "out" / "report.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert all(any(word in row["metric"] for word in words) for row in rows)
    per_point = [row for row in rows if row["metric"] == "PCK@0.1 per point, box threshold" and not row["category"]]
    assert [float(row["value"]) for row in per_point if not row["azimuth_difference"]] == [pytest.approx(8 / 12)]
    markdown = (tmp_path / "out" / "report.md").read_text("utf-8")
    for text in (markdown, str(summary), json.dumps(summary.details, ensure_ascii=False)):
        for part in text.replace("## PCK\n", "").replace("which PCK it is", "").split("PCK")[1:]:
            assert part.lstrip("†").startswith(("@0.1 per", "@0.05 per"))
    assert "| dog | all | 0.0 |" in markdown
    json.loads(json.dumps(summary.details, allow_nan=False))


def test_names_cannot_break_a_table(stored, shot, match, tmp_path):
    shots = [shot(CAT, "a | b\n# c"), shot(CAT, "a | b\n# c")]
    _, pairs = stored(shots, [match(0, 1, CAT)])
    evaluate(pairs, path=tmp_path / "report")
    markdown = (tmp_path / "report.md").read_text("utf-8")
    assert "| a \\| b # c | all | 100.0 |" in markdown


def test_figures_are_a_run_of_their_own(three):
    _, pairs = three()
    summary = evaluate(pairs)
    record = load_record(pairs, "corr_eval")
    assert record["method"] == "evaluate_correspondences"
    assert record["details"] == summary.details
    assert record["config"]["run"] == "corr"
    evaluate(pairs, run_key="strict", alphas=[0.01])
    assert load_record(pairs, "strict")["config"]["alphas"] == [0.01]
    with pytest.raises(ConfigError, match="taken by a run of compute_correspondences"):
        evaluate(pairs, run_key="corr")


def test_options_that_cannot_work_are_refused(three, tmp_path):
    dataset, pairs = three()
    for options, message in (
        ({"key": "other"}, "has no correspondences under key 'other'; there are 'corr'"),
        ({"threshold": "box"}, "the run knew no objects"),
        ({"threshold": "circle"}, "threshold='circle'"),
        ({"alphas": []}, "must be a list of shares"),
        ({"alphas": 0.1}, "must be a list of shares"),
        ({"alphas": [0.1, 2]}, "alphas: 2"),
        ({"azimuth": "kind"}, "azimuth='kind' is no field of numbers"),
        ({"azimuth_difference": "kind"}, "azimuth_difference='kind' is no field of numbers"),
        ({"path": tmp_path}, "is a folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(pairs, **options)
    with pytest.raises(ConfigError, match="holds no pairs"):
        evaluate(dataset)
    assert not pairs.has_run("corr_eval")


def test_unseen_points_of_the_source_are_not_judged(stored, shot, match):
    found = {name: CAT[name] for name in ONE_SIDE}
    _, pairs = stored([shot(ONE_SIDE), shot(CAT)], [match(0, 1, found)])
    (whole,) = [row for row in evaluate(pairs).details["errors"] if "category" not in row]
    assert (whole["n"], whole["correct"]) == (4, 4)
    assert np.isclose(whole["share_correct"], 1)
