"""Form fields of the cluster operators: images or objects, how to cluster them, clusters to look at."""

from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from . import duplicate_forms
from .cluster_store import check_cluster_key, cluster_keys
from .forms import choose, counted, name_field, refuse, require
from .item_fields import Place
from .runs import load_record

_METHODS = [
    ("agglomerative", "Average linkage", "Clusters join while their members are alike on average: the usual choice"),
    ("hdbscan", "HDBSCAN", "Dense regions of any shape; leaves more images outside"),
    ("components", "Linked images", "All that are connected by similar pairs, no wider than a limit"),
]
_SIMILARITIES = [
    ("reciprocal", "Shared neighbours", "How many of their nearest neighbours two images share: the best on our data"),
    ("local_scaling", "Local scaling", "Cosine, measured by how far their neighbours are"),
    ("cosine", "Plain cosine", None),
]
_VERIFICATIONS = [
    ("none", "Trust the vectors", None),
    ("regions", "Compare regions of near neighbours", "Looks at the pictures again with the vectors' model: slow"),
]


def has_vectors(dataset: fo.Dataset | None) -> bool:
    """Whether there is anything to cluster."""
    return bool(duplicate_forms.vector_fields(dataset) or duplicate_forms.object_fields(dataset))


def choose_vectors(ctx: Any, inputs: types.Object) -> Place | None:
    """What to cluster, and by which vectors; None, with the reason in the form, where there are none."""
    place = duplicate_forms.choose_level(ctx, inputs)
    return place if duplicate_forms.choose_vectors(ctx, inputs, place) else None


def choose_method(inputs: types.Object) -> None:
    """How clusters are formed."""
    choose(inputs, "method", _METHODS, default="agglomerative", view=types.RadioGroup, label="Method")
    inputs.int("min_size", min=2, default=2, label="Members of a cluster", description="At least")


def cluster_key(ctx: Any, inputs: types.Object, place: Place) -> None:
    """The name under which the clusters are stored, and what of an earlier review will be honoured."""
    text = "Its fields begin with this name; clusters of an earlier run of that name are replaced, decisions kept"
    key, usable = name_field(ctx, inputs, "key", "objects", label="Name of the result", description=text)
    if usable:
        require(inputs.get_property("key"), check_cluster_key, ctx.dataset, key, place)


def choose_truth(ctx: Any, inputs: types.Object, place: Place) -> None:
    """A field of true identities, if there is one."""
    fields = _truth_fields(ctx.dataset, place)
    if fields:
        text = "Known identities, to measure the clusters by (adjusted Rand index). Empty: none"
        choices = [(name, name, None) for name in fields]
        choose(inputs, "truth_field", choices, label="True identities", description=text)


def advanced_options(ctx: Any, inputs: types.Object) -> None:
    """What is behind the method."""
    choose(inputs, "similarity", _SIMILARITIES, default="reciprocal", label="Similarity")
    inputs.float(
        "threshold",
        min=-1.0,
        max=1.0,
        label="Least similarity",
        description="Of that kind, at which clusters join. Empty: chosen from the data",
    )
    if ctx.params.get("method") == "components":
        text = "Largest 1 - similarity within a cluster. Empty: no limit"
        inputs.float("max_diameter", min=0.0, max=2.0, label="Largest distance", description=text)
    inputs.int("neighbours", min=1, max=1000, default=30, label="Neighbours that are compared")
    text = "For shared neighbours; objects with more than twice as many may fall into several clusters"
    inputs.int("pictures", min=1, max=1000, default=8, label="Images that an object has, about", description=text)
    choose(inputs, "verify", _VERIFICATIONS, default="none", label="Second look")


def choose_clusters(ctx: Any, inputs: types.Object) -> None:
    """Which clusters to look at, and how many there are."""
    keys = cluster_keys(ctx.dataset)[::-1]
    if not keys:
        refuse(inputs, "There are no clusters yet: run “Cluster objects” first.")
        return
    choose(inputs, "key", [(key, key, None) for key in keys], default=keys[0], label="Clusters named")
    chosen = ctx.params.get("key")
    record = load_record(ctx.dataset, chosen if chosen in keys else keys[0])
    assert record is not None
    inputs.view("found", types.Notice(label=f"{clusters_text(record['counts'], _things(record))}."))


def latest_clusters(dataset: fo.Dataset) -> dict[str, str]:
    """The ``key`` argument that stands for "the last clusters"; empty where there are none."""
    keys = cluster_keys(dataset)
    return {"key": keys[-1]} if keys else {}


def clusters_text(counts: dict[str, int], thing: str = "image") -> str:
    """The counts of a clustering in words."""
    clusters, members = counted(counts["clusters"], "cluster"), counted(counts["members"], thing)
    return f"{clusters} with {members}, the largest of {counts['largest']:,}; {counts['outliers']:,} are in none"


def _things(record: dict[str, Any]) -> str:
    return "image" if record["config"]["patches_field"] is None else "object"


def _truth_fields(dataset: fo.Dataset, place: Place) -> list[str]:
    root = place.path("")
    kinds = (fo.StringField, fo.IntField)
    schema = dataset.get_field_schema(flat=bool(root))
    names = [
        path.removeprefix(root) for path, field in schema.items() if path.startswith(root) and type(field) in kinds
    ]
    return sorted(name for name in names if "." not in name and name not in ("id", "filepath", "mask_path", "index"))
