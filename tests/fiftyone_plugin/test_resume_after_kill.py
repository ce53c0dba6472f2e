"""A job that is killed with SIGKILL and started again ends as if nothing had happened, and repeats nothing."""

import os
import signal
import subprocess
import sys

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa

FIELDS = ("ffa", "ffa_foreground_fraction", "ffa_n_patches", "ffa_fallback", "ffa_error", "ffa_provenance")

# Commits three samples at a time, and kills itself at the nth write of a field: once all fields of the commit are
# written but for the last, then with the first field of a commit alone.
SCRIPT = """
import os, signal, sys
import fiftyone as fo
from fiftyone_selfsame.fiftyone_plugin.compute import compute_ffa
from fiftyone_selfsame.fiftyone_plugin.engine import local

name, model, fatal_write = sys.argv[1], sys.argv[2], int(sys.argv[3])
local.COMMIT_EVERY = 3
writes = 0
set_values = fo.Dataset.set_values

def counted(self, path, *args, **kwargs):
    global writes
    writes += 1
    if writes == fatal_write:
        os.kill(os.getpid(), signal.SIGKILL)
    return set_values(self, path, *args, **kwargs)

fo.Dataset.set_values = counted
compute_ffa(fo.load_dataset(name), model=model, foreground="none", batch_size=2, device="cpu", progress=False)
"""


def run_until_killed(dataset, model, fatal_write, tmp_path):
    assert "FIFTYONE_DATABASE_URI" in os.environ, "both processes must use one server"
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, dataset.name, model, str(fatal_write)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("fatal_write", "committed"), [(3 * len(FIELDS), 6), (2 * len(FIELDS) + 2, 6)])
def test_a_killed_job_is_completed_by_the_next_run(fo_dataset, photos, tiny_model, tmp_path, fatal_write, committed):
    paths = photos(11)
    disturbed, undisturbed = fo_dataset(paths), fo_dataset(paths)
    disturbed.persistent = True
    options = {"model": tiny_model, "foreground": "none", "batch_size": 2, "device": "cpu", "progress": False}
    compute_ffa(undisturbed, **options)

    killed = run_until_killed(disturbed, tiny_model, fatal_write, tmp_path)
    disturbed.reload()
    safe = disturbed.exists("ffa_provenance")
    before = dict(zip(*safe.values(["id", "last_modified_at"]), strict=True))
    summary = compute_ffa(disturbed, **options)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert len(before) == committed
    assert summary.counts == {"total": 11, "done": 11 - committed, "skipped": committed, "failed": 0}
    after = dict(zip(*disturbed.values(["id", "last_modified_at"]), strict=True))
    assert {key: after[key] for key in before} == before
    for field in FIELDS:
        if field == "ffa":
            np.testing.assert_allclose(
                np.stack(disturbed.values(field)), np.stack(undisturbed.values(field)), rtol=0, atol=1e-6
            )
        else:
            assert disturbed.values(field) == undisturbed.values(field)


def test_a_kill_while_results_are_replaced_leaves_none_that_claims_the_former_settings(
    fo_dataset, photos, tiny_model, tmp_path
):
    dataset = fo_dataset(photos(3))
    dataset.persistent = True
    options = {"model": tiny_model, "batch_size": 2, "device": "cpu", "progress": False}
    compute_ffa(dataset, foreground="none", weights="soft", pooling="cls", **options)

    # With a hash in place, its withdrawal is the first write of a commit and the vector the second.
    killed = run_until_killed(dataset, tiny_model, 3, tmp_path)
    dataset.reload()
    summary = compute_ffa(dataset, foreground="none", weights="soft", pooling="cls", **options)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert summary.counts["done"] == 3


def test_fields_and_record_of_a_persistent_dataset_survive_the_session(fo_dataset, photos, tiny_model):
    dataset = fo_dataset(photos(2))

    compute_ffa(dataset, model=tiny_model, foreground="none", device="cpu", progress=False)

    assert fo.load_dataset(dataset.name).get_run_info("ffa").config.counts["done"] == 2
