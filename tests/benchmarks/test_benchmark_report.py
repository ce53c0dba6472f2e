"""The table that people read and the JSON that programs read."""

import json

import numpy as np
import pytest
from fiftyone_selfsame.benchmarks.quality import main
from fiftyone_selfsame.benchmarks.report import emit, format_markdown, format_table


def test_a_table_has_all_columns_in_order_with_words_left_and_figures_right():
    rows = [{"method": "ffa", "n": 204, "top1": 0.51234}, {"method": "full_average", "n": 7, "map": float("nan")}]

    lines = format_table(rows).splitlines()

    assert lines == [
        "method          n   top1  map",
        "------------  ---  -----  ---",
        "ffa           204  0.512    -",
        "full_average    7      -    -",
    ]


def test_numpy_figures_and_large_ones_are_readable():
    assert (
        format_table([{"x": np.float32(0.25), "y": np.int64(3), "z": 12345.678}]).splitlines()[-1]
        == "0.250  3  12,345.7"
    )


def test_a_table_for_the_documentation_writes_fractions_without_a_leading_zero():
    rows = [{"method": "ffa", "top1": 0.51234, "n": 204}, {"method": "chance", "top1": None, "n": 0}]

    assert format_markdown(rows).splitlines() == [
        "| method | top1 | n |",
        "| --- | ---: | ---: |",
        "| ffa | .512 | 204 |",
        "| chance | - | 0 |",
    ]


def test_a_table_without_rows_is_not_an_error():
    assert format_table([]) == "\n"


def test_the_json_holds_rows_data_settings_and_machine(tmp_path, capsys):
    path = tmp_path / "new" / "folder" / "out.json"
    rows = [{"method": "ffa", "top1": np.float32(0.5), "n": np.int64(2), "ari": float("nan"), "ok": True}]

    emit(rows, data=tmp_path, settings={"sizes": (1, 2), "model": None}, json_path=path, title="A title")

    record = json.loads(path.read_text())
    assert record["rows"] == [{"method": "ffa", "top1": 0.5, "n": 2, "ari": None, "ok": True}]
    assert record["data"] == str(tmp_path)
    assert record["settings"] == {"sizes": [1, 2], "model": None}
    assert record["machine"]["torch"]
    assert record["machine"]["cpu_count"] >= 1
    assert capsys.readouterr().out.startswith("\nA title\nmethod")


@pytest.mark.parametrize("command", ["identity", "neardup", "foreground", "keypoints", "embedded"])
def test_every_quality_command_explains_itself_and_takes_data_and_json(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])

    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "--data" in text
    assert "--json" in text
