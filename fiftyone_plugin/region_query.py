"""What to search for, as vectors: regions or boxes of samples, whole images, image files, or words."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np
from bson import ObjectId

from ..brain.claid.region_index import RegionIndex
from ..brain.claid.regions import RegionExtractor
from ..brain.errors import ConfigError, ImageError
from ..brain.foreground.given import instances_to_mask
from ..brain.images import decode_image
from .label_inputs import DetectionsInput
from .region_models import extractor_of, text_encoder_of

# The whole picture as a box, relative to its sides.
_WHOLE = (0.0, 0.0, 1.0, 1.0)

_KINDS = ("labels", "images", "image", "text")


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        vectors: ``(Q, D)`` float32 unit vectors.
        names: what each of them stands for, as the labels of what is found will say.
        sample_ids: samples that the query was taken from.
    """

    vectors: np.ndarray
    names: tuple[str, ...]
    sample_ids: frozenset[str] = frozenset()


@dataclass(frozen=True)
class QueryOptions:
    """The ways to say what to search for; exactly one of the first four is given.

    Attributes:
        labels: ids of regions or of other detections, or the dicts of ``session.selected_labels``.
        images: ids of samples.
        image: an image file outside of the dataset: its path, its bytes, or an ``(H, W, 3)`` uint8 array.
        text: words that describe the object.
        box: part of the one image that is meant, ``(x, y, width, height)`` relative to its sides.
        crop: cut what is sought out of its picture before it is encoded; it then knows nothing of its surroundings.
        device: where encoders run.
    """

    labels: Sequence[str | Mapping[str, Any]] | None = None
    images: Sequence[str] | None = None
    image: str | os.PathLike | bytes | np.ndarray | None = None
    text: str | None = None
    box: Sequence[float] | None = None
    crop: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        given = [name for name in _KINDS if _is_given(getattr(self, name))]
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "nothing is given"
            raise ConfigError(
                f"say what to search for by one of labels (regions or boxes), images (sample ids), image (a file) and "
                f"text; {said}"
            )
        if self.box is not None:
            one_image = given == ["image"] or (given == ["images"] and len(self.images or ()) == 1)
            if not one_image:
                raise ConfigError("box goes with one image: give image=... or images=[one sample id]")
            x, y, width, height = _four(self.box)
            if not (0 <= x < 1 and 0 <= y < 1 and 0 < width <= 1 and 0 < height <= 1):
                raise ConfigError(f"box={tuple(self.box)} must be (x, y, width, height) relative to the image, in 0..1")


def resolve_query(samples: foc.SampleCollection, field: str, index: RegionIndex, options: QueryOptions) -> Query:
    """The vectors to search for.

    Regions that are in the index bring their vectors; all else is encoded as the indexed regions were.

    Raises:
        ConfigError: a sample or label does not exist or has no box, or the index cannot be searched by text.
        ImageError: a picture cannot be read.
        ModelError: an encoder cannot be loaded.
    """
    if options.text is not None:
        vectors = text_encoder_of(index.info, options.device).embed([options.text])
        return Query(vectors, (options.text,))
    if options.image is not None:
        extractor = extractor_of(index.info, options.device)
        return Query(_described(extractor, _read(options.image), options)[None], ("found",))
    if options.images is not None:
        return _image_query(samples, index, options)
    return _label_query(samples, field, index, options)


def _image_query(samples: foc.SampleCollection, index: RegionIndex, options: QueryOptions) -> Query:
    ids = list(dict.fromkeys(options.images or ()))
    extractor = extractor_of(index.info, options.device)
    paths = _filepaths(samples, ids)
    rows = [_described(extractor, decode_image(paths[one]), options) for one in ids]
    return Query(np.stack(rows), _names(len(rows)), frozenset(ids))


def _label_query(samples: foc.SampleCollection, field: str, index: RegionIndex, options: QueryOptions) -> Query:
    places = [_locate(samples, label, field) for label in options.labels or ()]
    rows = []
    for label_id, sample_id, label_field in places:
        stored = label_field == field and not options.crop
        vector = _indexed(index, sample_id, label_id) if stored else None
        if vector is None:
            vector = _encoded(samples, index, options, label_id, sample_id, label_field)
        rows.append(vector)
    return Query(np.stack(rows), _names(len(rows)), frozenset(sample_id for _, sample_id, _ in places))


def _locate(samples: foc.SampleCollection, label: str | Mapping[str, Any], field: str) -> tuple[str, str, str]:
    """Label id, sample id and field of a label."""
    root = samples._root_dataset
    if isinstance(label, Mapping):
        label_id, sample_id = str(label["label_id"]), str(label["sample_id"])
        if root.match({"_id": ObjectId(sample_id)}).count():
            return label_id, sample_id, str(label["field"])
        # In a view of patches the App names the patch as the sample.
        label = label_id
    if not ObjectId.is_valid(label):
        raise ConfigError(f"labels: {label!r} is no label id")
    fields = sorted(root.get_field_schema(embedded_doc_type=fo.Detections), key=lambda name: name != field)
    for name in fields:
        found = root.match({f"{name}.detections._id": ObjectId(label)}).values("id")
        if found:
            return label, found[0], name
    raise ConfigError(f"labels: no detection of dataset {root.name!r} has the id {label!r}")


def _indexed(index: RegionIndex, sample_id: str, label_id: str) -> np.ndarray | None:
    """The vector of a region of the index; None for one that it does not hold."""
    try:
        regions = index.regions_of(sample_id)
    except ConfigError:
        return None
    ids = list(regions.label_ids)
    return regions.vectors[ids.index(label_id)] if label_id in ids else None


def _encoded(
    samples: foc.SampleCollection, index: RegionIndex, options: QueryOptions, label_id: str, sample_id: str, field: str
) -> np.ndarray:
    """The vector of a detection that is not in the index."""
    root = samples._root_dataset
    image = decode_image(_filepaths(samples, [sample_id])[sample_id])
    reader = DetectionsInput(root, field, "labels")
    values = {path: root.select(sample_id).values(path)[0] for path in reader.paths}
    objects = reader.read(values, image.shape[:2])
    if label_id not in objects.ids:
        raise ConfigError(f"labels: sample {sample_id} has no detection {label_id!r} in {field!r}")
    row = objects.ids.index(label_id)
    x, y, width, height = objects.boxes[row]
    masks = None
    if objects.masks[row] is not None:
        masks = instances_to_mask(objects.boxes[row : row + 1], [objects.masks[row]], image.shape[:2])[None] > 0
    corners = np.array([[x, y, x + width, y + height]])
    vector = extractor_of(index.info, options.device).describe(image, corners, masks, crop=options.crop)[0]
    return _checked(vector, f"label {label_id} of sample {sample_id}")


def _described(extractor: RegionExtractor, image: np.ndarray, options: QueryOptions) -> np.ndarray:
    height, width = image.shape[:2]
    x, y, w, h = _four(options.box or _WHOLE)
    corners = np.array([[x * width, y * height, (x + w) * width, (y + h) * height]])
    return _checked(extractor.describe(image, corners, crop=options.crop)[0], "the query image")


def _checked(vector: np.ndarray, what: str) -> np.ndarray:
    if not vector.any():
        raise ConfigError(f"{what}: its box is empty or outside of the picture; draw it anew")
    return vector


def _read(image: Any) -> np.ndarray:
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ConfigError(f"image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
        return image
    return decode_image(image)


def _filepaths(samples: foc.SampleCollection, ids: Sequence[str]) -> dict[str, str]:
    found = dict(zip(*samples._root_dataset.select(ids).values(["id", "filepath"]), strict=True))
    missing = [one for one in ids if one not in found]
    if missing:
        raise ConfigError(f"images: dataset {samples._root_dataset.name!r} has no sample {missing[0]!r}")
    empty = [one for one in ids if not found[one]]
    if empty:
        raise ImageError(f"sample {empty[0]} has no filepath")
    return found


def _names(number: int) -> tuple[str, ...]:
    return ("found",) if number == 1 else tuple(f"object {position}" for position in range(1, number + 1))


def _four(box: Sequence[float]) -> tuple[float, float, float, float]:
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"box={box!r} must be four numbers (x, y, width, height)") from error
    return x, y, width, height


def _is_given(value: Any) -> bool:
    return value is not None and (
        isinstance(value, np.ndarray) or len(value) > 0 if hasattr(value, "__len__") else True
    )
