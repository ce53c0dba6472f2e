"""From generators that report progress to plain functions with a progress bar."""

import functools
import inspect
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from typing import Any

import fiftyone.core.utils as fou

from .engine.local import Progress
from .runs import RunSummary

_PROGRESS_DOC = """
        progress (None): show a progress bar (True/False), do as ``fiftyone.config.show_progress_bars`` says (None), or
            call a function with FiftyOne's progress bar.
"""


def plain_function(steps: Callable[..., Generator[Progress, None, RunSummary]]) -> Callable[..., RunSummary]:
    """The function that runs a ``*_steps`` generator to its end: same arguments and ``progress``, returns the summary.

    The generator's docstring must have a section ``Returns:`` after its arguments.
    """

    @functools.wraps(steps)
    def function(*args: Any, progress: Any = None, **kwargs: Any) -> RunSummary:
        return exhaust(steps(*args, **kwargs), progress)

    signature = inspect.signature(steps)
    bar = inspect.Parameter("progress", inspect.Parameter.KEYWORD_ONLY, default=None)
    parameters = [*signature.parameters.values(), bar]
    function.__signature__ = signature.replace(parameters=parameters, return_annotation=RunSummary)  # type: ignore
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
