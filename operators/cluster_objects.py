"""Operator: clusters of images, or of objects in images, that show the very same thing."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import cluster_forms, forms
from .base import CurationOperator, show_fields

_LABEL = "Cluster objects"


class ClusterObjects(CurationOperator):
    """See :func:`fiftyone_selfsame.cluster_objects`."""

    options = (
        "key",
        "embeddings",
        "patches_field",
        "method",
        "similarity",
        "threshold",
        "min_size",
        "max_diameter",
        "neighbours",
        "pictures",
        "verify",
        "truth_field",
        "device",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="cluster_objects",
            label=_LABEL,
            description="Groups images, or objects in images, that show the very same object",
            icon="hub",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            place = cluster_forms.choose_vectors(ctx, inputs)
            if place is not None:
                cluster_forms.choose_method(inputs)
                cluster_forms.cluster_key(ctx, inputs, place)
                cluster_forms.choose_truth(ctx, inputs, place)
                advanced = forms.advanced_options(inputs)
                cluster_forms.advanced_options(ctx, advanced)
                forms.choose_device(advanced)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def resolve_placement(self, ctx):
        if not cluster_forms.has_vectors(ctx.dataset):
            return None
        button = types.Button(label=_LABEL, icon="hub", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def arguments(self, ctx):
        given = super().arguments(ctx)
        # A limit that was filled in before another method was chosen is still in the request.
        if given.get("method", "agglomerative") != "components":
            given.pop("max_diameter", None)
        return given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.object_clusters import cluster_objects_steps

            return cluster_objects_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            if summary.key is not None:
                given = self.arguments(ctx)
                objects = "patches_field" in given
                if not objects:
                    yield from show_fields(ctx, f"{summary.key}_cluster", f"{summary.key}_name")
                text = cluster_forms.clusters_text(summary.counts, "object" if objects else "image")
                yield ctx.ops.notify(text, variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
