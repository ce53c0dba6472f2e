import json
import mmap
import subprocess
import sys

import numpy as np
from fiftyone_selfsame.benchmarks.speed_duplicates import PeakMemory, compare_pairs, planted_copies


def test_a_fifth_of_the_vectors_are_near_copies_of_others():
    vectors = planted_copies(500, 256, seed=0)

    cosines = vectors @ vectors.T - 2 * np.eye(500)

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert 100 <= (cosines.max(axis=1) > 0.98).sum() <= 200
    assert np.median(cosines) < 0.5


def test_missing_and_wrong_pairs_are_counted_except_at_the_threshold_itself():
    truth = np.array([[0, 1, 0.99], [2, 3, 0.95], [4, 5, 0.9 + 1e-8]])
    found = np.array([[0, 1, 0.99], [1, 2, 0.97], [6, 7, 0.9 + 1e-8]])

    assert compare_pairs(found, truth, 10, 0.9) == (1, 1)


def test_peak_memory_counts_what_was_freed_again():
    # Fresh pages: an array might be given memory that the process has kept from earlier ones.
    with PeakMemory() as memory, mmap.mmap(-1, 40_000_000) as pages:
        pages.write(bytes(1) * len(pages))

    assert 30 < memory.added_mb < 80


def test_the_command_compares_all_engines_in_processes_of_their_own(tmp_path):
    command = [
        sys.executable,
        "-m",
        "fiftyone_selfsame.benchmarks.speed",
        "duplicates",
        "--sizes",
        "300",
        "--dim",
        "16",
    ]

    subprocess.run([*command, "--json", str(tmp_path / "out.json")], check=True, capture_output=True, timeout=300)

    rows = {row["method"]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert set(rows) == {"selfsame", "selfsame_mapped", "fiftyone_brain", "brute_force"}
    assert rows["selfsame"]["pairs"] == rows["brute_force"]["pairs"] > 0
    assert (rows["selfsame"]["missed_pairs"], rows["selfsame"]["extra_pairs"]) == (0, 0)
    assert rows["selfsame"]["duplicates"] == rows["fiftyone_brain"]["duplicates"] > 0
    assert abs(rows["selfsame_mapped"]["pairs"] - rows["selfsame"]["pairs"]) <= 1, "float16 moves hardly any"
    assert rows["fiftyone_brain"]["speedup"] == 1.0
