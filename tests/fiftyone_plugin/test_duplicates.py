"""Near duplicates in FiftyOne: what is found, what is written where, what is left alone, and what is refused."""

import os
import shutil
import subprocess
import sys

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.keeper import KeeperPolicy
from fiftyone_selfsame.fiftyone_plugin import fingerprints
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, find_duplicates_steps
from fiftyone_selfsame.fiftyone_plugin.exact_duplicates import find_exact_duplicates
from fiftyone_selfsame.fiftyone_plugin.runs import load_record


def angles(*degrees):
    """Unit vectors in the plane: the cosine of two is that of the difference of their angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


# Three views of one thing, two of another, and a loner; cos 5° = 0.9962, cos 10° = 0.9848.
SIX = angles(0, 5, 10, 90, 95, 180)


def fields_of(dataset, key="dup"):
    names = ("group", "size", "role", "of", "similarity", "kind")
    return {name: dataset.values(f"{key}_{name}") for name in names}


def test_groups_roles_and_similarities_are_written_as_fields(vector_dataset):
    dataset = vector_dataset(SIX)

    summary = find_duplicates(dataset, threshold=0.98, keeper={"resolution": 0, "sharpness": 0, "exposure": 0})

    ids, found = dataset.values("id"), fields_of(dataset)
    assert found["group"] == [0, 0, 0, 1, 1, None]
    assert found["size"] == [3, 3, 3, 2, 2, 1]
    assert sorted(found["role"][:3]) == ["duplicate", "duplicate", "keeper"]
    keeper = found["role"].index("keeper")
    assert [found["of"][row] for row in range(3) if row != keeper] == [ids[keeper]] * 2
    assert found["role"][5] == "unique"
    assert found["of"][5] is None
    assert found["similarity"][keeper] == 1.0
    far = 2 - keeper if keeper != 1 else 0
    assert found["similarity"][far] == pytest.approx(float(SIX[keeper] @ SIX[far]), abs=1e-6)
    assert summary.counts == {
        "total": 6, "done": 6, "skipped": 0, "failed": 0, "groups": 2, "duplicates": 3, "largest": 3,
    }  # fmt: skip


def test_fields_are_indexed_described_and_say_where_they_come_from(vector_dataset):
    dataset = vector_dataset(SIX)

    find_duplicates(dataset, key="near", threshold=0.98)

    assert {"near_group", "near_role", "near_size"} <= set(dataset.list_indexes())
    field = dataset.get_field("near_role")
    assert "keeper" in field.description
    assert field.info["run"] == "near"
    assert field.info["threshold"] == 0.98
    groups = {group.name: group.paths for group in dataset.app_config.sidebar_groups}
    assert groups["selfsame"][:3] == ["near_group", "near_size", "near_role"]
    internal = {f"near_{name}" for name in ("digest", "measures", "provenance", "error")}
    assert internal == set(groups["selfsame internals"])


def test_the_sharper_and_larger_picture_is_kept_not_the_first(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 2, 90), sizes=[16, 32, 64, 16])

    find_duplicates(dataset, threshold=0.99, keeper=KeeperPolicy(resolution=1, sharpness=0, exposure=0, file_size=0))
    largest = dataset.values("dup_role")
    find_duplicates(dataset, threshold=0.99, keeper={"resolution": -1, "sharpness": 0, "exposure": 0, "file_size": 0})
    smallest = dataset.values("dup_role")

    assert largest == ["duplicate", "duplicate", "keeper", "unique"]
    assert smallest == ["keeper", "duplicate", "duplicate", "unique"]
    # 16 × 16, 32 × 32 and 64 × 64 pixels, weighted by -1.
    assert dataset.values("dup_quality") == [-8.0, -10.0, -12.0, None]


def test_similarity_is_not_centred_and_neither_field_nor_index_is_altered(vector_dataset):
    vectors = np.random.default_rng(0).normal(size=(40, 8)) + 6.0
    dataset = vector_dataset(vectors)
    index = fob.compute_similarity(dataset, embeddings="ffa", brain_key="sim", backend="sklearn", metric="cosine")
    before = index.get_embeddings()[0].copy()

    find_duplicates(dataset, threshold=0.99)

    row_of = {sample_id: row for row, sample_id in enumerate(dataset.values("id"))}
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    duplicates = dataset.match({"dup_role": "duplicate"})
    assert len(duplicates) > 5
    for sample in duplicates:
        raw_cosine = float(unit[row_of[sample.id]] @ unit[row_of[sample.dup_of]])
        assert sample.dup_similarity == pytest.approx(raw_cosine, abs=1e-5)
    np.testing.assert_array_equal(index.get_embeddings()[0], before)
    np.testing.assert_array_equal(np.stack(dataset.values("ffa")), vectors.astype(np.float32))


def test_only_samples_of_the_view_are_compared_and_others_are_not_touched(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 2, 90))
    outside = dataset.values("id")[0]
    modified = dataset[outside].last_modified_at

    summary = find_duplicates(dataset.exclude([outside]), threshold=0.99)

    assert summary.counts["total"] == 3
    assert dataset.values("dup_group") == [None, 0, 0, None]
    assert dataset.values("dup_role")[0] is None
    assert dataset[outside].last_modified_at == modified


def test_another_run_with_the_same_key_leaves_no_group_number_of_the_first(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 90, 91))
    find_duplicates(dataset, threshold=0.99)

    find_duplicates(dataset[:2], threshold=0.99)

    assert dataset.values("dup_group") == [0, 0, None, None]
    assert dataset.values("dup_role")[2:] == [None, None]
    assert dataset.values("dup_quality")[2:] == [None, None]


def test_a_chain_of_near_neighbours_breaks_at_the_diameter(vector_dataset):
    dataset = vector_dataset(angles(*range(0, 100, 5)))

    find_duplicates(dataset, "capped", threshold=0.99)
    find_duplicates(dataset, "free", threshold=0.99, max_diameter=2)

    assert set(dataset.values("free_group")) == {0}
    groups = dataset.values("capped_group")
    unit = np.stack(dataset.values("ffa"))
    for group in set(groups) - {None}:
        members = [row for row, other in enumerate(groups) if other == group]
        assert (unit[members] @ unit[members].T).min() >= 1 - 2 * 0.01 - 1e-6
    assert len(set(groups)) >= 4


def test_mutual_neighbours_are_linked_only_if_each_is_near_to_the_other(vector_dataset):
    # The middle one has two neighbours nearer than the outer one, whose nearest it is.
    dataset = vector_dataset(angles(0, 1, 2, 10, 90))

    find_duplicates(dataset, "all", threshold=0.9)
    find_duplicates(dataset, "mutual", threshold=0.9, method="mutual_knn", k=2)

    assert dataset.values("all_group") == [0, 0, 0, 0, None]
    assert dataset.values("mutual_group") == [0, 0, 0, None, None]


def test_samples_without_a_usable_vector_are_left_out_and_told_why(vector_dataset):
    dataset = vector_dataset([*angles(0, 1), None, None, [0, 0], [np.nan, 1]])
    dataset.add_sample_field("ffa_error", fo.StringField)
    dataset.set_values("ffa_error", [None, None, "broken JPEG", None, None, None])

    summary = find_duplicates(dataset, threshold=0.99)

    errors = dataset.values("dup_error")
    assert errors[:2] == [None, None]
    assert errors[2] == "no vector in 'ffa': broken JPEG"
    assert errors[3] == "no vector in 'ffa'; run compute_ffa on this sample first"
    assert "zero or not finite" in errors[4]
    assert "zero or not finite" in errors[5]
    assert dataset.values("dup_role") == [*dataset.values("dup_role")[:2], None, None, None, None]
    assert summary.counts["failed"] == 4
    assert "4 samples have no usable vector in 'ffa'" in str(summary)


def test_a_member_whose_file_is_gone_is_grouped_but_never_kept(vector_dataset):
    dataset = vector_dataset(angles(0, 1, 90))
    os.remove(dataset.first().filepath)

    summary = find_duplicates(dataset, threshold=0.99)

    assert dataset.values("dup_role") == ["duplicate", "keeper", "unique"]
    assert "does not exist" in dataset.values("dup_error")[0]
    assert list(summary.failed) == [dataset.first().id]
    assert summary.counts["done"] == 3
    assert "1 images in groups could not be decoded" in str(summary)


def test_groups_of_equal_pictures_are_called_exact(vector_dataset):
    dataset = vector_dataset(angles(0, 0, 90, 91))
    paths = dataset.values("filepath")
    shutil.copy(paths[0], paths[1])

    find_duplicates(dataset, threshold=0.99)

    assert dataset.values("dup_kind") == ["exact", "exact", "same_object", "same_object"]
    assert dataset.values("dup_shot") == [0, 0, 0, 1]


def test_pictures_are_measured_once_and_only_those_in_groups(vector_dataset, monkeypatch):
    decoded, decode = [], fingerprints.decode_image
    monkeypatch.setattr(fingerprints, "decode_image", lambda path: decoded.append(path) or decode(path))
    dataset = vector_dataset(SIX)

    find_duplicates(dataset, threshold=0.98)
    find_duplicates(dataset, threshold=0.98, keeper={"sharpness": 2.0})

    assert sorted(decoded) == sorted(dataset.values("filepath")[:5])


def test_the_threshold_is_chosen_from_the_data_and_the_reason_recorded(vector_dataset):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 24)) + 2.0
    vectors[50:] = vectors[:10] + 0.01 * rng.normal(size=(10, 24))
    dataset = vector_dataset(vectors)

    summary = find_duplicates(dataset)
    again = find_duplicates(dataset)

    details = load_record(dataset, "dup")["details"]
    assert summary.counts["groups"] == 10
    assert again.details == summary.details
    assert details["threshold_reason"].startswith("from the data")
    assert 0.9 < details["threshold"] < 0.9999


def test_the_record_loads_in_a_process_without_this_plugin(vector_dataset):
    dataset = vector_dataset(SIX)
    dataset.persistent = True
    find_duplicates(dataset, threshold=0.98)
    script = (
        "import sys; sys.modules['fiftyone_selfsame'] = None\n"
        "import fiftyone as fo\n"
        f"dataset = fo.load_dataset({dataset.name!r})\n"
        "print(dataset.get_run_info('dup').config.counts['groups'], sorted(dataset.load_run_results('dup').data))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)

    assert done.stdout.strip().endswith("2 ['compared', 'ids', 'pairs', 'scores', 'stamps']"), done.stderr


def test_progress_rises_to_the_number_of_samples(vector_dataset):
    reports = list(find_duplicates_steps(vector_dataset(SIX), threshold=0.98))

    settled = [report.settled for report in reports]
    assert settled == sorted(settled)
    assert reports[-1].fraction == 1.0
    assert {"Reading vectors", "Comparing vectors", "Measuring duplicates"} <= {report.label for report in reports}


def test_an_empty_view_is_no_error_and_leaves_no_record(vector_dataset):
    dataset = vector_dataset(SIX)

    summary = find_duplicates(dataset.exclude(dataset.values("id")))

    assert summary.key is None
    assert "no samples" in str(summary)
    assert dataset.list_runs() == []


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_samples_are_no_error(vector_dataset, n):
    dataset = vector_dataset(angles(0, 90)[:n])

    summary = find_duplicates(dataset)

    assert summary.counts["groups"] == 0
    assert dataset.values("dup_role") == ["unique"] * n


def test_grouped_datasets_are_compared_over_all_their_image_slices(vector_dataset, fo_dataset):
    paths = vector_dataset(angles(0, 90)).values("filepath")
    dataset = fo_dataset()
    dataset.add_group_field("group", default="left")
    group = fo.Group()
    samples = [
        fo.Sample(filepath=path, group=group.element(side), ffa=vector)
        for path, side, vector in zip(paths, ("left", "right"), angles(0, 1), strict=True)
    ]
    dataset.add_samples(samples)

    summary = find_duplicates(dataset, threshold=0.99)

    assert summary.counts["total"] == 2
    assert summary.counts["groups"] == 1
    flat = dataset.select_group_slices(["left", "right"])
    assert sorted(flat.values("dup_role")) == ["duplicate", "keeper"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 1.5}, "threshold=1.5 must be a cosine"),
        ({"threshold": "0.9"}, "threshold='0.9' must be a cosine"),
        ({"method": "fraction"}, "threshold, mutual_knn"),
        ({"k": 0}, "k=0 must be a whole number"),
        ({"max_diameter": -1}, "max_diameter=-1"),
        ({"keeper": {"beauty": 1}}, "beauty"),
        ({"keeper": "best"}, "keeper='best' must be"),
        ({"key": "no key"}, "key='no key'"),
        ({"key": None}, "key=None"),
        ({"embeddings": "clip"}, "no such field; vector fields: ffa"),
        ({"embeddings": "filepath"}, "is a StringField, not a VectorField; vector fields: ffa"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_written(vector_dataset, options, message):
    dataset = vector_dataset(SIX)

    with pytest.raises(ConfigError, match=message):
        find_duplicates(dataset, **options)

    assert dataset.list_runs() == []
    assert not dataset.has_field("dup_group")


def test_vectors_of_different_length_are_refused_by_naming_two_samples(vector_dataset):
    dataset = vector_dataset([[1, 0], [1, 0, 0]])
    ids = dataset.values("id")

    with pytest.raises(ConfigError, match=f"{ids[1]}.*has 3 numbers.*{ids[0]}.* 2, so they come from different models"):
        find_duplicates(dataset)


def test_a_field_without_any_vector_says_what_to_run_first(vector_dataset, fo_dataset):
    dataset = vector_dataset([None, None])
    bare = fo_dataset(dataset.values("filepath"))

    with pytest.raises(ConfigError, match="none of the 2 samples has a vector; run compute_ffa"):
        find_duplicates(dataset)
    with pytest.raises(ConfigError, match="no vector field yet: run compute_ffa first"):
        find_duplicates(bare)


def test_patches_are_refused_with_a_way_out(vector_dataset):
    dataset = vector_dataset(SIX)
    dataset.add_sample_field("things", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)

    with pytest.raises(ConfigError, match="patches"):
        find_duplicates(dataset.to_patches("things"))


def test_fields_that_belong_to_somebody_else_are_not_overwritten(vector_dataset):
    dataset = vector_dataset(SIX)
    dataset.add_sample_field("dup_group", fo.IntField)

    with pytest.raises(ConfigError, match=r"'dup_group' .* was not made by find_duplicates"):
        find_duplicates(dataset, threshold=0.98)
    with pytest.raises(ConfigError, match=r"'dup_group' .* was not made by find_exact_duplicates"):
        find_exact_duplicates(dataset, "dup")
