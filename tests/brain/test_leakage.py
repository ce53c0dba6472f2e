"""Counting leaks: against plain loops, and by hand."""

import numpy as np
import pytest
from fiftyone_selfsame.brain.leakage import across, leak_groups, leak_table, nearest_across, side_to_drop


def random_leaks(seed, n=40, pairs=60):
    rng = np.random.default_rng(seed)
    split = rng.integers(-1, 3, n)
    both = np.sort(rng.integers(0, n, (pairs, 2)), axis=1)
    both = np.unique(both[both[:, 0] < both[:, 1]], axis=0)
    keep = across(split, both[:, 0], both[:, 1])
    i, j = both[keep].T
    return split, i, j, rng.permutation(len(i)).astype(np.float32) / len(i)


@pytest.mark.parametrize("seed", range(3))
def test_counts_partners_and_groups_agree_with_loops(seed):
    split, i, j, similarity = random_leaks(seed)
    partners = {row: {} for row in range(len(split))}
    for a, b, value in zip(i.tolist(), j.tolist(), similarity.tolist(), strict=True):
        assert split[a] != split[b]
        assert min(split[a], split[b]) >= 0
        partners[a][b] = partners[b][a] = value

    table = leak_table(split, i, j, 3)
    best, value = nearest_across(len(split), i, j, similarity)
    group = leak_groups(len(split), i, j, similarity)

    for a in range(3):
        for b in range(3):
            members = [row for row in partners if split[row] == a]
            into = [[other for other in partners[row] if split[other] == b] for row in members]
            assert table.pairs[a, b] == sum(map(len, into))
            assert table.images[a, b] == sum(map(bool, into))
    for row, found in partners.items():
        assert best[row] == (max(found, key=found.get) if found else -1)
        assert not found or value[row] == np.float32(max(found.values()))
        assert (group[row] == -1) == (not found)
        assert all(group[other] == group[row] for other in found)
    assert group[i[similarity.argmax()]] == 0


def test_groups_are_numbered_by_their_most_similar_pair():
    i, j = np.array([0, 2, 1]), np.array([3, 4, 3])
    np.testing.assert_array_equal(leak_groups(6, i, j, np.array([0.5, 0.9, 0.8])), [1, 1, 0, 1, 0, -1])


def test_without_pairs_nothing_leaks():
    none = np.empty(0, np.int32)
    assert leak_table(np.array([0, 1]), none, none, 2).pairs.sum() == 0
    assert nearest_across(2, none, none, np.empty(0, np.float32))[0].tolist() == [-1, -1]
    assert leak_groups(2, none, none, np.empty(0, np.float32)).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("names", "sizes", "side"),
    [
        (("train", "test"), (1, 9), 0),
        (("test", "Training set"), (1, 9), 1),
        (("validation", "train_2"), (9, 1), 1),
        (("test", "val"), (9, 1), 1),
        (("fold 1", "fold 2"), (5, 9), 1),
        (("fold 1", "fold 2"), (5, 5), 0),
        (("train", "contest"), (1, 9), 1),
        (("test_a", "test_b"), (9, 1), 0),
    ],
)
def test_training_data_give_way_and_else_the_larger_split(names, sizes, side):
    assert side_to_drop(names, sizes) == side
