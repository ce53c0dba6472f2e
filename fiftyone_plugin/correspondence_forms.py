"""Form fields of a search for correspondences."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from . import forms
from .dataset_io import FIELD_PREFIX

DECODING_CHOICES = (
    ("window", "Soft-argmax in a window", "Between cells, near the most similar one"),
    ("nearest", "Most similar cell", "As exact as a cell is large"),
    ("mutual", "Mutual nearest cells", "Drops matches whose way back ends elsewhere"),
    ("soft", "Soft-argmax", "The mean over all cells"),
    ("gaussian", "Gaussian kernel", "The mean under a kernel around the most similar cell"),
)
ALIGNMENT_CHOICES = (
    ("off", "Off", "Match the source as it is"),
    ("mirror", "Mirror", "Mirror the source where that is nearer to the target"),
    ("all", "Mirror and quarter turns", "Eight views of each source: takes as many times as long"),
)
VISIBILITY_CHOICES = (
    ("source", "Couples that the source shows", "Needs nothing of the target"),
    ("mutual", "Couples that both images show", "As published evaluations do; peeks at the target's keypoints"),
)

DIFFUSION_NOTICE = (
    "Stable Diffusion needs a GPU with some 10 GB of memory: on a CPU a hundred images take from half an hour to hours."
    " Its features are kept on disk, about 13 megabytes per image and as much for its mirror image."
)


def choose_keypoints(ctx: Any, inputs: types.Object) -> None:
    """What is looked for: keypoints of a field, whose mirror partners can be told, or well-spread points."""
    choices = [(name, f"Field {name}", None) for name in keypoint_fields(ctx.dataset)]
    choices.append((forms.AUTO, "Without keypoints", "Well-spread points that both images agree upon"))
    default = choices[0][0]
    forms.choose(inputs, "keypoints", choices, default=default, label="Keypoints")
    if (ctx.params.get("keypoints") or default) == forms.AUTO:
        inputs.int("count", min=1, max=500, default=20, label="Matches of a pair")
        return
    prop = inputs.str(
        "couples",
        label="Mirror partners",
        description="left ear = right ear; left eye = right eye. Empty: read from the names of the keypoints",
    )
    if text := ctx.params.get("couples"):
        forms.require(prop, check_couples, text)


def check_couples(text: str) -> None:
    """Refuses text that names no couples.

    Raises:
        ConfigError: see above.
    """
    from ..brain.correspondence.keypoint_groups import parse_couples

    parse_couples(text)


def keypoint_fields(dataset: fo.Dataset) -> list[str]:
    """Fields with keypoints of the user's own: not those that matching has written."""
    return [
        name
        for name in forms.label_fields(dataset, fo.Keypoints, fo.Keypoint)
        if "method" not in (dataset.get_field(name).info or {})
    ]


def choose_alignment(ctx: Any, inputs: types.Object) -> None:
    """How sources are turned, and which keypoints then change over."""
    forms.choose(inputs, "alignment", ALIGNMENT_CHOICES, default="off", label="Turn the source to face as the target")
    if (ctx.params.get("alignment") or "off") != "off":
        forms.choose(inputs, "visibility", VISIBILITY_CHOICES, default="source", label="Keypoints that change over")


def choose_object(ctx: Any, inputs: types.Object) -> None:
    """What marks the objects, and how far a keypoint may lie from its true place."""
    choices = [("none", "Nothing", "Thresholds are shares of the image")]
    for name in forms.label_fields(ctx.dataset, fo.Segmentation, fo.Detections):
        choices.append((f"{FIELD_PREFIX}{name}", f"Field {name}", "Thresholds are shares of the object's box"))
    forms.choose(inputs, "foreground", choices, default="none", label="What marks the object")
    inputs.float("alpha", min=0.001, max=1.0, default=0.1, label="Share within which a keypoint is correct")


def matching_options(ctx: Any, inputs: types.Object) -> None:
    """How keypoints are matched, where, and what is kept; ``inputs`` is the collapsed part of the form."""
    inputs.int("size", min=16, label="Side of the canvas in pixels", description="Empty: about 840")
    forms.choose(inputs, "decoding", DECODING_CHOICES, default="window", label="How places are read")
    choose_diffusion(ctx, inputs)
    forms.choose_device(inputs)
    formats = [(forms.AUTO, "Automatic", None), *((name, name, None) for name in ("fp32", "bf16", "fp16"))]
    forms.choose(inputs, "precision", formats, default=forms.AUTO, label="Number format")
    forms.choose_workers(inputs)
    inputs.bool(
        "cache_tokens",
        default=False,
        label="Keep the encoder's tokens on disk",
        description="Other settings on the same images then need no encoder; about 5 megabytes per image",
    )
    forms.run_options(inputs)


def choose_diffusion(ctx: Any, inputs: types.Object) -> None:
    """A second network whose features join those of the encoder, and what that takes."""
    view = types.AutocompleteView()
    for value, label in diffusion_models():
        view.add_choice(value, label=label)
    prop = inputs.str(
        "diffusion",
        label="Features of Stable Diffusion",
        description="Empty: the encoder alone. A name on the Hugging Face Hub, or of a folder of models",
        view=view,
    )
    if value := (ctx.params.get("advanced") or {}).get("diffusion"):
        forms.require(prop, check_diffusion, value)
        inputs.view("diffusion_notice", types.Notice(label=DIFFUSION_NOTICE))


def check_diffusion(name: str) -> None:
    """Refuses a model that a user of the App may not load, or that cannot be run here.

    Raises:
        ConfigError: see above.
    """
    from ..brain.correspondence.diffusion import require_diffusers

    require_diffusers()
    forms.check_model(name)


def diffusion_models() -> list[tuple[str, str]]:
    """Name and label of the published model and of each local folder of that kind."""
    from ..brain.correspondence.diffusion import DEFAULT_MODEL, local_diffusion_models

    local = local_diffusion_models()
    published = [] if DEFAULT_MODEL in local else [(DEFAULT_MODEL, f"{DEFAULT_MODEL}: from the Hugging Face Hub")]
    return [*published, *((name, f"Local folder {name}") for name in local)]
