"""The factored pooling of the pair tensor against PyTorch's adaptive pooling of the tensor itself."""

import pytest
import torch
from fiftyone_selfsame.brain.cosalient.matcher import pair_similarity
from fiftyone_selfsame.brain.cosalient.pair_pooling import pair_pool
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

KINDS = ("cosine", "l1", "l2")


def _full(a, b, sim, k):
    """The pair tensor written out, and pooled by PyTorch."""
    rows, columns = sim.shape
    pairs = torch.cat([a[:, None].expand(-1, columns, -1), b[None].expand(rows, -1, -1)], -1)
    return functional.adaptive_max_pool2d((sim[..., None] * pairs).permute(2, 0, 1), k).permute(1, 2, 0)


def _regions(seed, rows, columns, d, kind=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(size, d, generator=generator, dtype=kind) for size in (rows, columns))


def _gradients(pool, a, b, sim, k, outer):
    leaves = [value.detach().clone().requires_grad_() for value in (a, b, sim)]
    pool(*leaves, k).backward(outer)
    return [leaf.grad for leaf in leaves]


sizes = st.integers(1, 40)


@given(st.integers(0, 999), sizes, sizes, st.integers(1, 9), st.integers(1, 24), st.sampled_from(KINDS))
@settings(max_examples=60)
def test_values_are_those_of_the_full_tensor_to_the_last_bit(seed, rows, columns, d, k, kind):
    a, b = _regions(seed, rows, columns, d)
    sim = pair_similarity(a, b, kind)
    assert torch.equal(pair_pool(a, b, sim, k), _full(a, b, sim, k))


@given(st.integers(0, 999), sizes, sizes, st.integers(1, 9), st.integers(1, 24), st.booleans())
@settings(max_examples=60)
def test_gradients_are_those_of_the_full_tensor_even_where_rectified_features_tie_at_zero(
    seed, rows, columns, d, k, rectified
):
    a, b = _regions(seed, rows, columns, d, torch.float64)
    if rectified:
        a, b = a.relu(), b.relu()
    # Similarities of both signs that are never zero, as between signed features.
    sim = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    outer = torch.randn(k, k, 2 * d, generator=torch.Generator().manual_seed(seed + 2), dtype=torch.float64)
    ours, reference = (_gradients(pool, a, b, sim, k, outer) for pool in (pair_pool, _full))
    for found, wanted in zip(ours, reference, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)


@given(st.integers(0, 999), sizes, sizes, st.sampled_from(KINDS))
@settings(max_examples=30)
def test_gradients_reach_the_tokens_through_each_kind_of_similarity(seed, rows, columns, kind):
    found = []
    for pool in (pair_pool, _full):
        a, b = (value.requires_grad_() for value in _regions(seed, rows, columns, 6, torch.float64))
        pool(a, b, pair_similarity(a, b, kind), 8).square().sum().backward()
        found.append((a.grad, b.grad))
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


def test_a_hand_made_pair_takes_the_negative_similarity_for_a_negative_token():
    a, b = torch.tensor([[2.0], [-3.0]]), torch.tensor([[1.0], [1.0]])
    sim = torch.tensor([[0.5, -1.0], [0.25, -0.5]])
    # Products with a: (1, -2), (-0.75, 1.5); with b: the similarities themselves.
    assert pair_pool(a, b, sim, 1).flatten().tolist() == [1.5, 0.5]


class _LargestTensor(TorchDispatchMode):
    """Remembers the most numbers that any operation gave back in storage of its own."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.numbers = max(self.numbers, value.untyped_storage().nbytes() // value.element_size())
        return out


def test_neither_direction_makes_a_tensor_larger_than_the_result():
    a, b = (value.requires_grad_() for value in _regions(0, 128, 100, 64))
    sim = pair_similarity(a, b).detach().requires_grad_()
    with _LargestTensor() as forward:
        pooled = pair_pool(a, b, sim, 16)
    outer = torch.ones_like(pooled)
    with _LargestTensor() as backward:
        pooled.backward(outer)
    assert forward.numbers <= 128 * 100 * 2 * 64 / 25
    assert backward.numbers <= 128 * 100 * 2 * 64 / 25


def test_what_inference_left_in_memory_can_be_used_in_training():
    a, b = _regions(0, 37, 23, 4)
    sim = pair_similarity(a, b)
    with torch.inference_mode():
        before = pair_pool(a, b, sim, 13)
    a.requires_grad_()
    pooled = pair_pool(a, b, sim, 13)
    pooled.sum().backward()
    assert torch.equal(pooled, before)
    assert a.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("rows", "columns", "sim_shape", "k"), [(0, 3, (0, 3), 2), (3, 2, (2, 3), 2), (3, 2, (3, 2), 0)]
)
def test_regions_that_are_empty_or_do_not_fit_are_refused(rows, columns, sim_shape, k):
    with pytest.raises(ConfigError):
        pair_pool(torch.zeros(rows, 4), torch.zeros(columns, 4), torch.zeros(sim_shape), k)


def test_similarities_by_distance_are_one_for_equal_tokens_and_fall_with_the_mean_distance():
    a, b = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[0.0, 0.0]])
    assert pair_similarity(a, b, "l1").flatten().tolist() == pytest.approx([1.0, 1 / 4.5])
    assert pair_similarity(a, b, "l2").flatten().tolist() == pytest.approx([1.0, 1 / (1 + 5 / 2**0.5)])


def test_an_unknown_similarity_is_refused_by_name():
    with pytest.raises(ConfigError, match="similarity='dot'"):
        pair_similarity(torch.ones(1, 2), torch.ones(1, 2), "dot")


@pytest.mark.gpu
def test_the_gpu_agrees_with_the_cpu():
    a, b = _regions(0, 100, 60, 32)
    sim, outer = pair_similarity(a, b), torch.randn(64, 64, 64)
    on_gpu = [value.cuda() for value in (a, b, sim)]
    assert torch.equal(pair_pool(*on_gpu, 64).cpu(), pair_pool(a, b, sim, 64))
    wanted = _gradients(pair_pool, a, b, sim, 64, outer)
    for found, expected in zip(_gradients(pair_pool, *on_gpu, 64, outer.cuda()), wanted, strict=True):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-2)
