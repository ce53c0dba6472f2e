"""Metrics of keypoints against golden vectors: PCK in every flavour, KAP, error types, filters, groups and splits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.correspondence.fusion import fuse, unit_features
from fiftyone_selfsame.brain.correspondence.grids import points_to_cells
from fiftyone_selfsame.brain.correspondence.keypoint_groups import known_groups
from fiftyone_selfsame.brain.correspondence.matching import blend, similarity_map
from fiftyone_selfsame.brain.correspondence.readers.ap10k import read_prepared_ap10k, split_species
from fiftyone_selfsame.brain.correspondence.readers.groups_file import read_groups
from fiftyone_selfsame.brain.correspondence.readers.spair71k import read_spair71k
from fiftyone_selfsame.brain.geometry import plan_geometry
from fiftyone_selfsame.brain.metrics.kap import kap, kap_samples
from fiftyone_selfsame.brain.metrics.keypoint_taxonomies import eccv22_counts
from fiftyone_selfsame.brain.metrics.match_filters import cycle_matches, sphere_kept
from fiftyone_selfsame.brain.metrics.pck import (
    EvaluatedPair,
    PckFlavour,
    geometry_aware,
    mirror_pair_in_source,
    opposite_half,
    pair_verdicts,
    pck,
    pck_table,
)

CANVAS = 840


@pytest.fixture
def golden(request, shared_dir):
    """``golden("pck_ap10k.npz")``: its arrays by name; of a JSON file, its path."""
    given = request.config.getoption("--reference-dir")
    folder = Path(given) if given else shared_dir / "reference"

    def load(name):
        found = sorted(folder.rglob(name))
        if not found:
            pytest.skip(f"needs {name}, which is absent below {folder}")
        if found[0].suffix == ".json":
            return found[0]
        with np.load(found[0], allow_pickle=False) as arrays:
            return dict(arrays)

    return load


def _to_image(points, size_wh):
    """Points of a letterboxed canvas in pixels of the image."""
    top, left = plan_geometry((int(size_wh[1]), int(size_wh[0])), CANVAS, 14, "letterbox").content[:2]
    return (np.asarray(points, float) - (left, top)) * max(size_wh) / CANVAS


def _write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def _check_values(pairs, arrays):
    """Every PCK of the arrays by its own name, from a table of all flavours."""
    flavours = {
        (average, kind): [PckFlavour(float(alpha), average, points=points) for alpha in arrays["alpha"]]
        for average in ("image", "point")
        for kind, points in (("", "all"), ("_geo", "geometry_aware"))
    }
    checked = set()
    for (average, kind), own in flavours.items():
        rows = pck_table(pairs, own)
        cells = {(row.flavour.alpha, row.category, row.azimuth_difference): row for row in rows}
        assert len(cells) == len(rows)
        for column, alpha in enumerate(arrays["alpha"]):
            for (stated, category, turn), row in cells.items():
                ending = f"_cat_{category}" if category else "" if turn is None else f"_az{turn}"
                key = f"out_per_{average}{kind}{ending}"
                if stated == alpha and key in arrays:
                    np.testing.assert_allclose(row.value, arrays[key][column], rtol=0, atol=1e-5, err_msg=key)
                    assert f"per {average}" in str(row)
                    checked.add(key)
    expected = {key for key in arrays if key.startswith(("out_per_image", "out_per_point"))}
    assert checked == expected


def _spair_folder(folder, arrays):
    """The annotations as SPair-71k stores them, each picture under a name of its own."""
    lines = []
    for index, category in enumerate(arrays["category"]):
        for end in ("src", "trg"):
            width, height = arrays[f"{end}_size_wh"][index]
            places = arrays[f"{end}_kps_xy"][index]
            name = f"2008_{end}{index:03d}"
            content = {
                "filename": f"{name}.jpg",
                "image_width": int(width),
                "image_height": int(height),
                "category": str(category),
                "bndbox": arrays[f"{end}_bbox_xyxy"][index].tolist(),
                "kps": {str(slot): None if place[0] < 0 else place.tolist() for slot, place in enumerate(places)},
                "azimuth_id": int(arrays[f"{end}_azimuth_id"][index]),
            }
            _write_json(folder / "ImageAnnotation" / category / f"{name}.json", content)
            _touch(folder / "JPEGImages" / category / f"{name}.jpg")
        lines.append(f"{index:06d}-2008_src{index:03d}-2008_trg{index:03d}:{category}")
    layout = folder / "Layout" / "large" / "test.txt"
    layout.parent.mkdir(parents=True)
    layout.write_text("\n".join(lines) + "\n")


def test_from_the_folder_of_spair_to_every_pck(golden, tmp_path):
    arrays = golden("pck_from_annotations.npz")
    _spair_folder(tmp_path, arrays)

    data = read_spair71k(tmp_path)

    pairs = [
        pair.evaluated(_to_image(points, size), data.groups[pair.category])
        for pair, points, size in zip(data.pairs, arrays["pred_xy"], arrays["trg_size_wh"], strict=True)
    ]
    _check_values(pairs, arrays)
    np.testing.assert_array_equal([pair.judged for pair in pairs], arrays["out_mutually_visible"])
    aware = [geometry_aware(pair.groups, pair.source_visible, pair.target_visible) for pair in pairs]
    np.testing.assert_array_equal(aware, arrays["out_geometry_aware"])
    differences = [pair.azimuth_difference for pair in data.pairs]
    np.testing.assert_array_equal(differences, arrays["out_azimuth_difference"])
    halves = opposite_half(arrays["src_azimuth_id"], arrays["trg_azimuth_id"])
    np.testing.assert_array_equal(halves, arrays["out_opposite_half"].astype(bool))
    lengths = [
        pair.reference_length("box") * CANVAS / max(size)
        for pair, size in zip(pairs, arrays["trg_size_wh"], strict=True)
    ]
    np.testing.assert_allclose(lengths, arrays["out_threshold_px"], rtol=1e-5)
    whole = pck(pairs, PckFlavour())
    aware_result = pck(pairs, PckFlavour(points="geometry_aware"))
    assert (whole.n_points, aware_result.n_points, aware_result.n_images) == tuple(
        int(arrays[f"out_{name}"]) for name in ("n_points", "n_points_geo", "n_images_geo")
    )
    for pair, expected, valid in zip(
        data.pairs, arrays["out_flip_pair_in_source"], arrays["flip_pair_valid_rows"], strict=True
    ):
        if valid:
            partners = data.groups[pair.category].permutation
            found = mirror_pair_in_source(partners, pair.source.visible, pair.target.visible)
            np.testing.assert_array_equal(found, expected)


def test_from_the_prepared_folder_of_ap10k_to_every_pck(golden, tmp_path):
    arrays = golden("pck_ap10k.npz")
    for index in range(len(arrays["pred_xy"])):
        paths = {}
        for number, end in enumerate(("src", "trg")):
            width, height = arrays[f"{end}_size_wh"][index]
            name = f"{2 * index + number:012d}"
            content = {
                "width": int(width),
                "height": int(height),
                "bbox": arrays[f"{end}_bbox_ltwh"][index].tolist(),
                "keypoints": arrays[f"{end}_kps_xyv"][index].ravel().tolist(),
                "id": 2 * index + number,
                "category_id": 5,
            }
            _write_json(tmp_path / "ImageAnnotation" / "Felidae" / "lion" / f"{name}.json", content)
            _touch(tmp_path / "JPEGImages" / "Felidae" / "lion" / f"{name}.jpg")
            paths[f"{end}_json_path"] = f"data/ap-10k/ImageAnnotation/Felidae/lion/{name}.json"
        _write_json(tmp_path / "PairAnnotation" / "test" / f"{index:02d}:lion.json", paths)

    data = read_prepared_ap10k(tmp_path)

    pairs = [
        pair.evaluated(_to_image(points, size), data.groups["lion"])
        for pair, points, size in zip(data.pairs, arrays["pred_xy"], arrays["trg_size_wh"], strict=True)
    ]
    _check_values(pairs, arrays)
    np.testing.assert_array_equal([pair.judged for pair in pairs], arrays["out_mutually_visible"])
    aware = [geometry_aware(pair.groups, pair.source_visible, pair.target_visible) for pair in pairs]
    np.testing.assert_array_equal(aware, arrays["out_geometry_aware"])


@pytest.mark.parametrize("way", ["argmax", "window7", "window5_flip_masked", "window5_flip_mutual"])
def test_pck_at_the_end_of_the_evaluation_loop(golden, way):
    arrays = golden("evaluation_loop.npz")
    groups = known_groups("spair71k", str(arrays["category"])).group_ids
    pairs = []
    for index, length in enumerate(arrays["thresholds_px"]):
        source, target = arrays["kps"][2 * index : 2 * index + 2]
        seen = source[:, 2] > 0, target[:, 2] > 0
        pairs.append(EvaluatedPair(arrays[f"{way}__pred_xy"][index], target[:, :2], *seen, groups, (length, 1)))

    for column, alpha in enumerate(arrays["alpha"].tolist()):
        values = {
            "per_point": pck(pairs, PckFlavour(alpha, "point")).value,
            "per_image": pck(pairs, PckFlavour(alpha, "image")).value,
            "geo_per_point": pck(pairs, PckFlavour(alpha, "point", points="geometry_aware")).value,
        }
        expected = {name: arrays[f"{way}__{name}"][column] for name in values}
        assert values == pytest.approx(expected, abs=1e-5)
    whole, aware = (pck(pairs, PckFlavour(points=kind)) for kind in ("all", "geometry_aware"))
    assert aware.n_points == arrays[f"{way}__n_geo_points"]
    shares = aware.n_images / whole.n_images, aware.n_points / whole.n_points
    np.testing.assert_allclose(shares, arrays[f"{way}__geo_fraction_images_points"], atol=1e-6)


def _kap_maps(arrays, index, fused, sphere):
    """Similarities ``(n, 60, 60)`` of the keypoints that the source of a pair shows, and their slots."""
    source = arrays["kps"][2 * index]
    seen = np.flatnonzero(source[:, 2] > 0)
    cells = points_to_cells(source[seen, :2], (60, 60), 14)
    raw = [torch.from_numpy(arrays[f"desc_{end}"][index].astype(np.float32)) for end in ("src", "trg")]
    others = [torch.from_numpy(arrays[f"other_{end}"][index].astype(np.float32)) for end in ("src", "trg")]
    features = [unit_features(one) for one in raw]
    if fused:
        features = [fuse(other, one, renormalise=False) for other, one in zip(others, raw, strict=True)]
    weight, bias = (torch.from_numpy(arrays[f"sphere_linear_{part}"]) for part in ("weight", "bias"))
    spheres = [unit_features(one @ weight.T + bias) for one in raw]
    kind = "euclidean" if fused else "cosine"
    plain, round_ = (similarity_map(one[cells], two.view(60, 60, -1), kind) for one, two in (features, spheres))
    return (blend(plain, round_) if sphere else plain).numpy(), seen


@pytest.mark.parametrize("setting", ["vit_cos", "vit_cos_sphere", "fused_l2", "fused_l2_sphere"])
def test_kap_and_its_samples(golden, setting):
    arrays = golden("kap_60.npz")
    maps = [
        _kap_maps(arrays, index, setting.startswith("fused"), setting.endswith("sphere"))
        for index in range(len(arrays["desc_src"]))
    ]
    for column, alpha in enumerate(arrays["alpha"].tolist()):
        samples = []
        for index, (similarity, seen) in enumerate(maps):
            target = arrays["kps"][2 * index + 1][seen]
            radius = alpha * float(arrays["thresholds_px"][index])
            samples.append(kap_samples(similarity, target[:, :2], target[:, 2] > 0, radius, 14))

        result = kap([("cat", one) for one in samples], alpha)

        labels = np.concatenate([one.labels for one in samples])
        scores = np.concatenate([one.scores for one in samples])
        np.testing.assert_array_equal(labels, arrays[f"{setting}__kap_labels"][column] > 0.5)
        np.testing.assert_allclose(scores, arrays[f"{setting}__kap_scores"][column], rtol=0, atol=2e-5)
        assert result.value == pytest.approx(arrays[f"{setting}__kap"][column], abs=1e-3)
        assert result.alpha == alpha


@pytest.mark.parametrize("setting", ["vit_cos", "vit_cos_sphere", "fused_l2", "fused_l2_sphere"])
def test_pck_beside_kap(golden, setting):
    arrays = golden("kap_60.npz")
    flat, start, pairs = arrays[f"{setting}__pred_xy_mutually_visible"], 0, []
    for index, length in enumerate(arrays["thresholds_px"]):
        source, target = arrays["kps"][2 * index : 2 * index + 2]
        both = (source[:, 2] > 0) & (target[:, 2] > 0)
        predictions = np.full((len(source), 2), np.nan)
        predictions[both] = flat[start : start + both.sum()]
        start += both.sum()
        seen = source[:, 2] > 0, target[:, 2] > 0
        pairs.append(EvaluatedPair(predictions, target[:, :2], *seen, np.arange(len(source)), (length, length)))

    assert start == len(flat)
    found = [pck(pairs, PckFlavour(float(alpha), "point")).value for alpha in arrays["alpha"]]
    np.testing.assert_allclose(found, arrays[f"{setting}__pck_per_point"], atol=1e-6)


def test_counts_of_the_eccv_2022_analysis(golden):
    arrays = golden("error_types_eccv22.npz")
    names = {"jitter": "jitter", "miss": "miss", "swap": "swap"}
    names |= {"correct_exclusive": "correct_exclusive", "correct": "correct_plain"}
    for row, (targets, predictions) in enumerate(zip(arrays["trg_kps_xy"], arrays["prd_kps_xy"], strict=True)):
        counts = eccv22_counts(predictions, targets, float(arrays["alpha"] * arrays["threshold_px"][row]))

        for ours, theirs in names.items():
            assert getattr(counts, ours) == arrays[f"n_{theirs}"][row], (row, ours)


def test_surviving_matches_of_the_cycle_filters(golden):
    arrays = golden("match_filters.npz")
    descriptors = arrays["desc"].astype(np.float32)
    sides = [arrays["foreground_1"], arrays["foreground_2"]]
    grid = int(arrays["grid"])
    places = np.stack([sides[0] % grid, sides[0] // grid], 1)

    matches = cycle_matches(descriptors[0][sides[0]] @ descriptors[1][sides[1]].T, places)

    tolerances = {"cycle_strict_0": 0, "cycle_eucl_dist_1": 1, "cycle_eucl_dist_2": 2, "cycle_none_0": np.inf}
    for name, tolerance in tolerances.items():
        kept = matches.kept(tolerance)
        np.testing.assert_array_equal(sides[0][kept], arrays[f"{name}__src"], err_msg=name)
        np.testing.assert_array_equal(sides[1][matches.target[kept]], arrays[f"{name}__trg"], err_msg=name)


def test_surviving_matches_of_the_sphere_filter(golden):
    arrays = golden("match_filters.npz")

    np.testing.assert_array_equal(sphere_kept(arrays["sphere_1"], arrays["sphere_2"]), arrays["sphere_kept_0.15"])
    wider = sphere_kept(arrays["sphere_1"], arrays["sphere_2"], 0.25)
    np.testing.assert_array_equal(wider, arrays["sphere_kept_0.25"])


def test_groups_partners_and_sides_of_every_public_category(golden):
    tables = read_groups(golden("keypoint_groups.json"))

    assert set(tables) == {"spair71k", "ap10k"}
    for data_set, categories in tables.items():
        for category, expected in categories.items():
            assert known_groups(data_set, category) == expected


def test_splits_of_a_species_by_the_number_of_its_pictures(golden):
    for n, *expected in golden("ap10k_split.npz")["n_train_val_test_overlapVT_overlapTrT"].tolist():
        parts = split_species(range(n))

        shared = [len(set(parts[one]) & set(parts["test"])) for one in ("val", "train")]
        assert [*(len(parts[name]) for name in ("train", "val", "test")), *shared] == expected
        assert [*parts["train"], *parts["val"], *parts["test"]] == list(range(n))


def test_pck_dagger_is_the_exclusive_count_of_the_eccv_2022_analysis(golden):
    arrays = golden("error_types_eccv22.npz")
    for row, (targets, predictions) in enumerate(zip(arrays["trg_kps_xy"], arrays["prd_kps_xy"], strict=True)):
        seen = np.ones(len(targets), bool)
        length = float(arrays["threshold_px"][row])
        pair = EvaluatedPair(predictions, targets, seen, seen, np.arange(len(targets)), (length, length))
        verdicts = pair_verdicts(pair, PckFlavour(float(arrays["alpha"]), exclusive=True))
        assert verdicts.sum() == arrays["n_correct_exclusive"][row]
