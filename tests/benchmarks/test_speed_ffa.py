"""The command that times whole FFA jobs: what it prints and writes, on a model small enough to be quick."""

import json
import subprocess
import sys

import pytest
from fiftyone_selfsame.benchmarks import speed
from fiftyone_selfsame.fixtures.model_folders import make_model_folder


def test_the_command_measures_encoder_and_whole_job_on_the_same_images(tmp_path):
    model = make_model_folder("dinov2", tmp_path / "tiny")
    options = ["--n", "3", "--repeats", "1", "--n-paper", "0", "--size", "56", "--model", str(model), "--device", "cpu"]
    command = [sys.executable, "-m", "fiftyone_selfsame.benchmarks.speed", "ffa", *options, "--json", "out.json"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out.json").read_text())
    encoder, job = record["rows"]
    assert (encoder["method"], job["method"]) == ("encoder", "ffa")
    assert encoder["images"] == job["images"] == 3
    assert job["share_of_encoder"] == pytest.approx(job["images_per_second"] / encoder["images_per_second"])
    assert job["peak_memory_mb"] >= job["added_memory_mb"] >= 0
    assert record["settings"]["size"] == 56
    assert "share_of_encoder" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"), [(["--n", "0"], "--n"), (["--images", "/no/such/folder"], "no JPEG or PNG files")]
)
def test_options_that_cannot_work_end_with_one_line(capsys, options, message):
    assert speed.main(["ffa", *options]) == 1

    assert message in capsys.readouterr().err
