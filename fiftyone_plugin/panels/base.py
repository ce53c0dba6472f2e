"""What both review panels share: events that answer with plain data, lists of groups, one open group, decisions.

The view of a panel is a component of ``js/selfsame.js``; it calls the methods named in `ReviewPanel.events`, which are
given the parameters of the call in ``ctx.params`` and return JSON. Libraries that take time to load are imported when
an event needs them, because FiftyOne loads this module with every request.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from typing import Any, ClassVar

import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.constants import ViewTarget

from ...brain.errors import ConfigError, SelfsameError
from ..runs import PLUGIN, list_records

logger = logging.getLogger(__name__)

Answer = dict[str, Any]


def event(method: Callable[[Any, Any], Answer | None]) -> Callable[[Any, Any], Answer]:
    """A method that the view may call; what goes wrong becomes ``{"error": ...}``, which the view shows in its place.

    An exception would instead take the whole panel down.
    """

    @wraps(method)
    def answer(self: Any, ctx: Any) -> Answer:
        try:
            return method(self, ctx) or {}
        except SelfsameError as error:
            return {"error": str(error)}
        except Exception as error:
            logger.exception("event %s of panel %s failed", method.__name__, self.name)
            return {"error": f"{type(error).__name__}: {error} (the log of the App's server has the details)"}

    return answer


class ReviewPanel(foo.Panel):
    """A list of groups, one of them open, and the decisions on it.

    Subclasses set the class attributes; a *group* is a duplicate group or a cluster, whatever the run holds.
    """

    # The component of js/selfsame.js, the computations whose runs are shown, and the operators that may be opened.
    component: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    operators: ClassVar[tuple[str, ...]]
    sorts: ClassVar[tuple[str, ...]]
    events: ClassVar[tuple[str, ...]] = ("overview", "list_groups", "open_group", "decide", "undo", "show", "prompt")

    def render(self, ctx: Any) -> types.Property:
        handlers = {name: getattr(self, name) for name in self.events}
        view = types.View(component=self.component, composite_view=True, **handlers)
        return types.Property(types.Object(), view=view)

    @event
    def overview(self, ctx: Any) -> Answer:
        """All that the panel shows at first: the runs, one of them, how far its review is, and a page of its groups."""
        records = self.records(ctx)
        key = ctx.params.get("key")
        if key not in [record["key"] for record in records]:
            key = records[-1]["key"] if records else None
        if key is None:
            return {"runs": [], "start": self.start(ctx)}
        record = next(record for record in records if record["key"] == key)
        runs = [{"key": other["key"], "method": other["method"]} for other in records]
        return {"runs": runs, "key": key, "run": self.describe(ctx, record), **self._page(ctx, record)}

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

    @event
    def prompt(self, ctx: Any) -> Answer:
        """Opens the form of one of this panel's operators, filled in as far as the panel knows."""
        name = ctx.params.get("operator")
        if name not in self.operators:
            raise ConfigError(f"this panel does not open the operator {name!r}")
        # The grid may show a single group, which is not what an operator on the whole run is to work on.
        params = {"view_target": ViewTarget.DATASET, **(ctx.params.get("form") or {})}
        ctx.prompt(f"{PLUGIN}/{name}", params=params, on_success=self.prompted)
        return {}

    def prompted(self, ctx: Any) -> None:
        """After an operator that the panel opened: tells the view to read everything anew."""
        import time

        ctx.panel.set_state("refreshed", time.time())

    def on_change_dataset(self, ctx: Any) -> None:
        """Another dataset, or the same after an operator changed its fields."""
        self.prompted(ctx)

    def records(self, ctx: Any) -> list[Answer]:
        """The complete runs that this panel shows, oldest first."""
        if ctx.dataset is None:
            return []
        records = (record for method in self.methods for record in list_records(ctx.dataset, method=method))
        return sorted((r for r in records if r["status"] == "completed"), key=lambda record: record["timestamp"])

    def record(self, ctx: Any) -> Answer:
        """The run that a request names.

        Raises:
            ConfigError: there is no such run of this panel's methods.
        """
        from ..runs import load_record

        key = ctx.params.get("key")
        record = load_record(ctx.dataset, key) if isinstance(key, str) and ctx.dataset is not None else None
        if record is None or record["method"] not in self.methods:
            raise ConfigError(f"there is no run {key!r} any more; choose another")
        return record

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

    def start(self, ctx: Any) -> Answer:
        """What the empty panel offers: the ``operator`` that makes the first run, and why."""
        raise NotImplementedError

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
