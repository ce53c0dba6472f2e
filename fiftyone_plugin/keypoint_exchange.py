"""Left and right exchanged in the annotation of one image: on all pairs that show it and on the original, with undo.

The log of the pair dataset keeps the labels as they were, so that an undo restores them bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from bson import ObjectId

from ..brain.correspondence.keypoint_groups import KeypointGroups
from ..brain.errors import ConfigError
from .correspondence_fields import METHOD
from .correspondence_labels import PairLabels
from .decision_log import Change, Decision, DecisionLog, Links, now
from .item_fields import Place, write_items
from .keypoint_inputs import KeypointsInput
from .pairs import SLICES, PairInfo, PairRow, check_pairs, original_dataset, read_pairs
from .raw_keypoints import RawLabel, exchanged, packed, places_stamp, reader_values, seen_names
from .runs import last_run

# Exchanges are kept in the log of the pair dataset under this key, which no run can have.
_KEY, _ACTION = "pairs:exchange", "exchange"


@dataclass(frozen=True)
class Exchange:
    """An exchange that was made.

    Attributes:
        pair_id, side: the image, as it was named.
        sample_id: of the original sample.
        field: with its keypoints.
        couples: names of the mirror partners that were exchanged.
        pairs: number of the pairs that show the image.
    """

    pair_id: str
    side: str
    sample_id: str
    field: str
    couples: tuple[tuple[str, str], ...]
    pairs: int


def exchange_labels(
    pairs: fo.Dataset,
    pair_id: str,
    side: str,
    partners: Sequence[str] | None = None,
    *,
    keypoints: str | None = None,
    couples: Sequence[Sequence[str]] | str | None = None,
) -> Exchange:
    """Exchanges left and right in the annotation of one image of a pair.

    It changes the keypoints of the original sample, and those of all pairs that show it. A point that only one of two
    partners has goes to the other. Afterwards ``compute_correspondences`` matches those pairs again, and no others.

    Args:
        pairs: a pair dataset, or a view of it.
        pair_id: the pair.
        side: ``"source"`` or ``"target"``, which of its images.
        partners: the names of two mirror partners; None exchanges all mirror partners of the image.
        keypoints: field with the keypoints; None takes that of the latest run of ``compute_correspondences``.
        couples: mirror partners, as of ``compute_correspondences``; None reads them from the names.

    Raises:
        ConfigError: no such pair or field, two keypoints that are no partners, nothing to exchange, or a label of the
            image that is not the same on all pairs and on the original.
    """
    info = check_pairs(pairs)
    if side not in SLICES:
        raise ConfigError(f"side={side!r} is unknown; use {' or '.join(SLICES)}")
    dataset = pairs._root_dataset
    field, couples = _keypoints_of(dataset, keypoints, couples)
    reader = PairLabels(dataset, info, field, couples, None).keypoints
    assert reader is not None
    row = _row(dataset, pair_id)
    log = DecisionLog(dataset)
    with log.locked():
        labels = _labels(dataset, info, getattr(row, side).origin_id, side, field)
        groups = _groups(reader, labels[0], _other(dataset, row, side, field))
        chosen = _chosen(groups, labels[0], partners, field)
        changes = [
            Change(one.id, one.id, {field: one.value}, {field: exchanged(one.value, chosen, groups.names)})
            for one in labels
        ]
        made = Exchange(
            pair_id,
            side,
            getattr(row, side).origin_id,
            field,
            chosen,
            len({one.pair_id for one in labels if one.pair_id is not None}),
        )
        log.append(_decision(log, made), changes, Links())
        _write(_datasets(dataset, info, side), changes)
    return made


def undo_exchange(pairs: fo.Dataset) -> Exchange:
    """Takes the latest exchange back; again for the one before it.

    Raises:
        ConfigError: there is no exchange to undo, or somebody has changed a label since.
    """
    info = check_pairs(pairs)
    dataset = pairs._root_dataset
    log = DecisionLog(dataset)
    with log.locked():
        last = log.last(_KEY)
        if last is None:
            raise ConfigError(f"there is no exchange of labels in dataset {dataset.name!r} to undo")
        made = _exchange(last)
        datasets = _datasets(dataset, info, made.side)
        changes = [change for part in log.changes(last) for change in part]
        _check_unchanged(datasets, changes, made.field)
        _write(datasets, [change.reversed() for change in changes])
        log.remove(last)
    return made


def exchanges(pairs: fo.Dataset) -> list[Exchange]:
    """All exchanges that can be undone, the oldest first."""
    check_pairs(pairs)
    return [_exchange(one) for one in DecisionLog(pairs._root_dataset).decisions(_KEY)]


@dataclass(frozen=True)
class _Label:
    """The keypoints of one sample as the database has them; ``pair_id`` is None of an original."""

    id: str
    pair_id: str | None
    filepath: str
    value: RawLabel


def _keypoints_of(
    dataset: fo.Dataset, keypoints: str | None, couples: Sequence[Sequence[str]] | str | None
) -> tuple[str, Sequence[Sequence[str]] | str | None]:
    """The field with the keypoints and their couples, those of the latest run where nothing is said."""
    if keypoints is not None:
        return keypoints, couples
    record = last_run(dataset, method=METHOD)
    found = None if record is None else record["config"].get("keypoints")
    if record is None or found is None:
        raise ConfigError(f"no run of {METHOD} says where the keypoints are; name their field with keypoints=...")
    return found, record["config"].get("couples") if couples is None else couples


def _row(dataset: fo.Dataset, pair_id: str) -> PairRow:
    rows = read_pairs(dataset.match({"pair_id": pair_id}))
    if not rows:
        raise ConfigError(f"dataset {dataset.name!r} has no pair {pair_id!r}; it may have been deleted")
    return rows[0]


def _datasets(dataset: fo.Dataset, info: PairInfo, side: str) -> list[fo.Dataset]:
    """Where the labels of an image are: in the pairs and, unless that is gone, in the dataset that it came from."""
    try:
        return [dataset, original_dataset(info, target=side == SLICES[1])]
    except ConfigError:
        return [dataset]


def _labels(dataset: fo.Dataset, info: PairInfo, origin_id: str, side: str, field: str) -> list[_Label]:
    """The label of an image wherever it stands, the original last.

    Raises:
        ConfigError: they differ.
    """
    both = info.origin_id == info.target_origin_id
    shown = {"$or": [{"pair.name": one, f"{one}_id": origin_id} for one in (SLICES if both else (side,))]}
    pairs, *origin = _datasets(dataset, info, side)
    found = [_label(document, field) for document in _documents(pairs, shown, field)]
    for one in origin:
        if one.get_field(field) is not None:
            found += [_label(document, field) for document in _documents(one, {"_id": ObjectId(origin_id)}, field)]
    for one in found[1:]:
        if places_stamp(one.value) != places_stamp(found[0].value):
            where = "the original sample" if one.pair_id is None else f"pair {one.pair_id!r}"
            raise ConfigError(
                f"{one.filepath}: {field!r} of {where} differs from that of pair {found[0].pair_id!r}, so somebody has"
                " changed one of them; make them equal, or make the pairs anew"
            )
    return found


def _other(dataset: fo.Dataset, row: PairRow, side: str, field: str) -> _Label:
    """The label of the other image of a pair."""
    other = row.target if side == SLICES[0] else row.source
    (document,) = _documents(dataset, {"_id": ObjectId(other.id)}, field)
    return _label(document, field)


def _documents(dataset: fo.Dataset, query: Mapping[str, Any], field: str) -> Iterator[dict[str, Any]]:
    names = {field: 1, "pair_id": 1, "filepath": 1}
    yield from dataset._sample_collection.find(query, names).sort("_id", 1)


def _label(document: Mapping[str, Any], field: str) -> _Label:
    return _Label(str(document["_id"]), document.get("pair_id"), document.get("filepath") or "", document.get(field))


def _groups(reader: KeypointsInput, own: _Label, other: _Label) -> KeypointGroups:
    """The keypoints of an image, those among them that only its partner shows included.

    Raises:
        ConfigError: the image has none, or they cannot be told apart.
    """
    found = reader.read(reader_values(own.value, reader))
    if found is None:
        raise ConfigError(f"{own.filepath}: {reader.field!r} has no keypoints to exchange")
    return reader.pair(found, reader.read(reader_values(other.value, reader))).groups


def _chosen(
    groups: KeypointGroups, own: _Label, partners: Sequence[str] | None, field: str
) -> tuple[tuple[str, str], ...]:
    """The couples to exchange: the one that is asked for, or all, of which the image has at least one keypoint.

    Raises:
        ConfigError: two keypoints are no couple, or the image has none of them.
    """
    asked = groups.couples
    if partners is not None:
        asked = tuple(couple for couple in groups.couples if sorted(couple) == sorted(partners))
        if not asked:
            there = "; ".join(f"{one} = {other}" for one, other in groups.couples) or "none"
            raise ConfigError(f"partners={partners!r} are no two mirror partners; there are {there}")
    seen = seen_names(own.value, groups.names)
    chosen = tuple(couple for couple in asked if seen & set(couple))
    if not chosen:
        raise ConfigError(f"{own.filepath}: {field!r} has no keypoint of mirror partners to exchange")
    return chosen


def _check_unchanged(datasets: Sequence[fo.Dataset], changes: Sequence[Change], field: str) -> None:
    """Refuses to overwrite what is neither as the exchange left it nor, after one that was broken off, as before.

    Raises:
        ConfigError: see above.
    """
    ids = [ObjectId(change.id) for change in changes]
    documents = [one for dataset in datasets for one in _documents(dataset, {"_id": {"$in": ids}}, field)]
    found = {one.id: one for one in (_label(document, field) for document in documents)}
    for change in changes:
        one = found.get(change.id)
        # What was deleted since needs no undo.
        if one is not None and packed(one.value) not in (packed(change.after[field]), packed(change.before[field])):
            where = "the original sample" if one.pair_id is None else f"pair {one.pair_id!r}"
            raise ConfigError(
                f"{one.filepath}: somebody has changed {field!r} of {where} since left and right were exchanged; undo"
                " that change first, or exchange them by hand"
            )


def _write(datasets: Sequence[fo.Dataset], changes: Sequence[Change]) -> None:
    """Writes the labels; each sample is in one of the datasets, and ids are never used twice."""
    for dataset in datasets:
        write_items(dataset, Place(), [(change.id, change.sample_id, change.after) for change in changes])


def _decision(log: DecisionLog, made: Exchange) -> Decision:
    told = (made.pair_id, made.side, made.sample_id, *(name for couple in made.couples for name in couple))
    counts = {"changed": made.pairs}
    return Decision(log.next_sequence(), _KEY, _ACTION, (), (), told, made.field, now(), "", counts, {})


def _exchange(decision: Decision) -> Exchange:
    pair_id, side, sample_id, *names = decision.members
    couples = tuple(zip(names[::2], names[1::2], strict=True))
    return Exchange(pair_id, side, sample_id, str(decision.name), couples, decision.counts["changed"])
