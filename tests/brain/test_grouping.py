import numpy as np
import pytest
from fiftyone_selfsame.brain import link_kernels
from fiftyone_selfsame.brain.constraints import Constraints
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.brain.grouping import (
    assign_roles,
    equal_groups,
    group_pairs,
    group_risk,
    number_parts,
    rank_by_size,
)
from fiftyone_selfsame.brain.neighbors import Pairs, radius_pairs
from hypothesis import given, settings
from hypothesis import strategies as st


def as_sets(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == group).tolist()) for group in range(labels.max(initial=-1) + 1)}


def on_a_circle(degrees) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def cosine(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))


def slow_groups(n: int, pairs: Pairs, threshold: float, floor: float) -> set[frozenset[int]]:
    """The definition, word for word: strongest links first, join if all cross pairs are close enough."""
    similarity = {(i, j): s for i, j, s in zip(pairs.i.tolist(), pairs.j.tolist(), pairs.similarity, strict=True)}
    group = {row: {row} for row in range(n)}
    for (i, j), s in sorted(similarity.items(), key=lambda item: (-item[1], item[0])):
        if s < np.float32(threshold) or group[i] is group[j]:
            continue
        if all(similarity[min(a, b), max(a, b)] >= np.float32(floor) for a in group[i] for b in group[j]):
            joint = group[i] | group[j]
            for row in joint:
                group[row] = joint
    return {frozenset(rows) for rows in group.values() if len(rows) > 1}


def test_a_chain_of_near_neighbours_does_not_melt_into_one_group():
    vectors = on_a_circle(np.arange(0, 90, 1.0))  # each is 1° from the next, the ends are 89° apart
    pairs = radius_pairs(vectors, cosine(1.5))

    melted = group_pairs(90, pairs)
    capped = group_pairs(90, pairs, max_diameter=1 - cosine(5.5), vectors=vectors)

    assert as_sets(melted) == {frozenset(range(90))}
    assert all(max(rows) - min(rows) <= 5 for rows in as_sets(capped))
    assert len(as_sets(capped)) >= 15


def test_two_tight_bursts_joined_by_one_link_stay_two_groups():
    vectors = on_a_circle([0, 1, 2, 8, 9, 10, 200])
    pairs = radius_pairs(vectors, cosine(6.5))

    labels = group_pairs(7, pairs, max_diameter=1 - cosine(7), vectors=vectors)

    assert labels.tolist() == [0, 0, 0, 1, 1, 1, -1]


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 40),
    dim=st.integers(2, 4),
    threshold=st.sampled_from([0.5, 0.8, 0.95]),
    diameter=st.sampled_from([0.02, 0.1, 0.4, 1.2]),
    seed=st.integers(0, 20),
)
def test_groups_follow_the_definition_whether_counted_from_pairs_or_computed_from_vectors(
    n, dim, threshold, diameter, seed
):
    vectors = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    every = radius_pairs(vectors, -1.0)
    expected = slow_groups(n, every, threshold, 1 - diameter)

    counted = group_pairs(n, every, threshold, max_diameter=diameter)
    computed = group_pairs(n, radius_pairs(vectors, threshold), max_diameter=diameter, vectors=vectors)

    assert as_sets(counted) == expected
    assert as_sets(computed) == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 100), cap=st.sampled_from([None, 0.1, 0.3]))
def test_groups_do_not_depend_on_the_order_of_the_rows(seed, cap):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((40, 3)).astype(np.float32)
    order = generator.permutation(40)

    straight = group_pairs(40, radius_pairs(vectors, 0.9), max_diameter=cap, vectors=vectors)
    shuffled = group_pairs(40, radius_pairs(vectors[order], 0.9), max_diameter=cap, vectors=vectors[order])

    assert {frozenset(order[list(rows)].tolist()) for rows in as_sets(shuffled)} == as_sets(straight)


def test_a_tighter_threshold_from_kept_pairs_gives_the_groups_of_a_new_run():
    vectors = np.random.default_rng(3).standard_normal((200, 4)).astype(np.float32)
    kept = radius_pairs(vectors, 0.8)

    for threshold in (0.8, 0.9, 0.97):
        again = group_pairs(200, kept, threshold, max_diameter=2 * (1 - threshold), vectors=vectors)
        fresh = group_pairs(200, radius_pairs(vectors, threshold), max_diameter=2 * (1 - threshold), vectors=vectors)
        np.testing.assert_array_equal(again, fresh)


def test_links_that_were_refused_once_stay_refused_for_the_groups_that_inherit_them():
    """A dense arc: nearly every link arrives after its groups were found too wide to join."""
    vectors = on_a_circle(np.random.default_rng(0).uniform(0, 60, 120))
    every = radius_pairs(vectors, -1.0)

    labels = group_pairs(120, every, cosine(30), max_diameter=1 - cosine(12))

    assert as_sets(labels) == slow_groups(120, every, cosine(30), cosine(12))


def test_thousands_of_identical_images_are_one_group():
    vectors = np.tile(np.random.default_rng(0).standard_normal(16).astype(np.float32), (1500, 1))
    pairs = radius_pairs(vectors, 0.99)

    for options in ({}, {"max_diameter": 0.0}, {"max_diameter": 0.02, "vectors": vectors}):
        assert (group_pairs(1500, pairs, **options) == 0).all()


def test_a_diameter_beyond_the_kept_pairs_asks_for_the_vectors():
    pairs = radius_pairs(on_a_circle([0, 5, 10]), 0.99)

    with pytest.raises(ConfigError, match=r"max_diameter=0\.2 .* pass the vectors"):
        group_pairs(3, pairs, max_diameter=0.2)


def test_a_threshold_below_the_kept_pairs_is_refused():
    with pytest.raises(ConfigError, match="search again"):
        group_pairs(3, radius_pairs(on_a_circle([0, 5, 10]), 0.99), 0.9)


def test_groups_are_numbered_by_size_and_then_by_their_first_row():
    labels = rank_by_size(np.array([7, 3, 3, 9, 5, 5, 5, 7, 1]))

    assert labels.tolist() == [1, 2, 2, -1, 0, 0, 0, 1, -1]


def test_equal_digests_form_groups_and_failed_images_none():
    assert equal_groups(["a", None, "b", "a", None, "c", "c", "c"]).tolist() == [1, -1, -1, 1, -1, 0, 0, 0]
    assert equal_groups([]).tolist() == []


def test_the_best_of_each_group_is_kept_and_the_others_point_at_it():
    vectors = on_a_circle([0, 10, 20, 90, 91, 180])
    labels = np.array([0, 0, 0, 1, 1, -1])

    groups = assign_roles(labels, np.array([1.0, 3.0, 2.0, 5.0, 5.0, 9.0]), vectors=vectors)

    assert groups.role.tolist() == ["duplicate", "keeper", "duplicate", "keeper", "duplicate", "unique"]
    assert groups.of.tolist() == [1, 1, 1, 3, 3, -1]
    assert groups.size.tolist() == [3, 3, 3, 2, 2, 1]
    assert groups.group.tolist() == labels.tolist()
    expected = [cosine(10), 1, cosine(10), 1, cosine(1), np.nan]
    np.testing.assert_allclose(groups.similarity, expected, atol=1e-6)


def test_copies_without_vectors_are_as_similar_as_can_be():
    groups = assign_roles(equal_groups(["a", "b", "a"]), np.array([-np.inf, 0, -np.inf]))

    assert groups.of.tolist() == [0, -1, 0]
    assert groups.similarity[[0, 2]].tolist() == [1, 1]
    assert np.isnan(groups.similarity[1])


def test_no_images_make_no_groups():
    nothing = group_pairs(0, radius_pairs(np.empty((0, 4), np.float32), 0.9), max_diameter=0.1)

    assert len(nothing) == 0
    assert len(assign_roles(nothing, np.empty(0)).role) == 0


def slow_groups_with_decisions(vectors, threshold, floor, must, cannot) -> set[frozenset[int]]:
    """The definition for decided rows: must-linked rows are one thing, close to whatever one of them is close to."""
    n, cosines = len(vectors), unit_products(vectors)
    part = list(range(n))
    for a, b in must:
        part = [part[a] if label == part[b] else label for label in part]
    group = {label: {label} for label in set(part)}

    def rows(label):
        return [row for row in range(n) if part[row] == label]

    def similarity(a, b):
        return max(cosines[i, j] for i in rows(a) for j in rows(b))

    forbidden = {frozenset((part[a], part[b])) for a, b in cannot}
    links = sorted((-similarity(a, b), a, b) for a in group for b in group if a < b)
    for negated, a, b in links:
        if -negated < threshold or group[a] is group[b]:
            continue
        crossing = [(x, y) for x in group[a] for y in group[b]]
        if all(similarity(x, y) >= floor and frozenset((x, y)) not in forbidden for x, y in crossing):
            joint = group[a] | group[b]
            for label in joint:
                group[label] = joint
    joined = {frozenset(row for label in labels for row in rows(label)) for labels in group.values()}
    return {members for members in joined if len(members) > 1}


def unit_products(vectors):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit @ unit.T


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), diameter=st.sampled_from([0.05, 0.2]))
def test_decisions_are_honoured_and_bring_in_whoever_is_close_to_a_decided_row(seed, diameter):
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((16, 2)).astype(np.float32)
    must = generator.integers(0, 8, (3, 2))
    cannot = np.stack([generator.integers(8, 12, 4), generator.integers(12, 16, 4)], axis=1)
    decided = Constraints(must.astype(np.int32), cannot.astype(np.int32))
    every = radius_pairs(vectors, -1.0)
    expected = slow_groups_with_decisions(vectors, 0.97, 1 - diameter, must.tolist(), cannot.tolist())

    counted = group_pairs(16, every, 0.97, max_diameter=diameter, constraints=decided)
    measured = group_pairs(16, radius_pairs(vectors, 0.97), max_diameter=diameter, vectors=vectors, constraints=decided)

    assert as_sets(counted) == expected
    assert as_sets(measured) == expected


def test_rows_kept_apart_split_even_groups_without_a_diameter():
    pairs = radius_pairs(on_a_circle([0, 1, 2, 50]), cosine(5))

    labels = group_pairs(4, pairs, constraints=Constraints.from_sets([[2, 3]], [([0], [1])]))

    assert labels[2] == labels[3]
    assert labels[0] != labels[1]


def test_contradicting_decisions_are_refused():
    with pytest.raises(ConfigError, match="rows 0 and 1"):
        group_pairs(
            2, radius_pairs(on_a_circle([0, 1]), 0.9), constraints=Constraints.from_sets([[0, 1]], [([0], [1])])
        )


def test_the_kernels_do_without_a_compiler_what_they_do_with_it():
    vectors = on_a_circle(np.random.default_rng(4).uniform(0, 90, 40))
    pairs = radius_pairs(vectors, cosine(8))
    order = np.argsort(-pairs.similarity, kind="stable")
    nothing = np.empty(0, np.int32)

    found = []
    for compiled in (True, False):
        adjacency, join = (f if compiled else f.py_func for f in (link_kernels.adjacency, link_kernels.join_links))
        labels = np.arange(40, dtype=np.int32)
        join(
            labels,
            pairs.i[order],
            pairs.j[order],
            adjacency(40, pairs.i, pairs.j),
            adjacency(40, nothing, nothing),
            True,
        )
        found.append(labels)

    np.testing.assert_array_equal(*found)


def test_parts_of_a_group_are_numbered_by_size():
    labels = np.array([0, 0, 0, 0, 1, 1, -1])

    assert number_parts(labels, np.array([7, 9, 9, 7, 3, 4, 5])).tolist() == [0, 1, 1, 0, 0, 1, -1]
    assert number_parts(labels, np.array([7, 9, 9, 9, 4, 3, 5])).tolist() == [1, 0, 0, 0, 0, 1, -1]


def test_risk_is_high_for_weak_links_chains_and_mixed_shots():
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, -1])
    i, j = np.array([0, 1, 3, 5, 7]), np.array([1, 2, 4, 6, 8])
    similarity = np.array([1.0, 1.0, 0.9, 1.0, 0.95], np.float32)
    pairs = Pairs(i.astype(np.int32), j.astype(np.int32), similarity, 0.8)

    risk = group_risk(labels, pairs, 0.9)
    mixed = group_risk(labels, pairs, 0.9, shots=np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, -1]))

    # One of three pairs missing; just at the threshold; identical; half-way.
    np.testing.assert_allclose(risk, [1 / 3, 1.0, 0.0, 0.25], atol=1e-6)
    np.testing.assert_allclose(mixed, [1 / 3, 1.0, 0.25, 0.25], atol=1e-6)


def test_a_matcher_that_confirms_or_refutes_links_changes_the_order_of_risk():
    labels = np.array([0, 0, 1, 1, 2, 2])
    i, j = np.array([0, 2, 4], np.int32), np.array([1, 3, 5], np.int32)
    pairs = Pairs(i, j, np.array([0.91, 0.95, 0.99], np.float32), 0.8)

    before = group_risk(labels, pairs, 0.9)
    unseen = group_risk(labels, pairs, 0.9, verified=np.full(3, np.nan))
    after = group_risk(labels, pairs, 0.9, verified=np.array([0.9, np.nan, 0.25]))

    np.testing.assert_allclose(before, [0.81, 0.25, 0.01], atol=1e-5)
    np.testing.assert_array_equal(unseen, before)
    # Confirmed with 0.8 of certainty: the gap to 1 shrinks from .09 to .018, the border to .18. Refuted with 0.5: the
    # link stands half-way to the threshold, at .945 (border .55), and half of the trust is gone.
    np.testing.assert_allclose(after, [0.18**2, 0.25, 1 - (1 - 0.55**2) * 0.5], atol=1e-4)
    assert np.argsort(-before).tolist() == [0, 1, 2]
    assert np.argsort(-after).tolist() == [2, 1, 0]


def test_of_several_keepers_the_most_similar_one_is_named():
    vectors = on_a_circle([0, 10, 40, 45, 200, 201])
    keepers = np.array([True, False, False, True, False, False])

    groups = assign_roles(
        np.array([0, 0, 0, 0, 1, 1]), np.array([1.0, 2, 3, 4, 1, 2]), vectors=vectors, keepers=keepers
    )

    assert groups.role.tolist() == ["keeper", "duplicate", "duplicate", "keeper", "duplicate", "keeper"]
    assert groups.of.tolist() == [0, 0, 3, 3, 5, 5]
    np.testing.assert_allclose(groups.similarity, [1, cosine(10), cosine(5), 1, cosine(1), 1], atol=1e-6)
