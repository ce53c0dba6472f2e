"""Which images are to be compared, as a dataset of pairs."""

import os
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .engine.local import Progress
from .pair_sources import (
    PairSource,
    pair_of_view,
    pairs_by_category,
    pairs_by_similarity,
    pairs_of_file,
    pairs_of_groups,
    pairs_of_rows,
)
from .pairs import build_pairs, is_pair_dataset
from .runs import RunSummary
from .steps import plain_function

METHOD = "create_pairs"

# Unless the user says otherwise: all pairs of n images are n² / 2, and nobody means that by accident.
MAX_PAIRS = 1000


def create_pairs_steps(
    samples: foc.SampleCollection,
    key: str | None = None,
    name: str | None = None,
    *,
    groups: Sequence[int] | None = None,
    similar: str | None = None,
    partners: int = 1,
    apart: str | None = None,
    within: str | None = None,
    azimuth: str | None = None,
    azimuth_difference: Sequence[int] = (0, 4),
    pairs: Sequence[Sequence[str]] | None = None,
    path: str | os.PathLike | None = None,
    fields: Sequence[str] = (),
    max_pairs: int | None = MAX_PAIRS,
    overwrite: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Makes a dataset of image pairs, to be compared by :func:`match_objects` and reviewed in the Matching panel.

    It is a grouped dataset with the slices ``source`` and ``target``, persistent, and knows whose samples they are.
    One of ``key``, ``similar``, ``within``, ``pairs`` and ``path`` says which pairs (``within`` also goes with
    ``similar``); without any, the view must be two images.

    Args:
        samples: a dataset or view of images.
        key: key of a run of ``find_duplicates``, ``find_exact_duplicates`` or ``cluster_objects``: each keeper with
            the others of its group, or all pairs of a cluster.
        name: of the new dataset; None is ``<dataset>-<key>``, or ``<dataset>-pairs`` without a key.
        groups: only these groups of the run.
        similar: field of vectors: each image with the most similar others.
        partners: how many partners each image chooses by similarity.
        apart: key of a duplicate search: of each group only the keeper is paired by similarity, so that nobody's
            partner is a copy of it.
        within: a field whose value both images share, such as a category. Of more pairs than ``max_pairs``, each value
            gets a fair share, by lot.
        azimuth: field with the viewpoints of the images of a category: whole numbers from 0 to 7 are eighths of a turn,
            others degrees; the pairs get a field ``azimuth_difference``.
        azimuth_difference: least and largest difference of viewpoints, in eighths of a turn from 0 to 4.
        pairs: ids of two samples each, and, if known, ``"match"`` or ``"non_match"``.
        path: a CSV file with the columns ``source_id`` and ``target_id``, and perhaps ``label`` and ``relation``.
        fields: fields of the samples to copy.
        max_pairs: most pairs; the summary says how many were left out. None makes them all.
        overwrite: replace a pair dataset of that name.

    Returns:
        What was done; ``details`` has the name of the ``dataset``.

    Raises:
        ConfigError: no pairs, an unknown sample, run or field, a list that cannot be read, or a name that is taken.
    """
    started = time.perf_counter()
    samples = image_samples(samples)
    if max_pairs is not None and (not isinstance(max_pairs, int) or max_pairs < 1):
        raise ConfigError(f"max_pairs={max_pairs!r} must be a whole number above 0, or None for all")
    yield Progress(0, 1, label="Choosing pairs")
    choice = {"groups": groups, "partners": partners, "apart": apart, "azimuth": azimuth}
    source = pair_source(
        samples,
        key=key,
        similar=similar,
        within=within,
        pairs=pairs,
        path=path,
        differences=azimuth_difference,
        **choice,
    )
    chosen = source.take(max_pairs)
    own = key or "pairs"
    made_by = {"method": METHOD, "key": key, "similar": similar, "within": within, **choice}
    dataset = build_pairs(
        samples,
        chosen,
        name=name or f"{samples._dataset.name}-{own}",
        key=own,
        made_by={option: value for option, value in made_by.items() if value is not None},
        fields=fields,
        overwrite=overwrite,
    )
    made = dataset.count()
    # By similarity, what was not made may be no more than the same pair seen from its other end.
    left_out = source.count - len(chosen) if max_pairs is not None and len(chosen) == max_pairs else 0
    summary = RunSummary(None, METHOD, {"pairs": made, "left_out": left_out})
    summary.details = {"dataset": dataset.name}
    summary.notices = [f"{made:,} pairs are in dataset {dataset.name!r}: open it, or run match_objects on it"]
    if left_out:
        at_most = "up to " if similar else ""
        summary.notices.append(
            f"{at_most}{left_out:,} more pairs were left out; raise max_pairs={max_pairs:,} for them"
        )
    summary.seconds = time.perf_counter() - started
    yield Progress(1, 1, label="Done")
    return summary


def _load(samples: foc.SampleCollection, summary: RunSummary) -> fo.Dataset:
    return fo.load_dataset(summary.details["dataset"])


create_pairs = plain_function(create_pairs_steps, _load)


def pair_source(
    samples: foc.SampleCollection,
    *,
    key: str | None = None,
    groups: Sequence[int] | None = None,
    similar: str | None = None,
    partners: int = 1,
    apart: str | None = None,
    within: str | None = None,
    azimuth: str | None = None,
    differences: Sequence[int] = (0, 4),
    pairs: Sequence[Sequence[str]] | None = None,
    path: str | os.PathLike | None = None,
) -> PairSource:
    """The source that the arguments of :func:`create_pairs` name.

    Raises:
        ConfigError: they name none, or more than one, or it cannot be used.
    """
    if is_pair_dataset(samples):
        raise ConfigError("these are pairs already; make pairs of the dataset that they came from")
    _check_choice({"key": key, "similar": similar, "within": within, "pairs": pairs, "path": path})
    _check_company({"groups": groups, "apart": apart, "azimuth": azimuth}, key, similar, within)
    if key is not None:
        return pairs_of_groups(samples, key, groups)
    if similar is not None:
        return pairs_by_similarity(samples, similar, partners, within=within, apart=apart)
    if within is not None:
        return pairs_by_category(samples, within, azimuth=azimuth, differences=differences)
    if pairs is not None:
        return pairs_of_rows(pairs)
    return pair_of_view(samples) if path is None else pairs_of_file(path)


def _check_choice(given: Mapping[str, Any]) -> None:
    named = [option for option, value in given.items() if value is not None]
    if len(named) > 1 and named != ["similar", "within"]:
        raise ConfigError("key, similar, within, pairs and path each say which pairs to make; give one of them")


def _check_company(given: Mapping[str, Any], key: str | None, similar: str | None, within: str | None) -> None:
    owners = {"groups": ("key", key), "apart": ("similar", similar), "azimuth": ("within", within)}
    for option, value in given.items():
        owner, owned = owners[option]
        if value is not None and owned is None:
            raise ConfigError(f"{option}={value!r} goes with {owner}=...; give that too, or leave it out")
    if given["azimuth"] is not None and similar is not None:
        raise ConfigError("azimuth and similar do not go together; choose pairs by one of them")
