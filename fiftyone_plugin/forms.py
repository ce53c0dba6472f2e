"""Form fields that several operators share, and what a form may accept from a user of the App."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.operators import execution_cache, types

from ..brain.errors import ConfigError, SelfsameError
from ..brain.paths import models_dir
from .dataset_io import check_field_name, check_own_field, image_samples

# Stands for "leave it to the computation": the operators do not pass it on.
AUTO = "auto"

FOREGROUND_CHOICES = {
    "one_pass": ("One pass", "From the encoder's own tokens: no second model, almost free"),
    "grabcut": ("GrabCut", "From colours alone: no model, slow, good on plain backgrounds"),
    "carvekit": ("CarveKit, TRACER-B7", "The published pipeline: best outlines, needs its weights, a GPU is advisable"),
    "carvekit-u2net": ("CarveKit, U²-Net", "Lighter than TRACER, needs its weights"),
    "carvekit-basnet": ("CarveKit, BASNet", "Lighter than TRACER, needs its weights"),
    "carvekit-deeplab": ("CarveKit, DeepLab v3", "Only people and everyday objects, needs its weights"),
}


def cached_in_prompt(function: Callable) -> Callable:
    """Remembers a function of ``(ctx, *JSON-able arguments)`` while one form is open.

    FiftyOne resolves a form anew at every keystroke. Its cache knows neither the dataset nor the target of the form,
    so they become part of the key; calls that do not come from a form in the App are not cached.
    """

    def key(ctx: Any, *arguments: Any) -> list[Any]:
        request = ctx.request_params
        names = ("dataset_name", "view", "view_name", "filters", "extended", "group_slice", "view_target")
        return [*(request.get(name) for name in names), list(ctx.selected), list(arguments)]

    cached = execution_cache(function, key_fn=key, prompt_scoped=True, residency="ephemeral", max_size=256)

    @functools.wraps(function)
    def wrapper(ctx: Any, *arguments: Any) -> Any:
        return (cached if ctx.prompt_id else function)(ctx, *arguments)

    return wrapper


def refuse(inputs: types.Object, message: str) -> int:
    """Shows why the operator cannot run, and keeps it from running; returns 0, the number of images it can work on."""
    inputs.view("problem", types.Error(label=message), invalid=True, error_message=message)
    return 0


def require(prop: types.Property, check: Callable[..., Any], *arguments: Any) -> bool:
    """Marks a form field as wrong if a check of its value raises; returns whether it passed."""
    try:
        check(*arguments)
    except SelfsameError as error:
        prop.invalid, prop.error_message = True, str(error)
        return False
    return True


def target_images(ctx: Any, inputs: types.Object) -> int:
    """Number of images in the target that the user chose; 0, with the reason in the form, if none can be worked on."""
    try:
        total, is_video = _count_images(ctx)
    except SelfsameError as error:
        return refuse(inputs, str(error))
    if is_video:
        return refuse(inputs, "These are videos: extract their frames with to_frames(sample_frames=True) first.")
    if not total:
        return refuse(inputs, "There are no images here: add some to the dataset, or choose another target.")
    return total


def _count_images(ctx: Any) -> tuple[int, bool]:
    if ctx.dataset is None:
        raise ConfigError("Open a dataset first.")
    # Asking for the target, every time, is what makes FiftyOne add its chooser to the form.
    samples = image_samples(ctx.target_view())
    return count_values(ctx, "id"), samples.media_type == fom.VIDEO


@cached_in_prompt
def count_values(ctx: Any, path: str) -> int:
    """Number of values at a path in the target; 0 where there is no such field."""
    samples = image_samples(ctx.target_view())
    if path == "id":
        return samples.count()
    return samples.count(path) if samples.get_field(path) is not None else 0


def show_work(ctx: Any, inputs: types.Object, path: str, error_field: str, total: int, thing: str) -> None:
    """Says how much there is to do: what has a result, what has none, and what failed before."""
    present, failed = count_values(ctx, path), count_values(ctx, error_field)
    text = f"{counted(total, thing)}: {total - present:,} to compute"
    if present:
        text += f", {present:,} have a result already, which is kept if its file and settings have not changed"
    if failed:
        text += f"; {failed:,} failed last time and will be tried again"
    inputs.view("work", types.Notice(label=f"{text}."))


def counted(number: int, thing: str) -> str:
    """A number of things in words: ``1 image``, ``1,234 images``."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def choose(
    inputs: types.Object,
    name: str,
    choices: Sequence[tuple[str, str, str | None]],
    *,
    default: str | None = None,
    view: type[types.Choices] = types.DropdownView,
    **options: Any,
) -> types.Property:
    """A closed choice.

    Args:
        choices: value, label and description of each.
        default: the value chosen at first; None leaves it empty.
        view: radio buttons, dropdown ...
        **options: label and description of the field.
    """
    shown = view(orientation="vertical")
    for value, label, description in choices:
        shown.add_choice(value, label=label, description=description)
    return inputs.enum(name, shown.values(), default=default, view=shown, **options)


def name_field(
    ctx: Any, inputs: types.Object, name: str, default: str, ftype: type | None = None, **options: Any
) -> tuple[str, bool]:
    """A text field for the name of a sample field that will be written.

    Args:
        ftype: the type that an existing field of that name must have; None for names that only begin field names.

    Returns:
        the name, and whether it can be used.
    """
    value = ctx.params.get(name) or default
    prop = inputs.str(name, default=default, **options)
    return value, require(prop, _check_writable, ctx.dataset, value, name, ftype)


def _check_writable(dataset: fo.Dataset, value: str, name: str, ftype: type | None) -> None:
    check_field_name(dataset, value, name)
    existing = dataset.get_field(value)
    kind = getattr(existing, "document_type", None) or type(existing)
    if ftype is not None and existing is not None and kind is not ftype:
        raise ConfigError(f"field {value!r} exists and is a {kind.__name__}, not a {ftype.__name__}; use another name")
    if ftype is not None:
        check_own_field(dataset, value, name)


def choose_model(ctx: Any, inputs: types.Object, named: str | None = None) -> None:
    """The encoder: any of the catalogue, a folder under ``$SELFSAME_MODELS_DIR``, or a Hugging Face id.

    Args:
        named: the encoder of the chosen preset; None where that takes the best one at hand.
    """
    from ..brain.backbones import default_backbone_name, default_backbone_notice

    view = types.AutocompleteView()
    view.add_choice(AUTO, label=f"Default: {named or default_backbone_name()}")
    for value, label in list_models(ctx):
        view.add_choice(value, label=label)
    value = ctx.params.get("model") or AUTO
    prop = inputs.str(
        "model",
        default=AUTO,
        label="Encoder",
        description="Larger encoders tell similar objects apart better and take longer. Type to search",
        view=view,
    )
    if value != AUTO:
        require(prop, check_model, value)
    elif named is None and (notice := default_backbone_notice()):
        inputs.view("model_notice", types.Notice(label=notice))


def ffa_backbone(preset: str) -> str | None:
    """The encoder that a preset of FFA names."""
    from ..brain.ffa_config import ffa_preset

    return ffa_preset(preset).backbone


@cached_in_prompt
def list_models(ctx: Any) -> list[list[str]]:
    """Name and label of each encoder in the catalogue and of each local model folder."""
    from ..brain.backbones import list_backbones
    from ..brain.backbones.hub import local_model_folder

    models = []
    for info in list_backbones():
        local = info.hub_id is None or local_model_folder(info.name) is not None
        where = "on this machine" if local else f"download of about {4 * info.parameters:,} MB"
        models.append([info.name, f"{info.label}: {where}"])
    known = {name for name, _ in models}
    return models + [[name, f"Local folder {name}"] for name in _local_folders() if name not in known]


def check_model(name: str) -> None:
    """Refuses what a user of the App may not load: folders outside of ``$SELFSAME_MODELS_DIR``.

    Raises:
        ConfigError: see above.
    """
    from ..brain.backbones import list_backbones

    if name in {info.name for info in list_backbones()}:
        return
    path, kept = Path(name).expanduser(), models_dir()
    # One word or two with a slash between them may be an id on the Hub; the loader would prefer a folder of that name.
    is_path = path.is_absolute() or ".." in path.parts or len(path.parts) > 2 or name.startswith(".") or path.is_dir()
    if is_path and not (kept and path.resolve().is_relative_to(kept.resolve())):
        place = str(kept) if kept else "the folder that the environment variable SELFSAME_MODELS_DIR names"
        raise ConfigError(f"model={name!r}: the App loads model folders from {place} only; put the folder there")


def _local_folders() -> list[str]:
    """Model folders that the user keeps, as names that the loader finds there."""
    kept = models_dir()
    if kept is None or not kept.is_dir():
        return []
    configs = [*kept.glob("*/config.json"), *kept.glob("*/*/config.json")]
    return sorted(path.parent.relative_to(kept).as_posix() for path in configs)


def choose_foreground(ctx: Any, inputs: types.Object, preset: str) -> None:
    """What counts as foreground: a method, a label field of the dataset, or everything."""
    from ..brain.ffa_config import ffa_preset
    from .dataset_io import FIELD_PREFIX

    label, description = FOREGROUND_CHOICES[ffa_preset(preset).foreground]
    choices = [(AUTO, f"Default: {label}", description)]
    choices += [(name, label, description) for name, (label, description) in FOREGROUND_CHOICES.items()]
    for field in label_fields(ctx.dataset, fo.Segmentation, fo.Detections):
        choices.append((f"{FIELD_PREFIX}{field}", f"Field {field}", "Masks or boxes that the dataset has already"))
    choices.append(("none", "None", "Average the whole image, background included"))
    choose(
        inputs,
        "foreground",
        choices,
        default=AUTO,
        label="Foreground",
        description="Which part of the picture the vector describes",
    )


def check_brain_key(dataset: fo.Dataset, kind: str, key: str, field: str, objects_field: str | None) -> None:
    """Refuses the key of a ``"similarity"`` or ``"visualization"`` run that is invalid or taken by another run.

    Raises:
        ConfigError: see above.
    """
    from .followups import Followups

    Followups(field, objects_field, **{f"{kind}_key": key}).check(dataset)


def label_fields(dataset: fo.Dataset, *document_types: type) -> list[str]:
    """Names of the sample fields that hold labels of the given types."""
    return list(dataset.get_field_schema(embedded_doc_type=document_types))


def advanced_options(inputs: types.Object) -> types.Object:
    """The collapsed part of a form."""
    advanced = types.Object()
    inputs.define_property("advanced", advanced, view=types.ObjectView(label="Advanced options", collapsible=True))
    return advanced


def choose_device(inputs: types.Object) -> None:
    """Where the heavy arithmetic runs."""
    known = [(name, name, None) for name in (AUTO, "cpu", "cuda", "mps")]
    choose(
        inputs, "device", known, default=AUTO, label="Device", description="auto: a GPU if there is one, else the CPU"
    )


def choose_workers(inputs: types.Object) -> None:
    """How many threads read images."""
    inputs.int("num_workers", min=1, max=64, default=2, label="Decoding threads")


def run_options(inputs: types.Object) -> None:
    """How a computation treats what is done already and what fails."""
    inputs.bool(
        "overwrite", default=False, label="Compute again", description="Also where a valid result exists already"
    )
    inputs.bool(
        "skip_failures",
        default=True,
        label="Go on after failures",
        description="Failed samples are explained in a field; otherwise the first failure ends the run",
    )


def model_options(inputs: types.Object, *, tokens: bool = True) -> None:
    """All that concerns the running of a model over many images.

    Args:
        tokens: whether the computation can keep the encoder's tokens.
    """
    choose_device(inputs)
    formats = [(AUTO, "Automatic", None), *((name, name, None) for name in ("fp32", "bf16", "fp16"))]
    choose(inputs, "precision", formats, default=AUTO, label="Number format")
    inputs.int("batch_size", min=1, label="Images per batch", description="Empty: chosen by device")
    choose_workers(inputs)
    if tokens:
        inputs.bool(
            "cache_tokens",
            default=False,
            label="Keep the encoder's tokens on disk",
            description="Other settings on the same images then need no encoder; about half a megabyte per image",
        )
    run_options(inputs)
