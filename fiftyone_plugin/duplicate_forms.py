"""Form fields of the duplicate operators: vectors, thresholds with live counts, runs to look at or to tag."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import fiftyone as fo
from fiftyone.operators import types

from ..brain.errors import SelfsameError
from .dataset_io import image_samples
from .forms import AUTO, cached_in_prompt, choose, count_values, counted, label_fields, name_field, refuse, require
from .item_fields import Place
from .runs import list_records, load_record

# Reading this many vectors for a suggestion takes about a second; beyond that the search itself will tell.
_MAX_SUGGESTION = 20_000

_T = TypeVar("_T")

_SEARCHES = ("find_duplicates", "find_exact_duplicates")

_ROLES = {
    "keeper": "are the best of their group",
    "duplicate": "are duplicates of those",
    "unique": "are in no group",
}

_IMAGES = Place()

_KEEPER_RULES = {
    "quality": ("The best by the weights below", None),
    "first": ("The first in the dataset", None),
    "largest": ("The largest picture", None),
    "newest": (
        "The newest",
        "By the date of capture if a field has one, else by another date field, else by when they were added",
    ),
    "most_labels": ("The one with the most labels", None),
    "diverse": ("The most different ones", "The best, and those farthest from it; for more than one"),
}

_KEEPER_MEASURES = {
    "resolution": ("Resolution", "Per doubling of the pixels"),
    "sharpness": ("Sharpness", "Per doubling of the sharpness"),
    "exposure": ("Exposure", "Well exposed over dark or burnt out"),
    "file_size": ("File size", "Per doubling of the bytes"),
    "compression": ("Mild compression", "Per doubling of the bits per pixel"),
    "foreground": ("Foreground", "A picture full of foreground over one without; needs masks of compute_foreground"),
    "labels": ("Labels", "One with all its label fields filled over one with none"),
}


def object_fields(dataset: fo.Dataset | None) -> list[str]:
    """Detections fields whose objects have vectors."""
    if dataset is None:
        return []
    return [field for field in label_fields(dataset, fo.Detections) if vector_fields(dataset, field)]


def vector_fields(dataset: fo.Dataset | None, patches_field: str | None = None) -> list[str]:
    """Sample fields, or attributes of the objects of a field, that hold vectors."""
    from .vectors import vector_fields

    return vector_fields(dataset, Place(patches_field)) if dataset is not None else []


def chosen_place(ctx: Any) -> Place:
    """Whether images or the objects of a field are to be compared."""
    chosen = ctx.params.get("patches_field")
    return Place(None if chosen in (None, "", AUTO) else chosen)


def choose_level(ctx: Any, inputs: types.Object) -> Place:
    """Images, or objects where some have vectors; without images that have any, objects come first."""
    fields = object_fields(ctx.dataset)
    if fields:
        images = [(AUTO, "Images", None)] if vector_fields(ctx.dataset) else []
        choices = images + [(field, f"Objects in {field}", "Also inside different scenes") for field in fields]
        choose(inputs, "patches_field", choices, default=choices[0][0], view=types.RadioGroup, label="Compare")
        if not images and chosen_place(ctx).patches_field is None:
            return Place(fields[0])
    return chosen_place(ctx)


def choose_vectors(ctx: Any, inputs: types.Object, place: Place = _IMAGES) -> str | None:
    """The vector field to search; None, with the reason in the form, where there are no vectors."""
    fields = vector_fields(ctx.dataset, place.patches_field)
    if not fields:
        refuse(inputs, "There are no embeddings yet: run “Compute FFA embeddings” first.")
        return None
    default = "ffa" if "ffa" in fields else fields[0]
    choices = [(name, name, None) for name in fields]
    choose(inputs, "embeddings", choices, default=default, label="Embeddings")
    chosen = ctx.params.get("embeddings")
    chosen = chosen if chosen in fields else default
    total, present = count_values(ctx, place.path("id")), count_values(ctx, place.path(chosen))
    if not present:
        refuse(inputs, f"Nothing here has a vector in {chosen!r}: run “Compute FFA embeddings” first.")
        return None
    rest = f"; {total - present:,} without one are left out" if present < total else ""
    thing = "image" if place.patches_field is None else "object"
    inputs.view("work", types.Notice(label=f"{counted(present, thing)} with a vector will be compared{rest}."))
    return chosen


def duplicate_key(
    ctx: Any, inputs: types.Object, default: str, method: str, place: Place = _IMAGES
) -> tuple[str, bool]:
    """The name under which the groups are stored, and whether it can be used."""
    from .duplicate_store import check_key

    text = "Its fields begin with this name; groups of an earlier search of that name are replaced"
    key, usable = name_field(ctx, inputs, "key", default, label="Name of the result", description=text)
    prop = inputs.get_property("key")
    return key, usable and require(prop, check_key, ctx.dataset, key, method, place)


def suggested_threshold(ctx: Any, embeddings: str, key: str | None = None, place: Place = _IMAGES) -> str:
    """What happens if the threshold is left empty, in words; with the number itself where that is cheap to find.

    Args:
        key: the run whose decisions say something about it, if there is one.
    """
    if count_values(ctx, place.path(embeddings)) > _MAX_SUGGESTION:
        return "chosen from earlier decisions or from the density of the data"
    try:
        threshold, reason = _suggest(ctx, embeddings, key, place.patches_field)
    except SelfsameError as error:
        return f"chosen from the data, which is not possible yet ({error})"
    return f"{threshold:.4f} ({reason})"


@cached_in_prompt
def _suggest(ctx: Any, embeddings: str, key: str | None, patches_field: str | None) -> list[Any]:
    from ..brain.thresholds import neighbour_profile, suggest_threshold
    from .duplicate_search import decided_pairs, reviewed
    from .vectors import read_vectors

    samples = image_samples(ctx.target_view())
    table = _result_of(read_vectors(samples, embeddings, place=Place(patches_field)))
    decided = decided_pairs(table.matrix, reviewed(samples, key, table.row_of)) if key else None
    return list(suggest_threshold(neighbour_profile(table.matrix), decided=decided))


def _result_of(steps: Generator[Any, None, _T]) -> _T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def kept_pairs(ctx: Any, key: str, embeddings: str, place: Place) -> bool:
    """Whether a finished search of these vectors kept its pairs under this key."""
    record = load_record(ctx.dataset, key)
    if record is None or record["method"] != "find_duplicates" or record["status"] != "completed":
        return False
    config = record["config"]
    return (config["embeddings"], config.get("patches_field")) == (embeddings, place.patches_field)


def choose_threshold_of(ctx: Any, inputs: types.Object, key: str) -> None:
    """The threshold of a finished search, movable as far as its pairs reach, and what there would be at it."""
    present = _preview(ctx, key, None)
    if present["threshold"] is None:
        inputs.view("groups", types.Notice(label=_preview_text(present)))
        return
    lowest, chosen = present["lowest"], ctx.params.get("threshold")
    prop = inputs.float(
        "threshold",
        min=lowest,
        max=1.0,
        default=present["threshold"],
        label="Least similarity (cosine)",
        description=f"From {lowest:.4f}, down to which pairs were kept, to 1. Moving it forms the groups anew",
    )
    try:
        counts = present if chosen is None else _preview(ctx, key, float(chosen))
    except SelfsameError as error:
        prop.invalid, prop.error_message = True, str(error)
        return
    inputs.view("groups", types.Notice(label=_preview_text(counts)))


@cached_in_prompt
def _preview(ctx: Any, key: str, threshold: float | None) -> dict[str, Any]:
    from .duplicate_views import preview_counts

    return preview_counts(ctx.dataset, key, threshold)


def _preview_text(counts: dict[str, Any]) -> str:
    at = "" if counts["threshold"] is None else f"At {counts['threshold']:.4f}: "
    split = " (before chains are cut)" if counts["approximate"] else ""
    return f"{at}{groups_text(counts)}{split}."


def groups_text(counts: Mapping[str, int]) -> str:
    """The counts of a duplicate search in words."""
    groups, duplicates = counted(counts.get("groups", 0), "group"), counted(counts.get("duplicates", 0), "duplicate")
    return f"{groups} with {duplicates}, the largest of {counted(counts.get('largest', 0), 'image')}"


def duplicate_runs(dataset: fo.Dataset | None) -> list[str]:
    """Keys of finished duplicate searches, the latest first."""
    records = list_records(dataset) if dataset is not None else []
    finished = [record for record in records if record["method"] in _SEARCHES and record["status"] == "completed"]
    return [record["key"] for record in reversed(finished)]


def latest_run(dataset: fo.Dataset) -> dict[str, str]:
    """The ``key`` argument that stands for "the last search"; empty where there was none."""
    keys = duplicate_runs(dataset)
    return {"key": keys[0]} if keys else {}


def choose_run(inputs: types.Object, chosen: str | None, keys: Sequence[str], empty: str) -> str | None:
    """Which duplicate search to work on.

    Args:
        chosen: what the user chose so far.
        keys: what there is to choose from, the default first.
        empty: what to tell a user if there is nothing to choose from.

    Returns:
        the chosen key; None, with the reason in the form, where there is none.
    """
    if not keys:
        refuse(inputs, empty)
        return None
    choose(inputs, "key", [(key, key, None) for key in keys], default=keys[0], label="Result of the search named")
    return chosen if chosen in keys else keys[0]


@cached_in_prompt
def count_roles(ctx: Any, key: str) -> dict[str, int]:
    """Images of the target by role in a duplicate search."""
    return ctx.target_view().count_values(f"{key}_role")


def keeper_options(inputs: types.Object) -> None:
    """How many of a group are kept, and which."""
    choices = [(name, label, text) for name, (label, text) in _KEEPER_RULES.items()]
    choose(inputs, "keeper_rule", choices, default="quality", label="Which ones of a group are kept")
    inputs.int("keep", min=1, default=1, label="How many of a group are kept")
    keeper_weights(inputs)


def keeper_weights(inputs: types.Object) -> None:
    """What makes an image the best of its group."""
    from ..brain.keeper import KeeperPolicy

    defaults, weights = asdict(KeeperPolicy()), types.Object()
    for name, (label, description) in _KEEPER_MEASURES.items():
        weights.float(name, default=defaults[name], label=label, description=description)
    view = types.ObjectView(label="What makes an image the best of its group", description="Weights; 0 ignores one")
    inputs.define_property("keeper", weights, view=view)


def choose_action(ctx: Any, inputs: types.Object, key: str) -> None:
    """Which tags to give, and how many images of the target there are for them."""
    from .duplicate_tags import TAG_ACTION_LABELS

    roles = count_roles(ctx, key)
    numbers = ", ".join(f"{roles.get(role, 0):,} {text}" for role, text in _ROLES.items())
    inputs.view("roles", types.Notice(label=f"Among these images: {numbers}."))
    actions = [(name, label, None) for name, label in TAG_ACTION_LABELS.items()]
    choose(inputs, "action", actions, default=actions[0][0], view=types.RadioGroup, label="Tags")


def tagged_runs(dataset: fo.Dataset) -> dict[str, dict[str, Any]]:
    """The last tag action that can be undone, by key of the duplicate search; the latest first."""
    from .duplicate_tags import undoable_actions

    actions = {}
    for record in reversed(undoable_actions(dataset)):
        actions.setdefault(record["config"]["key"], record)
    return actions


def latest_tagged_run(dataset: fo.Dataset) -> dict[str, str]:
    """The ``key`` argument that stands for "the last tagging"; empty where there was none."""
    keys = list(tagged_runs(dataset))
    return {"key": keys[0]} if keys else {}


def choose_undo(ctx: Any, inputs: types.Object) -> None:
    """Whose tags to take back, and how many they are."""
    if ctx.dataset is None:
        refuse(inputs, "Open a dataset first.")
        return
    actions = tagged_runs(ctx.dataset)
    key = choose_run(inputs, ctx.params.get("key"), list(actions), "There are no tags of “Tag duplicates” to undo.")
    if key:
        counts = actions[key]["counts"]
        text = f"The last tagging marked {counted(counts['keep'], 'image')} to keep and {counts['drop']:,} to drop"
        when = actions[key]["timestamp"].strftime("%Y-%m-%d %H:%M UTC")
        inputs.view("action", types.Notice(label=f"{text} ({when}). Tags given by hand stay."))
