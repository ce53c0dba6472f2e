"""Form fields of all that compares images pair by pair: which pairs, by which matcher, under which name."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from ..brain.cosalient.names import FREE_MATCHERS, TRAINING_FREE
from . import forms
from .dataset_io import FIELD_PREFIX
from .group_table import CLUSTER_METHOD, DUPLICATE_METHODS
from .pairs import is_pair_dataset
from .runs import list_records

SALIENCY_CHOICES = {
    "foreground": ("Foreground", "What the tokens or the colours take for the object"),
    "one_pass": ("One pass", "What the tokens alone take for the object"),
    "attention": ("Attention", "Of the class token; vision transformers such as DINO and DINOv2"),
}


def need_pairs(ctx: Any, inputs: types.Object) -> bool:
    """Whether the open dataset holds pairs; if not, the form says what to do."""
    if ctx.dataset is not None and is_pair_dataset(ctx.dataset):
        return True
    forms.refuse(inputs, "This dataset holds no pairs of images: make some with “Create pairs” and open that dataset.")
    return False


def choose_matcher(ctx: Any, inputs: types.Object) -> None:
    """By what images are compared: the training-free matcher on some encoder, or a trained one."""
    matchers = list_matchers(ctx)
    forms.choose(inputs, "matcher", [tuple(row) for row in matchers], default=TRAINING_FREE, label="Matcher")  # type: ignore[misc]
    if (ctx.params.get("matcher") or TRAINING_FREE) in FREE_MATCHERS:
        forms.choose_model(ctx, inputs)


@forms.cached_in_prompt
def list_matchers(ctx: Any) -> list[list[str | None]]:
    """Name, label and description of each matcher."""
    from ..brain.cosalient import registry

    return [[info.name, info.label, None] for info in registry.list_matchers()]


def matcher_options(ctx: Any, inputs: types.Object, *, threshold: bool = True) -> None:
    """The rest of what concerns a matcher."""
    choices = [(forms.AUTO, "Automatic", None)]
    if (ctx.params.get("matcher") or TRAINING_FREE) in FREE_MATCHERS:
        choices += [(name, label, text) for name, (label, text) in SALIENCY_CHOICES.items()]
    for name in forms.label_fields(ctx.dataset, fo.Segmentation):
        choices.append((f"{FIELD_PREFIX}{name}", f"Field {name}", "The masks of this field"))
    forms.choose(inputs, "saliency", choices, default=forms.AUTO, label="What stands out")
    inputs.bool("refine", default=True, label="Give masks the edges of the picture", description="By GrabCut")
    if threshold:
        inputs.float(
            "threshold", min=0.0, max=1.0, label="Least score of a match", description="Empty: the matcher's own"
        )
    forms.choose_device(inputs)
    formats = [(forms.AUTO, "Automatic", None), *((name, name, None) for name in ("fp32", "bf16", "fp16"))]
    forms.choose(inputs, "precision", formats, default=forms.AUTO, label="Number format")
    forms.choose_workers(inputs)
    forms.run_options(inputs)


def matcher_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a request without those of the training-free matcher where another was chosen."""
    if given.get("matcher", TRAINING_FREE) in FREE_MATCHERS:
        return given
    dropped = ["model"] if str(given.get("saliency")).startswith(FIELD_PREFIX) else ["model", "saliency"]
    return {name: value for name, value in given.items() if name not in dropped}


def group_keys(dataset: fo.Dataset, methods: tuple[str, ...] = (*DUPLICATE_METHODS, CLUSTER_METHOD)) -> list[str]:
    """Keys of finished runs with groups or clusters of whole images, the latest first."""
    return [
        record["key"]
        for record in reversed(list_records(dataset))
        if record["method"] in methods
        and record["status"] == "completed"
        and record["config"].get("patches_field") is None
    ]


def choose_sets(ctx: Any, inputs: types.Object) -> None:
    """Which images belong together: pairs, groups of a run, or all of the target."""
    if is_pair_dataset(ctx.dataset):
        inputs.view("sets", types.Notice(label="Each pair is a set of its own."))
        return
    keys = group_keys(ctx.dataset)
    choices = [(key, f"Groups of the run {key}", None) for key in keys]
    choices.append((forms.AUTO, "All images of the target are one set", "Select those that show one object"))
    forms.choose(inputs, "key", choices, default=choices[0][0], label="What belongs together")
