"""The computation of regions that an engine streams, and the fields in which regions and their vectors are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np

from ..brain.claid.regions import PreparedPicture, RegionExtractor, Regions
from ..brain.images import decode_image, image_size
from .dataset_io import FieldSpec, SampleItem
from .methods import FieldMethod
from .region_fields import METHOD, VECTOR, RegionFields
from .region_vectors import Storage, VectorFiles, storage_fields

_ATTRIBUTES: dict[str, tuple[type, str]] = {
    "level": (fo.IntField, "Depth in the hierarchy; the parts of the whole image have 1"),
    "parent_id": (fo.StringField, "Id of the smallest region here that contains this one; empty at the top"),
    "n_parts": (fo.IntField, "Number of the smaller regions that have this one as parent"),
    "saliency": (fo.FloatField, "Share of the region's patches with high energy; background has little"),
    "connectivity": (fo.FloatField, "Share of the pairs of its patches that are alike; 1 is one uniform thing"),
    "area": (fo.FloatField, "Share of the image, 0 to 1"),
    "row": (fo.IntField, "Row of the region's vector"),
}


@dataclass(frozen=True)
class _Prepared:
    sample_id: str
    picture: PreparedPicture

    @property
    def group_key(self) -> tuple[int, int]:
        return self.picture.group_key


class RegionsMethod(FieldMethod):
    """The regions of each image, each with a vector.

    Args:
        extractor: finds and describes them.
        field: the Detections field where they go.
        storage: where the vectors are kept; see :mod:`.region_vectors`.
        files: the files of the vectors, for ``"files"``.
        config: further settings for the record.
    """

    def __init__(
        self,
        extractor: RegionExtractor,
        field: str,
        storage: Storage,
        files: VectorFiles | None,
        config: Mapping[str, Any],
    ) -> None:
        names = RegionFields(field)
        detections = {"embedded_doc_type": fo.Detections}
        fields = {
            field: FieldSpec(fo.EmbeddedDocumentField, "Regions of the image, coarse to fine (CLAID)", detections),
            names.count: FieldSpec(fo.IntField, "Number of regions found in the image"),
        }
        kept = storage_fields(names, storage)
        of_labels = kept if storage == "labels" else {}
        of_samples = {} if storage == "labels" else kept
        super().__init__(METHOD, field, fields | of_samples, extractor.config_dict() | dict(config))
        declared = {f"{names.labels}.{name}": FieldSpec(*spec) for name, spec in _ATTRIBUTES.items()}
        self.fields = {**self.fields, **declared, **of_labels}
        self._extractor = extractor
        self._names = names
        self._storage = storage
        self._files = files

    def is_intact(self, item: SampleItem) -> bool:
        return self._files is None or self._files.path(item.id).is_file()

    def prepare(self, item: SampleItem) -> _Prepared:
        image_hw = image_size(item.filepath)
        image = decode_image(item.filepath, min_side=self._extractor.decode_min_side)
        return _Prepared(item.id, self._extractor.prepare(image, image_hw))

    def run(self, batch: Sequence[_Prepared]) -> list[dict[str, Any]]:
        found = self._extractor.extract([sample.picture for sample in batch])
        return [self._values(sample, regions) for sample, regions in zip(batch, found, strict=True)]

    def _values(self, sample: _Prepared, regions: Regions) -> dict[str, Any]:
        vectors = regions.vectors.astype(np.float16)
        detections = region_detections(regions, sample.picture.image_hw)
        values: dict[str, Any] = {self._names.field: fo.Detections(detections=detections)}
        values[self._names.count] = len(detections)
        if self._storage == "sample":
            values[self._names.vectors] = vectors
        elif self._files is not None:
            values[self._names.vectors_path] = self._files.store(sample.sample_id, vectors)
        else:
            for detection, vector in zip(detections, vectors, strict=True):
                detection[VECTOR] = vector
        return values


def region_detections(regions: Regions, image_hw: tuple[int, int]) -> list[fo.Detection]:
    """Regions as labels, in the same order: relative boxes, masks of whole patches cropped to them."""
    height, width = image_hw
    boxes = regions.boxes / (width, height, width, height)
    n_parts = np.bincount(regions.parent[regions.parent >= 0], minlength=len(regions))
    detections: list[fo.Detection] = []
    for row in range(len(regions)):
        x1, y1, x2, y2 = boxes[row].tolist()
        parent = int(regions.parent[row])
        level = int(regions.level[row])
        detections.append(
            fo.Detection(
                label=f"level {level}",
                bounding_box=[x1, y1, x2 - x1, y2 - y1],
                mask=cropped_mask(regions.masks[row]),
                level=level,
                parent_id=detections[parent].id if parent >= 0 else None,
                n_parts=int(n_parts[row]),
                saliency=float(regions.saliency[row]),
                connectivity=float(regions.connectivity[row]),
                area=float(regions.area[row]),
                row=row,
            )
        )
    return detections


def cropped_mask(mask: np.ndarray) -> np.ndarray:
    """The part of a ``(h, w)`` bool mask of patches that its bounding box encloses."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
