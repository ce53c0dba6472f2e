"""What all operators share: progress wherever the user looks, faults in plain words, and calls from Python."""

import inspect
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from ..brain.errors import ConfigError, SelfsameError
from ..fiftyone_plugin import duplicate_forms, forms

logger = logging.getLogger(__name__)

# So many failed samples are listed after a run; all of them are in the error field and in the run record.
_FAILURES_SHOWN = 10

Steps = Generator[Any, None, Any]
Messages = Iterator[GeneratedMessage]


class CurationOperator(foo.Operator):
    """One plain function of the package as an operator of the same name.

    Subclasses set `options`, the arguments of that function that the App may set. Whatever else a request carries is
    ignored: paths in particular are for Python users only.
    """

    options: ClassVar[tuple[str, ...]] = ()

    def __call__(self, samples: Any, *args: Any, delegate: bool = False, **options: Any) -> Any:
        """Runs the operation from Python.

        Args:
            samples: a dataset or view.
            *args, **options: arguments of the plain function of the same name.
            delegate: queue the operation for ``fiftyone delegated launch`` and return at once.

        Returns:
            what the plain function returns (run here, without the time limit of FiftyOne's executor), or with
            ``delegate=True`` FiftyOne's ``ExecutionResult``, whose ``result["id"]`` is the queued operation.

        Raises:
            SelfsameError: see the plain function; with ``delegate=True``, an option that cannot be queued.
        """
        from ..fiftyone_plugin import api

        function = getattr(api, self.name)
        if not delegate:
            return function(samples, *args, **options)
        bound = inspect.signature(function).bind(samples, *args, **options).arguments
        return self._queue(samples, dict(list(bound.items())[1:]))

    def arguments(self, ctx: Any) -> dict[str, Any]:
        """The options that the form or the request sets; what is left empty is left to the function's defaults."""
        given = flat_params(ctx)
        return {name: given[name] for name in self.options if given.get(name) not in (None, "", forms.AUTO)}

    def run(self, ctx: Any, start: Callable[[], Steps], finish: Callable[[Any], Messages]) -> Messages | dict[str, Any]:
        """Does the work of the operator, in the way that the caller can follow.

        Args:
            ctx: the execution context.
            start: begins the work: a generator that yields ``Progress`` and returns a ``RunSummary``, or None if there
                is nothing to show.
            finish: messages that update the App once the work is done, from the summary.

        Returns:
            for the App, which reads a stream, a generator of messages that ends by showing the summary; for everybody
            else (delegated operations, ``execute_operator``) the facts of the summary, once the work is done.

        Raises:
            SelfsameError: outside of the App, where it is shown instead.
        """
        if ctx.delegated or not _from_app(ctx):
            return _drain(ctx, start())
        return self._stream(ctx, start, finish)

    def summary_form(self, result: Mapping[str, Any]) -> types.Property:
        """What was done, what the user should know and what failed; or why nothing was done."""
        outputs = types.Object()
        if "error" in result:
            outputs.view("error", types.Error(label="This could not be done", description=result["error"]))
        elif result:
            outputs.str("summary", label="Done", view=types.MarkdownView(read_only=True))
            for index, notice in enumerate(result["notices"]):
                outputs.view(f"notice_{index}", types.Notice(label=notice))
            if result["failed"]:
                total = result["counts"].get("failed", len(result["failed"]))
                lines = "\n".join(result["failed"])
                outputs.view("failures", types.Warning(label=f"{total:,} failed", description=lines))
        return types.Property(outputs, view=types.View(label=self.config.label))

    def _stream(self, ctx: Any, start: Callable[[], Steps], finish: Callable[[Any], Messages]) -> Messages:
        # An exception would break off the stream, and the App would show a "network error" instead of its message.
        try:
            summary = yield from _report(ctx, start())
            yield from finish(summary)
            result = _as_result(summary)
        except SelfsameError as error:
            result = {"error": str(error)}
        except Exception as error:
            logger.exception("operator %s failed", self.uri)
            result = {"error": f"{type(error).__name__}: {error} (the log of the App's server has the details)"}
        if result:
            # In place of the progress bar; a result of the stream would open a second dialog beneath it.
            yield ctx.ops.show_output(outputs=self.summary_form(result).to_json(), results=result)

    def _queue(self, samples: Any, options: Mapping[str, Any]) -> Any:
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            raise ConfigError(
                f"{', '.join(unknown)} cannot be passed on with delegate=True; options: {', '.join(self.options)}"
            )
        params = {name: asdict(value) if is_dataclass(value) else value for name, value in options.items()}
        target = {"dataset": samples} if samples._dataset is samples else {"view": samples}
        return foo.execute_operator(self.uri, {**target, "params": params}, request_delegation=True)


def flat_params(ctx: Any) -> dict[str, Any]:
    """The parameters of a request with those of the collapsed part of the form beside the others."""
    return {**ctx.params, **(ctx.params.get("advanced") or {})}


def announce_groups(ctx: Any, summary: Any) -> Messages:
    """Tells the App about the outcome of a duplicate search."""
    yield ctx.ops.reload_dataset()
    yield ctx.ops.notify(duplicate_forms.groups_text(summary.counts), variant="success")


def show_fields(ctx: Any, *paths: str) -> Messages:
    """Ticks fields in the App's sidebar, besides those that are ticked, so that the grid shows their values."""
    active = ctx.active_fields or []
    yield ctx.ops.set_active_fields([*active, *(path for path in paths if path not in active)])


def _from_app(ctx: Any) -> bool:
    """Only requests that came through the App's server name the operator."""
    return "operator_uri" in ctx.request_params


def _drain(ctx: Any, steps: Steps) -> dict[str, Any]:
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return _as_result(end.value)
        ctx.set_progress(progress.fraction, _label(progress))


def _report(ctx: Any, steps: Steps) -> Generator[GeneratedMessage, None, Any]:
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value
        yield ctx.ops.set_progress(label=_label(progress), progress=progress.fraction)


def _label(progress: Any) -> str:
    if not progress.total:
        return progress.label
    parts = [f"{progress.settled:,} of {progress.total:,}"]
    parts += [f"{n:,} {name}" for n, name in ((progress.skipped, "up to date"), (progress.failed, "failed")) if n]
    return f"{progress.label}: {', '.join(parts)}"


def _as_result(summary: Any) -> dict[str, Any]:
    """The JSON-able facts of a run summary that the output form shows."""
    if summary is None:
        return {}
    failed = [f"{sample_id}: {reason}" for sample_id, reason in list(summary.failed.items())[:_FAILURES_SHOWN]]
    return {
        "summary": str(summary).splitlines()[0].removeprefix(f"{summary.method}: "),
        "counts": dict(summary.counts),
        "seconds": round(summary.seconds, 2),
        "images_per_second": round(summary.images_per_second, 2),
        "notices": list(summary.notices),
        "failed": failed,
        "details": dict(summary.details),
    }
