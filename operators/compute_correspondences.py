"""Operator: where the keypoints of one image of each pair lie in the other, and which matches are wrong or doubtful."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import correspondence_forms, forms, match_forms
from .base import CurationOperator, show_fields

_LABEL = "Compute correspondences"
_KEY = "correspondence"


class ComputeCorrespondences(CurationOperator):
    """See :func:`fiftyone_selfsame.compute_correspondences`."""

    options = (
        "key",
        "keypoints",
        "couples",
        "foreground",
        "model",
        "size",
        "decoding",
        "alignment",
        "visibility",
        "label_free",
        "count",
        "alpha",
        "write_back",
        "device",
        "precision",
        "num_workers",
        "cache_tokens",
        "overwrite",
        "skip_failures",
        "diffusion",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_correspondences",
            label=_LABEL,
            description="Finds keypoints of each pair again, types their errors and scores them without annotations",
            icon="polyline",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if match_forms.need_pairs(ctx, inputs) and forms.target_images(ctx, inputs):
            forms.name_field(ctx, inputs, "key", _KEY, label="Name of the result", description="Fields begin with it")
            correspondence_forms.choose_keypoints(ctx, inputs)
            forms.choose_model(ctx, inputs)
            correspondence_forms.choose_alignment(ctx, inputs)
            correspondence_forms.choose_object(ctx, inputs)
            inputs.bool(
                "label_free",
                default=True,
                label="Scores without annotations",
                description="How doubtful each match is by itself; takes the mirrored targets as well",
            )
            inputs.bool(
                "write_back",
                default=True,
                label="Also on the original samples",
                description="Worst error, number of swaps and best partner of each",
            )
            correspondence_forms.matching_options(ctx, forms.advanced_options(inputs))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.compute_correspondences import compute_correspondences_steps

            return compute_correspondences_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            key = self.arguments(ctx).get("key", _KEY)
            yield ctx.ops.reload_dataset()
            yield from show_fields(ctx, key, f"{key}_score", f"{key}_worst_type")
            yield ctx.ops.notify(f"{summary.counts.get('matches', 0):,} matches", variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
