"""The computation of regions that an engine streams, and the fields in which regions and their vectors are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import fiftyone as fo
import numpy as np

from ..brain.claid.regions import PreparedPicture, RegionExtractor, Regions
from ..brain.images import decode_image, image_size
from .dataset_io import FieldSpec, SampleItem
from .methods import FieldMethod
from .region_fields import METHOD, VECTOR, RegionFields

Storage = Literal["sample", "labels"]
STORAGES: tuple[Storage, ...] = ("sample", "labels")

_ATTRIBUTES: dict[str, tuple[type, str]] = {
    "level": (fo.IntField, "Depth in the hierarchy; the parts of the whole image have 1"),
    "parent_id": (fo.StringField, "Id of the smallest region here that contains this one; empty at the top"),
    "n_parts": (fo.IntField, "Number of the smaller regions that have this one as parent"),
    "saliency": (fo.FloatField, "Share of the region's patches with high energy; background has little"),
    "connectivity": (fo.FloatField, "Share of the pairs of its patches that are alike; 1 is one uniform thing"),
    "area": (fo.FloatField, "Share of the image, 0 to 1"),
    "row": (fo.IntField, "Row of the region's vector"),
}


class RegionsMethod(FieldMethod):
    """The regions of each image, each with a vector.

    Args:
        extractor: finds and describes them.
        field: the Detections field where they go.
        storage: ``"sample"`` keeps the vectors of an image in one array, ``"labels"`` on each region.
        config: further settings for the record.
    """

    def __init__(self, extractor: RegionExtractor, field: str, storage: Storage, config: Mapping[str, Any]) -> None:
        names = RegionFields(field)
        detections = {"embedded_doc_type": fo.Detections}
        fields = {
            field: FieldSpec(fo.EmbeddedDocumentField, "Regions of the image, coarse to fine (CLAID)", detections),
            names.count: FieldSpec(fo.IntField, "Number of regions found in the image"),
        }
        if storage == "sample":
            text = "Vectors of the regions, a row each: unit length, compare by cosine"
            fields[names.vectors] = FieldSpec(fo.ArrayField, text, internal=True)
        super().__init__(METHOD, field, fields, extractor.config_dict() | dict(config))
        declared = {f"{names.labels}.{name}": FieldSpec(*spec) for name, spec in _ATTRIBUTES.items()}
        if storage == "labels":
            text = "Vector of the region: unit length, compare by cosine"
            declared[names.label_vectors] = FieldSpec(fo.VectorField, text)
        self.fields = {**self.fields, **declared}
        self._extractor = extractor
        self._names = names
        self._storage = storage

    def prepare(self, item: SampleItem) -> PreparedPicture:
        image_hw = image_size(item.filepath)
        return self._extractor.prepare(decode_image(item.filepath, min_side=self._extractor.decode_min_side), image_hw)

    def run(self, batch: Sequence[PreparedPicture]) -> list[dict[str, Any]]:
        return [
            self._values(picture, regions)
            for picture, regions in zip(batch, self._extractor.extract(batch), strict=True)
        ]

    def _values(self, picture: PreparedPicture, regions: Regions) -> dict[str, Any]:
        vectors = regions.vectors.astype(np.float16)
        detections = region_detections(regions, picture.image_hw)
        values: dict[str, Any] = {self._names.field: fo.Detections(detections=detections)}
        values[self._names.count] = len(detections)
        if self._storage == "sample":
            values[self._names.vectors] = vectors
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
