import json
import subprocess
import sys

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.speed_panels import GROUPED, THRESHOLD, planted_groups, planted_pairs


def test_groups_are_numbered_by_size_and_hold_the_promised_share_of_the_images():
    label = planted_groups(5000, np.random.default_rng(0))

    sizes = np.bincount(label[label >= 0])
    assert sizes.min() >= 2
    assert (np.diff(sizes) <= 0).all()
    assert abs((label >= 0).mean() - GROUPED) < 0.05


def test_pairs_above_the_threshold_are_exactly_those_within_groups():
    label = planted_groups(400, np.random.default_rng(1))

    i, j, similarity = planted_pairs(label, 2000, np.random.default_rng(2))

    inside = {(a, b) for a in range(400) for b in range(a + 1, 400) if label[a] == label[b] >= 0}
    above = similarity >= THRESHOLD
    found = set(zip(i[above].tolist(), j[above].tolist(), strict=True))
    assert found == inside
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == len(i)
    assert 1500 < len(i) <= 2000


@pytest.mark.slow
def test_the_command_times_every_action_in_the_real_app(tmp_path):
    options = {"--images": "400", "--pairs": "900", "--repeat": "2", "--json": str(tmp_path / "out.json")}
    command = [sys.executable, "-m", "fiftyone_selfsame.benchmarks.speed", "panels"]

    subprocess.run([*command, *(word for option in options.items() for word in option)], check=True, timeout=300)

    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"duplicates", "objects"}
    assert all(0 < row["median_ms"] <= row["longest_ms"] for row in rows)
