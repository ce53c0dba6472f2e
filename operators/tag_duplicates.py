"""Operator: tags for what to keep and what to drop; nothing is deleted."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import duplicate_forms, forms
from .base import CurationOperator, show_fields

_LABEL = "Tag duplicates"


class TagDuplicates(CurationOperator):
    """See :func:`fiftyone_selfsame.tag_duplicates`."""

    options = ("key", "action")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="tag_duplicates",
            label=_LABEL,
            description="Tags the images of duplicate groups as duplicate:keep and duplicate:drop; can be undone",
            icon="sell",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            keys = duplicate_forms.duplicate_runs(ctx.dataset)
            key = duplicate_forms.choose_run(inputs, ctx.params.get("key"), keys, "Search for duplicates first.")
            if key:
                duplicate_forms.choose_action(ctx, inputs, key)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return duplicate_forms.latest_run(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.duplicate_tags import tag_duplicates_steps

            return tag_duplicates_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            yield from show_fields(ctx, "tags")
            counts = summary.counts
            yield ctx.ops.notify(f"Tags: {counts['keep']:,} to keep, {counts['drop']:,} to drop", variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
