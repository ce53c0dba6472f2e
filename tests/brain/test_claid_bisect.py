"""Bisecting by k-sums: cases worked by hand, the literal form, and what must hold for every bisection."""

import itertools

import numpy as np
import pytest
from fiftyone_selfsame.brain.claid import bisect as arrays
from fiftyone_selfsame.brain.claid import compiled
from fiftyone_selfsame.brain.claid.affinity import unit_rows
from fiftyone_selfsame.brain.claid.bisect import State, balance_of, bisect
from hypothesis import given
from hypothesis import strategies as st

SWEEPS = {"arrays": arrays.sweep, "compiled": compiled.sweep}
STARTS = {"arrays": arrays.start, "compiled": compiled.start}

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 60)
sweeps = st.sampled_from(sorted(SWEEPS))


def random_case(seed, m, channels=5):
    """Unit tokens, a first label for each, and an endless series of shuffled orders."""
    generator = np.random.default_rng(seed)
    tokens = generator.standard_normal((m, channels)) + generator.standard_normal((3, channels))[np.arange(m) % 3]
    orders = (np.random.default_rng((seed, epoch)).permutation(m) for epoch in itertools.count())
    return unit_rows(tokens)[0], generator.integers(0, 2, m), orders


def objective(gram, labels):
    """Sum over both clusters of the squared distances of all pairs within."""
    sets = [gram[np.ix_(labels == label, labels == label)] for label in (0, 1)]
    return sum(len(one) * one.trace() - one.sum() for one in sets)


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_a_patch_in_the_wrong_cluster_moves_to_its_like(sweep):
    tokens = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    labels = [0, 1, 1, 1]

    split = bisect(tokens @ tokens.T, labels, itertools.repeat(np.arange(4)), sweep=sweep)

    # Patch 1 has distances 0 + 2 + 2 to its own cluster and 0 to the other one: a gain of 4. Then all gains are -4.
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert (split.epochs, split.moves) == (2, 1)


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_with_inertia_a_small_gain_is_not_worth_a_move(sweep):
    def moves(direction, inertia):
        tokens = np.array([[1.0, 0], direction, [0, 1], [0, 1]])
        return bisect(tokens @ tokens.T, [0, 0, 1, 1], itertools.repeat(np.arange(4)), inertia, sweep=sweep).moves

    # At (0.6, 0.8), patch 1 is 2 - 2 * 0.6 = 0.8 from its own cluster and 2 * (2 - 2 * 0.8) = 0.8 from the other one.
    assert moves((0.6, 0.8), inertia=0) == 0
    # At (0.28, 0.96), these are 1.44 and 0.16: a gain of 1.28.
    assert [moves((0.28, 0.96), inertia) for inertia in (0, 1, 1.27, 1.29)] == [1, 1, 1, 0]


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_a_patch_may_open_an_empty_cluster_and_never_leaves_one_empty(sweep):
    tokens = np.array([[1.0, 0], [1, 0], [1, 0], [-1, 0]])

    opened = bisect(tokens @ tokens.T, np.zeros(4), itertools.repeat(np.arange(4)), inertia=0, sweep=sweep)

    # The first patch leaves, which gains the distance of 4 to the last one; the others follow, and the last one stays.
    assert opened.labels.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("inertia", [0.0, 1.0])
@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_identical_patches_stay_where_they_are(sweep, inertia):
    tokens, _, _ = unit_rows(np.tile(np.random.default_rng(0).standard_normal(37).astype(np.float32), (50, 1)))

    split = bisect(tokens @ tokens.T, np.zeros(50), itertools.repeat(np.arange(50)), inertia, sweep=sweep)

    assert (split.epochs, split.moves, split.labels.any()) == (1, 0, False)


@pytest.mark.parametrize("sweep", SWEEPS.values(), ids=SWEEPS)
def test_epochs_end_at_their_maximum_or_with_the_orders(sweep):
    unit, labels, orders = random_case(seed=3, m=60)
    orders = list(itertools.islice(orders, 50))
    whole = bisect(unit @ unit.T, labels, orders, inertia=0, sweep=sweep)
    assert 3 <= whole.epochs < 50

    assert bisect(unit @ unit.T, labels, orders, inertia=0, max_epochs=2, sweep=sweep).epochs == 2
    assert bisect(unit @ unit.T, labels, orders[:1], inertia=0, sweep=sweep).epochs == 1
    assert bisect(unit @ unit.T, labels, orders, 0, max_epochs=whole.epochs - 1, sweep=sweep).moves == whole.moves


@given(seed=seeds, m=sizes, inertia=st.sampled_from([0.0, 0.5, 1.0]), sweep=sweeps)
def test_a_bisection_is_the_literal_one(literal, seed, m, inertia, sweep):
    unit, labels, orders = random_case(seed, m)
    orders = list(itertools.islice(orders, 60))

    split = bisect(unit @ unit.T, labels, orders, inertia, sweep=SWEEPS[sweep])

    expected, epochs, moves, _ = literal.literal_bisect(unit, labels, orders, inertia)
    np.testing.assert_array_equal(split.labels, expected)
    assert (split.epochs, split.moves) == (epochs, moves)


@given(seed=seeds, m=sizes, inertia=st.sampled_from([0.0, 1.0]), sweep=sweeps)
def test_the_objective_never_rises_from_epoch_to_epoch(seed, m, inertia, sweep):
    unit, labels, orders = random_case(seed, m)
    orders = list(itertools.islice(orders, 60))
    gram = unit @ unit.T
    epochs = bisect(gram, labels, orders, inertia, sweep=SWEEPS[sweep]).epochs

    ends = [bisect(gram, labels, orders[:count], inertia, sweep=SWEEPS[sweep]).labels for count in range(1, epochs + 1)]

    values = [objective(gram, one) for one in (labels, *ends)]
    assert (np.diff(values) <= 1e-9).all()


@given(seed=seeds, m=sizes, sweep=sweeps)
def test_without_inertia_no_single_move_is_left_that_pays(seed, m, sweep):
    unit, labels, orders = random_case(seed, m)
    gram = unit @ unit.T

    ended = bisect(gram, labels, orders, inertia=0, sweep=SWEEPS[sweep]).labels

    others = [np.where(np.arange(m) == patch, 1 - ended, ended) for patch in range(m)]
    assert min(objective(gram, one) for one in others) > objective(gram, ended) - 1e-5


@given(seed=seeds, m=st.integers(2, 60), sweep=sweeps)
def test_patches_that_are_not_in_the_set_do_not_matter(seed, m, sweep):
    unit, labels, orders = random_case(seed, m)
    members = np.flatnonzero(np.random.default_rng(seed).random(m) < 0.6)
    signs = np.zeros(m)
    signs[members] = 1 - 2 * labels[members]
    lengths = np.ones(m)
    state = State(signs, arrays.start(unit, signs)[1], lengths, balance_of(signs, lengths))
    order = next(orders)

    SWEEPS[sweep](unit @ unit.T, state, order, 0.0)

    part = unit[members]
    within = np.flatnonzero(np.isin(order, members))
    positions = np.searchsorted(members, order[within])
    alone = bisect(part @ part.T, labels[members], [positions], inertia=0)
    np.testing.assert_array_equal(state.signs[members] < 0, alone.labels)
    assert not state.signs[np.setdiff1d(np.arange(m), members)].any()


@given(seed=seeds, m=sizes, kind=st.sampled_from([np.float32, np.float64]), start=st.sampled_from(sorted(STARTS)))
def test_first_scores_are_products_with_the_difference_of_the_sums(seed, m, kind, start):
    unit, labels, _ = random_case(seed, m)
    signs = (1.0 - 2 * labels) * (np.arange(m) % 3 > 0)

    difference, scores = STARTS[start](unit.astype(kind), signs)

    expected = signs @ unit.astype(kind).astype(float)
    np.testing.assert_allclose(difference, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(scores, np.where(signs != 0, unit.astype(kind) @ expected, 0), rtol=0, atol=1e-12)
