"""From generators that report progress to plain functions with a progress bar."""

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from typing import Any, TypeVar

import fiftyone.core.collections as foc
import fiftyone.core.utils as fou

from .engine.local import Progress
from .runs import RunSummary

T = TypeVar("T")

_PROGRESS_DOC = """
        progress (None): show a progress bar (True/False), do as ``fiftyone.config.show_progress_bars`` says (None), or
            call a function with FiftyOne's progress bar.
"""


def plain_function(
    steps: Callable[..., Generator[Progress, None, RunSummary]],
    outcome: Callable[[foc.SampleCollection, RunSummary], Any] | None = None,
) -> Callable[..., Any]:
    """The function that runs a ``*_steps`` generator to its end: same arguments and ``progress``, returns the summary.

    The generator's docstring must have a section ``Returns:`` after its arguments.

    Args:
        steps: the generator; its first argument is a dataset or view.
        outcome: what to return instead of the summary, from that view and the summary.
    """

    @functools.wraps(steps)
    def function(samples: foc.SampleCollection, *args: Any, progress: Any = None, **kwargs: Any) -> Any:
        summary = exhaust(steps(samples, *args, **kwargs), progress)
        return summary if outcome is None else outcome(samples, summary)

    signature = inspect.signature(steps)
    bar = inspect.Parameter("progress", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [*signature.parameters.values(), bar]
    returned = RunSummary if outcome is None else inspect.signature(outcome).return_annotation
    function.__signature__ = signature.replace(parameters=parameters, return_annotation=returned)  # type: ignore
    function.__name__ = function.__qualname__ = steps.__name__.removesuffix("_steps")
    function.__doc__ = (steps.__doc__ or "").replace("\n    Returns:", _PROGRESS_DOC + "\n    Returns:", 1)
    return function


def exhaust(steps: Generator[Progress, None, RunSummary], progress: Any = None) -> RunSummary:
    """Runs a generator of progress reports to its end behind a progress bar; its return value is the summary."""
    total = 0
    with closing(steps), ExitStack() as stack:
        while True:
            try:
                report = next(steps)
            except StopIteration as end:
                return end.value
            if report.total != total and report.total:
                stack.pop_all().close()
                bar = stack.enter_context(fou.ProgressBar(total=report.total, progress=progress))
                total = report.total
            if report.total:
                bar.set_iteration(report.settled)


def in_stage(
    steps: Generator[float, None, T], total: int, start: float, end: float, label: str
) -> Generator[Progress, None, T]:
    """Shows the shares of one stage as the part from ``start`` to ``end`` of the whole job."""
    share = 0.0
    while True:
        done = start + (end - start) * min(share, 1.0)
        yield Progress(int(done * total), total, label=label)
        try:
            share = next(steps)
        except StopIteration as stop:
            return stop.value


def shares(steps: Generator[Progress, None, T]) -> Generator[float, None, T]:
    """Reports of progress as the shares that :func:`in_stage` takes."""
    while True:
        try:
            yield next(steps).fraction
        except StopIteration as stop:
            return stop.value
