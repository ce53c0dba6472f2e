"""What the panels read of a run: one row per group or cluster, its members, and the view that shows them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone.core.collections as foc
import numpy as np
from fiftyone import ViewField

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .item_fields import Place
from .runs import list_records, load_record

DUPLICATE_METHODS = ("find_exact_duplicates", "find_duplicates")
CLUSTER_METHOD = "cluster_objects"

# A view of more groups would have to carry their numbers; the whole run is shown by `show_duplicate_groups`.
MAX_GROUPS = 200

# The values that a row of the table is made of; one index holds them all, so that no document is read.
TABLE_FIELDS = ("number", "size", "similarity", "risk", "kind", "decision")


@dataclass(frozen=True)
class GroupFields:
    """The paths of the results of a run, by what they mean; None where its method has no such result.

    Attributes:
        place: whether images or objects were compared.
        number: number of the group or cluster; empty outside.
        similarity: of a member to its keeper; of a cluster, how sure the membership is.
        risk: how doubtful the group is; of a cluster, how far out the member lies.
    """

    place: Place
    number: str
    size: str
    similarity: str
    decision: str
    risk: str
    kind: str | None = None
    role: str | None = None
    shot: str | None = None
    quality: str | None = None
    name: str | None = None

    @property
    def order(self) -> list[tuple[str, int]]:
        """The order in which members are shown: group after group, the keeper first, then by falling similarity."""
        role = [] if self.role is None else [(self.role, -1)]
        return [(self.number, 1), *role, (self.similarity, -1)]

    @property
    def order_of_patches(self) -> list[tuple[str, int]]:
        """The same in a view of patches, where each object is a document of its own."""
        return [(path.replace(".detections.", "."), direction) for path, direction in self.order]

    @property
    def table_index(self) -> list[tuple[str, int]]:
        """The index from which :func:`group_table` is read."""
        return [(path, 1) for path in (getattr(self, name) for name in TABLE_FIELDS) if path is not None]


@dataclass(frozen=True)
class GroupTable:
    """One row per group, in the order of their numbers.

    Attributes:
        group: ``(G,)`` int64 group numbers.
        size: ``(G,)`` int64 members in the whole run.
        similarity: ``(G,)`` float32 least similarity of a member to its keeper.
        risk: ``(G,)`` float32 in [0, 1], NaN where the run has none.
        kind: ``"exact"``, ``"near"``, ``"same_object"`` or ``"similar"`` (not told apart).
        decided: ``(G,)`` bool, whether any member bears a decision.
    """

    group: np.ndarray
    size: np.ndarray
    similarity: np.ndarray
    risk: np.ndarray
    kind: list[str]
    decided: np.ndarray

    def __len__(self) -> int:
        return len(self.group)


@dataclass(frozen=True)
class Member:
    """One image or object of a group.

    Attributes:
        id: of the sample, or of the label.
        box: ``(x, y, width, height)`` of an object relative to its image; None for a whole image.
        role: ``"keeper"`` or ``"duplicate"``; None in a cluster.
        shot: number of its shot within the group.
        tags: of the sample, or of the label.
        label: an object's label, or the name that was given to a cluster.
    """

    id: str
    sample_id: str
    filepath: str
    box: tuple[float, float, float, float] | None
    role: str | None
    similarity: float | None
    shot: int | None
    quality: float | None
    decision: str | None
    tags: tuple[str, ...]
    label: str | None


def run_place(record: Mapping[str, Any]) -> Place:
    """Whether a run compared images or the objects of a field."""
    return Place(record["config"].get("patches_field"))


def group_fields(record: Mapping[str, Any]) -> GroupFields:
    """The result paths of a duplicate or cluster run, from its record."""
    place, key = run_place(record), record["key"]

    def path(name: str) -> str:
        return place.path(f"{key}_{name}")

    shared: dict[str, Any] = {"place": place, "size": path("size"), "decision": path("decision")}
    if record["method"] == CLUSTER_METHOD:
        own = {"number": "cluster", "similarity": "confidence", "risk": "outlier", "name": "name"}
    else:
        names = ("similarity", "risk", "kind", "role", "shot", "quality")
        own = {"number": "group", **{name: name for name in names}}
    return GroupFields(**shared, **{meaning: path(name) for meaning, name in own.items()})


def find_group_record(samples: foc.SampleCollection, key: str) -> dict[str, Any]:
    """The record of a complete duplicate search or clustering.

    Raises:
        ConfigError: there is none under this key (the message lists those that exist), or it did not complete.
    """
    methods = (*DUPLICATE_METHODS, CLUSTER_METHOD)
    record = load_record(samples, key) if isinstance(key, str) else None
    if record is None or record["method"] not in methods:
        existing = [repr(other["key"]) for other in list_records(samples) if other["method"] in methods]
        hint = f"there are {', '.join(existing)}" if existing else "run find_duplicates or cluster_objects first"
        raise ConfigError(f"dataset {samples._dataset.name!r} has no groups under key {key!r}; {hint}")
    if record["status"] != "completed":
        raise ConfigError(f"the run of {record['method']} with key {key!r} did not complete; run it again")
    return record


def group_table(samples: foc.SampleCollection, key: str) -> GroupTable:
    """All groups of a run that have members in a view, by one aggregation over indexed fields.

    Args:
        samples: the dataset of the run, or a view of it.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects``.

    Raises:
        ConfigError: no such run.
    """
    fields = group_fields(find_group_record(samples, key))
    value = {name: f"${getattr(fields, name)}" for name in TABLE_FIELDS if getattr(fields, name) is not None}
    row = {
        "_id": value["number"],
        "size": {"$max": value["size"]},
        "similarity": {"$min": value["similarity"]},
        "risk": {"$max": value["risk"]},
        "decided": {"$max": {"$cond": [{"$gt": [value["decision"], None]}, 1, 0]}},
    }
    if "kind" in value:
        row["kind"] = {"$first": value["kind"]}
    members = _members(fields, {"$gte": 0}, [getattr(fields, name) for name in TABLE_FIELDS])
    rows = list(_run(samples, [*members, {"$group": row}, {"$sort": {"_id": 1}}]))
    return GroupTable(
        np.array([row["_id"] for row in rows], np.int64),
        np.array([row["size"] or 0 for row in rows], np.int64),
        _floats(rows, "similarity"),
        _floats(rows, "risk"),
        [row.get("kind") or ("same_object" if fields.kind is None else "similar") for row in rows],
        np.array([bool(row["decided"]) for row in rows], bool),
    )


def group_members(
    samples: foc.SampleCollection, key: str, groups: Sequence[int], *, limit: int = 24
) -> dict[int, list[Member]]:
    """The first members of some groups, the keeper first, then by falling similarity.

    Args:
        samples: the dataset of the run, or a view of it; only what it shows is listed.
        key: as for :func:`group_table`.
        groups: group numbers; of those without members the list is empty.
        limit: most members per group.

    Raises:
        ConfigError: no such run, or more than 200 groups.
    """
    fields = group_fields(find_group_record(samples, key))
    root = "" if fields.place.patches_field is None else f"{fields.place.patches_field}.detections."
    own = {"tags": f"{root}tags"}
    if root:
        own |= {"box": f"{root}bounding_box", "label": f"{root}label"}
    elif fields.name is not None:
        own["label"] = fields.name
    for name in ("role", "similarity", "shot", "quality", "decision"):
        if (path := getattr(fields, name)) is not None:
            own[name] = path
    values = {"id": f"{root}_id", "sample_id": "_id", "filepath": "filepath", **own}
    paths = [*values.values(), fields.number, *(path for path, _ in fields.order)]
    shape = {"$project": {"_id": 0, **{name: f"${path}" for name, path in values.items()}}}
    found = {}
    for group in _checked(groups):
        order: list[dict[str, Any]] = [{"$sort": dict(fields.order)}, {"$limit": limit}]
        rows = _run(samples, [*_members(fields, group, paths), *order, shape])
        found[group] = [_member(row) for row in rows]
    return found


def group_view(samples: foc.SampleCollection, key: str, group: int | Sequence[int]) -> foc.SampleCollection:
    """The view of one or some groups, keepers first: images, or patches for a run on objects.

    Args:
        samples: the dataset of the run, or a view of it.
        key: as for :func:`group_table`.
        group: a group number, or up to 200 of them.

    Raises:
        ConfigError: no such run, or more than 200 groups.
    """
    fields = group_fields(find_group_record(samples, key))
    chosen = _checked([group] if isinstance(group, int | np.integer) else group)
    wanted = chosen[0] if len(chosen) == 1 else {"$in": chosen}
    view, patches = image_samples(samples).match({fields.number: wanted}), fields.place.patches_field
    if patches is None:
        return view.sort_by(fields.order)
    found = view.filter_labels(patches, ViewField(fields.number.rsplit(".", 1)[1]).is_in(chosen))
    return found.to_patches(patches).sort_by(fields.order_of_patches)


def _checked(groups: Sequence[int]) -> list[int]:
    if len(groups) > MAX_GROUPS:
        raise ConfigError(
            f"{len(groups):,} groups are too many at a time; ask for at most {MAX_GROUPS}, or show the whole run with "
            "show_duplicate_groups"
        )
    return [int(group) for group in groups]


def _members(fields: GroupFields, number: Any, paths: Iterable[str | None]) -> list[dict[str, Any]]:
    """Pipeline from samples to one document per member; of each only some paths are read."""
    chosen: list[dict[str, Any]] = [{"$match": {fields.number: number}}]
    if fields.place.patches_field is None:
        return chosen
    known = {path: 1 for path in paths if path is not None}
    unwind = {"$unwind": f"${fields.place.patches_field}.detections"}
    return [*chosen, {"$project": known}, unwind, *chosen]


def _run(samples: foc.SampleCollection, pipeline: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    dataset = samples._dataset
    if samples is not dataset:
        return image_samples(samples)._aggregate(post_pipeline=pipeline)
    return dataset._sample_collection.aggregate(pipeline, allowDiskUse=True)


def _floats(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float32)


def _member(row: Mapping[str, Any]) -> Member:
    box = row.get("box")
    return Member(
        id=str(row["id"]),
        sample_id=str(row["sample_id"]),
        filepath=row["filepath"],
        box=None if box is None else tuple(box),
        role=row.get("role"),
        similarity=row.get("similarity"),
        shot=row.get("shot"),
        quality=row.get("quality"),
        decision=row.get("decision"),
        tags=tuple(row.get("tags") or ()),
        label=row.get("label"),
    )
