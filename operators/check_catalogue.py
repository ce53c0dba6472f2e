"""Operator: whether the documents of each product show what its catalogue shows."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import catalogue_forms, forms, match_forms
from .base import CurationOperator, flat_params, show_fields
from .downloads import download

_LABEL = "Check catalogue"


class CheckCatalogue(CurationOperator):
    """See :func:`fiftyone_selfsame.check_catalogue`."""

    options = (
        "product",
        "key",
        "use",
        "catalogue",
        "document",
        "documents",
        "name",
        "matcher",
        "model",
        "saliency",
        "refine",
        "threshold",
        "controls",
        "max_per_product",
        "max_pairs",
        "device",
        "precision",
        "num_workers",
        "overwrite",
        "skip_failures",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="check_catalogue",
            label=_LABEL,
            description="Says of each product whether its documents show what its catalogue images show, with evidence",
            icon="fact_check",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        catalogue_forms.choose_target(ctx, inputs)
        if forms.target_images(ctx, inputs):
            sides = catalogue_forms.choose_sides(ctx, inputs)
            if sides is not None:
                catalogue_forms.show_plan(ctx, inputs, flat_params(ctx))
                catalogue_forms.choose_check(ctx, inputs, sides)
                catalogue_forms.advanced_check(ctx, forms.advanced_options(inputs))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given = match_forms.matcher_arguments(super().arguments(ctx))
        others = {name: value for name, value in given.items() if name not in catalogue_forms.SIDES}
        return others | catalogue_forms.sides_arguments(ctx)

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.check_catalogue import check_catalogue_steps

            return check_catalogue_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            if summary.details:
                yield from _show(ctx, summary)

        return self.run(ctx, start, finish)

    def summary_form(self, result):
        prop = super().summary_form(result)
        catalogue_forms.verdict_table(prop.type, result.get("details") or {})
        return prop

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})


def _show(ctx, summary):
    """Shows the products to look after, and hands out the table."""
    key, details = summary.key, summary.details
    if ctx.params.get("download"):
        yield from download(ctx, details["path"])
    yield from show_fields(ctx, f"{key}_product_verdict", f"{key}_score", key)
    if summary.counts["without_evidence"]:
        yield ctx.ops.set_view(view=ctx.dataset.load_saved_view(details["view"]))
