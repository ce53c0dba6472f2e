"""The region index against brute force in float64, through replacements, removals, kills and damage."""

import os
import signal
import subprocess
import sys
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
from fiftyone_selfsame.brain.claid import region_index, region_store
from fiftyone_selfsame.brain.claid.region_index import ImageRegions, RegionIndex
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

DIM = 8


def image_of(name, n=3, stamp="1", seed=None):
    """An image with n regions, whose labels are ``name-0`` ..."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {stamp}".encode()) if seed is None else seed)
    labels = tuple(f"{name}-{row}" for row in range(n))
    return ImageRegions(name, stamp, labels, vectors=rng.standard_normal((n, DIM)), boxes=rng.random((n, 4)))


@pytest.fixture
def index(tmp_path):
    return RegionIndex.create(tmp_path / "index", DIM, {"model": "m"})


def literal_search(images, query):
    """``(image, label, cosine)`` of each image's best region, best first, in float64 from the vectors as given."""
    best = []
    for image in images:
        if len(image.vectors):
            cosines = image.vectors @ query / np.linalg.norm(image.vectors, axis=1) / np.linalg.norm(query)
            best.append((image.image_id, image.label_ids[cosines.argmax()], cosines.max()))
    return sorted(best, key=lambda hit: -hit[2])


def hits_of(found):
    return [(hit.image_id, *hit.label_ids) for hit in found]


def test_a_search_finds_what_brute_force_finds(index):
    images = [image_of(f"i{number}", number % 4, seed=number) for number in range(30)]
    query = np.random.default_rng(99).standard_normal(DIM)

    assert index.update(images) == 30

    expected = literal_search(images, query)
    found = index.search(query)
    assert hits_of(found) == [hit[:2] for hit in expected]
    assert [hit.score for hit in found] == pytest.approx([hit[2] for hit in expected], abs=1e-3)
    best = images[int(expected[0][0][1:])]
    row = best.label_ids.index(expected[0][1])
    assert np.allclose(found[0].boxes, best.boxes[row])
    assert (found[0].boxes.shape, found[0].similarities.shape) == ((1, 4), (1,))


def test_what_was_stored_is_there_when_the_folder_is_opened_again(index):
    images = [image_of("a"), image_of("b", 0, "2"), image_of("c", 1)]
    index.update(images)

    again = RegionIndex.open(str(index.folder))

    assert (again.dim, again.info, again.n_regions) == (DIM, {"model": "m"}, 4)
    assert again.image_ids == ["a", "b", "c"]
    assert again.stamps() == {"a": "1", "b": "2", "c": "1"}
    kept = again.regions_of("a")
    assert (kept.stamp, kept.label_ids) == ("1", ("a-0", "a-1", "a-2"))
    assert np.allclose(kept.boxes, images[0].boxes)
    unit = images[0].vectors / np.linalg.norm(images[0].vectors, axis=1, keepdims=True)
    assert np.allclose(kept.vectors, unit, atol=1e-3)
    assert len(again.regions_of("b").label_ids) == 0
    with pytest.raises(ConfigError, match="image 'z' is not in the index"):
        again.regions_of("z")


def test_an_empty_index_is_searched_without_a_find(index):
    assert index.search(np.ones(DIM)) == []
    assert (index.n_regions, index.image_ids, index.update([]), index.remove(["a"])) == (0, [], 0, 0)


def test_an_image_with_the_stored_stamp_stays_and_one_with_another_stamp_is_replaced(index):
    index.update([image_of("a"), image_of("b")])
    changed = image_of("a", 2, "2")

    assert index.update([replace(image_of("b"), label_ids=("x", "y", "z")), changed]) == 1

    assert index.regions_of("b").label_ids == ("b-0", "b-1", "b-2")
    assert index.regions_of("a").label_ids == ("a-0", "a-1")
    assert (index.n_regions, index.image_ids) == (5, ["b", "a"])
    found = index.search(changed.vectors[1])
    assert (found[0].image_id, found[0].label_ids) == ("a", ("a-1",))
    assert len(found) == 2


def test_removed_images_vanish(index):
    index.update([image_of("a"), image_of("b"), image_of("c")])

    assert index.remove(["b", "unknown", "b"]) == 1

    assert (index.image_ids, index.n_regions) == (["a", "c"], 6)
    assert {hit.image_id for hit in index.search(image_of("b").vectors[0])} == {"a", "c"}
    assert RegionIndex.open(index.folder).image_ids == ["a", "c"]
    assert index.update([image_of("b")]) == 1
    assert index.image_ids == ["a", "c", "b"]


changes = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.booleans()), max_size=12)


@given(steps=changes, dead=st.sampled_from([0.0, 0.5]))
def test_after_any_history_the_index_holds_what_a_dictionary_would(tmp_path_factory, steps, dead):
    folder = tmp_path_factory.mktemp("history") / "index"
    index, expected = RegionIndex.create(folder, DIM), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region_index, "_MAX_DEAD", dead)
        for number, (name, n, stays) in enumerate(steps):
            if stays:
                expected.pop(name, None)
                expected[name] = image_of(name, n, str(number), seed=number)
                index.update([expected[name]])
            else:
                expected.pop(name, None)
                index.remove([name])

    query = np.ones(DIM)
    for one in (index, RegionIndex.open(folder)):
        assert one.image_ids == list(expected)
        assert one.stamps() == {name: image.stamp for name, image in expected.items()}
        assert hits_of(one.search(query)) == [hit[:2] for hit in literal_search(expected.values(), query)]


def test_dead_regions_leave_the_disk_when_they_are_the_most(index):
    index.update([image_of("a", 100), image_of("b", 10), image_of("c", 20)])
    query = image_of("c").vectors[0]
    before = index.search(query, exclude=["a"])
    size = index._snapshot.manifest.size("vectors")

    index.remove(["a"])

    assert index._snapshot.manifest.size("vectors") == 30 / 130 * size
    (vectors,) = index.folder.glob("vectors.*")
    assert vectors.stat().st_size == 30 * DIM * 2
    assert hits_of(index.search(query)) == hits_of(before)
    assert index.update([image_of("d", 4)]) == 1
    assert index.n_regions == 34


def test_a_reader_keeps_its_state_while_the_index_changes_and_is_rewritten(index):
    index.update([image_of("a", 50), image_of("b")])
    reader, query = RegionIndex.open(index.folder), image_of("a", 50).vectors[7]

    index.remove(["a"])

    assert reader.search(query)[0].label_ids == ("a-7",)
    assert index.search(query)[0].image_id == "b"


def test_the_limit_cuts_the_same_ranking(index):
    index.update([image_of(f"i{number}", 3, seed=number) for number in range(20)])
    query = np.ones(DIM)

    assert hits_of(index.search(query, limit=5)) == hits_of(index.search(query))[:5]
    assert len(index.search(query, limit=50)) == 20
    with pytest.raises(ConfigError, match="limit=0"):
        index.search(query, limit=0)


def test_a_search_can_be_kept_to_some_images_and_away_from_others(index):
    index.update([image_of(name) for name in "abcde"])
    query = np.ones(DIM)
    ranked = [hit.image_id for hit in index.search(query)]

    chosen = [hit.image_id for hit in index.search(query, image_ids=["e", "b", "c", "unknown"], exclude=["c"])]

    assert chosen == [name for name in ranked if name in "be"]
    assert "a" not in [hit.image_id for hit in index.search(query, exclude=["a"])]
    assert index.search(query, image_ids=[]) == []


def test_two_queries_ask_for_images_with_both_or_with_either(index):
    one, other = np.eye(DIM)[:2]
    both = ImageRegions("both", "", ("p", "q"), np.zeros((2, 4)), np.array([0.8 * one + 0.6 * np.eye(DIM)[2], other]))
    single = ImageRegions("single", "", ("r",), np.ones((1, 4)), one[None])
    index.update([single, both])

    all_of, any_of = (index.search(np.stack([one, other]), combine=combine) for combine in ("all", "any"))

    assert hits_of(all_of) == [("both", "p", "q"), ("single", "r", "r")]
    assert [hit.score for hit in all_of] == pytest.approx([0.9, 0.5], abs=1e-3)
    assert all_of[0].similarities == pytest.approx([0.8, 1.0], abs=1e-3)
    # Both hold one of the queries exactly: the one that was inserted first comes first.
    assert [hit.image_id for hit in any_of] == ["single", "both"]


@pytest.mark.parametrize("block_bytes", [4 * DIM, 4 * 3 * DIM, 1 << 20])
def test_copies_of_an_image_rank_by_insertion_however_the_work_is_cut(index, monkeypatch, block_bytes):
    monkeypatch.setattr(region_index, "_BLOCK_BYTES", {"cpu": block_bytes})
    copies = [replace(image_of("x", 5, seed=3), image_id=name, label_ids=tuple("vwxyz")) for name in "dbace"]
    index.update([image_of("first", 2), *copies, image_of("last", 4)])

    found = index.search(copies[0].vectors[2])

    assert [hit.image_id for hit in found[:5]] == list("dbace")
    assert {hit.label_ids for hit in found[:5]} == {("x",)}
    assert [hit.image_id for hit in index.search(copies[0].vectors[2], exclude=["first", "b"])[:4]] == list("dace")


def test_the_order_does_not_hang_on_rounding_in_float32(index, monkeypatch):
    """Errors as large as float32 allows are added to the products of all blocks; nothing changes."""
    index.update([image_of(f"i{number}", 3, seed=number % 5) for number in range(40)])
    query = np.random.default_rng(0).standard_normal((2, DIM))
    expected = hits_of(index.search(query, limit=7))
    products, rng = region_index._products, np.random.default_rng(0)

    def noisy(*arguments):
        similarity = products(*arguments)
        return similarity + rng.uniform(-1, 1, similarity.shape).astype(np.float32) * DIM * 2.0**-25

    monkeypatch.setattr(region_index, "_products", noisy)

    assert hits_of(index.search(query, limit=7)) == expected


@pytest.mark.gpu
def test_a_gpu_finds_the_same(index):
    index.update([image_of(f"i{number}", 3, seed=number % 7) for number in range(40)])
    query = np.random.default_rng(0).standard_normal((2, DIM))

    expected, found = (index.search(query, limit=9, device=device) for device in ("cpu", "cuda"))

    assert hits_of(found) == hits_of(expected)
    assert [hit.score for hit in found] == [hit.score for hit in expected]


def test_regions_without_a_direction_are_left_out(index):
    image = image_of("a")
    image.vectors[1] = 0

    index.update([image])

    assert index.regions_of("a").label_ids == ("a-0", "a-2")


GOOD = image_of("bad")


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (
            replace(GOOD, vectors=GOOD.vectors[:2]),
            r"vectors have shape \(2, 8\); its labels and the index ask for \(3, 8\)",
        ),
        (replace(GOOD, vectors=GOOD.vectors[:, :5]), r"ask for \(3, 8\)"),
        (replace(GOOD, boxes=GOOD.boxes[:2]), "'bad': boxes have shape"),
        (replace(GOOD, vectors=np.full((3, DIM), np.nan)), "not finite"),
        (replace(GOOD, label_ids=("a", "b", "c" * 25)), "24 characters"),
        (replace(GOOD, label_ids=("a", "b", "ü")), "not ASCII"),
    ],
)
def test_an_image_that_does_not_fit_changes_nothing(index, image, text):
    index.update([image_of("a")])

    with pytest.raises(ConfigError, match=text):
        index.update([image_of("b"), image])

    assert RegionIndex.open(index.folder).image_ids == ["a"]
    index.update([image_of("b")])
    assert index.regions_of("b").label_ids == ("b-0", "b-1", "b-2")
    assert hits_of(index.search(image_of("b").vectors[1]))[0] == ("b", "b-1")


@pytest.mark.parametrize(
    ("queries", "text"),
    [
        (np.ones(DIM + 1), r"shape \(1, 9\), but the vectors of this index have 8 dimensions"),
        (np.empty((0, DIM)), "have shape"),
        (np.zeros(DIM), "zero or not finite"),
        (np.full(DIM, np.inf), "zero or not finite"),
    ],
)
def test_queries_that_cannot_be_asked_are_refused(index, queries, text):
    with pytest.raises(ConfigError, match=text):
        index.search(queries)


def test_a_folder_that_is_no_index_or_not_empty_is_refused(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.json").write_text('{"format": "something"}')

    with pytest.raises(ConfigError, match="not an empty folder"):
        RegionIndex.create(tmp_path / "full", DIM)
    with pytest.raises(ConfigError, match="holds no region index"):
        RegionIndex.open(tmp_path / "full")
    with pytest.raises(ConfigError, match="holds no region index"):
        RegionIndex.open(tmp_path / "missing")
    with pytest.raises(ConfigError, match="not a region index of the format"):
        RegionIndex.open(tmp_path / "other")
    with pytest.raises(ConfigError, match="dim=0"):
        RegionIndex.create(tmp_path / "new", 0)
    with pytest.raises(ConfigError, match="info cannot be written as JSON"):
        RegionIndex.create(tmp_path / "new", DIM, {"model": object()})


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("index.json", lambda content: content[:-3], "cannot be read"),
        ("index.json", lambda content: content.replace(b'"info"', b'"news"'), "is broken"),
        ("index.json", lambda content: content.replace(b'"rows": 6', b'"rows": -6'), "a negative number"),
        ("vectors.000000", lambda content: content[:-1], "shorter than it should be"),
        ("regions.000000", lambda content: b"", "shorter than it should be"),
        ("images.000000", lambda content: b"?" * len(content), "is broken"),
        ("images.000000", lambda content: content.replace(b"3, 3", b"3, 4"), "out of range"),
    ],
)
def test_damage_is_told(index, name, damage, text):
    index.update([image_of("a"), image_of("b")])
    path = index.folder / name

    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(ConfigError, match=text):
        RegionIndex.open(index.folder)


def test_a_missing_file_is_told(index):
    (index.folder / "vectors.000000").unlink()

    with pytest.raises(ConfigError, match="files of the index are missing"):
        RegionIndex.open(index.folder)


class Killed(BaseException):
    pass


def count_of_file_operations(monkeypatch, stop_at):
    """Lets every flush and renaming be counted, and the process die before the one of number ``stop_at``."""
    done = []

    def counted(function):
        def call(*arguments):
            if len(done) == stop_at:
                raise Killed
            done.append(function)
            return function(*arguments)

        return call

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "replace", counted(os.replace))
    return done


@pytest.mark.parametrize("step", range(12))
def test_whenever_an_update_dies_the_index_is_as_before_or_after(index, monkeypatch, step):
    """The update replaces so much that the logs are rewritten, too: eleven operations."""
    index.update([image_of("a", 50), image_of("b", 2)])
    changed = [image_of("a", 1, "2"), image_of("c", 3)]
    before, after = {"a": "1", "b": "1"}, {"b": "1", "a": "2", "c": "1"}

    with monkeypatch.context() as patch:
        done = count_of_file_operations(patch, step)
        try:
            index.update(changed)
        except Killed:
            assert len(done) == step

    assert len(done) == min(step, 10)
    survivor = RegionIndex.open(index.folder)
    assert survivor.stamps() == (after if step > 4 else before)
    assert survivor.search(image_of("b").vectors[1])[0].image_id == "b"
    survivor.update(changed)
    assert survivor.stamps() == after
    assert hits_of(survivor.search(changed[1].vectors[2]))[0] == ("c", "c-2")
    assert len(list(index.folder.glob("vectors.*"))) == 1


WRITER = """
import sys
from fiftyone_selfsame.brain.claid.region_index import ImageRegions, RegionIndex
import numpy as np

def images():
    for number in range(5):
        yield ImageRegions(f"new{number}", "1", ["l"], np.zeros((1, 4)), np.ones((1, 8)))
    print("writing", flush=True)
    sys.stdin.read()

RegionIndex.open(sys.argv[1]).update(images())
"""


def test_a_killed_writer_leaves_the_previous_state_and_no_lock(index, monkeypatch):
    index.update([image_of("a")])
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(index.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "writing\n"
    monkeypatch.setattr(region_store, "LOCK_SECONDS", 0.05)
    with pytest.raises(ConfigError, match="another process is writing"):
        index.update([image_of("b")])
    assert RegionIndex.open(index.folder).image_ids == ["a"]

    writer.send_signal(signal.SIGKILL)
    writer.communicate()

    assert index.update([image_of("b")]) == 1
    assert index.image_ids == ["a", "b"]
    assert hits_of(index.search(image_of("b").vectors[0]))[0] == ("b", "b-0")


def test_writers_take_turns_and_none_loses_what_another_wrote(index):
    def write(prefix):
        own = RegionIndex.open(index.folder)
        for number in range(5):
            own.update([image_of(f"{prefix}{number}")])

    threads = [threading.Thread(target=write, args=(prefix,)) for prefix in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    found = RegionIndex.open(index.folder)
    assert sorted(found.image_ids) == sorted(f"{prefix}{number}" for prefix in "xyz" for number in range(5))
    assert found.n_regions == 45
    assert hits_of(found.search(image_of("y3").vectors[2]))[0] == ("y3", "y3-2")
