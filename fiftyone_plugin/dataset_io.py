"""Reading samples of a view in bounded chunks and writing their fields in batches."""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.media as fom
import fiftyone.core.view as fov
from fiftyone import ViewField

from ..brain.errors import ConfigError
from .provenance import file_stamp

# Names a field of the dataset where an option could also name a method: "field:ground_truth".
FIELD_PREFIX = "field:"

SIDEBAR_GROUP = "selfsame"
INTERNALS_GROUP = "selfsame internals"

_DEFAULT_FIELDS = ("id", "sample_id", "filepath", "tags", "metadata", "frames", "created_at", "last_modified_at")

# What ``field.info["method"]`` says of vectors, masks and regions that we computed.
_WRITERS = ("compute_ffa", "compute_foreground", "compute_claid_regions", "search_by_object")

# Dataset documents are shared by all threads of a process, and FiftyOne loses fields that two threads add at once.
DOCUMENT_LOCK = threading.RLock()

# The groups into which FiftyOne itself sorts new fields: what it put there may be moved, what a user arranged may not.
_AUTOMATIC_GROUPS = ("labels", "primitives", "other")


# Stages that say which fields a view has; the App's choice of visible fields makes one.
_FIELD_STAGES = (fo.SelectFields, fo.ExcludeFields)


@dataclass(frozen=True)
class FieldSpec:
    """How a field is declared.

    Attributes:
        ftype: FiftyOne field class (``fo.FloatField`` ...).
        description: shown as the field's tooltip in the App.
        options: further arguments of ``dataset.add_sample_field`` (``embedded_doc_type``, ``subfield`` ...).
        internal: whether it serves later runs rather than the reader: shown apart, in a group that starts collapsed.
    """

    ftype: type
    description: str
    options: Mapping[str, Any] = field(default_factory=dict)
    internal: bool = False


@dataclass(frozen=True)
class SampleItem:
    """What an engine knows of one sample; its vectors are never loaded.

    Attributes:
        id: sample id.
        filepath: the image file; empty where the sample names none.
        media_type: what FiftyOne takes the file for.
        values: the extra values that the method asked for (mask, boxes ...), by path.
        file_stamp: size and modification time of the file; empty where it cannot be read.
        provenance: provenance hash of the stored result, or None.
        present: whether every result field of the sample holds a value.
    """

    id: str
    filepath: str
    media_type: str = "image"
    values: Mapping[str, Any] = field(default_factory=dict)
    file_stamp: str = ""
    provenance: str | None = None
    present: bool = False


@dataclass(frozen=True)
class Row:
    """The new field values of one sample.

    Attributes:
        id: sample id.
        values: value by path; an attribute of detections has a dict, label id → value.
        provenance: hash to store; None for a failure.
        replaces: whether the sample has a provenance hash now.
    """

    id: str
    values: Mapping[str, Any]
    provenance: str | None
    replaces: bool


def image_samples(samples: foc.SampleCollection) -> foc.SampleCollection:
    """The collection itself with all its fields, or the image slices of a grouped one; dynamic groups are dissolved.

    Raises:
        ConfigError: not a FiftyOne collection, a view of generated samples (patches, frames, clips), a choice among
            dynamic groups, or a grouped collection without image slices.
    """
    if not isinstance(samples, foc.SampleCollection):
        raise ConfigError(f"samples must be a FiftyOne dataset or view, not {type(samples).__name__}")
    if isinstance(samples, fov.DatasetView) and samples._is_generated:
        raise ConfigError(
            f"{type(samples).__name__}: patches, frames and clips views are not supported; run on the original samples "
            "(for detections pass objects_field=...; for a video extract frames with to_frames(sample_frames=True) "
            "and clone() the result)"
        )
    samples = _plain_view(samples)
    if samples.media_type != fom.GROUP:
        return samples
    if fom.IMAGE not in samples.group_media_types.values():
        raise ConfigError(
            f"grouped dataset with slices {', '.join(samples.group_slices)} has none with images; "
            "choose slices yourself with select_group_slices(...)"
        )
    return samples.select_group_slices(media_type=fom.IMAGE)


def _plain_view(samples: foc.SampleCollection) -> foc.SampleCollection:
    """The same samples and labels without dynamic groups, whose parts FiftyOne cannot select, and with all fields.

    A choice of fields would also hide the fields that we keep.
    """
    stages = samples.view()._stages
    if not any(isinstance(stage, (*_FIELD_STAGES, fo.GroupBy)) for stage in stages):
        return samples
    view, in_groups = samples._dataset.view(), False
    for stage in stages:
        if isinstance(stage, fo.GroupBy) and not stage.flat and stage.match_expr is None:
            in_groups = True
        elif isinstance(stage, fo.Flatten) and not stage.stages:
            in_groups = False
        elif in_groups and not isinstance(stage, (*_FIELD_STAGES, fo.SortBy)):
            raise ConfigError(
                f"the view chooses among dynamic groups ({stage}), which is not supported; choose samples before "
                "group_by(...), or pass dataset.select(view.flatten().values('id'))"
            )
        elif not in_groups and not isinstance(stage, _FIELD_STAGES):
            view = view.add_stage(stage)
    return view


def check_field_name(samples: foc.SampleCollection, name: str, option: str = "field") -> None:
    """Refuses names of fields that cannot be written.

    Raises:
        ConfigError: not a plain identifier, one that FiftyOne keeps for itself, or a field that is read-only.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z]\w*", name) or _is_reserved(name):
        raise ConfigError(f"{option}={name!r} cannot be a field name; use letters, digits and underscores, e.g. 'ffa'")
    existing = samples.get_field(name)
    if existing is not None and existing.read_only:
        raise ConfigError(f"{option}={name!r} is a read-only field; choose another name")


def check_own_field(samples: foc.SampleCollection, path: str, option: str = "field") -> None:
    """Refuses to replace values that a user, or another program, has put into a field.

    Raises:
        ConfigError: the field has values and was not made by one of our computations.
    """
    dataset = samples._dataset
    existing = dataset.get_field(path)
    if existing is None or (existing.info or {}).get("method") in _WRITERS:
        return
    # Samples that are added to another dataset bring the fields along, but not what these say of themselves.
    if dataset.has_field(f"{path.replace('.detections.', '_')}_provenance"):
        return
    if dataset.count(path):
        raise ConfigError(
            f"{option}: field {path!r} of dataset {dataset.name!r} holds values that Selfsame did not compute and "
            "would replace; choose another name, or delete that field if you do not need it"
        )


def declare_fields(
    samples: foc.SampleCollection, fields: Mapping[str, FieldSpec], info: Mapping[str, Any] | None = None
) -> None:
    """Adds fields that are missing and refreshes description and ``info`` of those that exist.

    Args:
        fields: specification by path; ``"ground_truth.detections.ffa"`` declares an attribute of each detection.
        info: stored as ``field.info`` of every field: where its values come from.

    Raises:
        ConfigError: a field of that name exists and has another type.
    """
    with DOCUMENT_LOCK:
        _declare(samples._dataset, fields, info)


def _declare(dataset: fo.Dataset, fields: Mapping[str, FieldSpec], info: Mapping[str, Any] | None) -> None:
    for path, spec in fields.items():
        existing = dataset.get_field(path)
        if existing is not None and not _same_type(existing, spec):
            raise ConfigError(
                f"field {path!r} of dataset {dataset.name!r} exists as {type(existing).__name__}, but "
                f"{spec.ftype.__name__} is to be written; choose another field name or delete that field"
            )
    for path, spec in fields.items():
        existing = dataset.get_field(path)
        if existing is None:
            dataset.add_sample_field(path, spec.ftype, description=spec.description, info=info, **spec.options)
        elif existing.info != info or existing.description != spec.description:
            existing.info, existing.description = info, spec.description
            existing.save()


def show_in_sidebar(samples: foc.SampleCollection, paths: Sequence[str], internal: Sequence[str] = ()) -> None:
    """Puts sample fields into the App's sidebar: what a user reads into one group, internals into a collapsed one.

    Groups that the user made keep their fields, and an internal field that once became readable stays so. (The App
    would list fields without a group under "other".)
    """
    dataset = samples._dataset
    with DOCUMENT_LOCK:
        groups = dataset.app_config.sidebar_groups or fo.DatasetAppConfig.default_sidebar_groups(dataset)
        _place(groups, paths, fo.SidebarGroupDocument(name=SIDEBAR_GROUP, paths=[]), 1, INTERNALS_GROUP)
        _place(groups, internal, fo.SidebarGroupDocument(name=INTERNALS_GROUP, paths=[], expanded=False), len(groups))
        dataset.app_config.sidebar_groups = groups
        dataset.save()


def readable_and_internal(fields: Mapping[str, FieldSpec]) -> tuple[list[str], list[str]]:
    """The sample fields among those of a computation, as :func:`show_in_sidebar` takes them."""
    paths = [path for path in fields if "." not in path]
    internal = [path for path in paths if fields[path].internal]
    return [path for path in paths if path not in internal], internal


class SampleReader:
    """Iterates over a collection without loading samples: ids once, all else in chunks.

    Args:
        samples: a dataset or flat view; its order and contents are fixed when the reader is made.
        inputs: paths of label values that the method reads.
        required: result paths that must hold a value for a stored result to count.
        provenance_field: where the provenance hash is stored.
    """

    def __init__(
        self, samples: foc.SampleCollection, inputs: Sequence[str], required: Sequence[str], provenance_field: str
    ) -> None:
        self.ids: list[str] = samples.values("id")
        self._samples = samples
        self._inputs = list(inputs)
        self._paths = ["id", "filepath", provenance_field, *(_lacks(path) for path in required), *self._inputs]
        self._n_required = len(required)
        # Label values may be masks of megabytes each; a plain row is a few hundred bytes.
        self._chunk_size = 32 if self._inputs else 1000

    def chunks(self) -> Iterator[list[SampleItem]]:
        """Items in the order of the collection; samples deleted in the meantime are missing."""
        for start in range(0, len(self.ids), self._chunk_size):
            ids = self.ids[start : start + self._chunk_size]
            view = fov.make_optimized_select_view(self._samples, ids)
            items = {row[0]: self._item(row) for row in zip(*view.values(self._paths), strict=True)}
            yield [items[sample_id] for sample_id in ids if sample_id in items]

    def _item(self, row: tuple[Any, ...]) -> SampleItem:
        sample_id, filepath, provenance, *rest = row
        return SampleItem(
            id=sample_id,
            filepath=filepath or "",
            media_type=fom.get_media_type(filepath or ""),
            values=dict(zip(self._inputs, rest[self._n_required :], strict=True)),
            file_stamp=file_stamp(filepath or ""),
            provenance=provenance,
            present=not any(rest[: self._n_required]),
        )


def write_rows(samples: foc.SampleCollection, rows: Sequence[Row], provenance_field: str) -> None:
    """Writes the fields of some samples, field by field, so that a kill at any moment leaves no false result behind.

    A provenance hash vouches for all fields of its sample: an old one is withdrawn before the first field changes,
    and the new one is written when all fields are in place.
    """
    dataset = samples._dataset
    stale = {row.id: None for row in rows if row.replaces}
    if stale:
        dataset.set_values(provenance_field, stale, key_field="id")
    columns: dict[str, dict[str, Any]] = {}
    for row in rows:
        for path, value in row.values.items():
            columns.setdefault(path, {})[row.id] = value
    for path, column in columns.items():
        if "." in path:
            labels = [
                {"sample_id": sample_id, "label_id": label_id, "value": value}
                for sample_id, by_label in column.items()
                for label_id, value in by_label.items()
            ]
            dataset.set_label_values(path, labels)
        else:
            dataset.set_values(path, column, key_field="id")
    fresh = {row.id: row.provenance for row in rows if row.provenance is not None}
    if fresh:
        dataset.set_values(provenance_field, fresh, key_field="id")


def _lacks(path: str) -> Any:
    """Expression that is falsy where a result is in place: a null check, or the number of labels without it."""
    if "." not in path:
        return ~ViewField(path).exists()
    labels, attribute = path.rsplit(".", 1)
    return ViewField(labels).filter(~ViewField(attribute).exists()).length()


def _place(
    groups: list[fo.SidebarGroupDocument],
    paths: Sequence[str],
    new: fo.SidebarGroupDocument,
    position: int,
    *sources: str,
) -> None:
    """Moves paths from groups that nobody arranged into the group named as ``new``, which is inserted if need be."""
    if not paths:
        return
    for group in groups:
        if group.name in (*_AUTOMATIC_GROUPS, *sources):
            group.paths = [path for path in group.paths if path not in paths]
    ours = next((group for group in groups if group.name == new.name), new)
    if ours is new:
        groups.insert(position, new)
    placed = {path for group in groups for path in group.paths}
    ours.paths = [*ours.paths, *(path for path in paths if path not in placed)]


def _is_reserved(name: str) -> bool:
    """Whether FiftyOne means something else by this name: a default field, or an attribute of all samples."""
    return name in _DEFAULT_FIELDS or hasattr(fo.Sample, name)


def _same_type(existing: fo.Field, spec: FieldSpec) -> bool:
    document = spec.options.get("embedded_doc_type")
    return type(existing) is spec.ftype and getattr(existing, "document_type", None) is document
