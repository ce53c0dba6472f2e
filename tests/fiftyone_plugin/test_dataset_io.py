"""Which collections are accepted, how fields are declared and shown, and the hashes that decide what is up to date."""

from concurrent.futures import ThreadPoolExecutor

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.dataset_io import (
    FieldSpec,
    SampleReader,
    check_field_name,
    declare_fields,
    image_samples,
    show_in_sidebar,
)
from fiftyone_selfsame.fiftyone_plugin.provenance import config_hash, file_stamp, sample_provenance, value_stamp

SPEC = {"score": FieldSpec(fo.FloatField, "how good")}


def grouped(*slices):
    dataset = fo.Dataset()
    dataset.add_group_field("group", default=slices[0][0])
    group = fo.Group()
    dataset.add_samples([fo.Sample(filepath=path, group=group.element(name)) for name, path in slices])
    return dataset


def test_of_a_grouped_dataset_the_image_slices_are_taken():
    dataset = grouped(("left", "/a.png"), ("right", "/b.jpg"), ("clip", "/c.mp4"))
    try:
        assert sorted(image_samples(dataset).values("filepath")) == ["/a.png", "/b.jpg"]
    finally:
        dataset.delete()


def test_a_grouped_dataset_without_images_is_refused():
    dataset = grouped(("clip", "/c.mp4"))
    try:
        with pytest.raises(ConfigError, match="slices clip has none with images"):
            image_samples(dataset)
    finally:
        dataset.delete()


def test_patches_views_and_other_objects_are_refused_with_a_way_out(fo_dataset):
    dataset = fo_dataset(["/a.png"])
    dataset.set_values("gt", [fo.Detections(detections=[fo.Detection(bounding_box=[0, 0, 1, 1])])])

    with pytest.raises(ConfigError, match="objects_field"):
        image_samples(dataset.to_patches("gt"))
    with pytest.raises(ConfigError, match="not list"):
        image_samples(["/a.png"])


@pytest.mark.parametrize(
    "name", ["a.b", "", "_x", "1x", "id", "filepath", "tags", "x y", "frames", "save", "media_type", None]
)
def test_names_that_cannot_be_fields_are_refused(fo_dataset, name):
    with pytest.raises(ConfigError, match="cannot be a field name"):
        check_field_name(fo_dataset(), name)


def test_dynamic_groups_are_dissolved(fo_dataset):
    dataset = fo_dataset(["/a.png", "/b.png", "/c.png"])
    dataset.add_sample_field("kind", fo.StringField)
    dataset.set_values("kind", ["x", "y", "x"])

    for view in (dataset[:2].group_by("kind", order_by="filepath"), dataset[:2].group_by("kind").flatten()):
        reader = SampleReader(image_samples(view), [], [], "kind")
        assert sorted(item.filepath for chunk in reader.chunks() for item in chunk) == ["/a.png", "/b.png"]
    for view in (dataset.group_by("kind").limit(1), dataset.group_by("kind").match(fo.ViewField("kind") == "x")):
        with pytest.raises(ConfigError, match="chooses among dynamic groups"):
            image_samples(view)


def test_a_choice_of_fields_hides_neither_our_fields_nor_changes_which_samples_and_labels_count(fo_dataset):
    dataset = fo_dataset(["/a.png", "/b.png", "/c.png"])
    declare_fields(dataset, SPEC)
    objects = fo.Detections(detections=[fo.Detection(label=name, bounding_box=[0, 0, 1, 1]) for name in "xy"])
    dataset.set_values("gt", [objects.copy() for _ in range(3)])
    chosen = dataset.limit(2).filter_labels("gt", fo.ViewField("label") == "x")

    for view in (chosen.select_fields("gt"), chosen.exclude_fields("score")):
        samples = image_samples(view)
        assert samples.has_field("score")
        assert samples.values("gt.detections.label") == [["x"], ["x"]]


def test_read_only_fields_are_refused(fo_dataset):
    dataset = fo_dataset()
    dataset.add_sample_field("frozen", fo.FloatField, read_only=True)

    with pytest.raises(ConfigError, match="read-only"):
        check_field_name(dataset, "frozen")


def test_declared_fields_say_what_they_hold_and_where_it_comes_from(fo_dataset):
    dataset = fo_dataset(["/a.png"])

    declare_fields(dataset, SPEC, {"model": "small"})
    declare_fields(dataset, SPEC, {"model": "large"})

    assert dataset.get_field("score").description == "how good"
    assert fo.load_dataset(dataset.name).get_field("score").info == {"model": "large"}


def test_fields_that_several_threads_declare_at_once_are_all_there(fo_dataset):
    dataset = fo_dataset(["/a.png"])
    names = [f"field{number}" for number in range(24)]

    def declare(name):
        declare_fields(dataset, {name: FieldSpec(fo.FloatField, "")})
        show_in_sidebar(dataset, [name])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(declare, names))

    dataset.reload()
    assert set(names) <= set(dataset.get_field_schema())
    ours = next(group for group in dataset.app_config.sidebar_groups if group.name == "selfsame")
    assert sorted(ours.paths) == sorted(names)


def test_a_type_conflict_is_found_before_any_field_is_added(fo_dataset):
    dataset = fo_dataset(["/a.png"])
    dataset.add_sample_field("taken", fo.StringField)

    with pytest.raises(ConfigError, match="'taken'"):
        declare_fields(dataset, SPEC | {"taken": FieldSpec(fo.FloatField, "")})

    assert not dataset.has_field("score")


def test_fields_get_a_sidebar_group_of_their_own(fo_dataset):
    dataset = fo_dataset(["/a.png"])
    declare_fields(dataset, SPEC)

    show_in_sidebar(dataset, ["score"])
    show_in_sidebar(dataset, ["score"])

    groups = {group.name: group.paths for group in dataset.app_config.sidebar_groups}
    assert groups["selfsame"] == ["score"]
    assert not any("score" in paths for name, paths in groups.items() if name != "selfsame")


def test_internal_fields_are_out_of_the_way_until_a_reader_needs_them(fo_dataset):
    dataset = fo_dataset(["/a.png"])
    declare_fields(dataset, SPEC | {name: FieldSpec(fo.StringField, "") for name in ("why", "hash")})

    show_in_sidebar(dataset, ["score"], ["why", "hash"])
    hidden = dataset.app_config.sidebar_groups[-1]
    assert (hidden.name, hidden.paths, hidden.expanded) == ("selfsame internals", ["why", "hash"], False)

    show_in_sidebar(dataset, ["why"])
    show_in_sidebar(dataset, ["score"], ["why", "hash"])

    groups = {group.name: group.paths for group in dataset.app_config.sidebar_groups}
    assert (groups["selfsame"], groups["selfsame internals"]) == (["score", "why"], ["hash"])
    placed = [path for paths in groups.values() for path in paths]
    assert len(placed) == len(set(placed))


def test_what_the_user_arranged_in_the_sidebar_stays(fo_dataset):
    dataset = fo_dataset(["/a.png"])
    declare_fields(dataset, SPEC | {"second": FieldSpec(fo.FloatField, "")})
    mine = [fo.SidebarGroupDocument(name="mine", paths=["score"], expanded=False)]
    dataset.app_config.sidebar_groups = mine
    dataset.save()

    show_in_sidebar(dataset, ["score", "second"])

    groups = {group.name: group.paths for group in dataset.app_config.sidebar_groups}
    assert groups == {"mine": ["score"], "selfsame": ["second"]}
    assert dataset.app_config.sidebar_groups[0].expanded is False


def test_chunks_keep_the_order_of_the_view(fo_dataset, tmp_path):
    dataset = fo_dataset([tmp_path / f"{number}.png" for number in range(70)])
    dataset.set_values("gt", [None] * 69 + [fo.Classification(label="x")])
    declare_fields(dataset, {"p": FieldSpec(fo.StringField, "")})
    view = dataset.shuffle(seed=3).limit(40)

    chunks = list(SampleReader(view, ["gt.label"], ["p"], "p").chunks())

    assert [len(chunk) for chunk in chunks] == [32, 8]
    assert [item.id for chunk in chunks for item in chunk] == view.values("id")


def test_the_config_hash_depends_on_every_setting_and_not_on_their_order():
    base = config_hash("ffa", {"a": 1, "b": [1, 2]})

    assert base == config_hash("ffa", {"b": [1, 2], "a": 1})
    assert len({base, config_hash("ffb", {"a": 1, "b": [1, 2]}), config_hash("ffa", {"a": 1, "b": [2, 1]})}) == 3


def test_the_file_stamp_follows_size_and_time(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    first = file_stamp(path)
    path.write_text("three")

    assert first != file_stamp(path)
    assert file_stamp(tmp_path / "missing") == ""


def test_label_stamps_tell_masks_and_nesting_apart():
    values = [
        None,
        [],
        [None],
        [[]],
        [0.1],
        ["0.1"],
        [np.zeros(2)],
        [np.zeros((1, 2))],
        [np.zeros(2, bool)],
        [np.ones(2)],
    ]

    assert len({value_stamp(value) for value in values}) == len(values)


def test_provenance_keeps_its_inputs_apart():
    assert sample_provenance("a", "b", "c") != sample_provenance("a", "bc", "")
