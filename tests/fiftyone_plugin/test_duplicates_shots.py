"""Shots inside duplicate groups, several keepers, decisions that are honoured, and searches that add what is new."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.neighbors import Pairs
from fiftyone_selfsame.fiftyone_plugin import duplicate_search, duplicate_shots
from fiftyone_selfsame.fiftyone_plugin.duplicate_shots import nearest_pairs
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from PIL import Image, ImageEnhance


def angles(*degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def scene(seed):
    """A picture with some texture at all scales."""
    noise = np.random.default_rng(seed)
    layers = [Image.fromarray(noise.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((96, 96)) for n in (4, 12, 30)]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))


@pytest.fixture
def shots(vector_dataset):
    """One group: a picture, its copy, a brighter JPEG of it, another shot; one group: two shots; a loner."""
    dataset = vector_dataset(angles(0, 1, 2, 3, 90, 91, 200))
    first, second, third = dataset.values("filepath")[:3]
    scene(1).save(first)
    scene(1).save(second)
    ImageEnhance.Brightness(scene(1)).enhance(1.1).save(third)
    for path, seed in zip(dataset.values("filepath")[3:], range(2, 6), strict=True):
        scene(seed).save(path)
    return dataset


def test_shots_are_numbered_within_their_group_by_size(shots):
    summary = find_duplicates(shots, threshold=0.99)

    assert shots.values("dup_shot") == [0, 0, 0, 1, 0, 1, None]
    assert shots.values("dup_kind") == ["same_object"] * 6 + [None]
    assert summary.details["kinds"] == {"same_object": 2}
    risk = shots.values("dup_risk")
    assert risk[6] is None
    assert len(set(risk[:4])) == 1
    assert all(0 <= value <= 1 for value in risk[:6])


def test_near_duplicates_alone_link_pictures_of_one_shot(shots):
    find_duplicates(shots, threshold=0.99, kind="near")

    assert shots.values("dup_group") == [0, 0, 0, None, None, None, None]
    assert shots.values("dup_kind")[:3] == ["near"] * 3


def test_without_shots_groups_are_only_exact_or_similar(shots, monkeypatch):
    monkeypatch.setattr(duplicate_shots, "shot_features", None)

    find_duplicates(shots[:2], "copies", threshold=0.99, shots=False)
    find_duplicates(shots, "all", threshold=0.99, shots=False)

    assert shots.values("copies_kind")[:2] == ["exact", "exact"]
    assert shots.values("all_kind")[:6] == ["similar"] * 6
    assert shots.values("all_shot") == [None] * 7


def test_pictures_that_were_compared_are_not_decoded_again_for_another_threshold(shots, monkeypatch):
    find_duplicates(shots, threshold=0.9995)
    monkeypatch.setattr(duplicate_shots, "shot_features", None)

    regroup_duplicates(shots, threshold=0.9996)

    assert shots.values("dup_shot")[:3] == [0, 0, 0]


def test_each_picture_is_compared_with_a_bounded_number_of_its_most_similar():
    n = 30
    i, j = np.triu_indices(n, 1)
    similarity = np.random.default_rng(0).random(len(i)).astype(np.float32)
    pairs = Pairs(i.astype(np.int32), j.astype(np.int32), similarity)

    chosen = nearest_pairs(pairs, np.ones(len(i), bool), limit=3)

    for row in range(n):
        own = np.flatnonzero((i == row) | (j == row))
        best = own[np.argsort(-similarity[own])[:3]]
        assert set(best) <= set(chosen)
    assert len(chosen) <= 3 * n


def test_several_of_a_group_can_be_kept_and_duplicates_name_the_nearest_of_them(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 4, 5), sizes=[64, 16, 16, 32])
    resolution = {"resolution": 1, "sharpness": 0, "exposure": 0, "file_size": 0}

    find_duplicates(dataset, threshold=0.99, keeper=resolution, keep=2)

    ids = dataset.values("id")
    assert dataset.values("dup_role") == ["keeper", "duplicate", "duplicate", "keeper"]
    assert dataset.values("dup_of") == [None, ids[0], ids[3], None]


def test_an_incremental_search_compares_only_what_is_new_and_finds_the_same(vector_dataset, monkeypatch):
    vectors = np.repeat(np.random.default_rng(1).normal(size=(10, 8)), 2, axis=0)
    vectors += 0.05 * np.random.default_rng(2).normal(size=vectors.shape)
    dataset = vector_dataset(vectors)
    find_duplicates(dataset[:15], threshold=0.98)
    find_duplicates(dataset, "whole", threshold=0.98)
    refuse = None
    monkeypatch.setattr(duplicate_search, "radius_pairs_steps", refuse)

    # Nothing is said of the others: what the last search covered stays covered.
    summary = find_duplicates(dataset[15:], incremental=True)

    assert "5 new or changed ones were compared" in str(summary)
    for name in ("group", "role", "of", "similarity", "kind", "shot", "risk"):
        assert dataset.values(f"dup_{name}") == dataset.values(f"whole_{name}")
    assert load_record(dataset, "dup")["details"]["compared"] == 5


def test_an_incremental_search_notices_vectors_that_changed_and_samples_that_are_gone(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 90, 91, 180, 181, 270))
    find_duplicates(dataset, threshold=0.99)
    moved = dataset.skip(6).first()
    moved["ffa"] = np.array([1.0, 0.0], np.float32)
    moved.save()
    dataset.delete_samples(dataset.values("id")[2])

    summary = find_duplicates(dataset, incremental=True)

    assert dataset.values("dup_group") == [0, 0, None, 1, 1, 0]
    assert summary.details["compared"] == 1


def test_an_incremental_search_that_has_nothing_to_build_on_compares_everything(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 90))

    first = find_duplicates(dataset, threshold=0.99, incremental=True)
    lower = find_duplicates(dataset, threshold=-0.5, incremental=True)

    assert "there was no earlier search" in str(first)
    assert "kept down to" in str(lower)
    assert lower.details["compared"] == 3


def test_decisions_under_the_key_are_honoured_by_the_next_search(vector_dataset, monkeypatch):
    dataset = vector_dataset(angles(0, 1, 90, 91, 180))
    ids = dataset.values("id")
    decided = ([[ids[0], ids[4], "0" * 24]], [([ids[2]], [ids[3]])])
    monkeypatch.setattr(duplicate_search, "constraints_of", lambda samples, key: decided)

    summary = find_duplicates(dataset, threshold=0.99)

    assert dataset.values("dup_group") == [0, 0, None, None, 0]
    assert "decisions of earlier reviews are honoured" in str(summary)


def test_the_record_has_the_histogram_of_nearest_neighbours(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 90, 91, 180))

    summary = find_duplicates(dataset, threshold=0.99)

    histogram = summary.details["histogram"]
    assert sum(histogram["counts"]) == 5
    assert histogram["counts"][-1] == 4
    assert len(histogram["edges"]) == len(histogram["counts"]) + 1
    assert summary.details["engine"] == "exact"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "equal"}, "kind='equal'"),
        ({"engine": "magic"}, "engine='magic'"),
        ({"keep": 0}, "keep=0"),
        ({"keeper_rule": "prettiest"}, "keeper_rule='prettiest'"),
        ({"method": "mutual_knn", "engine": "faiss"}, "needs exact neighbours"),
    ],
)
def test_options_that_cannot_work_are_refused(vector_dataset, options, message):
    with pytest.raises(ConfigError, match=message):
        find_duplicates(vector_dataset(angles(0, 1)), **options)


def test_the_approximate_engine_says_how_much_it_found(vector_dataset):
    pytest.importorskip("faiss")
    dataset = vector_dataset(angles(*(number + 60 * (number // 3) for number in range(15))))

    summary = find_duplicates(dataset, threshold=0.99, engine="faiss")
    regroup_duplicates(dataset, threshold=0.995)

    assert summary.details["recall"] == 1.0
    assert summary.details["engine"] == load_record(dataset, "dup")["config"]["engine"] == "faiss"
    assert "100.0% of the pairs were found" in str(summary)
    assert dataset.values("dup_group") == sorted(list(range(5)) * 3)
