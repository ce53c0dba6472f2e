"""Form fields of the catalogue check: products, the two sides, limits with a live count, and the table of verdicts."""

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
from fiftyone.operators import types
from fiftyone.operators.constants import ViewTarget

from ..brain.errors import SelfsameError
from . import forms
from .catalogue_plan import share_out
from .catalogue_sides import CATALOGUE, DOCUMENT, Sides, find_sides, naming_fields
from .dataset_io import image_samples
from .match_forms import choose_matcher, matcher_options
from .runs import list_records, load_record

KEY = "catalogue"
MAX_PER_PRODUCT, MAX_PAIRS, CONTROLS = 200, 20_000, 300

# The arguments that say which images are of which side.
SIDES = ("product", "use", "catalogue", "document", "documents")

# Where the documents are.
VALUES, DATASETS = "values", "datasets"

_USUAL_PRODUCTS = ("product", "product_id", "sku", "gtin", "ean", "article", "item", "object")
_USUAL_USES = ("use", "usage", "source", "role", "split")

# A field with more values than this is typed instead of chosen.
_MOST_VALUES = 50

# What the table of the summary shows: name in a row, heading.
_TABLE = (
    ("product", "Product"),
    ("verdict", "Verdict"),
    ("score", "Score"),
    ("comparisons", "Compared"),
    ("document_file", "Best document"),
)


def choose_sides(ctx: Any, inputs: types.Object) -> Sides | None:
    """Products, catalogue and documents; None, with the reason in the form, where they cannot be told."""
    fields = naming_fields(ctx.dataset)
    if not fields:
        forms.refuse(inputs, "No field could name the product of an image: add one, e.g. a text field “product”.")
        return None
    choices = [(name, name, None) for name in fields]
    default = default_product(ctx.dataset)
    forms.choose(
        inputs,
        "product",
        choices,
        default=default,
        label="Product",
        description="Field that names the product of an image",
    )
    others = [name for name in fo.list_datasets() if name != ctx.dataset.name]
    between = [(VALUES, "In this dataset", "A field tells catalogue from document images")]
    if others:
        between.append((DATASETS, "In another dataset", "This one is the catalogue; both name products in one field"))
    forms.choose(inputs, "between", between, default=VALUES, view=types.RadioGroup, label="The documents to check are")
    if ctx.params.get("between") == DATASETS and others:
        forms.choose(inputs, "documents", [(name, name, None) for name in others], label="Documents", required=True)
        if not ctx.params.get("documents"):
            return None
    elif not _choose_use(ctx, inputs, ctx.params.get("product") or default):
        return None
    given = sides_arguments(ctx)
    try:
        return find_sides(
            ctx.target_view(),
            given["product"],
            given.get("use"),
            given.get("catalogue", CATALOGUE),
            given.get("document", DOCUMENT),
            given.get("documents"),
        )
    except SelfsameError as error:
        forms.refuse(inputs, str(error))
        return None


def _choose_use(ctx: Any, inputs: types.Object, product: str) -> bool:
    fields = [name for name in naming_fields(ctx.dataset) if name != product]
    if not fields:
        text = "No field could tell catalogue from document images: add one, e.g. a text field “use”."
        forms.refuse(inputs, text)
        return False
    use = default_use(ctx.dataset, product)
    forms.choose(inputs, "use", [(name, name, None) for name in fields], default=use, label="Use of an image")
    values = field_values(ctx, ctx.params.get("use") or use)
    for number, (name, label) in enumerate(((CATALOGUE, "Catalogue images have"), (DOCUMENT, "Documents have"))):
        if 2 <= len(values) <= _MOST_VALUES:
            default = name if name in values else values[number]
            forms.choose(inputs, name, [(value, value, None) for value in values], default=default, label=label)
        else:
            inputs.str(name, default=name, label=label)
    return True


def sides_arguments(ctx: Any) -> dict[str, str]:
    """What the form says of the sides, with what it shows where the request is silent."""
    given = {name: value for name, value in ctx.params.items() if value not in (None, "")}
    product = given.get("product") or default_product(ctx.dataset)
    sides: dict[str, str] = {} if product is None else {"product": product}
    # What was filled in before the other choice was made is still in the request.
    if given.get("between") == DATASETS or ("between" not in given and "documents" in given):
        return sides | {name: given[name] for name in ("documents",) if name in given}
    use = given.get("use") or (default_use(ctx.dataset, product) if product else None)
    if use is None:
        return sides
    values = field_values(ctx, use)
    shown = dict(zip((CATALOGUE, DOCUMENT), values, strict=False)) if 2 <= len(values) <= _MOST_VALUES else {}
    shown |= {name: name for name in (CATALOGUE, DOCUMENT) if name in values}
    chosen = {name: given.get(name) or shown.get(name, name) for name in (CATALOGUE, DOCUMENT)}
    return sides | {"use": use} | chosen


def default_product(dataset: fo.Dataset) -> str | None:
    """The field that is most likely to name products."""
    fields = naming_fields(dataset)
    return next((name for name in _USUAL_PRODUCTS if name in fields), fields[0] if fields else None)


def default_use(dataset: fo.Dataset, product: str) -> str | None:
    """The field that is most likely to tell catalogue from document images."""
    fields = [name for name in naming_fields(dataset) if name != product]
    return next((name for name in _USUAL_USES if name in fields), fields[0] if fields else None)


@forms.cached_in_prompt
def field_values(ctx: Any, path: str) -> list[str]:
    """The values of a field, as text; empty where there is no such field."""
    if path not in naming_fields(ctx.dataset):
        return []
    return [str(value) for value in image_samples(ctx.dataset).distinct(path)]


def choose_target(ctx: Any, inputs: types.Object) -> None:
    """All of the dataset, where it was checked before: the App then shows a part of it that is to be looked after."""
    if ctx.dataset is not None and list_records(ctx.dataset, method="check_catalogue"):
        inputs.view_target(ctx, default_target=ViewTarget.DATASET)


def show_plan(ctx: Any, inputs: types.Object, given: Mapping[str, Any]) -> None:
    """How much is to be compared, counted as the user types.

    Args:
        given: the parameters of the form, the collapsed ones among them.
    """
    limits = [given.get("max_per_product") or MAX_PER_PRODUCT, given.get("max_pairs") or MAX_PAIRS]
    if not all(isinstance(limit, int) and limit > 0 for limit in limits):
        return
    counts = _counts(ctx, *(sides_arguments(ctx).get(name) for name in SIDES))
    text = plan_text({name: (first, second) for name, first, second in counts}, *limits)
    controls = given.get("controls", CONTROLS)
    if given.get("threshold") is None and controls and len(counts) > 1:
        text += f" Up to {controls:,} more between different products find out the least score of a match."
    inputs.view("plan", types.Notice(label=text))
    before = load_record(ctx.dataset, given.get("key") or KEY)
    if before is not None and before["counts"].get("products", 0) > len(counts):
        text = (
            f"The last check of this name was of {before['counts']['products']:,} products; only these keep a result."
        )
        inputs.view("fewer", types.Warning(label=text))


@forms.cached_in_prompt
def _counts(
    ctx: Any, product: str, use: str | None, catalogue: str | None, document: str | None, documents: str | None
) -> list[tuple[str, int, int]]:
    """Catalogue and document images of each product."""
    sides = find_sides(ctx.target_view(), product, use, catalogue or CATALOGUE, document or DOCUMENT, documents)
    return [(name, *both) for name, both in sides.count().items()]


def plan_text(sides: Mapping[str, tuple[int, int]], per_product: int, total: int) -> str:
    """What a check comes to, in words."""
    if not sides:
        return "No image here names a product in this field."
    comparisons = sum(share_out(sides, per_product, total).values())
    text = f"{forms.counted(len(sides), 'product')}: {forms.counted(comparisons, 'comparison')}"
    if left := sum(first * second for first, second in sides.values()) - comparisons:
        text += f" of {comparisons + left:,}, {left:,} are left out by the limits"
    for side, other, what in ((0, 1, "document"), (1, 0, "catalogue")):
        if lone := sum(both[side] > 0 and not both[other] for both in sides.values()):
            text += f"; {forms.counted(lone, 'product')} without a {what} image"
    return f"{text}."


def choose_check(ctx: Any, inputs: types.Object, sides: Sides) -> None:
    """By what images are compared, and what of it is stored and shown."""
    choose_matcher(ctx, inputs)
    inputs.float(
        "threshold",
        min=0.0,
        max=1.0,
        label="Least score of a match",
        description="Empty: what images of different products hardly ever reach",
    )
    key, usable = forms.name_field(
        ctx, inputs, "key", KEY, label="Name of the result", description="Fields begin with it"
    )
    if usable:
        from .catalogue_fields import check_catalogue_key

        forms.require(inputs.get_property("key"), check_catalogue_key, sides, key)
    inputs.bool("download", default=False, label="Download the table as CSV", view=types.CheckboxView())


def advanced_check(ctx: Any, inputs: types.Object) -> None:
    """The collapsed part of the form."""
    inputs.int("max_per_product", min=1, default=MAX_PER_PRODUCT, label="Most comparisons of a product")
    inputs.int("max_pairs", min=1, default=MAX_PAIRS, label="Most comparisons in all")
    inputs.int(
        "controls",
        min=0,
        default=CONTROLS,
        label="Comparisons between different products",
        description="From which the least score of a match is found out; 0 takes the matcher's own",
    )
    inputs.str("name", label="Name of the evidence dataset", description="Empty: made of this dataset's name")
    matcher_options(ctx, inputs, threshold=False)


def verdict_table(outputs: types.Object, details: Mapping[str, Any]) -> None:
    """Shows the first products in the summary of a check, and a button that opens the evidence.

    Args:
        outputs: the summary.
        details: those of the result.
    """
    rows = details.get("table")
    if not rows:
        return
    table, row, shown = types.TableView(), types.Object(), types.Object()
    for name, label in _TABLE:
        table.add_column(name, label=label)
        row.str(name)
    more = details["products"] - len(rows)
    text = f"; {more:,} more are in the CSV file" if more else ""
    shown.list("table", row, view=table, label=f"Products, those without evidence first{text}")
    outputs.define_property("details", shown)
    if details["dataset"]:
        outputs.btn(
            "open_evidence",
            label="Open the evidence: the best pair of each product",
            icon="compare",
            on_click="@voxel51/operators/open_dataset",
            params={"dataset": details["dataset"]},
        )
    # What was asked for comes before the notices.
    first = ("summary", "open_evidence", "details")
    names = sorted(outputs.properties, key=lambda name: first.index(name) if name in first else len(first))
    outputs.properties = {name: outputs.properties[name] for name in names}
