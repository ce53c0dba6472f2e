"""Operator: whether the images of each pair show the same object, and where it is in them."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, match_forms
from .base import CurationOperator, show_fields

_LABEL = "Match objects"


class MatchObjects(CurationOperator):
    """See :func:`fiftyone_selfsame.match_objects`."""

    options = (
        "key",
        "matcher",
        "model",
        "saliency",
        "refine",
        "threshold",
        "write_back",
        "device",
        "precision",
        "num_workers",
        "overwrite",
        "skip_failures",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="match_objects",
            label=_LABEL,
            description="Says of each pair of images whether both show one object, and masks what they have in common",
            icon="join_inner",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if match_forms.need_pairs(ctx, inputs) and forms.target_images(ctx, inputs):
            forms.name_field(
                ctx, inputs, "key", "match", label="Name of the result", description="Fields begin with it"
            )
            match_forms.choose_matcher(ctx, inputs)
            inputs.bool(
                "write_back",
                default=True,
                label="Also on the original samples",
                description="Mask, score and partner of the best pair of each",
            )
            match_forms.matcher_options(ctx, forms.advanced_options(inputs))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        return match_forms.matcher_arguments(super().arguments(ctx))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.match_objects import match_objects_steps

            return match_objects_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            key = self.arguments(ctx).get("key", "match")
            yield ctx.ops.reload_dataset()
            yield from show_fields(ctx, key, f"{key}_score", f"{key}_verdict")
            yield ctx.ops.notify(f"{summary.counts.get('matches', 0):,} pairs match", variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
