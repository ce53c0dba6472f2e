"""Searching images for an object: from a query to a ranked view with the regions that were found."""

import os
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.claid.region_index import RegionIndex
from ..brain.claid.search import COMBINES, Combine, ImageHit
from ..brain.errors import ConfigError
from .dataset_io import (
    FieldSpec,
    check_field_name,
    check_own_field,
    declare_fields,
    image_samples,
    show_in_sidebar,
)
from .engine.local import Progress
from .region_fields import SEARCH_METHOD, object_searches, region_info
from .region_index import build_region_index_steps, index_folder
from .region_query import Query, QueryOptions, resolve_query
from .runs import RunSummary, check_run_key, load_record, register_run
from .steps import plain_function


def search_by_object_steps(
    samples: foc.SampleCollection,
    field: str = "regions",
    *,
    labels: Sequence[str | Mapping[str, Any]] | None = None,
    images: Sequence[str] | None = None,
    image: str | os.PathLike | bytes | np.ndarray | None = None,
    text: str | None = None,
    box: Sequence[float] | None = None,
    crop: bool = False,
    combine: Combine = "all",
    limit: int = 100,
    include_query: bool = False,
    key: str = "search",
    refresh: bool = True,
    device: str = "auto",
) -> Generator[Progress, None, RunSummary]:
    """Finds the images that show an object, wherever in the picture it is, best first.

    The query is one or several regions or boxes (``labels``), whole images (``images``), an image file from outside
    (``image``), a part of one of these (``box``), or words (``text``; the regions must have been described by
    SigLIP). An image scores as its best region does. The outcome is kept in fields of the dataset until it is cleared:
    ``<key>``, Detections with the region that was found and its ``similarity``; ``<key>_similarity``, the score;
    ``<key>_rank``, 1 for the best. All else is left as it is.

    Args:
        samples: where to search: a dataset or view (of patches: all of its dataset).
        field: regions of :func:`compute_claid_regions`.
        labels: ids of regions or of any detections, or ``session.selected_labels``.
        images: ids of samples.
        image: path, bytes or ``(H, W, 3)`` uint8 array of a picture.
        text: words.
        box: ``(x, y, width, height)`` relative to the picture's sides, with ``image`` or one of ``images``.
        crop: cut what is sought out of its picture before it is encoded, as the paper does; by default the whole
            picture is, as those of the regions were.
        combine: several queries: ``"all"`` ranks images first that show all of them, ``"any"`` those that show one.
        limit: most images.
        include_query: whether images that the query was taken from may be found.
        key: name of the outcome; an earlier one of that name is replaced.
        refresh: bring the index up to date first.
        device: where encoders run: ``"auto"``, ``"cpu"``, ``"cuda"`` ...

    Returns:
        a :class:`RunSummary`; the plain function returns the view of :func:`search_view`.

    Raises:
        ConfigError: an option cannot work; the message says which and what to do.
        ImageError: the query's picture cannot be read.
        ModelError: an encoder cannot be loaded.
    """
    options = QueryOptions(labels, images, image, text, box, crop, device)
    gallery = gallery_of(samples)
    region_info(gallery, field)
    _check(gallery, key, limit, combine)
    started = time.perf_counter()
    if refresh or not index_folder(gallery, field).exists():
        yield from build_region_index_steps(gallery._root_dataset, field)
    yield Progress(0, 0, label="Searching")
    index = RegionIndex.open(index_folder(gallery, field))
    query = resolve_query(gallery, field, index, options)
    hits = index.search(
        query.vectors,
        combine=combine,
        limit=limit,
        image_ids=set(gallery.values("id")) if isinstance(gallery, fov.DatasetView) else None,
        exclude=() if include_query else query.sample_ids,
    )
    _write(gallery._root_dataset, SearchFields(key), field, query, hits)
    summary = RunSummary(key, SEARCH_METHOD, {"found": len(hits), "regions": index.n_regions})
    summary.seconds = time.perf_counter() - started
    summary.details = {"best": hits[0].score if hits else None, "names": list(query.names)}
    register_run(gallery, summary, {"field": field, "combine": combine, "limit": limit, "query": _record(options)})
    return summary


class SearchFields:
    """The names of the fields that belong to the key of a search."""

    def __init__(self, key: str) -> None:
        self.regions, self.similarity, self.rank = key, f"{key}_similarity", f"{key}_rank"
        self.all = (self.regions, self.similarity, self.rank)

    def specs(self) -> dict[str, FieldSpec]:
        """How they are declared."""
        return {
            self.regions: FieldSpec(
                fo.EmbeddedDocumentField, "The box of the region that was found", {"embedded_doc_type": fo.Detections}
            ),
            f"{self.regions}.detections.similarity": FieldSpec(fo.FloatField, "Raw cosine to the query"),
            f"{self.regions}.detections.region_id": FieldSpec(fo.StringField, "Id of the region"),
            self.similarity: FieldSpec(fo.FloatField, "Score of the image: raw cosine of its best region"),
            self.rank: FieldSpec(fo.IntField, "Position in the result; 1 is the best"),
        }


def search_view(samples: foc.SampleCollection, key: str = "search") -> fov.DatasetView:
    """The images that a search found among some samples, best first.

    Raises:
        ConfigError: there is no such search.
    """
    gallery, names = gallery_of(samples), SearchFields(key)
    _check_known(gallery, key)
    return gallery.match({names.rank: {"$gte": 1}}).sort_by(names.rank)


def _outcome(samples: foc.SampleCollection, summary: RunSummary) -> fov.DatasetView:
    return search_view(samples, summary.key or "")


search_by_object = plain_function(search_by_object_steps, _outcome)


def clear_object_search(samples: foc.SampleCollection, key: str = "search") -> None:
    """Removes the outcome of a search: its fields and its record.

    Raises:
        ConfigError: there is no such search.
    """
    dataset, names = gallery_of(samples)._root_dataset, SearchFields(key)
    _check_known(dataset, key)
    dataset.delete_sample_fields([name for name in names.all if dataset.has_field(name)])
    dataset.delete_run(key)


def gallery_of(samples: foc.SampleCollection) -> foc.SampleCollection:
    """Where to search: patches stand for the dataset that they were cut from."""
    if isinstance(samples, fov.DatasetView) and samples._is_generated:
        samples = samples._root_dataset
    return image_samples(samples)


def _check(gallery: foc.SampleCollection, key: str, limit: int, combine: str) -> None:
    check_field_name(gallery, key, "key")
    check_run_key(gallery, key, SEARCH_METHOD)
    if load_record(gallery, key) is None:
        for name in SearchFields(key).all:
            check_own_field(gallery, name, "key")
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ConfigError(f"limit={limit!r} must be a whole number of at least 1")
    if combine not in COMBINES:
        raise ConfigError(f"combine={combine!r} is unknown; use one of {', '.join(COMBINES)}")


def _check_known(samples: foc.SampleCollection, key: str) -> None:
    known = object_searches(samples)
    if key not in known:
        hint = f"searches: {', '.join(known)}" if known else "run search_by_object first"
        raise ConfigError(f"key={key!r}: dataset {samples._dataset.name!r} has no such search; {hint}")


def _write(dataset: fo.Dataset, names: SearchFields, field: str, query: Query, hits: Sequence[ImageHit]) -> None:
    specs = names.specs()
    declare_fields(dataset, specs, {"method": SEARCH_METHOD, "field": field})
    show_in_sidebar(dataset, list(names.all))
    dataset.create_index(names.rank)
    earlier = dataset.match({names.rank: {"$gte": 1}}).values("id")
    for name in names.all:
        dataset.set_values(name, dict.fromkeys(earlier), key_field="id")
    found = {hit.image_id: fo.Detections(detections=_detections(query, hit)) for hit in hits}
    dataset.set_values(names.regions, found, key_field="id")
    dataset.set_values(names.similarity, {hit.image_id: float(hit.score) for hit in hits}, key_field="id")
    dataset.set_values(names.rank, {hit.image_id: rank for rank, hit in enumerate(hits, 1)}, key_field="id")


def _detections(query: Query, hit: ImageHit) -> list[fo.Detection]:
    """What was found in an image, as boxes: a mask would hide the very object that the user wants to see."""
    return [
        fo.Detection(
            label=name,
            bounding_box=[float(value) for value in box],
            similarity=float(similarity),
            region_id=label_id,
        )
        for name, label_id, box, similarity in zip(query.names, hit.label_ids, hit.boxes, hit.similarities, strict=True)
    ]


def _record(options: QueryOptions) -> dict[str, Any]:
    """What was searched for, as the run record keeps it; a picture is not kept."""
    return {
        "labels": [label if isinstance(label, str) else dict(label) for label in options.labels or ()],
        "images": list(options.images or ()),
        "image": str(options.image) if isinstance(options.image, str | os.PathLike) else options.image is not None,
        "text": options.text,
        "crop": options.crop,
        "box": list(options.box) if options.box is not None else None,
    }
