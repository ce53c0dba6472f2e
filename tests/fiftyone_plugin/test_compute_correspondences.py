"""Correspondences of pairs whose answer is known: a picture and its shifted, mirrored and turned copies."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.correspondence.features import FeatureExtractor
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.brain.metrics.keypoint_errors import ERROR_TYPES
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.correspondence_fields import SEVERITY
from fiftyone_selfsame.fiftyone_plugin.correspondence_table import load_correspondences, write_table
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from PIL import Image

SIDE, CELL = 160, 16
SHIFT = np.array([32, 16])
NAMES = ["left eye", "right eye", "nose", "tail"]
POINTS = np.array([[56.0, 40], [120, 56], [88, 104], [136, 136]])
PCK = "PCK@0.1 per image, image threshold"

# The places that the keypoints have in each copy, by its name; the exchange of sides is that of a mirror.
PLACES = {
    "own": POINTS,
    "shifted": POINTS - SHIFT,
    "mirrored": (POINTS * [-1, 1] + [SIDE, 0])[[1, 0, 2, 3]],
    "turned": np.stack([POINTS[:, 1], SIDE - POINTS[:, 0]], 1),
}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Tables go to a folder of this test."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))


@pytest.fixture
def pictures(tmp_path):
    """The files of a picture of many colours and of its copies, by name."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    whole = np.asarray(coarse.resize((SIDE + 32, SIDE + 32), Image.Resampling.BICUBIC))
    own = whole[:SIDE, :SIDE]
    copies = {
        "own": own,
        "shifted": whole[SHIFT[1] :, SHIFT[0] :][:SIDE, :SIDE],
        "mirrored": own[:, ::-1],
        "turned": np.rot90(own),
    }
    paths = {name: tmp_path / f"{name}.png" for name in copies}
    for name, picture in copies.items():
        Image.fromarray(np.ascontiguousarray(picture)).save(paths[name])
    return paths


def label_of(points, hidden=()):
    rows = [
        [float("nan")] * 2 if name in hidden else [*point] for name, point in zip(NAMES, points / SIDE, strict=True)
    ]
    return fo.Keypoints(keypoints=[fo.Keypoint(label="cat", points=rows)])


@pytest.fixture
def made(fo_dataset, pictures):
    """A factory of a dataset of copies and of the pairs of its first picture with all others."""
    created = []

    def make(*names, hidden=(), boxes=None):
        dataset = fo_dataset([pictures[name] for name in names])
        dataset.default_skeleton = fo.KeypointSkeleton(labels=NAMES, edges=[])
        labels = [label_of(PLACES[name], hidden if number else ()) for number, name in enumerate(names)]
        dataset.set_values("points", labels)
        if boxes:
            detection = fo.Detection(label="cat", bounding_box=boxes)
            dataset.set_values("box", [fo.Detections(detections=[detection.copy()]) for _ in names])
        ids = dataset.values("id")
        fields = ["points", "box"] if boxes else ["points"]
        pairs = create_pairs(dataset, pairs=[(ids[0], other) for other in ids[1:]], fields=fields)
        created.append(pairs)
        return dataset, pairs

    yield make
    for pairs in created:
        pairs.delete()


def match(pairs, key="corr", **options):
    defaults = {
        "keypoints": "points",
        "model": "embedded-hybrid",
        "size": SIDE,
        "device": "cpu",
        "progress": False,
    }
    return compute_correspondences(pairs, key, **{**defaults, **options})


def values(pairs, *short, key="corr"):
    """Values of every pair, in order."""
    rows = read_pairs(pairs, [f"{key}_{name}" for name in short])
    return [tuple(row.values.values()) for row in rows]


def test_keypoints_of_a_shifted_copy_are_found_where_they_are(made):
    _, pairs = made("own", "shifted", hidden=("tail",))
    summary = match(pairs)
    assert summary.counts == {"total": 1, "done": 1, "skipped": 0, "failed": 0, "matches": 4}
    source, target = (pairs.select_group_slices(name).first() for name in ("source", "target"))
    found = np.array([label.points[0] for label in target.corr.keypoints]) * SIDE
    assert np.abs(found - PLACES["shifted"]).max() < CELL
    assert [label.label for label in source.corr.keypoints] == NAMES
    np.testing.assert_allclose([label.points[0] for label in source.corr.keypoints], POINTS / SIDE)
    pairs_of_labels = list(zip(source.corr.keypoints, target.corr.keypoints, strict=True))
    assert all(ours.instance.id == theirs.instance.id for ours, theirs in pairs_of_labels)
    assert len({label.instance.id for label in source.corr.keypoints}) == 4
    assert [label.error_type for label in target.corr.keypoints] == ["correct"] * 3 + ["not_in_target"]
    assert target.corr.keypoints[3].distance is None
    errors = np.linalg.norm(found - PLACES["shifted"], axis=1) / SIDE
    np.testing.assert_allclose([label.distance for label in target.corr.keypoints[:3]], errors[:3])
    assert values(pairs, "swaps", "worst_type", "judged", "category", "view") == [
        (0, "not_in_target", 3, "cat", "identity")
    ]
    assert source.corr_worst == pytest.approx(errors[:3].max())
    assert source.corr_pck_0p1_per_image_image == 1
    assert pairs.get_field("corr_pck_0p1_per_image_image").description == f"{PCK}, of this pair alone"
    assert summary.details["pck"] == {PCK: 1.0, PCK.replace("per image,", "per point,"): 1.0}


def test_a_mirrored_copy_exchanges_sides_and_alignment_mends_it(made):
    _, pairs = made("own", "mirrored")
    summary = match(pairs)
    assert summary.details["errors"] == {"swap_mirror": 2, "correct": 2}
    assert values(pairs, "swaps", "worst_type", "inverted", "view") == [(2, "swap_mirror", True, "identity")]
    ((gap, share),) = values(pairs, "imd_gap", "triplet_orientation")
    assert gap > 0
    assert share == 1
    summary = match(pairs, alignment="mirror")
    assert summary.counts["done"] == 1
    assert summary.details["errors"] == {"correct": 4}
    assert values(pairs, "swaps", "inverted", "view") == [(0, False, "mirror")]
    target = pairs.select_group_slices("target").first()
    assert all(label.handed_over for label in target.corr.keypoints)
    found = np.array([label.points[0] for label in target.corr.keypoints]) * SIDE
    assert np.abs(found - PLACES["mirrored"]).max() < CELL
    assert [label.cycle_error * SIDE < CELL for label in target.corr.keypoints] == [True] * 4


def test_hidden_targets_keep_keypoints_from_changing_over_if_the_answer_may_be_seen(made):
    _, pairs = made("own", "mirrored", hidden=("left eye",))
    match(pairs, alignment="mirror")
    assert load_correspondences(pairs, "corr")["handed_over"].all()
    match(pairs, alignment="mirror", visibility="mutual")
    assert load_correspondences(pairs, "corr")["handed_over"].tolist() == [False, False, True, True]


def test_a_turned_copy_is_aligned_by_a_quarter_turn(made):
    _, pairs = made("own", "turned")
    match(pairs, alignment="all", label_free=False)
    assert values(pairs, "view", "swaps") == [("rotate_90", 0)]
    target = pairs.select_group_slices("target").first()
    found = np.array([label.points[0] for label in target.corr.keypoints]) * SIDE
    assert np.abs(found - PLACES["turned"]).max() < CELL
    assert "peak_ratio" not in pairs.get_field_schema(flat=True)
    assert pairs.get_field("corr_suspicion") is None


@pytest.mark.parametrize("alignment", ["off", "mirror"])
def test_without_keypoints_well_spread_points_of_both_images_are_matched(made, alignment):
    _, pairs = made("own", "shifted", "mirrored")
    summary = match(pairs, keypoints=None, count=12, alignment=alignment)
    table = load_correspondences(pairs, "corr")
    assert len(table) == summary.counts["matches"] == 24
    source, target = (table[[f"{side}_x", f"{side}_y"]].to_numpy() * SIDE for side in ("source", "target"))
    shifted, mirrored = slice(0, 12), slice(12, 24)
    assert np.median(np.abs(source[shifted] - SHIFT - target[shifted])) < CELL / 2
    assert np.median(np.abs(source[mirrored] * [-1, 1] + [SIDE, 0] - target[mirrored])) < CELL / 2
    assert np.ptp(source[shifted], axis=0).min() > SIDE / 3
    assert table["error_type"].isna().all()
    assert table["handed_over"].tolist() == [False] * 12 + [alignment == "mirror"] * 12
    assert values(pairs, "swaps", "worst", "judged") == [(None, None, None)] * 2


def test_mutual_decoding_drops_what_does_not_lead_back_and_counts_it_as_wrong(made):
    _, pairs = made("own", "shifted")
    source = pairs.select_group_slices("source").first()
    # A corner that the copy does not show: whatever it is taken for has a better partner.
    source.points.keypoints[0].points[0] = [0.05, 0.05]
    source.save()
    match(pairs, decoding="nearest", label_free=False)
    nearest = load_correspondences(pairs, "corr")
    assert 0 < nearest["mutual"].sum() < 4
    near = nearest["distance"] < 0.1
    assert values(pairs, "pck_0p1_per_image_image") == [(near.mean(),)]
    match(pairs, decoding="mutual", label_free=False)
    mutual = load_correspondences(pairs, "corr")
    assert mutual["keypoint"].tolist() == nearest["keypoint"][nearest["mutual"]].tolist()
    expected = (near & nearest["mutual"]).sum() / 4
    assert values(pairs, "pck_0p1_per_image_image", "matches") == [(expected, len(mutual))]


def test_boxes_make_thresholds_and_another_flavour_replaces_the_field(made):
    _, pairs = made("own", "mirrored", boxes=[0.1, 0.1, 0.8, 0.4])
    match(pairs, label_free=False)
    assert pairs.get_field("corr_pck_0p1_per_image_image") is not None
    plain = load_correspondences(pairs, "corr")["distance"]
    match(pairs, foreground="field:box", alpha=0.05, label_free=False)
    assert pairs.get_field("corr_pck_0p1_per_image_image") is None
    assert "box threshold" in pairs.get_field("corr_pck_0p05_per_image_box").description
    # The longer side of the box is 0.8 of that of the image.
    np.testing.assert_allclose(load_correspondences(pairs, "corr")["distance"], plain / 0.8)
    with pytest.raises(ConfigError, match="no field 'masks'"):
        match(pairs, foreground="field:masks")


def test_only_what_is_new_or_changed_is_matched_again(made, pictures):
    _, pairs = made("own", "shifted", "mirrored")
    first = match(pairs)
    again = match(pairs)
    assert (again.counts["skipped"], again.counts["done"], again.counts["matches"]) == (2, 0, 8)
    assert again.details == first.details
    target = pairs.select_group_slices("target").first()
    target.points.keypoints[0].points[0] = [0.9, 0.9]
    target.save()
    changed = match(pairs)
    assert (changed.counts["skipped"], changed.counts["done"]) == (1, 1)
    assert changed.details["errors"] != first.details["errors"]
    assert match(pairs, decoding="nearest").counts["done"] == 2
    assert match(pairs, decoding="nearest", overwrite=True).counts["done"] == 2


def test_an_interrupted_run_is_completed_with_ranks_and_table(made):
    _, pairs = made("own", "shifted", "mirrored")
    part = pairs.match({"pair_id": pairs.values("pair_id")[0]})
    match(part, write_back=False)
    record = load_record(pairs, "corr")
    assert record["status"] == "completed"
    everything = match(pairs)
    assert (everything.counts["skipped"], everything.counts["done"]) == (1, 1)
    table = load_correspondences(pairs, "corr")
    assert table["pair_id"].nunique() == 2
    fresh = match(pairs, "fresh")
    assert fresh.counts["done"] == 2
    expected = load_correspondences(pairs, "fresh")
    for name in ("low_similarity", "suspicion", "similarity", "distance"):
        np.testing.assert_allclose(table[name], expected[name], err_msg=name)


def test_ranks_are_taken_over_all_pairs_and_stand_on_both_slices(made):
    _, pairs = made("own", "shifted", "mirrored")
    match(pairs)
    table = load_correspondences(pairs, "corr")
    low = table["low_similarity"].to_numpy()
    # Without ties: the least similar of the n matches of the only category has 1, the most similar 0.
    places = np.argsort(np.argsort(-table["similarity"].to_numpy()))
    np.testing.assert_allclose(low, places / (len(table) - 1))
    assert table["suspicion"].between(0, 1).all()
    highest = table.groupby("pair_id", sort=False)["suspicion"].max().tolist()
    assert [value for (value,) in values(pairs, "suspicion")] == highest
    for side in ("source", "target"):
        stored = pairs.select_group_slices(side).values("corr.keypoints.suspicion", unwind=True)
        np.testing.assert_allclose(stored, table["suspicion"])


def test_failures_are_told_and_the_rest_goes_on(made, pictures):
    dataset, pairs = made("own", "shifted", "mirrored", "turned")
    match(pairs)
    pictures["shifted"].write_bytes(b"no picture")
    mirrored = next(sample for sample in pairs.select_group_slices("target") if "mirrored" in sample.filepath)
    mirrored.points = fo.Keypoints(keypoints=[fo.Keypoint(points=[[0.5, 0.5]] * 3)])
    mirrored.save()
    summary = match(pairs)
    assert (summary.counts["failed"], summary.counts["skipped"]) == (2, 1)
    reasons = [reason for (reason,) in values(pairs, "error")]
    assert "shifted.png" in reasons[0]
    assert "mirrored.png: points: 3 points, but its skeleton names 4" in reasons[1]
    assert reasons[2] is None
    assert values(pairs, "score", "swaps", "provenance")[:2] == [(None, None, None)] * 2
    assert load_correspondences(pairs, "corr")["pair_id"].nunique() == 1
    assert dataset.values("corr_pairs") == [1, 0, 0, 1]
    with pytest.raises(ImageError, match=r"(shifted|mirrored)\.png"):
        match(pairs, skip_failures=False)
    assert load_record(pairs, "corr")["status"] == "failed"


def test_sources_without_keypoints_fail_and_targets_without_are_not_judged(made):
    _, pairs = made("own", "shifted")
    target = pairs.select_group_slices("target").first()
    target.points = None
    target.save()
    match(pairs)
    assert values(pairs, "matches", "swaps", "judged", "worst_type") == [(4, None, None, None)]
    source = pairs.select_group_slices("source").first()
    source.points = None
    source.save()
    assert match(pairs).counts["failed"] == 1
    assert "own.png: no keypoint in 'points'" in values(pairs, "error")[0][0]


def test_originals_learn_their_worst_error_and_best_partner(made):
    dataset, pairs = made("own", "shifted", "mirrored")
    match(pairs)
    ids = dataset.values("id")
    scores = [score for (score,) in values(pairs, "score")]
    best = ids[1 + int(np.argmax(scores))]
    assert dataset.values("corr_partner") == [best, ids[0], ids[0]]
    assert dataset.values("corr_swaps") == [2, 0, 2]
    assert dataset.values("corr_pairs") == [2, 1, 1]
    assert dataset.values("corr_worst_type") == ["swap_mirror", "correct", "swap_mirror"]
    worst = [value for (value,) in values(pairs, "worst")]
    assert dataset.values("corr_worst") == [max(worst), *worst]


def test_every_picture_is_encoded_once_in_each_view(made, monkeypatch):
    _, pairs = made("own", "shifted", "mirrored", "turned")
    encoded = []
    encode = FeatureExtractor._encode
    monkeypatch.setattr(FeatureExtractor, "_encode", lambda self, chunk: encoded.extend(chunk) or encode(self, chunk))
    match(pairs)
    # The source once, and each of three targets with its mirror image.
    assert len(encoded) == 1 + 2 * 3
    encoded.clear()
    match(pairs, "kept", cache_tokens=True)
    assert len(encoded) == 7
    match(pairs, "more", cache_tokens=True, decoding="nearest", alignment="mirror")
    assert len(encoded) == 7 + 1


def test_options_that_cannot_work_are_refused_before_any_work(made, fo_dataset):
    dataset, pairs = made("own", "shifted")
    for options, message in (
        ({"decoding": "best"}, "decoding='best' is unknown"),
        ({"alignment": "flip"}, "alignment='flip' is unknown"),
        ({"visibility": "both"}, "visibility='both' is unknown"),
        ({"foreground": "grabcut"}, "foreground='grabcut' is unknown"),
        ({"count": 0}, "count=0"),
        ({"alpha": 0}, "alpha=0"),
        ({"keypoints": "nothing"}, "fields with keypoints: points"),
        ({"size": 100}, "not a multiple of the patch size"),
        ({"key": "points"}, "was not made by compute_correspondences"),
    ):
        with pytest.raises(ConfigError, match=message):
            match(pairs, **options)
    with pytest.raises(ConfigError, match="holds no pairs"):
        match(dataset)
    with pytest.raises(ConfigError, match="has no correspondences under key 'corr'"):
        load_correspondences(pairs, "corr")
    assert pairs.get_field("corr") is None


def test_every_error_type_has_a_rank():
    assert sorted(SEVERITY) == sorted(ERROR_TYPES)


def test_the_table_is_a_parquet_file(made):
    _, pairs = made("own", "mirrored")
    summary = match(pairs)
    assert summary.details["table"].endswith(".parquet")
    table = load_correspondences(pairs, "corr")
    assert table["error_type"].value_counts().to_dict() == {"swap_mirror": 2, "correct": 2}
    assert table["mutual"].dtype == bool
    assert write_table(pairs, "corr", table).read_bytes()[:4] == b"PAR1"


def test_a_run_keeps_what_kap_takes_and_the_couples_that_it_was_told(made):
    _, pairs = made("own", "shifted", "mirrored", boxes=[0.1, 0.1, 0.8, 0.8])
    match(pairs, foreground="field:box", couples="left eye = right eye")
    assert load_record(pairs, "corr")["config"]["couples"] == [["left eye", "right eye"]]
    labels = [label for (label,) in values(pairs, "kap_labels")]
    # A keypoint that the target shows is a hit and a rival.
    assert labels == [[True, False] * 4] * 2
    scores = np.array([score for (score,) in values(pairs, "kap_scores")])
    assert scores.min() >= 0
    assert scores.max() == 1
    hits, rivals = scores[:, ::2], scores[:, 1::2]
    # In the shifted copy the true place is the most similar; in the mirrored one the eyes' is the other's.
    assert (hits[0] > rivals[0]).all()
    assert (hits[1] < rivals[1]).tolist() == [True, True, False, False]
    summary = evaluate_correspondences(pairs, "corr", progress=False)
    assert summary.counts["done"] == 2
    (row,) = summary.details["kap"]
    assert row["metric"] == "KAP@0.1 per category, box threshold"
    assert 0.5 < row["value"] < 1
