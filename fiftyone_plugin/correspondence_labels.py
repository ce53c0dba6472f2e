"""What of a pair dataset's labels correspondences depend on: keypoints, and what marks the objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import ConfigError
from .keypoint_inputs import ImageKeypoints, KeypointsInput
from .label_inputs import ForegroundInput
from .pairs import PairInfo, flat_pairs, original_dataset

# Samples whose labels are read at a time: masks may be large.
_LABELS = 200


@dataclass(frozen=True)
class SampleLabels:
    """What the labels of one sample say.

    Attributes:
        keypoints: None where there are none, or where none were asked for.
        stamp: hash of all that was read of them.
        mask_stamp: hash of what marks the object.
        reason: why the keypoints cannot be used.
    """

    keypoints: ImageKeypoints | None = None
    stamp: str = ""
    mask_stamp: str = ""
    reason: str | None = None


class PairLabels:
    """The labels of a pair dataset that matches depend on: keypoints, and what marks the objects.

    Args:
        samples: the pair dataset or a view of it.
        info: whose samples they are; their skeletons name the keypoints.
        keypoints, couples: as of :func:`compute_correspondences`.
        foreground: the field that marks the objects; None where nothing does.

    Raises:
        ConfigError: a field does not exist, or holds something else.
    """

    def __init__(
        self,
        samples: foc.SampleCollection,
        info: PairInfo,
        keypoints: str | None,
        couples: Sequence[Sequence[str]] | str | None,
        foreground: str | None,
    ) -> None:
        self._flat = flat_pairs(samples)
        self.keypoints = None if keypoints is None else KeypointsInput(self._flat, keypoints, couples, _originals(info))
        self._foreground = None if foreground is None else ForegroundInput(self._flat, foreground)

    @property
    def couples(self) -> tuple[tuple[str, str], ...] | None:
        """Mirror partners as they were told; None where they are read from the names."""
        return None if self.keypoints is None else self.keypoints.couples

    def read(self, ids: Sequence[str]) -> dict[str, SampleLabels]:
        """The labels of samples by id."""
        keypoints = self.keypoints.paths if self.keypoints else []
        marks = self._foreground.paths if self._foreground else []
        found = {}
        for start in range(0, len(ids), _LABELS):
            part = fov.make_optimized_select_view(self._flat, list(dict.fromkeys(ids[start : start + _LABELS])))
            for sample_id, *values in zip(*part.values(["id", *keypoints, *marks]), strict=True):
                named = dict(zip([*keypoints, *marks], values, strict=True))
                found[sample_id] = self._labels(named)
        return found

    def read_mask(self, sample_id: str, image_hw: tuple[int, int]) -> np.ndarray | None:
        """The foreground of a sample; safe in worker threads.

        Raises:
            ImageError: the file of a mask cannot be read.
        """
        if self._foreground is None:
            return None
        part = fov.make_optimized_select_view(self._flat, [sample_id])
        values = part.values(self._foreground.paths)
        return self._foreground.read(
            {p: one[0] for p, one in zip(self._foreground.paths, values, strict=True)}, image_hw
        )

    def _labels(self, values: Mapping[str, Any]) -> SampleLabels:
        mask_stamp = "" if self._foreground is None else self._foreground.stamp(values)
        if self.keypoints is None:
            return SampleLabels(mask_stamp=mask_stamp)
        stamp = self.keypoints.stamp(values)
        try:
            return SampleLabels(self.keypoints.read(values), stamp, mask_stamp)
        except ConfigError as error:
            return SampleLabels(None, stamp, mask_stamp, str(error))


def _originals(info: PairInfo) -> list[fo.Dataset]:
    """The datasets that the pairs were made of, so far as they are still there."""
    found = []
    for target in (False, True):
        try:
            found.append(original_dataset(info, target=target))
        except ConfigError:
            continue
    return found
