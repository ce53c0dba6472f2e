"""Masks of the groups of a run: each member of each duplicate group or cluster gets that of their common object."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin import cosalient_masks
from fiftyone_selfsame.fiftyone_plugin.cosalient_masks import compute_cosalient_masks
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.exact_duplicates import find_exact_duplicates
from fiftyone_selfsame.fiftyone_plugin.mask_store import read_mask
from fiftyone_selfsame.fiftyone_plugin.object_clusters import cluster_objects
from fiftyone_selfsame.fiftyone_plugin.runs import load_record

# Pictures 0, 3, 6 and 9 show one object, 1, 4 and 7 another, 2, 5 and 8 a third, see the fixture.
COUNT = 10

OBJECTS = [number % 3 for number in range(COUNT)]


@pytest.fixture
def masked(tiny_model, tmp_path, monkeypatch):
    """compute_cosalient_masks with the tiny model, and without a progress bar."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))

    def run(samples, **options):
        return compute_cosalient_masks(samples, **{"model": tiny_model, "device": "cpu", "progress": False, **options})

    return run


@pytest.fixture
def searched(block_dataset):
    """Pictures of three objects with vectors by which they are grouped; that of the last picture is unlike any."""
    dataset = block_dataset(COUNT)
    rng = np.random.default_rng(0)
    vectors = np.eye(4, 8)[[*OBJECTS[:-1], 3]] + rng.normal(scale=0.01, size=(COUNT, 8))
    dataset.add_sample_field("ffa", fo.VectorField)
    dataset.set_values("ffa", list(vectors.astype(np.float32)))
    return dataset


def _duplicates(dataset, key="run"):
    return find_duplicates(dataset, key, threshold=0.9, shots=False, progress=False)


def _clusters(dataset, key="run"):
    return cluster_objects(dataset, key, similarity="cosine", threshold=0.5, progress=False)


def _iou(sample):
    """Of the mask with the block, whose box is known."""
    found = read_mask(sample.cosalient.mask_path)
    x, y, width, height = np.round(np.array(sample.truth.detections[0].bounding_box) * (160, 120, 160, 120)).astype(int)
    truth = np.zeros((120, 160), bool)
    truth[y : y + height, x : x + width] = True
    return (found & truth).sum() / (found | truth).sum()


@pytest.mark.parametrize("group", [_duplicates, _clusters])
def test_every_member_of_every_group_gets_the_mask_of_the_common_object(searched, masked, group):
    group(searched)

    summary = masked(searched, key="run")

    assert summary.counts == {"total": 9, "done": 9, "skipped": 0, "failed": 0, "sets": 3, "nothing": 0}
    assert [sample["cosalient"] is None for sample in searched] == [False] * 9 + [True]
    assert min(_iou(sample) for sample in searched[:9]) > 0.85
    assert load_record(searched, "cosalient")["config"]["key"] == "run"
    assert masked(searched, key="run").counts["skipped"] == 9


def test_copies_of_one_picture_have_equal_masks(fo_dataset, block_pictures, masked):
    first, other = block_pictures(2)
    copy = first.parent / "copy.png"
    copy.write_bytes(first.read_bytes())
    # Two samples of one file as well.
    dataset = fo_dataset([first, copy, first, other])
    find_exact_duplicates(dataset, progress=False)

    assert masked(dataset, key="exact").counts["done"] == 3

    masks = [read_mask(path) for path in dataset.limit(3).values("cosalient.mask_path")]
    assert masks[0].any()
    assert np.array_equal(masks[0], masks[1])
    assert np.array_equal(masks[0], masks[2])
    assert dataset.last().cosalient is None


def test_only_groups_that_changed_are_masked_again(searched, masked):
    _duplicates(searched)
    masked(searched, key="run")
    before = dict(zip(*searched.values(["id", "cosalient_provenance"]), strict=True))
    # Picture 8 leaves its group; numbers, keepers and similarities may change, the other groups' images do not.
    vectors = searched.values("ffa")
    vectors[8] = -vectors[8]
    searched.set_values("ffa", vectors)
    find_duplicates(searched, "run", threshold=0.9, shots=False, keeper_rule="newest", progress=False)

    summary = masked(searched, key="run")

    assert (summary.counts["done"], summary.counts["skipped"]) == (2, 6)
    changed = [old != new for old, new in zip(before.values(), searched.values("cosalient_provenance"), strict=True)]
    assert [number for number, new in enumerate(changed) if new] == [2, 5]


def test_another_keeper_changes_no_set(searched, masked):
    _duplicates(searched)
    masked(searched, key="run")
    regroup_duplicates(searched, "run", keeper_rule="newest", progress=False)
    assert masked(searched, key="run").counts["skipped"] == 9


def test_a_broken_file_of_one_group_does_not_stop_the_others(searched, masked):
    _duplicates(searched)
    with open(searched.values("filepath")[4], "w") as stream:
        stream.write("no picture")

    summary = masked(searched, key="run")

    assert (summary.counts["done"], summary.counts["failed"]) == (8, 1)
    assert "blocks004.png" in searched.values("cosalient_error")[4]
    assert [sample["cosalient"] is None for sample in searched].count(False) == 8
    # Only the group of the broken file is not up to date.
    assert masked(searched, key="run").counts["skipped"] == 6


def test_of_a_view_only_what_it_shows_is_a_set(searched, masked):
    _duplicates(searched)
    view = searched.limit(5)
    assert masked(view, key="run").counts["total"] == 4
    assert searched.count("cosalient") == 4
    nothing = masked(searched.limit(3), key="run")
    assert nothing.notices == ["Nothing to do: no group of the run 'run' has two images in this view."]
    assert nothing.counts["total"] == 0


def test_a_huge_group_is_masked_in_parts(searched, masked, monkeypatch):
    searched.set_values("ffa", [np.ones(8, np.float32)] * COUNT)
    _duplicates(searched)
    monkeypatch.setattr(cosalient_masks, "_LARGEST_SET", 4)
    summary = masked(searched, key="run", refine=False)
    assert (summary.counts["sets"], summary.counts["done"]) == (3, 10)
    provenance = searched.values("cosalient_provenance")
    assert sorted(provenance.count(value) for value in set(provenance)) == [3, 3, 4]


def test_runs_without_groups_of_images_are_refused(searched, masked):
    with pytest.raises(ConfigError, match="no groups under key 'other'"):
        masked(searched, key="other")
    searched.add_sample_field("truth.detections.look", fo.VectorField)
    for sample in searched:
        sample.truth.detections[0]["look"] = sample.ffa
        sample.save()
    find_duplicates(searched, "parts", embeddings="look", patches_field="truth", threshold=0.9, progress=False)
    with pytest.raises(ConfigError, match="compared objects"):
        masked(searched, key="parts")
