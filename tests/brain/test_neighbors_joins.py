import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain import blockwise
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.neighbors import (
    Pairs,
    cross_pairs,
    cross_pairs_steps,
    knn,
    knn_steps,
    mutual_knn_pairs,
    radius_pairs,
    stream_pairs,
)
from fiftyone_selfsame.brain.threads import Workers
from hypothesis import given, settings
from hypothesis import strategies as st

FORMATS = [torch.float32, torch.bfloat16]


@pytest.fixture(params=FORMATS, ids=["screened in float32", "screened in bfloat16"])
def screening(request, monkeypatch):
    monkeypatch.setattr(blockwise, "screening_dtype", lambda device, dim: request.param)


@pytest.fixture
def four_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def cosines(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    left, right = (v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1)[:, None] for v in (left, right))
    return np.clip(left @ right.T, -1, 1).astype(np.float32)


def as_dict(pairs: Pairs) -> dict[tuple[int, int], float]:
    return dict(zip(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True), pairs.similarity.tolist(), strict=True))


def families(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors in ``n / 5`` directions of which every tenth is an exact copy of the first."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, n // 5), dim))
    vectors = centres[generator.integers(0, len(centres), n)] + 0.3 * generator.standard_normal((n, dim))
    vectors[::10] = vectors[:1]
    return vectors.astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 70),
    start=st.integers(0, 80),
    block=st.integers(1, 30),
    threshold=st.sampled_from([-1.0, 0.0, 0.6, 0.95]),
    dtype=st.sampled_from(FORMATS),
)
def test_new_rows_are_compared_with_all_and_old_ones_not_again(n, start, block, threshold, dtype):
    vectors = families(n, 8) if n else np.empty((0, 8), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "screening_dtype", lambda device, dim: dtype)
        everything = radius_pairs(vectors, threshold, block=block, device="cpu")
        new = radius_pairs(vectors, threshold, start=start, block=block, device="cpu")

    assert as_dict(new) == {pair: s for pair, s in as_dict(everything).items() if pair[1] >= start}
    old = radius_pairs(vectors[:start], threshold, block=block, device="cpu")
    assert as_dict(new) | as_dict(old) == as_dict(everything)


def test_an_incremental_search_multiplies_only_what_is_new(monkeypatch):
    vectors = families(3000, 16)
    multiplied = []
    product = torch.mm
    monkeypatch.setattr(
        blockwise.torch, "mm", lambda a, b, **out: multiplied.append(len(a) * b.shape[1]) or product(a, b, **out)
    )

    radius_pairs(vectors, 1.0, start=2900, block=100, device="cpu")

    assert sum(multiplied) < 1.5 * 3000 * 100


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 50),
    m=st.integers(0, 50),
    block=st.integers(1, 25),
    threshold=st.sampled_from([-1.0, 0.0, 0.6, 0.95]),
    dtype=st.sampled_from(FORMATS),
)
def test_pairs_across_two_sets_are_those_of_brute_force(n, m, block, threshold, dtype):
    both = families(110, 8)
    left, right = both[:n], both[60 : 60 + m]
    truth = cosines(left, right)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "screening_dtype", lambda device, dim: dtype)
        pairs = cross_pairs(left, right, threshold, block=block, device="cpu")

    clear = np.abs(truth - threshold) > 1e-6
    assert set(map(tuple, np.argwhere((truth >= np.float32(threshold)) & clear).tolist())) <= set(as_dict(pairs))
    np.testing.assert_allclose(pairs.similarity, truth[pairs.i, pairs.j], atol=1e-6)
    assert (pairs.similarity >= np.float32(threshold)).all()
    assert (np.diff(pairs.i.astype(np.int64) * (m + 1) + pairs.j) > 0).all(), "sorted, each pair once"


def test_pairs_across_two_sets_need_vectors_of_one_model_and_report_progress():
    with pytest.raises(ConfigError, match="8 and of 16 dimensions"):
        cross_pairs(np.ones((3, 8)), np.ones((3, 16)), 0.9)
    with pytest.raises(ConfigError, match="threshold"):
        cross_pairs(np.ones((3, 8)), np.ones((3, 8)), 1.1)

    shares = list(cross_pairs_steps(families(40, 8), families(60, 8), 0.9, block=4))

    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert len(shares) == 15


def test_streamed_chunks_hold_each_pair_once_and_stay_small():
    vectors = np.ones((400, 4))

    chunks = list(stream_pairs(vectors, 0.9, block=10, device="cpu"))

    assert sum(map(len, chunks)) == 400 * 399 // 2
    assert max(map(len, chunks)) <= 16 * 10**2
    merged = {pair for chunk in chunks for pair in as_dict(chunk)}
    assert len(merged) == 400 * 399 // 2
    assert {chunk.threshold for chunk in chunks} == {0.9}


def test_a_stream_may_be_left_early_and_checks_its_options_at_once():
    with pytest.raises(ConfigError, match="threshold"):
        stream_pairs(np.ones((5, 4)), 2.0)
    with pytest.raises(ConfigError, match="start=-1"):
        stream_pairs(np.ones((5, 4)), 0.9, start=-1)

    stream = stream_pairs(np.ones((500, 4)), 0.9, block=10, device="cpu")
    first = next(stream)
    stream.close()

    assert len(first) == 10 * 9 // 2


def test_half_precision_mapped_from_disk_needs_no_second_copy_in_memory(tmp_path):
    """60,000 × 256: 31 MB in float16, 61 MB in float32, 123 MB in float64."""
    memory = pytest.importorskip("fiftyone_selfsame.benchmarks.speed_duplicates").PeakMemory()
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((60_000, 256), dtype=np.float32).astype(np.float16)
    vectors[1::1000] = vectors[::1000]
    np.save(tmp_path / "half.npy", vectors)
    mapped = np.load(tmp_path / "half.npy", mmap_mode="r")

    with memory:
        pairs = radius_pairs(mapped, 0.99, start=58_000, device="cpu")

    assert as_dict(pairs) == {(58_000, 58_001): 1.0, (59_000, 59_001): 1.0}
    assert memory.added_mb < 31 + 75, "the file itself, and what a search works with"


@pytest.mark.usefixtures("screening", "four_threads")
def test_the_results_do_not_depend_on_the_number_of_threads():
    vectors = families(600, 16)
    in_four = radius_pairs(vectors, 0.8, block=32, device="cpu"), knn(vectors, 7, block=32, device="cpu")
    torch.set_num_threads(1)
    in_one = radius_pairs(vectors, 0.8, block=32, device="cpu"), knn(vectors, 7, block=32, device="cpu")

    assert as_dict(in_four[0]) == as_dict(in_one[0])
    np.testing.assert_array_equal(in_four[1][1], in_one[1][1])


@pytest.mark.usefixtures("four_threads")
def test_a_search_leaves_the_number_of_threads_alone_also_when_it_fails():
    radius_pairs(families(600, 16), 0.8, block=32, device="cpu")
    with pytest.raises(ConfigError, match="exact duplicates"):
        radius_pairs(np.ones((600, 16)), 0.8, block=32, device="cpu", max_pairs=10)

    assert torch.get_num_threads() == 4


def test_workers_give_results_in_order_and_do_not_run_far_ahead_of_the_reader():
    taken = []

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    with Workers(3) as workers:
        results = workers.map(lambda item: (item, torch.get_num_threads()), items())
        first = next(results)
        ahead = len(taken)
        rest = list(results)

    assert [first, *rest] == [(item, 1) for item in range(50)]
    assert ahead <= 6


@pytest.mark.usefixtures("screening")
@pytest.mark.parametrize("mean", [0.0, 3.0], ids=["far apart", "all alike"])
def test_nearest_neighbours_are_exact_through_sparse_and_dense_blocks(mean):
    """2000 rows in blocks of 64: late blocks hold few candidates, unless a common mean makes all rows alike."""
    vectors = families(2000, 32) + np.float32(mean)
    truth = cosines(vectors, vectors)
    np.fill_diagonal(truth, -2)

    index, similarity = knn(vectors, 4, block=64, device="cpu")

    wanted = -np.sort(-truth, axis=1)[:, :4]
    np.testing.assert_allclose(similarity, wanted, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(truth, index.astype(np.int64), axis=1), wanted, atol=1e-6)
    assert all(len(set(row)) == 4 for row in index.tolist())


def test_nearest_neighbours_come_from_half_of_the_products(monkeypatch):
    vectors = families(2000, 16)
    multiplied = []
    product = torch.mm
    monkeypatch.setattr(blockwise, "screening_dtype", lambda device, dim: torch.float32)

    def counted(a, b, **out):
        if "out" in out:
            multiplied.append(len(a) * b.shape[1])
        return product(a, b, **out)

    monkeypatch.setattr(blockwise.torch, "mm", counted)

    shares = list(knn_steps(vectors, 3, block=100, device="cpu"))

    assert sum(multiplied) == 2000 * 2100 // 2
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_neighbours_are_exact_though_pytorch_was_told_to_round_float32_products(precision, monkeypatch):
    monkeypatch.setattr(blockwise, "screening_dtype", lambda device, dim: torch.float32)
    vectors = 1 + 0.15 * np.random.default_rng(0).standard_normal((300, 768)).astype(np.float32)
    expected = knn(vectors, 5, device="cpu")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        found = knn(vectors, 5, device="cpu")
    finally:
        torch.set_float32_matmul_precision(before)

    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)


def test_the_memory_of_a_neighbour_search_is_that_of_its_result_and_of_some_blocks():
    """12,000 vectors: their matrix would take 576 MB."""
    memory = pytest.importorskip("fiftyone_selfsame.benchmarks.speed_duplicates").PeakMemory()
    vectors = np.random.default_rng(0).standard_normal((12_000, 8)).astype(np.float32)

    with memory:
        knn(vectors, 5, device="cpu")

    assert memory.added_mb < 100


@pytest.mark.gpu
def test_a_gpu_finds_the_same_new_pairs_cross_pairs_and_mutual_neighbours():
    vectors = families(20_000, 64)

    for search in (
        lambda device: radius_pairs(vectors, 0.9, start=15_000, device=device),
        lambda device: cross_pairs(vectors[:5000], vectors[5000:], 0.9, device=device),
        lambda device: mutual_knn_pairs(vectors, 3, device=device),
    ):
        assert as_dict(search("cpu")) == as_dict(search("cuda"))
