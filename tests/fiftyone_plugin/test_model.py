"""FFA as a FiftyOne model: the same vectors and masks as the plugin's own functions, through FiftyOne's methods."""

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa, compute_foreground
from fiftyone_selfsame.fiftyone_plugin.model import FFAModel, FFAModelConfig
from PIL import Image

SMALL = {"model": "embedded-untrained", "size": 56, "device": "cpu"}


@pytest.fixture
def scenes(tmp_path):
    """Three pictures with an object: a landscape PNG, a large JPEG (decoded at reduced scale) and a rotated one."""
    rng = np.random.default_rng(0)
    files = {"wide.png": (60, 90), "large.jpg": (480, 640), "turned.jpg": (300, 200)}
    for name, (height, width) in files.items():
        pixels = rng.integers(100, 130, (height, width, 3), np.uint8)
        pixels[height // 4 : height // 2, width // 4 : width // 2] = rng.integers(0, 255, 3)
        image = Image.fromarray(pixels)
        exif = image.getexif()
        exif[0x0112] = 6 if name == "turned.jpg" else 1
        image.save(tmp_path / name, exif=exif, quality=90)
    return [tmp_path / name for name in files]


@pytest.fixture
def model():
    return FFAModel.from_kwargs(**SMALL)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"foreground": "none", "pooling": "cls"},
        {"foreground": "grabcut", "resize": "aspect", "weights": "soft"},
        {"foreground": "grabcut", "encode": "cutout", "resize": "letterbox"},
    ],
)
def test_vectors_are_those_of_compute_ffa(fo_dataset, scenes, options):
    dataset = fo_dataset(scenes)
    dataset.compute_embeddings(FFAModel.from_kwargs(**SMALL, **options), "theirs", batch_size=2, num_workers=0)
    compute_ffa(dataset, "ours", **SMALL, **options)
    np.testing.assert_allclose(dataset.values("theirs"), dataset.values("ours"), atol=1e-5)


def test_loader_processes_give_the_same_vectors(fo_dataset, scenes, model):
    dataset = fo_dataset(scenes)
    alone = dataset.compute_embeddings(model, num_workers=0)
    with_workers = dataset.compute_embeddings(model, batch_size=3, num_workers=2)
    np.testing.assert_allclose(with_workers, alone, atol=1e-5)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-6)


def test_an_array_is_embedded_as_the_file_it_came_from(scenes, model, fo_dataset):
    pixels = np.asarray(Image.open(scenes[0]).convert("RGB"))
    of_file = fo_dataset(scenes[:1]).compute_embeddings(model, num_workers=0)
    np.testing.assert_allclose(model.embed(pixels), of_file[0], atol=1e-6)
    np.testing.assert_allclose(model.get_embeddings(), of_file, atol=1e-6)


def test_a_broken_file_is_skipped_as_fiftyone_does_or_raises_with_its_name(fo_dataset, scenes, model, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    dataset = fo_dataset([*scenes, broken])
    dataset.compute_embeddings(model, "ffa", num_workers=0)
    assert [vector is not None for vector in dataset.values("ffa")] == [True, True, True, False]
    with pytest.raises(Exception, match=r"broken\.jpg"):
        dataset.compute_embeddings(model, num_workers=0, skip_failures=False)


def test_crops_are_embedded_as_objects(fo_dataset, scenes, model):
    from fiftyone_selfsame.brain.images import decode_image

    box = (20, 10, 40, 30)
    dataset = fo_dataset(scenes[:1])
    sample = dataset.first()
    relative = [box[0] / 90, box[1] / 60, box[2] / 90, box[3] / 60]
    sample["objects"] = fo.Detections(detections=[fo.Detection(label="a", bounding_box=relative)] * 2)
    sample.save()
    dataset.compute_patch_embeddings(model, "objects", embeddings_field="ffa", batch_size=2, num_workers=0)
    crop = decode_image(scenes[0])[10:40, 20:60]
    expected = model._extractor.embed_objects(crop, np.array([[0, 0, 40, 30]]))[0].vector
    for vector in dataset.values("objects.detections.ffa", unwind=True):
        np.testing.assert_allclose(vector, expected, atol=1e-5)


def test_samples_without_objects_have_no_patch_vectors(fo_dataset, scenes, model):
    dataset = fo_dataset(scenes[:1])
    dataset.add_sample_field("objects", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    assert dataset.compute_patch_embeddings(model, "objects", num_workers=0) == {dataset.first().id: None}


def test_similarity_index_takes_the_model(fo_dataset, scenes, model):
    dataset = fo_dataset(scenes)
    index = fob.compute_similarity(dataset, model=model, brain_key="sim", num_workers=0)
    assert index.total_index_size == 3
    assert len(dataset.sort_by_similarity(dataset.first().id, brain_key="sim", k=2)) == 2


@pytest.mark.parametrize("method", ["one_pass", "grabcut"])
def test_masks_are_those_of_compute_foreground(fo_dataset, scenes, method):
    dataset = fo_dataset(scenes)
    model = FFAModel.from_kwargs(model="embedded", device="cpu", foreground=method)
    dataset.apply_model(model, label_field="theirs", batch_size=2, num_workers=0)
    compute_foreground(dataset, method, "ours", model="embedded", device="cpu")
    for sample in dataset:
        theirs, ours = sample["theirs"].get_mask(), sample["ours"].get_mask()
        assert theirs.shape == ours.shape
        assert (theirs != ours).mean() < 1e-3
    assert set(np.unique(dataset.first()["theirs"].mask)) <= {0, 255}


def test_masks_can_go_to_files(fo_dataset, scenes, model, tmp_path):
    dataset = fo_dataset(scenes[:1])
    dataset.apply_model(model, label_field="mask", output_dir=str(tmp_path / "masks"), num_workers=0)
    label = dataset.first()["mask"]
    assert label.mask is None
    assert Image.open(label.mask_path).size == (90, 60)


def test_without_a_foreground_there_are_no_masks(scenes):
    model = FFAModel.from_kwargs(**SMALL, foreground="none")
    with pytest.raises(ConfigError, match="another foreground"):
        model.predict(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": 1}, "colour: no such option"),
        ({"foreground": "field:mask"}, "use compute_ffa"),
        ({"preset": "x"}, "preset='x'"),
        ({"pooling": "max"}, "pooling='max'"),
    ],
)
def test_options_that_cannot_work_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        FFAModel(FFAModelConfig({**SMALL, **options}))


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)])
def test_arrays_that_are_no_rgb_images_are_refused(model, bad):
    with pytest.raises(ConfigError, match="uint8"):
        model.embed(bad)
