"""What the panels that review groups share: lists of groups, one open group, decisions."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar

from ...brain.errors import ConfigError
from .base import Answer, CurationPanel, event


class ReviewPanel(CurationPanel):
    """A list of groups, one of them open, and the decisions on it.

    Subclasses set the class attributes; a *group* is a duplicate group or a cluster, whatever the run holds.
    """

    sorts: ClassVar[tuple[str, ...]]
    events: ClassVar[tuple[str, ...]] = ("overview", "list_groups", "open_group", "decide", "undo", "show", "prompt")

    @event
    def overview(self, ctx: Any) -> Answer:
        """All that the panel shows at first: the runs, one of them, how far its review is, and a page of its groups."""
        runs, record = self.select(ctx)
        return runs if record is None else {**runs, "run": self.describe(ctx, record), **self._page(ctx, record)}

    @event
    def list_groups(self, ctx: Any) -> Answer:
        """A page of the list of groups; parameters as :func:`.group_pages.page_of`, and ``fresh`` to read it anew."""
        return self._page(ctx, self.record(ctx))

    @event
    def open_group(self, ctx: Any) -> Answer:
        """One group with its members; with ``follow`` the App's grid shows it as well."""
        record, group = self.record(ctx), _whole(ctx, "group")
        answer = self._opened(ctx, record, group)
        if ctx.params.get("follow") and answer["members"]:
            self._show_in_grid(ctx, record["key"], [group])
        return answer

    @event
    def show(self, ctx: Any) -> Answer:
        """The grid shows the given groups, or all of the dataset again; or one sample opens."""
        if ctx.params.get("sample"):
            ctx.ops.open_sample(id=str(ctx.params["sample"]))
        elif ctx.params.get("groups"):
            self._show_in_grid(ctx, self.record(ctx)["key"], [int(group) for group in ctx.params["groups"]])
        else:
            ctx.ops.clear_view()
        return {}

    @event
    def decide(self, ctx: Any) -> Answer:
        """Records a decision: ``action``, ``groups``, ``members`` (ids) and ``name`` as :func:`.decisions.decide`."""
        return self._decide(ctx)

    def _decide(self, ctx: Any) -> Answer:
        from ..decisions import decide

        record, params = self.record(ctx), ctx.params
        groups = [int(group) for group in params.get("groups") or ()]
        members = [str(member) for member in params.get("members") or ()]
        options = {"groups": groups, "members": members, "name": params.get("name")}
        made = decide(ctx.dataset, record["key"], params.get("action"), **options)
        now = [int(group) for group in made.result or groups]
        if params.get("follow") and now != groups:
            self._show_in_grid(ctx, record["key"], now[:1])
        return self._changed(ctx, record, now)

    @event
    def undo(self, ctx: Any) -> Answer:
        """Takes back the last decision; ``groups`` of the answer are those that it was about."""
        from ..decisions import undo_decision

        record = self.record(ctx)
        undone = undo_decision(ctx.dataset, record["key"])
        if undone is None:
            raise ConfigError("There is no decision to undo.")
        return self._changed(ctx, record, [int(group) for group in undone.groups]) | {"action": undone.action}

    def describe(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        """What the head of the panel says of a run."""
        patches = record["config"].get("patches_field")
        return {
            "key": record["key"],
            "method": record["method"],
            "level": "objects" if patches else "images",
            "patches_field": patches,
            "counts": record["counts"],
            "threshold": record["details"].get("threshold"),
            "reason": record["details"].get("threshold_reason"),
        }

    def _page(self, ctx: Any, record: Mapping[str, Any]) -> Answer:
        from .group_pages import page_of, progress_of

        progress = progress_of(ctx.dataset, record["key"])
        options = {name: ctx.params.get(name) for name in ("sort", "kind", "undecided", "page")}
        if options["sort"] not in self.sorts:
            options["sort"] = self.sorts[0]
        page = page_of(ctx.dataset, record, progress, **options, fresh=bool(ctx.params.get("fresh")))
        return {"progress": progress, "page": asdict(page)}

    def _changed(self, ctx: Any, record: Mapping[str, Any], groups: list[int]) -> Answer:
        """What a decision changed: the first of its groups as it is now, and the progress."""
        from .group_pages import progress_of

        answer: Answer = {"groups": groups, "progress": progress_of(ctx.dataset, record["key"])}
        if groups:
            answer["opened"] = self._opened(ctx, record, groups[0])
        return answer

    def _opened(self, ctx: Any, record: Mapping[str, Any], group: int) -> Answer:
        from .group_pages import opened_group

        return opened_group(ctx.dataset, record, group)

    def _show_in_grid(self, ctx: Any, key: str, groups: list[int]) -> None:
        from ..group_table import group_view

        ctx.ops.set_view(view=group_view(ctx.dataset, key, groups))


def _whole(ctx: Any, name: str) -> int:
    try:
        return int(ctx.params.get(name))
    except (TypeError, ValueError):
        raise ConfigError(f"{name}={ctx.params.get(name)!r} must be a whole number") from None
