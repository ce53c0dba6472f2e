"""The form of `create_pairs`: where pairs come from, and how many there would be, before any is made."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from ..brain.errors import ConfigError, SelfsameError
from . import forms
from .dataset_io import image_samples
from .group_table import DUPLICATE_METHODS
from .match_forms import group_keys
from .pairs import NOT_COPIED

# What "Pairs from" offers.
SELECTION, GROUPS, SIMILAR, CATEGORY, LIST = "selection", "groups", "similarity", "category", "list"

# As in `create_pairs`, which is not imported for a form.
MAX_PAIRS = 1000

_UPLOAD_LIMIT = 20 << 20


def pair_form(ctx: Any, inputs: types.Object) -> None:
    """All of the form but the target."""
    sources = _sources(ctx)
    chosen = _chosen(ctx, sources)
    choices = [(name, *text) for name, text in sources.items()]
    forms.choose(inputs, "pairs_from", choices, default=chosen, view=types.RadioGroup, label="Pairs from")
    _OPTIONS[chosen](ctx, inputs)
    _show_count(ctx, inputs, chosen)
    _choose_fields(ctx, inputs)
    inputs.str("name", label="Name of the new dataset", description="Empty: made of this dataset's name")
    inputs.bool("overwrite", default=False, label="Replace a pair dataset of that name")


def pair_arguments(ctx: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`create_pairs` that the form, or a request without one, stands for.

    Raises:
        ConfigError: the uploaded list cannot be read.
    """
    arguments = dict(given)
    chosen = ctx.params.get("pairs_from")
    if chosen is None and not arguments.keys() & {"key", "similar", "within", "pairs"}:
        chosen = _chosen(ctx, _sources(ctx))
    if chosen is None:
        return arguments
    for option in _OWN - _BY_SOURCE[chosen]:
        arguments.pop(option, None)
    if chosen == SELECTION:
        arguments["pairs"] = [list(ctx.selected)]
    elif chosen == LIST:
        arguments["pairs"] = _uploaded(ctx.params.get("list"))
    else:
        arguments = _defaults(ctx, chosen) | arguments
    if chosen == CATEGORY and "azimuth" in arguments:
        arguments["azimuth_difference"] = [ctx.params.get("least_turn", 0), ctx.params.get("most_turn", 4)]
    if ctx.params.get("all_pairs"):
        arguments["max_pairs"] = None
    if "fields" not in ctx.params and (keypoints := _keypoints(ctx.dataset)):
        arguments["fields"] = keypoints
    return arguments


_BY_SOURCE: dict[str, set[str]] = {
    SELECTION: {"pairs"},
    GROUPS: {"key", "groups"},
    SIMILAR: {"similar", "partners", "apart", "within"},
    CATEGORY: {"within", "azimuth", "azimuth_difference"},
    LIST: {"pairs"},
}
_OWN = set().union(*_BY_SOURCE.values())


def _choose_fields(ctx: Any, inputs: types.Object) -> None:
    """What the pairs get to know of their images; correspondences take the keypoints."""
    view = types.AutocompleteView(allow_user_input=False, allow_duplicates=False)
    labels = forms.label_fields(ctx.dataset, fo.Label)
    texts = list(ctx.dataset.get_field_schema(ftype=(fo.StringField, fo.IntField, fo.FloatField, fo.BooleanField)))
    for name in (*labels, *(name for name in texts if name not in NOT_COPIED)):
        view.add_choice(name, label=name)
    if view.choices:
        default = _keypoints(ctx.dataset)
        inputs.list("fields", types.String(), default=default, label="Fields that the pairs get as well", view=view)


def _keypoints(dataset: fo.Dataset) -> list[str]:
    return forms.label_fields(dataset, fo.Keypoints, fo.Keypoint)


def _sources(ctx: Any) -> dict[str, tuple[str, str]]:
    """What pairs can be made from here: label and description by name."""
    from .vectors import vector_fields

    found = {SELECTION: ("The two selected images", "Select exactly two")}
    if group_keys(ctx.dataset):
        found[GROUPS] = ("Groups or clusters", "Each keeper with its duplicates, or all pairs of a cluster")
    if vector_fields(ctx.dataset):
        found[SIMILAR] = ("Similarity", "Each image with those most similar to it")
    if _value_fields(ctx.dataset):
        found[CATEGORY] = ("A field", "Images with the same value, such as a category")
    return found | {LIST: ("A list", "A CSV file with the columns source_id and target_id, and perhaps label")}


def _chosen(ctx: Any, sources: Mapping[str, Any]) -> str:
    chosen = ctx.params.get("pairs_from")
    if chosen in sources:
        return chosen
    if len(ctx.selected) == 2:
        return SELECTION
    return next((name for name in (GROUPS, SIMILAR, CATEGORY) if name in sources), SELECTION)


def _defaults(ctx: Any, chosen: str) -> dict[str, Any]:
    """What stands in the form as long as the user leaves it alone."""
    from .vectors import vector_fields

    if chosen == GROUPS:
        return {"key": group_keys(ctx.dataset)[0]}
    if chosen == SIMILAR:
        return {"similar": vector_fields(ctx.dataset)[0]}
    return {"within": _value_fields(ctx.dataset)[0]}


def _of_selection(ctx: Any, inputs: types.Object) -> None:
    if len(ctx.selected) != 2:
        forms.refuse(inputs, f"Select exactly two images first; {len(ctx.selected)} are selected.")


def _of_groups(ctx: Any, inputs: types.Object) -> None:
    keys = group_keys(ctx.dataset)
    forms.choose(inputs, "key", [(key, key, None) for key in keys], default=keys[0], label="Groups of the run")


def _of_similarity(ctx: Any, inputs: types.Object) -> None:
    from .vectors import vector_fields

    fields = vector_fields(ctx.dataset)
    forms.choose(inputs, "similar", [(name, name, None) for name in fields], default=fields[0], label="By the vectors")
    inputs.int("partners", min=1, max=100, default=1, label="Partners of each image")
    if keys := group_keys(ctx.dataset, DUPLICATE_METHODS):
        text = "Of each group of this duplicate search only the keeper is paired"
        forms.choose(inputs, "apart", [(key, key, None) for key in keys], label="No copies", description=text)
    if values := _value_fields(ctx.dataset):
        text = "Empty: partners may have any value"
        forms.choose(inputs, "within", [(name, name, None) for name in values], label="Same value of", description=text)


def _of_category(ctx: Any, inputs: types.Object) -> None:
    fields = _value_fields(ctx.dataset)
    forms.choose(inputs, "within", [(name, name, None) for name in fields], default=fields[0], label="Same value of")
    numbers = list(ctx.dataset.get_field_schema(ftype=(fo.IntField, fo.FloatField)))
    if not numbers:
        return
    text = "Whole numbers from 0 to 7 are eighths of a turn, others degrees. Empty: any two views"
    forms.choose(inputs, "azimuth", [(name, name, None) for name in numbers], label="Viewpoint", description=text)
    if ctx.params.get("azimuth"):
        inputs.int("least_turn", min=0, max=4, default=0, label="Least change of viewpoint, in eighths of a turn")
        inputs.int("most_turn", min=0, max=4, default=4, label="Largest change of viewpoint, in eighths of a turn")


def _of_list(ctx: Any, inputs: types.Object) -> None:
    view = types.FileView(max_size=_UPLOAD_LIMIT, types=".csv,text/csv")
    prop = inputs.define_property("list", types.UploadedFile(), view=view, label="List of pairs", required=True)
    if ctx.params.get("list"):
        forms.require(prop, _uploaded, ctx.params["list"])


_OPTIONS: dict[str, Callable[[Any, types.Object], None]] = {
    SELECTION: _of_selection,
    GROUPS: _of_groups,
    SIMILAR: _of_similarity,
    CATEGORY: _of_category,
    LIST: _of_list,
}


def _show_count(ctx: Any, inputs: types.Object, chosen: str) -> None:
    """How many pairs there would be; more than the cap only on the user's word."""
    if chosen == SELECTION or (chosen == LIST and not ctx.params.get("list")):
        return
    options = {name: value for name, value in pair_arguments(ctx, ctx.params).items() if name in _OWN}
    try:
        count = _count(ctx, options)
    except SelfsameError as error:
        forms.refuse(inputs, str(error))
        return
    at_most = "Up to " if chosen == SIMILAR else ""
    inputs.view("count", types.Notice(label=f"{at_most}{forms.counted(count, 'pair')}."))
    if not count:
        forms.refuse(inputs, "There is no such pair; choose otherwise.")
        return
    most = ctx.params.get("max_pairs") or MAX_PAIRS
    if count > MAX_PAIRS:
        inputs.int("max_pairs", min=1, default=MAX_PAIRS, label="Most pairs")
    if count > most:
        inputs.bool("all_pairs", default=False, label=f"Make all {count:,} instead", view=types.CheckboxView())


@forms.cached_in_prompt
def _count(ctx: Any, options: dict[str, Any]) -> int:
    from .create_pairs import pair_source

    options = dict(options)
    differences = options.pop("azimuth_difference", (0, 4))
    return pair_source(image_samples(ctx.target_view()), differences=differences, **options).count


def _value_fields(dataset: fo.Dataset) -> list[str]:
    """Fields whose values can put images together: text and classifications, but not what every sample has."""
    kinds = (fo.StringField, fo.BooleanField, fo.IntField)
    plain = [name for name in dataset.get_field_schema(ftype=kinds) if name not in ("id", "filepath")]
    own = [name for name in plain if not dataset.get_field(name).read_only and not name.startswith("_")]
    return [*dataset.get_field_schema(embedded_doc_type=fo.Classification), *own]


def _uploaded(upload: Any) -> list[list[str | None]]:
    from .pair_sources import rows_of_csv

    if not isinstance(upload, Mapping) or not upload.get("content"):
        raise ConfigError("upload a CSV file with the columns source_id and target_id")
    text = str(upload["content"])
    return rows_of_csv(base64.b64decode(text.rpartition(",")[2]), str(upload.get("name") or "the list"))
