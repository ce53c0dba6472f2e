"""Operator: trains a matcher on labelled pairs, or calibrates the training-free one on them."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, training_forms
from .base import CurationOperator

_LABEL = "Train matcher"


class TrainMatcher(CurationOperator):
    """See :func:`fiftyone_selfsame.train_matcher`."""

    options = (
        "name",
        "kind",
        "labels",
        "masks",
        "product",
        "vectors",
        "split",
        "max_pairs",
        "encoder",
        "head",
        "model",
        "side",
        "steps",
        "learning_rate",
        "batch_size",
        "validation_share",
        "seed",
        "device",
        "precision",
        "num_workers",
        "overwrite",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="train_matcher",
            label=_LABEL,
            description="Learns from labelled or reviewed pairs whether two images show the same object",
            icon="model_training",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            training_forms.training_form(ctx, inputs)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.train_matcher import train_matcher_steps

            return train_matcher_steps(ctx.target_view(), **training_forms.training_arguments(ctx, self.arguments(ctx)))

        def finish(summary):
            yield ctx.ops.notify(f"Matcher {summary.details['matcher']!r} is ready", variant="success")

        return self.run(ctx, start, finish)

    def summary_form(self, result):
        form = super().summary_form(result)
        curve = result.get("details", {}).get("curve") if result else None
        if curve:
            training_forms.show_curve(form.type, curve)
        return form

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
