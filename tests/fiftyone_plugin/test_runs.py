"""Run records: what they hold, who may replace them, and that any process can read them without this package."""

import subprocess
import sys

import fiftyone as fo
import pytest
from fiftyone_selfsame.brain.errors import ConfigError
from fiftyone_selfsame.fiftyone_plugin.runs import (
    MAX_FAILURES,
    RunSummary,
    check_run_key,
    last_run,
    list_records,
    load_record,
    load_results,
    register_run,
    run_key_for,
)


def summary_of(key, method="compute_ffa", **facts):
    return RunSummary(key, method, counts={"total": 3, "done": 2, "failed": 1}, **facts)


def test_a_record_holds_what_was_done_and_with_what(fo_dataset):
    dataset = fo_dataset(["a.png"])
    summary = summary_of("ffa", seconds=2.0, images_per_second=1.0, failed={"id": "a.png: is broken"}, notices=["hm"])

    register_run(dataset.limit(1), summary, {"field": "ffa", "weights_hash": "abc"})
    record = load_record(dataset, "ffa")

    assert record["method"] == "compute_ffa"
    assert record["plugin"] == "@selfsame/curation"
    assert record["status"] == "completed"
    assert record["config"] == {"field": "ffa", "weights_hash": "abc"}
    assert record["counts"] == {"total": 3, "done": 2, "failed": 1}
    assert (record["seconds"], record["images_per_second"]) == (2.0, 1.0)
    assert record["failed"] == {"id": "a.png: is broken"}
    assert record["notices"] == ["hm"]


def test_a_second_run_with_the_same_key_replaces_the_record(fo_dataset):
    dataset = fo_dataset()
    register_run(dataset, summary_of("ffa"), {"field": "ffa"}, results={"pairs": "old"})

    register_run(dataset, summary_of("ffa"), {"field": "ffa", "size": 56})

    assert load_record(dataset, "ffa")["config"] == {"field": "ffa", "size": 56}
    assert load_results(dataset, "ffa") is None
    assert dataset.list_runs() == ["ffa"]


def test_bulk_results_are_stored_beside_the_record(fo_dataset):
    dataset = fo_dataset()

    register_run(dataset, summary_of("dup", "find_duplicates"), {}, results={"pairs": "AAECAw==", "n": 4})

    assert load_results(dataset, "dup") == {"pairs": "AAECAw==", "n": 4}


def test_a_million_failures_do_not_make_a_record_that_cannot_be_stored(fo_dataset):
    dataset = fo_dataset()
    failed = {f"{number:024x}": "x" * 200 for number in range(MAX_FAILURES + 500)}

    register_run(dataset, summary_of("ffa", failed=failed), {})

    assert len(load_record(dataset, "ffa")["failed"]) == MAX_FAILURES


def test_records_are_found_by_method_and_field_in_the_order_of_time(fo_dataset):
    dataset = fo_dataset()
    dataset.register_run("foreign", dataset.init_run(method="somebody", plugin="else"))
    register_run(dataset, summary_of("z"), {"field": "ffa"})
    register_run(dataset, summary_of("a"), {"field": "other"})
    register_run(dataset, summary_of("m", "find_duplicates"), {"field": "ffa"})

    assert [record["key"] for record in list_records(dataset)] == ["z", "a", "m"]
    assert last_run(dataset, method="compute_ffa")["key"] == "a"
    assert last_run(dataset, field="ffa")["key"] == "m"
    assert last_run(dataset, method="tag_duplicates") is None


def test_keys_of_others_are_not_taken(fo_dataset):
    dataset = fo_dataset()
    dataset.register_run("foreign", dataset.init_run(method="somebody"))
    register_run(dataset, summary_of("dup", "find_duplicates"), {})

    check_run_key(dataset, "dup", "find_duplicates")
    with pytest.raises(ConfigError, match="'foreign' is taken by a run that is not Selfsame's"):
        check_run_key(dataset, "foreign", "compute_ffa")
    with pytest.raises(ConfigError, match="'dup' is taken by a run of find_duplicates"):
        check_run_key(dataset, "dup", "compute_ffa")
    with pytest.raises(ConfigError, match=r"'my key' is not a valid name.*'my_key'"):
        check_run_key(dataset, "my key", "compute_ffa")


@pytest.mark.parametrize(("name", "key"), [("ffa", "ffa"), ("gt.detections", "gt_detections"), ("3d", "run_3d")])
def test_any_field_name_makes_a_valid_key(name, key):
    assert run_key_for(name) == key


def test_a_process_without_this_package_can_read_the_record(fo_dataset, tmp_path):
    dataset = fo_dataset(["a.png"])
    dataset.persistent = True
    register_run(dataset.limit(1), summary_of("ffa"), {"field": "ffa"}, results={"pairs": "x"})
    script = (
        "import sys; sys.modules['fiftyone_selfsame'] = None\n"
        "import fiftyone as fo\n"
        f"dataset = fo.load_dataset({dataset.name!r})\n"
        "info = dataset.get_run_info('ffa')\n"
        "print('READ', type(info.config).__module__, info.config.method, info.config.counts['done'],"
        " dataset.load_run_results('ffa').data['pairs'], len(dataset.load_run_view('ffa')) if hasattr(dataset,"
        " 'load_run_view') else 1)\n"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)

    assert "READ fiftyone.core.runs compute_ffa 2 x 1" in done.stdout, done.stderr


def test_the_summary_reads_as_a_sentence():
    summary = RunSummary(
        "ffa",
        "compute_ffa",
        {"total": 1200, "done": 1190, "failed": 10},
        seconds=60.0,
        images_per_second=19.83,
        failed={str(number): "broken" for number in range(10)},
        notices=["Mind the gap."],
    )

    lines = str(summary).splitlines()

    assert lines[0] == "compute_ffa: 1,200 total, 1,190 done, 10 failed in 60.0 s (19.83 images/s)"
    assert lines[1] == "Mind the gap."
    assert lines[2] == "failed 0: broken"
    assert lines[-1] == "... and 5 more failures; see the error field"


def test_the_view_that_was_run_on_is_stored(fo_dataset):
    dataset = fo_dataset(["a.png", "b.png"])

    register_run(dataset.limit(1), summary_of("ffa"), {})

    assert len(fo.core.runs.Run.load_run_view(dataset, "ffa")) == 1
