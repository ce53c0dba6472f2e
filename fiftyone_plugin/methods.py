"""The three computations that an engine streams: foreground masks, FFA of images, FFA of objects."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.ffa import FFAExtractor, FFAResult, PreparedImage
from ..brain.ffa_objects import ObjectRoute
from ..brain.foreground.base import PixelForeground
from ..brain.geometry import Geometry, patches_to_mask
from ..brain.hashing import file_digest
from ..brain.images import decode_image, image_size
from .dataset_io import FieldSpec, SampleItem
from .label_inputs import DetectionsInput, ForegroundInput
from .mask_store import MaskStore

# A pixel or patch is foreground when at least half of it is.
THRESHOLD = 0.5


class FieldMethod:
    """What methods share: a family of fields named after one of them, and no labels to read."""

    inputs: Sequence[str] = ()

    def __init__(self, name: str, prefix: str, fields: Mapping[str, FieldSpec], config: Mapping[str, Any]) -> None:
        self.name = name
        self.config = dict(config)
        self.error_field = f"{prefix}_error"
        self.provenance_field = f"{prefix}_provenance"
        self.fields = {
            **fields,
            self.error_field: FieldSpec(fo.StringField, f"Why {prefix} could not be computed", internal=True),
            self.provenance_field: FieldSpec(
                fo.StringField, f"Hash of the image, method and settings behind {prefix}", internal=True
            ),
        }
        self._results = tuple(fields)
        self.required = self._results[:1]

    def blank(self, item: SampleItem) -> dict[str, Any]:
        return dict.fromkeys(self._results)

    def input_stamp(self, item: SampleItem) -> str:
        return ""

    def is_intact(self, item: SampleItem) -> bool:
        return True


def other_settings(samples: foc.SampleCollection, method: FieldMethod) -> list[str]:
    """Warns where a field will hold vectors of two kinds, which must not be compared: a view's, and those outside."""
    dataset, path = samples._dataset, next(iter(method.fields))
    existing = dataset.get_field(path)
    same = existing is None or existing.info == {"method": method.name, **method.config}
    if same or not isinstance(samples, fov.DatasetView):
        return []
    others = dataset.count(path) - samples.count(path)
    if others <= 0:
        return []
    return [
        f"{others:,} vectors in {path!r} outside this view were made with other settings: do not compare them with "
        "the new ones"
    ]


class FFAMethod(FieldMethod):
    """One vector per image.

    Args:
        extractor: computes the vectors.
        field: where they go; accompanying facts go to fields whose names begin with it.
        given: reads the foreground from the dataset's own labels; None leaves it to the extractor.
        config: further settings for the record.
        cached: whether the extractor has a token cache.
    """

    def __init__(
        self,
        extractor: FFAExtractor,
        field: str,
        given: ForegroundInput | None,
        config: Mapping[str, Any],
        cached: bool = False,
    ) -> None:
        super().__init__("compute_ffa", field, _vector_fields(field, "image"), extractor.config_dict() | dict(config))
        self._extractor = extractor
        self._given = given
        self._cached = cached
        self.inputs = given.paths if given else ()

    def prepare(self, item: SampleItem) -> PreparedImage:
        image_hw = image_size(item.filepath)
        image = decode_image(item.filepath, min_side=self._extractor.decode_min_side)
        mask = self._given.read(item.values, image_hw) if self._given else None
        return self._extractor.prepare(image, mask, _content_hash(item, self._cached), image_hw)

    def run(self, batch: Sequence[PreparedImage]) -> list[dict[str, Any]]:
        return [dict(zip(self._results, _facts(result), strict=True)) for result in self._extractor.embed(batch)]

    def input_stamp(self, item: SampleItem) -> str:
        return self._given.stamp(item.values) if self._given else ""


@dataclass(frozen=True)
class _PreparedObjects:
    ids: list[str]
    usable: np.ndarray
    views: list[PreparedImage]
    complaint: str | None

    @property
    def group_key(self) -> tuple[int, int] | None:
        return self.views[0].group_key if self.views else None


class ObjectsMethod(FieldMethod):
    """One vector per detection.

    Args:
        extractor: computes the vectors.
        field: the attribute of each detection where they go.
        objects: reads the detections.
        route: see :meth:`FFAExtractor.prepare_objects`.
        batch_size: most crops on the device at once.
        config: further settings for the record.
        cached: whether the extractor has a token cache.
    """

    def __init__(
        self,
        extractor: FFAExtractor,
        field: str,
        objects: DetectionsInput,
        route: ObjectRoute,
        batch_size: int,
        config: Mapping[str, Any],
        cached: bool = False,
    ) -> None:
        fields = _vector_fields(f"{objects.field}.detections.{field}", "object")
        everything = extractor.config_dict() | {"object_route": route} | dict(config)
        super().__init__("compute_ffa", f"{objects.field}_{field}", fields, everything)
        self._extractor = extractor
        self._objects = objects
        self._route = route
        self._batch_size = batch_size
        self._cached = cached
        self.inputs = objects.paths
        # A route that does not fit the configuration is refused here, once, and not at every sample.
        extractor.prepare_objects(np.zeros((8, 8, 3), np.uint8), np.zeros((0, 4)), [], route)

    def prepare(self, item: SampleItem) -> _PreparedObjects:
        image = decode_image(item.filepath)
        height, width = image.shape[:2]
        objects = self._objects.read(item.values, (height, width))
        usable = _overlaps_image(objects.boxes, (height, width))
        kept = np.flatnonzero(usable)
        boxes, masks = objects.boxes[kept], [objects.masks[index] for index in kept]
        content_hash = _content_hash(item, self._cached)
        views = self._extractor.prepare_objects(image, boxes, masks, self._route, content_hash=content_hash)
        complaint = None
        if not usable.all():
            complaint = (
                f"{item.filepath}: {len(usable) - len(kept)} of {len(usable)} boxes are empty, not numbers, or outside "
                "the image, and have no vector; repair or delete those detections"
            )
        return _PreparedObjects(objects.ids, usable, views, complaint)

    def run(self, batch: Sequence[_PreparedObjects]) -> list[dict[str, Any]]:
        views = [view for sample in batch for view in sample.views]
        results = iter(self._extractor.embed(views, batch_size=self._batch_size))
        rows = []
        for sample in batch:
            nothing = (None,) * len(self._results)
            facts = [_facts(next(results)) if usable else nothing for usable in sample.usable]
            columns = {
                path: {label_id: fact[position] for label_id, fact in zip(sample.ids, facts, strict=True)}
                for position, path in enumerate(self._results)
            }
            rows.append({**columns, self.error_field: sample.complaint})
        return rows

    def blank(self, item: SampleItem) -> dict[str, Any]:
        return {path: dict.fromkeys(self._objects.ids(item.values)) for path in self._results}

    def input_stamp(self, item: SampleItem) -> str:
        return self._objects.stamp(item.values)


class _MaskMethod(FieldMethod):
    """One foreground mask per image, as a PNG beside the database.

    The files are written by threads of their own, so that the device does not wait for them.
    """

    def __init__(self, field: str, store: MaskStore, num_workers: int, config: Mapping[str, Any]) -> None:
        segmentation = {"embedded_doc_type": fo.Segmentation}
        fields = {
            field: FieldSpec(fo.EmbeddedDocumentField, "Foreground mask of the image", segmentation),
            f"{field}_fraction": FieldSpec(fo.FloatField, "Share of the image that is foreground, 0 to 1"),
        }
        super().__init__("compute_foreground", field, fields, {**config, "mask_dir": str(store.folder)})
        self._store = store
        self._writers = ThreadPoolExecutor(num_workers, thread_name_prefix="selfsame-masks")

    def is_intact(self, item: SampleItem) -> bool:
        return self._store.path(item.id).is_file()

    def _values(self, sample_id: str, fraction: float, make_mask: Callable[[], np.ndarray]) -> dict[str, Any]:
        def write() -> fo.Segmentation:
            return fo.Segmentation(mask_path=str(self._store.write(sample_id, make_mask())))

        return dict(zip(self._results, (self._writers.submit(write), fraction), strict=True))


@dataclass(frozen=True)
class _PreparedPixels:
    sample_id: str
    image: np.ndarray | None
    mask: np.ndarray | None
    group_key: None = None


class PixelMaskMethod(_MaskMethod):
    """Masks from a method that looks at pixels.

    Args:
        foreground: finds the masks.
        field, store, num_workers, config: where masks go, threads that write them, settings for the record.
    """

    def __init__(
        self, foreground: PixelForeground, field: str, store: MaskStore, num_workers: int, config: Mapping[str, Any]
    ) -> None:
        own = {"foreground": foreground.name, "foreground_hash": foreground.weights_hash}
        super().__init__(field, store, num_workers, own | dict(config))
        self._foreground = foreground
        self._in_worker = foreground.in_worker

    def prepare(self, item: SampleItem) -> _PreparedPixels:
        image = decode_image(item.filepath)
        if self._in_worker:
            return _PreparedPixels(item.id, None, self._foreground.masks([image])[0])
        return _PreparedPixels(item.id, image, None)

    def run(self, batch: Sequence[_PreparedPixels]) -> list[dict[str, Any]]:
        masks = (
            [sample.mask for sample in batch] if self._in_worker else self._foreground.masks([s.image for s in batch])
        )
        rows = []
        for sample, soft in zip(batch, masks, strict=True):
            # A bool mask takes a quarter of the soft one's memory while it waits to be written.
            hard = soft >= THRESHOLD
            rows.append(self._values(sample.sample_id, float(soft.mean()), lambda hard=hard: hard))
        return rows


@dataclass(frozen=True)
class _PreparedTokens:
    sample_id: str
    view: PreparedImage

    @property
    def group_key(self) -> tuple[int, int]:
        return self.view.group_key


class TokenMaskMethod(_MaskMethod):
    """Masks from patch tokens, enlarged to the pixels of the image.

    Args:
        extractor: its foreground finds the patches.
        field, store, num_workers, config: as for :class:`PixelMaskMethod`.
        cached: whether the extractor has a token cache.
    """

    def __init__(
        self,
        extractor: FFAExtractor,
        field: str,
        store: MaskStore,
        num_workers: int,
        config: Mapping[str, Any],
        cached: bool = False,
    ) -> None:
        super().__init__(field, store, num_workers, extractor.config_dict() | dict(config))
        self._cached = cached
        self._extractor = extractor

    def prepare(self, item: SampleItem) -> _PreparedTokens:
        image_hw = image_size(item.filepath)
        image = decode_image(item.filepath, min_side=self._extractor.decode_min_side)
        content_hash = _content_hash(item, self._cached)
        return _PreparedTokens(item.id, self._extractor.prepare(image, None, content_hash, image_hw))

    def run(self, batch: Sequence[_PreparedTokens]) -> list[dict[str, Any]]:
        rows = []
        for sample, result in zip(batch, self._extractor.embed([sample.view for sample in batch]), strict=True):
            fraction = 0.0 if result.fallback else result.foreground_fraction
            make_mask = partial(mask_from_patches, found_coverage(result), sample.view.geometry)
            rows.append(self._values(sample.sample_id, fraction, make_mask))
        return rows


def _content_hash(item: SampleItem, cached: bool) -> str | None:
    """The key of an image in the token cache; reading the file once more is spared where there is no cache."""
    return file_digest(item.filepath) if cached else None


def found_coverage(result: FFAResult) -> np.ndarray:
    """``(h, w)`` share of foreground per patch: 0 where none was found and the extractor averaged all patches."""
    return np.zeros_like(result.coverage) if result.fallback else result.coverage


def mask_from_patches(coverage: np.ndarray, geometry: Geometry) -> np.ndarray:
    """``(H, W)`` bool mask of the size of the image, from the ``(h, w)`` coverage of its patches."""
    return patches_to_mask(coverage, geometry) >= THRESHOLD


def _vector_fields(path: str, thing: str) -> dict[str, FieldSpec]:
    return {
        path: FieldSpec(fo.VectorField, f"FFA vector of the {thing}: unit length, compare by cosine"),
        f"{path}_foreground_fraction": FieldSpec(fo.FloatField, f"Share of the {thing}'s picture that is foreground"),
        f"{path}_n_patches": FieldSpec(fo.IntField, "Patches that entered the average; few make a vector unreliable"),
        f"{path}_fallback": FieldSpec(fo.BooleanField, f"True where no foreground was found in the {thing}"),
    }


def _facts(result: FFAResult) -> tuple[Any, ...]:
    """The values of :func:`_vector_fields`, in its order."""
    return result.vector, result.foreground_fraction, result.n_patches, result.fallback


def _overlaps_image(boxes: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """Which boxes ``(N, 4)`` have numbers and some area inside the image."""
    height, width = image_hw
    low = np.clip(boxes[:, :2], 0, (width, height))
    high = np.clip(boxes[:, :2] + boxes[:, 2:], 0, (width, height))
    with np.errstate(invalid="ignore"):
        return np.isfinite(boxes).all(1) & ((high - low) > 0).all(1)
