"""Operator: decisions as a table, or what is left without the dropped as a view, a dataset or files."""

from pathlib import Path

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import decision_forms, forms
from .base import CurationOperator
from .downloads import download

_LABEL = "Export decisions"


class ExportDecisions(CurationOperator):
    """See :func:`fiftyone_selfsame.export_decisions`."""

    options = ("key", "to", "name", "dataset_type", "label_field", "overwrite")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="export_decisions",
            label=_LABEL,
            description="A table of all decisions, or the data without what is dropped: view, dataset or files",
            icon="ios_share",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs) and decision_forms.choose_reviewed(ctx, inputs):
            decision_forms.choose_export(ctx, inputs)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return decision_forms.latest_reviewed(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.decision_export import export_decisions_steps

            return export_decisions_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            path = Path(summary.details.get("path") or "")
            if path.suffix in (".csv", ".json"):
                yield from download(ctx, path)

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
