"""Masks of what sets of images have in common: what is a set, what is refused, what a second run does again."""

import os

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from fiftyone_selfsame.fiftyone_plugin import cosalient_masks
from fiftyone_selfsame.fiftyone_plugin.cosalient_masks import compute_cosalient_masks, compute_cosalient_masks_steps
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.mask_store import read_mask
from fiftyone_selfsame.fiftyone_plugin.runs import load_record
from PIL import Image

FIELDS = ("cosalient_no_common_region", "cosalient_fraction", "cosalient_error", "cosalient_provenance")


@pytest.fixture
def masked(tiny_model, tmp_path, monkeypatch):
    """compute_cosalient_masks with the tiny model, and without a progress bar."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))

    def run(samples, field="cosalient", **options):
        defaults = {"model": tiny_model, "refine": False, "device": "cpu", "progress": False}
        return compute_cosalient_masks(samples, field, **{**defaults, **options})

    return run


def _of_object(dataset, name):
    return dataset.match({"object": name})


def _values(samples):
    return [dict(zip(FIELDS, row, strict=True)) for row in zip(*samples.values(list(FIELDS)), strict=True)]


# --------------------------------------------------------------------------------------------------- what is a set


def test_a_view_is_one_set_each_member_gets_its_mask_and_a_second_run_skips_it(block_dataset, masked):
    dataset = block_dataset(7)
    view = _of_object(dataset, "0")
    summary = masked(view)
    assert summary.counts == {"total": 3, "done": 3, "skipped": 0, "failed": 0, "sets": 1, "nothing": 0}
    assert dataset.count("cosalient") == 3
    assert view.count("cosalient_fraction") == 3
    assert masked(view).counts["skipped"] == 3


def test_one_image_has_nothing_to_share_and_too_many_are_no_set(block_dataset, masked, monkeypatch):
    dataset = block_dataset(4)
    with pytest.raises(ConfigError, match="at least two"):
        masked(dataset.limit(1))
    monkeypatch.setattr(cosalient_masks, "_LARGEST_SET", 3)
    with pytest.raises(ConfigError, match="4 images are too many for one set"):
        masked(dataset)
    assert masked(dataset.limit(0)).notices == ["Nothing to do: there are no images in this view."]


def test_each_pair_of_a_pair_dataset_is_a_set_and_has_no_key(block_dataset, masked, request):
    dataset = block_dataset(6)
    ids = dataset.values("id")
    pairs = create_pairs(dataset, pairs=[(ids[0], ids[3]), (ids[1], ids[4])])
    request.addfinalizer(pairs.delete)

    assert masked(pairs).counts["sets"] == 2
    assert pairs.select_group_slices().count("cosalient") == 4
    assert masked(pairs).counts["skipped"] == 4
    with pytest.raises(ConfigError, match="dataset of pairs"):
        masked(pairs, key="dup")


# ---------------------------------------------------------------------------------------------------- what is told


def test_fields_and_the_run_record_say_where_they_come_from(block_dataset, masked, tiny_model):
    dataset = block_dataset(4)
    summary = masked(_of_object(dataset, "0"), "shared")

    field = dataset.get_field("shared")
    assert (field.info["method"], field.info["saliency"]) == ("compute_cosalient_masks", "auto")
    assert dataset.mask_targets["shared"] == {255: "foreground"}
    groups = {group.name: group.paths for group in dataset.app_config.sidebar_groups}
    assert groups["selfsame"][:3] == ["shared", "shared_no_common_region", "shared_fraction"]
    assert groups["selfsame internals"] == ["shared_error", "shared_provenance"]
    record = load_record(dataset, "shared")
    assert (record["status"], record["counts"]) == ("completed", summary.counts)
    assert record["images_per_second"] > 0
    assert record["details"]["matcher"] == "training_free"


def test_members_without_a_common_region_are_flagged_and_have_an_empty_mask(fo_dataset, block_pictures, masked):
    blocks = block_pictures(4)
    plain = blocks[0].parent / "plain.png"
    Image.fromarray(np.random.default_rng(1).integers(100, 110, (90, 130, 3)).astype(np.uint8)).save(plain)
    dataset = fo_dataset([blocks[0], blocks[3], plain])

    assert masked(dataset).counts["nothing"] == 0

    flags, fractions = dataset.values(["cosalient_no_common_region", "cosalient_fraction"])
    assert flags == [False, False, True]
    assert fractions[2] == 0
    masks = [read_mask(path) for path in dataset.values("cosalient.mask_path")]
    assert [mask.any() for mask in masks] == [True, True, False]
    assert masks[2].shape == (90, 130)
    assert fractions[:2] == [pytest.approx(mask.mean()) for mask in masks[:2]]


def test_a_set_without_anything_in_common_is_counted_also_by_the_run_that_skips_it(fo_dataset, block_pictures, masked):
    blocks = block_pictures(3)
    dataset = fo_dataset([blocks[0], blocks[2]])
    for run in range(2):
        summary = masked(dataset)
        assert (summary.counts["nothing"], summary.counts["skipped"]) == (1, 2 * run)
        assert "1 of 1 sets have nothing in common" in summary.notices[-1]
    assert dataset.values("cosalient_no_common_region") == [True, True]


def test_masks_are_pngs_of_the_upright_image_also_where_exif_turns_it(fo_dataset, block_pictures, masked, tmp_path):
    upright, other = block_pictures(4)[::3]
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    # Orientation 6: the viewer turns the stored picture by 90 degrees clockwise, so it is stored counter-clockwise.
    with Image.open(upright) as image:
        image.rotate(90, expand=True).save(turned, quality=95, exif=exif)
    dataset = fo_dataset([turned, other])

    masked(dataset, refine=True, mask_dir=tmp_path / "masks")

    paths = dataset.values("cosalient.mask_path")
    assert paths == [str(tmp_path / "masks" / f"{sample_id}.png") for sample_id in dataset.values("id")]
    with Image.open(turned) as stored, Image.open(paths[0]) as mask:
        assert (stored.size, mask.size, mask.format, mask.mode) == ((120, 160), (160, 120), "PNG", "L")
        assert set(np.unique(mask)) == {0, 255}
    truth = np.zeros((120, 160), bool)
    truth[16:80, 20:84] = True
    found = read_mask(paths[0])
    assert (found & truth).sum() / (found | truth).sum() > 0.85


# ------------------------------------------------------------------------------------------------------- failures


def _break(path):
    kept = path.read_bytes()
    path.write_text("no picture")
    return kept


def test_a_broken_file_is_an_error_of_its_sample_and_the_rest_of_the_set_goes_on(fo_dataset, block_pictures, masked):
    paths = block_pictures(7)[::3]
    kept = _break(paths[1])
    dataset = fo_dataset(paths)

    summary = masked(dataset)

    assert (summary.counts["done"], summary.counts["failed"]) == (2, 1)
    rows = _values(dataset)
    assert paths[1].name in rows[1]["cosalient_error"]
    assert summary.failed == {dataset.values("id")[1]: rows[1]["cosalient_error"]}
    assert [dataset.values("cosalient.mask_path")[1], rows[1]["cosalient_fraction"]] == [None, None]
    assert [rows[n]["cosalient_error"] for n in (0, 2)] == [None, None]
    assert all(rows[n]["cosalient_fraction"] > 0.1 for n in (0, 2))

    # The set is not up to date: restored, the image takes part.
    paths[1].write_bytes(kept)
    assert masked(dataset).counts == {"total": 3, "done": 3, "skipped": 0, "failed": 0, "sets": 1, "nothing": 0}
    assert dataset.count("cosalient") == 3
    assert dataset.values("cosalient_error") == [None] * 3


def test_who_is_left_alone_in_a_set_fails_too(fo_dataset, block_pictures, masked):
    paths = block_pictures(4)[::3]
    _break(paths[0])
    dataset = fo_dataset(paths)
    assert masked(dataset).counts["failed"] == 2
    assert dataset.values("cosalient_error")[1] == "no other image of the set could be read"
    assert dataset.count("cosalient") == 0


def test_without_skipping_the_first_failure_ends_the_run_and_the_record_says_so(fo_dataset, block_pictures, masked):
    paths = block_pictures(4)[::3]
    _break(paths[0])
    dataset = fo_dataset(paths)
    with pytest.raises(ImageError, match=r"blocks000\.png"):
        masked(dataset, skip_failures=False)
    record = load_record(dataset, "cosalient")
    assert record["status"] == "failed"
    assert "blocks000.png" in record["error"]
    assert paths[0].name in dataset.values("cosalient_error")[0]


def test_an_interrupted_run_has_a_record_and_what_it_had_done_is_kept(block_dataset, masked, tiny_model, request):
    dataset = block_dataset(6)
    ids = dataset.values("id")
    pairs = create_pairs(dataset, pairs=[(ids[0], ids[3]), (ids[1], ids[4])])
    request.addfinalizer(pairs.delete)
    steps = compute_cosalient_masks_steps(pairs, model=tiny_model, refine=False, device="cpu")
    next(report for report in steps if report.done == 2)
    steps.close()

    assert load_record(pairs, "cosalient")["status"] == "interrupted"
    assert pairs.select_group_slices().count("cosalient") == 2
    assert masked(pairs).counts["skipped"] == 2


# --------------------------------------------------------------------------------------------------------- resume


def test_only_what_a_set_is_made_of_makes_it_new(block_dataset, masked):
    dataset = block_dataset(7)
    view = _of_object(dataset, "0")
    masked(view)

    assert masked(view.sort_by("id", reverse=True)).counts["skipped"] == 3
    view.tag_samples("seen")
    assert masked(view, device="cpu", num_workers=1).counts["skipped"] == 3
    assert masked(view, overwrite=True).counts["done"] == 3
    assert masked(view, refine=True).counts["done"] == 3
    assert masked(view.limit(2), refine=True).counts["done"] == 2


def test_a_changed_image_or_a_lost_mask_is_made_again(block_dataset, masked):
    dataset = block_dataset(4)
    view = _of_object(dataset, "0")
    masked(view)
    lost = view.values("cosalient.mask_path")[1]
    os.unlink(lost)
    assert masked(view).counts["done"] == 2
    assert os.path.isfile(lost)

    path = view.values("filepath")[0]
    with Image.open(path) as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    os.utime(path, ns=(1, 1))
    assert masked(view).counts["done"] == 2


# ------------------------------------------------------------------------------------------------- whose saliency


@pytest.fixture
def two_things(fo_dataset, tmp_path):
    """Two pictures with the same two things, a red block on the left and a blue one on the right."""
    paths = []
    for number in range(2):
        picture = np.full((120, 200, 3), 70 + 20 * number, np.uint8)
        for left, colour in ((10, (200, 30, 30)), (120, (30, 60, 220))):
            x = left + 6 * number
            picture[30:86, x : x + 64] = colour
            picture[30:86, x : x + 64 : 4] = 240
        paths.append(tmp_path / f"things{number}.png")
        Image.fromarray(picture).save(paths[-1])
    return fo_dataset(paths)


def _mark(dataset, folder, columns, field="mine"):
    """Masks of these columns of pictures of 120 x 200, in files."""
    for sample in dataset:
        mask = np.zeros((120, 200), np.uint8)
        mask[28:88, columns] = 1
        path = folder / f"{field}-{sample.id}.png"
        Image.fromarray(mask).save(path)
        sample[field] = fo.Segmentation(mask_path=str(path))
        sample.save()


def _shares(dataset):
    """Share of the left and of the right block that the first mask covers."""
    mask = read_mask(dataset.first().cosalient.mask_path)
    return mask[30:86, 10:74].mean(), mask[30:86, 120:184].mean()


def test_masks_of_a_field_stand_in_for_the_saliency(two_things, masked, tmp_path):
    masked(two_things)
    assert min(_shares(two_things)) > 0.8
    _mark(two_things, tmp_path, slice(108, 198))

    assert masked(two_things, saliency="field:mine").counts["done"] == 2

    left, right = _shares(two_things)
    assert (left, right) == (pytest.approx(0, abs=0.1), pytest.approx(1, abs=0.15))
    assert masked(two_things, saliency="field:mine").counts["skipped"] == 2
    assert load_record(two_things, "cosalient")["config"]["saliency"] == "field:mine"
    _mark(two_things, tmp_path, slice(0, 90))
    assert masked(two_things, saliency="field:mine").counts["done"] == 2
    left, right = _shares(two_things)
    assert left > 0.85
    assert right < 0.1


def test_an_image_without_a_mask_of_its_own_is_left_to_the_matcher(two_things, masked, tmp_path):
    _mark(two_things.limit(1), tmp_path, slice(108, 198))
    summary = masked(two_things, saliency="field:mine")
    assert (summary.counts["done"], summary.counts["nothing"]) == (2, 0)


def test_masks_that_mark_nothing_leave_nothing_in_common(two_things, masked, tmp_path):
    _mark(two_things, tmp_path, slice(0, 0))
    assert masked(two_things, saliency="field:mine").counts["nothing"] == 1


def test_a_mask_file_that_is_gone_is_an_error_of_its_sample(two_things, masked, tmp_path):
    _mark(two_things, tmp_path, slice(108, 198))
    os.unlink(two_things.first().mine.mask_path)
    assert masked(two_things, saliency="field:mine").counts["failed"] == 2
    assert "mask cannot be read" in two_things.first().cosalient_error


def test_fields_that_cannot_be_the_saliency_are_refused(two_things, masked):
    with pytest.raises(ConfigError, match="no Segmentation field"):
        masked(two_things, saliency="field:nothing")
    two_things.set_values("inside", [fo.Segmentation(mask=np.ones((4, 4), np.uint8))] * 2)
    with pytest.raises(ConfigError, match="in the database and not in files"):
        masked(two_things, saliency="field:inside")
    masked(two_things)
    with pytest.raises(ConfigError, match="would be overwritten"):
        masked(two_things, saliency="field:cosalient")
    with pytest.raises(ConfigError, match="unknown"):
        masked(two_things, saliency="guess")


def test_a_field_of_somebody_else_is_not_overwritten(two_things, masked, tmp_path):
    _mark(two_things, tmp_path, slice(0, 90))
    with pytest.raises(ConfigError, match="not made by compute_cosalient_masks"):
        masked(two_things, "mine")
    with pytest.raises(ConfigError, match="cannot be a field name"):
        masked(two_things, "two words")
    assert read_mask(two_things.first().mine.mask_path)[40, 40]


def test_masks_of_a_grouped_dataset_are_of_all_image_slices(block_pictures, masked, request):
    dataset = fo.Dataset()
    request.addfinalizer(dataset.delete)
    dataset.add_group_field("shot", default="left")
    group, paths = fo.Group(), block_pictures(4)[::3]
    names = zip(("left", "right"), paths, strict=True)
    dataset.add_samples([fo.Sample(filepath=str(path), shot=group.element(name)) for name, path in names])

    assert masked(dataset).counts["done"] == 2
    assert masked(dataset).counts["skipped"] == 2
    assert dataset.select_group_slices().count("cosalient") == 2
