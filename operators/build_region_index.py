"""Operator: makes the regions of a dataset searchable, or brings their index up to date."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, region_forms
from .base import CurationOperator

_LABEL = "Build region index"


class BuildRegionIndex(CurationOperator):
    """See :func:`fiftyone_selfsame.build_region_index`."""

    options = ("field", "rebuild", "run_key")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="build_region_index",
            label=_LABEL,
            description="Makes regions searchable; only what is new is added, and what was deleted vanishes",
            icon="storage",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs) and region_forms.choose_regions(ctx, inputs):
            inputs.bool("rebuild", default=False, label="Build anew", description="Otherwise only changes are read")
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return region_forms.latest_regions(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.region_index import build_region_index_steps

            return build_region_index_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            regions = forms.counted(summary.counts["regions"], "region")
            yield ctx.ops.notify(f"{regions} can be searched", variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
