"""The command that times matching and its scores: what it prints and demands, on grids small enough to be quick."""

import json

import pytest
import torch
from fiftyone_selfsame.benchmarks import literal_correspondence, speed, speed_correspondence

SMALL = ["--grid", "16", "--dim", "24", "--keypoints", "7", "--pairs", "3", "--repeats", "1"]


def test_the_command_compares_both_forms_of_every_job(tmp_path, capsys):
    out = tmp_path / "out.json"

    status = speed.main(["correspondence", *SMALL, "--json", str(out)])

    rows = json.loads(out.read_text())["rows"]
    assert status == 0, capsys.readouterr().err
    jobs = speed_correspondence.JOBS
    assert [(row["method"], row["group"]) for row in rows] == [
        (method, job) for job in jobs for method in ("literal", "selfsame")
    ]
    for slow, fast in zip(rows[::2], rows[1::2], strict=True):
        assert (slow["pairs"], fast["pairs"]) == (2, 3)
        assert fast["times_the_literal"] == pytest.approx(slow["seconds_per_pair"] / fast["seconds_per_pair"])
        assert fast["pairs_per_second"] == pytest.approx(1 / fast["seconds_per_pair"])
    assert "times_the_literal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("function", "name"),
    [("match", "matches"), ("imd_gap", "imd_gap"), ("low_similarity", "low_similarity"), ("_spread", "softmax_spread")],
)
def test_forms_that_disagree_fail_the_command(monkeypatch, capsys, function, name):
    original = getattr(literal_correspondence, function)

    def other(*arguments):
        found = original(*arguments)
        if function == "match":
            return found[0] + 1, found[1]
        return [value + 0.1 for value in found] if isinstance(found, list) else found + 0.1

    monkeypatch.setattr(literal_correspondence, function, other)

    assert speed.main(["correspondence", *SMALL]) == 1
    assert name in capsys.readouterr().err


def test_numbers_that_cannot_work_are_refused(capsys):
    assert speed.main(["correspondence", "--pairs", "1"]) == 1
    assert "--literal-pairs" in capsys.readouterr().err


@pytest.mark.gpu
def test_a_device_adds_rows(capsys):
    assert torch.cuda.is_available()
    assert speed.main(["correspondence", *SMALL, "--device", "cuda"]) == 0
    assert capsys.readouterr().out.count("cuda") == len(speed_correspondence.JOBS)
