"""Operator: the grid shows one level of the hierarchy of regions."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, region_forms
from .base import CurationOperator, show_fields

_LABEL = "Show region level"


class ShowRegionLevel(CurationOperator):
    """See :func:`fiftyone_selfsame.show_region_level`."""

    options = ("field", "level", "min_saliency", "as_patches")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="show_region_level",
            label=_LABEL,
            description="Shows regions of one level only, on the images or as patches",
            icon="layers",
            dynamic=True,
            execute_as_generator=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            field = region_forms.choose_regions(ctx, inputs)
            if field:
                region_forms.choose_level(ctx, inputs, field)
                text = "Share of patches with high energy, 0 to 1. Empty: any"
                inputs.float("min_saliency", min=0.0, max=1.0, label="Least saliency", description=text)
                inputs.bool("as_patches", default=False, label="One tile per region", view=types.CheckboxView())
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given = region_forms.latest_regions(ctx.dataset) | super().arguments(ctx)
        # A choice of the form is a text.
        if str(given.get("level", "")).isdigit():
            given["level"] = int(given["level"])
        return given

    def execute(self, ctx):
        shown = []

        def start():
            from ..fiftyone_plugin.region_views import show_region_level

            yield from ()
            shown.append(show_region_level(ctx.target_view(), **self.arguments(ctx)))

        def finish(_):
            yield from show_fields(ctx, self.arguments(ctx)["field"])
            yield ctx.ops.set_view(view=shown[0])

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
