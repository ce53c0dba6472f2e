"""Symmetry errors of stored matches: their ranking, the fields, the views, and annotations that are exchanged."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.correspondence_table import load_correspondences, write_table
from fiftyone_selfsame.fiftyone_plugin.keypoint_exchange import exchange_labels
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fiftyone_plugin.symmetry_errors import find_symmetry_errors, load_symmetry_errors

CAT = {"left eye": (20, 20), "right eye": (60, 20), "left paw": (20, 80), "right paw": (60, 80), "nose": (40, 40)}
MIRRORED = {
    "left eye": CAT["right eye"],
    "right eye": CAT["left eye"],
    "left paw": CAT["right paw"],
    "right paw": CAT["left paw"],
    "nose": CAT["nose"],
}
WITHOUT = {name: place for name, place in CAT.items() if name != "right eye"}
TITLES = [
    "highest risk first",
    "swaps, most confident first",
    "phantoms",
    "inverted pairs",
    "label suspects",
    "ambiguous but correct",
]


def find(pairs, key="corr", **options):
    return find_symmetry_errors(pairs, key, progress=False, **options)


def values(pairs, *short, key="corr"):
    """Values of every pair, in order."""
    return [tuple(row.values.values()) for row in read_pairs(pairs, [f"{key}_{name}" for name in short])]


def shown(pairs, title, key="corr"):
    """Numbers of the pairs that a saved view shows."""
    ids = pairs.values("pair_id")
    return [ids.index(pair_id) for pair_id in pairs.load_saved_view(f"{key}: {title}").values("pair_id")]


@pytest.fixture
def five(stored, shot, match):
    """Pairs: right; inverted; one paw at the other's place; a phantom of an eye; right, but with a strong rival."""

    def make(**options):
        shots = [shot(CAT), shot(CAT), shot(WITHOUT)]
        found = [
            match(0, 1, CAT, scores={"peak_ratio": 0.5}, pair_scores={"imd_gap": -0.2, "triplet_orientation": 0}),
            match(
                1,
                0,
                MIRRORED,
                scores={"peak_ratio": 0.6, "mirror_peak_ratio": 0.9},
                pair_scores={"imd_gap": 0.4, "triplet_orientation": 1},
            ),
            match(
                0,
                2,
                {**WITHOUT, "left paw": (62, 80), "right eye": (90, 60)},
                {**dict.fromkeys(WITHOUT, 0.8), "left paw": 0.95, "right eye": 0.3},
                {"peak_ratio": 0.9},
            ),
            match(1, 2, {**WITHOUT, "right eye": (21, 20)}, 0.7, {"peak_ratio": 0.8}),
            match(2, 0, WITHOUT, 0.6, {"peak_ratio": {"nose": 0.97, "left eye": 0.4}}),
        ]
        return stored(shots, found, **options)

    return make


def test_known_errors_lead_the_table_by_their_confidence(five):
    _, pairs = five()
    table = find(pairs)
    ids = pairs.values("pair_id")
    errors = table[table["risk"] >= 0.5]
    # The paw at 0.95, four of the inverted pair at 0.9, the phantom at 0.7.
    assert errors["error_type"].tolist() == ["swap_mirror"] * 5 + ["phantom_mirror"]
    assert [ids.index(pair_id) for pair_id in errors["pair_id"]] == [2, 1, 1, 1, 1, 3]
    assert errors["risk"].tolist() == [1.0, 0.75, 0.75, 0.75, 0.75, 0.5]
    assert table["risk"].is_monotonic_decreasing
    assert table.iloc[0][["keypoint", "partner"]].tolist() == ["left paw", "right paw"]
    assert table["pair_risk"].iloc[0] == 1
    stored = load_correspondences(pairs, "corr")
    assert sorted(zip(table["pair_id"], table["keypoint"], strict=True)) == sorted(
        zip(stored["pair_id"], stored["keypoint"], strict=True)
    )


def test_risks_stand_on_both_slices_and_on_every_match(five):
    _, pairs = five()
    table = find(pairs)
    for side in ("source", "target"):
        for sample in pairs.select_group_slices(side):
            own = table[table["pair_id"] == sample.pair_id].set_index("keypoint")
            assert sample.corr_risk == own["risk"].max()
            assert {label.label: label.risk for label in sample.corr.keypoints} == own["risk"].to_dict()
    assert values(pairs, "swap_confidence", "phantom_confidence") == [
        (None, None),
        (0.9, None),
        (0.95, None),
        (None, 0.7),
        (None, None),
    ]
    record = load_record(pairs, "corr_risk")
    assert record["counts"] == {"total": 5, "matches": 24, "swaps": 5, "phantoms": 1, "suspects": 0, "failed": 0}
    assert record["details"]["types"] == "error types at T = 0.1 of the image"


def test_saved_views_show_what_they_say_and_hold_no_ids(five):
    _, pairs = five()
    find(pairs)
    assert [name for name in pairs.list_saved_views() if name.startswith("corr: ")] == [f"corr: {t}" for t in TITLES]
    assert shown(pairs, "highest risk first")[:3] == [2, 1, 3]
    assert shown(pairs, "swaps, most confident first") == [2, 1]
    assert shown(pairs, "phantoms") == [3]
    assert shown(pairs, "inverted pairs") == [1]
    assert shown(pairs, "label suspects") == []
    assert shown(pairs, "ambiguous but correct") == [4]
    indexed = {name.split(".")[0] for name in pairs.list_indexes()}
    for title in TITLES:
        stages = pairs.load_saved_view(f"corr: {title}")._stages
        assert [type(stage).__name__ for stage in stages] == ["Match", "SortBy"]
        (field,) = stages[0].filter
        assert field in indexed
        assert stages[1].field_or_expr == field


def test_several_runs_keep_their_views_apart(five, stored, shot, match):
    _, pairs = five()
    find(pairs)
    pairs.save_view("corr: mine", pairs.limit(1))
    find(pairs)
    assert len(pairs.list_saved_views()) == len(TITLES) + 1
    _, others = stored([shot(CAT)] * 2, [match(0, 1, CAT)], key="other")
    others.save_view("other: phantoms", others.limit(1))
    with pytest.raises(ConfigError, match="has a saved view 'other: phantoms', which is not of find_symmetry_errors"):
        find(others, "other")


def test_without_types_scores_rank_and_views_of_types_go(five):
    _, pairs = five()
    find(pairs)
    table = find(pairs, ground_truth=False)
    assert table["error_type"].isna().all()
    np.testing.assert_allclose(table["risk"], table["label_free_risk"])
    ids = pairs.values("pair_id")
    inverted = table[table["pair_id"] == ids[1]]["risk"]
    fine = table[table["pair_id"] == ids[0]]["risk"]
    assert inverted.min() > fine.max()
    assert pairs.list_saved_views() == ["corr: highest risk first", "corr: inverted pairs"]
    assert shown(pairs, "inverted pairs") == [1]
    assert values(pairs, "swap_confidence") == [(None,)] * 5


def test_scores_that_no_match_has_do_not_count(five):
    _, pairs = five()
    find(pairs)
    quality = {row["score"]: row for row in load_record(pairs, "corr_risk")["details"]["auroc"]}
    assert set(quality) == {
        "label_free_risk",
        "peak_ratio",
        "mirror_peak_ratio",
        "low_similarity",
        "imd_gap",
        "triplet_orientation",
    }
    # Errors at 0.9, 0.8 and four at 0.6. Others: five at 0.5, four at 0.9, four at 0.8, 0.97 and 0.4.
    errors, others = [0.9, 0.8] + [0.6] * 4, [0.5] * 5 + [0.6] + [0.9] * 4 + [0.8] * 4 + [0.97, 0.4]
    wins = np.mean([[(e > o) + 0.5 * (e == o) for o in others] for e in errors])
    assert quality["peak_ratio"]["auroc"] == pytest.approx(wins)
    assert (quality["peak_ratio"]["n_errors"], quality["peak_ratio"]["n_unscored"]) == (6, 2)


def test_weights_can_be_fitted_to_the_known_errors(five):
    _, pairs = five()
    find(pairs, fit_weights=True)
    details = load_record(pairs, "corr_risk")["details"]
    assert sum(details["weights"].values()) == pytest.approx(1)
    assert min(details["weights"].values()) >= 0
    with pytest.raises(ConfigError, match="fit_weights=True takes matches with types"):
        find(pairs, fit_weights=True, ground_truth=False)


def test_a_view_confines_the_table_alone(five):
    _, pairs = five()
    whole = find(pairs)
    pair_id = pairs.values("pair_id")[1]
    part = find(pairs.match({"pair_id": pair_id}))
    assert part["risk"].tolist() == whole[whole["pair_id"] == pair_id]["risk"].tolist()
    assert len(load_symmetry_errors(pairs, "corr")) == len(whole)


@pytest.fixture
def planted(stored, shot, match):
    """Twelve pairs of seven pictures; in the annotation of picture 6 the eyes are exchanged, in picture 5 nothing is
    wrong but the target faces the other way, and pictures 3 and 4 have true swaps of single paws."""
    exchanged = {**CAT, "left eye": CAT["right eye"], "right eye": CAT["left eye"]}
    shots = [*[shot(CAT)] * 6, shot(exchanged)]
    fine = {"imd_gap": -0.2, "triplet_orientation": 0}
    clean = {"mirror_peak_ratio": 0.6, "peak_ratio": 0.6, "flip_inconsistency": 0.02}
    torn = {"mirror_peak_ratio": 0.99, "peak_ratio": 0.99, "flip_inconsistency": 0.5}
    found = [match(one, other, CAT, 0.9, clean, fine) for one, other in ((0, 1), (1, 2), (2, 0), (0, 6), (1, 6))]
    # The exchanged picture as a source: keypoints sit at the other eye, and are found there.
    found.append(match(6, 2, exchanged, 0.9, clean, fine))
    for one, other in ((0, 3), (1, 3), (2, 4), (0, 4)):
        found.append(match(one, other, {**CAT, "left paw": CAT["right paw"]}, 0.95, torn, fine))
    facing = {"imd_gap": 0.3, "triplet_orientation": 1}
    found += [match(one, 5, MIRRORED, 0.95, {**clean, "mirror_peak_ratio": 0.9}, facing) for one in (0, 1)]
    return stored(shots, found)


def test_an_exchange_in_the_annotation_is_among_the_first_suspects(planted):
    dataset, pairs = planted
    table = find(pairs)
    suspects = load_record(pairs, "corr_risk")["details"]["suspects"]
    assert len(suspects) == 3
    wrong = dataset.values("id")[6]
    for suspect in suspects:
        row = next(row for row in read_pairs(pairs) if row.pair_id == suspect["pair_id"])
        assert getattr(row, suspect["side"]).origin_id == wrong
        assert suspect["partners"] == ["left eye", "right eye"]
    assert set(shown(pairs, "label suspects")) == {3, 4, 5}
    assert set(table.dropna(subset=["label_suspect"])["keypoint"]) == {"left eye", "right eye"}
    assert [side for (side,) in values(pairs, "suspect_side")][3:6] == ["target", "target", "source"]
    # What was told apart can be mended with what was told.
    made = exchange_labels(pairs, **{name: suspects[0][name] for name in ("pair_id", "side", "partners")})
    assert (made.sample_id, made.pairs) == (wrong, 3)
    eye = dataset[wrong].points.keypoints[0].points[0]
    assert tuple(np.round(np.array(eye) * 100)) == CAT["left eye"]


def test_nothing_to_rank_by_is_told(stored, shot, match):
    _, pairs = stored([shot(CAT), shot({})], [match(0, 1, CAT)], label_free=False)
    with pytest.raises(ConfigError, match="nothing to rank by"):
        find(pairs)
    with pytest.raises(ConfigError, match="no match has a type"):
        find(pairs, ground_truth=True)
    with pytest.raises(ConfigError, match="has no correspondences under key 'other'"):
        find(pairs, "other")
    with pytest.raises(ConfigError, match="has no symmetry errors under key 'corr_risk'"):
        load_symmetry_errors(pairs, "corr")


def test_types_alone_suffice(five):
    _, pairs = five(label_free=False)
    table = find(pairs)
    assert table["risk"].iloc[0] == 1
    assert (table["risk"] == 0).sum() == 18
    assert table["label_suspect"].isna().all()
    assert shown(pairs, "inverted pairs") == [1]


def test_a_table_of_another_run_is_refused(five):
    _, pairs = five()
    table = load_correspondences(pairs, "corr")
    write_table(pairs, "corr", table.iloc[1:])
    with pytest.raises(ConfigError, match="are not those of the table of key 'corr'"):
        find(pairs)
    assert load_record(pairs, "corr_risk")["status"] == "failed"


def test_fields_of_others_are_not_overwritten(five):
    _, pairs = five()
    pairs.add_sample_field("corr_inversion", fo.FloatField)
    with pytest.raises(ConfigError, match=r"'corr_inversion' .* was not made by find_symmetry_errors"):
        find(pairs)


def test_pairs_that_are_gone_are_left_out(five):
    _, pairs = five()
    gone = pairs.values("pair_id")[1]
    pairs.delete_groups([sample.pair.id for sample in pairs if sample.pair_id == gone])
    table = find(pairs)
    assert gone not in set(table["pair_id"])
    assert len(table) == 19
