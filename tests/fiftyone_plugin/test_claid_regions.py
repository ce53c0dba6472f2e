"""compute_claid_regions: what it writes, where vectors are kept, and what it refuses."""

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.claid.presets import region_extractor
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fiftyone_plugin.region_views import region_levels, show_region_level
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from fiftyone_selfsame.fixtures.model_folders import make_resnet_folder


def slow_regions(path, **size):
    """One image through the public core, as the dataset should hold it."""
    backbone = load_backbone("embedded-hybrid", device="cpu")
    extractor = region_extractor("default", backbone, {"min_patches": 4, **size}, device="cpu")
    return extractor.extract([extractor.prepare(decode_image(path))])[0]


def test_regions_and_vectors_are_those_of_the_core(block_dataset, regions):
    dataset = block_dataset(3)

    regions(dataset, batch_size=2)

    for sample in dataset:
        expected = slow_regions(sample.filepath, short_side=96, long_side=192)
        height, width = decode_image(sample.filepath).shape[:2]
        boxes = np.array([label.bounding_box for label in sample.regions.detections])
        corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1) * (width, height, width, height)
        np.testing.assert_allclose(corners, expected.boxes, atol=1e-6)
        assert [label.level for label in sample.regions.detections] == expected.level.tolist()
        assert [label.row for label in sample.regions.detections] == list(range(len(expected)))
        assert sample.regions_count == len(expected) > 0
        assert sample.regions_vectors.dtype == np.float16
        np.testing.assert_allclose(sample.regions_vectors, expected.vectors, atol=1e-3)
        np.testing.assert_allclose(np.linalg.norm(sample.regions_vectors.astype(float), axis=1), 1, atol=2e-3)


def test_a_mask_fills_the_box_that_encloses_it(block_dataset, regions):
    dataset = block_dataset(1)

    regions(dataset)

    for label in dataset.first().regions.detections:
        assert label.mask.dtype == bool
        assert label.mask.any(0).all() or label.mask.any(1).all()
        assert label.mask[0].any()
        assert label.mask[-1].any()
        assert label.mask[:, 0].any()
        assert label.mask[:, -1].any()


def test_parents_are_larger_regions_of_the_same_image_that_hold_their_parts(block_dataset, regions):
    dataset = block_dataset(4)

    regions(dataset, tau2=0.0, alpha=0.7, min_patches=2)

    seen = 0
    for sample in dataset:
        by_id = {label.id: label for label in sample.regions.detections}
        for label in by_id.values():
            assert label.n_parts == sum(other.parent_id == label.id for other in by_id.values())
            if label.parent_id is None:
                continue
            parent, seen = by_id[label.parent_id], seen + 1
            assert parent.level < label.level
            assert parent.area >= label.area
            x, y, width, height = label.bounding_box
            px, py, pwidth, pheight = parent.bounding_box
            assert px <= x + 1e-9
            assert py <= y + 1e-9
            assert x + width <= px + pwidth + 1e-9
            assert y + height <= py + pheight + 1e-9
    assert seen


def test_attributes_are_declared_so_that_the_app_can_filter_by_them(block_dataset, regions):
    dataset = block_dataset(1)

    regions(dataset)

    schema = dataset.get_field_schema(flat=True)
    assert isinstance(schema["regions.detections.level"], fo.IntField)
    assert isinstance(schema["regions.detections.saliency"], fo.FloatField)
    assert isinstance(schema["regions.detections.parent_id"], fo.StringField)
    assert isinstance(schema["regions_vectors"], fo.ArrayField)
    assert schema["regions"].info["method"] == "compute_claid_regions"
    assert schema["regions"].info["descriptor"]["model"] == "embedded-hybrid"


def test_vectors_on_the_labels_serve_fiftyone_s_own_patch_similarity(block_dataset, regions):
    dataset = block_dataset(3)

    regions(dataset, storage="labels", similarity_key="alike")

    assert not dataset.has_field("regions_vectors")
    patches = dataset.to_patches("regions")
    first = patches.first()
    ranked = patches.sort_by_similarity(first.regions.id, brain_key="alike", k=2)
    assert ranked.first().regions.id == first.regions.id
    assert first.regions.vector.dtype == np.float16


def test_vectors_on_the_labels_make_a_map_for_the_embeddings_panel(block_dataset, regions):
    dataset = block_dataset(4)

    regions(dataset, storage="labels", visualization_key="map")

    results = dataset.load_brain_results("map")
    assert results.config.patches_field == "regions"
    assert len(results.points) == dataset.count("regions.detections")


def test_vectors_in_files_leave_the_database_small_and_are_missed_when_they_are_lost(block_dataset, regions):
    dataset = block_dataset(3)
    regions(dataset, field="arrays")

    regions(dataset, storage="files")
    again = regions(dataset, storage="files")
    lost = Path(dataset.first().regions_vectors_path)
    lost.unlink()
    repaired = regions(dataset, storage="files")

    assert not dataset.has_field("regions_vectors")
    for sample in dataset:
        np.testing.assert_array_equal(np.load(sample.regions_vectors_path), sample.arrays_vectors)
    assert (again.counts["done"], repaired.counts["done"]) == (0, 1)
    assert lost.is_file()


def test_a_similarity_index_asks_for_vectors_on_the_labels(block_dataset, regions):
    with pytest.raises(ConfigError, match="storage='labels'"):
        regions(block_dataset(1), similarity_key="alike")


def test_a_second_run_computes_only_what_is_new_or_of_other_settings(block_dataset, regions):
    dataset = block_dataset(3)
    regions(dataset)
    before = dataset.values("regions.detections.id")

    again = regions(dataset)
    other = regions(dataset, min_patches=8)

    assert (again.counts["done"], again.counts["skipped"]) == (0, 3)
    assert (other.counts["done"], other.counts["skipped"]) == (3, 0)
    assert dataset.values("regions.detections.id") != before
    assert load_record(dataset, "regions")["config"]["min_patches"] == 8


def test_a_broken_file_is_explained_and_the_others_go_on(block_dataset, regions, tmp_path):
    dataset = block_dataset(2)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    dataset.add_sample(fo.Sample(filepath=str(broken)))

    summary = regions(dataset)

    assert summary.counts["done"] == 2
    assert summary.counts["failed"] == 1
    assert str(broken) in dataset.last().regions_error
    assert dataset.last().regions is None


def test_an_image_without_structure_has_no_region_and_no_failure(fo_dataset, regions, tmp_path):
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.new("RGB", (120, 96), (128, 128, 128)).save(path)
    dataset = fo_dataset([path])

    summary = regions(dataset)

    assert summary.counts["failed"] == 0
    sample = dataset.first()
    assert sample.regions_count == len(sample.regions.detections) == len(sample.regions_vectors)
    assert regions(dataset).counts["skipped"] == 1


def test_a_resnet_describes_what_a_transformer_found(block_dataset, regions, tmp_path):
    folder = make_resnet_folder(tmp_path / "resnet")
    dataset = block_dataset(2)

    summary = regions(dataset, descriptor=str(folder), layer="layer4.1")

    info = dataset.get_field("regions").info
    assert info["descriptor"]["layer"] == "layer4.1"
    assert info["descriptor"]["pooling"] == "gem"
    assert not info["shared_tokens"]
    assert dataset.first().regions_vectors.shape == (dataset.first().regions_count, info["dim"])
    assert summary.details["descriptor"] == str(folder)


def test_the_published_pipelines_ask_for_the_published_models(block_dataset, regions):
    from fiftyone_selfsame.brain.errors import ModelError

    for preset in ("paper", "code"):
        with pytest.raises(ModelError, match="dino-vitb8"):
            regions(block_dataset(1), model=None, preset=preset)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"storage": "cloud"}, "storage"),
        ({"alpha": 2.0}, "alpha"),
        ({"min_patches": 0}, "min_patches"),
        ({"order": "random"}, "order"),
        ({"short_side": 900, "long_side": 100}, "short_side"),
        ({"preset": "fast"}, "preset"),
        ({"pooling": "median"}, "pooling"),
        ({"area": "circle"}, "area"),
        ({"layer": "layer4.0"}, "layer"),
    ],
)
def test_options_that_cannot_work_are_named_before_anything_is_written(block_dataset, regions, options, named):
    dataset = block_dataset(1)

    with pytest.raises(ConfigError, match=named):
        regions(dataset, **options)

    assert not dataset.has_field("regions")


def test_a_field_with_labels_of_somebody_else_is_not_touched(block_dataset, regions):
    dataset = block_dataset(1)
    dataset.set_values("regions", [fo.Detections(detections=[fo.Detection(label="a", bounding_box=[0, 0, 1, 1])])])

    with pytest.raises(ConfigError, match="did not compute"):
        regions(dataset)


def test_one_level_at_a_time_is_shown(block_dataset, regions):
    dataset = block_dataset(3)
    regions(dataset, tau2=0.0, alpha=0.7, min_patches=2)
    levels = region_levels(dataset, "regions")

    for level, number in levels.items():
        view = show_region_level(dataset, level=level)
        assert set(view.distinct("regions.detections.level")) == {level}
        assert view.count("regions.detections") == number
    smallest = show_region_level(dataset, level="smallest", as_patches=True)
    parents = set(dataset.distinct("regions.detections.parent_id"))
    assert smallest.count() == dataset.count("regions.detections") - len(parents - {None})
    assert not parents & set(smallest.values("id"))
    assert show_region_level(dataset, level="all").count("regions.detections") == sum(levels.values())
    salient = show_region_level(dataset, level="all", min_saliency=0.5)
    assert min(salient.values("regions.detections.saliency", unwind=True)) >= 0.5


@pytest.mark.parametrize("level", [0, "top", 1.5, True])
def test_a_level_that_cannot_be_is_refused(block_dataset, regions, level):
    dataset = block_dataset(1)
    regions(dataset)

    with pytest.raises(ConfigError, match="level"):
        show_region_level(dataset, level=level)


def test_without_regions_the_views_say_what_to_run_first(block_dataset):
    with pytest.raises(ConfigError, match="compute_claid_regions"):
        show_region_level(block_dataset(1))
