"""Operator: groups of near duplicates, or of pictures of the same object, from vectors of images or of objects."""

from functools import partial

import fiftyone.operators as foo
from fiftyone.operators import types

from ..fiftyone_plugin import duplicate_forms, forms
from .base import CurationOperator, announce_groups

_LABEL = "Find duplicates"

# Arguments that also apply when the pairs of an earlier search are grouped anew.
_REGROUP_OPTIONS = ("key", "threshold", "max_diameter", "keeper", "keeper_rule", "keep", "num_workers")


class FindDuplicates(CurationOperator):
    """See :func:`fiftyone_selfsame.find_duplicates`."""

    options = (
        "key",
        "embeddings",
        "patches_field",
        "threshold",
        "method",
        "k",
        "max_diameter",
        "kind",
        "engine",
        "incremental",
        "keeper",
        "keeper_rule",
        "keep",
        "shots",
        "device",
        "num_workers",
    )

    @property
    def config(self):
        return foo.OperatorConfig(
            name="find_duplicates",
            label=_LABEL,
            description="Groups images or objects whose vectors are alike, and chooses the best of each group",
            icon="content_copy",
            dynamic=True,
            execute_as_generator=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_input(self, ctx):
        inputs = types.Object()
        if forms.target_images(ctx, inputs):
            place = duplicate_forms.choose_level(ctx, inputs)
            embeddings = duplicate_forms.choose_vectors(ctx, inputs, place)
            if embeddings:
                _search(ctx, inputs, embeddings, place)
        return types.Property(inputs, view=types.View(label=_LABEL))

    def resolve_placement(self, ctx):
        if not (duplicate_forms.vector_fields(ctx.dataset) or duplicate_forms.object_fields(ctx.dataset)):
            return None
        button = types.Button(label=_LABEL, icon="content_copy", prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def arguments(self, ctx):
        given = super().arguments(ctx)
        if "keeper" in given:
            given["keeper"] = {name: weight for name, weight in given["keeper"].items() if weight is not None}
        return given

    def execute(self, ctx):
        def start():
            from ..fiftyone_plugin.duplicates import find_duplicates_steps, regroup_duplicates_steps

            given = self.arguments(ctx)
            if ctx.params.get("source") == "new":
                given["incremental"] = True
            if ctx.params.get("source") != "pairs":
                return find_duplicates_steps(ctx.target_view(), **given)
            kept = {name: value for name, value in given.items() if name in _REGROUP_OPTIONS}
            return regroup_duplicates_steps(ctx.target_view(), **kept)

        return self.run(ctx, start, partial(announce_groups, ctx))

    def resolve_output(self, ctx):
        return self.summary_form(ctx.results or {})


def _search(ctx, inputs, embeddings, place):
    key, usable = duplicate_forms.duplicate_key(ctx, inputs, "dup", "find_duplicates", place)
    source = "search"
    if usable and duplicate_forms.kept_pairs(ctx, key, embeddings, place):
        choices = [
            ("search", "Search again", "Compares all of the target"),
            ("new", "Add what is new", "Compares what the last search has not seen, or what has changed, with all"),
            ("pairs", "Move the threshold", "Groups the pairs of the last search anew, at once"),
        ]
        forms.choose(inputs, "source", choices, default="search", view=types.RadioGroup, label="Start from")
        source = ctx.params.get("source") or source
    if source == "pairs":
        duplicate_forms.choose_threshold_of(ctx, inputs, key)
    else:
        _how(ctx, inputs, duplicate_forms.suggested_threshold(ctx, embeddings, key, place), source)
    _advanced(forms.advanced_options(inputs), source)


def _how(ctx, inputs, suggestion, source):
    kinds = [
        ("same_object", "The same object", "Also in other shots; each group says of which kind it is"),
        ("near", "The same shot", "Re-encoded, resized, cropped, recoloured; looks at every picture of a pair"),
    ]
    forms.choose(inputs, "kind", kinds, default="same_object", view=types.RadioGroup, label="Group what shows")
    if source == "search":
        methods = [
            ("threshold", "All pairs above a threshold", "The usual choice"),
            ("mutual_knn", "Mutual nearest neighbours", "Same objects in dense data: each must be near the other"),
        ]
        forms.choose(inputs, "method", methods, default="threshold", view=types.RadioGroup, label="Link")
        if ctx.params.get("method") == "mutual_knn":
            inputs.int("k", min=1, max=1000, default=10, label="Neighbours that count")
    else:
        suggestion = "that of the last search"
    inputs.float(
        "threshold",
        min=-1.0,
        max=1.0,
        label="Least similarity (cosine)",
        description=f"1 is identical. Empty: {suggestion}",
    )


def _advanced(inputs, source):
    inputs.float(
        "max_diameter",
        min=0.0,
        max=2.0,
        label="Largest cosine distance within a group",
        description="Keeps chains from melting into one group. Empty: twice the distance of the threshold; 2: no limit",
    )
    duplicate_forms.keeper_options(inputs)
    if source != "pairs":
        inputs.bool(
            "shots",
            default=True,
            label="Tell shots apart",
            description="Decodes the members of groups once more; otherwise groups are only exact or similar",
        )
    if source == "search":
        engines = [
            ("auto", "Automatic", "Exact below 300,000 images or on a GPU"),
            ("exact", "Exact", "Compares all with all"),
            ("faiss", "Approximate (faiss)", "For a million images; says how many of the pairs it found"),
        ]
        forms.choose(inputs, "engine", engines, default="auto", label="Search")
        forms.choose_device(inputs)
    forms.choose_workers(inputs)
