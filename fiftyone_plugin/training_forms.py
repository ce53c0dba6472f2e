"""The form of `train_matcher`, and the plot of what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from ..brain.errors import ConfigError
from . import forms
from .pairs import is_pair_dataset

NETWORK, LOGISTIC = "network", "logistic"

_KINDS = [
    (
        LOGISTIC,
        "Calibrate the training-free matcher",
        "Needs some ten pairs of each answer, takes as long as comparing",
    ),
    (NETWORK, "Train a network", "Needs a hundred pairs or more, takes minutes to hours"),
]
_LABELS = [
    ("both", "Labels and decisions", "Decisions overrule labels"),
    ("decisions", "Decisions", "What was accepted and rejected in the Matching panel"),
    ("label", "Labels", "The field label of the pairs"),
]
_ENCODERS = [
    ("tokens", "Tokens of a frozen encoder", "Quick, and enough for most"),
    ("coder", "CODER", "The co-dependent encoder of SCOTT, from scratch"),
    ("resnet50", "ResNet-50 twins", "From scratch, or from the weights named as encoder"),
]
_HEADS = [
    ("matcher", "MATCHER", "All pairs of tokens"),
    ("region", "Regions", "Mean tokens of both regions: cheaper, nearly as good"),
    ("image", "Images", "Mean tokens of both images"),
]


def training_form(ctx: Any, inputs: types.Object) -> None:
    """All of the form but the target."""
    prop = inputs.str("name", required=True, label="Name of the matcher")
    if ctx.params.get("name"):
        forms.require(prop, _check_name, ctx.params["name"])
    forms.choose(inputs, "kind", _KINDS, default=LOGISTIC, view=types.RadioGroup, label="What to train")
    if is_pair_dataset(ctx.dataset):
        forms.choose(inputs, "labels", _LABELS, default="both", label="Answers from")
        _show_answers(ctx, inputs)
    elif not _choose_products(ctx, inputs):
        return
    _choose_split(ctx, inputs)
    if (ctx.params.get("kind") or LOGISTIC) == NETWORK:
        _choose_network(ctx, inputs)
    else:
        forms.choose_model(ctx, inputs)
    advanced = forms.advanced_options(inputs)
    forms.choose_device(advanced)
    formats = [(forms.AUTO, "Automatic", None), *((name, name, None) for name in ("fp32", "bf16", "fp16"))]
    forms.choose(advanced, "precision", formats, default=forms.AUTO, label="Number format")
    advanced.int("seed", min=0, default=0, label="Seed")
    advanced.bool("overwrite", default=False, label="Replace a matcher of that name")


def training_arguments(ctx: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`train_matcher` with what stands in the form until the user changes it."""
    if not given.get("name"):
        raise ConfigError("name: give the matcher a name")
    arguments = {"kind": LOGISTIC, **given}
    if ctx.dataset is not None and is_pair_dataset(ctx.dataset):
        return {name: value for name, value in arguments.items() if name not in ("product", "vectors")}
    from .vectors import vector_fields

    fields = vector_fields(ctx.dataset) if ctx.dataset is not None else []
    return {"vectors": fields[0], **arguments} if fields else arguments


def show_curve(outputs: types.Object, curve: Sequence[Sequence[float]]) -> None:
    """The course of the loss."""
    steps, losses = zip(*curve, strict=True)
    data = [{"x": list(steps), "y": list(losses), "type": "scatter", "mode": "lines", "name": "loss"}]
    layout = {"xaxis": {"title": "batch"}, "yaxis": {"title": "loss"}, "height": 260}
    outputs.define_property("curve", types.List(types.Object()), view=types.PlotlyView(data=data, layout=layout))


def _check_name(name: str) -> None:
    from ..brain.cosalient.registry import new_matcher_folder

    new_matcher_folder(name)


def _show_answers(ctx: Any, inputs: types.Object) -> None:
    """How many pairs there are to learn from, before training starts."""
    match, apart = _answers(ctx, ctx.params.get("labels") or "both")
    text = f"{match:,} matching and {apart:,} other pairs have an answer."
    if match and apart:
        inputs.view("answers", types.Notice(label=text))
        return
    hint = "Accept and reject some in the Matching panel, or set their field “label” to match or non_match."
    inputs.view("answers", types.Warning(label=text, description=hint))


@forms.cached_in_prompt
def _answers(ctx: Any, labels: str) -> list[int]:
    """Numbers of matching and of other pairs."""
    from .matcher_examples import pair_answers

    answers = list(pair_answers(ctx.target_view(), labels).values())
    return [answers.count(True), answers.count(False)]


def _choose_products(ctx: Any, inputs: types.Object) -> bool:
    from .vectors import vector_fields

    fields = vector_fields(ctx.dataset)
    kinds = (fo.StringField, fo.IntField)
    names = [name for name in ctx.dataset.get_field_schema(ftype=kinds) if name not in ("id", "filepath")]
    if not fields or not names:
        forms.refuse(
            inputs,
            "Train on a dataset of pairs (“Create pairs”), or on images with a field of products and embeddings"
            " (“Compute embeddings”).",
        )
        return False
    forms.choose(
        inputs, "product", [(name, name, None) for name in names], required=True, label="Product of each image"
    )
    forms.choose(inputs, "vectors", [(name, name, None) for name in fields], default=fields[0], label="Look-alikes by")
    inputs.int("max_pairs", min=20, default=2000, label="Most pairs")
    return True


def _choose_split(ctx: Any, inputs: types.Object) -> None:
    texts = [
        name for name in ctx.dataset.get_field_schema(ftype=fo.StringField) if name not in ("id", "filepath", "pair_id")
    ]
    if texts:
        forms.choose(
            inputs,
            "split",
            [(name, name, None) for name in texts],
            label="Split",
            description="Field with train and validation. Empty: by object",
        )


def _choose_network(ctx: Any, inputs: types.Object) -> None:
    forms.choose(inputs, "encoder", _ENCODERS, default="tokens", label="Encoder")
    forms.choose(inputs, "head", _HEADS, default="matcher", label="Decision by")
    if (ctx.params.get("encoder") or "tokens") == "tokens":
        forms.choose_model(ctx, inputs)
    if is_pair_dataset(ctx.dataset) and (masks := forms.label_fields(ctx.dataset, fo.Segmentation)):
        text = "What both images show, to learn masks from. Empty: the decision alone"
        forms.choose(inputs, "masks", [(name, name, None) for name in masks], label="Masks", description=text)
    inputs.int("steps", min=2, default=600, label="Batches at most")
