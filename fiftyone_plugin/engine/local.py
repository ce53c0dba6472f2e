"""The local engine: decode threads → batches of one size → device → background writer; one process, one device.

Threads, not processes, because immediate operators run inside the App's server. The device (the thread that iterates
over :func:`stream`) waits for pictures only when decoding is the bottleneck, and never for disk or database.
"""

import logging
import sys
import time
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Protocol

import fiftyone.core.collections as foc

from ...brain.errors import ConfigError, ImageError, SelfsameError
from ..dataset_io import (
    FieldSpec,
    Row,
    SampleItem,
    SampleReader,
    declare_fields,
    readable_and_internal,
    show_in_sidebar,
    write_rows,
)
from ..provenance import config_hash, sample_provenance
from ..runs import RunSummary, check_run_key, register_run
from .queues import BackgroundWriter, DecodePool

logger = logging.getLogger(__name__)

# Media types that are opened as images; FiftyOne calls a file with an unusual ending "unknown".
_IMAGE_TYPES = ("image", "unknown")

# A commit costs one round trip per field: hundreds of samples make it cheap, seconds bound what a kill can lose.
COMMIT_EVERY = 256
COMMIT_SECONDS = 10.0

# Progress is reported no more often than this many seconds: each report may travel to a browser.
_REPORT_SECONDS = 0.2


@dataclass(frozen=True)
class Progress:
    """How far a job is; ``done + failed + skipped`` of ``total`` samples are settled.

    Attributes:
        label: what is happening, as a user would say it.
    """

    done: int
    total: int
    failed: int = 0
    skipped: int = 0
    label: str = ""

    @property
    def settled(self) -> int:
        """Samples that need no more work."""
        return self.done + self.failed + self.skipped

    @property
    def fraction(self) -> float:
        """Share of the samples that is settled, in [0, 1]."""
        return self.settled / self.total if self.total else 1.0


class Prepared(Protocol):
    """One decoded sample; only samples with equal group keys share a batch."""

    group_key: Hashable


class Method(Protocol):
    """What a computation offers to an engine.

    Attributes:
        name: the method's name in the run record (``"compute_ffa"`` ...).
        fields: the fields that it writes, by path; declared by the engine before anything is written.
        required: those of them that must hold a value for a stored result to count.
        error_field: where the reason of a failure goes.
        provenance_field: where the provenance hash goes.
        inputs: paths of label values that the method needs.
        config: JSON-able settings with models and weights hashes; a change makes earlier results stale.
    """

    name: str
    fields: Mapping[str, FieldSpec]
    required: Sequence[str]
    error_field: str
    provenance_field: str
    inputs: Sequence[str]
    config: Mapping[str, Any]

    def prepare(self, item: SampleItem) -> Prepared:
        """Decodes one sample; runs in a worker thread; raises :class:`ImageError` where the sample is at fault."""
        ...

    def run(self, batch: Sequence[Any]) -> list[dict[str, Any]]:
        """Computes the field values of prepared samples with equal group keys, one dict (path → value) per sample.

        A value may be a future, if something that is not the device's work (writing a file) is still to be done; a
        text for the error field makes the sample a failure whose other values are kept.
        """
        ...

    def blank(self, item: SampleItem) -> dict[str, Any]:
        """The values that replace a stale result when the sample fails."""
        ...

    def input_stamp(self, item: SampleItem) -> str:
        """Hash of the labels that the result depends on besides the image; a change makes the result stale."""
        ...

    def is_intact(self, item: SampleItem) -> bool:
        """Whether what a stored result refers to outside the database (a mask file) is still there."""
        ...


@dataclass(frozen=True)
class Job:
    """A view, a method and how to run it.

    Attributes:
        samples: flat collection of images (see :func:`dataset_io.image_samples`).
        batch_size: most samples on the device at once.
        num_workers: decode threads.
        overwrite: recompute results that are still valid.
        skip_failures: record failures and go on; otherwise the first one raises.
        finish: runs after the last sample is written and before the record is; may add to the summary.
    """

    samples: foc.SampleCollection
    method: Method
    run_key: str
    label: str
    batch_size: int
    num_workers: int = 2
    overwrite: bool = False
    skip_failures: bool = True
    finish: Callable[[RunSummary], Iterator[Progress]] | None = None


def stream(job: Job) -> Generator[Progress, None, RunSummary]:
    """Runs a job; iterate over it to let it work, its return value is the summary.

    What was finished before an exception (or before the generator is closed) is committed, and the run record says
    that the run did not complete.

    Raises:
        ConfigError: an option cannot work; nothing is written.
        SelfsameError: the first failure with ``skip_failures=False``, or a fault that hits every sample.
    """
    check_counts(job.batch_size, job.num_workers)
    check_run_key(job.samples, job.run_key, job.method.name)
    declare_fields(job.samples, job.method.fields, {"method": job.method.name, **job.method.config})
    show_in_sidebar(job.samples, *readable_and_internal(job.method.fields))
    run = _Run(job)
    try:
        yield run.progress()
        yield from run.samples()
        if job.finish is not None:
            yield from job.finish(run.summary)
    except BaseException as error:
        failed = isinstance(error, Exception)
        run.register("failed" if failed else "interrupted", str(error) if failed else None)
        raise
    run.register("completed")
    yield run.progress()
    return run.summary


def check_counts(batch_size: int | None, num_workers: int) -> None:
    """Refuses numbers that cannot work; a batch size of None is one that is still to be chosen.

    Raises:
        ConfigError: a number is below 1, or none at all.
    """
    for name, value in (("batch_size", batch_size), ("num_workers", num_workers)):
        if value is not None and not (isinstance(value, Integral) and value >= 1):
            raise ConfigError(f"{name}={value!r} must be a whole number of at least 1")


@dataclass
class _Decoded:
    item: SampleItem
    prepared: Any
    provenance: str


@dataclass
class _Run:
    """The state of one pass over the samples."""

    job: Job
    summary: RunSummary = field(init=False)
    done: int = 0
    skipped: int = 0

    def __post_init__(self) -> None:
        method = self.job.method
        self.summary = RunSummary(self.job.run_key, method.name)
        self._started = self._reported = time.perf_counter()
        self._processed = 0.0
        self._config_hash = config_hash(method.name, method.config)
        self._reader = SampleReader(self.job.samples, method.inputs, method.required, method.provenance_field)
        self._batch_size = self.job.batch_size
        self._waiting: dict[Hashable, list[_Decoded]] = {}

    def progress(self) -> Progress:
        failed = len(self.summary.failed)
        return Progress(self.done, len(self._reader.ids), failed, self.skipped, self.job.label)

    def samples(self) -> Iterator[Progress]:
        """Decodes, computes and writes everything that is not up to date."""
        job, field_name = self.job, self.job.method.provenance_field

        def commit(rows: list[Row]) -> None:
            write_rows(job.samples, [_settle(row) for row in rows], field_name)

        writer = BackgroundWriter(commit, COMMIT_EVERY, COMMIT_SECONDS)
        with writer, DecodePool(self._todo(), self._decode, job.num_workers, 2 * job.batch_size) as pool:
            for outcome in pool:
                if outcome is not None:
                    self._take(*outcome, writer)
                if time.perf_counter() - self._reported >= _REPORT_SECONDS:
                    self._reported = time.perf_counter()
                    yield self.progress()
            while self._waiting:
                self._run_fullest(writer)
                yield self.progress()
        self._processed = time.perf_counter() - self._started

    def register(self, status: str, error: str | None = None) -> None:
        """Completes the summary and writes the run record."""
        summary = self.summary
        summary.counts = {
            "total": len(self._reader.ids),
            "done": self.done,
            "skipped": self.skipped,
            "failed": len(summary.failed),
            **summary.counts,
        }
        summary.seconds = time.perf_counter() - self._started
        # What follows the images (an index, a map) is part of the job, but says nothing about their rate.
        summary.processing_seconds = self._processed or summary.seconds
        summary.images_per_second = self.done / summary.processing_seconds
        try:
            if summary.failed:
                show_in_sidebar(self.job.samples, [self.job.method.error_field])
            register_run(self.job.samples, summary, self.job.method.config, status=status, error=error)
        except Exception:
            if status == "completed":
                raise
            logger.exception("the record of run %r could not be written", summary.key)

    def _todo(self) -> Iterator[SampleItem]:
        """Samples without a valid result; runs in the feeding thread."""
        for chunk in self._reader.chunks():
            for item in chunk:
                valid = not self.job.overwrite and item.present and item.provenance == self._provenance(item)
                if valid and self.job.method.is_intact(item):
                    self.skipped += 1
                else:
                    yield item

    def _provenance(self, item: SampleItem) -> str:
        return sample_provenance(self._config_hash, item.file_stamp, self.job.method.input_stamp(item))

    def _decode(self, item: SampleItem) -> _Decoded:
        """Runs in a decode thread."""
        if not item.filepath:
            raise ImageError("the sample has no filepath; set it, or delete the sample")
        if item.media_type not in _IMAGE_TYPES:
            raise ImageError(
                f"{item.filepath}: is {item.media_type}, not an image; for a video, extract frames with "
                "to_frames(sample_frames=True) first"
            )
        return _Decoded(item, self.job.method.prepare(item), self._provenance(item))

    def _take(self, item: SampleItem, outcome: Any, writer: BackgroundWriter) -> None:
        """Puts a decoded sample into its batch; runs batches that are full, or the fullest when too much waits."""
        if isinstance(outcome, Exception):
            self._fail(item, outcome, writer)
            return
        batch = self._waiting.setdefault(outcome.prepared.group_key, [])
        batch.append(outcome)
        if len(batch) >= self._batch_size or sum(map(len, self._waiting.values())) >= 4 * self.job.batch_size:
            self._run_fullest(writer)

    def _run_fullest(self, writer: BackgroundWriter) -> None:
        key = max(self._waiting, key=lambda key: len(self._waiting[key]))
        self._run_in_pieces(self._waiting.pop(key), writer)

    def _run_in_pieces(self, batch: list[_Decoded], writer: BackgroundWriter) -> None:
        while batch:
            # The batch size may be halved on the way: each piece asks anew.
            piece, batch = batch[: self._batch_size], batch[self._batch_size :]
            self._run_batch(piece, writer)

    def _run_batch(self, batch: list[_Decoded], writer: BackgroundWriter) -> None:
        results = self._compute(batch)
        if isinstance(results, list):
            for decoded, values in zip(batch, results, strict=True):
                self._succeed(decoded, values, writer)
        elif len(batch) == 1:
            self._fail(batch[0].item, results, writer)
        elif _is_out_of_memory(results):
            self._batch_size = min(self._batch_size, max(1, len(batch) // 2))
            notice = f"out of device memory with a batch of {len(batch)}: went on with {self._batch_size}"
            self.summary.notices.append(notice)
            _free_device_memory()
            self._run_in_pieces(batch, writer)
        else:
            self._run_one_by_one(batch, writer)

    def _compute(self, batch: list[_Decoded]) -> list[dict[str, Any]] | Exception:
        try:
            return self.job.method.run([decoded.prepared for decoded in batch])
        except Exception as error:
            # The traceback would keep the failed batch's tensors alive while a smaller one is tried.
            return error.with_traceback(None)

    def _run_one_by_one(self, batch: list[_Decoded], writer: BackgroundWriter) -> None:
        """Finds the sample that spoils a batch. A fault that hits the whole first batch is not the samples' fault."""
        results = [self._compute([decoded]) for decoded in batch]
        errors = [result for result in results if isinstance(result, Exception)]
        if len(errors) == len(batch) and self.done == 0 and self.job.skip_failures:
            reason = _reason(errors[0], batch[0].item)
            raise SelfsameError(f"{self.job.method.name} fails on every sample: {reason}") from errors[0]
        for decoded, result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                self._fail(decoded.item, result, writer)
            else:
                self._succeed(decoded, result[0], writer)

    def _succeed(self, decoded: _Decoded, values: dict[str, Any], writer: BackgroundWriter) -> None:
        """Writes a result. One that comes with an error text is a failure in part: kept, but tried again next time."""
        item, method = decoded.item, self.job.method
        partly = values.get(method.error_field)
        if partly:
            self._note_failure(item, partly)
        else:
            self.done += 1
        values = {method.error_field: None, **values}
        writer.put(Row(item.id, values, None if partly else decoded.provenance, item.provenance is not None))

    def _fail(self, item: SampleItem, error: Exception, writer: BackgroundWriter) -> None:
        reason = _reason(error, item)
        self._note_failure(item, reason, error)
        values = {**self.job.method.blank(item), self.job.method.error_field: reason}
        writer.put(Row(item.id, values, None, item.provenance is not None))

    def _note_failure(self, item: SampleItem, reason: str, cause: Exception | None = None) -> None:
        if not self.job.skip_failures:
            raise SelfsameError(f"sample {item.id} failed: {reason}") from cause
        self.summary.failed[item.id] = reason


def _settle(row: Row) -> Row:
    """Waits for the values that are futures; runs in the writer's thread."""
    values = {path: value.result() if isinstance(value, Future) else value for path, value in row.values.items()}
    return replace(row, values=values)


def _reason(error: Exception, item: SampleItem) -> str:
    """One line that names the file and says what is wrong."""
    if isinstance(error, SelfsameError):
        text = str(error)
    elif _is_out_of_memory(error):
        text = f"not enough memory even for this image alone ({error}); use a smaller size or another device"
    else:
        text = f"{type(error).__name__}: {error}"
    text = " ".join(text.split())
    return text if item.filepath in text else f"{item.filepath}: {text}"


def _is_out_of_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _free_device_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch is not None and torch.backends.mps.is_available():
        torch.mps.empty_cache()
