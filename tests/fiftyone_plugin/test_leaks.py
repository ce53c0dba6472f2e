"""Leaks between splits and datasets: what is found, what is written and tagged, what is left alone, what is refused."""

import csv

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates
from fiftyone_selfsame.fiftyone_plugin.leak_report import export_leaks, show_leaks
from fiftyone_selfsame.fiftyone_plugin.leaks import clear_leaks, find_leaks, find_leaks_steps
from fiftyone_selfsame.fiftyone_plugin.runs import load_record


def angles(*degrees):
    """Unit vectors in the plane: the cosine of two is that of the difference of their angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


# At cosine 0.99 (8.1°): a train image beside two test images, a train-only pair, a train-val pair, and a loner.
DEGREES = (0, 3, 5, 90, 92, 180, 181, 270)
SPLITS = ["train", "test", "test", "train", "train", "val", "train", "test"]


@pytest.fixture
def split_dataset(vector_dataset):
    dataset = vector_dataset(angles(*DEGREES))
    dataset.set_values("split", SPLITS)
    return dataset


def test_leaks_are_pairs_across_splits_and_never_within_one(split_dataset):
    summary = find_leaks(split_dataset, threshold=0.99)

    ids = split_dataset.values("id")
    assert split_dataset.values("leaks_leak") == [True, True, True, False, False, True, True, False]
    assert split_dataset.values("leaks_other") == ["test", "train", "train", None, None, "train", "val", None]
    assert split_dataset.values("leaks_of") == [ids[1], ids[0], ids[0], None, None, ids[6], ids[5], None]
    cosines = np.cos(np.radians([3, 3, 5, 1, 1]))
    found = [value for value in split_dataset.values("leaks_similarity") if value is not None]
    np.testing.assert_allclose(found, cosines, atol=1e-6)
    # The pair at one degree is the most similar, so its images are group 0.
    assert split_dataset.values("leaks_group") == [1, 1, 1, None, None, 0, 0, None]
    assert {name: summary.counts[name] for name in ("pairs", "leaks", "tagged")} == {
        "pairs": 3, "leaks": 5, "tagged": 2,
    }  # fmt: skip


def test_pairs_agree_with_brute_force_on_random_vectors(vector_dataset):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4))
    dataset = vector_dataset(vectors)
    names = rng.choice(["a", "b", "c"], 60)
    dataset.set_values("split", names.tolist())

    find_leaks(dataset, threshold=0.9, tag="none")

    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    crossing = (unit @ unit.T >= 0.9) & (names[:, None] != names[None, :])
    assert crossing.any()
    assert dataset.values("leaks_leak") == crossing.any(axis=1).tolist()
    rows = load_record(dataset, "leaks")["details"]["table"]
    table = {(row["split_a"], row["split_b"]): row for row in rows}
    for a, b in (("a", "b"), ("a", "c"), ("b", "c")):
        block = crossing[np.ix_(names == a, names == b)]
        row = table[a, b]
        assert row["pairs"] == block.sum()
        assert (row["images_a"], row["images_b"]) == (block.any(axis=1).sum(), block.any(axis=0).sum())
        assert (row["size_a"], row["size_b"]) == block.shape


def test_the_report_says_how_much_leaks_what_to_drop_and_the_worst_pairs(split_dataset):
    summary = find_leaks(split_dataset, threshold=0.99)

    first = summary.details["table"][0]
    assert {name: value for name, value in first.items() if name != "examples"} == {
        "split_a": "test",
        "split_b": "train",
        "pairs": 2,
        "images_a": 2,
        "images_b": 1,
        "size_a": 3,
        "size_b": 4,
        "drop_from": "train",
    }
    best = first["examples"][0]
    ids, files = split_dataset.values(["id", "filepath"])
    assert (best["split_a"], best["id_a"], best["file_a"]) == ("test", ids[1], files[1])
    assert (best["split_b"], best["id_b"], best["file_b"]) == ("train", ids[0], files[0])
    assert best["similarity"] == pytest.approx(np.cos(np.radians(3)), abs=1e-6)
    assert "2 of 3 images in 'test' (66.7%)" in " ".join(summary.notices)
    assert load_record(split_dataset, "leaks")["details"]["table"] == summary.details["table"]


def test_the_training_side_is_tagged_with_the_split_that_has_the_copy(split_dataset):
    find_leaks(split_dataset, threshold=0.99)
    assert split_dataset.values("tags") == [["leak:test"], [], [], [], [], [], ["leak:val"], []]


def test_another_side_all_sides_or_none_can_be_tagged(split_dataset):
    find_leaks(split_dataset, threshold=0.99, drop_from="test")
    assert split_dataset.values("tags") == [[], ["leak:train"], ["leak:train"], [], [], [], ["leak:val"], []]
    find_leaks(split_dataset, threshold=0.99, tag="all")
    tags = [["leak:test"], ["leak:train"], ["leak:train"], [], [], ["leak:train"], ["leak:val"], []]
    assert split_dataset.values("tags") == tags
    find_leaks(split_dataset, threshold=0.99, tag="none")
    assert split_dataset.values("tags") == [[]] * 8


def test_clearing_takes_back_tags_fields_and_record_but_no_tag_given_by_hand(split_dataset):
    fields = set(split_dataset.get_field_schema())
    by_hand = split_dataset.match({"split": "train"}).skip(3)
    by_hand.tag_samples(["leak:val", "mine"])
    find_leaks(split_dataset, threshold=0.99)

    summary = clear_leaks(split_dataset)

    assert summary.counts == {"untagged": 1}
    assert split_dataset.values("tags") == [[]] * 6 + [["leak:val", "mine"]] + [[]]
    assert set(split_dataset.get_field_schema()) == fields
    assert not split_dataset.has_run("leaks")
    assert not [name for name in split_dataset.list_indexes() if "leaks" in name]
    with pytest.raises(ConfigError, match="run find_leaks first"):
        clear_leaks(split_dataset)


def test_a_second_run_replaces_what_the_first_one_wrote(split_dataset):
    find_leaks(split_dataset, threshold=0.99)
    find_leaks(split_dataset.match({"split": {"$ne": "val"}}), threshold=0.9985)

    assert split_dataset.values("leaks_leak") == [True, True, False, False, False, None, False, False]
    assert split_dataset.values("tags") == [["leak:test"], [], [], [], [], [], [], []]


def test_tags_can_be_the_splits_and_a_sample_in_two_of_them_is_reported(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 90, 91))
    for sample, tags in zip(dataset, (["train", "x"], ["test"], ["train", "test"], []), strict=True):
        sample.tags = tags
        sample.save()

    summary = find_leaks(dataset, threshold=0.99)
    assert dataset.values("leaks_leak") == [True, True, False, None]
    assert "1 samples carry the tags of several splits" in " ".join(summary.notices)
    assert "1 samples are in no split" in " ".join(summary.notices)

    find_leaks(dataset, threshold=0.99, split_field=["x", "test"])
    assert load_record(dataset, "leaks")["details"]["splits"] == {"x": 1, "test": 2}


def test_two_datasets_are_compared_and_only_the_first_is_written_to(vector_dataset, fo_dataset):
    dataset = vector_dataset(angles(0, 1, 90))
    other = fo_dataset(dataset.values("filepath")[:2])
    other.add_sample_field("ffa", fo.VectorField)
    other.set_values("ffa", list(angles(2, 200).astype(np.float32)))
    schema = other.get_field_schema()

    summary = find_leaks(dataset, other=other.name, threshold=0.99)

    assert summary.counts["pairs"] == 2
    assert dataset.values("leaks_of") == [other.first().id, other.first().id, None]
    assert dataset.values("leaks_other") == [other.name, other.name, None]
    assert dataset.values("tags") == [[f"leak:{other.name}"]] * 2 + [[]]
    assert other.get_field_schema() == schema
    assert other.values("tags") == [[], []]
    assert summary.details["table"][0]["drop_from"] == dataset.name


def test_pairs_of_a_duplicate_run_are_used_without_a_new_search(split_dataset):
    find_duplicates(split_dataset, threshold=0.99)
    split_dataset.set_values("ffa", [None] * 8)

    summary = find_leaks(split_dataset, duplicates="dup")

    assert split_dataset.values("leaks_leak") == [True, True, True, False, False, True, True, False]
    assert "of run 'dup'" in summary.notices[0]
    assert find_leaks(split_dataset, duplicates="dup", threshold=0.9990).counts["pairs"] == 1


def test_pairs_that_a_reviewer_told_apart_are_no_leaks(split_dataset):
    from fiftyone_selfsame.fiftyone_plugin.decisions import decide

    find_duplicates(split_dataset, threshold=0.99)
    ids, groups = split_dataset.values(["id", "dup_group"])
    decide(split_dataset, "dup", "reject", groups=[groups[5]], members=[ids[5]])

    find_leaks(split_dataset, duplicates="dup")

    assert split_dataset.values("leaks_leak") == [True, True, True, False, False, False, False, False]


def test_all_pairs_are_exported_with_their_files_the_most_similar_first(split_dataset, tmp_path):
    find_leaks(split_dataset, threshold=0.99)

    assert export_leaks(split_dataset, "leaks", tmp_path / "leaks.csv") == 3

    with open(tmp_path / "leaks.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    files = split_dataset.values("filepath")
    assert [(row["split_a"], row["split_b"]) for row in rows] == [
        ("train", "val"),
        ("test", "train"),
        ("test", "train"),
    ]
    assert [row["file_a"] for row in rows] == [files[6], files[1], files[2]]
    assert float(rows[2]["similarity"]) == pytest.approx(np.cos(np.radians(5)), abs=1e-6)
    with pytest.raises(ConfigError, match="cannot be written"):
        export_leaks(split_dataset, "leaks", tmp_path / "no folder" / "leaks.csv")


def test_the_view_shows_leaking_images_side_by_side_from_indexed_fields(split_dataset):
    find_leaks(split_dataset, threshold=0.99)
    ids = split_dataset.values("id")

    view = show_leaks(split_dataset)
    assert set(view.values("id")[:2]) == {ids[5], ids[6]}
    assert set(view.values("id")[2:]) == {ids[0], ids[1], ids[2]}
    assert view.values("id")[-1] == ids[2]
    assert set(show_leaks(split_dataset, min_similarity=0.9990).values("id")) == {ids[5], ids[6]}
    assert len(show_leaks(split_dataset, as_groups=True)) == 2
    stages = str(view._serialize())
    assert not any(sample_id in stages for sample_id in ids)
    assert {"leaks_leak", "leaks_group_1_leaks_similarity_-1"} <= set(split_dataset.list_indexes())


def test_samples_without_a_vector_are_left_out_with_a_reason(split_dataset):
    first = split_dataset.first()
    split_dataset.set_values("ffa", {first.id: None}, key_field="id")

    summary = find_leaks(split_dataset, threshold=0.99)

    assert summary.counts["failed"] == 1
    assert "no vector in 'ffa'" in split_dataset.values("leaks_error")[0]
    assert split_dataset.values("leaks_leak")[:3] == [None, False, False]


def test_a_split_without_any_vector_is_left_out_and_progress_never_goes_back(split_dataset):
    val = split_dataset.values("id")[5]
    split_dataset.set_values("ffa", {val: None}, key_field="id")

    reports = list(find_leaks_steps(split_dataset, threshold=0.99))

    assert split_dataset.values("leaks_leak") == [True, True, True, False, False, None, False, False]
    assert "no vector in 'ffa'" in split_dataset[val].leaks_error
    assert [report.settled for report in reports] == sorted(report.settled for report in reports)
    assert reports[-1].fraction == 1.0


def test_without_a_threshold_one_is_chosen_from_the_data_and_explained(vector_dataset):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(40, 16))
    dataset = vector_dataset(np.concatenate([vectors, vectors[:5] + 1e-3]))
    dataset.set_values("split", ["train"] * 40 + ["test"] * 5)

    summary = find_leaks(dataset)

    assert summary.counts["pairs"] == 5
    assert summary.details["threshold_reason"] not in ("given", "")


REFUSED = [
    ({"split_field": "nothing"}, "no field with text"),
    ({"split_field": "ffa"}, "no field with text"),
    ({"split_field": ["train"]}, "tells 0 splits apart"),
    ({"split_field": "leaking"}, "tells 1 splits apart"),
    ({"drop_from": "dev"}, "there are test, train, val"),
    ({"tag": "some"}, "drop, all, none"),
    ({"threshold": 2.0}, "from -1 to 1"),
    ({"duplicates": "nothing"}, "no duplicate groups under key"),
    ({"duplicates": "dup", "other": "itself"}, "exclude each other"),
    ({"other": "nowhere"}, "no dataset of that name"),
    ({"key": "mine"}, "was not made by find_leaks"),
    ({"key": "not a name"}, "cannot be a field name"),
    ({"embeddings": "split"}, "not a VectorField"),
]


def test_what_cannot_work_is_refused_and_nothing_is_written(split_dataset, fo_dataset):
    split_dataset.add_sample_field("mine_leak", fo.BooleanField)
    split_dataset.set_values("leaking", [True] * 8)
    before = set(split_dataset.get_field_schema())
    for options, message in REFUSED:
        if options.get("other") == "itself":
            options = {**options, "other": fo_dataset().name}
        with pytest.raises(ConfigError, match=message):
            find_leaks(split_dataset, **{"threshold": 0.99, **options})
    assert set(split_dataset.get_field_schema()) == before
    assert not split_dataset.list_runs()


def test_a_dataset_compared_with_its_own_samples_is_refused(split_dataset):
    with pytest.raises(ConfigError, match="are among those to be searched"):
        find_leaks(split_dataset, other=split_dataset)
    train, test = (split_dataset.match({"split": name}) for name in ("train", "test"))
    assert find_leaks(train, other=test, threshold=0.99).counts["pairs"] == 2


def test_an_empty_view_leaves_no_record(split_dataset):
    summary = find_leaks(split_dataset.limit(0))
    assert summary.key is None
    assert not split_dataset.list_runs()
