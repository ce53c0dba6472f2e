"""Training on the user's own pairs: where answers come from, what is left out, and the matcher in use afterwards."""

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.cosalient.registry import list_matchers, matchers_dir
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs
from fiftyone_selfsame.fiftyone_plugin.match_objects import match_objects
from fiftyone_selfsame.fiftyone_plugin.matcher_examples import pair_examples, product_examples
from fiftyone_selfsame.fiftyone_plugin.pair_decisions import decide_pairs
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.runs import list_records
from fiftyone_selfsame.fiftyone_plugin.train_matcher import progress_label, train_matcher

QUICK = {"steps": 6, "side": 56, "batch_size": 4, "device": "cpu", "progress": False, "model": "embedded-untrained"}


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    """Matchers go to a folder of this test."""
    monkeypatch.setenv("SELFSAME_HOME", str(tmp_path / "home"))


@pytest.fixture
def blocks(block_dataset):
    """Pictures of three kinds of blocks, and labelled pairs of them."""
    dataset = block_dataset(24)
    dataset.set_values("product", [f"p{number % 3}-{number // 12}" for number in range(24)])
    ids, kinds = dataset.values("id"), dataset.values("object")
    rng = np.random.default_rng(0)
    ends = [(i, j) for i in range(24) for j in range(i + 1, 24) if i // 6 == j // 6 and rng.random() < 0.8]
    pairs = create_pairs(
        dataset, pairs=[(ids[i], ids[j], "match" if kinds[i] == kinds[j] else "non_match") for i, j in ends]
    )
    yield dataset, pairs
    pairs.delete()


def test_decisions_overrule_labels_and_pairs_without_an_answer_are_left_out(blocks):
    _, pairs = blocks
    rows = read_pairs(pairs, ["label"])
    first = next(row for row in rows if row.values["label"] == "match")
    decide_pairs(pairs, [first.pair_id], "reject")

    def answer(labels):
        found = {(one.path_a, one.path_b): one.match for one in pair_examples(pairs, labels=labels).pairs}
        return len(found), found[first.source.filepath, first.target.filepath]

    assert answer("both") == (len(rows), False)
    assert answer("label") == (len(rows), True)
    assert answer("decisions") == (1, False)
    pairs.select_group_slices().set_values("label", [None] * 2 * len(rows))
    assert len(pair_examples(pairs).pairs) == 1
    with pytest.raises(ConfigError, match="no pair has an answer yet"):
        pair_examples(pairs, labels="label")


def test_a_network_is_trained_listed_and_used(blocks):
    _, pairs = blocks
    summary = train_matcher(pairs, "mine", kind="network", validation_share=0.5, **QUICK)
    assert summary.counts["matching"] + summary.counts["other"] == summary.counts["pairs"]
    assert [point[0] for point in summary.details["curve"]] == [1, 2, 3, 4, 5, 6]
    assert "mine" in [info.name for info in list_matchers()]
    record = next(one for one in list_records(pairs) if one["method"] == "train_matcher")
    assert record["status"] == "completed"
    assert record["details"]["threshold"] == summary.details["threshold"]
    assert "passed on" not in str(summary)
    matched = match_objects(pairs, matcher="mine", device="cpu", refine=False, write_back=False, progress=False)
    assert matched.counts["failed"] == 0
    assert matched.details["matcher"] == "mine"
    with pytest.raises(ConfigError, match="there is a matcher 'mine' already"):
        train_matcher(pairs, "mine", **QUICK)
    again = train_matcher(pairs, "mine", kind="network", overwrite=True, validation_share=0.5, **QUICK)
    assert again.details["threshold"] == summary.details["threshold"]


def test_masks_of_the_pairs_are_learned(blocks, tiny_model):
    _, pairs = blocks
    match_objects(pairs, "match", model=tiny_model, refine=False, write_back=False, device="cpu", progress=False)
    examples = pair_examples(pairs, masks="match")
    assert all((one.mask_a is not None) == one.match for one in examples.pairs)
    summary = train_matcher(pairs, "masked", kind="network", masks="match", validation_share=0.5, **QUICK)
    assert "iou" in summary.details["figures"]


def test_the_training_free_matcher_is_calibrated(blocks):
    _, pairs = blocks
    summary = train_matcher(pairs, "own", kind="logistic", model="embedded-hybrid", device="cpu", progress=False)
    # Blocks of one kind differ in place only.
    assert summary.details["figures"]["average_precision"] > 0.9
    assert next(info for info in list_matchers() if info.name == "own").folder.kind == "logistic"
    matched = match_objects(pairs.limit(2), matcher="own", device="cpu", refine=False, write_back=False, progress=False)
    assert matched.details["threshold"] == pytest.approx(summary.details["threshold"])


def test_products_give_pairs_with_look_alikes_and_broken_pictures_are_left_out(blocks, tmp_path):
    dataset, _ = blocks
    dataset.add_sample_field("ffa", fo.VectorField)
    rng = np.random.default_rng(2)
    dataset.set_values("ffa", [rng.normal(size=4).astype(np.float32) for _ in range(24)])
    dataset.set_values("half", ["train" if number < 12 else "validation" for number in range(24)])
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    sample = dataset.first()
    sample["filepath"] = str(broken)
    sample.save()
    examples = product_examples(dataset, "product", "ffa", count=60, seed=0, split="half")
    assert set(examples.failed) == {str(broken)}
    assert all(str(broken) not in (one.path_a, one.path_b) for one in examples.pairs)
    assert all(one.match == (one.object_a == one.object_b) for one in examples.pairs)
    train, validation = examples.halves(0.2, 0)
    assert not {one.object_a for one in train} & {one.object_a for one in validation}
    summary = train_matcher(
        dataset, "products", kind="network", product="product", vectors="ffa", split="half", **QUICK
    )
    assert summary.failed == examples.failed
    assert (matchers_dir() / "products" / "README.md").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "training_free"}, "belongs to a matcher of the package"),
        ({"name": "a/b"}, "cannot be used"),
        ({"name": "x", "kind": "deep"}, "kind='deep'"),
        ({"name": "x", "labels": "mine"}, "labels='mine'"),
        ({"name": "x", "kind": "network", "encoder": "vgg"}, "encoder='vgg'"),
        ({"name": "x", "masks": "nothing"}, "no Segmentation field"),
        ({"name": "x", "split": "nothing"}, "no field 'nothing'"),
    ],
)
def test_what_cannot_work_is_refused(blocks, options, message):
    _, pairs = blocks
    with pytest.raises(ConfigError, match=message):
        train_matcher(pairs, progress=False, **options)
    assert not matchers_dir().is_dir() or not [one for one in list_matchers() if one.name == "x"]


def test_images_without_products_are_refused(blocks):
    dataset, _ = blocks
    with pytest.raises(ConfigError, match="these are no pairs"):
        train_matcher(dataset, "x", progress=False)


def test_the_course_of_the_loss_is_drawn_as_bars():
    label = progress_label("match", [4.0, 3.0, 2.0, 1.0], {"f1": 0.5, "average_precision": 0.25})
    assert label == "Learning to decide · loss 1.000 █▆▃▁ · validation F1 0.50, AP 0.25"
    assert progress_label("encoding", [], {}) == "Encoding pictures"
