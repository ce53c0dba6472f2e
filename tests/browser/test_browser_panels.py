"""The panels in the real App: find, move the threshold, decide by click and by key, undo, export; split and merge."""

import csv
import re

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin.duplicate_views import preview_counts
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates
from fiftyone_selfsame.fiftyone_plugin.group_table import group_members, group_table
from fiftyone_selfsame.fiftyone_plugin.object_clusters import cluster_objects

# A threshold between two others, at which the demo's photographs fall into other groups.
HIGHER = 0.97


@pytest.fixture(scope="module")
def embedded():
    """The demo's photographs with embeddings."""
    from fiftyone_selfsame.fixtures import demo_job

    dataset = demo_job.build_dataset("selfsame-panels", None)
    demo_job.api.compute_ffa(dataset, model=demo_job.default_backbone_name(), progress=False)
    yield dataset
    dataset.delete()


@pytest.fixture
def dataset(embedded):
    """A copy for one test, by which the App has no panel open yet."""
    copy = embedded.clone("selfsame-panels-copy", persistent=True)
    yield copy
    copy.delete()


@pytest.fixture
def window(page):
    """``window(width, height)``: sets the size of the browser's window."""
    return lambda width, height=900: page.set_viewport_size({"width": width, "height": height})


def test_a_curator_finds_duplicates_moves_the_threshold_decides_and_undoes(open_app, dataset, page, window):
    from playwright.sync_api import expect

    window(1600)
    app = open_app(dataset.name)
    panel = app.open_panel("duplicates")
    panel.part("start").click()
    app.button("Execute").wait_for()
    app.execute()
    panel.part("list").wait_for()
    panel.settle()
    dataset.reload()
    sizes = group_table(dataset, "dup").size
    assert len(panel.listed()) == len(sizes)

    # Dragging the line tells what the threshold would give; nothing changes before it is asked for.
    threshold = drag_threshold(panel, page, HIGHER)
    counts = preview_counts(dataset, "dup", threshold)
    text = f"{counts['groups']} groups, {counts['duplicates']} duplicates, largest {counts['largest']}"
    expect(panel.part("counts")).to_have_text(text)
    assert counts["groups"] != len(sizes)
    panel.part("regroup").click()
    app.button("Execute").wait_for()
    app.execute()
    expect(panel.part("counts")).to_contain_text(f"{counts['groups']} groups")
    expect(panel.part("regroup")).to_have_count(0)
    dataset.reload()
    assert dataset.get_run_info("dup").config.details["threshold"] == pytest.approx(threshold)

    # Three groups, one action each.
    first, second, third, fourth = panel.listed()[:4]
    show_in_grid(app, panel, page, first)
    panel.press("k")
    expect(panel.part("open-group")).to_have_text(f"Group {second}")
    panel.part("action-keep_all").click()
    expect(panel.part("open-group")).to_have_text(f"Group {third}")
    panel.press("r")
    expect(panel.part("open-group")).to_have_text(f"Group {fourth}")
    expect(panel.part("progress")).to_contain_text("3 of")
    decisions = {group: decided(dataset, group) for group in (first, second, third)}
    assert decisions[first] == ["keep"] + ["drop"] * (len(decisions[first]) - 1)
    assert set(decisions[second]) == {"keep"}
    assert set(decisions[third]) <= {"reject"}

    # The table of decisions, and what applying them would do; neither changes anything.
    with page.expect_download() as download:
        panel.part("export").click()
        app.button("Execute").wait_for()
        app.execute()
    rows = list(csv.DictReader(download.value.path().open(newline="")))
    assert sorted(row["decision"] for row in rows if row["group"] == str(first)) == sorted(decisions[first])
    panel.part("apply").click()
    app.button("Execute").wait_for()
    *_, said = app.execute()
    assert f"{decisions[first].count('drop')} drop" in said
    assert len(fo.load_dataset(dataset.name)) == 49

    panel.press("u", "u", "u")
    expect(panel.part("progress")).to_contain_text("0 of")
    expect(panel.part("open-group")).to_have_text(f"Group {first}")
    dataset.reload()
    assert dataset.count_sample_tags() == {}
    assert dataset.count("dup_decision") == 0


@pytest.mark.slow
def test_a_narrow_panel_has_everything_within_reach(open_app, dataset, page, window, save_screenshot):
    from playwright.sync_api import expect

    find_duplicates(dataset, progress=False)
    window(760)
    app = open_app(dataset.name)
    panel = app.open_panel("duplicates")
    panel.part("list").wait_for()
    panel.settle()

    assert panel.overflow() <= 0
    first, second = panel.listed()[:2]
    for name in ("keep_best", "keep_all", "reject"):
        panel.part(f"action-{name}").scroll_into_view_if_needed()
        assert panel.part(f"action-{name}").bounding_box()["width"] >= 20
    panel.part("action-keep_best").click()
    expect(panel.part("open-group")).to_have_text(f"Group {second}")
    panel.part("undo").click()
    expect(panel.part("open-group")).to_have_text(f"Group {first}")
    app.wait_for_samples(len(panel.members()))
    save_screenshot("duplicates_panel_narrow")

    window(1600)
    panel.part("advance").uncheck()
    panel.press("k")
    expect(panel.part("open-group")).to_have_text(f"Group {first}")
    expect(panel.part("member-0")).to_contain_text("keep")
    assert panel.overflow() <= 0
    app.wait_for_samples(len(panel.members()))
    save_screenshot("duplicates_panel")


def test_clusters_are_opened_split_merged_and_restored(open_app, dataset, page, window, save_screenshot):
    from playwright.sync_api import expect

    cluster_objects(dataset, "objects", progress=False)
    before = dataset.values("objects_cluster")
    window(1600)
    app = open_app(dataset.name)
    panel = app.open_panel("objects")
    panel.part("list").wait_for()
    panel.part("map").wait_for()
    table = group_table(dataset, "objects")
    sizes = dict(zip(table.group.tolist(), table.size.tolist(), strict=True))
    big = max(panel.listed(), key=sizes.get)
    panel.part(f"group-{big}").click()
    expect(panel.part("open-group")).to_have_text(f"Cluster {big}")
    app.wait_for_samples(sizes[big])
    save_screenshot("objects_panel")

    # A point of the map leads to its cluster.
    point = panel.part("map-open").first.bounding_box()
    other = next(group for group in panel.listed() if group != big)
    panel.part(f"group-{other}").click()
    expect(panel.part("open-group")).to_have_text(f"Cluster {other}")
    page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    expect(panel.part("open-group")).to_have_text(f"Cluster {big}")

    # What is split off becomes a cluster of its own; the rest stays open.
    known = set(panel.listed())
    panel.press("1", "2")
    chosen = set(panel.members()[:2])
    panel.part("action-split").click()
    tiles = panel.root.locator("[data-cy^=selfsame-member-]")
    expect(tiles).to_have_count(sizes[big] - 2)
    panel.settle()
    (part,) = set(panel.listed()) - known
    dataset.reload()
    assert {member.id for member in group_members(dataset, "objects", [part])[part]} == chosen

    panel.part(f"mark-{part}").check()
    panel.press("m")
    expect(tiles).to_have_count(sizes[big])
    panel.settle()
    assert set(panel.listed()) == known

    panel.press("u", "u")
    dataset.reload()
    assert dataset.values("objects_cluster") == before
    assert panel.overflow() <= 0


def show_in_grid(app, panel, page, group) -> None:
    """Opens a group and waits for the grid to follow. While the App still reads the dataset anew after an operator, it
    forgets a view that is set meanwhile; a user clicks again."""
    from playwright.sync_api import TimeoutError, expect

    for _ in range(4):
        panel.part(f"group-{group}").click()
        expect(panel.part("open-group")).to_have_text(f"Group {group}")
        counted = re.compile(rf"^{len(panel.members()):,} samples?$")
        try:
            page.locator("[data-cy=entry-counts]", has_text=counted).wait_for(timeout=15_000)
        except TimeoutError:
            continue
        break
    app.wait_for_samples(len(panel.members()))


def drag_threshold(panel, page, wanted: float) -> float:
    """Drags the line of the histogram to about a threshold; returns where it is then."""
    line = panel.part("threshold")
    plot = panel.root.locator("[data-cy=selfsame-histogram] > div").first.bounding_box()
    low, high = (float(panel.part(f"axis-{end}").inner_text()) for end in ("low", "high"))
    start = line.bounding_box()
    x = plot["x"] + plot["width"] * (wanted - low) / (high - low)
    page.mouse.move(start["x"] + 1, start["y"] + 30)
    page.mouse.down()
    page.mouse.move(x, start["y"] + 30, steps=8)
    page.mouse.up()
    return float(panel.part("threshold-value").inner_text())


def decided(dataset, group) -> list:
    """Decisions of the members of a group as it is now, the keeper first."""
    return [member.decision for member in group_members(dataset, "dup", [group])[group]]
