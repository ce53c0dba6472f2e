"""What a duplicate search says about itself: in field information, in its record and in sentences."""

from collections import Counter
from typing import Any

from .duplicate_grouping import GroupingTask
from .duplicate_search import Found
from .duplicate_store import Outcome
from .runs import RunSummary


def group_info(task: GroupingTask, method: str) -> dict[str, Any]:
    """What ``field.info`` says of where the groups come from."""
    settings = task.settings.config()
    return {**settings, "method": method, "run": task.key, "search": settings["method"], "threshold": task.threshold}


def describe(task: GroupingTask, outcome: Outcome, reason: str) -> dict[str, Any]:
    """The facts of a grouping for its record."""
    return {
        "threshold": float(task.threshold),
        "threshold_reason": reason,
        "max_diameter": task.settings.diameter(task.threshold),
        "pairs": len(task.pairs.at_least(task.threshold)),
        "pairs_kept": len(task.pairs),
        "pairs_kept_down_to": float(task.pairs.threshold),
        "kinds": dict(Counter(outcome.kinds)),
        "fields": list(task.names.shown),
    }


def group_notices(summary: RunSummary, task: GroupingTask, missing: int) -> list[str]:
    """What the user should read about the groups."""
    path, notices = task.settings.embeddings, []
    things = "samples" if task.settings.patches_field is None else "objects"
    reason, kinds = summary.details["threshold_reason"], summary.details["kinds"]
    notices.append(f"{summary.counts['groups']:,} groups at threshold {task.threshold:.4f} ({reason})")
    if kinds:
        told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
        notices.append(f"groups by kind: {told}")
    if missing:
        notices.append(
            f"{missing:,} {things} have no usable vector in {path!r} and were left out; {task.names.error} says why"
        )
    if unmeasured := len(summary.failed) - missing:
        notices.append(
            f"{unmeasured:,} images in groups could not be decoded, so another one of their group is kept if there is "
            f"any; {task.names.error} says why"
        )
    if not summary.counts["groups"] and len(task.pairs):
        best = float(task.pairs.similarity.max())
        notices.append(f"the most similar pair is at {best:.4f}; a threshold below that gives groups")
    if not task.constraints.empty:
        notices.append("decisions of earlier reviews are honoured")
    return notices


def search_notices(found: Found, incremental: bool, obstacle: str) -> list[str]:
    """What the user should read about the search.

    Args:
        obstacle: why an incremental search was not possible.
    """
    notices = []
    if incremental and obstacle:
        notices.append(f"everything was compared, because {obstacle}")
    elif incremental:
        notices.append(f"{found.compared:,} new or changed ones were compared with all; the other pairs were known")
    if found.recall is not None:
        notices.append(f"approximate search: {found.recall:.1%} of the pairs were found, measured on a sample")
    return notices
