"""Operator: how good stored correspondences are, by the keypoints that are annotated."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import evaluation_forms, forms, match_forms
from .base import CurationOperator
from .downloads import download

_LABEL = "Evaluate correspondences"


class EvaluateCorrespondences(CurationOperator):
    """See :func:`fiftyone_selfsame.evaluate_correspondences`."""

    options = ("key", "run_key", "alphas", "threshold", "category", "azimuth", "azimuth_difference")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="evaluate_correspondences",
            label=_LABEL,
            description="PCK by flavour, KAP and the types of errors of stored correspondences, with a report",
            icon="analytics",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if match_forms.need_pairs(ctx, inputs) and forms.target_images(ctx, inputs):
            key = evaluation_forms.choose_correspondences(ctx, inputs, with_keypoints=True)
            if key is not None:
                evaluation_forms.choose_evaluation(ctx, inputs, key)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given = super().arguments(ctx)
        keys = evaluation_forms.correspondence_keys(ctx.dataset, with_keypoints=True)
        if "alphas" in given:
            given["alphas"] = evaluation_forms.parse_alphas(given["alphas"])
        return {"key": keys[0], **given} if keys else given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.evaluate_correspondences import evaluate_correspondences_steps

            return evaluate_correspondences_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            if ctx.params.get("download") and summary.details:
                for name in ("csv", "markdown"):
                    yield from download(ctx, summary.details[name])

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
