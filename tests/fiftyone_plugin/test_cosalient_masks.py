"""Masks of what sets of images have in common, stored as a field."""

import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.cosalient_masks import compute_cosalient_masks


def test_a_view_is_one_set_each_member_gets_its_mask_and_a_second_run_skips_it(block_dataset, tiny_model):
    dataset = block_dataset(7)
    view = dataset.match({"object": "0"})
    options = {"model": tiny_model, "device": "cpu", "progress": False}
    summary = compute_cosalient_masks(view, **options)
    assert summary.counts["done"] == 3
    assert dataset.count("cosalient") == 3
    assert view.count("cosalient_fraction") == 3
    assert compute_cosalient_masks(view, **options).counts["skipped"] == 3


def test_one_image_has_nothing_to_share(block_dataset, tiny_model):
    with pytest.raises(ConfigError, match="at least two"):
        compute_cosalient_masks(block_dataset(1), model=tiny_model, device="cpu", progress=False)
