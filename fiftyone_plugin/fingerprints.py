"""The computation behind both duplicate searches: digest and technical quality of image files, resumable."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.hashing import file_digest, pixel_digest
from ..brain.image_quality import QualityScores, image_quality
from ..brain.images import decode_image
from .dataset_io import SampleItem
from .duplicate_store import DuplicateFields
from .item_fields import Place
from .provenance import value_stamp

DigestBy = Literal["pixels", "bytes"]
DIGESTS: tuple[DigestBy, ...] = ("pixels", "bytes")

# Rows of at most a few hundred bytes each.
_READ_CHUNK = 10_000


@dataclass(frozen=True)
class Fingerprint:
    """What is known of one image file; any file can share a batch with any other."""

    digest: str
    measures: dict[str, float] | None
    group_key: str = ""


class FingerprintMethod:
    """Digests of image files and, on request, what the choice of keepers needs; all work happens in decode threads.

    Args:
        name: method name for the run record.
        key: the duplicate key whose fields are written.
        by: ``"pixels"``: upright decoded RGB, so that the same picture in another format counts; ``"bytes"``: the file.
        measure: also measure resolution, sharpness, exposure and file size (``by="pixels"`` only, which decodes).
    """

    inputs: Sequence[str] = ()

    def __init__(self, name: str, key: str, by: DigestBy, *, measure: bool) -> None:
        names = DuplicateFields(key)
        results = ("digest", "measures") if measure else ("digest",)
        self.name = name
        self.config = {"by": by, "measure": measure}
        self.error_field = names.error
        self.provenance_field = names.provenance
        self.required = tuple(getattr(names, result) for result in results)
        self.fields: dict[str, Any] = {}
        for field in (*results, "error", "provenance"):
            self.fields |= names.spec(field)

    def prepare(self, item: SampleItem) -> Fingerprint:
        if self.config["by"] == "bytes":
            return Fingerprint(file_digest(item.filepath), None)
        image = decode_image(item.filepath)
        measures = asdict(image_quality(image, os.path.getsize(item.filepath))) if self.config["measure"] else None
        return Fingerprint(pixel_digest(image), measures)

    def run(self, batch: Sequence[Fingerprint]) -> list[dict[str, Any]]:
        values = [(fingerprint.digest, fingerprint.measures) for fingerprint in batch]
        return [dict(zip(self.required, value, strict=False)) for value in values]

    def blank(self, item: SampleItem) -> dict[str, Any]:
        return dict.fromkeys(self.required)

    def input_stamp(self, item: SampleItem) -> str:
        return ""

    def is_intact(self, item: SampleItem) -> bool:
        return True


@dataclass(frozen=True)
class ObjectPrints:
    """What is known of some objects of one image."""

    prints: dict[str, Fingerprint | None]
    group_key: str = ""


class ObjectFingerprintMethod:
    """Digests and measures of the boxes of some objects, as :class:`FingerprintMethod` has them of whole images.

    Args:
        name: method name for the run record.
        key: the duplicate key whose attributes are written.
        place: the field of the objects.
        wanted: label ids by sample id: the objects to measure.
    """

    required: Sequence[str] = ()

    def __init__(self, name: str, key: str, place: Place, wanted: Mapping[str, Sequence[str]]) -> None:
        names = DuplicateFields(key, place)
        self.name = name
        self.config = {"by": "pixels", "measure": True, "patches_field": place.patches_field}
        self.error_field, self.provenance_field = names.of_samples().error, names.of_samples().provenance
        self.inputs = [place.path("id"), place.path("bounding_box")]
        self.fields: dict[str, Any] = {**names.spec("digest"), **names.spec("measures")}
        for field in ("error", "provenance"):
            self.fields |= names.of_samples().spec(field)
        self._results = (names.digest, names.measures)
        self._wanted = wanted

    def prepare(self, item: SampleItem) -> ObjectPrints:
        image, size = decode_image(item.filepath), os.path.getsize(item.filepath)
        return ObjectPrints({label_id: _box_print(image, box, size) for label_id, box in self._boxes(item).items()})

    def run(self, batch: Sequence[ObjectPrints]) -> list[dict[str, Any]]:
        return [self._values(objects.prints) for objects in batch]

    def blank(self, item: SampleItem) -> dict[str, Any]:
        return {path: dict.fromkeys(self._boxes(item)) for path in self._results}

    def input_stamp(self, item: SampleItem) -> str:
        return value_stamp([list(pair) for pair in sorted(self._boxes(item).items())])

    def is_intact(self, item: SampleItem) -> bool:
        return True

    def _boxes(self, item: SampleItem) -> dict[str, Any]:
        ids, boxes = (item.values[path] or [] for path in self.inputs)
        wanted = set(self._wanted.get(item.id, ()))
        return {label_id: box for label_id, box in zip(ids, boxes, strict=True) if label_id in wanted}

    def _values(self, prints: Mapping[str, Fingerprint | None]) -> dict[str, Any]:
        digests = {label_id: found.digest if found else None for label_id, found in prints.items()}
        measures = {label_id: found.measures if found else None for label_id, found in prints.items()}
        bad = sum(found is None for found in prints.values())
        values: dict[str, Any] = dict(zip(self._results, (digests, measures), strict=True))
        return {**values, self.error_field: f"{bad} boxes are empty or outside the image" if bad else None}


def crop_box(image: np.ndarray, box: Sequence[float] | None) -> np.ndarray | None:
    """The part of an ``(H, W, 3)`` image in a relative box ``(x, y, width, height)``; None where there is nothing."""
    if box is None or len(box) != 4 or not np.isfinite(box).all():
        return None
    height, width = image.shape[:2]
    left, right = np.clip((np.floor(box[0] * width), np.ceil((box[0] + box[2]) * width)), 0, width).astype(int)
    top, bottom = np.clip((np.floor(box[1] * height), np.ceil((box[1] + box[3]) * height)), 0, height).astype(int)
    if box[2] <= 0 or box[3] <= 0 or right <= left or bottom <= top:
        return None
    return np.ascontiguousarray(image[top:bottom, left:right])


def _box_print(image: np.ndarray, box: Sequence[float] | None, file_size: int) -> Fingerprint | None:
    crop = crop_box(image, box)
    if crop is None:
        return None
    # The box's share of the file, so that bytes per pixel stay what they are.
    share = round(file_size * crop.size / image.size)
    return Fingerprint(pixel_digest(crop), asdict(image_quality(crop, share)))


def read_fields(samples: foc.SampleCollection, ids: Sequence[str], paths: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Values of some fields by sample id, in bounded chunks; samples deleted in the meantime are missing."""
    values: dict[str, tuple[Any, ...]] = {}
    for start in range(0, len(ids), _READ_CHUNK):
        view = fov.make_optimized_select_view(samples, ids[start : start + _READ_CHUNK])
        values |= {row[0]: row[1:] for row in zip(*view.values(["id", *paths]), strict=True)}
    return values


def quality_of(measures: dict[str, float] | None) -> QualityScores | None:
    """Stored measures as the keeper policy takes them; None where a file could not be measured."""
    return None if measures is None else QualityScores(**measures)
