"""What a dataset's own labels say about where things are: a foreground mask per image, boxes and masks per object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.foreground.given import instances_to_mask
from .dataset_io import FIELD_PREFIX
from .mask_store import as_foreground, read_mask
from .provenance import file_stamp, value_stamp


@dataclass(frozen=True)
class Objects:
    """The detections of one image.

    Attributes:
        ids: label ids.
        boxes: ``(N, 4)`` boxes ``(x, y, width, height)`` in pixels.
        masks: per object its box-sized mask (bool, any resolution) or None.
    """

    ids: list[str]
    boxes: np.ndarray
    masks: list[np.ndarray | None]


class DetectionsInput:
    """Reads boxes and masks of a Detections field.

    Raises:
        ConfigError: there is no such field, or it holds something else.
    """

    def __init__(self, samples: foc.SampleCollection, field: str, option: str) -> None:
        document = _document_type(samples, field, option)
        if document is not fo.Detections:
            raise ConfigError(f"{option}={field!r} holds {document.__name__}; choose a field with Detections")
        self.field = field
        root = f"{field}.detections"
        self.paths = [f"{root}.{name}" for name in ("id", "bounding_box", "mask", "mask_path")]

    def ids(self, values: Mapping[str, Any]) -> list[str]:
        """Label ids of a sample."""
        return list(values[self.paths[0]] or [])

    def read(self, values: Mapping[str, Any], image_hw: tuple[int, int]) -> Objects:
        """The objects of one sample, given the values at :attr:`paths`; an absent label has none.

        Raises:
            ImageError: the file of a mask cannot be read.
        """
        ids, boxes, masks, mask_paths = (values[path] or [] for path in self.paths)
        height, width = image_hw
        pixels = np.array([_box(box) for box in boxes], np.float64).reshape(-1, 4) * (width, height, width, height)
        read = [_mask(mask, path) for mask, path in zip(masks, mask_paths, strict=True)]
        return Objects(list(ids), pixels, read)

    def stamp(self, values: Mapping[str, Any]) -> str:
        """Hash of all that :meth:`read` depends on."""
        return _stamp(values, self.paths)


class ForegroundInput:
    """Reads the foreground that a label field marks: a Segmentation, or the union of Detections.

    Raises:
        ConfigError: there is no such field, or its labels mark no area.
    """

    def __init__(self, samples: foc.SampleCollection, field: str) -> None:
        document = _document_type(samples, field, "foreground")
        self._detections = DetectionsInput(samples, field, "foreground") if document is fo.Detections else None
        if self._detections is not None:
            self.paths = self._detections.paths
        elif document is fo.Segmentation:
            self.paths = [f"{field}.mask", f"{field}.mask_path"]
        else:
            raise ConfigError(
                f"foreground='{FIELD_PREFIX}{field}' holds {document.__name__}, which marks no area; choose a field "
                "with Segmentation or Detections"
            )

    def read(self, values: Mapping[str, Any], image_hw: tuple[int, int]) -> np.ndarray:
        """``(H', W')`` foreground of one sample, in [0, 1] at any scale; empty (all 0) where the label is missing.

        Raises:
            ImageError: the file of a mask cannot be read.
        """
        if self._detections is not None:
            objects = self._detections.read(values, image_hw)
            return instances_to_mask(objects.boxes, objects.masks, image_hw)
        mask = _mask(*(values[path] for path in self.paths))
        return np.zeros((1, 1), bool) if mask is None else mask

    def stamp(self, values: Mapping[str, Any]) -> str:
        """Hash of all that :meth:`read` depends on."""
        return _stamp(values, self.paths)


def _document_type(samples: foc.SampleCollection, field: str, option: str) -> type:
    found = samples.get_field(field)
    if found is None:
        labels = samples.get_field_schema(embedded_doc_type=(fo.Detections, fo.Segmentation))
        there = f"it has {', '.join(labels)}" if labels else "it has none with areas"
        raise ConfigError(f"{option}: the dataset has no field {field!r}; {there}")
    return getattr(found, "document_type", type(found))


def _box(box: Sequence[float] | None) -> Sequence[float]:
    """A box without four numbers is none: it fails the checks of whoever uses it, not the reading."""
    return box if box is not None and len(box) == 4 else (np.nan,) * 4


def _mask(mask: np.ndarray | None, path: str | None) -> np.ndarray | None:
    if mask is not None:
        return as_foreground(mask)
    return read_mask(path) if path else None


def _stamp(values: Mapping[str, Any], paths: Sequence[str]) -> str:
    files = values[paths[-1]] or []
    files = [files] if isinstance(files, str) else files
    return value_stamp([[values[path] for path in paths], [file_stamp(path) if path else "" for path in files]])
