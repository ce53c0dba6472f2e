"""Operator: FFA vectors of images or of the objects in them, as a field, with what FiftyOne can make of them."""

import fiftyone.operators as foo
from fiftyone import Detections, VectorField
from fiftyone.operators import types

from ..fiftyone_plugin import forms
from .base import CurationOperator, flat_params

_LABEL = "Compute FFA embeddings"

# What FiftyOne can make of the vectors: label of the checkbox, and whether it is ticked at first.
_FOLLOWUPS = {
    "similarity": ("Index for the App's sort by similarity", True),
    "visualization": ("Map (UMAP) for the Embeddings panel: takes a minute or more", False),
}


class ComputeFFA(CurationOperator):
    """See :func:`fiftyone_selfsame.compute_ffa`."""

    options = (
        "field",
        "model",
        "foreground",
        "preset",
        "encode",
        "pooling",
        "weights",
        "resize",
        "size",
        "objects_field",
        "object_route",
        "device",
        "precision",
        "batch_size",
        "num_workers",
        "cache_tokens",
        "overwrite",
        "skip_failures",
        "similarity_key",
        "visualization_key",
        "run_key",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="compute_ffa",
            label=_LABEL,
            description="One vector per image or object that describes the object and not its background",
            icon="fingerprint",
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
            _followups(ctx, inputs)
            _advanced(forms.advanced_options(inputs))
        return types.Property(inputs, view=types.View(label=_LABEL))

    def arguments(self, ctx):
        given, ticked = super().arguments(ctx), flat_params(ctx)
        for kind in _FOLLOWUPS:
            key = f"{kind}_key"
            if ticked.get(kind, key in given):
                given.setdefault(key, f"{given.get('field', 'ffa')}_{kind}")
            else:
                given.pop(key, None)
        return given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.compute import compute_ffa_steps

            return compute_ffa_steps(ctx.target_view(), **self.arguments(ctx))

        def finish(summary):
            yield ctx.ops.reload_dataset()
            yield ctx.ops.notify(
                f"Vectors of {forms.counted(summary.counts['done'], 'image')} are ready", variant="success"
            )

        return self.run(ctx, start, finish)

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})


def _what_and_where(ctx, inputs, total):
    objects_field = _objects_field(ctx)
    ftype = None if objects_field else VectorField
    field, usable = forms.name_field(
        ctx, inputs, "field", "ffa", ftype, label="Field", description="Where the vectors go"
    )
    detections = forms.label_fields(ctx.dataset, Detections)
    if detections:
        choices = [(forms.AUTO, "Image", None), *((name, f"Object in {name}", None) for name in detections)]
        forms.choose(inputs, "objects_field", choices, default=forms.AUTO, label="One vector for each")
    if objects_field:
        routes = [
            ("crop", "Encode each object by itself", "Sees small objects in detail; costs one pass per object"),
            ("image", "Encode the image once", "Cheap with many objects; vectors know the surroundings"),
        ]
        forms.choose(inputs, "object_route", routes, default="crop", view=types.RadioGroup, label="Objects")
    if usable and objects_field:
        root = f"{objects_field}.detections"
        n_objects = forms.count_values(ctx, root)
        forms.show_work(ctx, inputs, f"{root}.{field}", f"{objects_field}_{field}_error", n_objects, "object")
    elif usable:
        forms.show_work(ctx, inputs, field, f"{field}_error", total, "image")


def _how(ctx, inputs):
    presets = [
        ("default", "Fast", "One pass of the encoder gives foreground and vector"),
        ("paper", "As published", "DINOv2 base on pictures that CarveKit has cut out: ten times slower and more"),
    ]
    forms.choose(inputs, "preset", presets, default="default", view=types.RadioGroup, label="Pipeline")
    preset = ctx.params.get("preset", "default")
    forms.choose_model(ctx, inputs, forms.ffa_backbone(preset))
    forms.choose_foreground(ctx, inputs, preset)


def _followups(ctx, inputs):
    field = ctx.params.get("field") or "ffa"
    for kind, (label, ticked) in _FOLLOWUPS.items():
        inputs.bool(kind, default=ticked, label=label, view=types.CheckboxView())
        if ctx.params.get(kind, ticked):
            # No default value: the App would keep the one for the first field name when the user types another.
            key = ctx.params.get(f"{kind}_key") or f"{field}_{kind}"
            text = f"The name it is stored under. Empty: {field}_{kind}"
            prop = inputs.str(f"{kind}_key", label="Brain key", description=text)
            forms.require(prop, forms.check_brain_key, ctx.dataset, kind, key, field, _objects_field(ctx))


def _objects_field(ctx):
    chosen = ctx.params.get("objects_field")
    return None if chosen in (None, "", forms.AUTO) else chosen


def _advanced(inputs):
    def option(name, label, *choices):
        forms.choose(inputs, name, [("auto", "As the pipeline says", None), *choices], default="auto", label=label)

    option(
        "encode",
        "The encoder sees",
        ("original", "The whole picture", None),
        ("cutout", "The foreground on black", None),
    )
    option(
        "pooling",
        "The vector is",
        ("patch", "The mean of the foreground's patches", None),
        ("cls", "The class token", None),
    )
    option("weights", "Patches count", ("hard", "If more than half foreground", None), ("soft", "By their share", None))
    option(
        "resize",
        "Pictures are",
        ("squash", "Squashed into a square", None),
        ("letterbox", "Padded to a square", None),
        ("aspect", "Kept in shape", None),
    )
    inputs.int("size", min=14, max=2048, label="Input size in pixels", description="Empty: as the encoder likes it")
    forms.model_options(inputs)
