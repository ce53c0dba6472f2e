"""Form fields of the search for leaks: what to compare across which splits, whom to tag, earlier searches."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from .dataset_io import image_samples
from .duplicate_forms import choose_vectors, suggested_threshold
from .forms import cached_in_prompt, choose, count_values, counted, name_field, refuse, require
from .leak_splits import split_fields, split_tags
from .result_keys import finished_keys
from .runs import list_records, load_record

METHOD = "find_leaks"

# In place of a field's name: the splits are tags, which are chosen beside it.
TAGS = "tags of samples"

# In place of the key of a duplicate run.
VECTORS = "vectors"

SEARCH, SHOW, CLEAR = "search", "show", "clear"
SPLITS, DATASETS = "splits", "datasets"

# More text than this is not sent through the App; export_leaks writes files of any size.
MAX_CSV = 20 << 20


def choose_task(ctx: Any, inputs: types.Object) -> str:
    """Whether to search, or what to do with the leaks of an earlier search; only where there is one."""
    if not finished_keys(ctx.dataset, METHOD):
        return SEARCH
    tasks = [
        (SEARCH, "Find leaks", "Compares the splits, or this dataset with another"),
        (SHOW, "Show the leaks that were found", "Side by side, the most similar first"),
        (CLEAR, "Take a search back", "Removes its tags and fields"),
    ]
    choose(inputs, "task", tasks, default=SEARCH, view=types.RadioGroup, label="What to do")
    return ctx.params.get("task") or SEARCH


def choose_leaks(ctx: Any, inputs: types.Object) -> None:
    """An earlier search, and what it found."""
    keys = finished_keys(ctx.dataset, METHOD)[::-1]
    choose(inputs, "key", [(key, key, None) for key in keys], default=keys[0], label="Result of the search named")
    chosen = ctx.params.get("key")
    record = load_record(ctx.dataset, chosen if chosen in keys else keys[0])
    assert record is not None
    for number, sentence in enumerate(record["notices"]):
        inputs.view(f"found_{number}", types.Notice(label=sentence))


def latest_leaks(dataset: fo.Dataset) -> dict[str, str]:
    """The ``key`` argument that stands for "the last search"; empty where there was none."""
    keys = finished_keys(dataset, METHOD)
    return {"key": keys[-1]} if keys else {}


def choose_sides(ctx: Any, inputs: types.Object) -> str | None:
    """What to compare with what; None, with the reason in the form, where there are no splits."""
    sides = [
        (SPLITS, "The splits of this dataset", None),
        (DATASETS, "This dataset with another one", "Both need vectors of one model in a field of the same name"),
    ]
    choose(inputs, "between", sides, default=SPLITS, view=types.RadioGroup, label="Compare")
    if ctx.params.get("between") == DATASETS:
        return _choose_dataset(ctx, inputs)
    return _choose_splits(ctx, inputs)


def choose_pairs(ctx: Any, inputs: types.Object, sides: str) -> bool:
    """Where the pairs come from and how similar they must be; False, with the reason in the form, if nowhere."""
    runs = [] if sides == DATASETS else _searches(ctx.dataset)
    if runs:
        choices = [(VECTORS, "Compare vectors", "Only across splits, so it is quicker than a duplicate search")]
        choices += [(key, f"Pairs of the duplicate search {key}", "No new search") for key in runs]
        choose(inputs, "duplicates", choices, default=VECTORS, label="Pairs")
    run = ctx.params.get("duplicates")
    if run in runs:
        details = load_record(ctx.dataset, run)["details"]  # type: ignore[index]
        lowest, empty = details["pairs_kept_down_to"], f"{details['threshold']:.4f}, as in that search"
    else:
        embeddings = choose_vectors(ctx, inputs)
        if embeddings is None:
            return False
        lowest, empty = -1.0, suggested_threshold(ctx, embeddings)
    inputs.float(
        "threshold",
        min=lowest,
        max=1.0,
        label="Least similarity (cosine)",
        description=f"1 is identical. Empty: {empty}",
    )
    return True


def choose_tags(ctx: Any, inputs: types.Object) -> None:
    """Who gets a tag ``leak:<split>``."""
    sides = [
        ("drop", "Images that should go", "As a rule those for training"),
        ("all", "All images that leak", None),
        ("none", "None", "Only the fields are written"),
    ]
    choose(inputs, "tag", sides, default="drop", view=types.RadioGroup, label="Tag leak:<split>")
    inputs.str(
        "drop_from",
        label="Drop from",
        description="The split that should lose images. Empty: training rather than validation rather than test data",
    )


def leak_key(ctx: Any, inputs: types.Object) -> None:
    """The name under which the result is stored."""
    text = "Its fields begin with this name; tags and fields of an earlier search of that name are replaced"
    key, usable = name_field(ctx, inputs, "key", "leaks", label="Name of the result", description=text)
    if usable:
        from .leak_store import check_leak_key

        require(inputs.get_property("key"), check_leak_key, ctx.dataset, key)


def _choose_splits(ctx: Any, inputs: types.Object) -> str | None:
    fields, tags = split_fields(ctx.dataset), _tags(ctx)
    usual = _usual_tags(ctx)
    choices = [(name, name, None) for name in fields]
    if tags:
        choices.append((TAGS, "Tags of the samples", ", ".join(usual or tags[:5])))
    if not choices:
        refuse(inputs, "There is neither a field nor a tag that could name a split, e.g. a text field “split”.")
        return None
    default = TAGS if usual and "split" not in fields else choices[0][0]
    choose(inputs, "split_field", choices, default=default, label="Splits")
    chosen = ctx.params.get("split_field") or default
    if chosen == TAGS:
        view = types.AutocompleteView(allow_user_input=False, allow_duplicates=False)
        for tag in tags:
            view.add_choice(tag, label=tag)
        inputs.list("split_tags", types.String(), default=usual or tags[:2], label="Tags that are splits", view=view)
    elif (present := count_values(ctx, chosen)) < (total := count_values(ctx, "id")):
        text = f"{counted(total - present, 'image')} without a value in {chosen!r} will be left out."
        inputs.view("unassigned", types.Notice(label=text))
    return SPLITS


def _choose_dataset(ctx: Any, inputs: types.Object) -> str | None:
    others = [name for name in fo.list_datasets() if name != ctx.dataset.name]
    if not others:
        refuse(inputs, "There is no other dataset.")
        return None
    choose(inputs, "other", [(name, name, None) for name in others], label="The other dataset", required=True)
    return DATASETS


def _searches(dataset: fo.Dataset) -> list[str]:
    """Finished duplicate searches that kept their pairs, the latest first."""
    records = list_records(dataset, method="find_duplicates")
    return [record["key"] for record in reversed(records) if record["status"] == "completed"]


@cached_in_prompt
def _tags(ctx: Any) -> list[str]:
    return sorted(image_samples(ctx.target_view()).distinct("tags"))


@cached_in_prompt
def _usual_tags(ctx: Any) -> list[str]:
    return split_tags(image_samples(ctx.target_view()))
