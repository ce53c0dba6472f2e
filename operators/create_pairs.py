"""Operator: a dataset of image pairs, to be compared and reviewed."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, match_forms
from .base import CurationOperator

_LABEL = "Create pairs"


class CreatePairs(CurationOperator):
    """See :func:`fiftyone_selfsame.create_pairs`."""

    options = ("key", "name", "groups", "pairs", "fields", "max_pairs", "overwrite")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="create_pairs",
            label=_LABEL,
            description="Makes a dataset of image pairs from groups, clusters or a selection",
            icon="link",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            match_forms.choose_pairs(ctx, inputs)
            inputs.str("name", label="Name of the new dataset", description="Empty: made of this dataset's name")
            inputs.int("max_pairs", min=1, default=1000, label="Most pairs")
            inputs.bool("overwrite", default=False, label="Replace a pair dataset of that name")
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given = super().arguments(ctx)
        chosen = ctx.params.get("pairs_from")
        if chosen == match_forms.SELECTION or (chosen is None and not given.keys() & {"key", "pairs"} and ctx.selected):
            given.pop("key", None)
            if len(ctx.selected) == 2:
                given["pairs"] = [list(ctx.selected)]
        elif chosen == match_forms.GROUPS:
            given.setdefault("key", match_forms.default_group_key(ctx))
        return given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.create_pairs import create_pairs_steps

            return create_pairs_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.open_dataset(summary.details["dataset"])

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
