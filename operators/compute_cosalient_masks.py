"""Operator: masks of what the images of a group, a cluster, a pair or a view have in common."""

import fiftyone.operators as foo
from fiftyone import Segmentation
from fiftyone.operators import types

from ..fiftyone_plugin import forms, match_forms
from .base import CurationOperator, show_fields

_LABEL = "Compute co-salient masks"


class ComputeCosalientMasks(CurationOperator):
    """See :func:`fiftyone_selfsame.compute_cosalient_masks`."""

    options = (
        "field",
        "key",
        "matcher",
        "model",
        "saliency",
        "refine",
        "device",
        "precision",
        "num_workers",
        "overwrite",
        "skip_failures",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_cosalient_masks",
            label=_LABEL,
            description="Masks the object that the images of a group, a cluster or a pair have in common",
            icon="layers",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            match_forms.choose_sets(ctx, inputs)
            self._name_field(ctx, inputs)
            match_forms.choose_matcher(ctx, inputs)
            match_forms.matcher_options(ctx, forms.advanced_options(inputs), threshold=False)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def _name_field(self, ctx, inputs):
        from ..fiftyone_plugin.cosalient_masks import check_field

        shown = {"label": "Field", "description": "Where the masks go"}
        name, usable = forms.name_field(ctx, inputs, "field", "cosalient", Segmentation, **shown)
        if usable:
            forms.require(inputs.get_property("field"), check_field, ctx.dataset, name)

    def arguments(self, ctx):
        return match_forms.matcher_arguments(super().arguments(ctx))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.cosalient_masks import compute_cosalient_masks_steps

            return compute_cosalient_masks_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            yield from show_fields(ctx, self.arguments(ctx).get("field", "cosalient"))
            yield ctx.ops.notify(
                f"Common objects of {summary.counts.get('sets', 0):,} sets are masked", variant="success"
            )

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
