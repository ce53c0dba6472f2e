"""Searching by object in the real App: decompose, open a picture, pick a region, search, look, clear."""

from pathlib import Path

import numpy as np
import pytest
from fiftyone_selfsame.fixtures.demo_search import BOX, PHOTOGRAPH


@pytest.fixture
def dataset():
    """The demo's photographs, with nothing computed."""
    from fiftyone_selfsame.fixtures import demo_job

    dataset = demo_job.build_dataset(None, None)
    yield dataset
    dataset.delete()


def test_a_region_that_is_picked_finds_the_other_pictures_of_its_object(open_app, dataset, page, save_screenshot):
    before = dataset.values("id")
    app = open_app(dataset.name)
    app.choose_operator("Compute regions (CLAID)")
    save_screenshot("compute_claid_regions")
    *_, result = app.execute()
    assert "49 done" in result
    dataset.reload()
    query = next(sample for sample in dataset if Path(sample.filepath).name == PHOTOGRAPH)
    region = max(query.regions.detections, key=lambda label: overlap(label.bounding_box, BOX))

    page.locator("[data-cy=fo-grid] [data-cy=looker]").nth(before.index(query.id)).click()
    click_in_picture(page, point_of(region, query.regions.detections))
    page.locator(".material-icons", has_text="image_search").click()
    page.get_by_text("The object in 1 selected label").wait_for()
    save_screenshot("search_form")
    app.execute_without_result()
    page.locator("[data-cy=modal]").wait_for(state="hidden")
    app.wait_for_samples(48)

    dataset.reload()
    found = dataset.exists("search_rank").sort_by("search_rank")
    assert dataset.get_run_info("search").config.config["query"]["labels"][0]["label_id"] == region.id
    assert found.limit(3).values("object") == [query.object] * 3
    shown = app.values_in_grid("search_similarity")
    similarities = found.values("search_similarity")
    assert [float(text) for text in shown] == pytest.approx(similarities[: len(shown)], abs=1e-3)
    save_screenshot("search_by_object")

    app.choose_operator("Clear object search")
    app.execute_without_result()
    app.wait_for_samples(49)
    dataset.reload()
    assert dataset.values("id") == before
    assert not dataset.has_field("search_rank")

    app.choose_operator("Show region level")
    app.execute_without_result()
    app.wait_for_samples(49)
    save_screenshot("region_level")


def overlap(box, other) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    low = np.maximum(box[:2], other[:2])
    high = np.minimum(np.add(box[:2], box[2:]), np.add(other[:2], other[2:]))
    inner = np.prod(np.clip(high - low, 0, None))
    return float(inner / (box[2] * box[3] + other[2] * other[3] - inner))


def point_of(region, regions) -> tuple[float, float]:
    """A point (x, y) relative to the picture that lies in a region and in as few others as can be."""
    x, y, width, height = region.bounding_box
    rows, columns = np.nonzero(region.mask)
    points = np.stack(
        [x + width * (columns + 0.5) / region.mask.shape[1], y + height * (rows + 0.5) / len(region.mask)]
    )
    crowd = np.zeros(points.shape[1])
    for other in regions:
        ox, oy, owidth, oheight = other.bounding_box
        inside = (points[0] > ox) & (points[0] < ox + owidth) & (points[1] > oy) & (points[1] < oy + oheight)
        crowd += inside & (other.id != region.id) & (owidth * oheight < width * height)
    return tuple(points[:, crowd.argmin()])


def click_in_picture(page, point) -> None:
    """Clicks on a point of the picture that is open, which fills the canvas as far as its shape allows."""
    page.locator("[data-cy=modal] canvas[canvas-loaded=true]").first.wait_for()
    canvas = page.locator("[data-cy=modal] canvas").first.bounding_box()
    side = min(canvas["width"], canvas["height"])
    left = canvas["x"] + (canvas["width"] - side) / 2
    top = canvas["y"] + (canvas["height"] - side) / 2
    x, y = left + side * point[0], top + side * point[1]
    page.mouse.move(x, y)
    # The App needs a moment to see what lies beneath the pointer.
    page.wait_for_timeout(1000)
    page.mouse.click(x, y)
