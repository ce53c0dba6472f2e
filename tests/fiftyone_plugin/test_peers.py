"""Where other tools go wrong: each defect shown on a small dataset, and what this plugin does with the same data."""

import importlib.util
import inspect
import os
import warnings

import fiftyone as fo
import fiftyone.brain as fob
import fiftyone.core.odm as odm
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionContext, Executor
from fiftyone_selfsame import operators
from fiftyone_selfsame.benchmarks.speed_duplicates import PeakMemory
from fiftyone_selfsame.brain.errors import ConfigError, SelfsameError
from fiftyone_selfsame.brain.neighbors import radius_pairs
from fiftyone_selfsame.fiftyone_plugin import api
from fiftyone_selfsame.fiftyone_plugin.decision_apply import apply_decisions
from fiftyone_selfsame.fiftyone_plugin.decisions import decide
from fiftyone_selfsame.fiftyone_plugin.duplicate_tags import tag_duplicates, undo_duplicate_tags
from fiftyone_selfsame.fiftyone_plugin.duplicate_views import show_duplicate_groups
from fiftyone_selfsame.fiftyone_plugin.duplicates import find_duplicates, regroup_duplicates
from fiftyone_selfsame.fiftyone_plugin.exact_duplicates import find_exact_duplicates
from fiftyone_selfsame.fiftyone_plugin.group_table import group_view
from fiftyone_selfsame.fiftyone_plugin.runs import load_record

# FiftyOne Brain's similarity backends besides scikit-learn's; that of Qdrant cannot be imported without its client.
BACKENDS = ("elasticsearch", "lancedb", "milvus", "mongodb", "mosaic", "pgvector", "pinecone", "redis")
_INDEX = "SimilarityIndex"


def show(defect, peer):
    """Lets a peer go wrong first. A peer that has been repaired is news, which a warning tells, and no failure."""
    try:
        is_there = peer()
    except Exception as error:  # what it got wrong before, a repaired peer may refuse
        is_there, defect = False, f"{defect} ({type(error).__name__}: {error})"
    if not is_there:
        warnings.warn(f"the installed version no longer does this: {defect}", stacklevel=2)


def angles(*degrees):
    """Unit vectors in the plane: the cosine of two is that of the difference of their angles."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def crowd(n=40):
    """``(n, 8)`` vectors with a strong common mean, as any encoder's have; the last one is nearly the first."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(n, 8)) + 6.0
    vectors[-1] = vectors[0] + 0.3 * rng.normal(size=8)
    return vectors.astype(np.float32)


def raw_cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def brain_index(dataset, **options):
    return fob.compute_similarity(dataset, embeddings="ffa", backend="sklearn", progress=False, **options)


def context(dataset, params):
    """An execution context as the App's server makes one from a request."""
    return ExecutionContext({"dataset_name": dataset.name, "params": params}, executor=Executor())


def groups_of(dataset, key="dup"):
    """The groups as sets of ids, whatever their numbers."""
    groups = {}
    for sample_id, group in zip(*dataset.values(["id", f"{key}_group"]), strict=True):
        if group is not None:
            groups.setdefault(group, set()).add(sample_id)
    return sorted(groups.values(), key=sorted)


# ------------------------------------------------------------------------------- 1: distances of centred vectors


def test_similarity_is_the_raw_cosine_and_a_search_leaves_the_index_as_it_was(vector_dataset):
    """FiftyOne Brain centres its own array in place: distances, vectors and later queries change by searching."""
    vectors = crowd()
    dataset = vector_dataset(vectors)
    vector_of = dict(zip(dataset.values("id"), vectors, strict=True))
    query = vectors[5] + 0.5
    cosines = {sample_id: raw_cosine(query, vector) for sample_id, vector in vector_of.items()}
    nearest = sorted(cosines, key=cosines.get)[-5:]

    def peer():
        index = brain_index(dataset)
        before = index.get_embeddings()[0]
        index.find_duplicates(thresh=0.2)
        altered = not np.array_equal(index.get_embeddings()[0], before)
        found = [(kept, *other) for kept, others in index.neighbors_map.items() for other in others]
        centred = [distance > 3 * (1 - raw_cosine(vector_of[a], vector_of[b])) for a, b, distance in found]
        return altered and any(centred) and set(index._kneighbors(query=query, k=5)[0]) != set(nearest)

    show("a search alters the index, whose distances are those of centred vectors", peer)
    index = brain_index(dataset)
    before = index.get_embeddings()[0]
    find_duplicates(dataset, threshold=0.995)

    found = [sample for sample in dataset if sample.dup_role == "duplicate"]
    assert len(found) > 3
    for sample in found:
        expected = raw_cosine(vector_of[sample.id], vector_of[sample.dup_of])
        assert sample.dup_similarity == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(index.get_embeddings()[0], before)
    np.testing.assert_array_equal(np.stack(dataset.values("ffa")), vectors)


def test_what_else_is_in_the_dataset_does_not_change_how_similar_two_images_are(vector_dataset):
    """FiftyOne Brain subtracts the mean of what it was given, so a threshold means something else for every view."""
    pair = crowd()[[0, -1]]
    alone = vector_dataset([*pair, *crowd()[1:4]])
    among_others = vector_dataset([*pair, *-crowd()[1:4]])

    def distance(dataset):
        index = brain_index(dataset)
        index.find_duplicates(thresh=0.5)
        return next(iter(index.neighbors_map.values()))[0][1]

    def similarity(dataset):
        find_duplicates(dataset, threshold=0.998)
        return dataset.match({"dup_role": "duplicate"}).values("dup_similarity")

    show(
        "the distance of two images depends on the others",
        lambda: abs(distance(alone) - distance(among_others)) > 10 * (1 - raw_cosine(*pair)),
    )
    assert similarity(alone) == similarity(among_others) == [pytest.approx(raw_cosine(*pair), abs=1e-6)]


# ------------------------------------------------------------------------------------------- 2: the view ignored


def test_no_duplicate_is_found_outside_the_view(vector_dataset):
    """FiftyOne Brain's `compute_near_duplicates(view, similarity_index=...)` searches all of the index."""
    dataset = vector_dataset(angles(0, 1, 90, 180, 270))
    outside, inside = dataset.values("id")[0], dataset[1:]

    def peer():
        brain_index(dataset, brain_key="by_vector")
        index = fob.compute_near_duplicates(inside, threshold=0.1, similarity_index="by_vector", progress=False)
        return outside in {*index.unique_ids, *index.duplicate_ids}

    show("with an index, the view is ignored", peer)
    summary = find_duplicates(inside, threshold=0.99)

    assert summary.counts["total"] == 4
    assert summary.counts["groups"] == 0
    assert dataset[outside].dup_role is None
    assert find_duplicates(dataset, threshold=0.99).counts["groups"] == 1


# ------------------------------------------------------------------------------------------- 3: unreadable files


def test_an_unreadable_file_stops_an_exact_search_that_may_not_skip_failures(vector_dataset):
    """FiftyOne Brain looks for missing hashes among the ids, so `skip_failures=False` never raises."""
    dataset = vector_dataset(angles(0, 90, 180))
    missing = dataset.values("filepath")[1]
    os.remove(missing)

    def peer():
        fob.compute_exact_duplicates(dataset, skip_failures=False, progress=False)
        return True

    show("skip_failures=False skips failures", peer)
    with pytest.raises(SelfsameError, match=os.path.basename(missing)):
        find_exact_duplicates(dataset, skip_failures=False)
    summary = find_exact_duplicates(dataset)

    assert list(summary.failed) == [dataset.values("id")[1]]
    assert [error is None for error in dataset.values("exact_error")] == [True, False, True]
    assert dataset.values("exact_role") == ["unique", None, "unique"]


# -------------------------------------------------------------------------------------- 4: the nearest one dropped


def test_an_image_with_an_identical_twin_is_at_the_top_of_nearest_similarity(vector_dataset):
    """FiftyOne Brain's uniqueness drops the nearest neighbour, taking it for the image itself: twins look unique."""
    vectors = np.random.default_rng(1).normal(size=(30, 6)).astype(np.float32)
    vectors[-1] = vectors[0]
    dataset = vector_dataset(vectors)

    def peer():
        fob.compute_uniqueness(dataset, embeddings="ffa", progress=False)
        uniqueness = dataset.values("uniqueness")
        return min(uniqueness[0], uniqueness[-1]) > 0.5 * np.mean(uniqueness)

    show("identical images are called unique", peer)
    find_duplicates(dataset, threshold=0.9999)

    roles, similarities = dataset.values(["dup_role", "dup_similarity"])
    assert sorted([roles[0], roles[-1]]) == ["duplicate", "keeper"]
    assert set(roles[1:-1]) == {"unique"}
    assert similarities[0] == pytest.approx(1.0, abs=1e-6) == similarities[-1]
    histogram = load_record(dataset, "dup")["details"]["histogram"]
    assert sum(histogram["counts"]) == 30
    assert histogram["edges"][-1] == pytest.approx(1.0, abs=1e-6)
    assert histogram["counts"][-1] == 2


# ------------------------------------------------------------------------------------- 5: keeping whoever is first


def test_a_chain_is_one_group_whose_best_picture_is_kept_in_whatever_order(vector_dataset):
    """FiftyOne Brain keeps by position in the index: no group, no quality, and another order gives another result."""
    # Two chains opposite to each other: their mean is zero, so that centring changes nothing here.
    degrees, sizes = np.array([0, 5, 10, 180, 185, 190]), np.array([16, 64, 32, 16, 64, 32])
    orders = [[0, 1, 2, 3, 4, 5], [1, 0, 2, 4, 3, 5], [5, 2, 0, 3, 4, 1]]
    threshold = float(np.cos(np.radians(6)))
    kept_by_brain = set()
    for order in orders:
        dataset = vector_dataset(angles(*degrees[order]), sizes=list(sizes[order]))
        index = brain_index(dataset)
        index.find_duplicates(thresh=1 - threshold)
        row_of = dict(zip(dataset.values("id"), order, strict=True))
        kept_by_brain.add(frozenset(row_of[sample_id] for sample_id in index.unique_ids))

        find_duplicates(dataset, threshold=threshold, max_diameter=0.02, keeper={"sharpness": 0, "exposure": 0})

        assert sorted(map(len, groups_of(dataset))) == [3, 3]
        kept = {order[row] for row, role in enumerate(dataset.values("dup_role")) if role == "keeper"}
        assert kept == {1, 4}
    show("what is kept depends on the order, not on quality", lambda: len(kept_by_brain) > 1)


# ------------------------------------------------------- 6: FiftyOne's official deduplication operators (read, not run)


def test_two_searches_stand_side_by_side_and_no_saved_view_is_written(vector_dataset):
    """The official operators save their result under fixed names of views, so that each scan overwrites the last."""
    dataset = vector_dataset(angles(0, 1, 5, 90))

    find_duplicates(dataset, "strict", threshold=0.999)
    find_duplicates(dataset, "loose", threshold=0.99)

    assert dataset.list_saved_views() == []
    assert [len(group) for group in groups_of(dataset, "strict")] == [2]
    assert [len(group) for group in groups_of(dataset, "loose")] == [3]
    assert len(show_duplicate_groups(dataset, "strict")) == 2
    assert len(show_duplicate_groups(dataset, "loose")) == 3


def test_a_review_deletes_nothing_before_the_name_of_the_dataset_is_typed(vector_dataset):
    """The official operators delete samples at once, and there is no way back."""
    dataset = vector_dataset(angles(0, 1, 90))
    ids, paths = dataset.values(["id", "filepath"])
    find_duplicates(dataset, threshold=0.99)
    dropped = dataset.match({"dup_role": "duplicate"}).values("id")

    tag_duplicates(dataset)
    rehearsal = apply_decisions(dataset)
    with pytest.raises(ConfigError, match=dataset.name):
        apply_decisions(dataset, dry_run=False)

    assert dataset.values("id") == ids
    assert rehearsal.counts["drop"] == 1
    undo_duplicate_tags(dataset)
    assert dataset.count_sample_tags() == {}
    tag_duplicates(dataset)
    apply_decisions(dataset, dry_run=False, confirm=dataset.name)
    assert set(ids) - set(dataset.values("id")) == set(dropped)
    assert all(map(os.path.exists, paths))


def test_a_search_whose_vectors_have_changed_is_refused(vector_dataset):
    """The official operators reuse a scan without asking whether it still belongs to the data."""
    dataset = vector_dataset(angles(0, 1, 90))
    find_duplicates(dataset, threshold=0.99)

    dataset.set_values("ffa", [vector.astype(np.float32) for vector in angles(0, 50, 90)])

    with pytest.raises(ConfigError, match="have changed since they were searched"):
        regroup_duplicates(dataset, threshold=0.995)


def test_the_threshold_is_read_off_the_data_and_the_reason_told(vector_dataset):
    """The official operators default to 0.3, a distance of centred vectors, whatever the encoder and the data."""
    rng = np.random.default_rng(0)
    for spread in (0.5, 3.0):
        vectors = rng.normal(size=(60, 24)) * spread + 2.0
        vectors[50:] = vectors[:10] + 0.01 * rng.normal(size=(10, 24))
        dataset = vector_dataset(vectors)

        summary = find_duplicates(dataset)

        assert summary.counts["groups"] == 10
        assert summary.details["threshold_reason"] in str(summary)


def test_duplicate_objects_are_shown_as_the_objects_that_they_are(vector_dataset):
    """For an index of patches, the official operators select samples by ids of labels, which finds none."""
    dataset = vector_dataset([None, None, None])
    boxes = [[0.1, 0.1, 0.3, 0.3], [0.5, 0.5, 0.4, 0.4]]
    scenes = [
        [fo.Detection(label="thing", bounding_box=box, vector=vector) for box, vector in zip(boxes, pair, strict=True)]
        for pair in angles(0, 90, 1, 200, 270, 91).astype(np.float32).reshape(3, 2, 2)
    ]
    dataset.add_sample_field("things", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    dataset.add_sample_field("things.detections.vector", fo.VectorField)
    dataset.set_values("things", [fo.Detections(detections=things) for things in scenes])

    find_duplicates(dataset, embeddings="vector", patches_field="things", threshold=0.99)

    first, second, third = dataset.values("things.detections.id")
    shown = [set(group_view(dataset, "dup", group).values("id")) for group in (0, 1)]
    assert sorted(shown, key=sorted) == sorted([{first[0], second[0]}, {first[1], third[1]}], key=sorted)
    assert len(dataset) == 3


# ------------------------------------------------------------------ 7: the image-deduplication plugin (read, not run)


# The operators of this comparison's subject, as far as they ask anything.
CURATING = [
    operator
    for operator in operators.OPERATORS
    if any(word in operator.__name__ for word in ("Duplicate", "Decisions", "Cluster", "Leaks"))
]

# What only steers a form or the App: the target, search again or move the threshold, splits or datasets, a download.
STEERING = {"view_target", "source", "between", "download"}
STEERING |= {"pairs_from", "list", "all_pairs", "least_turn", "most_turn"}


def inputs_of(properties):
    """Names of all properties that a form lets a user fill in, those of its collapsed part among them."""
    for name, prop in properties.items():
        nested = prop["type"].get("properties")
        if name == "advanced" and nested:
            yield from inputs_of(nested)
        elif prop["type"]["name"] != "Void":
            yield name


def test_every_field_of_a_form_is_an_argument_of_the_function(vector_dataset):
    """That plugin reads the parameter `method` while its form writes `method_choices`, so its choice is lost."""
    dataset = vector_dataset(angles(0, 1, 90))
    find_duplicates(dataset, threshold=0.99)
    tag_duplicates(dataset)

    for operator in CURATING:
        form = operator().resolve_input(context(dataset, {"method": "mutual_knn"})).to_json()
        asked = set(inputs_of(form["type"]["properties"])) - STEERING
        assert asked <= set(inspect.signature(getattr(api, operator().name)).parameters), operator
    assert len(CURATING) >= 8


def test_what_is_chosen_in_the_form_is_what_the_run_did(vector_dataset):
    """The same defect from the user's side: the chosen method has to arrive."""
    dataset = vector_dataset(angles(0, 1, 2, 10, 90))
    chosen = {"method": "mutual_knn", "k": 2, "threshold": 0.9, "advanced": {"max_diameter": 2.0}}

    operators.find_duplicates.FindDuplicates().execute(context(dataset, chosen))

    config = load_record(dataset, "dup")["config"]
    assert [config[name] for name in ("method", "k", "threshold", "max_diameter")] == ["mutual_knn", 2, 0.9, 2.0]
    # The outer one's nearest neighbour has two that are nearer.
    assert dataset.values("dup_group") == [0, 0, 0, None, None]


def test_results_are_written_in_batches_and_no_sample_is_saved_by_itself(vector_dataset, monkeypatch):
    """That plugin calls `save()` for each sample, one round trip to the database each."""

    def update_commands():
        status = odm.get_db_conn().client.admin.command("serverStatus")
        return status["metrics"]["commands"]["update"]["total"]

    monkeypatch.setattr(fo.Sample, "save", lambda *_: pytest.fail("a sample was saved by itself"))
    n = 200
    dataset = vector_dataset(angles(*np.arange(n) // 2 + 0.001 * (np.arange(n) % 2)))
    steps = {
        "find": lambda: find_duplicates(dataset, threshold=1 - 1e-6),
        "tag": lambda: tag_duplicates(dataset),
        "undo": lambda: undo_duplicate_tags(dataset),
        "decide": lambda: decide(dataset, "dup", "keep_best", groups=range(n // 2)),
    }

    commands = {}
    for name, step in steps.items():
        before = update_commands()
        step()
        commands[name] = update_commands() - before

    assert len(groups_of(dataset)) == n // 2
    assert all(0 < count < n / 3 for count in commands.values()), commands


# --------------------------------------------------------------------------------------- 8: memory for n² similarities


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="peaks of memory are read from Linux's /proc")
def test_memory_does_not_grow_with_the_square_of_the_images():
    """imagededup stacks the whole matrix of similarities, in float16 above 10,000 images."""
    n = 10_500
    matrix = 2 * n * n / 2**20
    vectors = np.random.default_rng(0).normal(size=(n, 32)).astype(np.float32)
    vectors[1::2] = vectors[::2] + 0.01

    with PeakMemory() as ours:
        pairs = radius_pairs(vectors, 0.99, device="cpu")

    def peer():
        retrieval = importlib.import_module("imagededup.handlers.search.retrieval")
        with PeakMemory() as theirs:
            similarity = retrieval.get_cosine_similarity(vectors, verbose=False)
        return similarity.nbytes == 2 * n * n and theirs.added_mb > matrix

    if importlib.util.find_spec("imagededup"):
        show("the whole matrix is held", peer)
    assert len(pairs) >= n // 2
    assert ours.added_mb < matrix / 3


# --------------------------------------------------------------------------------------- 9: vectors in other indexes


def test_vectors_are_searched_whatever_index_they_are_in(vector_dataset):
    """Only FiftyOne Brain's scikit-learn index has `find_duplicates`; those of vector databases have none."""
    dataset = vector_dataset(angles(0, 1, 90))

    def lacks_duplicates(backend):
        module = importlib.import_module(f"fiftyone.brain.internal.core.{backend}")
        (kind,) = (cls for name, cls in vars(module).items() if name.endswith(_INDEX) and name != _INDEX)
        index = object.__new__(kind)
        with pytest.raises(ValueError, match="only supports similarity indexes"):
            fob.compute_near_duplicates(dataset, similarity_index=index)
        return not hasattr(index, "find_duplicates")

    show("indexes of vector databases cannot find duplicates", lambda: all(map(lacks_duplicates, BACKENDS)))
    index = fob.compute_similarity(dataset, embeddings=angles(0, 90, 1), backend="sklearn", progress=False)
    vectors, ids, _ = index.get_embeddings()
    dataset.add_sample_field("from_index", fo.VectorField)
    dataset.set_values("from_index", dict(zip(ids, vectors, strict=True)), key_field="id")

    find_duplicates(dataset, "of_field", threshold=0.99)
    find_duplicates(dataset, "of_index", threshold=0.99, embeddings="from_index")

    assert dataset.values("of_field_group") == [0, 0, None]
    assert dataset.values("of_index_group") == [0, None, 0]
