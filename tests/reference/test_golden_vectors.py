"""Public functions against golden vectors: ``pytest tests/reference --reference-dir DIR``.

Every ``.npz`` below the folder is opened, whatever its name: what is checked follows from the names of its arrays. A
method that comes to the package adds its checkers to ``CHECKERS``; arrays that no checker claims are skipped by name.
"""

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
from fiftyone_selfsame.brain.geometry import plan_geometry
from fiftyone_selfsame.brain.metrics.keypoints import correct_points, pck_scores, pck_threshold
from fiftyone_selfsame.brain.metrics.retrieval import average_precision

Arrays = Mapping[str, np.ndarray]


def check_average_precision(arrays: Arrays) -> None:
    """Ranked lists, one per row; the name of the expected array ends in its cut-offs, such as ``50_100_all``."""
    (name,) = (key for key in arrays if key.startswith("ap_derived_"))
    cut_offs = [None if word == "all" else int(word) for word in name.removeprefix("ap_derived_").split("_")]
    for relevance, total, expected in zip(arrays["ap_relevance"], arrays["ap_total"], arrays[name], strict=True):
        values = [average_precision(relevance, int(total), k) for k in cut_offs]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


def check_letterbox(arrays: Arrays) -> None:
    """The area of the picture (x0, y0, x1, y1) on a canvas of 840 pixels."""
    for (width, height), expected in zip(arrays["pad__sizes_wh"], arrays["pad__canvas_xyxy"], strict=True):
        top, left, h, w = plan_geometry((int(height), int(width)), 840, 14, "letterbox").content
        assert [left, top, left + w, top + h] == expected.tolist()


def check_pck_spair(arrays: Arrays) -> None:
    """PCK of all points and of the geometry-aware ones, overall, per azimuth difference and per category (SPair)."""
    x0, y0, x1, y1 = arrays["trg_bbox_xyxy"].T
    subsets = {f"_az{k}": arrays["out_azimuth_difference"] == k for k in range(5)}
    subsets |= {f"_cat_{name}": arrays["category"] == name for name in np.unique(arrays["category"])}
    _check_pck(arrays, np.stack([x1 - x0, y1 - y0], 1), arrays["out_trg_kps_840_xy"], subsets)


def check_pck_ap10k(arrays: Arrays) -> None:
    """The same with boxes given by their sides, and without targets on the canvas (AP-10K)."""
    sizes = arrays["trg_size_wh"]
    contents = [plan_geometry((int(height), int(width)), 840, 14, "letterbox").content for width, height in sizes]
    margins = np.array([(left, top) for top, left, _, _ in contents])
    scales = 840 / sizes.max(1)
    targets = arrays["trg_kps_xyv"][..., :2] * scales[:, None, None] + margins[:, None]
    _check_pck(arrays, arrays["trg_bbox_ltwh"][:, 2:], targets, {})


def _check_pck(arrays: Arrays, boxes_wh: np.ndarray, targets: np.ndarray, subsets: Mapping[str, np.ndarray]) -> None:
    """Thresholds for alpha = 1 on the canvas, and every PCK; ``subsets`` are the pairs by the ending of the name."""
    scales = 840 / arrays["trg_size_wh"].max(1)
    thresholds = [pck_threshold(tuple(box * scale), alpha=1) for box, scale in zip(boxes_wh, scales, strict=True)]
    np.testing.assert_allclose(thresholds, arrays["out_threshold_px"], rtol=1e-5)
    points = {"": arrays["out_mutually_visible"], "_geo": arrays["out_geometry_aware"]}
    pairs = {"": np.ones(len(targets), bool), **subsets}
    for kind, ending in ((kind, ending) for kind in points for ending in pairs):
        chosen = points[kind] & pairs[ending][:, None]
        for index, alpha in enumerate(arrays["alpha"]):
            rows = zip(arrays["pred_xy"], targets, chosen, thresholds, strict=True)
            scores = pck_scores(correct_points(p[one], t[one], alpha * threshold) for p, t, one, threshold in rows)
            for flavour, value in (("per_point", scores.per_point), ("per_image", scores.per_image)):
                key = f"out_{flavour}{kind}{ending}"
                if key in arrays:
                    np.testing.assert_allclose(value, arrays[key][index], rtol=0, atol=1e-5, err_msg=key)


class Checker(NamedTuple):
    """What one check needs (beginnings of array names, one array at least for each) and does."""

    name: str
    prefixes: tuple[str, ...]
    check: Callable[[Arrays], None]

    def claims(self, keys: set[str]) -> set[str]:
        """The arrays that this check covers; empty where one that it needs is missing."""
        found = [{key for key in keys if key.startswith(prefix)} for prefix in self.prefixes]
        return set().union(*found) if all(found) else set()


def load_neighbour(name: str) -> ModuleType:
    """A module in this folder; pytest's importlib mode puts no folder of tests on the path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


claid_checkers = load_neighbour("claid_checkers")
correspondence_checkers = load_neighbour("correspondence_checkers")

_PCK = ("alpha", "pred_xy", "trg_size_wh", "out_threshold_px", "out_mutually_visible", "out_geometry_aware")
_PCK += ("out_per_point", "out_per_image")

CHECKERS = (
    Checker("average_precision", ("ap_relevance", "ap_total", "ap_derived_"), check_average_precision),
    Checker("letterbox", ("pad__sizes_wh", "pad__canvas_xyxy"), check_letterbox),
    Checker(
        "pck_spair",
        (*_PCK, "trg_bbox_xyxy", "out_trg_kps_840_xy", "category", "out_azimuth_difference"),
        check_pck_spair,
    ),
    Checker("pck_ap10k", (*_PCK, "trg_bbox_ltwh", "trg_kps_xyv"), check_pck_ap10k),
    *(Checker(*check) for check in claid_checkers.CHECKS),
    *(Checker(*check) for check in correspondence_checkers.CHECKS),
)


def pytest_generate_tests(metafunc):
    folder = reference_folder(metafunc.config)
    files = sorted(folder.rglob("*.npz")) if folder.is_dir() else []
    names = {path: str(path.relative_to(folder)) for path in files}
    if "checker" in metafunc.fixturenames:
        cases = [(path, checker) for path in files for checker in CHECKERS if checker.claims(array_names(path))]
        ids = [f"{names[path]}-{checker.name}" for path, checker in cases]
        metafunc.parametrize(("path", "checker"), cases, ids=ids)
    elif "unclaimed" in metafunc.fixturenames:
        left = {path: array_names(path) for path in files}
        for keys in left.values():
            keys.difference_update(*(checker.claims(keys) for checker in CHECKERS))
        cases = [(path, keys) for path, keys in left.items() if keys]
        metafunc.parametrize(("path", "unclaimed"), cases, ids=[names[path] for path, _ in cases])


def reference_folder(config) -> Path:
    return Path(config.getoption("--reference-dir") or Path(config.getoption("--shared-dir")) / "reference")


def array_names(path: Path) -> set[str]:
    with np.load(path, allow_pickle=False) as arrays:
        return set(arrays)


def test_there_are_golden_vectors(request):
    folder = reference_folder(request.config)
    asked_for = request.config.getoption("--reference-dir") is not None
    if not folder.is_dir() and not asked_for:
        pytest.skip(f"needs a folder of golden vectors, which is absent: {folder}")

    assert list(folder.rglob("*.npz")), f"--reference-dir: no .npz file below {folder}"


def test_public_functions_reproduce_the_golden_vectors(path, checker):
    with np.load(path, allow_pickle=False) as arrays:
        checker.check(dict(arrays))


def test_arrays_of_methods_that_the_package_does_not_have_are_named(path, unclaimed):
    kinds = ", ".join(sorted({key.split("_")[0] for key in unclaimed}))
    pytest.skip(f"{path.parent.name}/{path.name}: no public function yet for {len(unclaimed)} arrays ({kinds})")


def test_a_checker_claims_its_arrays_only_if_all_that_it_needs_are_there():
    checker = Checker("example", ("a_", "b"), lambda arrays: None)

    assert checker.claims({"a_1", "a_2", "b", "c"}) == {"a_1", "a_2", "b"}
    assert checker.claims({"a_1", "c"}) == set()


def test_a_wrong_value_is_noticed():
    arrays = {
        "ap_relevance": np.array([[1, 0, 1]]),
        "ap_total": np.array([2]),
        "ap_derived_1_all": np.array([[1, 5 / 6]]),
    }
    check_average_precision(arrays)

    with pytest.raises(AssertionError):
        check_average_precision({**arrays, "ap_total": np.array([3])})


def test_a_wrong_pck_is_noticed(request):
    path = reference_folder(request.config) / "correspondence" / "pck_ap10k.npz"
    if not path.is_file():
        pytest.skip(f"needs {path.name}, which is absent")
    with np.load(path, allow_pickle=False) as arrays:
        wrong = {**arrays, "out_per_image_geo": arrays["out_per_image_geo"] + 1e-3}

    with pytest.raises(AssertionError, match="out_per_image_geo"):
        check_pck_ap10k(wrong)


def test_claid_with_other_seeds_is_as_like_the_program_as_the_program_is_to_itself(request):
    paths = sorted(reference_folder(request.config).rglob("*.npz"))
    maps = [path for path in paths if {"native_masks", "native_spread"} <= array_names(path)]
    if len(maps) < 6:
        pytest.skip("needs the six maps of CLAID, which are absent: a bound on single maps would be noise")

    ours, theirs = claid_checkers.likeness_to_native(maps)

    cover, f1_at_half, f1_at_three_quarters = theirs - ours
    assert cover < 0.06
    assert f1_at_half < 0.08
    assert f1_at_three_quarters < 0.08


@pytest.mark.parametrize("array", ["masks", "cuts", "hcount", "cbar", "box_ref"])
def test_a_wrong_region_is_noticed(request, array):
    path = reference_folder(request.config) / "claid" / "syn_a.npz"
    if not path.is_file():
        pytest.skip(f"needs {path.name}, which is absent")
    with np.load(path, allow_pickle=False) as arrays:
        wrong = dict(arrays)
    wrong[f"hash_{array}"] = wrong[f"hash_{array}"] + 1

    with pytest.raises(AssertionError):
        claid_checkers.tree_check("hash", "numpy")(wrong)
