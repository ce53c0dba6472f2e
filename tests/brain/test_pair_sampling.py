"""Choosing pairs by category and viewpoint, against lists of all pairs."""

from itertools import combinations

import numpy as np
import pytest
from fiftyone_selfsame.brain.pair_sampling import (
    PairBlock,
    azimuth_bin,
    azimuth_difference,
    choose_pairs,
    even_shares,
    pair_blocks,
)
from hypothesis import given
from hypothesis import strategies as st

ROWS = st.lists(
    st.tuples(st.sampled_from(["cat", "dog", None]), st.one_of(st.none(), st.integers(0, 7))), min_size=0, max_size=14
)


def _all_pairs(rows, low, high):
    """Every pair that qualifies, one by one."""
    return {
        (i, j)
        for i, j in combinations(range(len(rows)), 2)
        if rows[i][0] is not None
        and rows[i][0] == rows[j][0]
        and None not in (rows[i][1], rows[j][1])
        and low <= min((rows[i][1] - rows[j][1]) % 8, (rows[j][1] - rows[i][1]) % 8) <= high
    }


@given(ROWS, st.integers(0, 4), st.integers(0, 4))
def test_blocks_hold_each_pair_of_a_category_and_viewpoint_once(rows, low, high):
    blocks = pair_blocks([row[0] for row in rows], [row[1] for row in rows], (low, high))
    found = choose_pairs(blocks)
    assert len(found) == len({pair[:2] for pair in found}) == sum(map(len, blocks))
    assert {pair[:2] for pair in found} == _all_pairs(rows, low, high)
    for i, j, block in found:
        assert (block.category, block.difference) == (rows[i][0], azimuth_difference(rows[i][1], rows[j][1]))


@given(ROWS)
def test_without_azimuths_all_pairs_of_a_category_count(rows):
    found = choose_pairs(pair_blocks([row[0] for row in rows]))
    assert {pair[:2] for pair in found} == {
        (i, j) for i, j in combinations(range(len(rows)), 2) if rows[i][0] and rows[i][0] == rows[j][0]
    }


def test_the_number_of_a_pair_names_it_in_big_blocks_too():
    block = PairBlock(np.arange(100_000), None, "cat")
    numbers = [0, 1, 2, 3, 4_999_949_998, 4_999_949_999]
    assert [block.pair(number) for number in numbers] == [
        (0, 1),
        (0, 2),
        (1, 2),
        (0, 3),
        (99_997, 99_999),
        (99_998, 99_999),
    ]
    assert len(block) == 4_999_950_000


def test_a_limit_is_shared_evenly_by_categories_and_the_lot_is_the_same_each_time():
    blocks = pair_blocks(["cat"] * 50 + ["dog"] * 4 + ["hen"] * 30)
    chosen = choose_pairs(blocks, 46, seed=3)
    counts = {name: sum(block.category == name for *_, block in chosen) for name in ("cat", "dog", "hen")}
    assert counts == {"cat": 20, "dog": 6, "hen": 20}
    assert chosen == choose_pairs(blocks, 46, seed=3)
    assert chosen != choose_pairs(blocks, 46, seed=4)


@given(st.lists(st.integers(0, 30), max_size=8), st.integers(0, 100))
def test_shares_are_as_even_as_the_heaps_allow(sizes, limit):
    shares = even_shares(sizes, limit)
    assert sum(shares) == min(limit, sum(sizes))
    assert all(share <= size for share, size in zip(shares, sizes, strict=True))
    # Whoever has less than another by more than one has nothing left to give.
    most = max(shares, default=0)
    assert all(share == size for share, size in zip(shares, sizes, strict=True) if share < most - 1)


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (22.4, 0), (22.5, 1), (337.6, 0), (-44, 7), (180, 4)])
def test_azimuths_in_degrees_fall_into_eighths(degrees, expected):
    assert azimuth_bin(degrees) == expected
