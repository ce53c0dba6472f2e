"""Checks of the CLAID detector, its boxes and its pooling against golden vectors."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from fiftyone_selfsame.brain.claid import affinity, bisect, similarity
from fiftyone_selfsame.brain.claid.boxes import reference_boxes, region_boxes, unclipped_boxes, working_size
from fiftyone_selfsame.brain.claid.components import components, connectivity
from fiftyone_selfsame.brain.claid.hierarchy import Hierarchy, detect_batch
from fiftyone_selfsame.brain.claid.options import DetectorOptions, detector_preset
from fiftyone_selfsame.brain.claid.orders import hash_keys, hash_permutation
from fiftyone_selfsame.brain.claid.pooling import cell_weights, pool_regions, roi_cells
from scipy.optimize import linear_sum_assignment

Arrays = Mapping[str, np.ndarray]

ENGINES = ("numpy", "compiled", "torch")
OPTIONS = {
    "raster": detector_preset("code", order="raster"),
    "hash": detector_preset("code"),
    "pyrandom": detector_preset("code", order="pyrandom"),
    "derived_paper": detector_preset("paper"),
}
# Names of the golden arrays by those of a hierarchy; floating-point ones apart.
_EXACT = {"hits": "hcount"} | {
    name: name for name in ("level", "parent", "side", "size", "emitted", "expanded", "cuts")
}


def check_affinity(arrays: Arrays) -> None:
    """Links, degrees, seeds, first labels and connectivity, of all patches and of two parts of them."""
    links = _links(arrays["aff_features"])
    np.testing.assert_array_equal(affinity.unpack_links(links, 121), _unpack(arrays["aff_matrix"], 121))
    for index in range(3):
        part = {key.split("_")[1]: value for key, value in arrays.items() if key.startswith(f"aff{index}_")}
        degree = _check_start(links, part)
        edges = (degree.sum() - len(degree)) // 2
        assert edges == part["edges"]
        values = connectivity(2 * edges, len(degree))
        np.testing.assert_allclose(values, (part["connect"], part["cbar"]), rtol=0, atol=1e-9)
    ties = {key.removeprefix("tie_"): value for key, value in arrays.items() if key.startswith("tie_")}
    _check_start(_links(ties["features"]), ties | {"patches": np.arange(len(ties["features"]))})


def check_bisect(arrays: Arrays) -> None:
    """Bisections with given starts and orders; the margins serve the choice of the cases, there is no function."""
    for name in sorted({key.split("_")[1] for key in arrays if key.startswith("bis_")}):
        case = {key.removeprefix(f"bis_{name}_"): arrays[key] for key in arrays if key.startswith(f"bis_{name}_")}
        unit = affinity.unit_rows(case["features"])[0][case["patches"]]
        gram = unit @ unit.T
        for sweep in _sweeps():
            split = bisect.bisect(gram, case["init"], case["orders"], sweep=sweep)
            np.testing.assert_array_equal(split.labels, case["labels"], err_msg=name)
            assert (split.epochs, split.moves) == (case["epochs"], case["moves"]), name
            objectives = [_objective(gram, labels) for labels in (case["init"], split.labels)]
            np.testing.assert_allclose(objectives, case["objective"], rtol=1e-4, atol=1e-4)
            if "derived_noinertia_labels" not in case:
                continue
            orders = itertools.chain(case["orders"], itertools.repeat(np.arange(len(gram))))
            split = bisect.bisect(gram, case["init"], orders, inertia=0, sweep=sweep)
            np.testing.assert_array_equal(split.labels, case["derived_noinertia_labels"], err_msg=name)
            assert [split.epochs, split.moves] == case["derived_noinertia_epochs_moves"].tolist(), name
            objective = _objective(gram, split.labels)
            np.testing.assert_allclose(objective, case["derived_noinertia_objective"], rtol=1e-4, atol=1e-4)


def check_components(arrays: Arrays) -> None:
    """Connected components of at least 15 patches, in the order of their first patches."""
    cases = zip(arrays["obj_masks"], arrays["obj_labels"], arrays["obj_count"], strict=True)
    for (mask, labels, count), find in itertools.product(cases, _component_finders()):
        found = np.zeros(mask.size, int)
        parts = find(np.flatnonzero(mask), mask.shape, 15)
        for index, part in enumerate(parts):
            found[part] = index + 1
        assert len(parts) == count
        np.testing.assert_array_equal(found.reshape(mask.shape), labels)


def check_energy(arrays: Arrays) -> None:
    """The high-energy patches, with ties at the threshold, and which sets of them are emitted."""
    options = DetectorOptions()
    for index in range(3):
        energies = affinity.unit_rows(arrays[f"xi{index}_features"])[2]
        assert options.rank(len(energies)) == arrays[f"xi{index}_rank_index"]
        threshold = np.sort(energies)[options.rank(len(energies))]
        np.testing.assert_allclose(threshold, arrays[f"xi{index}_threshold"], rtol=1e-6)
        np.testing.assert_array_equal(affinity.energy_set(energies, options), arrays[f"xi{index}_high"].astype(bool))
    hits = (arrays["xi_sets"] & arrays["xi0_high"]).sum(1)
    sizes = arrays["xi_sets"].sum(1)
    np.testing.assert_array_equal(hits, arrays["xi_hcount"])
    np.testing.assert_array_equal(sizes, arrays["xi_size"])
    np.testing.assert_allclose(hits / sizes, arrays["xi_ratio"])
    for tau2, key in ((0.1, "xi_keep_tau010"), (0.2, "xi_keep_tau020")):
        kept = [DetectorOptions(tau2=tau2).emits(*one) for one in zip(hits, sizes, strict=True)]
        np.testing.assert_array_equal(kept, arrays[key])


def check_boxes(arrays: Arrays) -> None:
    """Boxes of single extents at several scales: the program's, and the exact ones before they are clipped."""
    patch = int(arrays["box_patch"])
    rows = zip(arrays["box_extent_y0y1x0x1"], arrays["box_rate"], strict=True)
    extents = [(np.array([[x0, y0, x1, y1]]), float(rate)) for (y0, y1, x0, x1), rate in rows]
    reference = [reference_boxes(extent, rate, patch)[0] for extent, rate in extents]
    exact = [unclipped_boxes(extent, (rate, rate), patch)[0] for extent, rate in extents]
    np.testing.assert_array_equal(reference, arrays["box_ref_xyxy"])
    np.testing.assert_allclose(exact, arrays["box_exact_xyxy"], rtol=0, atol=1e-6)


def check_resize(arrays: Arrays) -> None:
    """Working size and patch grid of images of many sizes."""
    for row, rate in zip(arrays["resize_w_h_rw_rh_gw_gh"].tolist(), arrays["resize_rate"], strict=True):
        width, height, *expected = row
        rh, rw, gh, gw = working_size((height, width))
        assert [rw, rh, gw, gh] == expected, (width, height)
        assert height / rh == pytest.approx(rate)


def check_pooling(arrays: Arrays) -> None:
    """Rectangles of a feature map, pooled in three ways, at a stride of 32 pixels and once of 16."""
    feature_map = torch.from_numpy(arrays["roi_map"]).permute(1, 2, 0).contiguous()
    map_hw = (feature_map.shape[0], feature_map.shape[1])
    cells, valid = roi_cells(arrays["roi_boxes"], float(arrays["roi_stride"]), map_hw)
    np.testing.assert_array_equal(valid, arrays["roi_valid"])
    for kind in ("gem", "mean", "max"):
        pooled = pool_regions(feature_map, cell_weights(cells[valid], map_hw), kind)
        np.testing.assert_allclose(pooled, arrays[f"roi_{kind}"][valid], rtol=1e-5, atol=1e-6, err_msg=kind)
    cells, valid = roi_cells(arrays["roi16_box"][None], 16, map_hw)
    pooled = pool_regions(feature_map, cell_weights(cells, map_hw), "gem")
    assert valid.all()
    np.testing.assert_allclose(pooled[0], arrays["roi16_gem"], rtol=1e-5, atol=1e-6)


def check_hash(arrays: Arrays) -> None:
    """Keys of patches and the orders that follow from them, by seed and epoch."""
    for row, seed in enumerate(arrays["hash_seeds"].tolist()):
        for epoch, expected in enumerate(arrays["hash_keys"][row]):
            np.testing.assert_array_equal(hash_keys(seed, epoch, 16), expected)
        for epoch, expected in enumerate(arrays["hash_perm64"][row]):
            np.testing.assert_array_equal(hash_permutation(seed, epoch, 64), expected)


def check_image(arrays: Arrays) -> None:
    """What is computed once per image, up to the first labels of the first bisection; and the size it was made at."""
    options = DetectorOptions()
    features = arrays["features"].astype(np.float32)
    energies = affinity.unit_rows(features)[2]
    threshold = np.sort(energies)[options.rank(len(energies))]
    np.testing.assert_allclose(threshold, arrays["energy_threshold"], rtol=1e-6)
    np.testing.assert_array_equal(affinity.energy_set(energies, options), arrays["high_energy"].astype(bool))
    everything = {"patches": np.arange(len(features)), "degree": arrays["degree"], "init": arrays["root_init"]}
    _check_start(_links(features), everything)
    height, width = arrays["original_hw"].tolist()
    rh, rw, *grid = working_size((height, width), patch=int(arrays["patch_size"]))
    assert ([rh, rw], grid) == (arrays["resized_hw"].tolist(), arrays["grid"].tolist())
    assert height / rh == pytest.approx(float(arrays["rate"]))


def tree_check(order: str, engine: str) -> Callable[[Arrays], None]:
    """The check of the hierarchy by one order and engine."""

    def check(arrays: Arrays) -> None:
        assert arrays[f"{order}_seed"] == OPTIONS[order].seed
        for kind in (np.float32, np.float64):
            (found,) = _detect(_grid(arrays, kind)[None], order, engine)
            _check_tree(found, arrays, order)

    return check


def check_without_gram(arrays: Arrays) -> None:
    """The form for images that are too large for a Gram matrix, by every order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "GRAM_BYTES", 0)
        for order, engine in itertools.product(OPTIONS, ("numpy", "compiled")):
            (found,) = _detect(_grid(arrays, np.float32)[None], order, engine)
            _check_tree(found, arrays, order)


def batch_check(engine: str) -> Callable[[Arrays], None]:
    """The check that company in a batch changes nothing."""

    def check(arrays: Arrays) -> None:
        golden = _grid(arrays, np.float32)
        noise = np.random.default_rng(0).standard_normal(golden.shape).astype(np.float32)
        batch = np.stack([noise, golden, golden[::-1], np.ones_like(golden), golden])
        for order in ("hash", "derived_paper"):
            found = _detect(batch, order, engine)
            _check_tree(found[1], arrays, order)
            _check_tree(found[4], arrays, order)

    return check


def check_native_spread(arrays: Arrays) -> None:
    """How far the program's own runs are apart, by the measures that other orders are judged by below."""
    runs = native_runs(arrays)
    pairs = [likeness(one, other) for one, other in itertools.combinations(runs, 2)]
    np.testing.assert_allclose([np.mean(pairs, 0), np.min(pairs, 0)], arrays["native_spread"], rtol=0, atol=1e-6)


def likeness_to_native(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Means over all maps of (cover, F1 at 0.5, F1 at 0.75): of five seeds with the program's runs, and of those."""
    ours, theirs = [], []
    for path in paths:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        runs = native_runs(arrays)
        for seed in range(1, 6):
            (found,) = detect_batch(_grid(arrays, np.float32)[None], detector_preset("code", seed=seed))
            emitted = found.masks[found.emitted].reshape(-1, runs[0].shape[1])
            ours.append(np.mean([likeness(emitted, run) for run in runs], 0))
        theirs.append(arrays["native_spread"][0])
    return np.mean(ours, 0), np.mean(theirs, 0)


def native_runs(arrays: Arrays) -> list[np.ndarray]:
    """``(R, n)`` bool masks of the emitted regions, run by run."""
    masks = _unpack(arrays["native_masks"], len(arrays["features"]))
    return [masks[arrays["native_run"] == run] for run in np.unique(arrays["native_run"])]


def likeness(one: np.ndarray, other: np.ndarray) -> list[float]:
    """Cover, and F1 at IoU 0.5 and 0.75, of two sets of masks ``(R, n)``."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    shared = one @ other.T
    iou = shared / (one.sum(1)[:, None] + other.sum(1) - shared)
    cover = (iou.max(1).mean() + iou.max(0).mean()) / 2
    scores = []
    for threshold in (0.5, 0.75):
        hits = iou >= threshold
        matches = hits[linear_sum_assignment(hits, maximize=True)].sum()
        scores.append(2 * matches / (len(one) + len(other)))
    return [cover, *scores]


def _check_tree(found: Hierarchy, arrays: Arrays, order: str) -> None:
    assert found.grid_hw == tuple(arrays["grid"])
    golden = {key: arrays[f"{order}_{key}"] for key in (*_EXACT.values(), "cbar")}
    masks = _unpack(arrays[f"{order}_masks"], len(arrays["features"])).reshape(-1, *found.grid_hw)
    np.testing.assert_array_equal(found.masks, masks)
    for name, key in _EXACT.items():
        np.testing.assert_array_equal(getattr(found, name), golden[key], err_msg=key)
    np.testing.assert_allclose(found.cbar, golden["cbar"], rtol=0, atol=1e-9)
    if order == "derived_paper":
        return
    np.testing.assert_allclose(found.connect, arrays[f"{order}_connect"], rtol=0, atol=1e-9)
    sizes = tuple(arrays["original_hw"].tolist()), tuple(arrays["resized_hw"].tolist()), int(arrays["patch_size"])
    np.testing.assert_array_equal(region_boxes(masks, *sizes, "reference"), arrays[f"{order}_box_ref"])
    np.testing.assert_allclose(region_boxes(masks, *sizes), arrays[f"{order}_box_exact"], rtol=0, atol=1e-6)


def _check_start(links: np.ndarray, part: Arrays) -> np.ndarray:
    """Checks degrees, seeds and first labels of one set of patches; returns the degrees."""
    patches = part["patches"]
    for degrees in _degree_counters():
        degree = degrees(links, patches)
        np.testing.assert_array_equal(degree, part["degree"])
    seeds = patches[list(affinity.pick_seeds(degree))]
    if "seeds" in part:
        np.testing.assert_array_equal(seeds, part["seeds"])
    rows = affinity.unpack_links(links[seeds], len(links))[:, patches]
    np.testing.assert_array_equal(affinity.initial_labels(*rows, "affinity"), part["init"])
    return degree


def _detect(features: np.ndarray, order: str, engine: str) -> list[Hierarchy]:
    if engine == "compiled":
        pytest.importorskip("numba")
    return detect_batch(torch.from_numpy(features), OPTIONS[order], engine=engine)


def _links(features: np.ndarray) -> np.ndarray:
    gram = affinity.half_gram(affinity.unit_rows(features.astype(np.float32))[0])
    return affinity.complete_and_link(gram, 0.2)


def _compiled() -> Iterator[similarity.Kernels]:
    try:
        yield similarity.compiled_kernels()
    except ImportError:
        return


def _degree_counters() -> list[Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    return [affinity.degrees, *(kernels.degrees for kernels in _compiled())]


def _sweeps() -> list[bisect.Sweep]:
    return [bisect.sweep, *(kernels.sweep for kernels in _compiled())]


def _component_finders() -> list[Callable[[np.ndarray, tuple[int, int], int], list[np.ndarray]]]:
    return [components, *(kernels.components for kernels in _compiled())]


def _objective(gram: np.ndarray, labels: np.ndarray) -> float:
    """Sum over both clusters of the squared distances of all pairs within."""
    sets = [gram[np.ix_(labels == label, labels == label)].astype(np.float64) for label in (0, 1)]
    return sum(len(one) * one.trace() - one.sum() for one in sets)


def _grid(arrays: Arrays, kind: type) -> np.ndarray:
    return arrays["features"].astype(kind).reshape(*arrays["grid"], -1)


def _unpack(masks: np.ndarray, n: int) -> np.ndarray:
    return np.unpackbits(masks, axis=1)[:, :n].astype(bool)


_MAP = ("features", "grid")
_SIZES = ("original_hw", "resized_hw", "patch_size")

# Name, beginnings of the names of the arrays that it needs, and the check.
CHECKS: list[tuple[str, tuple[str, ...], Callable[[Arrays], None]]] = [
    ("claid_affinity", ("aff_", "aff0_", "aff1_", "aff2_", "tie_"), check_affinity),
    ("claid_bisect", ("bis_",), check_bisect),
    ("claid_components", ("obj_",), check_components),
    ("claid_energy", ("xi0_", "xi1_", "xi2_", "xi_"), check_energy),
    ("claid_boxes", ("box_",), check_boxes),
    ("claid_resize", ("resize_",), check_resize),
    ("claid_pooling", ("roi_", "roi16_"), check_pooling),
    ("claid_hash", ("hash_seeds", "hash_keys", "hash_perm64"), check_hash),
    ("claid_image", (*_MAP, *_SIZES, "rate", "degree", "high_energy", "energy_threshold", "root_init"), check_image),
    ("claid_native", (*_MAP, "native_"), check_native_spread),
    ("claid_without_gram", (*_MAP, *_SIZES, *(f"{order}_masks" for order in OPTIONS)), check_without_gram),
    *(
        (f"claid_{order}_{engine}", (*_MAP, *_SIZES, f"{order}_"), tree_check(order, engine))
        for order, engine in itertools.product(OPTIONS, ENGINES)
        if (order, engine) != ("pyrandom", "torch")
    ),
    *(
        (f"claid_batch_{engine}", (*_MAP, *_SIZES, "hash_masks", "derived_paper_masks"), batch_check(engine))
        for engine in ENGINES
    ),
]
