"""Searching by object: the index beside the dataset, every kind of query, and what is left behind."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from fiftyone_selfsame.brain.claid.region_index import RegionIndex
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.fiftyone_plugin.region_index import build_region_index, index_folder
from fiftyone_selfsame.fiftyone_plugin.region_search import clear_object_search, search_by_object, search_view
from fiftyone_selfsame.fixtures.model_folders import make_text_model_folder
from PIL import Image


@pytest.fixture
def searched(block_dataset, regions):
    """Six images of three objects, two each, with regions."""
    dataset = block_dataset(6)
    regions(dataset)
    return dataset


def search(samples, *arguments, **options):
    return search_by_object(samples, *arguments, **{"progress": False, "device": "cpu", **options})


def best_region(sample):
    """The region that covers the object best, by the box that the picture was painted with."""
    x, y, width, height = sample.truth.detections[0].bounding_box

    def overlap(label):
        left, top, w, h = label.bounding_box
        inner = max(0, min(x + width, left + w) - max(x, left)) * max(0, min(y + height, top + h) - max(y, top))
        return inner / (width * height + w * h - inner)

    return max(sample.regions.detections, key=overlap)


def brute_force(dataset, query, exclude=()):
    """Ids of the images by their best region, from the stored vectors alone."""
    scores = {}
    for sample in dataset:
        if sample.id not in exclude and sample.regions_count:
            scores[sample.id] = float((sample.regions_vectors.astype(np.float64) @ query).max())
    return sorted(scores, key=lambda one: -scores[one]), scores


# ------------------------------------------------------------------------------------------------------------ index


def test_the_index_follows_the_dataset(searched, regions, block_pictures, tmp_path):
    first = build_region_index(searched, progress=False)
    again = build_region_index(searched, progress=False)
    gone = searched.first().id
    searched.delete_samples([gone])
    searched.add_samples([fo.Sample(filepath=str(path)) for path in block_pictures(2, tmp_path / "more")])
    regions(searched)
    third = build_region_index(searched, progress=False)

    index = RegionIndex.open(index_folder(searched, "regions"))
    assert (first.counts["done"], first.counts["regions"]) == (6, first.counts["regions"])
    assert (again.counts["done"], again.counts["skipped"]) == (0, 6)
    assert (third.counts["done"], third.counts["skipped"], third.counts["removed"]) == (2, 5, 1)
    assert set(index.image_ids) == set(searched.values("id"))
    assert index.n_regions == searched.count("regions.detections")


def test_recomputed_regions_replace_the_old_ones(searched, regions):
    build_region_index(searched, progress=False)
    regions(searched, min_patches=8)

    build_region_index(searched, progress=False)

    index = RegionIndex.open(index_folder(searched, "regions"))
    for sample in searched:
        assert list(index.regions_of(sample.id).label_ids) == [label.id for label in sample.regions.detections]


def test_regions_without_vectors_are_explained(searched):
    searched.set_values("regions_vectors", {searched.first().id: None}, key_field="id")

    summary = build_region_index(searched, progress=False)

    assert summary.counts["failed"] == 1
    assert "overwrite=True" in summary.failed[searched.first().id]
    assert summary.counts["done"] == 5


def test_vectors_on_labels_are_indexed_too(block_dataset, regions):
    dataset = block_dataset(3)
    regions(dataset, storage="labels")

    summary = build_region_index(dataset, progress=False)

    assert summary.counts["regions"] == dataset.count("regions.detections")
    sample = dataset.first()
    stored = RegionIndex.open(index_folder(dataset, "regions")).regions_of(sample.id)
    np.testing.assert_allclose(stored.vectors[0], sample.regions.detections[0].vector, atol=2e-3)


def test_vectors_in_files_are_indexed_too_and_a_lost_file_is_explained(block_dataset, regions):
    dataset = block_dataset(3)
    regions(dataset, storage="files")
    Path(dataset.last().regions_vectors_path).unlink()

    summary = build_region_index(dataset, progress=False)

    assert (summary.counts["done"], list(summary.failed)) == (2, [dataset.last().id])
    sample = dataset.first()
    stored = RegionIndex.open(index_folder(dataset, "regions")).regions_of(sample.id)
    np.testing.assert_allclose(stored.vectors, np.load(sample.regions_vectors_path), atol=2e-3)


def test_without_regions_one_is_told_what_to_run_first(block_dataset):
    with pytest.raises(ConfigError, match="compute_claid_regions"):
        build_region_index(block_dataset(1), progress=False)


# ----------------------------------------------------------------------------------------------------------- search


def test_a_region_finds_the_same_object_first_and_says_where(searched):
    query = searched.first()
    region = best_region(query)

    view = search(searched, labels=[region.id])

    expected, scores = brute_force(searched, query.regions_vectors[region.row].astype(np.float64), {query.id})
    assert view.values("id") == expected
    assert view.first().object == query.object
    np.testing.assert_allclose(view.values("search_similarity"), [scores[one] for one in expected], atol=2e-3)
    assert view.values("search_rank") == [1, 2, 3, 4, 5]
    best = view.first()
    (found,) = best.search.detections
    hit = next(label for label in best.regions.detections if label.id == found.region_id)
    assert found.bounding_box == pytest.approx(hit.bounding_box, abs=1e-6)
    assert found.mask is None
    assert found.similarity == pytest.approx(best.search_similarity)


def test_the_query_s_own_image_comes_first_where_it_is_asked_for(searched):
    query = searched.first()

    view = search(searched, labels=[best_region(query).id], include_query=True, limit=2)

    assert view.values("id")[0] == query.id
    assert view.first().search_similarity == pytest.approx(1, abs=2e-3)
    assert len(view) == 2


def test_labels_of_other_fields_are_encoded_as_the_regions_were(searched):
    query = searched.first()

    view = search(searched, labels=[query.truth.detections[0].id])

    assert view.first().object == query.object
    assert query.id not in view.values("id")


def test_a_selection_of_the_app_is_taken_as_it_is(searched):
    query = searched.first()
    region = best_region(query)
    selected = [{"label_id": region.id, "sample_id": query.id, "field": "regions", "frame_number": None}]

    in_patches = [{**selected[0], "sample_id": region.id}]

    by_id = search(searched, labels=[region.id]).values("id")

    assert search(searched, labels=selected).values("id") == by_id
    assert search(searched, labels=in_patches).values("id") == by_id


def test_several_queries_rank_images_first_that_show_all_or_any_of_them(searched):
    first, second = searched.first(), searched.skip(1).first()
    labels = [best_region(first).id, best_region(second).id]

    both = search(searched, labels=labels, include_query=True)
    any_of = search(searched, labels=labels, include_query=True, combine="any", key="any_of")

    rows = [first.regions_vectors[best_region(first).row], second.regions_vectors[best_region(second).row]]
    scores = [brute_force(searched, row.astype(np.float64))[1] for row in rows]
    means = {one: (scores[0][one] + scores[1][one]) / 2 for one in scores[0]}
    assert both.values("id") == sorted(means, key=lambda one: -means[one])
    assert set(any_of.values("id")[:2]) == {first.id, second.id}
    assert [len(sample.search.detections) for sample in both] == [2] * 6
    assert both.first().search.detections[0].label == "object 1"


def test_a_whole_image_and_a_box_of_it_are_queries(searched):
    query = searched.first()
    box = query.truth.detections[0].bounding_box

    whole = search(searched, images=[query.id])
    part = search(searched, images=[query.id], box=box, key="part")

    assert query.id not in whole.values("id")
    assert part.first().object == query.object
    label = search(searched, labels=[query.truth.detections[0].id], key="label")
    assert part.values("id") == label.values("id")


def test_a_query_may_be_cut_out_of_its_picture(searched):
    query = searched.first()
    region = best_region(query)

    seen = search(searched, labels=[region.id]).values("search_similarity")
    cut_out = search(searched, labels=[region.id], crop=True)
    part = search(searched, images=[query.id], box=region.bounding_box, crop=True, key="part")

    assert cut_out.first().object == query.object
    assert cut_out.values("search_similarity") != seen
    np.testing.assert_allclose(part.values("part_similarity"), cut_out.values("search_similarity"), atol=1e-6)


@pytest.mark.parametrize("form", [str, lambda path: path.read_bytes(), lambda path: np.asarray(Image.open(path))])
def test_a_picture_from_outside_is_a_query(searched, block_pictures, tmp_path, form):
    (path,) = block_pictures(1, tmp_path / "outside")
    query = searched.first()

    view = search(searched, image=form(path), box=query.truth.detections[0].bounding_box)

    assert len(view) == 6
    assert view.first().object == query.object


def test_only_images_of_the_view_are_found(searched):
    query = searched.first()
    view = searched.match(F("object") != query.object)

    found = search(view, labels=[best_region(query).id])

    assert set(found.values("id")) == set(view.values("id"))


def test_patches_stand_for_their_dataset(searched):
    patches = searched.to_patches("regions")

    view = search(patches, labels=[patches.first().id])

    assert len(view) == 5


def test_words_find_regions_that_siglip_described(block_dataset, regions, tmp_path):
    folder = str(make_text_model_folder("siglip", tmp_path / "siglip"))
    dataset = block_dataset(3)
    regions(dataset, field="words", descriptor=folder)

    view = search(dataset, "words", text="a red block")

    from fiftyone_selfsame.brain.backbones.text import load_text_encoder

    (text,) = load_text_encoder(folder, device="cpu").embed(["a red block"])
    scores = {sample.id: float((sample.words_vectors.astype(np.float64) @ text).max()) for sample in dataset}
    assert view.values("id") == sorted(scores, key=lambda one: -scores[one])
    assert view.first().search.detections[0].label == "a red block"


@pytest.mark.parametrize("query", [{"text": "a mug"}, {"image": np.zeros((40, 40, 3), np.uint8)}])
def test_a_query_is_not_encoded_by_other_weights_than_the_regions(block_dataset, regions, tmp_path, query):
    folder = make_text_model_folder("siglip", tmp_path / "siglip")
    dataset = block_dataset(2)
    regions(dataset, descriptor=str(folder))
    search(dataset, **query)

    make_text_model_folder("siglip", folder, seed=1)

    with pytest.raises(ConfigError, match="overwrite=True"):
        search(dataset, **query)


def test_words_need_a_model_that_knows_words(searched):
    with pytest.raises(ConfigError, match="SigLIP"):
        search(searched, text="milk")


# --------------------------------------------------------------------------------------- what is left, and refusals


def test_a_new_search_replaces_the_old_one_and_clearing_leaves_nothing(searched):
    before = searched.get_field_schema()
    order = searched.values("id")
    search(searched, labels=[best_region(searched.first()).id])
    search(searched, labels=[best_region(searched.last()).id], limit=2)

    assert len(searched.exists("search_rank")) == 2
    assert searched.count("search.detections") == 2
    clear_object_search(searched)

    assert searched.get_field_schema().keys() == before.keys()
    assert searched.values("id") == order
    assert "search" not in searched.list_runs()
    with pytest.raises(ConfigError, match="no such search"):
        search_view(searched)


def test_a_field_of_somebody_else_is_not_taken_for_the_result(searched):
    searched.set_values("search", ["mine"] * 6)

    with pytest.raises(ConfigError, match="search"):
        search(searched, labels=[best_region(searched.first()).id])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "nothing is given"),
        ({"text": "a", "images": ["b"]}, "images and text"),
        ({"labels": []}, "nothing is given"),
        ({"labels": ["no id"]}, "no label id"),
        ({"labels": ["0" * 24]}, "no detection"),
        ({"images": ["0" * 24]}, "no sample"),
        ({"text": "a", "box": [0, 0, 1, 1]}, "box goes with"),
        ({"image": "x.jpg", "box": [0, 0, 2, 1]}, "box"),
        ({"image": "x.jpg", "box": [0, 0]}, "four numbers"),
        ({"text": "a", "limit": 0}, "limit"),
        ({"text": "a", "combine": "most"}, "combine"),
        ({"text": "a", "key": "two words"}, "key"),
        ({"text": "a", "field": "areas"}, "fields with regions: regions"),
    ],
)
def test_requests_that_cannot_be_answered_are_explained(searched, options, named):
    with pytest.raises(ConfigError, match=named):
        search(searched, **options)


def test_a_picture_that_cannot_be_read_is_named(searched, tmp_path):
    with pytest.raises(ImageError, match=r"nothing\.jpg"):
        search(searched, image=tmp_path / "nothing.jpg")
