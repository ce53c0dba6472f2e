"""The batched detector: the trees of the published program and of the other engines, whatever the batch and device."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.claid import batched, batched_bisect
from fiftyone_selfsame.brain.claid.affinity import pack_links
from fiftyone_selfsame.brain.claid.batched import detect_batched
from fiftyone_selfsame.brain.claid.batched_components import first_of_component
from fiftyone_selfsame.brain.claid.batched_gram import count_bits, full_precision, pack_bits
from fiftyone_selfsame.brain.claid.hierarchy import Hierarchy, detect_batch
from fiftyone_selfsame.brain.claid.options import PRESETS, DetectorOptions
from fiftyone_selfsame.brain.errors import ConfigError, ImageError
from scipy import ndimage

MAPS = ("syn_a", "syn_b", "syn_c", "img_a", "img_b", "img_c")
RUNS = {
    "hash": PRESETS["code"],
    "raster": replace(PRESETS["code"], order="raster"),
    "derived_paper": PRESETS["paper"],
}


@pytest.fixture(scope="module")
def golden(shared_dir):
    """``golden(name)``: the golden file of a map, and its features ``(h, w, C)`` as a tensor."""

    def load(name):
        data = np.load(shared_dir / "reference" / "claid" / f"{name}.npz")
        features = torch.from_numpy(data["features"].astype(np.float32))
        return data, features.reshape(*data["grid"], -1)

    return load


def smooth_map(seed, height, width, channels=32, regions=10):
    """``(h, w, C)`` tokens that resemble their neighbours, in regions that resemble each other in groups."""
    generator = np.random.default_rng(seed)
    centres = generator.uniform(0, 1, (regions, 2)) * (height, width)
    rows, columns = np.mgrid[:height, :width]
    distance = (rows[..., None] - centres[:, 0]) ** 2 + (columns[..., None] - centres[:, 1]) ** 2
    groups = generator.standard_normal((3, channels))[generator.integers(0, 3, regions)]
    prototypes = (
        0.5 * groups + generator.standard_normal((regions, channels)) + 0.4 * generator.standard_normal(channels)
    )
    tokens = prototypes[distance.argmin(-1)] + 1.4 * generator.standard_normal((height, width, channels))
    return torch.from_numpy(tokens.astype(np.float32))


def assert_same_tree(found: Hierarchy, expected: Hierarchy):
    for field in fields(Hierarchy):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), err_msg=field.name)


def assert_golden(found: Hierarchy, data, run):
    patches = found.masks[0].size
    masks = np.unpackbits(data[f"{run}_masks"], axis=1)[:, :patches].astype(bool)
    np.testing.assert_array_equal(found.masks.reshape(-1, patches), masks)
    names = {"hits": "hcount"} | {
        name: name for name in ("level", "parent", "side", "size", "emitted", "expanded", "cuts")
    }
    for ours, theirs in names.items():
        np.testing.assert_array_equal(getattr(found, ours), data[f"{run}_{theirs}"], err_msg=ours)
    np.testing.assert_allclose(found.cbar, data[f"{run}_cbar"], atol=1e-9)


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", MAPS)
def test_the_trees_are_those_of_the_golden_files(golden, name, run):
    data, features = golden(name)

    (found,) = detect_batched(features[None], RUNS[run])

    assert_golden(found, data, run)


@pytest.mark.parametrize(
    "options",
    [
        DetectorOptions(min_patches=3),
        DetectorOptions(min_patches=1, seed=-7),
        DetectorOptions(min_patches=4, order="raster", inertia=0.5, alpha=0.4),
        DetectorOptions(min_patches=5, init="nearest", inertia=0, connectivity="paper", theta=1, tau1=0.9),
        DetectorOptions(min_patches=2, max_epochs=1),
        DetectorOptions(min_patches=2, max_epochs=3),
    ],
)
def test_a_batch_gives_the_trees_of_the_other_engines(options):
    maps = [smooth_map(seed, 13, 21) for seed in range(6)]

    found = detect_batched(torch.stack(maps), options)

    expected = detect_batch(torch.stack(maps), options, engine="numpy")
    for one, other in zip(found, expected, strict=True):
        assert_same_tree(one, other)
    assert sum(len(one.cuts) for one in found) >= 18, "too few bisections to tell"


def test_visiting_orders_are_added_when_the_prepared_ones_run_out(monkeypatch):
    tokens = torch.stack([smooth_map(seed, 13, 21) for seed in range(6)])
    expected = detect_batched(tokens, DetectorOptions())
    monkeypatch.setattr(batched_bisect, "_EPOCHS", 1)
    monkeypatch.setattr(batched_bisect, "_LOOKS", 1)

    found = detect_batched(tokens, DetectorOptions())

    assert max(one.cuts[:, 6].max() for one in found) > 8
    for one, other in zip(found, expected, strict=True):
        assert_same_tree(one, other)


@pytest.mark.parametrize("grid_hw", [(1, 40), (40, 1), (3, 2), (1, 1), (9, 31), (31, 9)])
def test_narrow_small_and_portrait_grids_work(grid_hw):
    options = DetectorOptions(min_patches=2)
    tokens = torch.stack([smooth_map(seed, *grid_hw) for seed in range(3)])

    found = detect_batched(tokens, options)

    for one, other in zip(found, detect_batch(tokens, options, engine="numpy"), strict=True):
        assert_same_tree(one, other)


def test_an_image_has_the_same_tree_alone_and_in_any_batch():
    maps = torch.stack([smooth_map(seed, 24, 18) for seed in range(5)])
    alone = [detect_batched(one[None], DetectorOptions())[0] for one in maps]

    shuffled = detect_batched(maps[[3, 0, 4, 0]], DetectorOptions())

    for one, image in zip(shuffled, (3, 0, 4, 0), strict=True):
        assert_same_tree(one, alone[image])


def test_images_that_do_not_fit_into_memory_together_go_in_turns(monkeypatch):
    maps = torch.stack([smooth_map(seed, 12, 18) for seed in range(5)])
    together = detect_batched(maps, DetectorOptions())

    for at_once in (2, 0):
        monkeypatch.setattr(batched, "images_at_once", lambda _, count=at_once: count)
        for one, other in zip(detect_batched(maps, DetectorOptions()), together, strict=True):
            assert_same_tree(one, other)


def test_the_memory_of_a_batch_is_bounded():
    assert batched.images_at_once(torch.zeros(1, 1, 1, 1).expand(1000, 45, 80, 768)) in range(5, 20)
    assert batched.images_at_once(torch.zeros(1, 1, 1, 1).expand(3, 45, 80, 768)) == 3
    assert batched.images_at_once(torch.zeros(1, 1, 1, 1).expand(3, 300, 300, 4)) == 0


@pytest.mark.parametrize("tokens", [torch.ones(2, 6, 7, 4), torch.randn(2, 3, 4, 4)])
def test_images_of_equal_patches_or_of_too_few_have_no_regions(tokens):
    found = detect_batched(tokens, DetectorOptions())

    assert [len(one) for one in found] == [0, 0]
    assert [one.masks.shape for one in found] == [(0, *tokens.shape[1:3])] * 2


@pytest.mark.parametrize("zeros", [slice(5, 6), slice(None)])
def test_tokens_of_zeros_are_treated_as_by_the_other_engines(zeros):
    tokens = smooth_map(3, 12, 12)
    tokens[4, zeros] = tokens[0, 0] = tokens[zeros, 2] = 0
    options = DetectorOptions(min_patches=1)

    (found,) = detect_batched(tokens[None], options)

    assert_same_tree(found, detect_batch(tokens[None], options, engine="numpy")[0])


def test_an_empty_batch_has_no_trees():
    assert detect_batched(torch.zeros(0, 8, 8, 4), DetectorOptions()) == []


def test_tokens_of_half_precision_are_computed_with_in_single_precision():
    tokens = smooth_map(1, 20, 20)[None].half()

    (found,) = detect_batched(tokens, DetectorOptions())

    assert_same_tree(found, detect_batched(tokens.float(), DetectorOptions())[0])


def test_autocast_and_a_lower_precision_of_products_do_not_reach_the_gram_matrix(golden):
    data, features = golden("img_a")
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (found,) = detect_batched(features[None], RUNS["hash"])
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)

    assert_golden(found, data, "hash")


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_products_are_in_full_precision_for_a_while_only(precision):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with full_precision():
            inside = _precision_of_products()
        after, allowed = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)

    assert inside in ("ieee", "highest")
    assert (after, allowed) == (precision, precision != "highest")


@pytest.mark.skipif(not hasattr(torch.backends.cuda.matmul, "fp32_precision"), reason="an older version of torch")
def test_a_precision_that_was_set_for_cuda_alone_is_set_again():
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        with full_precision():
            inside = _precision_of_products()
        after = torch.backends.cuda.matmul.fp32_precision
    finally:
        torch.backends.cuda.matmul.fp32_precision = before

    assert (inside, after) == ("ieee", "tf32")


def _precision_of_products():
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision if hasattr(matmul, "fp32_precision") else torch.get_float32_matmul_precision()


@pytest.mark.parametrize(
    ("options", "message"), [({"order": "pyrandom"}, "use order='hash'"), ({"cut": "ncut"}, "use cut='ksums'")]
)
def test_options_of_the_other_engines_are_refused_with_advice(options, message):
    with pytest.raises(ConfigError, match=message):
        detect_batched(torch.ones(1, 5, 5, 3), DetectorOptions(**options))


def test_a_wrong_shape_and_broken_tokens_are_told():
    tokens = torch.stack([smooth_map(seed, 8, 8) for seed in range(3)])
    tokens[2, 3, 4, 0] = torch.nan

    with pytest.raises(ConfigError, match=r"\(8, 8, 32\)"):
        detect_batched(tokens[0], DetectorOptions())
    with pytest.raises(ImageError, match="image 2"):
        detect_batched(tokens, DetectorOptions())


def test_a_broken_image_is_counted_from_the_first_of_the_batch(monkeypatch):
    tokens = torch.stack([smooth_map(seed, 8, 8) for seed in range(3)])
    tokens[2, 0, 0, 0] = torch.inf
    monkeypatch.setattr(batched, "images_at_once", lambda _: 1)

    with pytest.raises(ImageError, match="image 2"):
        detect_batched(tokens, DetectorOptions())


def test_bits_are_packed_as_by_numpy_and_counted():
    generator = np.random.default_rng(0)
    for length in (1, 63, 64, 65, 200):
        marks = generator.random((3, 5, length)) < generator.random((3, 5, 1))
        marks[0, 0] = True

        bits = pack_bits(torch.from_numpy(marks))

        np.testing.assert_array_equal(bits.numpy().view(np.uint64), pack_links(marks))
        np.testing.assert_array_equal(count_bits(bits), marks.sum(-1))


def test_components_are_found_as_by_scipy():
    generator = np.random.default_rng(0)
    snake = np.zeros((21, 20), int)
    snake[1::2] = 1
    snake[2::4, -1] = snake[4::4, 0] = 1
    grids = [generator.integers(-1, kinds, (21, 20)) for kinds in (1, 1, 2, 3)] + [snake, np.eye(21, 20, dtype=int)]

    first = first_of_component(torch.from_numpy(np.stack(grids)).reshape(len(grids), -1), (21, 20)).numpy()

    for grid, found in zip(grids, first.reshape(-1, 21, 20), strict=True):
        expected = np.empty_like(found)
        for kind in np.unique(grid):
            labels, _ = ndimage.label(grid == kind, np.ones((3, 3)))
            for label in range(1, labels.max() + 1):
                expected[labels == label] = np.flatnonzero(labels == label)[0]
        np.testing.assert_array_equal(found, expected)


@pytest.mark.gpu
@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("name", MAPS)
def test_a_gpu_gives_the_trees_of_the_golden_files_though_tf32_is_allowed(golden, name, run):
    data, features = golden(name)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        found = detect_batched(features.cuda().expand(3, *features.shape), RUNS[run])
    finally:
        torch.set_float32_matmul_precision(before)

    for one in found:
        assert_golden(one, data, run)


@pytest.mark.gpu
def test_a_gpu_gives_the_trees_of_the_cpu():
    tokens = torch.stack([smooth_map(seed, 30, 40, channels=64) for seed in range(24)])

    found = detect_batched(tokens.cuda(), DetectorOptions())

    for one, other in zip(found, detect_batched(tokens, DetectorOptions()), strict=True):
        assert_same_tree(one, other)
