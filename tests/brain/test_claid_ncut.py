"""Normalised cuts: the partition of a slow, dense solution, and hand-made graphs."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.claid.hierarchy import detect
from fiftyone_selfsame.brain.claid.ncut import ncut_bisect
from fiftyone_selfsame.brain.claid.options import DetectorOptions


def dense_labels(linked):
    """The definition, by all eigenvectors of D^-1 (D - W), which are those of the generalised problem."""
    weights = np.where(linked, 1.0, 1e-5)
    row_sums = weights.sum(1)
    values, vectors = np.linalg.eig((np.diag(row_sums) - weights) / row_sums[:, None])
    second = vectors[:, np.argsort(values.real)[1]].real
    side = second > second.mean()
    return (side != side[0]).astype(np.uint8)


def random_links(seed, m):
    """``(m, m)`` links of points on a noisy arc: neighbours are linked, and some others."""
    generator = np.random.default_rng(seed)
    angles = np.sort(generator.uniform(0, 2.5, m))
    points = np.stack([np.cos(angles), np.sin(angles)], 1) + 0.15 * generator.standard_normal((m, 2))
    return ((points[:, None] - points) ** 2).sum(-1) < 0.3


@pytest.mark.parametrize("m", [20, 64, 65, 150])
def test_labels_are_those_of_a_dense_solution(m):
    for seed in range(5):
        linked = random_links(seed, m)

        labels = ncut_bisect(linked)

        np.testing.assert_array_equal(labels, dense_labels(linked))
        assert 0 < labels.sum() < m


@pytest.mark.parametrize("sizes", [(3, 5), (60, 90)])
def test_two_cliques_with_one_link_between_them_are_cut_apart(sizes):
    side = np.repeat([0, 1], sizes)
    linked = side[:, None] == side
    linked[0, -1] = linked[-1, 0] = True

    np.testing.assert_array_equal(ncut_bisect(linked), side)


def test_the_first_patch_has_label_0_however_the_patches_are_numbered():
    linked = random_links(1, 100)
    labels = ncut_bisect(linked)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(100)

        permuted = ncut_bisect(linked[np.ix_(order, order)])

        np.testing.assert_array_equal(permuted, labels[order] ^ labels[order[0]])


@pytest.mark.parametrize(
    "linked", [np.ones((9, 9), bool), np.eye(9, dtype=bool), np.eye(2, dtype=bool), np.ones((1, 1), bool)]
)
def test_there_is_nothing_to_cut_where_all_pairs_are_alike(linked):
    np.testing.assert_array_equal(ncut_bisect(linked), np.zeros(len(linked)))


def test_an_iteration_that_does_not_converge_is_replaced_by_a_dense_solution(monkeypatch):
    import scipy.sparse.linalg

    linked = random_links(2, 90)
    expected = ncut_bisect(linked)
    calls = []

    def fail(*arguments, **options):
        calls.append(arguments)
        raise scipy.sparse.linalg.ArpackNoConvergence("no convergence", np.zeros(0), np.zeros((0, 0)))

    monkeypatch.setattr(scipy.sparse.linalg, "eigsh", fail)

    np.testing.assert_array_equal(ncut_bisect(linked), expected)
    assert len(calls) == 1


def test_a_hierarchy_by_normalised_cuts_consists_of_cuts_of_its_regions():
    generator = np.random.default_rng(0)
    prototypes = generator.standard_normal((4, 16)) + 0.8 * generator.standard_normal(16)
    quarters = np.kron([[0, 1], [2, 3]], np.ones((8, 9), int))
    tokens = prototypes[quarters] + 0.6 * generator.standard_normal((16, 18, 16))
    unit = tokens.reshape(-1, 16) / np.linalg.norm(tokens.reshape(-1, 16), axis=1, keepdims=True)

    found = detect(tokens, DetectorOptions(cut="ncut", alpha=0.3))

    assert len(found.cuts) > 1
    assert (found.cuts[:, 4:6] == -1).all()
    for row, size, zeros, ones, *_ in found.cuts:
        patches = np.flatnonzero(found.masks[row]) if row >= 0 else np.arange(288)
        labels = dense_labels(unit[patches] @ unit[patches].T > 0.3)
        assert (size, zeros, ones) == (len(patches), len(patches) - labels.sum(), labels.sum())
