"""Form fields of the operators that export and apply decisions."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from .duplicate_forms import choose_run
from .forms import cached_in_prompt, choose, counted, refuse
from .group_table import CLUSTER_METHOD, DUPLICATE_METHODS
from .runs import list_records

_EXPORTS = [
    ("csv", "Table (CSV)", "A row for every member of a group, with file, decision, keeper, kind and similarity"),
    ("json", "Table (JSON)", "The same for programs"),
    ("view", "Saved view", "All but the dropped; follows the decisions"),
    ("dataset", "Dataset", "A clone of all but the dropped"),
    ("export", "Files", "All but the dropped in one of FiftyOne's formats"),
]

_FORMATS = (
    "FiftyOneDataset",
    "ImageDirectory",
    "COCODetectionDataset",
    "YOLOv5Dataset",
    "VOCDetectionDataset",
    "ImageClassificationDirectoryTree",
    "CVATImageDataset",
)


def reviewed_runs(dataset: fo.Dataset | None) -> list[str]:
    """Keys of runs with groups, those decided on first, then the latest first."""
    records = list_records(dataset)[::-1] if dataset is not None else []
    methods = (*DUPLICATE_METHODS, CLUSTER_METHOD)
    found = [one for one in records if one["method"] in methods and one["status"] == "completed"]
    found.sort(key=lambda one: not one["details"].get("decisions", {}).get("decisions"))
    return [one["key"] for one in found]


def latest_reviewed(dataset: fo.Dataset | None) -> dict[str, str]:
    """The ``key`` argument that stands for "what was reviewed last"; empty where there are no groups."""
    keys = reviewed_runs(dataset)
    return {"key": keys[0]} if keys else {}


def choose_reviewed(ctx: Any, inputs: types.Object) -> str | None:
    """Whose decisions; None, with the reason in the form, where there are no groups."""
    return choose_run(inputs, ctx.params.get("key"), reviewed_runs(ctx.dataset), "Search for duplicates first.")


def choose_export(ctx: Any, inputs: types.Object) -> None:
    """What to export to, and how it is named."""
    choose(inputs, "to", _EXPORTS, default="csv", view=types.RadioGroup, label="Export to")
    to = ctx.params.get("to") or "csv"
    if to in ("view", "dataset"):
        inputs.str("name", label="Name", description=f"Of the {to}. Empty: made of the name of the result")
    if to == "export":
        formats = [(name, name, None) for name in _FORMATS]
        choose(inputs, "dataset_type", formats, default=_FORMATS[0], label="Format")
        labels = list(ctx.dataset.get_field_schema(embedded_doc_type=fo.Label))
        if labels:
            fields = [(name, name, None) for name in labels]
            choose(
                inputs, "label_field", fields, default=None, label="Labels", description="For formats with one field"
            )
    if to in ("view", "dataset", "export"):
        inputs.bool("overwrite", default=False, label="Replace what has that name", view=types.CheckboxView())


def choose_deletion(ctx: Any, inputs: types.Object, key: str) -> None:
    """What would be deleted, and the name to type."""
    plan = _deletion(ctx, key, bool(ctx.params.get("delete_files")))
    thing = plan["things"].removesuffix("s")
    if not plan["members"]:
        refuse(inputs, f"No {thing} of {key!r} is decided to be dropped, so there is nothing to delete.")
        return
    text = f"{counted(plan['members'], thing)} would be deleted; {plan['kept']:,} of the same groups stay."
    inputs.view("plan", types.Notice(label=" ".join([text, *plan["notices"]])))
    for number, reason in enumerate(plan["refusals"]):
        inputs.view(f"refusal_{number}", types.Warning(label="Refused as it stands", description=reason))
    inputs.bool("dry_run", default=True, label="Dry run: only tell what would be deleted", view=types.CheckboxView())
    if ctx.params.get("dry_run", True):
        return
    if plan["things"] == "images":
        text = "Nothing brings them back. Without this, only the samples leave the dataset"
        inputs.bool("delete_files", default=False, label="Delete the image files, too", description=text)
    prop = inputs.str("confirm", required=True, label=f"Type the dataset's name to delete: {ctx.dataset.name}")
    if ctx.params.get("confirm") != ctx.dataset.name:
        prop.invalid, prop.error_message = True, "This is not the dataset's name"


@cached_in_prompt
def _deletion(ctx: Any, key: str, delete_files: bool) -> dict[str, Any]:
    """What a deletion comes to: seconds of work for many samples, and a form is drawn anew at every keystroke.

    Only the form relies on it; whoever deletes looks again.
    """
    from .dataset_io import image_samples
    from .decision_apply import plan_deletion
    from .decision_members import open_run

    run = open_run(ctx.dataset, key)
    plan = plan_deletion(image_samples(ctx.target_view()), run, delete_files)
    return {
        "things": run.place.things,
        "members": len(plan.members),
        "kept": sum(map(len, plan.left.values())),
        "notices": plan.notices,
        "refusals": plan.refusals,
    }
