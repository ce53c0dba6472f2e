import json
import subprocess
import sys

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.speed_million import pair_share
from fiftyone_selfsame.brain.pairs import Pairs


def as_pairs(*rows: tuple[int, int]) -> Pairs:
    i, j = np.array(rows, np.int32).T
    return Pairs(i, j, np.ones(len(rows), np.float32))


def test_the_share_of_pairs_counts_those_of_the_truth_alone():
    assert pair_share(as_pairs((0, 1), (0, 2), (1, 2), (3, 4)), as_pairs((0, 1), (0, 3), (3, 4)), 5) == 0.5


def test_both_engines_run_in_processes_of_their_own_on_any_number_of_vectors(tmp_path):
    pytest.importorskip("faiss")
    command = [sys.executable, "-m", "fiftyone_selfsame.benchmarks.speed", "million", "--n", "1500", "--dim", "16"]

    subprocess.run([*command, "--json", str(tmp_path / "out.json")], check=True, capture_output=True, timeout=300)

    rows = {row["method"]: row for row in json.loads((tmp_path / "out.json").read_text())["rows"]}
    assert set(rows) == {"exact", "faiss"}
    assert rows["exact"]["pairs"] > 200
    assert rows["faiss"]["recall"] == rows["faiss"]["estimated_recall"] == 1.0, "so few rows are one cell"
    assert all(row["peak_mb"] > row["added_mb"] for row in rows.values())
    assert all(row["seconds"] > 0 for row in rows.values())
