"""Where pairs come from: groups, similarity, fields and viewpoints, lists; how many there are before any is made."""

import base64

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.create_pairs import create_pairs, create_pairs_steps, pair_source
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates
from fiftyone_selfsame.fiftyone_plugin.object_clusters import cluster_objects
from fiftyone_selfsame.fiftyone_plugin.pairs import read_pairs
from fiftyone_selfsame.fiftyone_plugin.steps import exhaust


def _angles(*degrees):
    return [np.array([np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))]) for angle in degrees]


def _ends(dataset, specs):
    """Positions of both images of each pair in the dataset."""
    row_of = {sample_id: row for row, sample_id in enumerate(dataset.values("id"))}
    return [(row_of[spec.source_id], row_of[spec.target_id]) for spec in specs]


@pytest.fixture
def turned(vector_dataset):
    """Seven images on a circle; the first three are near copies of each other."""
    dataset = vector_dataset(_angles(0, 1, 2, 20, 50, 90, 130))
    dataset.set_values("kind", ["cat", "cat", "dog", "dog", "cat", None, "dog"])
    dataset.set_values("azimuth", [0.0, 44.0, 10.0, 181.0, 300.0, 0.0, None])
    return dataset


def test_each_keeper_with_its_duplicates_and_all_pairs_of_a_cluster(turned):
    find_duplicates(turned, threshold=0.99)
    source = pair_source(turned, key="dup")
    ends = _ends(turned, source.take(None))
    roles = turned.values("dup_role")
    assert source.count == len(ends) == 2
    assert {roles[source] for source, _ in ends} == {"keeper"}
    cluster_objects(turned, "objects", embeddings="ffa", threshold=0.9, progress=False)
    sizes = [n for number, n in turned.count_values("objects_cluster").items() if number is not None]
    source = pair_source(turned, key="objects")
    assert source.count == len(source.take(None)) == sum(n * (n - 1) // 2 for n in sizes)
    assert len(source.take(1)) == 1


def test_the_most_similar_partner_and_no_pair_twice(turned):
    source = pair_source(turned, similar="ffa")
    found = _ends(turned, source.take(None))
    assert source.count == 7
    assert len({frozenset(pair) for pair in found}) == len(found)
    # By hand: 0-1 (1 degree), 2 chooses 1, 3 chooses 2 (18), 4 chooses 3 (30), 5 and 6 each other (40) or 4 (40).
    assert found[:2] in ([(0, 1), (1, 2)], [(1, 2), (0, 1)])
    assert {(2, 3), (3, 4)} <= set(found)


def test_copies_are_nobodys_partner_and_partners_share_a_value(turned):
    find_duplicates(turned, threshold=0.99)
    keeper = turned.values("dup_role").index("keeper")
    found = _ends(turned, pair_source(turned, similar="ffa", apart="dup").take(None))
    copies = {0, 1, 2} - {keeper}
    assert found
    assert not {row for pair in found for row in pair} & copies
    assert (keeper, 3) in found
    found = _ends(turned, pair_source(turned, similar="ffa", within="kind").take(None))
    assert set(found) == {(0, 1), (1, 4), (2, 3), (3, 6)}


def test_pairs_of_a_category_with_a_change_of_viewpoint(turned):
    both = pair_source(turned, within="kind")
    assert both.count == 3 + 3
    source = pair_source(turned, within="kind", azimuth="azimuth", differences=(2, 4))
    specs = source.take(None)
    # Bins by hand: 0, 1, 0, 4, 7, 0, none. Cats 0-4 differ by 1, 1-4 by 2; dogs 2-3 by 4.
    assert _ends(turned, specs) == [(1, 4), (2, 3)]
    assert [spec.values["azimuth_difference"] for spec in specs] == [2, 4]
    turned.set_values("bins", [0, 1, 0, 4, 7, 0, 2])
    assert pair_source(turned, within="kind", azimuth="bins", differences=(2, 4)).count == 2 + 2


def test_the_pair_dataset_keeps_the_change_of_viewpoint_and_says_what_was_left_out(turned):
    options = {"within": "kind", "azimuth": "azimuth", "max_pairs": 2, "azimuth_difference": (0, 4)}
    summary = exhaust(create_pairs_steps(turned, name="turned-pairs", **options), False)
    pairs = fo.load_dataset("turned-pairs")
    try:
        assert summary.counts == {"pairs": 2, "left_out": 2}
        assert "2 more pairs were left out" in summary.notices[-1]
        rows = read_pairs(pairs, ["azimuth_difference", "relation"])
        assert sorted(row.values["relation"] for row in rows) == ["kind: cat", "kind: dog"]
        assert all(0 <= row.values["azimuth_difference"] <= 4 for row in rows)
        everything = create_pairs(turned, name="turned-pairs", overwrite=True, **{**options, "max_pairs": None})
        assert everything.count() == 4
    finally:
        fo.delete_dataset("turned-pairs")


def test_a_classification_tells_images_apart(turned):
    turned.set_values("thing", [fo.Classification(label=name) for name in "aabbabb"])
    assert pair_source(turned, within="thing").count == 3 + 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"similar": "nothing"}, "no such field; vector fields: ffa"),
        ({"within": "ffa"}, "with one value per image"),
        ({"within": "kind", "azimuth": "kind"}, "no field of numbers"),
        ({"within": "kind", "azimuth": "azimuth", "differences": (3, 2)}, "two whole numbers from 0 to 4"),
        ({"within": "kind", "pairs": []}, "give one of them"),
        ({"azimuth": "azimuth"}, "goes with within"),
        ({"similar": "ffa", "within": "kind", "azimuth": "azimuth"}, "do not go together"),
        ({"similar": "ffa", "partners": 0}, "partners=0"),
        ({"similar": "ffa", "apart": "dup"}, "no groups under key 'dup'"),
        ({"within": "kind", "apart": "dup"}, "goes with similar"),
        ({}, "select exactly two images"),
    ],
)
def test_what_cannot_be_meant_is_refused(turned, options, message):
    with pytest.raises(ConfigError, match=message):
        pair_source(turned, **options)


def test_a_list_of_pairs_is_read_line_by_line(turned, tmp_path):
    ids = turned.values("id")
    path = tmp_path / "pairs.csv"
    path.write_text(f"\ufeffsource_id,target_id,label\n{ids[0]},{ids[1]},match\n{ids[2]},{ids[3]},\n", "utf-8")
    specs = pair_source(turned, path=path).take(None)
    assert [(spec.label, spec.relation) for spec in specs] == [("match", "list"), (None, "list")]
    path.write_text(f"source_id,target_id,label\n{ids[0]},{ids[1]},same\n", "utf-8")
    with pytest.raises(ConfigError, match=r"pairs\.csv, line 2: label 'same'"):
        pair_source(turned, path=path)
    path.write_text("a,b\n1,2\n", "utf-8")
    with pytest.raises(ConfigError, match="first line must name the columns source_id, target_id"):
        pair_source(turned, path=path)
    with pytest.raises(ConfigError, match="cannot be read"):
        pair_source(turned, path=tmp_path / "none.csv")


class _Context:
    """What a form reads of a request."""

    def __init__(self, dataset, params=None, selected=()):
        self.dataset, self.params, self.selected, self.prompt_id = dataset, params or {}, list(selected), None
        self.request_params = {}

    def target_view(self):
        return self.dataset.view()


def _form(ctx):
    from fiftyone.operators import types
    from fiftyone_selfsame.fiftyone_plugin.pair_forms import pair_form

    inputs = types.Object()
    pair_form(ctx, inputs)
    return inputs.to_json()["properties"]


def test_the_form_counts_before_anything_is_made_and_takes_more_than_the_cap_only_on_the_users_word(
    turned, monkeypatch
):
    from fiftyone_selfsame.fiftyone_plugin import pair_forms

    monkeypatch.setattr(pair_forms, "MAX_PAIRS", 4)
    params = {"pairs_from": "category", "within": "kind"}
    form = _form(_Context(turned, params))
    assert form["count"]["view"]["label"] == "6 pairs."
    assert "all_pairs" in form
    assert "max_pairs" not in pair_forms.pair_arguments(_Context(turned, params), params)
    agreed = params | {"all_pairs": True}
    assert pair_forms.pair_arguments(_Context(turned, agreed), {"within": "kind"}) == {
        "within": "kind",
        "max_pairs": None,
    }
    assert "all_pairs" not in _form(_Context(turned, params | {"max_pairs": 10}))


def test_the_form_offers_what_the_dataset_has_and_passes_on_no_leftovers_of_another_choice(turned):
    from fiftyone_selfsame.fiftyone_plugin.pair_forms import pair_arguments

    ids = turned.values("id")
    assert list(_form(_Context(turned, selected=ids[:2]))["pairs_from"]["type"]["values"]) == [
        "selection",
        "similarity",
        "category",
        "list",
    ]
    left = {"pairs_from": "selection", "within": "kind", "similar": "ffa"}
    given = {"within": "kind", "similar": "ffa"}
    assert pair_arguments(_Context(turned, left, ids[:2]), given) == {"pairs": [ids[:2]]}
    assert pair_arguments(_Context(turned, {}), {}) == {"similar": "ffa"}
    assert "Select exactly two" in str(_form(_Context(turned, {"pairs_from": "selection"}))["problem"])


def test_a_list_can_be_uploaded(turned):
    from fiftyone_selfsame.fiftyone_plugin.pair_forms import pair_arguments

    ids = turned.values("id")
    text = f"source_id,target_id,label\n{ids[0]},{ids[1]},match\n"
    upload = {"name": "mine.csv", "content": base64.b64encode(text.encode()).decode()}
    params = {"pairs_from": "list", "list": upload}
    assert pair_arguments(_Context(turned, params), {}) == {"pairs": [[ids[0], ids[1], "match", None]]}
    assert _form(_Context(turned, params))["count"]["view"]["label"] == "1 pair."
    with pytest.raises(ConfigError, match="upload a CSV file"):
        pair_arguments(_Context(turned, {"pairs_from": "list"}), {})
