"""Operator: which stored matches confuse left and right, and which annotations seem to have them exchanged."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import evaluation_forms, forms, match_forms
from .base import CurationOperator, flat_params, show_fields

_LABEL = "Find symmetry errors"


class FindSymmetryErrors(CurationOperator):
    """See :func:`fiftyone_selfsame.find_symmetry_errors`."""

    options = ("key", "ground_truth", "fit_weights")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="find_symmetry_errors",
            label=_LABEL,
            description="Ranks pairs and keypoints by the risk that left and right were confused, with saved views",
            icon="flip",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        ready = match_forms.need_pairs(ctx, inputs) and forms.target_images(ctx, inputs)
        if ready and evaluation_forms.choose_correspondences(ctx, inputs):
            evaluation_forms.choose_ranking(ctx, inputs)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given = super().arguments(ctx)
        keys = evaluation_forms.correspondence_keys(ctx.dataset)
        if flat_params(ctx).get("use_types") is False:
            given = {name: value for name, value in given.items() if name != "fit_weights"} | {"ground_truth": False}
        return {"key": keys[0], **given} if keys else given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.symmetry_errors import find_symmetry_errors_steps

            return find_symmetry_errors_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            if summary.details:
                key = summary.details["run"]
                yield from show_fields(ctx, key, f"{key}_risk")
                yield ctx.ops.set_view(view=ctx.dataset.load_saved_view(summary.details["views"][0]))

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
