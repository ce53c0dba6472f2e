"""The catalogue check: verdicts, evidence, what it leaves on the samples, limits, resuming, failures, two datasets."""

import csv
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.fiftyone_plugin.catalogue_plan import share_out, spread_pairs
from fiftyone_selfsame.fiftyone_plugin.catalogue_results import COLUMNS
from fiftyone_selfsame.fiftyone_plugin.check_catalogue import check_catalogue
from fiftyone_selfsame.fiftyone_plugin.comparison_store import Compared, ComparisonStore
from fiftyone_selfsame.fiftyone_plugin.mask_store import read_mask
from fiftyone_selfsame.fiftyone_plugin.match_objects import match_objects
from fiftyone_selfsame.fiftyone_plugin.pairs import derived_pairs, flat_pairs, read_pairs, set_pair_values
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

# Product, use, grey. The best pairs: a 100-110, b 50-200; c and d lack a side.
SHELF = [
    ("a", "catalogue", 100),
    ("a", "catalogue", 150),
    ("a", "document", 110),
    ("a", "document", 250),
    ("b", "catalogue", 50),
    ("b", "document", 200),
    ("c", "catalogue", 10),
    ("d", "document", 20),
    ("a", "other", 100),
    (None, "document", 100),
]


@pytest.fixture(autouse=True)
def matcher(colour_matcher):
    """Compares in all tests of this file."""
    return colour_matcher


@pytest.fixture
def shelf(tmp_path):
    """A factory of datasets of grey pictures: ``shelf(rows)``; their evidence goes with them."""
    made = []

    def make(rows=SHELF):
        folder = tmp_path / f"shelf{len(made)}"
        folder.mkdir()
        dataset = fo.Dataset()
        dataset.add_sample_field("product", fo.StringField)
        made.append(dataset)
        samples = []
        for number, (product, use, grey) in enumerate(rows):
            path = folder / f"{number:03d}.png"
            Image.new("RGB", (12, 8), (grey,) * 3).save(path)
            samples.append(fo.Sample(filepath=str(path), product=product, use=use))
        dataset.add_samples(samples, progress=False)
        return dataset

    yield make
    for dataset in made:
        for name in derived_pairs(dataset):
            fo.delete_dataset(name)
        dataset.delete()


def check(dataset, **options):
    return check_catalogue(dataset, "product", **{"use": "use", "threshold": 0.8, "progress": False, **options})


def rows_of(summary):
    with open(summary.details["path"], newline="") as stream:
        return {row["product"]: row for row in csv.DictReader(stream)}


def verdicts(summary):
    return {product: row["verdict"] for product, row in rows_of(summary).items()}


# ------------------------------------------------------------------------------------------------- what comes out


def test_each_product_gets_a_verdict_with_its_best_pair(shelf):
    dataset = shelf()
    files = dataset.values("filepath")

    summary = check(dataset)

    rows = rows_of(summary)
    assert tuple(rows["a"]) == COLUMNS
    assert verdicts(summary) == {"b": "no_match", "c": "no_document", "d": "no_catalogue", "a": "match"}
    assert list(rows) == ["b", "c", "d", "a"]
    assert (rows["a"]["catalogue_file"], rows["a"]["document_file"]) == (files[0], files[2])
    assert float(rows["a"]["score"]) == pytest.approx(1 - 10 / 255)
    assert (rows["a"]["comparisons"], rows["a"]["matches"], rows["a"]["left_out"]) == ("4", "2", "0")
    assert (rows["b"]["catalogue_file"], rows["b"]["document_file"]) == (files[4], files[5])
    assert float(rows["b"]["score"]) == pytest.approx(1 - 150 / 255)
    assert (rows["c"]["score"], rows["c"]["catalogue_images"], rows["c"]["document_images"]) == ("", "1", "0")
    assert summary.counts == {
        "products": 4, "matched": 1, "without_evidence": 3, "comparisons": 5, "done": 5, "skipped": 0, "failed": 0
    }  # fmt: skip
    assert "1 image without a value in 'product' left out" in " ".join(summary.notices)
    assert "1 image left out, neither catalogue nor document" in " ".join(summary.notices)


def test_the_evidence_is_a_pair_dataset_with_masks_points_and_verdicts(shelf):
    dataset = shelf()
    ids = dataset.values("id")

    summary = check(dataset)

    evidence = fo.load_dataset(summary.details["dataset"])
    assert evidence.name == f"{dataset.name}-catalogue"
    assert evidence.persistent
    rows = read_pairs(evidence, ["product", "product_verdict", "catalogue_verdict", "catalogue_score", "relation"])
    assert [(row.source.origin_id, row.target.origin_id) for row in rows] == [(ids[0], ids[2]), (ids[4], ids[5])]
    assert [row.values["product"] for row in rows] == ["a", "b"]
    assert [row.values["product_verdict"] for row in rows] == ["match", "no_match"]
    assert [row.values["catalogue_verdict"] for row in rows] == ["match", "no_match"]
    assert rows[0].values["catalogue_score"] == pytest.approx(1 - 10 / 255)
    for sample in flat_pairs(evidence):
        assert read_mask(sample["catalogue"].mask_path).shape == (8, 12)
        assert len(sample["catalogue_points"].keypoints) == 1
    assert flat_pairs(evidence).count_values("product") == {"a": 2, "b": 2}
    record = load_record(evidence, "catalogue")
    assert (record["method"], record["details"]["threshold"]) == ("match_objects", 0.8)
    check(dataset, threshold=0.3)
    assert load_record(evidence, "catalogue")["config"]["threshold"] == 0.3
    assert fo.load_dataset(evidence.name).get_field("catalogue_score").info["threshold"] == 0.3


def test_the_samples_bear_the_verdict_their_own_best_pair_and_the_mask_of_the_evidence(shelf):
    dataset = shelf()
    ids = dataset.values("id")

    check(dataset)

    names = ("product_verdict", "verdict", "score", "partner", "pairs")
    values = list(zip(*dataset.values([f"catalogue_{name}" for name in names]), strict=True))
    assert values[1] == ("match", "match", pytest.approx(1 - 40 / 255), ids[2], 1)
    assert values[3] == ("match", "no_match", pytest.approx(1 - 100 / 255), ids[1], 0)
    assert values[5] == ("no_match", "no_match", pytest.approx(1 - 150 / 255), ids[4], 0)
    assert values[6] == ("no_document", None, None, None, None)
    assert values[8] == values[9] == (None,) * 5
    with_mask = [number for number, path in enumerate(dataset.values("catalogue.mask_path")) if path]
    assert with_mask == [0, 2, 4, 5]


def test_the_view_of_products_without_evidence_filters_by_an_index_and_follows_the_fields(shelf):
    dataset = shelf()

    summary = check(dataset)

    view = dataset.load_saved_view(summary.details["view"])
    assert view.values("product") == ["d", "c", "b", "b"]
    assert [type(stage).__name__ for stage in view._stages] == ["Match", "SortBy"]
    indexed = [tuple(name for name, _ in index["key"]) for index in dataset.get_index_information().values()]
    assert ("catalogue_product_verdict", "product") in indexed
    check(dataset, threshold=0.3)
    assert dataset.load_saved_view(summary.details["view"]).values("product") == ["d", "c"]


def test_pictures_with_nothing_in_common_are_no_match_whatever_the_threshold(shelf):
    dataset = shelf([("a", "catalogue", 0), ("a", "document", 255)])

    assert verdicts(check(dataset, threshold=0.0)) == {"a": "no_match"}
    assert dataset.values("catalogue_no_common_region") == [True, True]


def test_only_what_the_view_holds_is_checked_and_the_rest_is_emptied(shelf):
    dataset = shelf()
    check(dataset)

    summary = check(dataset.match({"product": "b"}))

    assert verdicts(summary) == {"b": "no_match"}
    assert dataset.count("catalogue_product_verdict") == 2
    assert fo.load_dataset(summary.details["dataset"]).distinct("product") == ["b"]
    assert verdicts(check(dataset.match({"product": "c"}))) == {"c": "no_document"}


def test_nothing_to_compare_is_no_error(shelf):
    empty = check(shelf([(None, "catalogue", 1), (None, "document", 2)]))
    assert empty.key is None
    assert "none of 2 images has a value in 'product'" in empty.notices[0]

    lone = check(shelf([("a", "catalogue", 1), ("b", "document", 2)]))
    assert lone.details["dataset"] is None
    assert verdicts(lone) == {"a": "no_document", "b": "no_catalogue"}


# ------------------------------------------------------------------------------------------------ two datasets


def test_documents_may_be_in_another_dataset(shelf):
    catalogue = shelf([("1", "x", 100), ("2", "x", 50), ("3", "x", 0)])
    documents = shelf([("1", "x", 101), ("2", "x", 250), ("4", "x", 9)])
    wanted = {"1": "match", "2": "no_match", "3": "no_document", "4": "no_catalogue"}

    summary = check(catalogue, use=None, documents=documents.name)

    assert verdicts(summary) == wanted
    assert catalogue.values("catalogue_product_verdict") == ["match", "no_match", "no_document"]
    assert documents.values("catalogue_product_verdict") == ["match", "no_match", "no_catalogue"]
    assert catalogue.first().catalogue_partner == documents.first().id
    assert catalogue.load_saved_view("catalogue_without_evidence").values("product") == ["3", "2"]
    assert documents.load_saved_view("catalogue_without_evidence").values("product") == ["4", "2"]
    assert derived_pairs(catalogue) == derived_pairs(documents) == [summary.details["dataset"]]


def test_products_are_compared_as_text_whatever_their_type(shelf):
    catalogue, documents = shelf([("7", "x", 100)]), shelf([("8", "x", 100)])
    documents.delete_sample_field("product")
    documents.add_sample_field("product", fo.IntField)
    documents.set_values("product", [7])

    assert verdicts(check(catalogue, use=None, documents=documents)) == {"7": "match"}


def test_slices_of_a_grouped_dataset_can_be_the_two_sides(tmp_path, request):
    dataset = fo.Dataset()
    request.addfinalizer(dataset.delete)
    dataset.add_group_field("view", default="shop")
    samples = []
    for product, greys in {"a": (100, 90), "b": (20, 200)}.items():
        group = fo.Group()
        for name, grey in zip(("shop", "parcel"), greys, strict=True):
            path = tmp_path / f"{product}{name}.png"
            Image.new("RGB", (12, 8), (grey,) * 3).save(path)
            samples.append(fo.Sample(filepath=str(path), product=product, view=group.element(name)))
    dataset.add_samples(samples, progress=False)

    summary = check(dataset, use="view.name", catalogue="shop", document="parcel")
    request.addfinalizer(fo.load_dataset(summary.details["dataset"]).delete)

    assert verdicts(summary) == {"a": "match", "b": "no_match"}
    assert dataset.load_saved_view(summary.details["view"]).values("product") == ["b", "b"]
    assert dataset.select_group_slices().values("catalogue_verdict") == ["match", "match", "no_match", "no_match"]


def test_masks_of_a_field_stand_in_for_the_saliency_and_a_changed_one_is_compared_again(shelf, matcher, tmp_path):
    dataset = shelf([("a", "catalogue", 200), ("a", "document", 200)])
    half = np.zeros((8, 12), np.uint8)
    half[:4] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    dataset.match({"use": "document"}).set_values("mask", [fo.Segmentation(mask_path=str(tmp_path / "mask.png"))])

    masked = check(dataset, saliency="field:mask")
    assert float(rows_of(masked)["a"]["score"]) == pytest.approx(1 - 100 / 255)
    Image.fromarray(np.full_like(half, 255)).save(tmp_path / "mask.png")
    assert float(rows_of(check(dataset, saliency="field:mask"))["a"]["score"]) == pytest.approx(1)
    assert float(rows_of(check(dataset))["a"]["score"]) == pytest.approx(1)


def test_two_views_of_one_dataset_are_two_sides_unless_they_share_samples(shelf):
    dataset = shelf()
    sides = [dataset.match({"use": use}) for use in ("catalogue", "document")]

    assert verdicts(check(sides[0], use=None, documents=sides[1]))["a"] == "match"
    with pytest.raises(ConfigError, match="is in the catalogue, too"):
        check(dataset, use=None, documents=sides[1])


# ---------------------------------------------------------------------------------------------------- resuming


def test_a_picture_is_encoded_once_and_a_second_run_compares_nothing(shelf, matcher):
    dataset = shelf()
    first = check(dataset)
    assert first.counts["done"] == 5
    # Five pictures of a and b; the pairs, and the two best of them once more for their masks.
    assert (matcher.described, matcher.compared) == (6, 5 + 2)

    again = check(dataset)

    assert (again.counts["done"], again.counts["skipped"]) == (0, 5)
    assert (matcher.described, matcher.compared) == (6, 7)
    assert verdicts(again) == verdicts(first)


def test_another_threshold_decides_again_without_comparing(shelf, matcher):
    dataset = shelf()
    check(dataset)
    before = matcher.compared

    summary = check(dataset, threshold=0.3)

    assert matcher.compared == before
    assert verdicts(summary)["b"] == "match"
    rows = read_pairs(fo.load_dataset(summary.details["dataset"]), ["product_verdict", "catalogue_verdict"])
    assert [tuple(row.values.values()) for row in rows] == [("match", "match")] * 2


def test_a_changed_file_and_a_new_one_are_compared_and_nothing_else(shelf, matcher, tmp_path):
    dataset = shelf()
    check(dataset)
    before = matcher.compared
    Image.new("RGB", (20, 8), (60,) * 3).save(dataset.match({"product": "b", "use": "document"}).first().filepath)
    Image.new("RGB", (12, 8), (101,) * 3).save(tmp_path / "new.png")
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "new.png"), product="a", use="document"))

    summary = check(dataset)

    # One pair of b and two of a, and the new best pair of either.
    assert summary.counts["done"] == 3
    assert matcher.compared == before + 3 + 2
    assert verdicts(summary) == {"a": "match", "b": "match", "c": "no_document", "d": "no_catalogue"}
    assert rows_of(summary)["a"]["document_file"] == str(tmp_path / "new.png")
    evidence = fo.load_dataset(summary.details["dataset"])
    assert sorted(row.values["product"] for row in read_pairs(evidence, ["product"])) == ["a", "b"]


@pytest.mark.parametrize(("after", "stored"), [(80, 32), (100, 64)], ids=["comparing", "writing evidence"])
def test_an_interrupted_run_goes_on_where_it_was(shelf, matcher, after, stored):
    rows = [(f"p{number:02d}", use, 100) for number in range(70) for use in ("catalogue", "document")]
    dataset = shelf(rows)
    matcher.fail_after = after
    with pytest.raises(KeyboardInterrupt):
        check(dataset)
    record = load_record(dataset, "catalogue")
    assert record["status"] == "interrupted"
    assert record["counts"]["done"] == stored
    matcher.fail_after = None

    summary = check(dataset)

    assert (summary.counts["done"], summary.counts["skipped"]) == (70 - stored, stored)
    assert summary.counts["matched"] == 70
    assert len(read_pairs(fo.load_dataset(summary.details["dataset"]))) == 70


def test_what_a_kill_cut_off_is_compared_again(tmp_path):
    path = tmp_path / "kept" / "comparisons.jsonl"
    ComparisonStore(path).add({"a-b": Compared("now", 0.25, False), "a-c": Compared("now", 0.5, True)})
    path.write_bytes(path.read_bytes()[:-5])

    store = ComparisonStore(path)
    assert store.get("a-b", "now") == Compared("now", 0.25, False)
    assert store.get("a-b", "before") is None
    assert store.get("a-c", "now") is None
    store.add({"a-c": Compared("now", 0.75, True)})
    assert ComparisonStore(path).get("a-c", "now") == Compared("now", 0.75, True)


# ---------------------------------------------------------------------------------------------------- decisions


def tag(evidence, number, decision):
    row = read_pairs(evidence)[number]
    set_pair_values(evidence, {row.pair_id: {"tags": [f"match:{decision}"]}})
    return row


def test_a_rejected_pair_gives_way_to_the_next_best_and_stays_rejected(shelf):
    dataset = shelf()
    ids = dataset.values("id")
    evidence = fo.load_dataset(check(dataset).details["dataset"])
    tag(evidence, 0, "reject")

    for _ in range(2):
        row = rows_of(check(dataset))["a"]
        assert (row["catalogue_id"], row["document_id"], row["decision"]) == (ids[1], ids[2], "")
        assert (row["verdict"], row["matches"]) == ("match", "1")
        pairs = [(one.source.origin_id, one.target.origin_id) for one in read_pairs(evidence)]
        assert sorted(pairs) == sorted([(ids[0], ids[2]), (ids[1], ids[2]), (ids[4], ids[5])])


def test_an_accepted_pair_is_a_match_and_a_product_with_all_pairs_rejected_is_none(shelf):
    dataset = shelf([*SHELF[4:6], ("e", "catalogue", 90), ("e", "document", 90)])
    evidence = fo.load_dataset(check(dataset).details["dataset"])
    tag(evidence, 0, "accept")
    tag(evidence, 1, "reject")

    summary = check(dataset)

    assert verdicts(summary) == {"b": "match", "e": "no_match"}
    assert [row["decision"] for row in rows_of(summary).values()] == ["reject", "accept"]
    rows = read_pairs(evidence, ["product_verdict"])
    assert [row.values["product_verdict"] for row in rows] == ["match", "no_match"]


# ----------------------------------------------------------------------------------------------------- failures


def test_unreadable_images_are_named_and_stop_nothing(shelf):
    dataset = shelf([*SHELF, ("e", "catalogue", 5), ("e", "document", 5)])
    ids, files = dataset.values("id"), dataset.values("filepath")
    for number in (2, 10):
        Path(files[number]).write_bytes(b"not a picture")
    Path(files[11]).unlink()

    summary = check(dataset)

    assert set(summary.failed) == {ids[2], ids[10], ids[11]}
    assert files[2] in summary.failed[ids[2]]
    assert "does not exist" in summary.failed[ids[11]]
    assert verdicts(summary) == {
        "a": "no_match", "b": "no_match", "c": "no_document", "d": "no_catalogue", "e": "not_compared"
    }  # fmt: skip
    row = rows_of(summary)["a"]
    assert (row["comparisons"], row["failed"], row["left_out"]) == ("2", "2", "0")
    assert dataset[ids[2]].catalogue_error == summary.failed[ids[2]]
    with pytest.raises(ImageError, match="not a"):
        check(dataset, skip_failures=False)

    Image.new("RGB", (12, 8), (110,) * 3).save(files[2])
    assert verdicts(check(dataset))["a"] == "match"
    dataset.reload()
    assert dataset[ids[2]].catalogue_error is None


def test_wrong_options_are_refused_before_anything_is_done(shelf, fo_dataset, matcher):
    dataset = shelf()
    for options, message in [
        ({"use": None}, "say where the documents are"),
        ({"documents": dataset}, "say where the documents are"),
        ({"use": "no such"}, "use='no such' is no field with one word"),
        ({"use": "tags"}, "use='tags' is no field with one word"),
        ({"document": "documents"}, "document='documents' is no value of 'use'; there are: 'catalogue'"),
        ({"document": "catalogue"}, "must be two values"),
        ({"use": None, "documents": "nowhere"}, "there is no dataset of that name"),
        ({"max_pairs": 0}, "max_pairs=0 must be a whole number of at least 1"),
        ({"controls": -1}, "controls=-1"),
        ({"key": "two words"}, "cannot be a field name"),
        ({"name": dataset.name}, "there is a dataset .* already, which is not of this check"),
        ({"path": Path(dataset.first().filepath).parent}, "is a folder"),
        ({"path": f"{dataset.first().filepath}/x.csv"}, "cannot be written"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check(dataset, **options)
    with pytest.raises(ConfigError, match="product='weight' is no field"):
        check_catalogue(dataset, "weight", use="use")
    dataset.save_view("mine_without_evidence", dataset.limit(1))
    with pytest.raises(ConfigError, match="has a saved view 'mine_without_evidence'"):
        check(dataset, key="mine")
    assert matcher.described == 0
    assert not dataset.list_runs()


def test_pairs_have_no_catalogue(shelf):
    dataset = shelf()
    evidence = fo.load_dataset(check(dataset).details["dataset"])
    with pytest.raises(ConfigError, match="these are pairs already"):
        check(evidence, use="product_verdict")


# ------------------------------------------------------------------------------------------------------- limits


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12), st.integers(1, 30), st.integers(1, 200))
def test_limits_are_kept_and_used_up_and_the_largest_products_give_way(sides, per_product, total):
    names = {str(number): both for number, both in enumerate(sides)}
    possible = {name: min(first * second, per_product) for name, (first, second) in names.items()}

    shares = share_out(names, per_product, total)

    assert sum(shares.values()) == min(total, sum(possible.values()))
    assert all(shares[name] <= possible[name] for name in names)
    reduced = [shares[name] for name in names if shares[name] < possible[name]]
    assert all(share <= min(reduced) + 1 for share in shares.values()) if reduced else True


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 150))
def test_chosen_pairs_are_different_and_meet_every_image_first(first, second, most):
    pairs = list(spread_pairs(first, second, most))

    assert len(pairs) == len(set(pairs)) == min(most, first * second)
    assert all(0 <= one < first and 0 <= other < second for one, other in pairs)
    if most >= max(first, second):
        assert {one for one, _ in pairs} == set(range(first))
        assert {other for _, other in pairs} == set(range(second))


def test_what_the_limits_leave_out_is_said(shelf):
    summary = check(shelf(), max_per_product=3)
    assert rows_of(summary)["a"]["left_out"] == "1"
    assert "1 comparison of 1 product left out; raise max_per_product or max_pairs" in " ".join(summary.notices)

    none_left = check(shelf(), max_pairs=1)
    assert verdicts(none_left)["b"] == "not_compared"
    assert none_left.counts["comparisons"] == 1


# ----------------------------------------------------------------------------------------------------- threshold


def test_the_threshold_is_what_different_products_hardly_ever_exceed(shelf):
    greys = [10 * number for number in range(8)]
    rows = [(f"p{number}", use, grey) for number, grey in enumerate(greys) for use in ("catalogue", "document")]
    rows += [("sibling", "catalogue", 200), ("sibling", "document", 180)]
    wrong = [1 - abs(a - b) / 255 for p, use, a in rows for q, other, b in rows
             if use == "catalogue" and other == "document" and p != q]  # fmt: skip

    summary = check(shelf(rows), threshold=None)

    expected = np.quantile(np.float32(wrong), 0.98)
    assert len(wrong) == 72
    assert summary.details["threshold"] == pytest.approx(expected, abs=1e-6)
    assert summary.counts["comparisons"] == 9 + 72
    # Ten greys apart are different products, so twenty are no match.
    assert expected == pytest.approx(1 - 10 / 255)
    assert [product for product, verdict in verdicts(summary).items() if verdict != "match"] == ["sibling"]
    assert "only 2% of 72 comparisons between different products exceed it" in " ".join(summary.notices)


def test_the_matchers_threshold_counts_where_it_is_higher_or_nothing_can_be_found_out(shelf):
    few = check(shelf(), threshold=None)
    assert few.details["threshold"] == 0.8
    assert "Threshold 0.800 is the matcher's; from 20 comparisons" in " ".join(few.notices)

    far = [(f"p{number}", use, 50 * number) for number in range(6) for use in ("catalogue", "document")]
    higher = check(shelf(far), threshold=None)
    assert higher.details["threshold"] == pytest.approx(1 - 50 / 255, abs=1e-6)
    none = check(shelf(far), threshold=None, controls=0)
    assert none.counts["comparisons"] == 6
    assert none.details["threshold"] == 0.8


# ------------------------------------------------------------------------------------------- with a real matcher


def test_a_real_matcher_leaves_masks_that_match_objects_takes_as_its_own(
    block_dataset, monkeypatch, tiny_model, request
):
    monkeypatch.undo()
    dataset = block_dataset(4)
    dataset.set_values("product", ["a", "a", "b", "b"])
    dataset.set_values("use", ["catalogue", "document"] * 2)

    options = {"model": tiny_model, "device": "cpu"}
    summary = check(dataset, threshold=None, **options)
    evidence = fo.load_dataset(summary.details["dataset"])
    request.addfinalizer(evidence.delete)

    assert summary.counts["products"] == 2
    for sample in flat_pairs(evidence):
        assert read_mask(sample["catalogue"].mask_path).shape == (120, 160)
    matched = match_objects(evidence, "catalogue", write_back=False, progress=False, **options)
    assert (matched.counts["done"], matched.counts["skipped"]) == (0, 2)
