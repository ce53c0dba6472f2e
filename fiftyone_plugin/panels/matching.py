"""The Matching panel: pairs of images with the masks of what they have in common; accept, reject, undo."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo

from ..pairs import is_pair_dataset
from .base import Answer, event
from .pair_datasets import PairsPanel, requested_pair

_HELP = """
Shows pairs of images with what they have in common, and which points of one are found again in the other. Accept or
reject with a key; each decision can be undone. Decisions count when duplicate groups and clusters are formed anew, in
the next catalogue check, and as examples for a matcher of your own.
"""

SORTS = ("doubtful", "highest", "lowest")


class MatchingPanel(PairsPanel):
    """Review of the runs of ``match_objects``, and of the evidence of ``check_catalogue``."""

    component = "SelfsameMatching"
    workspace = "Matching"
    methods = ("match_objects",)
    operators = ("create_pairs", "match_objects", "check_catalogue", "train_matcher")
    events = ("overview", "list_pairs", "open_pair", "decide", "undo", "show", "open_dataset", "prompt")

    @property
    def config(self) -> foo.PanelConfig:
        return foo.PanelConfig(
            name="selfsame_matching",
            label="Matching",
            icon="join_inner",
            surfaces="grid",
            category=foo.Categories.CURATE,
            help_markdown=_HELP.strip(),
        )

    @event
    def decide(self, ctx: Any) -> Answer:
        """Records a decision on ``pair_id``: ``action`` as of :func:`.pair_decisions.decide_pairs`."""
        from ..pair_decisions import decide_pairs

        record = self.record(ctx)
        decide_pairs(ctx.dataset, [requested_pair(ctx)], str(ctx.params.get("action")))
        return self._opened(ctx, record) | {"progress": self.progress(ctx.dataset)}

    @event
    def undo(self, ctx: Any) -> Answer:
        """Takes the latest decision back; ``pair_id`` of the answer is the pair that it was about."""
        from ..pair_decisions import undo_pair_decision

        pair_ids = undo_pair_decision(ctx.dataset)
        return {"pair_id": pair_ids[0] if pair_ids else None, "progress": self.progress(ctx.dataset)}

    def describe(self, dataset: fo.Dataset, record: Mapping[str, Any]) -> Answer:
        """What the head of the panel says of a run."""
        details = record["details"]
        return {"key": record["key"], "threshold": details.get("threshold"), "matcher": details.get("matcher")}

    def start(self, ctx: Any) -> Answer:
        if ctx.dataset is not None and is_pair_dataset(ctx.dataset):
            return {
                "operator": "match_objects",
                "label": "Match objects",
                "reason": "These pairs have not been compared yet.",
            }
        return super().start(ctx)

    def progress(self, pairs: fo.Dataset) -> Answer:
        from ..pair_decisions import pair_progress

        return dict(pair_progress(pairs))

    def _page(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        from ..pair_decisions import pair_verdicts
        from .pair_pages import page_of_pairs

        options = {name: ctx.params.get(name) for name in ("sort", "kind", "decision", "page")}
        if options["sort"] not in SORTS:
            options["sort"] = SORTS[0]
        fresh = bool(ctx.params.get("fresh"))
        page = page_of_pairs(ctx.dataset, record, pair_verdicts(ctx.dataset), **options, fresh=fresh)
        return {"progress": self.progress(ctx.dataset), "page": asdict(page)}

    def _opened(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        from ..pair_decisions import pair_verdicts
        from .pair_pages import opened_pair

        pair_id = requested_pair(ctx)
        verdicts = pair_verdicts(ctx.dataset.match({"pair_id": pair_id}))
        return opened_pair(ctx.dataset, record["key"], pair_id, verdicts)
