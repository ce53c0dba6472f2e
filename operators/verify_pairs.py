"""Operator: a second look at the doubtful links of a duplicate search."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import duplicate_forms, forms, match_forms
from .base import CurationOperator

_LABEL = "Verify pairs"


class VerifyPairs(CurationOperator):
    """See :func:`fiftyone_selfsame.verify_pairs`."""

    options = (
        "key",
        "matcher",
        "model",
        "threshold",
        "band",
        "max_pairs",
        "device",
        "precision",
        "num_workers",
        "overwrite",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="verify_pairs",
            label=_LABEL,
            description="Compares the weakest links of a duplicate search region by region; groups are ranked anew",
            icon="fact_check",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            keys = match_forms.group_keys(ctx.dataset, ("find_duplicates",))
            chosen = duplicate_forms.choose_run(inputs, ctx.params.get("key"), keys, "Search for duplicates first.")
            if chosen:
                match_forms.choose_matcher(ctx, inputs)
                inputs.int("max_pairs", min=1, default=500, label="Most links, the weakest first")
                advanced = forms.advanced_options(inputs)
                text = "The lowest part of the way from the threshold to 1"
                advanced.float("band", min=0.0, max=1.0, default=0.5, label="Doubtful links", description=text)
                text = "Empty: the matcher's own"
                advanced.float("threshold", min=0.0, max=1.0, label="Least score of a match", description=text)
                forms.choose_device(advanced)
                forms.choose_workers(advanced)
                advanced.bool("overwrite", default=False, label="Compare again what is up to date")
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given = match_forms.matcher_arguments(super().arguments(ctx))
        keys = match_forms.group_keys(ctx.dataset, ("find_duplicates",))
        return {"key": keys[0], **given} if keys else given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.verify_pairs import verify_pairs_steps

            return verify_pairs_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            counts = summary.counts
            text = f"{forms.counted(counts['confirmed'], 'link')} confirmed, {counts['refuted']:,} refuted"
            yield ctx.ops.notify(text, variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
