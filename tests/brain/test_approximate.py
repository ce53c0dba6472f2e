import os
import subprocess
import sys

import numpy as np
import pytest
from fiftyone_selfsame.brain import approximate
from fiftyone_selfsame.brain.approximate import (
    approximate_knn,
    approximate_knn_steps,
    approximate_pairs,
    approximate_pairs_steps,
    pair_recall,
)
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.neighbors import Pairs, knn, radius_pairs


def crowded(n: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Vectors in ``n / 20`` directions, 150 of them copies of one: more than any usual number of neighbours."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, n // 20), dim))
    vectors = centres[generator.integers(0, len(centres), n)] + 0.25 * generator.standard_normal((n, dim))
    vectors[generator.choice(n, 150, replace=False)] = vectors[0]
    return (vectors * generator.uniform(0.1, 10, (n, 1))).astype(np.float32)


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))


@pytest.fixture
def celled(monkeypatch):
    """Small sets are divided into cells as large ones are."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(approximate, "_MIN_CELLED", 1000)


@pytest.mark.usefixtures("celled")
@pytest.mark.parametrize("threshold", [0.7, 0.9])
def test_nearly_all_pairs_are_found_and_none_that_is_not_one(threshold):
    vectors = crowded(6000)
    exact = radius_pairs(vectors, threshold, device="cpu")

    found = approximate_pairs(vectors, threshold)

    assert as_set(found) <= as_set(exact)
    assert len(found) >= 0.99 * len(exact)
    similarity = dict(zip(zip(exact.i, exact.j, strict=True), exact.similarity, strict=True))
    assert all(similarity[i, j] == s for i, j, s in zip(found.i, found.j, found.similarity, strict=True))
    assert (np.diff(found.i.astype(np.int64) * 6000 + found.j) > 0).all(), "sorted, each pair once"
    assert found.threshold == threshold


@pytest.mark.usefixtures("celled")
def test_recall_is_measured_against_the_exact_search_and_rises_with_the_cells_visited():
    vectors = crowded(6000)
    exact = as_set(radius_pairs(vectors, 0.6, device="cpu"))

    few, all_cells = (approximate_pairs(vectors, 0.6, probes=probes) for probes in (1, 10_000))

    true_recall = len(as_set(few)) / len(exact)
    assert 0.3 < true_recall < 0.97
    assert pair_recall(vectors, few, 0.6, queries=6000) == pytest.approx(true_recall)
    assert pair_recall(vectors, few, 0.6, queries=1000) == pytest.approx(true_recall, abs=0.05)
    assert pair_recall(vectors, all_cells, 0.6) == 1.0


def test_recall_of_nothing_sought_is_one_and_of_nothing_found_is_zero():
    vectors = np.concatenate([np.eye(50), np.eye(50)[:5]])
    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32), 0.9)

    assert pair_recall(np.eye(50), nothing, 0.9) == 1.0
    assert pair_recall(vectors, nothing, 0.9) == 0.0
    assert pair_recall(vectors, nothing, 0.9, start=52) == 0.0
    assert pair_recall(vectors, radius_pairs(vectors, 0.9, start=52), 0.9, start=52, queries=1) == 1.0


@pytest.mark.usefixtures("celled")
def test_new_rows_are_compared_with_all_and_old_ones_not_again():
    vectors = crowded(3000)
    exact = as_set(radius_pairs(vectors, 0.8, start=2500, device="cpu"))

    found = as_set(approximate_pairs(vectors, 0.8, start=2500))

    assert found <= exact
    assert len(found) >= 0.98 * len(exact)
    assert len(approximate_pairs(vectors, 0.8, start=3000)) == 0


@pytest.mark.usefixtures("celled")
def test_neighbours_are_nearly_those_of_the_exact_search():
    vectors = crowded(4000)
    index, similarity = approximate_knn(vectors, 5)
    exact_index, exact_similarity = knn(vectors, 5, device="cpu")

    assert (similarity >= exact_similarity - 1e-6).mean() > 0.98
    assert (index != np.arange(4000)[:, None]).all()
    assert all(len(set(row)) == 5 for row in index.tolist())
    assert (np.diff(similarity, axis=1) <= 0).all()
    assert index.dtype == np.int32
    assert exact_index.shape == index.shape


@pytest.mark.usefixtures("celled")
def test_places_that_the_visited_cells_cannot_fill_are_marked():
    index, similarity = approximate_knn(crowded(2000), 400, probes=1)

    missing = index < 0
    assert 0 < missing.mean() < 1
    assert (similarity[missing] == -1).all()
    assert (np.diff(missing.astype(int), axis=1) >= 0).all(), "what is missing goes last"


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_small_sets_are_searched_exactly(n):
    pytest.importorskip("faiss")
    vectors = crowded(200)[:n]

    assert as_set(approximate_pairs(vectors, 0.5)) == as_set(radius_pairs(vectors, 0.5, device="cpu"))
    np.testing.assert_allclose(approximate_knn(vectors, 4)[1], knn(vectors, 4, device="cpu")[1], atol=1e-6)


@pytest.mark.usefixtures("celled")
def test_half_precision_mapped_from_disk_is_searched_as_it_is(tmp_path):
    vectors = crowded(1500).astype(np.float16)
    np.save(tmp_path / "half.npy", vectors)
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")

    assert as_set(approximate_pairs(mapped, 0.8, probes=100)) == as_set(radius_pairs(vectors, 0.8, device="cpu"))


@pytest.mark.usefixtures("celled")
def test_the_share_of_work_done_rises_to_one():
    for steps in (approximate_pairs_steps(crowded(2000), 0.9), approximate_knn_steps(crowded(2000), 3)):
        shares = list(steps)
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1.0)
        assert len(shares) >= 3


@pytest.mark.usefixtures("celled")
def test_a_pair_found_from_both_sides_counts_once_against_the_limit(monkeypatch):
    monkeypatch.setattr(approximate, "_CHUNK", 100)
    vectors = crowded(2000)
    count = len(approximate_pairs(vectors, 0.8, probes=1000))

    assert len(approximate_pairs(vectors, 0.8, probes=1000, max_pairs=count)) == count
    with pytest.raises(ConfigError, match="more than"):
        approximate_pairs(vectors, 0.8, probes=1000, max_pairs=count - 1)


def test_options_out_of_range_and_a_missing_library_are_named(monkeypatch):
    vectors = crowded(200)
    with pytest.raises(ConfigError, match="threshold"):
        approximate_pairs(vectors, 1.5)
    with pytest.raises(ConfigError, match="probes=0"):
        approximate_pairs(vectors, 0.9, probes=0)
    with pytest.raises(ConfigError, match="start=-1"):
        approximate_pairs(vectors, 0.9, start=-1)
    with pytest.raises(ConfigError, match="k=0"):
        approximate_knn(vectors, 0)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        approximate_pairs(vectors, 0.9)


def test_faiss_and_pytorch_compute_in_turns_in_one_process_whichever_is_loaded_first():
    """Each brings an OpenMP of its own, which together have been known to hang or crash."""
    pytest.importorskip("faiss")
    work = (
        "import numpy as np;"
        "from fiftyone_selfsame.brain.approximate import approximate_pairs, pair_recall;"
        "v = np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32); v[1000:2000] = v[:1000];"
        "found = [approximate_pairs(v, 0.9) for _ in range(2)];"
        "print(len(found[1]), pair_recall(v, found[1], 0.9))"
    )
    for first in ("torch", "faiss"):
        result = subprocess.run(
            [sys.executable, "-c", f"import {first}; {work}"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
            env=dict(os.environ, OMP_NUM_THREADS="2"),
        )
        assert result.stdout.split() == ["1000", "1.0"]
