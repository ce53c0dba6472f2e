"""Operator: groups of identical images, by file bytes or by decoded pixels."""

from functools import partial

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import duplicate_forms, forms
from .base import CurationOperator, announce_groups

_LABEL = "Find exact duplicates"


class FindExactDuplicates(CurationOperator):
    """See :func:`fiftyone_selfsame.find_exact_duplicates`."""

    options = ("key", "by", "keeper", "num_workers", "overwrite", "skip_failures")

    @property
    def config(self):
        return foo.OperatorConfig(
            name="find_exact_duplicates",
            label=_LABEL,
            description="Finds copies of the same file or the same picture; needs no embeddings",
            icon="file_copy",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        total = forms.target_images(ctx, inputs)
        if total:
            choices = [
                ("pixels", "Same picture", "Also as another file format or with EXIF rotation; decodes every image"),
                ("bytes", "Same file", "Byte for byte; faster"),
            ]
            forms.choose(inputs, "by", choices, default="pixels", view=types.RadioGroup, label="Count as identical")
            key, usable = duplicate_forms.duplicate_key(ctx, inputs, "exact", "find_exact_duplicates")
            if usable:
                forms.show_work(ctx, inputs, f"{key}_digest", f"{key}_error", total, "image")
            advanced = forms.advanced_options(inputs)
            duplicate_forms.keeper_weights(advanced)
            forms.choose_workers(advanced)
            forms.run_options(advanced)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.exact_duplicates import find_exact_duplicates_steps

            return find_exact_duplicates_steps(ctx.target_view(), **self.arguments(ctx))

        return self.run(ctx, start, partial(announce_groups, ctx))

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})
