"""The catalogue check in the App: its form in every state, what it shows afterwards, and the delegated request."""

import base64
import inspect
import json

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin import api, catalogue_forms
from fiftyone_selfsame.fiftyone_plugin.match_setup import MatcherChoice
from fiftyone_selfsame.fiftyone_plugin.pairs import derived_pairs, is_pair_dataset
from fiftyone_selfsame.fixtures.colour_matcher import ColourMatcher
from fiftyone_selfsame.operators.check_catalogue import CheckCatalogue
from PIL import Image


@pytest.fixture(autouse=True)
def matcher(monkeypatch):
    """The colour matcher in place of any other."""
    monkeypatch.setattr(MatcherChoice, "load", lambda choice: ColourMatcher(choice.threshold or 0.8))


@pytest.fixture
def filed(fo_dataset, tmp_path):
    """A factory of datasets of grey pictures, filed by product and use; product b has no document."""

    def make(rows=(("a", "catalogue", 100), ("a", "document", 90), ("a", "document", 0), ("b", "catalogue", 50))):
        paths = []
        for product, use, grey in rows:
            paths.append(tmp_path / f"{product}_{use}_{grey}.png")
            Image.new("RGB", (12, 8), (grey,) * 3).save(paths[-1])
        dataset = fo_dataset(paths)
        dataset.set_values("product", [row[0] for row in rows])
        dataset.set_values("use", [row[1] for row in rows])
        made.append(dataset)
        return dataset

    made = []
    yield make
    for dataset in made:
        for name in derived_pairs(dataset):
            fo.delete_dataset(name)


def names(requests):
    return [request["operator_uri"].split("/")[-1] for request in requests]


def param(requests, name):
    return next(request["params"] for request in requests if request["operator_uri"].endswith(name))


# ------------------------------------------------------------------------------------------------------- the form


def test_the_form_finds_the_fields_and_counts_the_comparisons(request_of, filed, form, notices):
    properties = form(CheckCatalogue(), request_of(filed()))

    assert properties["product"]["default"] == "product"
    assert properties["use"]["default"] == "use"
    assert (properties["catalogue"]["default"], properties["document"]["default"]) == ("catalogue", "document")
    assert "2 products: 2 comparisons; 1 product without a document image." in notices(properties)
    assert "Up to 300 more between different products" in notices(properties)
    assert not properties["key"].get("invalid")
    given = form(CheckCatalogue(), request_of(filed(), {"threshold": 0.5}))
    assert "more between" not in notices(given)


def test_the_count_follows_the_limits_and_the_target(request_of, filed, form, notices):
    dataset = filed()

    limited = notices(form(CheckCatalogue(), request_of(dataset, {"max_per_product": 1})))
    view = dataset.match({"product": "a"})
    target = notices(form(CheckCatalogue(), request_of(dataset, {"view_target": "CURRENT_VIEW"}, view=view)))

    assert "1 comparison of 2, 1 are left out by the limits" in limited
    assert "1 product: 2 comparisons." in target


def test_a_field_with_other_words_asks_which_is_which(request_of, filed, form, notices):
    dataset = filed()
    dataset.set_values("use", ["shop", "parcel", "parcel", "shop"])
    properties = form(CheckCatalogue(), request_of(dataset, {"catalogue": "shop", "document": "parcel"}))
    assert properties["catalogue"]["type"]["values"] == ["parcel", "shop"]
    assert "2 products: 2 comparisons; 1 product without a document image." in notices(properties)

    same = form(CheckCatalogue(), request_of(dataset, {"catalogue": "shop", "document": "shop"}))
    assert "must be two values" in notices(same)
    assert same["problem"]["invalid"]


def test_documents_may_come_from_another_dataset(request_of, filed, form, notices):
    dataset, other = filed(), filed([("b", "x", 51), ("c", "x", 3)])

    chosen = {"between": catalogue_forms.DATASETS, "documents": other.name}
    properties = form(CheckCatalogue(), request_of(dataset, chosen))
    asked = form(CheckCatalogue(), request_of(dataset, {"between": catalogue_forms.DATASETS}))

    assert other.name in properties["documents"]["type"]["values"]
    assert "use" not in properties
    assert "3 products: 1 comparison; 1 product without a document image; 1 product without a catalogue image" in (
        notices(properties)
    )
    assert asked["documents"]["required"]
    assert "max_pairs" not in asked


def test_what_cannot_work_is_said_in_the_form(request_of, fo_dataset, pictures, filed, form, notices):
    bare = fo_dataset(pictures)
    assert "No field could name the product" in notices(form(CheckCatalogue(), request_of(bare)))
    bare.set_values("product", list("abcd"))
    assert "No field could tell catalogue from document images" in notices(form(CheckCatalogue(), request_of(bare)))

    dataset = filed()
    dataset.save_view("mine_without_evidence", dataset.limit(1))
    taken = form(CheckCatalogue(), request_of(dataset, {"key": "mine"}))
    assert "has a saved view" in taken["key"]["error_message"]

    evidence = fo.load_dataset(api.check_catalogue(dataset, "product", use="use", progress=False).details["dataset"])
    assert "these are pairs already" in notices(form(CheckCatalogue(), request_of(evidence)))


def test_every_field_of_the_form_is_an_argument_or_steers_it(request_of, filed, form):
    steering = {"view_target", "between", "download"}
    properties = form(CheckCatalogue(), request_of(filed()))
    nested = properties["advanced"]["type"]["properties"]

    asked = {name for name, prop in {**properties, **nested}.items() if prop["type"]["name"] != "Void"}
    arguments = set(inspect.signature(api.check_catalogue).parameters)
    assert asked - steering - {"advanced"} <= arguments
    defaults = {name: inspect.signature(api.check_catalogue).parameters[name].default for name in asked & arguments}
    shown = {name: prop.get("default") for name, prop in {**properties, **nested}.items() if name in defaults}
    for name in ("key", "max_per_product", "max_pairs", "controls"):
        assert shown[name] == defaults[name]


# -------------------------------------------------------------------------------------------------------- the run


def test_the_app_shows_the_table_and_the_products_without_evidence(run_in_app, request_of, filed):
    dataset = filed()

    requests, result = run_in_app(CheckCatalogue(), request_of(dataset, {"threshold": 0.8}))

    assert names(requests)[-3:] == ["reload_dataset", "set_active_fields", "set_view"]
    assert [stage["_cls"].split(".")[-1] for stage in param(requests, "set_view")["view"]] == ["Match", "SortBy"]
    assert result["counts"]["matched"] == 1
    rows = result["details"]["table"]
    assert [(row["product"], row["verdict"], row["score"]) for row in rows] == [
        ("b", "no_document", None),
        ("a", "match", pytest.approx(1 - 10 / 255, abs=1e-3)),
    ]
    table = result["form"]["details"]["type"]["properties"]["table"]
    assert table["view"]["name"] == "TableView"
    assert {column["key"] for column in table["view"]["columns"]} <= set(rows[0])
    json.dumps(result)


def test_a_button_opens_the_evidence_and_the_grid_stays_where_every_product_has_some(run_in_app, request_of, filed):
    dataset = filed()
    dataset.delete_samples(dataset.match({"product": "b"}))

    requests, result = run_in_app(CheckCatalogue(), request_of(dataset, {"threshold": 0.8}))

    assert list(result["form"])[:3] == ["summary", "open_evidence", "details"]
    button = result["form"]["open_evidence"]["view"]
    assert button["operator"] == "@voxel51/operators/open_dataset"
    assert is_pair_dataset(fo.load_dataset(button["params"]["dataset"]))
    assert not {"open_dataset", "set_view"} & set(names(requests))


def test_a_second_check_is_of_the_whole_dataset_again_and_one_of_a_part_is_warned_of(request_of, filed, form):
    dataset = filed()
    api.check_catalogue(dataset, "product", use="use", progress=False)
    view = dataset.match({"product": "b"})

    whole = form(CheckCatalogue(), request_of(dataset, {"view_target": "DATASET"}, view=view))
    part = form(CheckCatalogue(), request_of(dataset, {"view_target": "CURRENT_VIEW"}, view=view))

    assert whole["view_target"]["default"] == "DATASET"
    assert "fewer" not in whole
    assert "was of 2 products; only these keep a result" in part["fewer"]["view"]["label"]


def test_the_table_is_downloaded_and_no_path_is_taken_from_the_app(run_in_app, request_of, filed, tmp_path):
    params = {"download": True, "path": str(tmp_path / "elsewhere.csv")}

    requests, _ = run_in_app(CheckCatalogue(), request_of(filed(), params))

    text = base64.b64decode(param(requests, "browser_download")["url"].split(",")[1]).decode()
    assert text.startswith("product,verdict,score,")
    assert len(text.splitlines()) == 3
    assert not (tmp_path / "elsewhere.csv").exists()


def test_two_datasets_are_compared_from_the_app(run_in_app, request_of, filed):
    dataset, other = filed(), filed([("b", "x", 51)])
    # What was filled in before the other choice was made is still in the request.
    params = {"between": catalogue_forms.DATASETS, "documents": other.name, "use": "use", "document": "document"}

    _, result = run_in_app(CheckCatalogue(), request_of(dataset, params))

    assert result["counts"]["products"] == 2
    other.reload()
    assert other.values("catalogue_product_verdict") == ["match"]


def test_what_goes_wrong_is_said_and_recorded(run_in_app, request_of, filed):
    dataset = filed()
    _, result = run_in_app(CheckCatalogue(), request_of(dataset, {"name": dataset.name}))
    assert "not of this check" in result["error"]

    broken = dataset.match({"use": "document"}).values("filepath")
    for path in broken:
        with open(path, "wb"):
            pass
    _, result = run_in_app(CheckCatalogue(), request_of(dataset, {"threshold": 0.8}))
    assert len(result["failed"]) == 2
    assert all("file is empty" in reason for reason in result["failed"])
    assert result["details"]["verdicts"] == {"no_document": 1, "not_compared": 1}


def test_a_request_from_python_does_the_same_and_returns_the_facts(operator, request_of, filed):
    dataset = filed()
    ctx = request_of(dataset, {"product": "product", "use": "use", "threshold": 0.8}, from_app=False)

    result = operator("check_catalogue").execute(ctx)

    assert result["details"]["verdicts"] == {"no_document": 1, "match": 1}
    assert operator("check_catalogue").resolve_output(request_of(dataset)).to_json()
    summary = operator("check_catalogue")(dataset, "product", use="use", threshold=0.8, progress=False)
    assert summary.counts["skipped"] == 2
