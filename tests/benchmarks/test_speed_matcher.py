import json

import pytest
import torch
from fiftyone_selfsame.benchmarks.speed import main
from fiftyone_selfsame.benchmarks.speed_matcher import (
    OURS,
    WAYS,
    channels_first_pool,
    check_agreement,
    defined_pool,
    verdicts,
)
from fiftyone_selfsame.brain.errors import SelfsameError

SHAPE = (12, 9, 5, 4)
SMALL = ["--p", "12", "--q", "9", "--dim", "5", "--k", "4", "--repeats", "1"]


@pytest.mark.parametrize("pool", [defined_pool, channels_first_pool])
def test_the_plain_ways_take_the_largest_product_of_each_bin(pool):
    a, b = torch.tensor([[1.0], [-2.0]]), torch.tensor([[3.0], [5.0]])
    sim = torch.tensor([[2.0, -1.0], [0.5, 4.0]])

    pooled = pool(a, b, sim, 1)

    assert pooled.tolist() == [[[2.0, 20.0]]], "2 is sim[0, 0] * a[0], 20 is sim[1, 1] * b[1]"


def test_ways_that_differ_are_refused(monkeypatch):
    check_agreement(SHAPE)
    monkeypatch.setitem(WAYS, OURS, lambda *inputs: defined_pool(*inputs) * 1.001)

    with pytest.raises(SelfsameError, match="differs"):
        check_agreement(SHAPE)


def test_wrong_gradients_are_refused(monkeypatch):
    def without_b(a, b, sim, k):
        return defined_pool(a, b.detach() + 0 * b, sim, k)

    monkeypatch.setitem(WAYS, OURS, without_b)

    with pytest.raises(SelfsameError, match="gradients of b"):
        check_agreement(SHAPE)


def test_each_ratio_is_held_against_what_is_required_beside_the_tensor_as_defined():
    row = {"method": "forward", "rival": "as defined", "faster": 50.0, "smaller": 30.0, "smaller_result_counted": 29.9}
    other = {**row, "rival": "channels first", "faster": 1.0}

    assert [line.rsplit(" ", 1)[1] for line in verdicts([row, other])] == ["pass", "pass", "FAIL"]


def test_both_passes_are_measured_in_processes_of_their_own(tmp_path, capsys):
    out = tmp_path / "out.json"

    assert main(["matcher", *SMALL, "--json", str(out)]) == 0

    rows = json.loads(out.read_text())["rows"]
    assert [row["method"] for row in rows] == ["forward"] * 2 + ["forward + backward"] * 2
    assert all(row["rival_ms"] > 0 and row["ours_ms"] > 0 for row in rows)
    assert all(row["result_mb"] == pytest.approx(4 * 4 * 10 * 4 / 2**20) for row in rows)
    assert capsys.readouterr().out.count("required") == 6


def test_options_must_be_positive(capsys):
    assert main(["matcher", "--k", "0"]) == 1
    assert "at least 1" in capsys.readouterr().err
