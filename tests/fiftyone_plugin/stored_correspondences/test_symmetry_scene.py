"""Symmetry errors from pictures to suspects: features of the embedded model, and an annotation with sides exchanged."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.keypoint_exchange import exchange_labels
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fiftyone_plugin.symmetry_errors import find_symmetry_errors
from PIL import Image

SIDE = 160
NAMES = ["left eye", "right eye", "left paw", "right paw", "nose"]
POINTS = np.array([[52.0, 44], [104, 52], [60, 104], [112, 108], [84, 76]])
PARTNERS = [1, 0, 3, 2, 4]
# How far each picture shows another part of the scene; the last ones are mirrored, which exchanges sides.
SHIFTS = [(0, 0), (16, 0), (0, 16), (-16, 16), (16, 16), (8, 8)]
MIRRORED = (4, 5)
WRONG = 3


@pytest.fixture
def scene(fo_dataset, tmp_path):
    """Six pictures of one scene, two of them mirrored; in the annotation of the fourth the eyes are exchanged."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (14, 14, 3), dtype=np.uint8))
    whole = np.asarray(coarse.resize((SIDE + 64, SIDE + 64), Image.Resampling.BICUBIC))
    paths, labels = [], []
    for number, (x, y) in enumerate(SHIFTS):
        picture = whole[32 + y :, 32 + x :][:SIDE, :SIDE].astype(float)
        points = POINTS - (x, y)
        if number in MIRRORED:
            picture, points = picture[:, ::-1], (points * [-1, 1] + [SIDE, 0])[PARTNERS]
        if number == WRONG:
            points = points[[1, 0, 2, 3, 4]]
        noisy = picture + rng.normal(0, 8, picture.shape)
        paths.append(tmp_path / f"view{number}.png")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1])
        labels.append(fo.Keypoints(keypoints=[fo.Keypoint(label="cat", points=(points / SIDE).tolist())]))
    dataset = fo_dataset(paths)
    dataset.default_skeleton = fo.KeypointSkeleton(labels=NAMES, edges=[])
    dataset.set_values("points", labels)
    ids = dataset.values("id")
    chosen = [(one, other) for number, one in enumerate(ids) for other in ids[number + 1 :]]
    pairs = create_pairs(dataset, pairs=chosen, fields=["points"])
    yield dataset, pairs
    pairs.delete()


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
