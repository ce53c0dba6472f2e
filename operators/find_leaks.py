"""Operator: pictures and objects that are in several splits of a dataset, or in two datasets."""

import base64

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import forms, leak_forms
from .base import CurationOperator, show_fields

_LABEL = "Find leaks between splits"


class FindLeaks(CurationOperator):
    """See :func:`fiftyone_selfsame.find_leaks`."""

    options = (
        "key",
        "duplicates",
        "embeddings",
        "split_field",
        "other",
        "threshold",
        "drop_from",
        "tag",
        "device",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="find_leaks",
            label=_LABEL,
            description="Finds images whose picture or object is in another split, or in another dataset, too",
            icon="call_split",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            task = leak_forms.choose_task(ctx, inputs)
            if task == leak_forms.SEARCH:
                _search(ctx, inputs)
            else:
                leak_forms.choose_leaks(ctx, inputs)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        if ctx.params.get("task") in (leak_forms.SHOW, leak_forms.CLEAR):
            return leak_forms.latest_leaks(ctx.dataset) | {
                name: value for name, value in super().arguments(ctx).items() if name == "key"
            }
        given = super().arguments(ctx)
        if given.get("duplicates") == leak_forms.VECTORS:
            del given["duplicates"]
        if given.get("split_field") == leak_forms.TAGS:
            given["split_field"] = ctx.params.get("split_tags") or []
        # What was filled in before the other side was chosen is still in the request.
        if ctx.params.get("between") == leak_forms.DATASETS:
            given.pop("duplicates", None)
        elif "between" in ctx.params:
            given.pop("other", None)
        return given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.leaks import clear_leaks, find_leaks_steps

            given = self.arguments(ctx)
            if ctx.params.get("task") == leak_forms.CLEAR:
                return clear_leaks(ctx.dataset, **given)
            if ctx.params.get("task") == leak_forms.SHOW:
                return None
            return (yield from find_leaks_steps(ctx.target_view(), **given))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            if ctx.params.get("task") == leak_forms.CLEAR:
                return
            yield from _show(ctx, self.arguments(ctx).get("key", "leaks"), summary)

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})


def _search(ctx, inputs):
    sides = leak_forms.choose_sides(ctx, inputs)
    if sides and leak_forms.choose_pairs(ctx, inputs, sides):
        leak_forms.leak_key(ctx, inputs)
        inputs.bool("download", default=False, label="Download all pairs as CSV", view=types.CheckboxView())
        advanced = forms.advanced_options(inputs)
        leak_forms.choose_tags(ctx, advanced)
        forms.choose_device(advanced)


def _show(ctx, key, summary):
    """Shows the leaks in the grid, if there are any, and hands out the file that was asked for."""
    from ..fiftyone_plugin.leak_report import leaks_csv, show_leaks

    if summary is not None and not summary.counts.get("leaks"):
        return
    yield from show_fields(ctx, f"{key}_other", f"{key}_similarity")
    yield ctx.ops.set_view(view=show_leaks(ctx.target_view(), key))
    if ctx.params.get("download"):
        text = leaks_csv(ctx.dataset, key).encode()
        if len(text) > leak_forms.MAX_CSV:
            warning = "The list of pairs is too large to download here; use export_leaks in Python"
            yield ctx.ops.notify(warning, variant="warning")
        else:
            url = f"data:text/csv;base64,{base64.b64encode(text).decode()}"
            yield ctx.ops.browser_download(url, filename=f"{key}.csv")
