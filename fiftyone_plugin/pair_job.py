"""What every job over pairs does alike: outcomes are stored chunk by chunk, and the originals learn what came of it."""

from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeVar

import fiftyone as fo

from ..brain.errors import ConfigError, ImageError
from .engine.local import Progress
from .pairs import PairInfo, PairRow, original_dataset
from .runs import RunSummary


class PairResult(Protocol):
    """A pair and what came of it; the outcome is text where it failed: why."""

    @property
    def row(self) -> PairRow: ...

    @property
    def outcome(self) -> object: ...


Result = TypeVar("Result", bound=PairResult)


def store_outcomes(
    outcomes: Iterator[Result],
    commit: int,
    write: Callable[[Sequence[Result]], None],
    summary: RunSummary,
    *,
    total: int,
    skip_failures: bool,
) -> Generator[Progress, None, None]:
    """Stores outcomes as they come, and counts them in the summary.

    Args:
        outcomes: of the pairs.
        commit: how many are stored at a time; a kill loses at most so many.
        write: stores some.
        summary: its ``done`` and ``failed`` are kept up to date.
        total: number of all pairs, those that are up to date included.
        skip_failures: whether to go on after a failure.

    Raises:
        ImageError: a pair failed, with ``skip_failures=False``.
    """
    counts = summary.counts
    while chunk := list(islice(outcomes, commit)):
        write(chunk)
        reasons = {found.row.pair_id: found.outcome for found in chunk if isinstance(found.outcome, str)}
        summary.failed |= reasons
        if reasons and not skip_failures:
            raise ImageError(next(iter(reasons.values())))
        counts["done"] += len(chunk) - len(reasons)
        yield Progress(counts["done"], total, len(summary.failed), counts["skipped"], label="Matching pairs")


def write_to_originals(
    info: PairInfo,
    check: Callable[[fo.Dataset], None],
    write: Callable[[fo.Dataset, tuple[bool, ...]], None],
) -> list[str]:
    """Writes to the datasets that the pairs were made of.

    Args:
        info: whose samples they are.
        check: raises ``ConfigError`` where a dataset must not be written to.
        write: writes to one; is told which sides of the pairs are of it, True being the target.

    Returns:
        Sentences on what could not be written.
    """
    both = info.target_origin_id == info.origin_id
    notices = []
    for sides in [(False, True)] if both else [(False,), (True,)]:
        try:
            origin = original_dataset(info, target=sides[0])
            check(origin)
        except ConfigError as error:
            notices.append(f"Nothing was written back: {error}.")
            continue
        write(origin, sides)
    return notices
