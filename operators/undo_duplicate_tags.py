"""Operator: takes back the last tagging of duplicates."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import duplicate_forms, forms
from .base import CurationOperator

_LABEL = "Undo duplicate tags"


class UndoDuplicateTags(CurationOperator):
    """See :func:`fiftyone_selfsame.undo_duplicate_tags`."""

    options = ("key",)

    @property
    def config(self):
        return foo.OperatorConfig(
            name="undo_duplicate_tags",
            label=_LABEL,
            description="Takes back the last tagging of duplicates; tags given by hand stay",
            icon="undo",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        duplicate_forms.choose_undo(ctx, inputs)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return duplicate_forms.latest_tagged_run(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.duplicate_tags import undo_duplicate_tags_steps

            return undo_duplicate_tags_steps(ctx.dataset, **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            yield ctx.ops.notify(f"{forms.counted(summary.counts['untagged'], 'tag')} taken back", variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
