"""The derived pair dataset: a group per pair of images, with slices ``source`` and ``target``; built, found, read.

What is known of a pair stands on both slices, so that either can be filtered; ``dataset.info`` says whose samples they
are. Nothing of the original samples is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
from bson import ObjectId
from fiftyone.core.odm import get_db_conn
from pymongo import UpdateMany

from ..brain.errors import ConfigError
from .dataset_io import image_samples

INFO = "selfsame_pairs"

# The field of pairs with the difference of viewpoints, in eighths of a turn.
DIFFERENCE = "azimuth_difference"

SLICES = ("source", "target")
MATCH, NON_MATCH = "match", "non_match"
LABELS = (MATCH, NON_MATCH)

_CHUNK = 500

_FIELDS = {
    "pair_id": "The ids of both original samples",
    "source_id": "Id of the first sample in the dataset it came from",
    "target_id": "Id of the second sample in the dataset it came from",
    "label": "What is known: match, non_match, or nothing",
    "relation": "Why these two are a pair",
}

# Every sample has these, and a pair dataset its own.
NOT_COPIED = ("id", "filepath", "tags", "metadata", "created_at", "last_modified_at", "pair", *_FIELDS)


@dataclass(frozen=True)
class PairSpec:
    """A pair to be made.

    Attributes:
        source_id, target_id: ids of the original samples.
        label: ``"match"``, ``"non_match"`` or None where it is not known.
        relation: why these two are a pair, in words.
        values: further values for both slices; text, numbers or truth values.
    """

    source_id: str
    target_id: str
    label: str | None = None
    relation: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pair_id(self) -> str:
        """What names the pair in its dataset."""
        return f"{self.source_id}-{self.target_id}"


@dataclass(frozen=True)
class PairInfo:
    """Whose samples the pairs of a dataset are.

    Attributes:
        origin: name of the dataset of the sources.
        origin_id: its id, which stays when it is renamed.
        target_origin, target_origin_id: likewise of the targets.
        key: name under which the pairs were made.
        made_by: the method and its settings.
    """

    origin: str
    origin_id: str
    target_origin: str
    target_origin_id: str
    key: str
    made_by: Mapping[str, Any]


@dataclass(frozen=True)
class Member:
    """One image of a pair: its id in the pair dataset, that of the original sample, and its file."""

    id: str
    origin_id: str
    filepath: str


@dataclass(frozen=True)
class PairRow:
    """A pair as it is read; ``values`` are those of its source."""

    pair_id: str
    source: Member
    target: Member
    values: Mapping[str, Any]


def build_pairs(
    origin: foc.SampleCollection,
    pairs: Sequence[PairSpec],
    *,
    name: str,
    key: str,
    made_by: Mapping[str, Any],
    target_origin: foc.SampleCollection | None = None,
    fields: Sequence[str] = (),
    overwrite: bool = False,
) -> fo.Dataset:
    """Makes a persistent pair dataset.

    Args:
        origin: where the sources are, and the targets unless ``target_origin`` says otherwise.
        pairs: the pairs; of one named twice the first counts.
        name: of the new dataset.
        key: by which the pairs are known, for the name of fields and for lists.
        made_by: method and settings, JSON-able.
        target_origin: dataset of the targets.
        fields: fields of the original samples to copy to their slices.
        overwrite: replace a pair dataset of that name.

    Raises:
        ConfigError: there is no pair, a sample or field does not exist, or the name is taken.
    """
    targets = origin if target_origin is None else target_origin
    chosen = list({spec.pair_id: spec for spec in pairs}.values())
    if not chosen:
        raise ConfigError("there is no pair to make a dataset of")
    _check_fields(fields)
    sources_of = _originals(origin, [spec.source_id for spec in chosen], fields)
    targets_of = _originals(targets, [spec.target_id for spec in chosen], fields)
    _make_room(name, overwrite)
    dataset = fo.Dataset(name, persistent=True)
    try:
        _declare(dataset, origin, fields)
        dataset.info[INFO] = {
            "version": 1,
            "key": key,
            "made_by": dict(made_by),
            **_names("origin", origin),
            **_names("target_origin", targets),
        }
        dataset.save()
        _add_samples(dataset, chosen, sources_of, targets_of)
        dataset.create_index("pair_id")
    except BaseException:
        dataset.delete()
        raise
    return dataset


def add_pairs(
    pairs: fo.Dataset,
    specs: Sequence[PairSpec],
    origin: foc.SampleCollection,
    target_origin: foc.SampleCollection | None = None,
) -> None:
    """Adds pairs to a pair dataset; those that it has already stay as they are.

    Args:
        pairs: the pair dataset; fields that it copied from the original samples are left empty.
        specs: the pairs.
        origin, target_origin: as in :func:`build_pairs`.

    Raises:
        ConfigError: a sample does not exist.
    """
    wanted = {"pair_id": {"$in": [spec.pair_id for spec in specs]}}
    there = set(pairs.match(wanted).distinct("pair_id"))
    chosen = list({spec.pair_id: spec for spec in specs if spec.pair_id not in there}.values())
    sources_of = _originals(origin, [spec.source_id for spec in chosen], ())
    targets = origin if target_origin is None else target_origin
    targets_of = _originals(targets, [spec.target_id for spec in chosen], ())
    _add_samples(pairs, chosen, sources_of, targets_of)


def check_pairs(samples: foc.SampleCollection) -> PairInfo:
    """Whose samples the pairs are.

    Args:
        samples: a pair dataset, or a view of it.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(samples, foc.SampleCollection):
        raise ConfigError(f"samples must be a FiftyOne dataset or view, not {type(samples).__name__}")
    info = samples._dataset.info.get(INFO)
    if info is None:
        raise ConfigError(
            f"dataset {samples._dataset.name!r} holds no pairs of images; make some of it with create_pairs(...) and "
            "use the dataset that comes out"
        )
    names = ("origin", "origin_id", "target_origin", "target_origin_id", "key", "made_by")
    return PairInfo(**{name: info[name] for name in names})


def is_pair_dataset(samples: foc.SampleCollection) -> bool:
    """Whether a dataset, or that of a view, holds pairs."""
    return INFO in samples._dataset.info


def original_dataset(info: PairInfo, *, target: bool = False) -> fo.Dataset:
    """The dataset of the sources, or of the targets, whatever it is called now.

    Raises:
        ConfigError: it was deleted.
    """
    name, dataset_id = (info.target_origin, info.target_origin_id) if target else (info.origin, info.origin_id)
    found = _by_id(dataset_id)
    if found is None:
        raise ConfigError(f"dataset {name!r}, of which these pairs were made, is gone")
    return found


def derived_pairs(dataset: foc.SampleCollection) -> list[str]:
    """Names of the pair datasets that were made of a dataset, be it of sources or targets; the newest last."""
    own = str(dataset._root_dataset._doc.id)
    made_of_it = {"$or": [{f"info.{INFO}.{side}": own} for side in ("origin_id", "target_origin_id")]}
    return [found["name"] for found in get_db_conn().datasets.find(made_of_it, {"name": 1}).sort("created_at")]


def flat_pairs(samples: foc.SampleCollection) -> foc.SampleCollection:
    """Both slices of the pairs of a view, as one flat collection; of a view of one slice, its partners too."""
    dataset = samples._dataset
    everything = dataset.select_group_slices(list(SLICES))
    if samples is dataset:
        return everything
    chosen = image_samples(samples).distinct("pair_id")
    return everything.match({"pair_id": {"$in": chosen}})


def read_pairs(samples: foc.SampleCollection, fields: Sequence[str] = ()) -> list[PairRow]:
    """All pairs of a view, in the order of their sources in the dataset.

    Args:
        samples: a pair dataset or a view of it; a view that shows one side of a pair has the pair.
        fields: whose values are read, of the sources; None stands where there is no such field.

    Raises:
        ConfigError: it holds no pairs.
    """
    check_pairs(samples)
    known = [name for name in fields if samples._dataset.get_field(name) is not None]
    paths = ["pair_id", "pair.name", "id", "source_id", "target_id", "filepath", *known]
    sides: dict[str, dict[str, Any]] = {}
    order: list[str] = []
    for row in zip(*flat_pairs(samples).values(paths), strict=True):
        sides.setdefault(row[0], {})[row[1]] = row
        if row[1] == SLICES[0]:
            order.append(row[0])
    found = []
    for pair_id in order:
        source, target = (sides[pair_id].get(name) for name in SLICES)
        if source is None or target is None:
            continue
        values = {**dict.fromkeys(fields), **dict(zip(known, source[6:], strict=True))}
        found.append(
            PairRow(pair_id, Member(source[2], source[3], source[5]), Member(target[2], target[4], target[5]), values)
        )
    return found


def set_pair_values(pairs: foc.SampleCollection, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes values to both slices of pairs.

    Args:
        pairs: the pair dataset or a view of it; the fields are declared.
        values: value by field, by ``pair_id``; pairs that are not named stay as they are.
    """
    now = datetime.now(timezone.utc).replace(tzinfo=None)
    operations = [
        UpdateMany({"pair_id": pair_id}, {"$set": {**own, "last_modified_at": now}}) for pair_id, own in values.items()
    ]
    if operations:
        pairs._dataset._bulk_write(operations)


def _check_fields(fields: Sequence[str]) -> None:
    if isinstance(fields, str) or (kept := [name for name in fields if name in NOT_COPIED]):
        what = repr(fields) if isinstance(fields, str) else ", ".join(map(repr, kept))
        raise ConfigError(f"fields: {what} cannot be copied; give a list of names of fields of your own")


def _originals(origin: foc.SampleCollection, ids: Sequence[str], fields: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """File and copied values of original samples by id."""
    flat = image_samples(origin)
    for name in fields:
        if flat.get_field(name) is None:
            raise ConfigError(f"fields: dataset {origin._dataset.name!r} has no field {name!r}")
    view = fov.make_optimized_select_view(flat, list(dict.fromkeys(ids)))
    found = {row[0]: row[1:] for row in zip(*view.values(["id", "filepath", *fields]), strict=True)}
    missing = [sample_id for sample_id in ids if sample_id not in found]
    if missing:
        raise ConfigError(
            f"pairs: {missing[0]!r} is no image of dataset {origin._dataset.name!r} or of the given view of it"
            f" ({len(set(missing))} such ids)"
        )
    return {sample_id: (found[sample_id][0], dict(zip(fields, found[sample_id][1:], strict=True))) for sample_id in ids}


def _make_room(name: str, overwrite: bool) -> None:
    if not fo.dataset_exists(name):
        return
    existing = fo.load_dataset(name)
    if not overwrite or INFO not in existing.info:
        hint = "pass overwrite=True to replace it, or another name" if INFO in existing.info else "use another name"
        raise ConfigError(f"there is a dataset {name!r} already; {hint}")
    existing.delete()


def _declare(dataset: fo.Dataset, origin: foc.SampleCollection, fields: Sequence[str]) -> None:
    dataset.add_group_field("pair", default=SLICES[0])
    for name, description in _FIELDS.items():
        dataset.add_sample_field(name, fo.StringField, description=description)
    schema = origin._dataset.get_field_schema()
    dataset._sample_doc_cls.merge_field_schema({name: schema[name].copy() for name in fields})


def _add_samples(
    dataset: fo.Dataset,
    specs: Sequence[PairSpec],
    sources_of: Mapping[str, tuple[Any, ...]],
    targets_of: Mapping[str, tuple[Any, ...]],
) -> None:
    for start in range(0, len(specs), _CHUNK):
        dataset.add_samples(_samples(specs[start : start + _CHUNK], sources_of, targets_of), progress=False)


def _samples(
    specs: Sequence[PairSpec], sources: Mapping[str, tuple[Any, ...]], targets: Mapping[str, tuple[Any, ...]]
) -> list[fo.Sample]:
    samples = []
    for spec in specs:
        group = fo.Group()
        shared = {name: getattr(spec, name) for name in _FIELDS} | dict(spec.values)
        for slice_name, (path, copied) in zip(SLICES, (sources[spec.source_id], targets[spec.target_id]), strict=True):
            samples.append(fo.Sample(filepath=path, pair=group.element(slice_name), **shared, **copied))
    return samples


def _names(prefix: str, samples: foc.SampleCollection) -> dict[str, str]:
    dataset = samples._root_dataset
    return {prefix: dataset.name, f"{prefix}_id": str(dataset._doc.id)}


def _by_id(dataset_id: str) -> fo.Dataset | None:
    document = get_db_conn().datasets.find_one({"_id": ObjectId(dataset_id)}, {"name": 1})
    return None if document is None else fo.load_dataset(document["name"])
