"""Operator: deletes what was decided to be dropped, after a dry run and a typed confirmation."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import decision_forms, forms
from .base import CurationOperator

_LABEL = "Apply decisions"


class ApplyDecisions(CurationOperator):
    """See :func:`fiftyone_selfsame.apply_decisions`."""

    options = ("key", "dry_run", "confirm", "delete_files")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="apply_decisions",
            label=_LABEL,
            description="Deletes what was decided to be dropped; tells first what would go, and asks for confirmation",
            icon="delete_sweep",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.DANGEROUS,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            key = decision_forms.choose_reviewed(ctx, inputs)
            if key:
                decision_forms.choose_deletion(ctx, inputs, key)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return decision_forms.latest_reviewed(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.decision_apply import apply_decisions_steps

            return apply_decisions_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            if not summary.details["dry_run"] and summary.counts["drop"]:
                yield ctx.ops.reload_dataset()

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
