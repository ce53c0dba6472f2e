"""Operator: the grid shows the duplicate groups of a run, group after group."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..brain.errors import ConfigError
from ..fiftyone_plugin import duplicate_forms, forms
from .base import CurationOperator, show_fields

_LABEL = "Show duplicate groups"


class ShowDuplicateGroups(CurationOperator):
    """See :func:`fiftyone_selfsame.show_duplicate_groups`."""

    options = ("key", "threshold", "min_size", "kind", "as_groups")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="show_duplicate_groups",
            label=_LABEL,
            description="Shows the groups of a duplicate search in the grid, the image to keep first",
            icon="burst_mode",
            dynamic=True,
            execute_as_generator=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            keys = duplicate_forms.duplicate_runs(ctx.dataset)
            key = duplicate_forms.choose_run(inputs, ctx.params.get("key"), keys, "Search for duplicates first.")
            if key:
                duplicate_forms.choose_threshold_of(ctx, inputs, key)
                inputs.int("min_size", min=2, default=2, label="Images in a group", description="At least")
                kinds = [
                    (forms.AUTO, "All groups", None),
                    ("exact", "Identical pictures", None),
                    ("near", "One shot: re-encoded, resized, cropped ...", None),
                    ("same_object", "Several shots of one object", None),
                    ("similar", "All but identical pictures", None),
                ]
                forms.choose(inputs, "kind", kinds, default=forms.AUTO, label="Show")
                inputs.bool("as_groups", default=False, label="One tile per group", view=types.CheckboxView())
        return types.Property(inputs, view=types.View(label=_LABEL))

    def resolve_placement(self, ctx):
        if not duplicate_forms.duplicate_runs(ctx.dataset):
            return None
        button = types.Button(label=_LABEL, icon="burst_mode", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def arguments(self, ctx):
        return duplicate_forms.latest_run(ctx.dataset) | super().arguments(ctx)

    def execute(self, ctx):
        shown = []

        def start():
            from ..fiftyone_plugin.duplicate_views import show_duplicate_groups

            # No progress is reported: its dialog would stay in front of the grid.
            yield from ()
            shown.append(show_duplicate_groups(ctx.target_view(), **self.arguments(ctx)))
            if not shown[0].count():
                raise ConfigError(
                    "There is no such group among these images; lower the bounds or choose another target."
                )

        def finish(_):
            yield ctx.ops.reload_dataset()
            key = self.arguments(ctx)["key"]
            yield from show_fields(ctx, f"{key}_group", f"{key}_role")
            yield ctx.ops.set_view(view=shown[0])

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
