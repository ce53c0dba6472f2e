"""Form fields of the region operators: descriptors and what they cost, levels, and what to search for."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, get_args

import fiftyone.core.collections as foc
from fiftyone.operators import types

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .forms import (
    AUTO,
    cached_in_prompt,
    check_model,
    choose,
    choose_device,
    counted,
    list_models,
    name_field,
    refuse,
    require,
)
from .region_fields import object_searches, region_fields

PATENT = (
    "The authors of CLAID (arXiv:2506.16745) state a Chinese patent on the technique, ZL202410173702.3: mind it where "
    "it applies."
)

# A few hundred kilobytes per image are common, ten megabytes generous.
MAX_UPLOAD = 10 << 20

# What a search may start from, in the order in which the form prefers them.
SELECTED_LABELS, SELECTED_SAMPLES, OPEN_SAMPLE, WORDS, UPLOAD = "labels", "samples", "open", "text", "upload"


def fields_with_regions(dataset: Any) -> list[str]:
    """Fields that hold regions, the one computed last first; none without a dataset."""
    return region_fields(dataset) if dataset is not None else []


def choose_regions(ctx: Any, inputs: types.Object) -> str | None:
    """The regions to work on; None, with the reason in the form, where there are none."""
    fields = fields_with_regions(ctx.dataset)
    if not fields:
        refuse(inputs, "There are no regions yet: run “Compute regions (CLAID)” first.")
        return None
    choose(inputs, "field", [(name, name, None) for name in fields], default=fields[0], label="Regions")
    chosen = ctx.params.get("field")
    return chosen if chosen in fields else fields[0]


def choose_descriptor(ctx: Any, inputs: types.Object, named: str | None) -> None:
    """What describes each region.

    Args:
        named: the descriptor of the chosen preset; None for the detector's own tokens.
    """
    from ..brain.backbones.feature_maps import list_feature_maps
    from ..brain.backbones.text import TEXT_MODELS
    from ..brain.claid.presets import TOKENS

    view = types.AutocompleteView()
    view.add_choice(AUTO, label=f"Default: {named or 'the tokens of the encoder above'}")
    networks = list_feature_maps()
    for info in networks:
        view.add_choice(info.name, label=f"{info.label}: {info.dim:,} numbers")
    for name, label in list_models(ctx):
        words = "; can be searched by words" if name in TEXT_MODELS else ""
        view.add_choice(name, label=f"{label}{words}")
    prop = inputs.str(
        "descriptor",
        default=AUTO,
        label="Descriptor of the regions",
        description="What regions are compared by. SigLIP also understands words",
        view=view,
    )
    value = ctx.params.get("descriptor") or AUTO
    if value not in (AUTO, TOKENS, *(info.name for info in networks)):
        require(prop, check_model, value)


def preset_models(preset: str) -> tuple[str | None, str | None]:
    """Encoder and descriptor that a preset names."""
    from ..brain.claid.presets import region_preset

    chosen = region_preset(preset)
    return chosen.backbone, chosen.descriptor


def choose_storage(ctx: Any, inputs: types.Object) -> None:
    """Where the vectors are kept, and what that costs."""
    choices = [
        ("sample", "In one array per image", "The usual choice: the dataset is complete by itself"),
        ("files", "In files beside the database", "For very many images; copies of the dataset do not have them"),
        ("labels", "On each region", "For FiftyOne's own patch similarity and maps; opening an image loads them all"),
    ]
    choose(inputs, "storage", choices, default="sample", view=types.RadioGroup, label="Keep the vectors")
    text = "A vector of 2,048 numbers takes 4 kB: about 120 kB for an image of 30 regions; one of 384 a fifth of that."
    inputs.view("size_notice", types.Notice(label=text))


def detector_options(inputs: types.Object) -> None:
    """The parameters of the decomposition; empty ones are as the pipeline says."""
    from ..brain.backbones.resnet import LAYERS
    from ..brain.claid.descriptor import AREAS
    from ..brain.claid.options import Connectivity, Cut, Init, Order
    from ..brain.claid.pooling import POOLINGS

    empty = "Empty: as the pipeline says"
    inputs.int("short_side", min=32, max=2048, label="Short side in pixels at which images are cut", description=empty)
    inputs.int("long_side", min=32, max=4096, label="Most pixels of the long side", description=empty)
    choose(
        inputs,
        "enlarge",
        [(AUTO, "As the pipeline says", None), ("yes", "Enlarge them", None), ("no", "Leave them", None)],
        default=AUTO,
        label="Smaller images",
    )
    inputs.int("min_patches", min=1, max=1000, label="Least patches of a region", description=empty)
    for name, label in (
        ("alpha", "Patches are linked above this cosine (alpha)"),
        ("tau1", "Regions are cut further below this connectivity (tau1)"),
        ("tau2", "Regions are kept above this saliency (tau2)"),
        ("theta", "Share of patches with high energy (theta)"),
    ):
        inputs.float(name, min=-1.0 if name == "alpha" else 0.0, max=1.0, label=label, description=empty)
    inputs.float("inertia", min=0.0, max=10.0, label="Inertia of a patch", description=empty)
    as_said = (AUTO, "As the pipeline says", None)
    for name, label, values in (
        ("connectivity", "Connectivity", get_args(Connectivity)),
        ("init", "First sides of a cut", get_args(Init)),
        ("order", "Order of the patches", get_args(Order)),
        ("cut", "Cut by", get_args(Cut)),
        ("area", "A vector covers the region's", AREAS),
        ("pooling", "Pooling", POOLINGS),
        ("layer", "Layer of a ResNet", LAYERS),
    ):
        choose(inputs, name, [as_said, *((value, value, None) for value in values)], default=AUTO, label=label)
    inputs.int("seed", min=0, label="Seed of the order", description=empty)
    inputs.int("max_side", min=64, max=8192, label="Longest side for the descriptor", description="Empty: original")


def choose_gallery(ctx: Any, inputs: types.Object) -> None:
    """Where to search, if the user looks at a part of the dataset."""
    if not ctx.has_custom_view or _is_patches(ctx):
        return
    choices = [("dataset", "The whole dataset", None), ("view", "The images of the current view", None)]
    choose(inputs, "within", choices, default="dataset", view=types.RadioGroup, label="Search in")


def search_options(ctx: Any, inputs: types.Object) -> None:
    """The collapsed part of the search form."""
    text = "Its fields begin with this name; an earlier search of that name is replaced"
    name_field(ctx, inputs, "key", "search", label="Name of the result", description=text)
    text = "Encode it by itself; otherwise it is seen in its picture, as the regions are"
    inputs.bool("crop", default=False, label="Cut out what is sought", description=text)
    choose_device(inputs)


def latest_regions(dataset: Any) -> dict[str, str]:
    """The ``field`` argument that stands for "the regions computed last"; empty where there are none."""
    fields = fields_with_regions(dataset)
    return {"field": fields[0]} if fields else {}


def choose_level(ctx: Any, inputs: types.Object, field: str) -> None:
    """Which level of the hierarchy to show."""
    from .region_views import ALL, SMALLEST

    levels = _levels(ctx, field)
    choices = [(str(level), f"Level {level}: {counted(number, 'region')}", None) for level, number in levels]
    choices += [(SMALLEST, "Regions without smaller ones inside", None), (ALL, "All levels", None)]
    choose(inputs, "level", choices, default=choices[0][0], label="Level")


@cached_in_prompt
def _levels(ctx: Any, field: str) -> list[list[int]]:
    from .region_views import region_levels

    return [[level, number] for level, number in region_levels(image_samples(ctx.target_view()), field).items()]


def choose_query(ctx: Any, inputs: types.Object) -> str:
    """What to search for; the form prefers what is selected."""
    sources = query_sources(ctx)
    source = chosen_source(ctx)
    choices = [(name, label, None) for name, label in sources.items()]
    choose(inputs, "source", choices, default=next(iter(sources)), view=types.RadioGroup, label="Search for")
    if source == WORDS:
        text = "Needs regions that were described by SigLIP"
        inputs.str("text", required=True, label="Words", description=text)
    elif source == UPLOAD:
        view = types.FileView(
            max_size=MAX_UPLOAD, max_size_error_message="The picture has more than 10 MB", types="image/*"
        )
        inputs.uploaded_file("image", label="Picture", required=True, view=view)
    elif len(selected_queries(ctx, source)) > 1:
        ways = [
            ("all", "Images that show all of them", None),
            ("any", "Images that show any of them", None),
        ]
        choose(inputs, "combine", ways, default="all", view=types.RadioGroup, label="Rank first")
    return source


def query_sources(ctx: Any) -> dict[str, str]:
    """The sources that a search can start from now, with their labels in the form."""
    sources = {}
    if ctx.selected_labels:
        sources[SELECTED_LABELS] = f"The object in {counted(len(ctx.selected_labels), 'selected label')}"
    if ctx.selected:
        kind = "selected region" if _is_patches(ctx) else "selected image"
        sources[SELECTED_SAMPLES] = counted(len(ctx.selected), kind)
    elif ctx.current_sample:
        sources[OPEN_SAMPLE] = "The whole image that is open"
    sources[WORDS] = "Words"
    sources[UPLOAD] = "A picture from your disk"
    return sources


def chosen_source(ctx: Any) -> str:
    """The source that the user chose, or the one that the form would prefer."""
    sources = query_sources(ctx)
    source = ctx.params.get("source")
    return source if source in sources else next(iter(sources))


def selected_queries(ctx: Any, source: str) -> list[Any]:
    """The labels or sample ids behind a source of the selection."""
    if source == SELECTED_LABELS:
        return list(ctx.selected_labels)
    if source == SELECTED_SAMPLES:
        return list(ctx.selected)
    return [ctx.current_sample] if source == OPEN_SAMPLE and ctx.current_sample else []


def query_arguments(ctx: Any) -> dict[str, Any]:
    """What to search for, as arguments of the search.

    Raises:
        ConfigError: an uploaded picture cannot be used.
    """
    source = chosen_source(ctx)
    if source == WORDS:
        return {"text": (ctx.params.get("text") or "").strip() or None}
    if source == UPLOAD:
        return {"image": uploaded_bytes(ctx.params.get("image"))}
    queries = selected_queries(ctx, source)
    # In a view of patches, the id of a tile is that of its label.
    name = "labels" if source == SELECTED_LABELS or _is_patches(ctx) else "images"
    return {name: queries}


def uploaded_bytes(upload: Any) -> bytes | None:
    """The content of an uploaded file; None where there is none.

    Raises:
        ConfigError: it is no upload (paths are for Python only), too large, or garbled.
    """
    if not upload:
        return None
    if not isinstance(upload, Mapping) or not isinstance(upload.get("content"), str):
        raise ConfigError("image: upload a picture; paths are for search_by_object in Python")
    try:
        content = base64.b64decode(upload["content"].rpartition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"image {upload.get('name')!r}: the upload is garbled ({error}); try again") from error
    if len(content) > MAX_UPLOAD:
        raise ConfigError(f"image {upload.get('name')!r} has more than {MAX_UPLOAD >> 20} MB; use a smaller one")
    return content


def search_target(ctx: Any) -> foc.SampleCollection:
    """Where to search: the whole dataset, or the view that the user sees, if that was asked for."""
    return ctx.view if ctx.params.get("within") == "view" else ctx.dataset


def searches_of(dataset: Any) -> list[str]:
    """Keys of the searches of a dataset, the latest first; none without a dataset."""
    return object_searches(dataset) if dataset is not None else []


def _is_patches(ctx: Any) -> bool:
    return bool(getattr(ctx.view, "_is_generated", False))
