"""What all panels share: events that answer with plain data, the runs that a panel shows, forms of operators.

The view of a panel is a component of ``js/``; it calls the methods named in `CurationPanel.events`, which are given the
parameters of the call in ``ctx.params`` and return JSON. Libraries that take time to load are imported when an event
needs them, because FiftyOne loads this module with every request.
"""

import logging
from collections.abc import Callable
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


class CurationPanel(foo.Panel):
    """A panel on the runs of some computations; subclasses set the class attributes.

    Attributes:
        component: the view, a component of ``js/``.
        methods: the computations whose runs are shown.
        operators: those whose form may be opened.
        events: the methods that the view may call.
    """

    component: ClassVar[str]
    methods: ClassVar[tuple[str, ...]]
    operators: ClassVar[tuple[str, ...]]
    events: ClassVar[tuple[str, ...]]

    def render(self, ctx: Any) -> types.Property:
        handlers = {name: getattr(self, name) for name in self.events}
        view = types.View(component=self.component, composite_view=True, **handlers)
        return types.Property(types.Object(), view=view)

    @event
    def prompt(self, ctx: Any) -> Answer:
        """Opens the form of one of this panel's operators, filled in as far as the panel knows."""
        name = ctx.params.get("operator")
        if name not in self.operators:
            raise ConfigError(f"this panel does not open the operator {name!r}")
        params = {**self.target(ctx), **(ctx.params.get("form") or {})}
        ctx.prompt(f"{PLUGIN}/{name}", params=params, on_success=self.prompted)
        return {}

    def target(self, ctx: Any) -> Answer:
        """What an operator that the panel opens is to work on: all of the dataset, as the grid may show one group."""
        return {"view_target": ViewTarget.DATASET}

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

    def select(self, ctx: Any) -> tuple[Answer, Answer | None]:
        """The runs for the view to choose from, and the record of the one it asks for, else of the latest."""
        records = self.records(ctx)
        wanted = [record for record in records if record["key"] == ctx.params.get("key")] or records[-1:]
        runs = [{"key": record["key"], "method": record["method"]} for record in records]
        if not wanted:
            return {"runs": runs, "start": self.start(ctx)}, None
        return {"runs": runs, "key": wanted[0]["key"]}, wanted[0]

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

    def start(self, ctx: Any) -> Answer:
        """What the empty panel offers: the ``operator`` that makes the first run, and why."""
        raise NotImplementedError
