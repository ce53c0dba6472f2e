"""The parts of the CLAID detector: links, seeds, energies, orders, components, connectivity and options."""

import random

import numba
import numpy as np
import pytest
from fiftyone_selfsame.brain.claid import affinity as arrays
from fiftyone_selfsame.brain.claid import compiled
from fiftyone_selfsame.brain.claid.affinity import (
    affinity,
    count_links,
    energy_set,
    half_gram,
    initial_labels,
    pack_links,
    pick_seeds,
    unpack_links,
)
from fiftyone_selfsame.brain.claid.components import components, connectivity
from fiftyone_selfsame.brain.claid.options import PRESETS, DetectorOptions, detector_preset
from fiftyone_selfsame.brain.claid.orders import Orders, hash_keys, hash_permutation
from fiftyone_selfsame.brain.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

FORMS = pytest.mark.parametrize("form", [arrays, compiled], ids=["arrays", "compiled"])
FINDERS = pytest.mark.parametrize("find", [components, compiled.components], ids=["arrays", "compiled"])


@FORMS
def test_unit_rows_have_length_one_and_keep_their_direction(form):
    tokens = np.array([[3, 4], [0, 0], [-0.5, 0]], np.float32)

    unit, lengths, energies = form.unit_rows(tokens)

    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)
    np.testing.assert_allclose(lengths, [1, 0, 1], rtol=1e-6)
    np.testing.assert_allclose(energies, [7, 0, 0.5])
    assert (unit.dtype, lengths.dtype, energies.dtype) == (np.float32, np.float64, np.float64)


@FORMS
def test_very_large_and_very_small_tokens_have_unit_rows_too(form):
    tokens = np.array([[3e30, 4e30], [3e-8, 4e-8]], np.float32)

    np.testing.assert_allclose(form.unit_rows(tokens)[0], [[0.6, 0.8]] * 2, rtol=1e-6)


@FORMS
@pytest.mark.parametrize("fault", [np.nan, np.inf, -np.inf])
def test_the_energy_of_a_broken_token_is_not_finite(form, fault):
    tokens = np.ones((3, 4), np.float32)
    tokens[1, 2] = fault

    assert np.isfinite(form.unit_rows(tokens)[2]).tolist() == [True, False, True]


@FORMS
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 63, 64, 65, 257, 300])
def test_a_gram_matrix_is_completed_and_linked(form, n, kind):
    unit, _, _ = form.unit_rows(np.random.default_rng(n).standard_normal((n, 7)).astype(kind))
    gram = half_gram(unit)

    links = form.complete_and_link(gram, 0.2)

    np.testing.assert_array_equal(gram, gram.T)
    np.testing.assert_allclose(gram, unit @ unit.T, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(unpack_links(links, n), gram > kind(0.2))
    assert links.shape == (n, -(-n // 64))


def test_patches_are_linked_if_their_cosine_exceeds_alpha():
    # 0.2 in single precision is more than 0.2 in double precision, and equality is no link.
    for kind in (np.float32, np.float64):
        assert affinity(np.array([0.19, 0.2, 0.21, 1, -1], kind), 0.2).tolist() == [False, False, True, True, False]


@FORMS
def test_a_token_of_zeros_is_linked_with_nothing(form):
    tokens = np.ones((70, 3), np.float32)
    tokens[66] = 0

    gram = half_gram(form.unit_rows(tokens)[0])
    linked = unpack_links(form.complete_and_link(gram, 0.2), 70)

    assert not linked[66].any()
    assert not linked[:, 66].any()
    assert linked.sum() == 69 * 69


@given(n=st.integers(1, 200), seed=st.integers(0, 2**32 - 1))
def test_packed_links_are_what_was_packed(n, seed):
    linked = np.random.default_rng(seed).random((3, n)) < 0.5

    bits = pack_links(linked)

    np.testing.assert_array_equal(unpack_links(bits, n), linked)
    assert [bool(bits[1, k // 64] >> np.uint64(k % 64) & np.uint64(1)) for k in range(n)] == linked[1].tolist()


@given(n=st.integers(1, 150), seed=st.integers(0, 2**32 - 1))
def test_degrees_count_the_links_within_a_set(n, seed):
    generator = np.random.default_rng(seed)
    linked = generator.random((n, n)) < generator.random()
    patches = np.flatnonzero(generator.random(n) < 0.7)

    expected = linked[np.ix_(patches, patches)].sum(1)

    for form in (arrays, compiled):
        np.testing.assert_array_equal(form.degrees(pack_links(linked), patches), expected)


def test_links_are_counted_without_those_of_patches_with_themselves():
    # Patches 0 and 1 are linked with each other, 2 is alone, and 3 is a token of zeros.
    linked = np.diag([True, True, True, False])
    linked[0, 1] = linked[1, 0] = True

    assert count_links(arrays.degrees(pack_links(linked), np.arange(4))) == 2


def test_seeds_are_the_first_lowest_and_the_last_highest_degree():
    assert pick_seeds(np.array([5, 2, 9, 2, 9, 4])) == (1, 4)
    assert pick_seeds(np.array([3, 3, 3])) == (0, 2)
    assert pick_seeds(np.array([1])) == (0, 0)


def test_only_what_is_linked_to_the_high_seed_alone_starts_in_cluster_1():
    low = np.array([True, True, False, False])
    high = np.array([True, False, True, False])

    assert initial_labels(low, high, "affinity").tolist() == [0, 0, 1, 0]
    # A patch that is as similar to both stays with the low seed.
    assert initial_labels(np.array([0.5, 0.1, 0.9]), np.array([0.5, 0.2, 0.8]), "nearest").tolist() == [0, 1, 0]


def test_the_high_energy_patches_are_the_top_share_and_ties_with_it():
    ten = np.arange(10.0)[::-1]
    ties = np.array([1.0, 5, 5, 5, 5, 5, 0, 0, 0, 0])

    assert np.flatnonzero(energy_set(ten, DetectorOptions())).tolist() == [0, 1, 2]
    assert np.flatnonzero(energy_set(ten, DetectorOptions(theta=0.5))).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(energy_set(ties, DetectorOptions())).tolist() == [1, 2, 3, 4, 5]
    assert energy_set(ten, DetectorOptions(theta=1)).all()
    assert not len(energy_set(np.zeros(0), DetectorOptions()))


def test_the_rank_of_the_energy_is_a_whole_share_of_the_patches():
    options = DetectorOptions()

    assert [options.rank(n) for n in range(1, 1000)] == [n * 7 // 10 for n in range(1, 1000)]
    # In floating point, (1 - 0.9) * 10 is less than 1.
    assert DetectorOptions(theta=0.9).rank(10) == 1


@pytest.mark.parametrize(("tau2", "hits", "size"), [(0.1, 2, 20), (0.2, 4, 20), (0.3, 3, 10), (0, 0, 7)])
def test_a_region_at_the_energy_threshold_is_not_emitted(tau2, hits, size):
    options = DetectorOptions(tau2=tau2)

    assert not options.emits(hits, size)
    assert options.emits(hits + 1, size)
    assert options.emits(np.int32(hits + 1), np.int32(size))


def test_a_region_at_the_connectivity_threshold_is_not_bisected():
    paper = DetectorOptions(tau1=0.97, connectivity="paper")
    # 25 patches have 600 ordered pairs, of which 582 are 97 %.
    assert [paper.expands(links, 25) for links in (581, 582, 583)] == [True, False, False]
    program = DetectorOptions(tau1=0.97)
    # The program adds one link per patch: 557 + 25 = 582, and 43 pairs without a link make up for a little more.
    assert [program.expands(links, 25) for links in (556, 557, 558)] == [True, False, False]
    assert not program.expands(0, 1)
    assert not paper.expands(0, 1)
    assert not program.expands(np.int32(9_999 * 10_000), np.int32(10_000))


def test_connectivity_of_four_patches_with_five_linked_pairs():
    program, paper = connectivity(links=10, size=4)

    assert paper == pytest.approx(10 / 12)
    assert program == pytest.approx((10 + 4 + 2e-5) / 12)
    assert connectivity(0, 1) == (1, 1)


@FINDERS
def test_components_touch_at_sides_or_corners_and_are_large_enough(find):
    rows = [
        "#..##.",
        ".#...#",
        "......",
        "###..#",
    ]
    grid = np.array([[cell == "#" for cell in row] for row in rows])

    found = find(np.flatnonzero(grid), grid.shape, 2)

    assert [part.tolist() for part in found] == [[0, 7], [3, 4, 11], [18, 19, 20]]


@FINDERS
def test_components_do_not_reach_around_the_edge(find):
    # Patches 3 and 4 are neighbours in raster order, but lie at the two ends of the grid.
    assert [part.tolist() for part in find(np.array([3, 4]), (2, 4), 1)] == [[3], [4]]


@FINDERS
def test_no_patches_have_no_components(find):
    assert find(np.zeros(0, int), (3, 4), 1) == []


@given(height=st.integers(1, 12), width=st.integers(1, 12), seed=st.integers(0, 2**32 - 1), least=st.integers(1, 6))
def test_both_forms_find_the_literal_components(literal, height, width, seed, least):
    generator = np.random.default_rng(seed)
    members = np.flatnonzero(generator.random(height * width) < generator.random())

    expected = [part.tolist() for part in literal.literal_components(members, (height, width), least)]

    for find in (components, compiled.components):
        assert [part.tolist() for part in find(members, (height, width), least)] == expected


def test_hashed_keys_are_those_of_plain_integers(literal):
    for seed in (0, 7, 2**64 - 1, 2**70 + 3, -1):
        for epoch in (0, 1, 500):
            expected = [literal.literal_key(seed, epoch, patch) for patch in range(20)]
            assert hash_keys(seed, epoch, 20).tolist() == expected


def test_a_hashed_order_visits_every_patch_once_and_cannot_be_changed():
    order = hash_permutation(0, 3, 500)

    assert sorted(order.tolist()) == list(range(500))
    assert order.tolist() != hash_permutation(0, 4, 500).tolist()
    with pytest.raises(ValueError, match="read-only"):
        order[0] = 1


def test_a_node_is_visited_in_the_order_of_its_grid():
    patches = np.array([2, 3, 7])

    orders = Orders(9, DetectorOptions()).of_node(patches)

    for epoch in range(3):
        order = next(orders)
        assert order.tolist() == hash_permutation(0, epoch, 9).tolist()
    assert next(Orders(9, DetectorOptions(order="raster")).of_node(patches)).tolist() == [2, 3, 7]


def test_pythons_order_goes_on_from_node_to_node():
    orders = Orders(9, DetectorOptions(order="pyrandom", seed=5))
    first, second = orders.of_node(np.array([1, 4, 5, 8])), orders.of_node(np.array([0, 2, 3]))
    drawn = [next(first), next(first), next(second)]

    generator = random.Random(5)
    expected = []
    for patches, m in (([1, 4, 5, 8], 4), ([1, 4, 5, 8], 4), ([0, 2, 3], 3)):
        order = list(range(m))
        generator.shuffle(order)
        expected.append([patches[position] for position in order])
    assert [order.tolist() for order in drawn] == expected


def test_where_compiled_code_cannot_be_kept_it_is_compiled_anew(monkeypatch):
    def refuse_to_cache(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(compiled, "njit", refuse_to_cache)

    assert compiled._compiled(lambda x: x + 1)(2) == 3


def test_presets_differ_where_the_paper_and_its_program_do():
    assert PRESETS["default"] == DetectorOptions()
    assert detector_preset("code") == DetectorOptions(tau2=0.1, box_mode="reference")
    assert detector_preset("paper") == DetectorOptions(init="nearest", inertia=0, connectivity="paper")
    assert detector_preset("code", tau2=None, seed=3) == DetectorOptions(tau2=0.1, box_mode="reference", seed=3)
    with pytest.raises(ConfigError, match="preset='released' is unknown; use one of default, code, paper"):
        detector_preset("released")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("alpha", 1, "alpha=1 cannot work; use a cosine"),
        ("alpha", float("nan"), "alpha=nan is not a number"),
        ("tau1", -0.1, "tau1=-0.1 cannot work"),
        ("tau2", "0.2", "tau2='0.2' is not a number"),
        ("theta", 0, "theta=0 cannot work; use a share"),
        ("theta", 1.5, "theta=1.5"),
        ("min_patches", 0, "min_patches=0 cannot work; use a whole number of at least 1"),
        ("min_patches", 2.5, "min_patches=2.5"),
        ("min_patches", True, "min_patches=True is not a number"),
        ("inertia", -1, "inertia=-1"),
        ("seed", 0.5, "seed=0.5"),
        ("max_epochs", 0, "max_epochs=0"),
        ("connectivity", "graph", "connectivity='graph' is unknown; use one of program, paper"),
        ("init", "random", "init='random' is unknown; use one of affinity, nearest"),
        ("order", "random", "order='random' is unknown; use one of hash, raster, pyrandom"),
        ("box_mode", "loose", "box_mode='loose' is unknown; use one of exact, reference"),
        ("cut", "kmeans", "cut='kmeans' is unknown; use one of ksums, ncut"),
    ],
)
def test_options_that_cannot_work_are_refused(option, value, message):
    with pytest.raises(ConfigError) as refusal:
        DetectorOptions(**{option: value})

    assert message in str(refusal.value)
