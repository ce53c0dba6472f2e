"""The local engine with a method that needs no model: order of writing, batches, resume, failures, records."""

from dataclasses import dataclass
from typing import ClassVar

import fiftyone as fo
import numpy as np
import pytest
from fiftyone_selfsame.brain.errors import ConfigError, ImageError, SelfsameError
from fiftyone_selfsame.fiftyone_plugin.dataset_io import FieldSpec
from fiftyone_selfsame.fiftyone_plugin.engine import local
from fiftyone_selfsame.fiftyone_plugin.engine.local import Job, Progress, stream
from fiftyone_selfsame.fiftyone_plugin.runs import load_record


@dataclass
class Decoded:
    name: str
    group_key: tuple


class NameLength:
    """Writes the length of the file's name; 'bad' files fail at decoding, 'worse' ones on the device."""

    name = "name_length"
    fields: ClassVar = {
        "length": FieldSpec(fo.IntField, "length of the name"),
        "length_error": FieldSpec(fo.StringField, "why it failed"),
        "length_provenance": FieldSpec(fo.StringField, "what it was made from"),
    }
    required = ("length",)
    error_field = "length_error"
    provenance_field = "length_provenance"
    inputs = ()

    def __init__(self, memory=None, broken=(), **config):
        self.config = config
        self.batches = []
        self._memory = memory
        self._broken = broken

    def prepare(self, item):
        name = item.filepath.rsplit("/", 1)[-1]
        if name.startswith("bad"):
            raise ImageError(f"{item.filepath}: is bad")
        return Decoded(name, (len(name),))

    def run(self, batch):
        self.batches.append([decoded.name for decoded in batch])
        if self._memory is not None and len(batch) > self._memory:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if any(decoded.name.startswith(tuple(self._broken)) for decoded in batch if self._broken):
            raise ValueError("worse than bad")
        return [{"length": len(decoded.name)} for decoded in batch]

    def blank(self, item):
        return {"length": None}

    def input_stamp(self, item):
        return ""

    def is_intact(self, item):
        return True


def run(samples, method, *, batch_size=4, **options):
    """Exhausts the generator; returns all progress reports and the summary."""
    reports = []
    steps = stream(Job(samples, method, run_key="length", label="Measuring", batch_size=batch_size, **options))
    while True:
        try:
            reports.append(next(steps))
        except StopIteration as end:
            return reports, end.value


@pytest.fixture
def files(tmp_path):
    def make(*names):
        paths = [tmp_path / name for name in names]
        for path in paths:
            path.write_text(path.name)
        return paths

    return make


def test_results_land_in_the_right_samples_and_the_last_report_is_complete(fo_dataset, files):
    dataset = fo_dataset(files(*[f"{'x' * (1 + i % 3)}{i}.png" for i in range(11)]))

    reports, summary = run(dataset, NameLength())

    assert dataset.values("length") == [len(path.rsplit("/", 1)[-1]) for path in dataset.values("filepath")]
    assert summary.counts == {"total": 11, "done": 11, "skipped": 0, "failed": 0}
    assert reports[0] == Progress(0, 11, label="Measuring")
    assert reports[-1].fraction == 1.0


def test_batches_hold_samples_of_one_group_and_no_more_than_the_batch_size(fo_dataset, files):
    method = NameLength()

    run(fo_dataset(files(*[f"{'x' * (1 + i % 2)}{i}.png" for i in range(10)])), method, batch_size=2)

    assert sorted(len(batch) for batch in method.batches) == [1, 1, 2, 2, 2, 2]
    assert all(len({len(name) for name in batch}) == 1 for batch in method.batches)


def test_many_groups_do_not_pile_up_in_memory(fo_dataset, files):
    method = NameLength()
    dataset = fo_dataset(files(*["x" * (1 + i) + ".png" for i in range(20)]))

    run(dataset, method, batch_size=2)

    assert dataset.values("length") == [len("x" * (1 + i) + ".png") for i in range(20)]


def test_a_finished_job_does_nothing_a_second_time_and_overwrite_does_it_again(fo_dataset, files):
    dataset = fo_dataset(files("a.png", "b.png"))
    run(dataset, NameLength(scale=1))

    idle, forced = NameLength(scale=1), NameLength(scale=1)
    _, again = run(dataset, idle)
    _, overwritten = run(dataset, forced, overwrite=True)

    assert (again.counts["done"], again.counts["skipped"], idle.batches) == (0, 2, [])
    assert overwritten.counts["done"] == 2


def test_a_changed_config_a_changed_file_and_a_cleared_value_are_computed_again(fo_dataset, files):
    a, b, c = files("a.png", "b.png", "c.png")
    dataset = fo_dataset([a, b, c])
    run(dataset, NameLength(scale=1))

    _, other_config = run(dataset, NameLength(scale=2))
    b.write_text("other content")
    third = dataset.match(fo.ViewField("filepath") == str(c)).first()
    third["length"] = None
    third.save()
    method = NameLength(scale=2)
    _, other_file = run(dataset, method)

    assert other_config.counts["done"] == 3
    assert other_file.counts["done"] == 2
    assert sorted(name for batch in method.batches for name in batch) == ["b.png", "c.png"]


def test_failures_are_explained_clear_stale_results_and_recover(fo_dataset, files):
    bad, good = files("bad.png", "good.png")
    dataset = fo_dataset([bad, good])
    dataset.add_sample_field("length", fo.IntField)
    dataset.set_values("length", [99, None])

    _, summary = run(dataset, NameLength())
    failed = dataset.values("length_error")
    dataset.set_values("filepath", [str(good), str(good)])
    _, recovered = run(dataset, NameLength())

    assert summary.counts == {"total": 2, "done": 1, "skipped": 0, "failed": 1}
    assert failed == [f"{bad}: is bad", None]
    assert summary.failed == {dataset.first().id: f"{bad}: is bad"}
    assert recovered.counts == {"total": 2, "done": 1, "skipped": 1, "failed": 0}
    assert dataset.values("length_error") == [None, None]


def test_a_failing_sample_loses_the_result_of_its_former_picture(fo_dataset, files):
    good, bad = files("good.png", "bad.png")
    dataset = fo_dataset([good])
    run(dataset, NameLength())

    dataset.set_values("filepath", [str(bad)])
    run(dataset, NameLength())

    assert dataset.first()["length"] is None
    assert dataset.first()["length_provenance"] is None


def test_one_spoiled_sample_does_not_take_its_batch_with_it(fo_dataset, files):
    dataset = fo_dataset(files("1.png", "2.png", "w.png", "4.png"))

    _, summary = run(dataset, NameLength(broken=("w",)))

    assert dataset.values("length") == [5, 5, None, 5]
    assert list(summary.failed.values()) == [f"{dataset.values('filepath')[2]}: ValueError: worse than bad"]


def test_a_fault_that_hits_the_whole_first_batch_stops_the_job_and_leaves_results_alone(fo_dataset, files):
    dataset = fo_dataset(files("1.png", "2.png", "3.png"))
    run(dataset, NameLength(scale=1))

    with pytest.raises(SelfsameError, match=r"fails on every sample: .*worse than bad"):
        run(dataset, NameLength(scale=2, broken=("1", "2", "3")))

    assert dataset.values("length") == [5, 5, 5]
    assert load_record(dataset, "length")["status"] == "failed"


def test_too_little_device_memory_halves_the_batch(fo_dataset, files):
    dataset = fo_dataset(files(*[f"{i}.png" for i in range(8)]))
    method = NameLength(memory=2)

    _, summary = run(dataset, method, batch_size=8)

    assert dataset.values("length") == [5] * 8
    assert [len(batch) for batch in method.batches] == [8, 4, 2, 2, 2, 2]
    assert "out of device memory" in summary.notices[0]


def test_a_single_image_that_does_not_fit_is_a_failure_of_that_sample(fo_dataset, files):
    dataset = fo_dataset(files("1.png"))

    _, summary = run(dataset, NameLength(memory=0))

    assert "not enough memory even for this image alone" in summary.failed[dataset.first().id]


def test_the_first_failure_raises_on_request_and_names_sample_and_file(fo_dataset, files):
    dataset = fo_dataset(files("good.png", "bad.png"))

    with pytest.raises(SelfsameError) as caught:
        run(dataset, NameLength(), skip_failures=False, num_workers=1, batch_size=1)

    assert dataset.last().id in str(caught.value)
    assert "bad.png: is bad" in str(caught.value)
    assert load_record(dataset, "length")["status"] == "failed"
    assert dataset.first()["length"] == 8


def test_closing_the_generator_commits_what_was_done_and_says_so(fo_dataset, files, monkeypatch):
    monkeypatch.setattr(local, "_REPORT_SECONDS", 0.0)
    dataset = fo_dataset(files(*[f"{i}.png" for i in range(40)]))
    steps = stream(Job(dataset, NameLength(), run_key="length", label="", batch_size=1, num_workers=1))
    done = next(report.done for report in steps if report.done >= 3)

    steps.close()

    record = load_record(dataset, "length")
    assert record["status"] == "interrupted"
    assert dataset.count("length") == dataset.count("length_provenance") == record["counts"]["done"] >= done


def test_commits_are_made_on_the_way(fo_dataset, files, monkeypatch):
    monkeypatch.setattr(local, "COMMIT_EVERY", 2)
    sizes = []
    write_rows = local.write_rows
    monkeypatch.setattr(
        local, "write_rows", lambda samples, rows, field: sizes.append(len(rows)) or write_rows(samples, rows, field)
    )

    run(fo_dataset(files(*[f"{i}.png" for i in range(7)])), NameLength())

    assert sizes == [2, 2, 2, 1]


def test_a_commit_that_fails_ends_the_job_with_its_error(fo_dataset, files, monkeypatch):
    def fail(*_):
        raise OSError("database is gone")

    monkeypatch.setattr(local, "write_rows", fail)

    with pytest.raises(OSError, match="database is gone"):
        run(fo_dataset(files("1.png", "2.png")), NameLength())


def test_provenance_is_withdrawn_before_and_written_after_all_other_fields(fo_dataset, files, monkeypatch):
    dataset = fo_dataset(files("1.png"))
    run(dataset, NameLength(scale=1))
    written = []
    set_values = fo.Dataset.set_values

    def spy(self, path, values, **options):
        written.append((path, next(iter(values.values())) is None))
        return set_values(self, path, values, **options)

    monkeypatch.setattr(fo.Dataset, "set_values", spy)
    run(dataset, NameLength(scale=2))

    assert written[0] == ("length_provenance", True)
    assert written[-1] == ("length_provenance", False)
    assert len(written) == 4


def test_views_are_respected_and_their_filters_do_not_move_the_ground_under_the_job(fo_dataset, files):
    dataset = fo_dataset(files(*[f"{i}.png" for i in range(6)]))
    run(dataset, NameLength())
    dataset.clear_sample_field("length")
    view = dataset.exists("length", False).sort_by("filepath", reverse=True).limit(4)

    _, summary = run(view, NameLength())

    assert summary.counts["done"] == 4
    assert dataset.values("length") == [None, None, 5, 5, 5, 5]


def test_samples_deleted_during_the_job_are_left_out(fo_dataset, files):
    dataset = fo_dataset(files("1.png", "2.png"))
    steps = stream(Job(dataset, NameLength(), run_key="length", label="", batch_size=1))
    next(steps)
    dataset.delete_samples(dataset.last())

    for _ in steps:
        pass

    assert dataset.values("length") == [5]


@pytest.mark.parametrize("option", ["batch_size", "num_workers"])
def test_impossible_options_are_refused_before_anything_is_written(fo_dataset, files, option):
    dataset = fo_dataset(files("1.png"))

    with pytest.raises(ConfigError, match=f"{option}=0"):
        run(dataset, NameLength(), **{option: 0})

    assert not dataset.has_field("length")


def test_a_field_of_another_type_is_not_overwritten(fo_dataset, files):
    dataset = fo_dataset(files("1.png"))
    dataset.add_sample_field("length", fo.StringField)

    with pytest.raises(ConfigError, match=r"'length'.*StringField.*choose another field name"):
        run(dataset, NameLength())


def test_memory_does_not_depend_on_what_else_samples_hold(fo_dataset, files, monkeypatch):
    dataset = fo_dataset(files(*[f"{i}.png" for i in range(5)]))
    dataset.set_values("heavy", [np.zeros(1000, np.float32)] * 5)
    monkeypatch.setattr(fo.Sample, "__init__", lambda *a, **k: pytest.fail("a whole sample was loaded"))

    _, summary = run(dataset, NameLength())

    assert summary.counts["done"] == 5
