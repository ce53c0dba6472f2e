"""Operator: a dataset of image pairs, to be compared and reviewed."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, pair_forms
from .base import CurationOperator

_LABEL = "Create pairs"


class CreatePairs(CurationOperator):
    """See :func:`fiftyone_selfsame.create_pairs`."""

    options = (
        "key",
        "name",
        "groups",
        "similar",
        "partners",
        "apart",
        "within",
        "azimuth",
        "azimuth_difference",
        "pairs",
        "fields",
        "max_pairs",
        "overwrite",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="create_pairs",
            label=_LABEL,
            description="Makes a dataset of image pairs from groups, similarity, a field, a selection or a list",
            icon="link",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            pair_forms.pair_form(ctx, inputs)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return pair_forms.pair_arguments(ctx, super().arguments(ctx))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.create_pairs import create_pairs_steps

            return create_pairs_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.open_dataset(summary.details["dataset"])

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
