"""Operator: takes the outcome of an object search off the dataset."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, region_forms
from .base import CurationOperator

_LABEL = "Clear object search"


class ClearObjectSearch(CurationOperator):
    """See :func:`fiftyone_selfsame.clear_object_search`."""

    options = ("key",)

    @property
    def config(self):
        return foo.OperatorConfig(
            name="clear_object_search",
            label=_LABEL,
            description="Removes the fields of a search and shows the dataset as it was",
            icon="search_off",
            dynamic=True,
            execute_as_generator=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        keys = region_forms.searches_of(ctx.dataset)
        if keys:
            forms.choose(inputs, "key", [(key, key, None) for key in keys], default=keys[0], label="Search named")
        else:
            forms.refuse(inputs, "There is no object search to clear.")
        return types.Property(inputs, view=types.View(label=_LABEL))

    def resolve_placement(self, ctx):
        if not region_forms.searches_of(ctx.dataset):
            return None
        button = types.Button(label=_LABEL, icon="search_off", prompt=False)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def arguments(self, ctx):
        keys = region_forms.searches_of(ctx.dataset)
        return ({"key": keys[0]} if keys else {}) | super().arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.region_search import clear_object_search

            yield from ()
            clear_object_search(ctx.dataset, **self.arguments(ctx))

        def finish(_):
            yield ctx.ops.clear_view()
            yield ctx.ops.reload_dataset()

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
