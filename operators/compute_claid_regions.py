"""Operator: the regions of each image, coarse to fine, with a vector for each, to search for objects."""

import fiftyone.operators as foo
from fiftyone import Detections
from fiftyone.operators import types

from ..fiftyone_plugin import forms, region_forms
from .base import CurationOperator, flat_params, show_fields

_LABEL = "Compute regions (CLAID)"

_FOLLOWUPS = {
    "similarity": "Index for the App's sort by similarity of patches",
    "visualization": "Map (UMAP) of the regions for the Embeddings panel: takes a minute or more",
}


class ComputeClaidRegions(CurationOperator):
    """See :func:`fiftyone_selfsame.compute_claid_regions`."""

    options = (
        "field",
        "model",
        "preset",
        "descriptor",
        "layer",
        "pooling",
        "area",
        "max_side",
        "short_side",
        "long_side",
        "enlarge",
        "alpha",
        "tau1",
        "tau2",
        "theta",
        "min_patches",
        "connectivity",
        "inertia",
        "init",
        "order",
        "seed",
        "cut",
        "box_mode",
        "storage",
        "device",
        "precision",
        "batch_size",
        "num_workers",
        "overwrite",
        "skip_failures",
        "similarity_key",
        "visualization_key",
        "run_key",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_claid_regions",
            label=_LABEL,
            description=f"Finds the regions of each picture, and a vector for each. {region_forms.PATENT}",
            icon="account_tree",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        total = forms.target_images(ctx, inputs)
        if total:
            _what_and_where(ctx, inputs, total)
            _how(ctx, inputs)
            _storage(ctx, inputs)
            _advanced(forms.advanced_options(inputs))
            inputs.view("patent", types.Notice(label=region_forms.PATENT))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given, ticked = super().arguments(ctx), flat_params(ctx)
        if isinstance(given.get("enlarge"), str):
            given["enlarge"] = given["enlarge"] == "yes"
        for kind in _FOLLOWUPS:
            if ticked.get(kind) and given.get("storage") == "labels":
                given.setdefault(f"{kind}_key", f"{given.get('field', 'regions')}_{kind}")
        return given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.regions import compute_claid_regions_steps

            return compute_claid_regions_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            yield from show_fields(ctx, self.arguments(ctx).get("field", "regions"))
            regions = forms.counted(summary.counts.get("regions", 0), "region")
            yield ctx.ops.notify(f"{regions} found: select one and search for it", variant="success")

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})


def _what_and_where(ctx, inputs, total):
    field, usable = forms.name_field(
        ctx, inputs, "field", "regions", Detections, label="Field", description="Where the regions go"
    )
    if usable:
        forms.show_work(ctx, inputs, field, f"{field}_error", total, "image")


def _how(ctx, inputs):
    presets = [
        ("default", "Default", "The paper's parameters with the program's rules, on the best encoder at hand"),
        ("paper", "As in the paper", "DINO ViT-B/8 and ResNet-50, all rules as the paper states them"),
        ("code", "As in its program", "DINO ViT-B/8 and ResNet-50, as the published program works"),
    ]
    forms.choose(inputs, "preset", presets, default="default", view=types.RadioGroup, label="Pipeline")
    backbone, descriptor = region_forms.preset_models(ctx.params.get("preset", "default"))
    forms.choose_model(ctx, inputs, backbone)
    region_forms.choose_descriptor(ctx, inputs, descriptor)


def _storage(ctx, inputs):
    region_forms.choose_storage(ctx, inputs)
    if ctx.params.get("storage") == "labels":
        for kind, label in _FOLLOWUPS.items():
            inputs.bool(kind, default=False, label=label, view=types.CheckboxView())


def _advanced(inputs):
    region_forms.detector_options(inputs)
    forms.model_options(inputs, tokens=False)
