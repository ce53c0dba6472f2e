"""Pair datasets: made of lists, selections and groups, matched, and summed up on the original samples."""

import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.match_objects import match_objects
from fiftyone_selfsame.fiftyone_plugin.pairs import check_pairs, derived_pairs, read_pairs


@pytest.fixture
def make_pairs(block_dataset):
    """A dataset of blocks and its pair dataset, which goes with it."""
    made = []

    def make(n, ends, **options):
        dataset = block_dataset(n)
        ids = dataset.values("id")
        pairs = create_pairs(dataset, pairs=[(ids[a], ids[b], *more) for a, b, *more in ends], **options)
        made.append(pairs)
        return dataset, pairs

    yield make
    for pairs in made:
        pairs.delete()


def test_a_pair_dataset_knows_its_samples_and_they_know_it(make_pairs):
    dataset, pairs = make_pairs(4, [(0, 3, "match"), (0, 1)], fields=["object"])
    info = check_pairs(pairs)
    assert info.origin == dataset.name
    assert derived_pairs(dataset) == [pairs.name]
    rows = read_pairs(pairs, ["label", "object"])
    ids = dataset.values("id")
    assert [(row.source.origin_id, row.target.origin_id) for row in rows] == [(ids[0], ids[3]), (ids[0], ids[1])]
    assert [row.values["label"] for row in rows] == ["match", None]
    assert rows[0].values["object"] == "0"


def test_pairs_that_name_no_sample_or_a_wrong_label_are_refused(block_dataset):
    dataset = block_dataset(2)
    ids = dataset.values("id")
    with pytest.raises(ConfigError, match="is no image of dataset"):
        create_pairs(dataset, pairs=[(ids[0], "0" * 24)])
    with pytest.raises(ConfigError, match="label 'same'"):
        create_pairs(dataset, pairs=[(ids[0], ids[1], "same")])
    with pytest.raises(ConfigError, match="paired with itself"):
        create_pairs(dataset, pairs=[(ids[0], ids[0])])
    with pytest.raises(ConfigError, match="holds no pairs"):
        check_pairs(dataset)


def test_matching_writes_both_slices_and_the_originals_and_skips_what_is_up_to_date(make_pairs, tiny_model):
    dataset, pairs = make_pairs(4, [(0, 3), (0, 1)])
    options = {"model": tiny_model, "device": "cpu", "progress": False}
    summary = match_objects(pairs, **options)
    assert summary.counts["done"] == 2
    for row in read_pairs(pairs, ["match_score", "match_verdict", "match"]):
        assert 0 <= row.values["match_score"] <= 1
        assert row.values["match_verdict"] in ("match", "no_match")
        assert row.values["match"].mask_path
    flat = pairs.select_group_slices()
    assert flat.count("match_score") == 4
    assert dataset.count("match_score") == 3
    assert match_objects(pairs, **options).counts["skipped"] == 2
