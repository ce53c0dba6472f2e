"""Matched pairs in the real App: a catalogue is checked, and its evidence reviewed with masks, lines, keys and undo."""

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.pair_decisions import pair_verdicts
from fiftyone_selfsame.fiftyone_plugin.pairs import derived_pairs

NAME = "selfsame-matching"


@pytest.fixture
def demo():
    """The demo's photographs, filed by product and use; what is made of them goes with them."""
    from fiftyone_selfsame.fixtures import demo_job

    dataset = demo_job.build_dataset(NAME, None)
    yield dataset
    for name in derived_pairs(dataset):
        fo.delete_dataset(name)
    dataset.delete()


@pytest.fixture
def window(page):
    """``window(width, height)``: sets the size of the browser's window."""
    return lambda width, height=900: page.set_viewport_size({"width": width, "height": height})


def test_a_catalogue_is_checked_and_its_evidence_reviewed(open_app, demo, page, window, save_screenshot):
    from playwright.sync_api import expect

    window(1600)
    app = open_app(demo.name)
    panel = app.open_panel("matching")
    panel.part("check-catalogue").click()
    app.button("Execute").wait_for()
    *_, said = app.execute()
    assert "15 products" in said

    # The evidence is a dataset of its own, to which the panel leads.
    evidence = fo.load_dataset(f"{demo.name}-catalogue")
    expect(panel.part(f"dataset-{evidence.name}")).to_contain_text("evidence of a catalogue check")
    panel.part(f"open-{evidence.name}").click()
    page.wait_for_url(f"**/datasets/{evidence.name}*")
    panel = app.opened_panel("matching")
    panel.part("list").wait_for()
    panel.settle()

    # The documents of one product show another; it is the most doubtful.
    wrong = "god-morgon-apple-juice"
    expect(panel.part("open-pair")).to_have_text(wrong)
    expect(panel.part("stage")).to_contain_text("No match")
    assert mask_edges(panel) == [True, True]
    expect(panel.root.locator("[data-cy^=selfsame-line-]")).to_have_count(12)
    panel.press("m", "l")
    expect(panel.root.locator("[data-cy^=selfsame-mask-]")).to_have_count(0)
    expect(panel.root.locator("[data-cy^=selfsame-line-]")).to_have_count(0)
    panel.press("m", "l")
    row = panel.part("lines").locator("tbody tr").nth(2)
    row.focus()
    expect(panel.part("line-2")).to_have_class("sfs-line sfs-lit")
    panel.root.focus()

    # By key: this one is not the same, the next one is; each counts at once, and each can be undone.
    first = panel.part("open-pair").get_attribute("data-id")
    panel.press("r")
    second = panel.part("open-pair").get_attribute("data-id")
    assert second != first
    panel.press("a")
    assert pair_verdicts(evidence) == {first: "reject", second: "accept"}
    expect(panel.part("progress")).to_contain_text("2 of 13")
    expect(panel.root.locator("[data-cy^=selfsame-mask-]")).to_have_count(2)
    save_screenshot("matching_panel")
    panel.press("u", "u")
    expect(panel.part("open-pair")).to_have_attribute("data-id", first)
    assert pair_verdicts(evidence) == {}

    panel.part("kind").select_option("no_match")
    expect(panel.root.locator("[data-cy^=selfsame-pair-]")).to_have_count(1)
    panel.part("origin").click()
    page.wait_for_url(f"**/datasets/{demo.name}")


def mask_edges(panel) -> list[bool]:
    """Of both pictures: whether what is dimmed has been loaded and is neither all nor nothing."""
    return panel.root.evaluate(
        """async root => {
            const masks = [...root.querySelectorAll('[data-cy^=selfsame-side-] mask image')];
            return Promise.all(masks.map(async mask => {
                const image = new Image();
                image.src = mask.getAttribute('href');
                await image.decode();
                const canvas = document.createElement('canvas');
                [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
                const context = canvas.getContext('2d');
                context.drawImage(image, 0, 0);
                const values = context.getImageData(0, 0, canvas.width, canvas.height).data;
                let [low, high] = [255, 0];
                for (let i = 0; i < values.length; i += 4)
                    [low, high] = [Math.min(low, values[i]), Math.max(high, values[i])];
                return low === 0 && high === 255;
            }));
        }"""
    )


@pytest.mark.slow
def test_pairs_are_compared_from_the_panel_and_everything_is_within_reach(
    open_app, demo, page, window, save_screenshot
):
    from playwright.sync_api import expect

    ids = demo.values("id")
    pairs = create_pairs(demo, pairs=[(ids[0], ids[1]), (ids[1], ids[6])], name=f"{demo.name}-two")
    window(900)
    app = open_app(demo.name)
    panel = app.open_panel("matching")
    panel.part(f"open-{pairs.name}").click()
    page.wait_for_url(f"**/datasets/{pairs.name}*")
    panel = app.opened_panel("matching")
    panel.part("start").click()
    app.button("Execute").wait_for()
    app.execute()
    panel.part("list").wait_for()
    panel.settle()

    expect(panel.root.locator("[data-cy^=selfsame-pair-]")).to_have_count(2)
    assert panel.overflow() <= 0
    for name in ("action-accept", "action-reject", "undo"):
        panel.part(name).scroll_into_view_if_needed()
        assert panel.part(name).bounding_box()["width"] >= 20
    window(2000)
    panel.settle()
    assert panel.overflow() <= 0
    panel.part("follow").check()
    panel.press("j")
    counts = page.locator("[data-cy=entry-counts]")
    expect(counts).to_contain_text("1 group")
    panel.part("follow").uncheck()
    expect(counts).to_have_text("4 samples")
