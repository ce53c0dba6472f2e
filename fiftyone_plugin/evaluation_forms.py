"""Form fields of what looks at finished runs of ``compute_correspondences``: evaluations and symmetry errors."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from ..brain.errors import ConfigError
from . import forms
from .catalogue_sides import naming_fields
from .duplicate_forms import choose_run
from .pairs import DIFFERENCE
from .runs import list_records, load_record

# Not taken from the module that computes, which would load libraries with every request.
METHOD = "compute_correspondences"

_PAIR_FIELDS = ("pair", "pair_id", "source_id", "target_id", "label", "relation")

_NOTHING = "Find correspondences with “Compute correspondences” first."
_NO_KEYPOINTS = "No run looked for keypoints that are annotated: choose some in “Compute correspondences”."


def correspondence_keys(dataset: fo.Dataset, *, with_keypoints: bool = False) -> list[str]:
    """Keys of finished runs, the latest first.

    Args:
        with_keypoints: only those that looked for keypoints that are annotated.
    """
    records = reversed(list_records(dataset, method=METHOD))
    finished = (record for record in records if record["status"] == "completed")
    return [record["key"] for record in finished if not with_keypoints or record["config"]["keypoints"] is not None]


def choose_correspondences(ctx: Any, inputs: types.Object, *, with_keypoints: bool = False) -> str | None:
    """The run to look at; None, with the reason in the form, where there is none."""
    keys = correspondence_keys(ctx.dataset, with_keypoints=with_keypoints)
    other = with_keypoints and correspondence_keys(ctx.dataset)
    return choose_run(inputs, ctx.params.get("key"), keys, _NO_KEYPOINTS if other else _NOTHING)


def choose_evaluation(ctx: Any, inputs: types.Object, key: str) -> None:
    """Thresholds, what the figures are split by, and whether the report goes to the browser."""
    record = load_record(ctx.dataset, key)
    config = {} if record is None else record["config"]
    default = ctx.params.get("alphas") or f"{config.get('alpha', 0.1):g}"
    text = "0.1, 0.05: one or more, each at most 1"
    prop = inputs.str("alphas", default=default, label="Shares within which a keypoint is correct", description=text)
    forms.require(prop, parse_alphas, default)
    if config.get("foreground", "none") != "none":
        choices = [("box", "The object's box", "As this run did"), ("image", "The image", None)]
        forms.choose(inputs, "threshold", choices, default="box", label="Shares of")
    choices = [(forms.AUTO, "Labels of the keypoints", None)]
    choices += [(name, f"Field {name}", None) for name in _category_fields(ctx.dataset)]
    forms.choose(inputs, "category", choices, default=forms.AUTO, label="Category")
    choices = [(forms.AUTO, f"Field {DIFFERENCE} of the pairs", "Not at all where there is none")]
    choices += [(name, f"Field {name}", "0 to 7 or degrees") for name in _number_fields(ctx.dataset)]
    forms.choose(inputs, "azimuth", choices, default=forms.AUTO, label="Viewpoint of each image")
    text = "A CSV and a Markdown file; they are kept on the server in any case"
    inputs.bool("download", default=False, label="Download the report", description=text)


def parse_alphas(given: Any) -> list[float]:
    """Shares as they are typed into a form: numbers with commas between them.

    Raises:
        ConfigError: one is no number above 0 and at most 1.
    """
    parts = given.split(",") if isinstance(given, str) else given
    try:
        alphas = [float(part) for part in parts]
    except (TypeError, ValueError):
        alphas = []
    if not alphas or not all(0 < alpha <= 1 for alpha in alphas):
        raise ConfigError(f"{given!r} are no shares; write such as `0.1, 0.05`, each above 0 and at most 1")
    return alphas


def choose_ranking(ctx: Any, inputs: types.Object) -> None:
    """What symmetry errors are ranked by."""
    inputs.bool(
        "use_types",
        default=True,
        label="Go by the types of errors where matches have some",
        description="Otherwise by the scores that need no annotations alone",
    )
    if ctx.params.get("use_types") is not False:
        inputs.bool(
            "fit_weights",
            default=False,
            label="Weigh the scores by how well they find the known errors",
            description="Takes matches with types of errors",
        )


def _category_fields(dataset: fo.Dataset) -> list[str]:
    """Text of the user's own: neither what makes pairs, nor what a computation has written."""
    found = []
    for name in naming_fields(dataset):
        root = name.split(".")[0]
        if root not in _PAIR_FIELDS and "method" not in (dataset.get_field(root).info or {}):
            found.append(name)
    return found


def _number_fields(dataset: fo.Dataset) -> list[str]:
    schema = dataset.get_field_schema(ftype=(fo.IntField, fo.FloatField))
    return [name for name, field in schema.items() if name != DIFFERENCE and "method" not in (field.info or {})]
