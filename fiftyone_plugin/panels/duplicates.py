"""The Duplicates panel: threshold, groups, decisions and leaks between splits."""

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from threading import Timer
from typing import Any

import fiftyone.operators as foo

from ...brain.errors import ConfigError
from ..runs import last_run, list_records
from .base import Answer, event
from .group_pages import DatasetHandle
from .review import ReviewPanel

# Seconds after the panel was opened.
_WARM_UP_AFTER = 1.0

_HELP = """
Reviews the groups of a duplicate search. Drag the line in the histogram to see what another threshold would give;
open a group and decide with one click or key. Decisions are tags and fields, and each can be undone; nothing is deleted
before **Apply**.
"""


class DuplicatesPanel(ReviewPanel):
    """Review of the runs of ``find_duplicates`` and ``find_exact_duplicates``."""

    component = "SelfsameDuplicates"
    methods = ("find_duplicates", "find_exact_duplicates")
    operators = ("find_duplicates", "find_leaks", "compute_ffa", "export_decisions", "apply_decisions")
    sorts = ("size", "risk", "similarity")
    events = (*ReviewPanel.events, "preview", "leaks")

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="selfsame_duplicates",
            label="Duplicates",
            icon="content_copy",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=_HELP.strip(),
        )

    def describe(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        details = record["details"]
        if details.get("threshold") is not None:
            _warm_up_once(DatasetHandle(ctx.dataset), record["key"], str(record["timestamp"]), details["threshold"])
        return super().describe(ctx, record) | {
            "lowest": details.get("pairs_kept_down_to"),
            "histogram": details.get("histogram"),
            "recall": details.get("recall"),
            "leaks": [leak["key"] for leak in list_records(ctx.dataset, method="find_leaks")],
        }

    def start(self, ctx: Any) -> Answer:
        from ..duplicate_forms import vector_fields

        if ctx.dataset is not None and not vector_fields(ctx.dataset):
            return {
                "operator": "compute_ffa",
                "label": "Compute embeddings",
                "reason": "Duplicates are found by comparing embeddings, and this dataset has none yet.",
            }
        return {
            "operator": "find_duplicates",
            "label": "Find duplicates",
            "reason": "No search for duplicates has been run on this dataset yet.",
        }

    @event
    def preview(self, ctx: Any) -> Answer:
        """What another threshold would give, from the stored pairs."""
        from ..duplicate_views import preview_counts

        threshold = ctx.params.get("threshold")
        if not isinstance(threshold, int | float):
            raise ConfigError(f"threshold={threshold!r} must be a number")
        return preview_counts(ctx.dataset, ctx.params.get("key"), float(threshold))

    @event
    def leaks(self, ctx: Any) -> Answer:
        """The latest search for leaks between splits: its report and the first of its pairs."""
        from .leak_pages import leak_page

        record = last_run(ctx.dataset, method="find_leaks")
        if record is None:
            return {"report": None, "pairs": [], "total": 0}
        return leak_page(ctx.dataset, record, int(ctx.params.get("page") or 0))


@lru_cache(maxsize=16)
def _warm_up_once(handle: DatasetHandle, key: str, run: str, threshold: float) -> None:
    """The first preview of a run loads its pairs and compiled code, which takes seconds: done beforehand, while the
    reviewer looks at the first group, and not before that is there."""
    later = Timer(_WARM_UP_AFTER, _warm_up, (handle.dataset, key, threshold))
    later.daemon = True
    later.start()


def _warm_up(dataset: Any, key: str, threshold: float) -> None:
    from ..duplicate_views import preview_counts

    # Whatever is wrong is told when a preview is asked for.
    with suppress(Exception):
        preview_counts(dataset, key, threshold)
