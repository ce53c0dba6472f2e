"""The matches of a run of ``compute_correspondences`` beside the labels that they are judged by; nothing is matched."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

import fiftyone.core.collections as foc
import numpy as np
import pandas as pd

from ..brain.cosalient.comparison import full_size
from ..brain.errors import ConfigError, ImageError
from ..brain.images import image_size
from ..brain.metrics.pck import EvaluatedPair, ThresholdKind
from .correspondence_fields import METHOD
from .correspondence_labels import PairLabels, SampleLabels
from .correspondence_setup import CorrespondenceOptions
from .correspondence_table import load_correspondences
from .judged_pairs import evaluated_pair
from .keypoint_inputs import PairKeypoints
from .pairs import PairRow, check_pairs, read_pairs
from .provenance import config_hash, file_stamp, sample_provenance
from .result_keys import find_result_record


@dataclass(frozen=True, eq=False)
class StoredPair:
    """A pair with its matches, as it is judged.

    Attributes:
        row: the pair.
        evaluated: places found and true ones.
        partners: ``(K,)`` int slots of the mirror partners.
        mask: ``(H, W)`` bool of the object in the target; None where nothing marks it.
    """

    row: PairRow
    evaluated: EvaluatedPair
    partners: np.ndarray
    mask: np.ndarray | None


@dataclass
class LeftOut:
    """Pairs that cannot be judged.

    Attributes:
        stale: number of those whose files or labels have changed since they were matched, or that are new.
        unjudged: number of those whose target is not annotated, or lacks the box that the threshold is a share of.
        failed: reason by ``pair_id`` of those that could not be matched, or whose target cannot be read.
    """

    stale: int = 0
    unjudged: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class StoredMatches:
    """The stored matches of some pairs.

    Args:
        samples: the pair dataset or a view of it, whose pairs are read.
        key: key of the run.
        extra: further fields of the sources to read.

    Raises:
        ConfigError: there is no such run, its table is gone, or it had no keypoints to find.
    """

    def __init__(self, samples: foc.SampleCollection, key: str, extra: Sequence[str] = ()) -> None:
        info = check_pairs(samples)
        self.config: dict[str, Any] = find_result_record(samples, key, METHOD, "correspondences")["config"]
        keypoints = self.config["keypoints"]
        if keypoints is None:
            raise ConfigError(
                f"the run {key!r} found matches without keypoints, so nothing says which are right; run {METHOD} with"
                " keypoints=... on pairs that are annotated"
            )
        self.options = CorrespondenceOptions(**run_options(self.config))
        self._labels = PairLabels(samples, info, keypoints, self.config.get("couples"), self.options.foreground_field)
        self._table = load_correspondences(samples, key)
        self._provenance, self._error = f"{key}_provenance", f"{key}_error"
        self.rows = read_pairs(samples, [self._provenance, self._error, *extra])

    def judge(
        self,
        threshold: ThresholdKind,
        left_out: LeftOut,
        categories: Mapping[str, str] | None = None,
        azimuths: Mapping[str, int | None] | None = None,
    ) -> Iterator[StoredPair | None]:
        """The pairs, one after the other; None for one that is left out.

        Args:
            threshold: what errors are measured by.
            left_out: is told of the pairs that are left out.
            categories: by ``pair_id``; None takes those of the keypoints.
            azimuths: difference of the viewpoints in eighths of a turn by ``pair_id``.
        """
        labels = self._labels.read([member.id for row in self.rows for member in (row.source, row.target)])
        found = _Found(self._table)
        sizes = lru_cache(maxsize=None)(image_size)
        stamp = config_hash(METHOD, run_settings(self.config))
        for row in self.rows:
            source, target = labels[row.source.id], labels[row.target.id]
            if reason := row.values[self._error]:
                left_out.failed[row.pair_id] = reason
            elif row.values[self._provenance] != match_provenance(stamp, row, source, target):
                left_out.stale += 1
            else:
                assert self._labels.keypoints is not None
                assert source.keypoints is not None
                keypoints = self._labels.keypoints.pair(source.keypoints, target.keypoints)
                parts = {
                    "category": None if categories is None else categories[row.pair_id],
                    "azimuth_difference": None if azimuths is None else azimuths[row.pair_id],
                }
                yield self._judged(row, keypoints, found, sizes, threshold, left_out, parts)
                continue
            yield None

    def _judged(
        self,
        row: PairRow,
        keypoints: PairKeypoints,
        found: "_Found",
        sizes: Callable[[str], tuple[int, int]],
        threshold: ThresholdKind,
        left_out: LeftOut,
        parts: dict[str, Any],
    ) -> StoredPair | None:
        try:
            image_hw = sizes(row.target.filepath)
            mask = self._mask(row, image_hw)
        except ImageError as error:
            left_out.failed[row.pair_id] = str(error)
            return None
        pair = evaluated_pair(keypoints, found.places(row.pair_id, keypoints), image_hw, mask, threshold, **parts)
        if pair is None:
            left_out.unjudged += 1
            return None
        return StoredPair(row, pair, keypoints.groups.permutation, mask)

    def _mask(self, row: PairRow, image_hw: tuple[int, int]) -> np.ndarray | None:
        if self.options.foreground_field is None:
            return None
        mask = self._labels.read_mask(row.target.id, image_hw)
        return None if mask is None else full_size(mask >= 0.5, image_hw)


class _Found:
    """Places in the targets by pair and name of the keypoint."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._rows = table.groupby("pair_id", sort=False).indices
        self._names = table["keypoint"].to_numpy(object)
        self._places = table[["target_x", "target_y"]].to_numpy(float)

    def places(self, pair_id: str, keypoints: PairKeypoints) -> np.ndarray:
        """``(K, 2)`` places relative to the target; NaN where a keypoint was not found."""
        rows = self._rows.get(pair_id, ())
        found = {self._names[row]: self._places[row] for row in rows}
        missing = np.full(2, np.nan)
        return np.array([found.get(name, missing) for name in keypoints.groups.names]).reshape(-1, 2)


def run_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's configuration are its options."""
    return {one.name: config[one.name] for one in fields(CorrespondenceOptions) if one.name in config}


def run_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the results of a run depend on, as it was hashed."""
    return {**run_options(config), **{name: config[name] for name in ("features", "keypoints")}}


def match_provenance(stamp: str, row: PairRow, source: SampleLabels, target: SampleLabels) -> str:
    """Hash of all that the matches of a pair were made from.

    Args:
        stamp: hash of the settings.
        row: the pair.
        source, target: labels of its images.
    """
    stamps = []
    for member, own in ((row.source, source), (row.target, target)):
        stamps += [file_stamp(member.filepath), own.stamp, own.mask_stamp]
    return sample_provenance(stamp, *stamps)
