"""Looking at duplicate groups: the view that shows them, and live counts for forms; never a list of ids."""

from typing import Any

import fiftyone.core.collections as foc
from fiftyone import ViewField

from ..brain.errors import ConfigError
from ..brain.grouping import UNGROUPED, group_pairs
from ..brain.same_shot import EXACT, NEAR
from .dataset_io import image_samples
from .duplicate_search import reviewed
from .duplicate_settings import GroupingSettings
from .duplicate_store import GROUP_KINDS, SIMILAR, DuplicateFields, find_record, load_pairs
from .duplicates import regroup_duplicates
from .group_table import GroupFields, group_fields


def show_duplicate_groups(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    threshold: float | None = None,
    min_size: int = 2,
    kind: str | None = None,
    as_groups: bool = False,
) -> foc.SampleCollection:
    """The view of all duplicate groups: largest group first, its keeper first, then by falling similarity.

    Of a run on objects it is a view of patches. The view filters and sorts by indexed fields, so it costs the same for
    ten groups and for a million, may be saved, and follows the data when it is opened again.

    Args:
        samples: a dataset or view; only its samples are shown, of a grouped dataset all image slices.
        key: key of a run of ``find_duplicates`` or ``find_exact_duplicates``.
        threshold: form the groups anew at this cosine first, as ``regroup_duplicates`` does, which changes the
            fields of the whole run; None shows them as they are.
        min_size: only groups with at least this many images (in the whole run).
        kind: only ``"exact"``, ``"near"`` or ``"same_object"`` groups, or ``"similar"``: all that are not exact. None
            shows all.
        as_groups: return FiftyOne's dynamic groups, one tile per group.

    Raises:
        ConfigError: no such run, or an option that cannot work.
    """
    record = find_record(samples, key)
    if not isinstance(min_size, int) or min_size < 2:
        raise ConfigError(f"min_size={min_size!r} must be a whole number of at least 2")
    if kind is not None and kind not in GROUP_KINDS:
        raise ConfigError(f"kind={kind!r} is unknown; use one of {', '.join(GROUP_KINDS)}, or None for all")
    if threshold is not None and threshold != record["details"].get("threshold"):
        regroup_duplicates(samples, key, threshold=threshold, progress=False)
    fields = group_fields(record)
    view, patches = image_samples(samples).match(_members(fields, min_size, kind)), fields.place.patches_field
    order = fields.order if patches is None else fields.order_of_patches
    if patches is not None:
        # The database filters labels by expressions only, without an index; the match before it has one.
        names = DuplicateFields(key)
        shown = (ViewField(names.group) >= 0) & (ViewField(names.size) >= min_size)
        if kind is not None:
            shown &= ViewField(names.kind) != EXACT if kind == SIMILAR else ViewField(names.kind) == kind
        view = view.filter_labels(patches, shown).to_patches(patches)
    if as_groups:
        return view.group_by(order[0][0], order_by=order[1][0], reverse=True)
    return view.sort_by(order)


def _members(fields: GroupFields, min_size: int, kind: str | None) -> dict[str, Any]:
    query: dict[str, Any] = {fields.number: {"$gte": 0}}
    if min_size > 2:
        query[fields.size] = {"$gte": min_size}
    if kind is not None and fields.kind is not None:
        query[fields.kind] = {"$in": [other for other in GROUP_KINDS if other != EXACT]} if kind == SIMILAR else kind
    return query


def preview_counts(samples: foc.SampleCollection, key: str = "dup", threshold: float | None = None) -> dict[str, Any]:
    """What another threshold would give, from the stored pairs alone; nothing is changed.

    Args:
        samples: the dataset of the run, or a view of it.
        key: key of a duplicate run; one of ``find_exact_duplicates`` has no threshold.
        threshold: a cosine; None gives the counts as they are.

    Returns:
        ``groups``, ``duplicates``, ``largest``; ``threshold`` (None for exact duplicates); ``lowest``: the least
        threshold that can be asked for; ``approximate``: whether the diameter limit could not be applied fully because
        that takes the vectors, so that groups may really be smaller.

    Raises:
        ConfigError: no such run, or a threshold outside ``lowest`` ... 1.
    """
    record = find_record(samples, key)
    details = record["details"]
    present = {
        **{name: record["counts"][name] for name in ("groups", "duplicates", "largest")},
        "threshold": details.get("threshold"),
        "lowest": details.get("pairs_kept_down_to"),
        "approximate": False,
    }
    if threshold is None:
        return present
    stored = load_pairs(samples, record)
    settings = GroupingSettings.from_config({**record["config"], "threshold": threshold})
    needs_vectors = settings.needs_vectors(stored.pairs, threshold)
    limit = None if needs_vectors else settings.diameter(threshold)
    links = stored.same_shot() if settings.kind == NEAR else None
    labels = group_pairs(
        len(stored.ids),
        stored.pairs,
        threshold,
        max_diameter=limit,
        links=links,
        constraints=reviewed(samples, key, stored.row_of),
    )
    # Pairs below the run's threshold have not been looked at.
    approximate = needs_vectors or (links is not None and threshold < details["threshold"])
    grouped = labels[labels != UNGROUPED]
    groups = int(grouped.max(initial=-1)) + 1
    largest = int((grouped == 0).sum())
    counts = {"groups": groups, "duplicates": len(grouped) - groups, "largest": largest}
    return {**present, **counts, "threshold": float(threshold), "approximate": approximate}
