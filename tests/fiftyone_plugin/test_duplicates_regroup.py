"""Looking at duplicate groups and moving their threshold: from stored pairs, by indexed fields, without a search."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin import duplicate_search, duplicates
from fiftyone_selfsame.fiftyone_plugin.duplicate_store import list_keys
from fiftyone_selfsame.fiftyone_plugin.duplicate_views import preview_counts, show_duplicate_groups
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.runs import load_record

RESULTS = ("group", "size", "role", "of", "similarity", "kind", "quality", "error")


def clusters(seed=0):
    """Thirty vectors: ten near triples of varying tightness, in two sorts of disorder."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(10, 16))
    spread = np.repeat(np.linspace(0.02, 0.4, 10), 3)[:, None]
    vectors = np.repeat(centres, 3, axis=0) + spread * rng.normal(size=(30, 16))
    return vectors[rng.permutation(30)]


def results(dataset, key):
    return [dataset.values(f"{key}_{name}") for name in RESULTS]


def forbid_search(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("searched again")

    monkeypatch.setattr(duplicate_search, "radius_pairs_steps", refuse)


@pytest.mark.parametrize("threshold", [0.995, 0.97, 0.9])
def test_regrouping_gives_what_a_new_search_would_give(vector_dataset, monkeypatch, threshold):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, "moved", threshold=0.95)
    find_duplicates(dataset, "searched", threshold=threshold)
    forbid_search(monkeypatch)

    summary = regroup_duplicates(dataset, "moved", threshold=threshold)

    assert results(dataset, "moved") == results(dataset, "searched")
    record = load_record(dataset, "moved")
    assert record["details"]["threshold"] == record["config"]["threshold"] == threshold
    assert record["counts"] == load_record(dataset, "searched")["counts"]
    assert record["status"] == "completed"
    assert summary.counts["groups"] == record["counts"]["groups"]
    assert dataset.get_field("moved_group").info["threshold"] == threshold


def test_regrouping_after_samples_were_deleted_forgets_them(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)
    dataset.delete_samples(dataset.match({"dup_role": "keeper"}))
    remaining = len(dataset)

    regroup_duplicates(dataset, threshold=0.94)
    moved = results(dataset, "dup")
    find_duplicates(dataset, threshold=0.94)

    assert len(dataset) == remaining
    assert moved == results(dataset, "dup")


def test_new_weights_choose_new_keepers_without_a_search(vector_dataset, monkeypatch):
    dataset = vector_dataset([[1, 0], [1, 0.01], [0, 1]], sizes=[16, 32, 16])
    find_duplicates(dataset, threshold=0.99)
    forbid_search(monkeypatch)

    regroup_duplicates(dataset, keeper={"resolution": -10.0})

    assert dataset.values("dup_role") == ["keeper", "duplicate", "unique"]
    assert load_record(dataset, "dup")["config"]["keeper"]["resolution"] == -10.0


def test_vectors_that_changed_since_the_search_are_not_mixed_with_old_pairs(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)
    dataset.set_values("ffa", list(np.random.default_rng(5).normal(size=(30, 16)).astype(np.float32)))

    with pytest.raises(ConfigError, match="have changed since they were searched"):
        regroup_duplicates(dataset, threshold=0.97)


def test_a_threshold_below_the_kept_pairs_says_how_to_get_there(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.99)
    lowest = load_record(dataset, "dup")["details"]["pairs_kept_down_to"]

    with pytest.raises(ConfigError, match=r"run find_duplicates with threshold=0\.1"):
        show_duplicate_groups(dataset, threshold=0.1)

    assert lowest < 0.99


def test_too_many_pairs_below_the_threshold_do_not_spoil_the_search(vector_dataset, monkeypatch):
    search = duplicate_search.radius_pairs_steps
    monkeypatch.setattr(
        duplicate_search, "radius_pairs_steps", lambda *args, **options: search(*args, **options, max_pairs=30)
    )
    dataset = vector_dataset(clusters())

    summary = find_duplicates(dataset, threshold=0.9)

    assert summary.details["pairs_kept_down_to"] == 0.9
    assert summary.counts["groups"] > 0


def test_groups_are_shown_largest_first_and_keepers_before_their_duplicates(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)

    view = show_duplicate_groups(dataset)

    groups, sizes, roles, near = view.values(["dup_group", "dup_size", "dup_role", "dup_similarity"])
    assert len(view) == len(dataset.match({"dup_role": {"$ne": "unique"}}))
    assert groups == sorted(groups)
    assert sizes == sorted(sizes, reverse=True)
    for group in set(groups):
        rows = [row for row, other in enumerate(groups) if other == group]
        assert [roles[row] for row in rows] == ["keeper"] + ["duplicate"] * (len(rows) - 1)
        assert [near[row] for row in rows] == sorted((near[row] for row in rows), reverse=True)


def test_the_view_names_no_ids_and_reads_no_more_documents_than_it_shows(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)
    view = show_duplicate_groups(dataset)

    collection = dataset._sample_collection
    command = {"aggregate": collection.name, "pipeline": view._pipeline(), "cursor": {}}
    plan = collection.database.command("explain", command, verbosity="executionStats")

    assert "ObjectId" not in str(view._serialize())
    assert plan["executionStats"]["totalDocsExamined"] == len(view)
    assert "'SORT'" not in str(plan["queryPlanner"]["winningPlan"])


def test_a_threshold_changes_the_groups_that_are_shown(vector_dataset, monkeypatch):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.9)
    many = len(show_duplicate_groups(dataset))
    forbid_search(monkeypatch)

    few = len(show_duplicate_groups(dataset, threshold=0.995))

    assert 0 < few < many
    assert few == len(show_duplicate_groups(dataset))


def test_views_can_be_narrowed_by_view_size_and_kind(vector_dataset):
    dataset = vector_dataset([[1, 0], [1, 0.01], [1, 0.02], [0, 1], [0.01, 1], [-1, 0]])
    find_duplicates(dataset, threshold=0.99)

    assert len(show_duplicate_groups(dataset, min_size=3)) == 3
    assert len(show_duplicate_groups(dataset[:2])) == 2
    assert len(show_duplicate_groups(dataset, kind="similar")) == 5
    assert len(show_duplicate_groups(dataset, kind="exact")) == 0


def test_of_a_grouped_dataset_members_in_every_image_slice_are_shown(fo_dataset, vector_dataset):
    paths = vector_dataset([None, None]).values("filepath")
    dataset = fo_dataset()
    dataset.add_group_field("group", default="left")
    group = fo.Group()
    names = ["left", "right", "clip"]
    files = [*paths, "/clip.mp4"]
    samples = [fo.Sample(filepath=file, group=group.element(name)) for file, name in zip(files, names, strict=True)]
    dataset.add_samples(samples)
    dataset.add_sample_field("ffa", fo.VectorField)
    for name in names[:2]:
        dataset.select_group_slices(name).set_values("ffa", [np.array([1.0, 0.0], np.float32)])

    find_duplicates(dataset, threshold=0.98)

    assert show_duplicate_groups(dataset).count() == 2
    assert sorted(show_duplicate_groups(dataset).values("filepath")) == sorted(paths)


def test_dynamic_groups_have_one_tile_per_group_which_shows_the_keeper(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)

    view = show_duplicate_groups(dataset, as_groups=True)

    assert view.media_type == "group"
    assert len(view) == load_record(dataset, "dup")["counts"]["groups"]
    assert {sample.dup_role for sample in view} == {"keeper"}


@pytest.mark.parametrize("threshold", [0.995, 0.97, 0.92])
def test_the_preview_counts_what_regrouping_gives_and_changes_nothing(vector_dataset, threshold):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)
    before = results(dataset, "dup")

    preview = preview_counts(dataset, "dup", threshold)

    assert results(dataset, "dup") == before
    summary = regroup_duplicates(dataset, threshold=threshold)
    assert preview == {
        **{name: summary.counts[name] for name in ("groups", "duplicates", "largest")},
        "threshold": threshold,
        "lowest": summary.details["pairs_kept_down_to"],
        "approximate": False,
    }
    assert preview_counts(dataset, "dup") == preview


def test_the_preview_of_mutual_neighbours_says_that_it_is_approximate(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95, method="mutual_knn", k=2)

    assert preview_counts(dataset, "dup", 0.97)["approximate"] is True


def test_an_unknown_key_lists_those_that_exist(vector_dataset):
    dataset = vector_dataset(clusters())
    with pytest.raises(ConfigError, match="no duplicate groups under key 'dup'; run find_duplicates first"):
        show_duplicate_groups(dataset)
    find_duplicates(dataset, "near", threshold=0.95)

    with pytest.raises(ConfigError, match="key 'dup'; there are 'near'"):
        show_duplicate_groups(dataset)
    assert list_keys(dataset) == ["near"]


def test_a_run_that_was_interrupted_while_writing_is_not_shown(vector_dataset, monkeypatch):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(duplicates, "write_outcome", die)
    with pytest.raises(KeyboardInterrupt):
        find_duplicates(dataset, threshold=0.9)

    with pytest.raises(ConfigError, match="did not complete; run it again"):
        show_duplicate_groups(dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"min_size": 1}, "min_size=1"), ({"kind": "equal"}, "kind='equal'"), ({"key": "other"}, "'other'")],
)
def test_wrong_options_are_refused(vector_dataset, options, message):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.95)

    with pytest.raises(ConfigError, match=message):
        show_duplicate_groups(dataset, **options)


def test_something_else_than_a_collection_is_refused():
    with pytest.raises(ConfigError, match="must be a FiftyOne dataset or view, not str"):
        show_duplicate_groups("dataset")


def test_a_saved_view_follows_the_data(vector_dataset):
    dataset = vector_dataset(clusters())
    find_duplicates(dataset, threshold=0.9)
    dataset.save_view("groups", show_duplicate_groups(dataset))

    regroup_duplicates(dataset, threshold=0.995)

    assert len(dataset.load_saved_view("groups")) == len(dataset.match(fo.ViewField("dup_group") != None))  # noqa: E711
