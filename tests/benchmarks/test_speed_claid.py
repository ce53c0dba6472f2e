"""The command that times the detector of CLAID: what it prints and demands, on grids small enough to be quick."""

import json

import numpy as np
import pytest
import torch
from fiftyone_selfsame.benchmarks import speed, speed_claid
from fiftyone_selfsame.brain.claid.hierarchy import detect

ENGINES = ["literal", "compiled", "numpy", "torch", "ncut"]


def test_the_command_compares_all_engines_on_the_same_maps(tmp_path, capsys):
    out = tmp_path / "out.json"

    status = speed.main(["claid", "--grids", "12x16", "9x14", "--dim", "32", "--device", "cpu", "--json", str(out)])

    rows = json.loads(out.read_text())["rows"]
    assert status == 0, capsys.readouterr().err
    assert [(row["method"], row["scope"]) for row in rows] == [
        (engine, scope) for scope in ("12×16×32", "9×14×32") for engine in ENGINES
    ]
    for row in rows:
        assert row["same_partitions"] == (None if row["method"] in ("literal", "ncut") else "yes")
        assert row["total_s"] == pytest.approx(row["affinity_s"] + row["clustering_s"])
        assert min(row["affinity_s"], row["clustering_s"]) > 0
        assert row["cuts"] is None or row["cuts"] >= 1
        literal = next(one for one in rows if (one["method"], one["scope"]) == ("literal", row["scope"]))
        assert row["total_ratio"] == pytest.approx(literal["total_s"] / row["total_s"])
        assert row["clustering_ratio"] == pytest.approx(literal["clustering_s"] / row["clustering_s"])
    assert "same_partitions" in capsys.readouterr().out


def test_an_engine_with_other_partitions_fails_the_command(monkeypatch, capsys):
    def other_options(method, tokens, repeats, now):
        timed = time(method, tokens, repeats, now)
        if method.name == "torch":
            timed.result.masks[0] = ~timed.result.masks[0]
        return timed

    time = speed_claid._time
    monkeypatch.setattr(speed_claid, "_time", other_options)

    assert speed.main(["claid", "--grids", "9x14", "--maps", "1", "--dim", "32", "--repeats", "1"]) == 1

    error = capsys.readouterr().err
    assert "torch on synthetic 9×14×32" in error
    assert "numpy" not in error.splitlines()[-1]


def test_photographs_come_from_the_golden_files(shared_dir):
    path = shared_dir / "reference" / "claid" / "img_b.npz"
    stored = np.load(path)["features"].astype(np.float32)

    tokens = speed_claid.photograph_map(path, 128)

    assert (tokens.shape, tokens.dtype) == ((45, 60, 128), np.float32)
    products = tokens.reshape(-1, 128) @ tokens.reshape(-1, 128).T
    np.testing.assert_allclose(products, stored @ stored.T, atol=1e-3 * np.abs(products).max())


def test_no_pair_of_a_map_is_at_the_threshold_of_a_link():
    tokens = speed_claid.synthetic_map(3, 20, 25, 16).reshape(500, 16).astype(np.float64)

    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)

    assert np.abs(unit @ unit.T - 0.2).min() > 3e-6


def test_a_synthetic_map_depends_on_its_seed_and_has_regions():
    first, again, other = (speed_claid.synthetic_map(seed, 30, 40, 64) for seed in (1, 1, 2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert len(detect(first)) > 5


def test_a_batch_is_filled_with_the_maps_turned_over_and_has_the_trees_of_its_images():
    maps = [speed_claid.synthetic_map(seed, 9, 14, 32) for seed in (0, 1)]

    row = speed_claid.time_batch(maps, 5, 1, torch.device("cpu"))

    assert (row["maps"], row["same_partitions"]) == (5, "yes")
    assert row["ms_per_image"] == pytest.approx(1000 * row["total_s"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--maps", "0"], "--reference"),
        (["--repeats", "0"], "--repeats"),
        (["--reference", "/no/such/folder"], "check --reference"),
        (["--grids", "45x60", "--maps", "0", "--dim", "8", "--reference"], "--dim 8 is too small"),
    ],
)
def test_options_that_cannot_work_end_with_one_line(capsys, shared_dir, options, message):
    if options[-1] == "--reference":
        options = [*options, str(shared_dir / "reference")]

    assert speed.main(["claid", *options]) == 1

    assert message in capsys.readouterr().err


def test_without_the_tests_there_is_nothing_to_compare_with(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed_claid, "_LITERAL", tmp_path / "absent.py")

    assert speed.main(["claid"]) == 1

    assert "in a checkout of the repository" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_gpu_adds_a_row_per_kind_of_map(tmp_path):
    out = tmp_path / "out.json"
    options = ["--grids", "12x16", "--dim", "32", "--batch-size", "6", "--device", "cuda", "--json", str(out)]

    assert speed.main(["claid", *options]) == 0

    assert json.loads(out.read_text())["rows"][-1]["method"] == "torch, 6 at once, cuda"
