"""The Matching panel: pairs of images with the masks of what they have in common; accept, reject, undo."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import fiftyone.operators as foo

from ...brain.errors import ConfigError
from ..pairs import INFO, check_pairs, derived_pairs, is_pair_dataset
from .base import Answer, CurationPanel, event

_HELP = """
Shows pairs of images with what they have in common, and which points of one are found again in the other. Accept or
reject with a key; each decision can be undone. Decisions count when duplicate groups and clusters are formed anew, in
the next catalogue check, and as examples for a matcher of your own.
"""

_WORKSPACE = "Matching"

SORTS = ("doubtful", "highest", "lowest")


class MatchingPanel(CurationPanel):
    """Review of the runs of ``match_objects``, and of the evidence of ``check_catalogue``."""

    component = "SelfsameMatching"
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
    def overview(self, ctx: Any) -> Answer:
        """All that the panel shows at first.

        Of a dataset of pairs: the runs, one of them, how far its review is, and a page of its pairs. Of any other
        dataset: the datasets of pairs that were made of it.
        """
        if ctx.dataset is None or not is_pair_dataset(ctx.dataset):
            derived = [] if ctx.dataset is None else [_summary(name) for name in derived_pairs(ctx.dataset)]
            return {"runs": [], "derived": derived, "start": self.start(ctx)}
        runs, record = self.select(ctx)
        runs["origins"] = _origins(ctx)
        return runs if record is None else {**runs, "run": self.describe(record), **self._page(ctx, record)}

    @event
    def list_pairs(self, ctx: Any) -> Answer:
        """A page of the list; parameters as :func:`.pair_pages.page_of_pairs`."""
        return self._page(ctx, self.record(ctx))

    @event
    def open_pair(self, ctx: Any) -> Answer:
        """One pair with masks and lines; with ``follow`` the App's grid shows it as well."""
        record = self.record(ctx)
        answer = self._opened(ctx, record)
        if ctx.params.get("follow"):
            ctx.ops.set_view(view=ctx.dataset.match({"pair_id": answer["pair"]["pair_id"]}))
        return answer

    @event
    def decide(self, ctx: Any) -> Answer:
        """Records a decision on ``pair_id``: ``action`` as of :func:`.pair_decisions.decide_pairs`."""
        from ..pair_decisions import decide_pairs

        record = self.record(ctx)
        decide_pairs(ctx.dataset, [_pair_id(ctx)], str(ctx.params.get("action")))
        return self._opened(ctx, record) | {"progress": self._progress(ctx)}

    @event
    def undo(self, ctx: Any) -> Answer:
        """Takes the latest decision back; ``pair_id`` of the answer is the pair that it was about."""
        from ..pair_decisions import undo_pair_decision

        pair_ids = undo_pair_decision(ctx.dataset)
        return {"pair_id": pair_ids[0] if pair_ids else None, "progress": self._progress(ctx)}

    @event
    def show(self, ctx: Any) -> Answer:
        """A pair opens (``group`` is the id of its group), or the grid shows all of the dataset again."""
        if ctx.params.get("group"):
            ctx.ops.open_sample(id=ctx.params.get("sample"), group_id=str(ctx.params["group"]))
        else:
            ctx.ops.clear_view()
        return {}

    @event
    def open_dataset(self, ctx: Any) -> Answer:
        """Lets the view turn to a dataset of pairs, or the App to one that the pairs were made of.

        The App closes all panels with a dataset. One of pairs therefore has a workspace with this panel, whose slug is
        in the answer: the view opens the dataset with it.
        """
        name = str(ctx.params.get("name"))
        known = _origins(ctx) if is_pair_dataset(ctx.dataset) else derived_pairs(ctx.dataset)
        if name not in known:
            raise ConfigError(f"there is no dataset {name!r} that belongs to this one any more")
        if is_pair_dataset(ctx.dataset):
            ctx.ops.open_dataset(name)
            return {}
        return {"name": name, "workspace": _workspace(name, self.name)}

    def describe(self, record: Mapping[str, Any]) -> Answer:
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
        return {
            "operator": "create_pairs",
            "label": "Create pairs",
            "reason": "Pairs of images are compared in datasets of their own; none has been made of this one yet.",
        }

    def _page(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        from ..pair_decisions import pair_verdicts
        from .pair_pages import page_of_pairs

        options = {name: ctx.params.get(name) for name in ("sort", "kind", "decision", "page")}
        if options["sort"] not in SORTS:
            options["sort"] = SORTS[0]
        fresh = bool(ctx.params.get("fresh"))
        page = page_of_pairs(ctx.dataset, record, pair_verdicts(ctx.dataset), **options, fresh=fresh)
        return {"progress": self._progress(ctx), "page": asdict(page)}

    def _opened(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        from ..pair_decisions import pair_verdicts
        from .pair_pages import opened_pair

        pair_id = _pair_id(ctx)
        verdicts = pair_verdicts(ctx.dataset.match({"pair_id": pair_id}))
        return opened_pair(ctx.dataset, record["key"], pair_id, verdicts)

    def _progress(self, ctx: Any) -> Answer:
        from ..pair_decisions import pair_progress

        return pair_progress(ctx.dataset)


def _pair_id(ctx: Any) -> str:
    pair_id = ctx.params.get("pair_id")
    if not isinstance(pair_id, str):
        raise ConfigError(f"pair_id={pair_id!r} must be the pair_id of a pair")
    return pair_id


def _origins(ctx: Any) -> list[str]:
    """Names of the datasets that the pairs were made of, those that are still there."""
    from ..pairs import original_dataset

    info, names = check_pairs(ctx.dataset), []
    for target in (False, True):
        try:
            names.append(original_dataset(info, target=target).name)
        except ConfigError:
            continue
    return list(dict.fromkeys(names))


def _workspace(name: str, panel: str) -> str:
    """The slug of the workspace of a pair dataset that has this panel beside the grid."""
    import fiftyone as fo
    import fiftyone.core.utils as fou

    pairs = fo.load_dataset(name)
    if not pairs.has_workspace(_WORKSPACE):
        panels = [fo.Panel(type="Samples", pinned=True), fo.Panel(type=panel)]
        sides = [fo.Space(children=[one], active_child=one.component_id) for one in panels]
        pairs.save_workspace(_WORKSPACE, fo.Space(children=sides, orientation="horizontal"))
    return str(fou.to_slug(_WORKSPACE))


def _summary(name: str) -> Answer:
    """What the list of pair datasets says of one."""
    import fiftyone as fo

    from ..pair_decisions import pair_progress
    from ..result_keys import finished_keys

    pairs = fo.load_dataset(name)
    made_by = pairs.info[INFO]["made_by"].get("method")
    return {"name": name, "made_by": made_by, "runs": finished_keys(pairs, "match_objects"), **pair_progress(pairs)}
