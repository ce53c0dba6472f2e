"""The curator's day in the real App: from photographs to decisions, all through the operator browser."""

import time

import numpy as np
import pytest


@pytest.fixture
def dataset():
    """The demo's photographs, with nothing computed."""
    from fiftyone_selfsame.fixtures import demo_job

    dataset = demo_job.build_dataset(None, None)
    yield dataset
    dataset.delete()


def test_a_curator_embeds_groups_tags_and_undoes(open_app, dataset, save_screenshot):
    app = open_app(dataset.name)
    app.choose_operator("Compute FFA embeddings")
    save_screenshot("compute_ffa")
    *progress, result = app.execute()
    assert any(step.endswith("of 49") for step in progress)
    assert "49 done" in result

    app.choose_operator("Find duplicates")
    save_screenshot("find_duplicates")
    *progress, _ = app.execute()
    assert any(step.endswith("of 49") for step in progress)

    app.choose_operator("Show duplicate groups")
    app.execute_without_result()
    dataset.reload()
    members = dataset.match({"dup_group": {"$gte": 0}}).sort_by([("dup_group", 1), ("dup_role", -1)])
    app.wait_for_samples(len(members))
    assert app.values_in_grid("dup_group") == [str(group) for group in members.values("dup_group")]
    assert app.values_in_grid("dup_role") == members.values("dup_role")
    # The copies that the demo makes are found, also with the small encoder of a machine without a network.
    assert {"as_png", "as_bmp", "file_copy"} <= set(members.values("edit"))
    save_screenshot("groups")

    app.choose_operator("Tag duplicates")
    app.execute()
    shown = app.values_in_grid("tags-duplicate:keep") + app.values_in_grid("tags-duplicate:drop")
    assert len(shown) == len(members)
    save_screenshot("tags")
    dataset.reload()
    roles = members.count_values("dup_role")
    assert dataset.count_sample_tags() == {"duplicate:keep": roles["keeper"], "duplicate:drop": roles["duplicate"]}

    app.choose_operator("Undo duplicate tags")
    app.execute()
    dataset.reload()
    assert dataset.count_sample_tags() == {}


@pytest.mark.slow
def test_masks_lie_over_the_pictures_once_they_are_computed(open_app, dataset, save_screenshot):
    app = open_app(dataset.name)
    bare = app.first_thumbnail()

    app.choose_operator("Compute foreground masks")
    *_, result = app.execute()

    assert "49 done" in result
    dataset.reload()
    assert dataset.count("foreground.mask_path") == 49
    # The mask is drawn over a part of the picture, once the thumbnail has been loaded anew.
    deadline = time.monotonic() + 60
    while not 0.05 < share_of_changed_pixels(bare, app.first_thumbnail()) < 0.95:
        assert time.monotonic() < deadline, "no mask was drawn"
    save_screenshot("foreground")


def share_of_changed_pixels(before, after) -> float:
    difference = np.abs(np.asarray(before, float) - np.asarray(after, float)).max(axis=2)
    return float((difference > 30).mean())
