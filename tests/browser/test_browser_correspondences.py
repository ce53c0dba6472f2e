"""Correspondences in the real App: a wrong label is found among the suspects, looked into, mended and taken back."""

import re
from pathlib import Path

import fiftyone as fo
import fiftyone_selfsame
import numpy as np
import pytest
from fiftyone_selfsame.fiftyone_plugin.compute_correspondences import compute_correspondences
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.pair_tags import PairTags
from fiftyone_selfsame.fiftyone_plugin.pairs import derived_pairs
from fiftyone_selfsame.fiftyone_plugin.panels.correspondences import TAGS
from fiftyone_selfsame.fiftyone_plugin.symmetry_errors import find_symmetry_errors
from fiftyone_selfsame.fixtures import demo_job
from fiftyone_selfsame.fixtures.scenes.dataset import scenes_dataset
from PIL import Image

NAME = "selfsame-correspondences"
PAIRS = f"{NAME}-pairs"
SCENES = Path(fiftyone_selfsame.__file__).with_name("fixtures") / "scenes" / "tiny"
SIDE, WIDTH, HEIGHT = 320, 288, 256
# How far each picture shows another part of one rendered teddy; the last is mirrored, which exchanges sides.
SHIFTS = [(0, 0), (16, 0), (0, 16), (32, 32), (16, 32)]
MIRRORED, WRONG = 4, 3


@pytest.fixture
def teddies(tmp_path):
    """The demo's dataset with a series of pictures of one teddy besides, and the keypoints that can be seen in them; in
    one of them left and right are exchanged."""
    scenes = scenes_dataset(SCENES)
    scene = scenes.match({"filepath": {"$regex": "teddy-01_pose_02"}}).first()
    names = scenes.info["keypoint_names"]["teddy"]
    label = scene.keypoints.keypoints[0]
    scenes.delete()
    whole = np.asarray(Image.open(scene.filepath).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    kept = [number for number, seen in enumerate(label.visible) if seen]
    names, points = [names[number] for number in kept], np.array([label.points[number] for number in kept]) * SIDE
    dataset = demo_job.build_dataset(NAME, None)
    dataset.default_skeleton = fo.KeypointSkeleton(labels=names, edges=[])
    rng = np.random.default_rng(0)
    for number, (x, y) in enumerate(SHIFTS):
        picture, places = whole[y : y + HEIGHT, x : x + WIDTH], points - (x, y)
        if number == MIRRORED:
            picture, places = picture[:, ::-1], (places * [-1, 1] + [WIDTH, 0])[partners(names)]
        if number == WRONG:
            places = places[partners(names)]
        noisy = (picture + rng.normal(0, 1, picture.shape)).clip(0, 255).astype(np.uint8)
        path = tmp_path / f"teddy{number}.png"
        Image.fromarray(noisy).save(path)
        inside = (places / (WIDTH, HEIGHT)).tolist()
        keypoints = fo.Keypoints(keypoints=[fo.Keypoint(label="teddy", points=inside)])
        dataset.add_sample(fo.Sample(filepath=str(path), points=keypoints, series="teddy"))
    dataset.save()
    yield dataset
    for name in derived_pairs(dataset):
        fo.delete_dataset(name)
    dataset.delete()


def partners(names):
    """Of each keypoint, the number of its mirror partner, or its own."""
    other = {"left": "right", "right": "left"}
    words = [name.split(" ", 1) for name in names]
    mirrored = [" ".join([other.get(first, first), *rest]) for first, *rest in words]
    return [names.index(name) if name in names else number for number, name in enumerate(mirrored)]


@pytest.fixture
def pairs(teddies):
    return create_pairs(teddies, within="series", name=PAIRS, fields=["points"])


@pytest.fixture
def window(page):
    """``window(width, height)``: sets the size of the browser's window."""
    return lambda width, height=900: page.set_viewport_size({"width": width, "height": height})


def make_pairs(app, page, panel):
    """From the panel on the images to that on all pairs of the teddy, which the form makes."""
    panel.part("create-pairs").click()
    app.button("Execute").wait_for()
    page.locator("[role=dialog] [role=combobox]").first.click()
    page.get_by_role("option", name="series").click()
    page.get_by_text("10 pairs.").wait_for()
    app.execute()
    page.wait_for_url(f"**/datasets/{PAIRS}*")
    app.wait_for_grid()
    return app.open_panel("correspondences")


def run(app, panel, button):
    """Opens the form of an operator from the panel, and runs it as it is; returns its last words."""
    panel.part(button).click()
    app.button("Execute").wait_for()
    said = app.execute()[-1]
    panel.part("list").wait_for()
    panel.settle()
    return said


def compute(app, page, panel):
    """The first run, on small canvases."""
    panel.part("start").click()
    app.button("Execute").wait_for()
    page.get_by_text("Advanced options").click()
    page.locator("[role=dialog] input[type=number]").nth(1).fill("288")
    page.wait_for_timeout(1500)
    app.execute()
    panel.part("list").wait_for()
    panel.settle()


@pytest.fixture
def matched(pairs):
    """The pairs with correspondences, ranked."""
    pairs.info[demo_job.MARK] = "pairs of a rendered teddy"
    pairs.save()
    options = {"keypoints": "points", "model": "embedded-hybrid", "size": 288, "device": "cpu", "progress": False}
    compute_correspondences(pairs, **options)
    find_symmetry_errors(pairs, progress=False)
    return pairs


def suspicious(panel) -> str:
    """The image of the open pair whose label is under suspicion, by its file; empty where none is."""
    if not panel.part("labels").get_by_text("is under suspicion").count():
        return ""
    side = panel.part("exchange-side").input_value()
    names = panel.part("open-pair").inner_text().split(" – ")
    return names[side == "target"]


def test_a_wrong_label_is_found_looked_into_mended_and_taken_back(open_app, teddies, page, window, save_screenshot):
    from playwright.sync_api import expect

    window(1600, 1300)
    app = open_app(teddies.name)
    panel = make_pairs(app, page, app.open_panel("correspondences"))
    assert fo.load_dataset(PAIRS).count() == 10
    compute(app, page, panel)
    run(app, panel, "find-symmetry")

    # Of the pairs with a wrong label the likeliest come first, and the suspect is the image that it was planted in.
    panel.part("suspects").check()
    panel.part("sort").select_option("label")
    panel.settle()
    found = None
    for row in panel.root.locator("[data-cy^=selfsame-pair-]").all()[:5]:
        row.click()
        panel.settle()
        if suspicious(panel) == f"teddy{WRONG}.png":
            found = panel.part("open-pair").get_attribute("data-id")
            break
    assert found

    # A swap is drawn with another mark and other dashes than what is right, not only in another colour.
    lines = panel.root.locator("[data-cy^=selfsame-match-]")
    rows = panel.root.locator("[data-cy^=selfsame-row-]")
    assert lines.count() == rows.count() > 10
    expect(panel.part("legend")).to_contain_text("mirror swap")
    expect(panel.part("legend")).to_contain_text("true place")

    # What the keypoint resembles, by the keyboard: the brightest cell is where the best place is marked.
    suspect = panel.root.locator("tr:has(.sfc-suspect)").first
    name = suspect.get_attribute("data-cy").removeprefix("selfsame-row-")
    suspect.focus()
    expect(panel.root.locator(f'[data-cy="selfsame-match-{name}"]')).to_have_class("sfc-match sfc-lit")
    suspect.press("Enter")
    panel.settle()
    expect(panel.part("resembles")).to_contain_text(f"What {name} resembles")
    for heat, picture in (("heat", "picture"), ("heat-mirrored", "mirrored")):
        assert distance_from_peak(panel, heat, picture) < 1.5
    panel.root.locator('[data-cy="selfsame-row-right elbow"]').press("Enter")
    panel.settle()
    panel.part("open-pair").scroll_into_view_if_needed()
    panel.part("run").scroll_into_view_if_needed()
    save_screenshot("correspondences_panel")
    panel.root.focus()
    panel.press("h")
    expect(panel.part("resembles")).to_have_count(0)
    panel.press("m")
    expect(panel.part("side-0").locator("image")).to_have_attribute("transform", re.compile(r"scale\(-1 1\)"))
    panel.press("m")

    # The label is mended on the original, too, and as it was after undo.
    shown = teddies.match({"series": "teddy"})
    before = shown.values("points.keypoints.points")
    panel.part("exchange-all").click()
    expect(panel.part("exchanged")).to_contain_text("4 pairs show this image")
    expect(panel.part("stale")).to_be_visible()
    panel.settle()
    after = shown.values("points.keypoints.points")
    changed = [one != other for one, other in zip(before, after, strict=True)]
    assert changed == [n == WRONG for n in range(len(SHIFTS))]
    panel.part("undo-exchange").click()
    expect(panel.part("stale")).to_have_count(0)
    panel.settle()
    assert shown.values("points.keypoints.points") == before
    panel.part("exchange-all").click()
    panel.part("match-stale").click()
    app.button("Execute").wait_for()
    app.execute()
    panel.part("list").wait_for()
    panel.settle()
    run(app, panel, "find-symmetry")
    expect(panel.part("suspects")).to_have_count(0)

    # Figures, each with its flavour.
    run_figures(app, page, panel)
    expect(panel.part("pck")).to_contain_text("PCK@0.1 per image, image threshold, geometry-aware points")
    expect(panel.part("errors")).to_contain_text("teddy")
    assert not overflows(panel)


def run_figures(app, page, panel):
    """Evaluates from the tab with the figures."""
    panel.part("tab-figures").click()
    panel.part("figures-evaluate").click()
    app.button("Execute").wait_for()
    app.execute()
    panel.part("pck").wait_for()
    panel.settle()


def overflows(panel) -> bool:
    """Whether the panel, or the page, can be scrolled sideways."""
    return panel.root.evaluate(
        """root => [root, ...root.querySelectorAll('main, aside, header, .sfs-columns'), document.documentElement]
            .some(element => element.scrollWidth > element.clientWidth + 1)"""
    )


def distance_from_peak(panel, heat: str, picture: str) -> float:
    """How many cells the brightest pixel of a heat map is from the mark of the best place, both as they are drawn."""
    return panel.root.evaluate(
        """async (root, [heat, picture]) => {
            const svg = root.querySelector(`[data-cy=selfsame-${picture}]`);
            const drawn = svg.querySelector(`[data-cy=selfsame-${heat}]`);
            const mark = svg.querySelector('[data-cy=selfsame-peak] circle');
            const image = new Image();
            image.src = drawn.getAttribute('href');
            await image.decode();
            const canvas = document.createElement('canvas');
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const pen = canvas.getContext('2d');
            pen.drawImage(image, 0, 0);
            const alpha = pen.getImageData(0, 0, canvas.width, canvas.height).data.filter((_, i) => i % 4 === 3);
            const most = Math.max(...alpha);
            const place = name => Number(drawn.getAttribute(name));
            const cell = place('width') / canvas.width;
            const [x, y] = ['cx', 'cy'].map(name => Number(mark.getAttribute(name)));
            const distances = [...alpha].map((value, i) => {
                if (value < most) return Infinity;
                const [column, row] = [i % canvas.width, Math.floor(i / canvas.width)];
                return Math.hypot(place('x') + (column + 0.5) * cell - x, place('y') + (row + 0.5) * cell - y) / cell;
            });
            return Math.min(...distances);
        }""",
        [heat, picture],
    )


@pytest.mark.slow
def test_everything_is_within_reach_at_any_width_and_by_key(open_app, matched, page, window):
    from playwright.sync_api import expect

    window(1600)
    app = open_app(matched.name)
    panel = app.open_panel("correspondences")
    panel.part("list").wait_for()
    panel.settle()
    first = panel.part("open-pair").get_attribute("data-id")
    panel.press("s")
    second = panel.part("open-pair").get_attribute("data-id")
    assert second != first
    panel.press("o", "p", "p", "c")
    assert panel.part("open-pair").get_attribute("data-id") == first
    tags = PairTags("pairs:correspondences", TAGS)
    assert tags.verdicts(matched) == {second: "ok"}
    panel.press("u", "u", "u")
    assert tags.verdicts(matched) == {}

    panel.part("least").fill("0.99")
    panel.settle()
    shown = panel.root.locator("[data-cy^=selfsame-match-]").count()
    expect(panel.part("hidden")).to_contain_text("below the confidence shown")
    panel.part("least").fill("0")
    assert panel.root.locator("[data-cy^=selfsame-match-]").count() > shown
    for colour in ("similarity", "suspicion", "type"):
        panel.part("colour").select_option(colour)
        panel.settle()
        expect(panel.part("legend")).to_be_visible()
    panel.root.locator("[data-cy^=selfsame-match-]").first.locator(".sfc-start").click()
    panel.settle()
    expect(panel.part("resembles")).to_be_visible()
    for width in (1060, 1280, 1600, 2000):
        window(width)
        page.wait_for_timeout(300)
        assert not overflows(panel), width
        for name in ("action-ok", "action-swap", "exchange", "heat-off", "undo"):
            panel.part(name).scroll_into_view_if_needed()
            assert panel.part(name).bounding_box()["width"] >= 20
    panel.part("views").select_option("correspondence: label suspects")
    expect(page.locator("[data-cy=entry-counts]")).to_have_text(re.compile(r"^\d groups?"))


@pytest.mark.slow
def test_in_the_modal_the_panel_shows_the_pair_of_the_open_sample(open_app, matched, page, window):
    from playwright.sync_api import expect

    window(1600)
    app = open_app(matched.name)
    page.locator("[data-cy=fo-grid] [data-cy=looker]").first.click()
    modal = page.locator("[data-cy=modal]")
    modal.locator("[data-cy=panel-tab-selfsame_correspondences]").click()
    panel = app.opened_panel("correspondences")
    panel.part("open-pair").wait_for()
    panel.settle()
    order = matched.values("pair_id")
    expect(panel.part("open-pair")).to_have_attribute("data-id", order[0])
    modal.locator("[data-cy=nav-right-button]").click()
    expect(panel.part("open-pair")).to_have_attribute("data-id", order[1])
    assert not overflows(panel)
    expect(panel.part("follow")).to_have_count(0)
