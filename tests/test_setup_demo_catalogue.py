"""The demo's photographs filed by product and use, and what a catalogue check says of them."""

import fiftyone as fo
import pytest
from fiftyone_selfsame.fiftyone_plugin import api
from fiftyone_selfsame.fiftyone_plugin.catalogue_results import WITHOUT_EVIDENCE
from fiftyone_selfsame.fixtures import demo_job


@pytest.fixture
def dataset():
    dataset = demo_job.build_dataset(None, None)
    yield dataset
    for name in fo.list_datasets("selfsame-demo*"):
        fo.delete_dataset(name)


def test_photographs_are_filed_once_and_what_the_user_changed_stays(dataset):
    uses = dataset.count_values("use")
    misfiled = [product for product, truth in zip(*dataset.values(["product", "object"]), strict=True)
                if product != truth]  # fmt: skip
    assert set(uses) == {"catalogue", "document"}
    assert sum(uses.values()) == len(dataset)
    assert misfiled == ["god-morgon-apple-juice"] * 2
    first, second = dataset.values("id")[:2]
    dataset.set_values("product", {first: "mine", second: None}, key_field="id")

    again = demo_job.build_dataset(None, None)

    assert again[first].product == "mine"
    assert again[second].product == again[second].object


def test_a_dataset_of_an_earlier_demo_is_filed_too(dataset):
    dataset.delete_sample_fields(["product", "use"])

    again = demo_job.build_dataset(None, None)

    assert again.count("product") == again.count("use") == len(again)


def test_a_folder_of_ones_own_has_no_products(tmp_path, dataset):
    path = dataset.first().filepath
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "photo.jpg").symlink_to(path)

    own = demo_job.build_dataset(None, tmp_path / "own")

    assert not own.has_field("product")


def test_the_check_refutes_the_misfiled_documents_and_finds_all_others(dataset):
    summary = api.check_catalogue(dataset, "product", use="use", model="embedded-hybrid", device="cpu", progress=False)

    found = {row["product"]: row["verdict"] for row in summary.details["table"]}
    assert {product: verdict for product, verdict in found.items() if verdict in WITHOUT_EVIDENCE} == {
        "god-morgon-apple-juice": "no_match",
        "passion-fruit": "no_catalogue",
        "royal-gala": "no_document",
    }
    assert summary.counts["matched"] == 12
