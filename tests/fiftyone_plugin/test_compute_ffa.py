"""compute_ffa: what it writes, from which foregrounds, and what it refuses."""

import inspect

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from fiftyone_selfsame.brain.backbones import load_backbone
from fiftyone_selfsame.brain.errors import ConfigError, ModelError
from fiftyone_selfsame.brain.ffa import FFAConfig, FFAExtractor
from fiftyone_selfsame.brain.images import decode_image
from fiftyone_selfsame.fiftyone_plugin import api
from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa, compute_ffa_steps, compute_foreground
from fiftyone_selfsame.fiftyone_plugin.engine.local import Progress
from fiftyone_selfsame.fiftyone_plugin.runs import last_run, load_record
from PIL import Image

BOX = [0.25, 0.25, 0.5, 0.5]


def slow_vectors(paths, model, masks=None, **config):
    """One image at a time through the public core."""
    extractor = FFAExtractor(load_backbone(model, device="cpu"), None, FFAConfig(**config))
    masks = masks if masks is not None else [None] * len(paths)
    pairs = zip(paths, masks, strict=True)
    return np.stack([extractor.embed([extractor.prepare(decode_image(path), mask)])[0].vector for path, mask in pairs])


def test_vectors_are_those_of_the_core_and_of_unit_length(fo_dataset, photos, ffa, tiny_model):
    paths = photos(5)
    dataset = fo_dataset(paths)

    ffa(dataset, batch_size=2)

    vectors = np.stack(dataset.values("ffa"))
    np.testing.assert_allclose(vectors, slow_vectors(paths, tiny_model), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert vectors.dtype == np.float32


def test_fields_are_declared_described_and_say_where_they_come_from(fo_dataset, photos, ffa, tiny_model):
    dataset = fo_dataset(photos(1))

    ffa(dataset, weights="soft")

    schema = dataset.get_field_schema()
    types = {name: type(schema[name]).__name__ for name in schema if name.startswith("ffa")}
    assert types == {
        "ffa": "VectorField",
        "ffa_foreground_fraction": "FloatField",
        "ffa_n_patches": "IntField",
        "ffa_fallback": "BooleanField",
        "ffa_error": "StringField",
        "ffa_provenance": "StringField",
    }
    info = schema["ffa"].info
    assert (info["method"], info["model"], info["weights"]) == ("compute_ffa", tiny_model, "soft")
    assert len(info["weights_hash"]) >= 16
    assert all(schema[name].description for name in types)


def test_a_run_record_tells_how_it_went(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(3))

    summary = ffa(dataset.limit(2))

    record = load_record(dataset, "ffa")
    assert record == last_run(dataset, method="compute_ffa", field="ffa")
    assert record["counts"] == summary.counts == {"total": 2, "done": 2, "skipped": 0, "failed": 0}
    assert record["config"]["weights_hash"]
    assert record["images_per_second"] > 0


def test_the_dataset_s_own_masks_are_used_and_missing_ones_flagged(fo_dataset, photos, ffa, tiny_model, tmp_path):
    paths = photos(4)
    dataset = fo_dataset(paths)
    mask = np.zeros((60, 80), np.uint8)
    mask[:30, :40] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    labels = [
        fo.Segmentation(mask=mask),
        fo.Segmentation(mask_path=str(tmp_path / "mask.png")),
        None,
        fo.Segmentation(mask=np.zeros_like(mask)),
    ]
    dataset.set_values("thing", labels)

    ffa(dataset, foreground="field:thing")

    expected = slow_vectors(paths, tiny_model, [mask > 0, mask > 0, None, None])
    np.testing.assert_allclose(np.stack(dataset.values("ffa")), expected, atol=1e-5)
    assert dataset.values("ffa_fallback") == [False, False, True, True]
    assert dataset.values("ffa_foreground_fraction")[0] == pytest.approx(0.25, abs=1e-6)


def test_boxes_and_instance_masks_of_detections_make_a_foreground(fo_dataset, photos, ffa, tiny_model):
    paths = photos(2)
    dataset = fo_dataset(paths)
    left = fo.Detection(bounding_box=[0, 0, 0.25, 0.5])
    checked = fo.Detection(bounding_box=[0.5, 0.5, 0.5, 0.5], mask=np.array([[1, 0], [0, 1]], bool))
    dataset.set_values("gt", [fo.Detections(detections=[left, checked]), fo.Detections(detections=[])])

    ffa(dataset, foreground="field:gt", weights="soft")

    mask = np.zeros((60, 80), bool)
    mask[:30, :20] = mask[30:45, 40:60] = mask[45:, 60:] = True
    expected = slow_vectors(paths, tiny_model, [mask, None], weights="soft")
    np.testing.assert_allclose(np.stack(dataset.values("ffa")), expected, atol=1e-5)
    assert dataset.values("ffa_fallback") == [False, True]


def test_an_edited_label_makes_only_its_own_vector_stale(fo_dataset, photos, ffa, tmp_path):
    dataset = fo_dataset(photos(3))
    mask = np.zeros((60, 80), np.uint8)
    mask[:30] = 1
    stored = tmp_path / "mask.png"
    Image.fromarray(mask).save(stored)
    dataset.set_values(
        "thing", [fo.Segmentation(mask=mask), fo.Segmentation(mask=mask), fo.Segmentation(mask_path=str(stored))]
    )
    ffa(dataset, foreground="field:thing")

    sample = dataset.first()
    sample["thing"].mask = 1 - mask
    sample.save()
    edited = ffa(dataset, foreground="field:thing")
    Image.fromarray(np.pad(mask, 3)).save(stored)
    repainted = ffa(dataset, foreground="field:thing")

    assert (edited.counts["done"], repainted.counts["done"]) == (1, 1)


def test_an_unreadable_mask_is_explained(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(1))
    dataset.set_values("thing", [fo.Segmentation(mask_path="/nowhere/mask.png")])

    summary = ffa(dataset, foreground="field:thing")

    assert "/nowhere/mask.png: mask cannot be read" in next(iter(summary.failed.values()))


def test_the_sidebar_shows_what_is_to_be_read_and_puts_the_rest_aside(fo_dataset, photos, ffa):
    paths = photos(4)
    dataset = fo_dataset(paths[:3])

    def groups():
        return {group.name: group.paths for group in dataset.app_config.sidebar_groups if "selfsame" in group.name}

    ffa(dataset, visualization_key="map")
    facts = ["ffa", "ffa_foreground_fraction", "ffa_n_patches", "ffa_fallback"]
    assert groups() == {"selfsame": facts, "selfsame internals": ["ffa_error", "ffa_provenance", "map_points"]}

    paths[3].write_bytes(b"")
    dataset.add_sample(fo.Sample(filepath=str(paths[3])))
    ffa(dataset)
    assert groups() == {"selfsame": [*facts, "ffa_error"], "selfsame internals": ["ffa_provenance", "map_points"]}


@pytest.mark.parametrize("narrow", [lambda d: d.select_fields(), lambda d: d.exclude_fields("ffa")])
def test_a_view_of_few_fields_is_resumed_like_any_other(fo_dataset, photos, ffa, narrow):
    dataset = fo_dataset(photos(3))
    ffa(dataset.limit(2))

    assert ffa(narrow(dataset)).counts == {"total": 3, "done": 1, "skipped": 2, "failed": 0}


def test_an_empty_view_is_no_error(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(1))

    for samples in (fo_dataset(), dataset.limit(0), dataset.match(F("filepath") == "none")):
        summary = ffa(samples)

        assert summary.counts == {"total": 0, "done": 0, "skipped": 0, "failed": 0}
        assert "no images" in str(summary)


def test_slices_of_a_grouped_dataset_are_embedded(fo_dataset, photos, ffa):
    dataset = fo_dataset()
    dataset.add_group_field("group", default="left")
    paths = photos(4)
    for pair in (paths[:2], paths[2:]):
        group = fo.Group()
        slices = zip(("left", "right"), pair, strict=True)
        dataset.add_samples([fo.Sample(filepath=str(path), group=group.element(name)) for name, path in slices])

    ffa(dataset)

    assert dataset.select_group_slices(media_type="image").count("ffa") == 4


def test_vectors_of_other_settings_outside_the_view_are_pointed_out(fo_dataset, photos, ffa):
    dataset = fo_dataset(photos(3))
    ffa(dataset)

    part = ffa(dataset.limit(1), pooling="cls")
    whole = ffa(dataset, pooling="cls")

    assert "2 vectors in 'ffa' outside this view" in part.notices[0]
    assert not whole.notices


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preset": "best"}, "preset='best'"),
        ({"foreground": "magic"}, "magic"),
        ({"foreground": "field:nothing"}, "no field 'nothing'"),
        ({"foreground": "field:label"}, "Classification, which marks no area"),
        ({"objects_field": "label"}, "Classification; choose a field with Detections"),
        ({"objects_field": "gt", "foreground": "field:gt"}, "cannot be combined"),
        ({"objects_field": "gt", "object_route": "image", "encode": "cutout"}, "route='image'"),
        ({"size": 30}, "size=30"),
        ({"resize": "crop"}, "resize='crop'"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_workers": "2"}, "num_workers='2'"),
        ({"run_key": "a b"}, "'a b'"),
        ({"field": "a.b"}, "'a.b'"),
    ],
)
def test_options_that_cannot_work_are_named_before_anything_is_written(fo_dataset, photos, ffa, options, message):
    dataset = fo_dataset(photos(1))
    dataset.set_values("label", [fo.Classification(label="x")])
    dataset.set_values("gt", [fo.Detections(detections=[fo.Detection(bounding_box=BOX)])])
    before = set(dataset.get_field_schema(flat=True))

    with pytest.raises(ConfigError) as caught:
        ffa(dataset, **options)

    assert message in str(caught.value)
    assert set(dataset.get_field_schema(flat=True)) == before


def test_cached_tokens_serve_other_settings_without_the_encoder(
    fo_dataset, photos, ffa, tiny_model, monkeypatch, tmp_path
):
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))
    paths = photos(3)
    dataset = fo_dataset(paths)
    ffa(dataset, cache_tokens=True)
    encoder = type(load_backbone(tiny_model, device="cpu"))
    monkeypatch.setattr(encoder, "tokens", lambda *_, **__: pytest.fail("the encoder was used"))

    summary = ffa(dataset, cache_tokens=True, pooling="cls")

    monkeypatch.undo()
    assert summary.counts["done"] == 3
    expected = slow_vectors(paths, tiny_model, pooling="cls")
    np.testing.assert_allclose(np.stack(dataset.values("ffa")), expected, atol=2e-3)


def test_values_that_somebody_else_put_into_a_field_are_never_replaced(fo_dataset, photos, ffa, tmp_path):
    dataset = fo_dataset(photos(2))
    dataset.add_sample_field("mine", fo.VectorField)
    dataset.add_sample_field("empty", fo.VectorField)
    dataset.set_values("mine", [np.ones(3), None])
    dataset.set_values("seg", [fo.Segmentation(mask=np.ones((4, 4), np.uint8)), None])
    boxes = fo.Detections(detections=[fo.Detection(bounding_box=BOX, mine=[1.0, 2.0])])
    dataset.set_values("gt", [boxes, None], dynamic=True)

    for overwrite in (False, True):
        with pytest.raises(ConfigError, match=r"'mine' .* holds values that Selfsame did not compute"):
            ffa(dataset, "mine", overwrite=overwrite)
        with pytest.raises(ConfigError, match=r"'seg' .* holds values"):
            compute_foreground(dataset, "grabcut", "seg", overwrite=overwrite, progress=False)
        with pytest.raises(ConfigError, match=r"'gt.detections.mine' .* holds values"):
            ffa(dataset, "mine", objects_field="gt", overwrite=overwrite)

    assert np.array_equal(dataset.first().mine, np.ones(3))
    assert dataset.first().seg.mask is not None
    assert ffa(dataset, "empty").counts["done"] == 2
    assert ffa(dataset, "empty", weights="soft").counts["done"] == 2


def test_vectors_that_came_along_from_another_dataset_are_ours(fo_dataset, photos, ffa):
    first, second = fo_dataset(photos(2)), fo_dataset()
    ffa(first)
    second.add_samples(first.iter_samples(), progress=False)

    assert ffa(second).counts == {"total": 2, "done": 0, "skipped": 2, "failed": 0}


def test_a_model_that_is_not_there_is_explained(fo_dataset, photos, ffa):
    with pytest.raises((ModelError, ConfigError), match="/no/such/model"):
        ffa(fo_dataset(photos(1)), model="/no/such/model")


def test_the_model_we_chose_ourselves_is_announced(fo_dataset, photos, ffa, monkeypatch, tiny_model, caplog):
    from fiftyone_selfsame.fiftyone_plugin import loading

    monkeypatch.setattr(loading, "default_backbone_name", lambda: tiny_model)
    monkeypatch.setattr(loading, "default_backbone_notice", lambda: "Using a stand-in.")

    summary = ffa(fo_dataset(photos(1)), model=None)

    assert summary.notices == ["Using a stand-in."]
    assert "Using a stand-in." in caplog.text


def test_the_generator_reports_loading_and_every_sample(fo_dataset, photos, tiny_model):
    dataset = fo_dataset(photos(3))

    reports = list(compute_ffa_steps(dataset, model=tiny_model, foreground="none", device="cpu"))

    assert reports[0] == Progress(0, 3, label="Loading the model")
    assert reports[-1] == Progress(3, 3, label="Computing ffa")


def test_plain_functions_have_the_signature_of_their_generators_and_a_progress_bar(fo_dataset, photos, ffa):
    seen = []

    ffa(fo_dataset(photos(2)), progress=lambda bar: seen.append(bar.iteration))

    parameters = list(inspect.signature(compute_ffa).parameters)
    assert parameters == [*inspect.signature(compute_ffa_steps).parameters, "progress"]
    assert "progress (None)" in compute_ffa.__doc__
    assert compute_ffa.__name__ == "compute_ffa"
    assert seen[-1] == 2


def test_the_package_offers_the_functions():
    import fiftyone_selfsame

    assert set(api.__all__) >= {"compute_ffa", "compute_foreground"}
    assert fiftyone_selfsame.compute_ffa is compute_ffa
