"""The Python side of the Correspondences panel: lists, one pair with its matches, heat maps, labels mended, figures."""

import base64

import numpy as np
import pytest
from fiftyone_selfsame.brain.backbones.loader import load_backbone
from fiftyone_selfsame.brain.correspondence.diffusion import DiffusionConfig
from fiftyone_selfsame.brain.correspondence.features import FeatureConfig, FeatureExtractor
from fiftyone_selfsame.brain.correspondence.views import IDENTITY, MIRROR
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fiftyone_plugin import correspondence_setup
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.evaluate_correspondences import evaluate_correspondences
from fiftyone_selfsame.fiftyone_plugin.pair_tags import PairTags
from fiftyone_selfsame.fiftyone_plugin.pairs import flat_pairs
from fiftyone_selfsame.fiftyone_plugin.panels import CorrespondencesPanel, correspondence_pages
from fiftyone_selfsame.fiftyone_plugin.runs import RunSummary, load_record, register_run
from fiftyone_selfsame.fiftyone_plugin.symmetry_errors import find_symmetry_errors
from fiftyone_selfsame.fixtures.diffusion_folders import make_diffusion_folder

WIDTH, HEIGHT, CELL = 160, 128, 16
NAMES = ["left eye", "right eye", "left paw", "right paw", "nose"]
POINTS = np.array([[52.0, 28], [104, 36], [60, 88], [112, 92], [84, 60]])
# How far each picture shows another part of the scene; the last ones are mirrored, which exchanges sides.
SHIFTS = [(0, 0), (16, 0), (0, 16), (-16, 16), (16, 16)]
MIRRORED = (4,)
# In the annotation of this one the eyes are exchanged.
WRONG = 3


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Tables and tokens go to a folder of this test."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))


@pytest.fixture
def made(scene_pairs):
    """Five pictures of one scene, and the dataset of all their ten pairs."""
    category = {2: "dog"}
    return scene_pairs((WIDTH, HEIGHT), POINTS, SHIFTS, MIRRORED, WRONG, lambda number: category.get(number, "cat"))


def compute(pairs, key="corr", **options):
    given = {"model": "embedded-hybrid", "size": WIDTH, "device": "cpu", "progress": False, "keypoints": "points"}
    return compute_correspondences(pairs, key, **{**given, **options})


@pytest.fixture
def matched(made):
    """The pairs with correspondences, ranked."""
    _, pairs = made
    compute(pairs)
    find_symmetry_errors(pairs, "corr", progress=False)
    return pairs


def pair_of(pairs, one, other):
    """``pair_id`` of two pictures, by their numbers."""
    return pairs.match({"filepath": {"$regex": f"view{one}.png"}}).values("pair_id")[other - one - 1]


def listed(ask, pairs, **options):
    return ask(CorrespondencesPanel(), "list_pairs", pairs, key="corr", **options)["page"]


def opened(ask, pairs, pair_id):
    return ask(CorrespondencesPanel(), "open_pair", pairs, key="corr", pair_id=pair_id)


def test_a_dataset_of_images_leads_to_its_pairs_and_pairs_to_their_first_run(ask, made):
    dataset, pairs = made
    panel = CorrespondencesPanel()
    home = ask(panel, "overview", dataset)
    assert [(row["name"], row["pairs"], row["runs"], row["ok"]) for row in home["derived"]] == [(pairs.name, 10, [], 0)]
    assert home["start"]["operator"] == "create_pairs"
    assert ask(panel, "overview", pairs)["start"]["operator"] == "compute_correspondences"
    assert ask(panel, "overview", None)["derived"] == []
    assert ask(panel, "open_dataset", dataset, name=pairs.name)["workspace"] == "correspondences"
    pairs.reload()
    space = pairs.load_workspace("Correspondences")
    assert [side.children[0].type for side in space.children] == ["Samples", "selfsame_correspondences"]
    compute(pairs)
    assert ask(panel, "overview", dataset)["derived"][0]["runs"] == ["corr"]


def test_pairs_are_listed_by_risk_suspicion_error_and_score_and_filtered(ask, matched):
    everything = listed(ask, matched)
    assert (everything["sort"], everything["sorts"]) == ("risk", ["risk", "suspicion", "worst", "score", "label"])
    for sort, field, reverse in (
        ("risk", "risk", True),
        ("suspicion", "suspicion", True),
        ("worst", "worst", True),
        ("score", "score", False),
    ):
        values = [row[field] for row in listed(ask, matched, sort=sort)["pairs"]]
        assert values == sorted(values, reverse=reverse)
        assert len(set(values)) > 1
    labels = [row["label_suspect"] for row in listed(ask, matched, sort="label")["pairs"]]
    assert labels == sorted(labels, key=lambda value: 1 if value is None else -value)
    assert labels[0] is not None
    assert everything["categories"] == {"cat": 8, "dog": 2}
    assert {row["category"] for row in listed(ask, matched, category="dog")["pairs"]} == {"dog"}
    expected = {
        row["pair_id"]
        for row in everything["pairs"]
        if any(match["error_type"] == "swap_mirror" for match in opened(ask, matched, row["pair_id"])["matches"])
    }
    swaps = listed(ask, matched, kind="swap_mirror")
    assert {row["pair_id"] for row in swaps["pairs"]} == expected
    assert everything["types"]["swap_mirror"] == swaps["total"] == len(expected) > 0
    assert next(iter(everything["types"])) == "swap_mirror"
    suspects = listed(ask, matched, suspects=True)
    assert suspects["total"] == everything["suspects"] > 0
    assert all(row["label_suspect"] is not None and row["suspect_side"] for row in suspects["pairs"])


def test_without_risks_lists_go_by_suspicion_and_pages_end_with_the_last(ask, made, monkeypatch):
    _, pairs = made
    compute(pairs)
    monkeypatch.setattr(correspondence_pages, "PAGE_SIZE", 4)
    page = listed(ask, pairs, sort="risk", page=9)
    assert (page["sort"], page["page"], page["pages"], page["total"], len(page["pairs"])) == ("suspicion", 2, 3, 10, 2)


def test_a_pair_that_failed_is_listed_last_with_its_reason(ask, made, tmp_path):
    _, pairs = made
    (tmp_path / "view4.png").write_text("no picture")
    compute(pairs)
    rows = listed(ask, pairs)["pairs"]
    assert [row["error"] is None for row in rows] == [True] * 6 + [False] * 4
    assert "view4.png" in rows[-1]["error"]
    answer = opened(ask, pairs, rows[-1]["pair_id"])
    assert (answer["matches"], answer["stale"]) == ([], False)


def test_an_open_pair_has_matches_true_places_and_partners(ask, matched):
    pair_id = pair_of(matched, 0, 1)
    answer = opened(ask, matched, pair_id)
    flat = {
        side: matched.match({"pair_id": pair_id}).select_group_slices(side).first() for side in ("source", "target")
    }
    assert [side["filepath"] for side in answer["sides"]] == [flat[side].filepath for side in ("source", "target")]
    assert [match["name"] for match in answer["matches"]] == NAMES
    assert [match["partner"] for match in answer["matches"]] == [*(NAMES[one] for one in (1, 0, 3, 2)), None]
    for number, match in enumerate(answer["matches"]):
        for side in ("source", "target"):
            np.testing.assert_allclose(match[side], flat[side].corr.keypoints[number].points[0], atol=1e-5)
        np.testing.assert_allclose(match["truth"], flat["target"].points.keypoints[0].points[number], atol=1e-5)
        assert match["error_type"] == "correct"
        assert match["similarity"] == pytest.approx(flat["source"].corr.keypoints[number].confidence[0], abs=1e-5)
        assert match["risk"] is not None
    assert answer["couples"] == [["left eye", "right eye"], ["left paw", "right paw"]]
    assert (answer["stale"], answer["exchanges"]) == (False, {"count": 0, "last": None})
    assert "set_view" not in ask.requests
    ask(CorrespondencesPanel(), "open_pair", matched, key="corr", pair_id=pair_id, follow=True)
    assert "set_view" in ask.requests
    swapped = {match["name"]: match["error_type"] for match in opened(ask, matched, pair_of(matched, 0, 4))["matches"]}
    assert swapped["left eye"] == swapped["right paw"] == "swap_mirror"


def grid_of(one):
    return np.frombuffer(base64.b64decode(one["values"]), np.uint8).reshape(one["height"], one["width"])


def test_a_heat_map_is_the_similarity_of_the_keypoint_to_all_cells(ask, matched):
    pair_id = pair_of(matched, 0, 1)
    answer = ask(CorrespondencesPanel(), "heatmap", matched, key="corr", pair_id=pair_id, name="right paw")
    paths = [side["filepath"] for side in opened(ask, matched, pair_id)["sides"]]
    extractor = FeatureExtractor(load_backbone("embedded-hybrid", device="cpu"), FeatureConfig(WIDTH))
    source, target, mirrored = (
        extractor(decode_image(path), view=view)
        for path, view in ((paths[0], IDENTITY), (paths[1], IDENTITY), (paths[1], MIRROR))
    )
    # Letterboxed: the picture is as wide as the canvas, with a cell of padding above and below.
    row, column = (92 + 16) // CELL, 112 // CELL
    descriptor = source.features[row, column].numpy()
    for name, picture in (("target", target), ("mirrored", mirrored)):
        expected = picture.features.numpy() @ descriptor
        expected = np.where(picture.valid, expected, np.nan)
        one = answer[name]
        assert (one["low"], one["high"]) == pytest.approx((np.nanmin(expected), np.nanmax(expected)), abs=1e-4)
        found = one["low"] + grid_of(one) / 255 * (one["high"] - one["low"])
        assert np.abs(found - expected)[picture.valid].max() < (one["high"] - one["low"]) / 255
        assert one["content"] == [0, 0.1, 1, 0.8]
        assert one["peak"]["similarity"] == pytest.approx(np.nanmax(expected), abs=1e-4)
    match = opened(ask, matched, pair_id)["matches"][3]
    np.testing.assert_allclose(answer["target"]["peak"]["place"], match["target"], atol=1e-4)
    assert (answer["partner"], answer["rival_is"], answer["notice"]) == ("left paw", "annotated", None)
    rival = answer["target"]["rival"]
    np.testing.assert_allclose(rival["place"], (POINTS[2] - (16, 0)) / (WIDTH, HEIGHT), atol=1e-5)
    cell = (88 + 16) // CELL, (60 - 16) // CELL
    assert rival["similarity"] == pytest.approx(float(target.features[cell].numpy() @ descriptor), abs=1e-4)
    assert answer["mirrored"]["rival"]["place"][0] == pytest.approx(1 - rival["place"][0])


def test_a_heat_map_of_an_aligned_pair_is_that_of_the_turned_source(ask, made):
    _, pairs = made
    compute(pairs, alignment="mirror")
    pair_id = pair_of(pairs, 0, 4)
    answer = opened(ask, pairs, pair_id)
    assert answer["pair"]["view"] == "mirror"
    for match in answer["matches"]:
        found = ask(CorrespondencesPanel(), "heatmap", pairs, key="corr", pair_id=pair_id, name=match["name"])
        np.testing.assert_allclose(found["target"]["peak"]["place"], match["target"], atol=1e-4)
        assert found["target"]["peak"]["similarity"] == pytest.approx(match["similarity"], abs=1e-4)
    assert answer["matches"][0]["handed_over"]


def test_a_heat_map_with_a_second_network_is_that_of_the_run(ask, made, tmp_path, monkeypatch):
    pytest.importorskip("diffusers")
    monkeypatch.setattr(correspondence_setup, "DIFFUSION", DiffusionConfig(size=192, crop=128))
    _, pairs = made
    chosen = pairs.match({"pair_id": pair_of(pairs, 0, 1)})
    folder = str(make_diffusion_folder(tmp_path / "diffusion"))
    compute(chosen, diffusion=folder, alignment="mirror")
    answer = opened(ask, pairs, pair_of(pairs, 0, 1))
    assert len(answer["matches"]) == len(NAMES)
    for match in answer["matches"]:
        asked = {"key": "corr", "pair_id": answer["pair"]["pair_id"], "name": match["name"]}
        peak = ask(CorrespondencesPanel(), "heatmap", pairs, **asked)["target"]["peak"]
        np.testing.assert_allclose(peak["place"], match["target"], atol=1e-3)
        assert peak["similarity"] == pytest.approx(match["similarity"], abs=1e-4)
    form = ask(CorrespondencesPanel(), "overview", pairs, key="corr")["run"]["form"]
    assert form["advanced"]["diffusion"] == folder


def test_another_run_like_one_takes_its_mirror_partners_as_text(ask, made):
    _, pairs = made
    compute(pairs, couples=[("left eye", "right eye"), ("left paw", "right paw")])
    form = ask(CorrespondencesPanel(), "overview", pairs, key="corr")["run"]["form"]
    assert form["couples"] == "left eye = right eye; left paw = right paw"
    advanced = form.pop("advanced")
    again = compute_correspondences(pairs, **form, **advanced, device="cpu", progress=False)
    assert again.counts["skipped"] == 10


def test_a_heat_map_without_keypoints_or_without_the_model(ask, made):
    _, pairs = made
    compute(pairs, keypoints=None)
    pair_id = pair_of(pairs, 0, 1)
    match = opened(ask, pairs, pair_id)["matches"][0]
    assert (match["partner"], match["truth"], match["error_type"]) == (None, None, None)
    panel, asked = CorrespondencesPanel(), {"key": "corr", "pair_id": pair_id}
    answer = ask(panel, "heatmap", pairs, **asked, name=match["name"])
    np.testing.assert_allclose(answer["target"]["peak"]["place"], match["target"], atol=1e-4)
    assert (answer["target"]["rival"], answer["rival_is"]) == (None, None)
    assert "no match of a keypoint 'tail'" in ask(panel, "heatmap", pairs, **asked, name="tail")["error"]
    assert "without keypoints" in ask(panel, "exchange", pairs, **asked, side="source")["error"]

    record = load_record(pairs, "corr")
    record["config"]["features"]["weights_hash"] = "other"
    summary = RunSummary("corr", record["method"], record["counts"], details=record["details"])
    register_run(pairs, summary, record["config"])
    assert "has changed since the run" in ask(panel, "heatmap", pairs, **asked, name=match["name"])["notice"]
    record["config"]["features"]["backbone"] = "/no/such/model"
    register_run(pairs, summary, record["config"])
    assert "take the model of the run" in ask(panel, "heatmap", pairs, **asked, name=match["name"])["error"]


def test_decisions_are_tags_on_both_slices_and_each_can_be_undone(ask, matched):
    panel = CorrespondencesPanel()
    first, second = (row["pair_id"] for row in listed(ask, matched)["pairs"][:2])
    answer = ask(panel, "decide", matched, key="corr", pair_id=first, action="ok")
    assert answer["progress"] == {"pairs": 10, "ok": 1, "swap": 0, "undoable": 1}
    assert answer["pair"]["decision"] == "ok"
    ask(panel, "decide", matched, key="corr", pair_id=second, action="swap")
    ask(panel, "decide", matched, key="corr", pair_id=first, action="swap")
    tags = flat_pairs(matched).match({"pair_id": first}).values("tags")
    assert tags == [["correspondence:swap"]] * 2
    assert [row["pair_id"] for row in listed(ask, matched, decision="swap")["pairs"]] == [first, second]
    assert listed(ask, matched, decision="undecided")["total"] == 8
    assert ask(panel, "undo", matched)["pair_id"] == first
    assert [row["decision"] for row in listed(ask, matched)["pairs"][:2]] == ["ok", "swap"]
    ask(panel, "decide", matched, key="corr", pair_id=second, action="clear")
    assert ask(panel, "undo", matched)["progress"]["swap"] == 1
    for _ in range(2):
        ask(panel, "undo", matched)
    assert set(matched.count_sample_tags()) == set()
    assert "no decision" in ask(panel, "undo", matched)["error"]
    assert "action='maybe'" in ask(panel, "decide", matched, key="corr", pair_id=first, action="maybe")["error"]
    assert "no pair 'x'" in ask(panel, "decide", matched, key="corr", pair_id="x", action="ok")["error"]


def test_of_two_tags_by_hand_the_later_word_holds(matched):
    tags = PairTags("pairs:correspondences", {"ok": "correspondence:ok", "swap": "correspondence:swap"})
    sample = matched.first()
    matched.select(sample.id).tag_samples(["correspondence:ok", "correspondence:swap"])
    assert tags.verdicts(matched) == {sample.pair_id: "swap"}
    tags.decide(matched, [sample.pair_id], "ok")
    assert tags.verdicts(matched) == {sample.pair_id: "ok"}
    tags.undo(matched)
    assert sorted(matched[sample.id].tags) == ["correspondence:ok", "correspondence:swap"]


def test_a_planted_exchange_is_among_the_first_suspects_is_mended_and_taken_back(ask, matched, made):
    dataset, _ = made
    panel = CorrespondencesPanel()
    rows = listed(ask, matched, suspects=True, sort="label")["pairs"][:5]
    wrong = [row for row in rows if row["members"][row["suspect_side"] == "target"]["filepath"].endswith("view3.png")]
    assert wrong
    pair_id, side = wrong[0]["pair_id"], wrong[0]["suspect_side"]
    before = dataset.values("points.keypoints.points")
    asked = {"key": "corr", "pair_id": pair_id, "side": side}
    answer = ask(panel, "exchange", matched, **asked, partners=["right eye", "left eye"])
    assert answer["exchanged"] == {"pair_id": pair_id, "side": side, "couples": [["left eye", "right eye"]], "pairs": 4}
    assert (answer["stale"], answer["exchanges"]["count"]) == (True, 1)
    mended = dataset.values("points.keypoints.points")[WRONG][0]
    np.testing.assert_allclose(mended[:2], before[WRONG][0][1::-1])
    assert "no two mirror partners" in ask(panel, "exchange", matched, **asked, partners=["nose", "left eye"])["error"]

    form = ask(panel, "overview", matched, key="corr")["run"]["form"]
    advanced = form.pop("advanced")
    again = compute_correspondences(matched, **form, **advanced, device="cpu", progress=False)
    assert (again.counts["done"], again.counts["skipped"]) == (4, 6)
    assert opened(ask, matched, pair_id)["stale"] is False
    assert ask(panel, "overview", matched, key="corr")["run"]["outdated"] is True

    taken_back = ask(panel, "undo_exchange", matched, key="corr")
    assert (taken_back["pair"]["pair_id"], taken_back["undone"]["side"]) == (pair_id, side)
    assert dataset.values("points.keypoints.points") == before
    assert "no exchange" in ask(panel, "undo_exchange", matched, key="corr")["error"]
    whole = ask(panel, "exchange", matched, **asked, partners=None)
    assert whole["exchanged"]["couples"] == [["left eye", "right eye"], ["left paw", "right paw"]]


def test_the_latest_evaluation_and_the_saved_views_of_the_run_are_at_hand(ask, matched):
    panel = CorrespondencesPanel()
    assert ask(panel, "figures", matched, key="corr") == {"evaluation": None}
    evaluate_correspondences(matched, "corr", alphas=[0.1, 0.05], progress=False)
    answer = ask(panel, "figures", matched, key="corr")["evaluation"]
    assert answer["counts"]["done"] == 10
    assert {row["metric"] for row in answer["details"]["pck"]} >= {"PCK@0.05 per point, image threshold"}
    assert answer["details"]["errors"]
    views = ask(panel, "overview", matched, key="corr")["run"]["views"]
    assert "corr: label suspects" in views
    ask(panel, "show_view", matched, key="corr", name="corr: label suspects")
    assert ask.requests["set_view"] == {"name": "corr: label suspects"}
    ask(panel, "show_view", matched, key="corr")
    assert "clear_view" in ask.requests
    assert "no saved view 'mine'" in ask(panel, "show_view", matched, key="corr", name="mine")["error"]
    ask(panel, "prompt", matched, operator="evaluate_correspondences", form={"key": "corr", "download": True})
    assert ask.requests["prompt_user_for_operation"]["params"]["download"] is True
    assert "does not open" in ask(panel, "prompt", matched, operator="apply_decisions")["error"]


def test_in_the_modal_the_pair_of_the_open_sample_is_shown(matched):
    from fiftyone.operators.executor import ExecutionContext, Executor

    panel, sample = CorrespondencesPanel(), matched.select_group_slices("target").skip(3).first()
    request = {"dataset_name": matched.name, "operator_uri": panel.uri, "params": {"panel_id": "p"}}
    executor = Executor()
    context = ExecutionContext({**request, "current_sample": sample.id}, executor=executor)
    assert panel.overview(context)["current"] == sample.pair_id
    panel.on_change_current_sample(context)
    assert executor._requests[-1].params["state"] == {"current": sample.pair_id}
    assert panel.overview(ExecutionContext(request, executor=executor))["current"] is None
