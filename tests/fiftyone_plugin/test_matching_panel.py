"""The Python side of the Matching panel: lists of pairs, one pair with masks and lines, decisions, the way there."""

from pathlib import Path

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.mask_store import read_mask
from fiftyone_selfsame.fiftyone_plugin.match_objects import match_objects
from fiftyone_selfsame.fiftyone_plugin.pair_decisions import pair_verdicts
from fiftyone_selfsame.fiftyone_plugin.panels import MatchingPanel, pair_pages
from PIL import Image

# Of two greys; scores 1, .9, .81, .5 and .04 (nothing in common), with the threshold .8.
GREYS = [(100, 100), (100, 125.5), (100, 148), (20, 147.5), (5, 250)]


@pytest.fixture(autouse=True)
def matcher(colour_matcher):
    """Compares in all tests of this file."""
    return colour_matcher


@pytest.fixture
def made(fo_dataset, tmp_path):
    """Ten grey pictures, and the dataset of their five pairs, in the order of :data:`GREYS`."""
    paths = []
    for number, grey in enumerate(grey for pair in GREYS for grey in pair):
        paths.append(tmp_path / f"{number}.png")
        Image.new("RGB", (12, 8), (round(grey),) * 3).save(paths[-1])
    dataset = fo_dataset(paths)
    ids = dataset.values("id")
    pairs = create_pairs(dataset, pairs=list(zip(ids[::2], ids[1::2], strict=True)))
    yield dataset, pairs
    pairs.delete()


@pytest.fixture
def matched(made):
    """The pairs, compared."""
    _, pairs = made
    match_objects(pairs, progress=False)
    return pairs


def names_of(pairs):
    """``pair_id`` in the order of :data:`GREYS`."""
    return pairs.values("pair_id")


def listed(ask, pairs, **options):
    page = ask(MatchingPanel(), "list_pairs", pairs, key="match", **options)["page"]
    order = names_of(pairs)
    return [order.index(row["pair_id"]) for row in page["pairs"]]


def test_a_dataset_of_images_shows_the_pairs_that_were_made_of_it_and_leads_there(ask, made):
    dataset, pairs = made
    answer = ask(MatchingPanel(), "overview", dataset)

    assert [(row["name"], row["pairs"], row["runs"], row["accepted"]) for row in answer["derived"]] == [
        (pairs.name, 5, [], 0)
    ]
    assert answer["start"]["operator"] == "create_pairs"
    assert ask(MatchingPanel(), "overview", pairs)["start"]["operator"] == "match_objects"
    match_objects(pairs, progress=False)
    assert ask(MatchingPanel(), "overview", dataset)["derived"][0]["runs"] == ["match"]

    opened = ask(MatchingPanel(), "open_dataset", dataset, name=pairs.name)
    pairs.reload()
    assert opened == {"name": pairs.name, "workspace": "matching"}
    space = pairs.load_workspace("Matching")
    assert [side.children[0].type for side in space.children] == ["Samples", "selfsame_matching"]
    assert ask(MatchingPanel(), "open_dataset", pairs, name=dataset.name) == {}
    assert ask.requests["open_dataset"] == {"dataset": dataset.name}
    assert "no dataset 'another'" in ask(MatchingPanel(), "open_dataset", dataset, name="another")["error"]


def test_nothing_is_asked_of_a_panel_without_a_dataset(ask):
    answer = ask(MatchingPanel(), "overview", None)

    assert (answer["derived"], answer["start"]["operator"]) == ([], "create_pairs")


def test_pairs_are_listed_by_doubt_by_score_by_verdict_and_by_decision(ask, matched):
    names = names_of(matched)
    answer = ask(MatchingPanel(), "overview", matched)
    assert answer["run"] == {"key": "match", "threshold": 0.8, "matcher": "colour"}
    assert answer["origins"] == [fo.load_dataset(matched.info["selfsame_pairs"]["origin"]).name]
    assert answer["page"]["kinds"] == {"match": 3, "no_match": 1, "nothing": 1}
    assert [round(row["score"], 2) for row in answer["page"]["pairs"]] == [0.81, 0.9, 1, 0.5, 0.04]
    assert answer["page"]["pairs"][0]["members"][0]["filepath"].endswith("4.png")

    assert listed(ask, matched, sort="highest") == [0, 1, 2, 3, 4]
    assert listed(ask, matched, sort="lowest") == [4, 3, 2, 1, 0]
    assert listed(ask, matched, sort="no such order") == [2, 1, 0, 3, 4]
    assert listed(ask, matched, kind="nothing") == [4]
    assert listed(ask, matched, kind="failed") == []
    ask(MatchingPanel(), "decide", matched, key="match", pair_id=names[1], action="accept")
    ask(MatchingPanel(), "decide", matched, key="match", pair_id=names[3], action="reject")
    assert listed(ask, matched, decision="accept") == [1]
    assert listed(ask, matched, decision="reject", kind="match") == []
    assert listed(ask, matched, decision="undecided", sort="highest") == [0, 2, 4]


def test_the_list_has_pages_and_a_page_beyond_the_last_is_the_last(ask, matched, monkeypatch):
    monkeypatch.setattr(pair_pages, "PAGE_SIZE", 2)
    page = ask(MatchingPanel(), "list_pairs", matched, key="match", sort="highest", page=9)["page"]

    assert (page["page"], page["pages"], page["total"], len(page["pairs"])) == (2, 3, 5, 1)
    assert listed(ask, matched, sort="highest", page=1) == [2, 3]


def test_a_pair_that_failed_or_was_not_compared_is_told_apart(ask, made):
    _, pairs = made
    names = names_of(pairs)
    broken = pairs.match({"pair_id": names[0]}).first()
    Path(broken.filepath).write_text("no picture")
    match_objects(pairs.match({"pair_id": {"$in": names[:3]}}), progress=False)

    assert listed(ask, pairs) == [2, 1, 0]
    assert listed(ask, pairs, kind="failed") == [0]
    row = ask(MatchingPanel(), "list_pairs", pairs, key="match", kind="failed")["page"]["pairs"][0]
    assert (row["kind"], row["score"], row["verdict"]) == ("failed", None, None)
    assert "0.png" in row["error"]


def test_the_list_is_read_anew_after_another_run_of_the_same_key(ask, matched):
    assert ask(MatchingPanel(), "overview", matched)["page"]["kinds"]["match"] == 3
    match_objects(matched, threshold=0.95, progress=False)

    assert ask(MatchingPanel(), "overview", matched)["page"]["kinds"] == {"match": 1, "no_match": 3, "nothing": 1}


def test_an_open_pair_has_masks_and_the_lines_between_points(ask, matched):
    name = names_of(matched)[1]
    answer = ask(MatchingPanel(), "open_pair", matched, key="match", pair_id=name)

    assert answer["pair"]["pair_id"] == name
    assert answer["pair"]["kind"] == "match"
    assert answer["lines"] == [[0.5, 0.5, 0.5, 0.5, pytest.approx(0.9, abs=0.01)]]
    assert [side["filepath"] for side in answer["sides"]] == [
        member["filepath"] for member in answer["pair"]["members"]
    ]
    for side in answer["sides"]:
        assert read_mask(side["mask"]).shape == (8, 12)
        assert read_mask(side["mask"]).all()
        assert matched.match({"pair_id": name})._dataset.get_group(side["group"])
    assert "set_view" not in ask.requests
    ask(MatchingPanel(), "open_pair", matched, key="match", pair_id=name, follow=True)
    assert "set_view" in ask.requests
    ask(MatchingPanel(), "show", matched, group=answer["sides"][0]["group"], sample=answer["sides"][0]["id"])
    assert ask.requests["open_sample"] == {"id": answer["sides"][0]["id"], "group_id": answer["sides"][0]["group"]}
    ask(MatchingPanel(), "show", matched)
    assert "clear_view" in ask.requests


def test_lines_join_the_points_that_share_an_instance_whatever_their_order(ask, matched):
    name = names_of(matched)[0]
    one, other = fo.Instance(), fo.Instance()

    def points(*rows):
        made = [fo.Keypoint(points=[[x, y]], confidence=[c], instance=instance) for x, y, c, instance in rows]
        return fo.Keypoints(keypoints=made)

    labels = {
        "source": points((0.1, 0.2, 0.5, one), (0.3, 0.4, 0.9, other), (0.9, 0.9, 0.1, fo.Instance())),
        "target": points((0.7, 0.8, 0.9, other), (0.5, 0.6, 0.5, one)),
    }
    for sample in matched.match({"pair_id": name}).select_group_slices():
        sample["match_points"] = labels[sample["pair"].name]
        sample.save()

    lines = ask(MatchingPanel(), "open_pair", matched, key="match", pair_id=name)["lines"]

    assert lines == [[0.3, 0.4, 0.7, 0.8, 0.9], [0.1, 0.2, 0.5, 0.6, 0.5]]


def test_decisions_are_tags_and_undo_leads_back_to_their_pair(ask, matched):
    names = names_of(matched)
    panel = MatchingPanel()
    answer = ask(panel, "decide", matched, key="match", pair_id=names[0], action="accept")
    assert answer["pair"]["decision"] == "accept"
    assert answer["progress"] == {"pairs": 5, "accepted": 1, "rejected": 0, "undoable": 1}
    ask(panel, "decide", matched, key="match", pair_id=names[1], action="reject")
    assert pair_verdicts(matched) == {names[0]: "accept", names[1]: "reject"}

    assert ask(panel, "undo", matched, key="match")["pair_id"] == names[1]
    assert ask(panel, "undo", matched, key="match")["progress"]["accepted"] == 0
    assert pair_verdicts(matched) == {}
    assert "no decision" in ask(panel, "undo", matched, key="match")["error"]


def test_what_cannot_be_done_is_said_in_words(ask, matched):
    panel, name = MatchingPanel(), names_of(matched)[0]

    assert "no run 'other'" in ask(panel, "open_pair", matched, key="other", pair_id=name)["error"]
    assert "no pair 'x'" in ask(panel, "open_pair", matched, key="match", pair_id="x")["error"]
    assert "pair_id=3" in ask(panel, "open_pair", matched, key="match", pair_id=3)["error"]
    assert "action='maybe'" in ask(panel, "decide", matched, key="match", pair_id=name, action="maybe")["error"]
    assert "does not open" in ask(panel, "prompt", matched, operator="apply_decisions")["error"]
    ask(panel, "prompt", matched, operator="match_objects", form={"key": "match"})
    assert ask.requests["prompt_user_for_operation"]["params"] == {"view_target": "DATASET", "key": "match"}
    origin = fo.load_dataset(matched.info["selfsame_pairs"]["origin"])
    ask(panel, "prompt", origin, operator="create_pairs")
    assert ask.requests["prompt_user_for_operation"]["params"] == {}
