"""Operator: the grid shows same-object clusters, cluster after cluster or likely mistakes first."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..brain.errors import ConfigError
from ..fiftyone_plugin import cluster_forms, forms
from .base import CurationOperator

_LABEL = "Show object clusters"


class ShowObjectClusters(CurationOperator):
    """See :func:`fiftyone_selfsame.show_object_clusters`."""

    options = ("key", "min_size", "outliers_first", "as_groups")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="show_object_clusters",
            label=_LABEL,
            description="Shows same-object clusters in the grid, as images or as patches",
            icon="workspaces",
            dynamic=True,
            execute_as_generator=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            cluster_forms.choose_clusters(ctx, inputs)
            inputs.int("min_size", min=2, default=2, label="Members of a cluster", description="At least")
            box = types.CheckboxView()
            if not ctx.params.get("as_groups"):
                inputs.bool("outliers_first", default=False, label="Likely mistakes first", view=box)
            if not ctx.params.get("outliers_first"):
                inputs.bool("as_groups", default=False, label="One tile per cluster", view=box)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return cluster_forms.latest_clusters(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        shown = []

        def start():
            from ..fiftyone_plugin.cluster_views import show_object_clusters

            # No progress is reported: its dialog would stay in front of the grid.
            yield from ()
            shown.append(show_object_clusters(ctx.target_view(), **self.arguments(ctx)))
            if not shown[0].count():
                raise ConfigError(
                    "There is no such cluster among these images; lower the bound or choose another target."
                )

        def finish(_):
            yield ctx.ops.reload_dataset()
            yield ctx.ops.set_view(view=shown[0])

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
