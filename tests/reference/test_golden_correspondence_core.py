"""That the checks of correspondence would notice a wrong golden value; they themselves run with all golden vectors."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest


def _checkers():
    path = Path(__file__).with_name("correspondence_checkers.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


checkers = _checkers()


@pytest.mark.parametrize(
    ("file", "check", "array", "change"),
    [
        ("transfer_60", "check_transfer", "pred_soft_window_2", 0.05),
        ("transfer_60", "check_transfer", "pred_soft_gauss_sigma_5", 0.05),
        ("transfer_60", "check_transfer", "nn_index", 1),
        ("soft_argmax_12", "check_soft_argmax", "map_window_4", 0.01),
        ("imd_pose_align", "check_pose_alignment", "case2__imd_flip", 1e-3),
        ("imd_pose_align", "check_pose_alignment", "case3__pred_selected_masked", 0.05),
        ("evaluation_loop", "check_evaluation_loop", "window5_flip_masked__pred_xy", 0.05),
        ("evaluation_loop", "check_evaluation_loop", "window7__per_image", 1e-3),
        ("pose_templates", "check_template_distances", "imd_template_b", 1e-3),
        ("joint_pca", "check_joint_components", "gram_12", 500.0),
        ("kap_60", "check_blended_matches", "fused_l2_sphere__pred_xy_mutually_visible", 0.05),
        ("flip_and_padding", "check_mirrored_points", "bus__kps_flipped_given_vis", 0.01),
        ("flip_and_padding", "check_canvas_points", "pad__kps_840", 0.01),
    ],
)
def test_a_wrong_value_is_noticed(shared_dir, file, check, array, change):
    path = shared_dir / "reference" / "correspondence" / f"{file}.npz"
    if not path.is_file():
        pytest.skip(f"needs {path.name}, which is absent")
    with np.load(path, allow_pickle=False) as arrays:
        right = dict(arrays)

    with pytest.raises(AssertionError):
        getattr(checkers, check)({**right, array: right[array] + np.asarray(change, right[array].dtype)})
