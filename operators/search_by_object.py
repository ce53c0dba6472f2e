"""Operator: images that show an object, wherever in the picture, by region, image or words; best first."""

import fiftyone.operators as foo
from fiftyone.operators import types

from ..brain.errors import ConfigError
from ..fiftyone_plugin import forms, region_forms
from .base import CurationOperator

_LABEL = "Search by object"

# So many images join the index while one waits without a word: a second or two.
_QUICK = 500


class SearchByObject(CurationOperator):
    """See :func:`fiftyone_selfsame.search_by_object`."""

    options = (
        "field",
        "labels",
        "images",
        "image",
        "text",
        "box",
        "crop",
        "combine",
        "limit",
        "include_query",
        "key",
        "refresh",
        "device",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="search_by_object",
            label=_LABEL,
            description="Finds the pictures that show an object, and where: by region, by picture or by words",
            icon="image_search",
            dynamic=True,
            execute_as_generator=True,
            risk_level=types.RiskLevel.LOW,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if region_forms.choose_regions(ctx, inputs):
            region_forms.choose_query(ctx, inputs)
            region_forms.choose_gallery(ctx, inputs)
            inputs.int("limit", min=1, max=10_000, default=100, label="Most images")
            inputs.bool("include_query", default=False, label="Also list the query's own image")
            region_forms.search_options(ctx, forms.advanced_options(inputs))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def resolve_placement(self, ctx):
        if not region_forms.fields_with_regions(ctx.dataset):
            return None
        button = types.Button(label=_LABEL, icon="image_search", prompt=True)
        return types.Placement(types.Places.SAMPLES_VIEWER_ACTIONS, button)

    def arguments(self, ctx):
        given = region_forms.latest_regions(ctx.dataset) | super().arguments(ctx)
        if any(given.get(name) for name in ("labels", "images")):
            # A request that names its query: from Python or a delegated run.
            return given
        given.pop("image", None)
        return given | region_forms.query_arguments(ctx)

    def execute(self, ctx):
        shown = []

        def start():
            from ..fiftyone_plugin.region_search import search_by_object_steps, search_view

            samples = region_forms.search_target(ctx)
            waiting = search_by_object_steps(samples, **self.arguments(ctx))
            summary, reported = yield from _report_if_long(waiting)
            if not summary.counts["found"]:
                raise ConfigError("No other image here has regions to compare; compute regions of more images first.")
            shown.append((search_view(samples, summary.key), summary))
            return summary if reported else None

        def finish(_):
            view, summary = shown[0]
            yield ctx.ops.reload_dataset()
            yield ctx.ops.close_sample()
            yield ctx.ops.clear_selected_labels()
            yield ctx.ops.clear_selected_samples()
            yield ctx.ops.set_active_fields([summary.key, f"{summary.key}_similarity"])
            yield ctx.ops.set_view(view=view)

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})


def _report_if_long(steps):
    """Passes reports on only where many images have to join the index first: their dialog would stay in front of the
    pictures that are found. Returns the summary, and whether anything was reported."""
    reported = False
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value, reported
        if progress.total - progress.skipped > _QUICK:
            reported = True
            yield progress
