"""The region operators: their forms in every state, and what they do in the App, from Python and delegated."""

import base64
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from PIL import Image

FAST = {"model": "embedded-hybrid", "device": "cpu", "short_side": 96, "long_side": 192, "min_patches": 4}


@pytest.fixture
def blocks(fo_dataset, tmp_path):
    """Four pictures with a coloured block each, two red and two blue."""
    paths = []
    for number in range(4):
        picture = np.full((120, 160, 3), 70 + 30 * number, np.uint8)
        picture[20 : 84 + 4 * number, 30:100] = ((200, 30, 30), (30, 60, 220))[number % 2]
        picture[20 : 84 + 4 * number, 30 : 100 : 4 + 2 * (number % 2)] = 240
        paths.append(tmp_path / f"block{number}.png")
        Image.fromarray(picture).save(paths[-1])
    return fo_dataset(paths)


@pytest.fixture
def with_regions(blocks, operator):
    """The same with regions."""
    operator("compute_claid_regions")(blocks, progress=False, **FAST)
    return blocks


def names(requests):
    return [request["operator_uri"].split("/")[-1] for request in requests]


def shown_ids(dataset, requests):
    stages = requests[-1]["params"]["view"]
    return fo.DatasetView._build(dataset, stages).values("id")


# ----------------------------------------------------------------------------------------------------------- forms


def test_the_form_counts_the_work_and_states_the_patent(operator, request_of, blocks, form, notices):
    properties = form(operator("compute_claid_regions"), request_of(blocks))

    assert "4 images: 4 to compute" in notices(properties)
    assert "ZL202410173702.3" in notices(properties)
    assert "ZL202410173702.3" in operator("compute_claid_regions").config.description
    assert properties["storage"]["default"] == "sample"
    assert "similarity" not in properties
    assert "short_side" in properties["advanced"]["type"]["properties"]


def test_presets_name_their_models_and_labels_bring_in_the_followups(operator, request_of, blocks, form):
    params = {"preset": "paper", "storage": "labels"}
    properties = form(operator("compute_claid_regions"), request_of(blocks, params))

    assert "dino-vitb8" in properties["model"]["view"]["choices"][0]["label"]
    assert "resnet50" in properties["descriptor"]["view"]["choices"][0]["label"]
    assert properties["similarity"]["default"] is False


@pytest.mark.parametrize("path", ["/somewhere/else", "../up"])
def test_a_folder_outside_of_the_configured_one_is_no_descriptor(operator, request_of, blocks, form, path):
    properties = form(operator("compute_claid_regions"), request_of(blocks, {"descriptor": path}))

    assert properties["descriptor"]["invalid"]
    assert "SELFSAME_MODELS_DIR" in properties["descriptor"]["error_message"]


@pytest.mark.parametrize("name", ["build_region_index", "search_by_object", "show_region_level"])
def test_without_regions_the_forms_say_what_to_run_first(operator, request_of, blocks, form, notices, name):
    properties = form(operator(name), request_of(blocks))

    assert properties["problem"]["invalid"]
    assert "Compute regions (CLAID)" in notices(properties)


def test_without_a_search_there_is_nothing_to_clear(operator, request_of, blocks, form, notices):
    assert "no object search" in notices(form(operator("clear_object_search"), request_of(blocks)))
    assert operator("clear_object_search").resolve_placement(request_of(blocks)) is None


def test_the_search_form_prefers_what_is_selected(operator, request_of, with_regions, form):
    search, sample = operator("search_by_object"), with_regions.first()
    label = {"label_id": sample.regions.detections[0].id, "sample_id": sample.id, "field": "regions"}

    def sources(**request):
        properties = form(search, request_of(with_regions, request.pop("params", {}), **request))
        return properties["source"]["type"]["values"], set(properties)

    assert sources() == (["text", "upload"], {"field", "source", "text", "limit", "include_query", "advanced"})
    assert sources(selected=[sample.id])[0][0] == "samples"
    assert sources(current_sample=sample.id)[0][0] == "open"
    assert sources(selected=[sample.id], selected_labels=[label])[0][:2] == ["labels", "samples"]
    assert "combine" in sources(selected_labels=[label, label])[1]
    assert "image" in sources(params={"source": "upload"})[1]


def test_the_search_form_offers_the_view_only_where_there_is_one(operator, request_of, with_regions, form):
    search = operator("search_by_object")

    assert "within" not in form(search, request_of(with_regions))
    assert "within" in form(search, request_of(with_regions, view=with_regions.limit(2)))
    assert "within" not in form(search, request_of(with_regions, view=with_regions.to_patches("regions")))


def test_the_level_form_counts_the_regions_of_each_level(operator, request_of, with_regions, form):
    properties = form(operator("show_region_level"), request_of(with_regions))

    levels = with_regions.count_values("regions.detections.level")
    assert properties["level"]["type"]["values"] == [*map(str, sorted(levels)), "smallest", "all"]
    first = properties["level"]["view"]["choices"][0]["label"]
    assert f"Level 1: {levels[1]:,} region" in first


# ------------------------------------------------------------------------------------------------------- execution


def test_the_app_computes_regions_and_shows_them(operator, request_of, run_in_app, blocks):
    params = {**FAST, "field": "parts", "advanced": {"short_side": 96, "min_patches": 4}}

    requests, result = run_in_app(operator("compute_claid_regions"), request_of(blocks, params))

    assert result["counts"]["done"] == 4
    assert result["counts"]["regions"] == blocks.count("parts.detections") > 0
    assert names(requests)[-3:] == ["reload_dataset", "set_active_fields", "notify"]
    assert blocks.get_field("parts").info["min_patches"] == 4


def test_a_selected_region_searches_and_the_app_shows_the_best_first(operator, request_of, run_in_app, with_regions):
    sample = with_regions.first()
    label = {"label_id": sample.regions.detections[0].id, "sample_id": sample.id, "field": "regions"}

    requests, dialog = run_in_app(operator("search_by_object"), request_of(with_regions, selected_labels=[label]))

    assert dialog is None
    ids = with_regions.values("id")
    found = shown_ids(with_regions, requests)
    assert found[0] == ids[2]
    assert set(found) == set(ids[1:])
    assert "close_sample" in names(requests)
    assert "clear_selected_labels" in names(requests)


def test_a_selected_patch_searches_the_whole_dataset(operator, request_of, run_in_app, with_regions):
    patches = with_regions.to_patches("regions")
    ctx = request_of(with_regions, view=patches, selected=[patches.first().id])

    requests, _ = run_in_app(operator("search_by_object"), ctx)

    assert set(shown_ids(with_regions, requests)) == set(with_regions.values("id")[1:])


def test_the_search_keeps_to_the_view_where_that_is_asked_for(operator, request_of, run_in_app, with_regions):
    ids = with_regions.values("id")
    params = {"within": "view"}
    ctx = request_of(with_regions, params, view=with_regions.select(ids[1:3]), selected=[ids[0]])

    requests, _ = run_in_app(operator("search_by_object"), ctx)

    assert shown_ids(with_regions, requests) == [ids[2], ids[1]]


def test_an_uploaded_picture_searches(operator, request_of, run_in_app, with_regions):
    content = base64.b64encode(Path(with_regions.last().filepath).read_bytes()).decode()
    params = {"source": "upload", "image": {"name": "x.png", "content": f"data:image/png;base64,{content}"}}

    requests, _ = run_in_app(operator("search_by_object"), request_of(with_regions, params))

    assert set(shown_ids(with_regions, requests)) == set(with_regions.values("id"))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("/etc/hostname", "upload a picture"),
        ({"name": "x", "content": "not base64!"}, "garbled"),
        ({"name": "x", "content": base64.b64encode(b"text").decode()}, "not an image"),
        (None, "nothing is given"),
    ],
)
def test_an_upload_that_is_no_picture_is_explained(operator, request_of, run_in_app, with_regions, image, message):
    params = {"source": "upload", "image": image}

    _, result = run_in_app(operator("search_by_object"), request_of(with_regions, params))

    assert message in result["error"]


def test_a_request_cannot_smuggle_in_a_path(operator, request_of, with_regions):
    ctx = request_of(with_regions, {"source": "text", "text": "mug", "image": "/etc/hostname"})

    assert operator("search_by_object").arguments(ctx) == {"field": "regions", "text": "mug"}


def test_words_for_regions_without_words_are_explained(operator, request_of, run_in_app, with_regions):
    params = {"source": "text", "text": "milk"}

    _, result = run_in_app(operator("search_by_object"), request_of(with_regions, params))

    assert "SigLIP" in result["error"]


def test_clearing_takes_the_search_off_the_dataset(operator, request_of, run_in_app, with_regions):
    operator("search_by_object")(with_regions, images=[with_regions.first().id], progress=False)
    assert operator("clear_object_search").resolve_placement(request_of(with_regions)) is not None

    requests, _ = run_in_app(operator("clear_object_search"), request_of(with_regions))

    with_regions.reload()
    assert names(requests) == ["clear_view", "reload_dataset"]
    assert not with_regions.has_field("search_rank")


def test_the_level_that_was_chosen_is_shown(operator, request_of, run_in_app, with_regions):
    requests, _ = run_in_app(operator("show_region_level"), request_of(with_regions, {"level": "1"}))

    view = fo.DatasetView._build(with_regions, requests[-1]["params"]["view"])
    assert view.distinct("regions.detections.level") == [1]


def test_from_python_a_search_returns_its_view_and_delegation_queues_it(operator, with_regions):
    search = operator("search_by_object")
    sample = with_regions.first()

    view = search(with_regions, labels=[sample.regions.detections[0].id], progress=False)

    assert isinstance(view, fo.DatasetView)
    assert view.first().search_rank == 1
    with pytest.raises(ConfigError, match="nothing is given"):
        search(with_regions)


def test_regions_can_be_computed_by_a_delegated_operation(operator, blocks):
    from fiftyone.operators.delegated import DelegatedOperationService

    queued = operator("compute_claid_regions")(blocks, delegate=True, **FAST)
    DelegatedOperationService().execute_queued_operations(dataset_name=blocks.name, limit=1)

    assert queued.result["id"]
    blocks.reload()
    assert blocks.count("regions_count") == 4
