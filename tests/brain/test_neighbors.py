import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain import blockwise
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.neighbors import (
    TIE,
    Pairs,
    knn,
    mutual_knn_pairs,
    radius_pairs,
    radius_pairs_steps,
)
from hypothesis import given, settings
from hypothesis import strategies as st

FORMATS = [torch.float32, torch.bfloat16]


@pytest.fixture(params=FORMATS, ids=["screened in float32", "screened in bfloat16"])
def screening(request, monkeypatch):
    """Both number formats, whichever this machine would choose."""
    monkeypatch.setattr(blockwise, "screening_dtype", lambda device, dim: request.param)


def brute_force(vectors: np.ndarray) -> np.ndarray:
    """``(n, n)`` float32 raw cosines, computed in the plainest way."""
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    return np.clip(exact @ exact.T, -1, 1).astype(np.float32)


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    return set(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))


def clustered(n: int, dim: int, seed: int = 0) -> np.ndarray:
    """Vectors in a few directions, some of them exact copies, with lengths far from 1."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((max(1, n // 5), dim))
    vectors = centres[generator.integers(0, len(centres), n)] + 0.3 * generator.standard_normal((n, dim))
    if n > 3:
        vectors[n // 2] = vectors[0]
    return (vectors * generator.uniform(0.01, 100, (n, 1))).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(0, 60),
    dim=st.integers(1, 20),
    block=st.integers(1, 25),
    threshold=st.sampled_from([-1.0, -0.3, 0.0, 0.01, 0.5, 0.9, 0.98]),
    seed=st.integers(0, 5),
)
@pytest.mark.parametrize("dtype", FORMATS)
def test_the_pairs_are_those_of_brute_force(dtype, n, dim, block, threshold, seed):
    vectors = clustered(n, dim, seed)
    truth = brute_force(vectors) if n else np.empty((0, 0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blockwise, "screening_dtype", lambda device, dim: dtype)
        pairs = radius_pairs(vectors, threshold, block=block, device="cpu")

    i, j = np.nonzero(np.triu(truth >= np.float32(threshold), 1))
    clear = np.abs(truth[i, j] - threshold) > TIE
    assert set(zip(i[clear].tolist(), j[clear].tolist(), strict=True)) <= as_set(pairs)
    np.testing.assert_allclose(pairs.similarity, truth[pairs.i, pairs.j], atol=1e-6)
    assert (pairs.similarity >= np.float32(threshold)).all()
    assert (np.diff(pairs.i.astype(np.int64) * n + pairs.j) > 0).all(), "sorted, each pair once"
    assert (pairs.i < pairs.j).all()


@pytest.mark.usefixtures("screening")
def test_pairs_a_millionth_above_and_below_the_threshold_are_told_apart():
    """768 dimensions, cosines spread over 0.9 ± 0.002: far finer than bfloat16 can see."""
    generator = np.random.default_rng(1)
    first = np.zeros((1, 768))
    first[0, 0] = 1
    cosines = np.concatenate([0.9 + np.array([1e-6, -1e-6]), generator.uniform(0.898, 0.902, 600)])
    sideways = generator.standard_normal((len(cosines), 768))
    sideways[:, 0] = 0
    sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
    vectors = np.concatenate([first, cosines[:, None] * first + np.sqrt(1 - cosines[:, None] ** 2) * sideways])

    pairs = radius_pairs(vectors, 0.9, device="cpu")

    found = np.zeros(len(cosines), bool)
    found[pairs.j[pairs.i == 0] - 1] = True
    np.testing.assert_array_equal(found, cosines >= 0.9)


@pytest.mark.usefixtures("screening")
def test_pairs_are_exact_where_thousands_lie_within_the_rounding_of_the_threshold():
    """A common mean puts all cosines between 0.94 and 0.99, as untrained encoders do."""
    vectors = 1 + 0.15 * np.random.default_rng(0).standard_normal((400, 768)).astype(np.float32)
    truth = brute_force(vectors)

    pairs = radius_pairs(vectors, 0.978, device="cpu", block=128)

    expected = set(map(tuple, np.argwhere(np.triu(truth >= np.float32(0.978), 1)).tolist()))
    assert len(expected) > 5000
    assert as_set(pairs) == expected


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_pairs_are_exact_though_pytorch_was_told_to_round_float32_products(precision, monkeypatch):
    monkeypatch.setattr(blockwise, "screening_dtype", lambda device, dim: torch.float32)
    vectors = 1 + 0.15 * np.random.default_rng(0).standard_normal((300, 768)).astype(np.float32)
    expected = radius_pairs(vectors, 0.978, device="cpu")
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        pairs = radius_pairs(vectors, 0.978, device="cpu")
    finally:
        torch.set_float32_matmul_precision(before)

    np.testing.assert_array_equal(pairs.i, expected.i)
    np.testing.assert_array_equal(pairs.j, expected.j)


@pytest.mark.usefixtures("screening")
def test_identical_vectors_have_a_similarity_of_exactly_one_even_in_crowds():
    one = np.random.default_rng(0).standard_normal(768).astype(np.float32)

    for copies in (2, 70):  # few pairs are multiplied singly, crowds as blocks
        pairs = radius_pairs(np.tile(one, (copies, 1)), 1.0, device="cpu")
        assert len(pairs) == copies * (copies - 1) // 2
        assert (pairs.similarity == 1).all()


def test_similarity_is_raw_a_common_mean_is_not_taken_out():
    generator = np.random.default_rng(0)
    vectors = np.ones((40, 16)) + 0.05 * generator.standard_normal((40, 16))

    assert len(radius_pairs(vectors, 0.98)) == 40 * 39 // 2


def test_input_stays_untouched_and_may_be_read_only_and_mapped_from_disk(tmp_path):
    vectors = clustered(50, 8)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    before = vectors.copy()

    results = [as_set(radius_pairs(form, 0.8, block=16)) for form in (vectors, mapped, vectors[::-1][::-1])]
    knn(vectors, 3)
    mutual_knn_pairs(vectors, 3)

    assert results[0] == results[1] == results[2] != set()
    np.testing.assert_array_equal(vectors, before)


def test_half_precision_vectors_are_compared_as_they_are():
    vectors = clustered(60, 8)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    half = vectors.astype(np.float16)

    assert as_set(radius_pairs(half, 0.8)) == as_set(radius_pairs(half.astype(np.float64), 0.8))


def test_the_result_does_not_depend_on_block_size_or_order():
    vectors = clustered(120, 8)
    order = np.random.default_rng(0).permutation(120)
    whole, shuffled = radius_pairs(vectors, 0.9), radius_pairs(vectors[order], 0.9, block=7)

    back = {
        (min(a, b), max(a, b)): s
        for a, b, s in zip(order[shuffled.i], order[shuffled.j], shuffled.similarity, strict=True)
    }

    assert back == dict(zip(zip(whole.i, whole.j, strict=True), whole.similarity, strict=True))


def test_a_tighter_threshold_is_free_and_equals_a_new_search():
    vectors = clustered(150, 8)
    kept = radius_pairs(vectors, 0.5)

    for threshold in (0.5, 0.7, 0.95, 1.0):
        tight, fresh = kept.at_least(threshold), radius_pairs(vectors, threshold)
        np.testing.assert_array_equal(tight.i, fresh.i)
        np.testing.assert_array_equal(tight.j, fresh.j)
        np.testing.assert_array_equal(tight.similarity, fresh.similarity)
    with pytest.raises(ConfigError, match=r"0\.4 .* 0\.5"):
        kept.at_least(0.4)


def test_pairs_survive_storage_as_bytes_and_foreign_bytes_are_refused():
    pairs = radius_pairs(clustered(40, 4), 0.5)

    stored = Pairs.from_bytes(pairs.to_bytes())

    assert (stored.threshold, stored.i.dtype, stored.similarity.dtype) == (0.5, np.int32, np.float32)
    np.testing.assert_array_equal(stored.similarity, pairs.similarity)
    for broken in (b"", b"PK\x03\x04 cut short", pairs.to_bytes()[:-30]):
        with pytest.raises(ConfigError, match="search again"):
            Pairs.from_bytes(broken)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_rows_without_direction_are_named(bad):
    vectors = clustered(20, 4)
    vectors[[3, 17]] = bad

    with pytest.raises(ConfigError, match=r"rows 3, 17"):
        radius_pairs(vectors, 0.9)


@pytest.mark.parametrize("vectors", [np.ones(4), np.ones((4, 2), int), np.ones((4, 0))])
def test_arrays_that_are_no_vectors_are_refused(vectors):
    with pytest.raises(ConfigError, match="vectors must be"):
        radius_pairs(vectors, 0.9)


def test_options_out_of_range_are_named():
    vectors = clustered(10, 4)
    for threshold in (1.5, -2.0, float("nan")):
        with pytest.raises(ConfigError, match="threshold"):
            radius_pairs(vectors, threshold)
    with pytest.raises(ConfigError, match="block=0"):
        radius_pairs(vectors, 0.9, block=0)
    with pytest.raises(ConfigError, match="k=0"):
        knn(vectors, 0)


def test_too_many_pairs_stop_early_with_a_threshold_that_works():
    vectors = np.random.default_rng(0).standard_normal((300, 6)).astype(np.float32)

    with pytest.raises(ConfigError, match="threshold is too low; try ") as refusal:
        radius_pairs(vectors, -0.5, max_pairs=1000, block=32)

    advice = float(str(refusal.value).rpartition(" ")[2])
    assert 0 < len(radius_pairs(vectors, advice, max_pairs=1000)) < 1000


def test_crowds_of_identical_images_are_sent_to_the_exact_search():
    with pytest.raises(ConfigError, match="exact duplicates"):
        radius_pairs(np.ones((50, 4)), 0.9, max_pairs=100)


def test_the_share_of_work_done_rises_to_one():
    steps = radius_pairs_steps(clustered(200, 4), 0.9, block=8)

    shares = list(steps)

    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert len(shares) > 5


def test_memory_stays_far_below_a_full_matrix():
    """40,000 vectors: their matrix would take 3.2 GB in the smallest of the formats."""
    memory = pytest.importorskip("fiftyone_selfsame.benchmarks.speed_duplicates").PeakMemory()
    vectors = np.random.default_rng(0).standard_normal((40_000, 16)).astype(np.float32)

    with memory:
        radius_pairs(vectors, 0.95, device="cpu")

    assert memory.added_mb < 300


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 50), k=st.integers(1, 60), block=st.integers(1, 20), seed=st.integers(0, 5))
def test_nearest_neighbours_are_those_of_a_full_sort(n, k, block, seed):
    vectors = np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)
    truth = brute_force(vectors)
    np.fill_diagonal(truth, -2)

    indices, similarities = knn(vectors, k, block=block, device="cpu")

    wanted = -np.sort(-truth, axis=1)[:, : min(k, n - 1)]
    np.testing.assert_allclose(similarities, wanted, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(truth, indices.astype(np.int64), axis=1), wanted, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in indices.tolist())


def slow_mutual(vectors: np.ndarray, k: int, threshold: float) -> set[tuple[int, int]]:
    similarity = brute_force(vectors)
    n = len(vectors)
    others = similarity - 3 * np.eye(n, dtype=np.float32)
    kth = -np.sort(-others, axis=1)[:, min(k, n - 1) - 1]
    return {
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if similarity[i, j] >= max(threshold, max(kth[i], kth[j]) - TIE)
    }


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 40),
    k=st.integers(1, 45),
    block=st.integers(1, 20),
    threshold=st.sampled_from([-1.0, 0.3]),
    copies=st.booleans(),
    seed=st.integers(0, 5),
)
def test_mutual_neighbours_are_those_that_both_name_ties_included(n, k, block, threshold, copies, seed):
    vectors = np.random.default_rng(seed).standard_normal((n, 6)).astype(np.float32)
    if copies:
        vectors[: n // 2] = vectors[0]

    pairs = mutual_knn_pairs(vectors, k, threshold=threshold, block=block, device="cpu")

    assert as_set(pairs) == slow_mutual(vectors, k, threshold)


def test_a_hundred_copies_are_mutual_neighbours_of_each_other_for_any_k():
    vectors = np.concatenate([np.ones((100, 8)), np.random.default_rng(0).standard_normal((20, 8))])

    pairs = mutual_knn_pairs(vectors, 2, threshold=0.99)

    assert as_set(pairs) == {(i, j) for i in range(100) for j in range(i + 1, 100)}


@pytest.mark.gpu
def test_a_gpu_finds_the_same_pairs_and_neighbours():
    vectors = clustered(5000, 64)

    on_cpu, on_gpu = (radius_pairs(vectors, 0.9, device=device) for device in ("cpu", "cuda"))

    np.testing.assert_array_equal(on_cpu.i, on_gpu.i)
    np.testing.assert_array_equal(on_cpu.j, on_gpu.j)
    np.testing.assert_array_equal(on_cpu.similarity, on_gpu.similarity)
    np.testing.assert_allclose(knn(vectors, 5, device="cpu")[1], knn(vectors, 5, device="cuda")[1], atol=1e-6)
