"""Operator: foreground masks of images, as a Segmentation field."""

import fiftyone.operators as foo
from fiftyone import Segmentation
from fiftyone.operators import types

from ..fiftyone_plugin import forms
from .base import CurationOperator, show_fields

_LABEL = "Compute foreground masks"


class ComputeForeground(CurationOperator):
    """See :func:`fiftyone_selfsame.compute_foreground`."""

    options = (
        "method",
        "field",
        "model",
        "device",
        "precision",
        "batch_size",
        "num_workers",
        "cache_tokens",
        "overwrite",
        "skip_failures",
        "run_key",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_foreground",
            label=_LABEL,
            description="Finds the object in each picture and stores its mask in a field",
            icon="filter_center_focus",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        total = forms.target_images(ctx, inputs)
        if total:
            field, usable = forms.name_field(
                ctx, inputs, "field", "foreground", Segmentation, label="Field", description="Where the masks go"
            )
            if usable:
                forms.show_work(ctx, inputs, field, f"{field}_error", total, "image")
            methods = [(name, label, text) for name, (label, text) in forms.FOREGROUND_CHOICES.items()]
            method = ctx.params.get("method", "one_pass")
            forms.choose(inputs, "method", methods, default="one_pass", label="Method")
            if method == "one_pass":
                forms.choose_model(ctx, inputs)
            forms.model_options(forms.advanced_options(inputs))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.compute import compute_foreground_steps

            return compute_foreground_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            yield from show_fields(ctx, self.arguments(ctx).get("field", "foreground"))
            yield ctx.ops.notify(
                f"Masks of {forms.counted(summary.counts['done'], 'image')} are ready", variant="success"
            )

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
