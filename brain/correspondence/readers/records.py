"""What a data set with keypoints holds, however it is stored: annotated objects in pictures, and pairs of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import ConfigError
from ...metrics.pck import EvaluatedPair
from ...pair_sampling import azimuth_difference
from ..keypoint_groups import KeypointGroups


@dataclass(frozen=True, eq=False)
class KeypointImage:
    """One annotated object in one picture.

    Attributes:
        id: unique in the data set.
        path: of the picture.
        size_wh: its width and height in pixels.
        box: ``(x, y, width, height)`` of the object in pixels; None where it is not annotated.
        category: of the object.
        keypoints: ``(K, 2)`` float64 ``(x, y)`` in pixels of the picture; NaN where not annotated.
        visible: ``(K,)`` bool: annotated, be it occluded or not.
        names: K names.
        supercategory: what the category belongs to (the family of a species); empty where there is none.
        azimuth: eighth of a turn from which the object is seen, 0 to 7; None where it is not known.

    Raises:
        ConfigError: shapes disagree, or a visible keypoint is not finite.
    """

    id: str
    path: Path
    size_wh: tuple[int, int]
    box: tuple[float, float, float, float] | None
    category: str
    keypoints: np.ndarray
    visible: np.ndarray
    names: tuple[str, ...]
    supercategory: str = ""
    azimuth: int | None = None

    def __post_init__(self) -> None:
        size = len(self.names)
        if self.keypoints.shape != (size, 2) or self.visible.shape != (size,):
            raise ConfigError(f"{self.path}: {self.keypoints.shape} keypoints for {size} names; there must be one each")
        if not np.array_equal(np.isfinite(self.keypoints).all(1), self.visible):
            raise ConfigError(f"{self.path}: the visible keypoints, and no others, must have a finite place")


@dataclass(frozen=True, eq=False)
class KeypointPair:
    """Two pictures whose keypoints correspond slot by slot.

    Attributes:
        source, target: the pictures.
        split: part of the data set, such as ``"test"``.
        category: by which results are told apart: that of both objects, or what they have in common.
    """

    source: KeypointImage
    target: KeypointImage
    split: str
    category: str

    @property
    def common(self) -> np.ndarray:
        """``(K,)`` bool: keypoints that both pictures show."""
        return self.source.visible & self.target.visible

    @property
    def azimuth_difference(self) -> int | None:
        """In eighths of a turn, 0 to 4; None where it is not known."""
        if self.source.azimuth is None or self.target.azimuth is None:
            return None
        return azimuth_difference(self.source.azimuth, self.target.azimuth)

    def evaluated(self, predictions: np.ndarray, groups: KeypointGroups) -> EvaluatedPair:
        """The pair with what was predicted for it, as the metrics take it.

        Args:
            predictions: ``(K, 2)`` in pixels of the target picture; NaN where there is none.
            groups: of the K keypoints.

        Raises:
            ConfigError: shapes disagree.
        """
        return EvaluatedPair(
            predictions,
            self.target.keypoints,
            self.source.visible,
            self.target.visible,
            groups.group_ids,
            box_wh=None if self.target.box is None else self.target.box[2:],
            image_wh=self.target.size_wh,
            category=self.category,
            azimuth_difference=self.azimuth_difference,
        )


@dataclass(frozen=True, eq=False)
class KeypointData:
    """A split of a data set.

    Attributes:
        images: annotated objects; all that occur in pairs, and others of the split.
        pairs: of them.
        groups: part groups and mirror partners by the category of a picture.
    """

    images: tuple[KeypointImage, ...]
    pairs: tuple[KeypointPair, ...]
    groups: Mapping[str, KeypointGroups]
