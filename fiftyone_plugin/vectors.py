"""Reading embedding vectors out of a field into one matrix, with a reason for every sample that has none."""

import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import ConfigError
from .fingerprints import read_fields
from .item_fields import Item, Place, read_items

# Progress is reported every so many vectors; so many samples are asked for at a time.
_CHUNK, _SELECTED = 2000, 20_000

# A larger matrix goes to a temporary file and is mapped, so that memory is left for the search.
_MAX_BYTES_IN_MEMORY = 2 << 30

_IMAGES = Place()


@dataclass
class VectorTable:
    """The usable vectors of a view.

    Attributes:
        ids: id of the sample or object of each row.
        matrix: ``(n, d)`` float32, as stored: neither centred nor normalised; may be memory-mapped.
        missing: reason by id of those without a usable vector.
        homes: sample by id of objects; empty for images.
    """

    ids: list[str]
    matrix: np.ndarray
    missing: dict[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Row by id."""
        return {item_id: row for row, item_id in enumerate(self.ids)}


def vector_fields(samples: foc.SampleCollection, place: Place = _IMAGES) -> list[str]:
    """Names of the sample fields, or of the attributes of objects, that hold vectors."""
    root = place.path("")
    found = samples.get_field_schema(ftype=fo.VectorField, flat=bool(root))
    names = [path.removeprefix(root) for path in found if path.startswith(root)]
    return sorted(name for name in names if "." not in name)


def check_vector_field(samples: foc.SampleCollection, path: str, place: Place = _IMAGES) -> None:
    """Refuses fields that hold no vectors of whole samples, or attributes that hold none of objects.

    Args:
        path: the field, or the attribute of each object where ``place`` says so.

    Raises:
        ConfigError: no such field, or one of another type; the message lists the vector fields there are.
    """
    place.check(samples)
    own = "field" if place.patches_field is None else f"attribute of {place.patches_field!r}"
    existing = vector_fields(samples, place)
    run = "compute_ffa" if place.patches_field is None else f"compute_ffa(..., objects_field={place.patches_field!r})"
    hint = f"vector fields: {', '.join(existing)}" if existing else f"there is no vector field yet: run {run} first"
    kind = samples.get_field(place.path(path)) if isinstance(path, str) else None
    if kind is None:
        raise ConfigError(f"embeddings={path!r}: dataset {samples._dataset.name!r} has no such {own}; {hint}")
    if "." in path:
        raise ConfigError(
            f"embeddings={path!r} belongs to objects, but duplicates are found among images unless patches_field names "
            f"their field; {hint}"
        )
    if not isinstance(kind, fo.VectorField):
        raise ConfigError(f"embeddings={path!r} is a {type(kind).__name__}, not a VectorField; {hint}")


def read_vectors(
    samples: foc.SampleCollection, path: str, ids: list[str] | None = None, *, place: Place = _IMAGES
) -> Generator[float, None, VectorTable]:
    """Reads vectors in batches; yields the share that is done.

    Args:
        samples: a dataset or flat view.
        path: the vector field, or the attribute of each object where ``place`` says so.
        ids: only these samples or objects, in this order; those that were deleted have no row and no reason. None is
            all.
        place: whether images or objects have the vectors.

    Raises:
        ConfigError: the field is unfit (:func:`check_vector_field`), nothing has a vector, or lengths differ (both
            samples are named).
    """
    check_vector_field(samples, path, place)
    total = samples.count(place.path("id")) if ids is None else len(ids)
    collector = _Collector(samples, path, place, total)
    for count, item in enumerate(_items(samples, path, ids, place)):
        collector.add(item)
        if count % _CHUNK == 0:
            yield count / max(total, _CHUNK)
    return collector.table(ids)


class _Collector:
    """The growing matrix of the usable vectors."""

    def __init__(self, samples: foc.SampleCollection, path: str, place: Place, total: int) -> None:
        self._samples, self._path, self._place, self._total = samples, path, place, total
        self._matrix = np.empty((0, 0), np.float32)
        self._ids: list[str] = []
        self._homes: dict[str, str] = {}
        self._lacking: list[str] = []
        self._broken: dict[str, str] = {}

    def add(self, item: Item) -> None:
        if self._place.patches_field is not None:
            self._homes[item.id] = item.sample_id
        if item.values[0] is None:
            self._lacking.append(item.id)
            return
        vector = np.asarray(item.values[0]).ravel()
        if not self._matrix.size:
            self._matrix = _allocate(self._total, vector.size)
        if vector.shape != self._matrix.shape[1:]:
            first = self._ids[0] if self._ids else next(iter(self._broken))
            homes = [self._homes.get(one, one) for one in (item.id, first)]
            raise ConfigError(_unequal(self._samples, self._path, homes, vector, self._matrix))
        if not np.isfinite(vector).all() or not vector.any():
            reason = f"the vector in {self._path!r} is zero or not finite; recompute it with overwrite=True"
            self._broken[item.id] = reason
            return
        self._matrix[len(self._ids)] = vector
        self._ids.append(item.id)

    def table(self, order: Sequence[str] | None) -> VectorTable:
        """The vectors, in the order of ids if there is one.

        Raises:
            ConfigError: nothing has a vector.
        """
        count = len(self._ids) + len(self._lacking) + len(self._broken)
        if count and count == len(self._lacking):
            run = f"objects_field={self._place.patches_field!r}" if self._homes else f"field={self._path!r}"
            things = "objects" if self._homes else "samples"
            raise ConfigError(
                f"embeddings={self._path!r}: none of the {count:,} {things} has a vector; run compute_ffa(..., {run}) "
                "on them first"
            )
        missing = _missing_reasons(self._samples, self._path, self._lacking, self._place) | self._broken
        ids, matrix = self._ids, self._matrix[: len(self._ids)]
        if order is not None:
            rank = {item_id: position for position, item_id in enumerate(order)}
            sorted_ids = sorted(ids, key=rank.__getitem__)
            if sorted_ids != ids:
                row_of = {item_id: row for row, item_id in enumerate(ids)}
                ids, matrix = sorted_ids, matrix[[row_of[item_id] for item_id in sorted_ids]]
        return VectorTable(ids, matrix, missing, self._homes)


def _items(samples: foc.SampleCollection, path: str, ids: Sequence[str] | None, place: Place) -> Iterator[Item]:
    if ids is None:
        yield from read_items(samples, place, [path])
    elif place.patches_field is None:
        for start in range(0, len(ids), _SELECTED):
            view = fov.make_optimized_select_view(samples, ids[start : start + _SELECTED])
            yield from read_items(view, place, [path])
    else:
        wanted = set(ids)
        yield from (item for item in read_items(samples, place, [path]) if item.id in wanted)


def _missing_reasons(samples: foc.SampleCollection, path: str, ids: list[str], place: Place) -> dict[str, str]:
    if place.patches_field is not None:
        return dict.fromkeys(ids, f"no vector in {path!r}; run compute_ffa on the objects of this sample first")
    errors = {}
    if ids and samples.has_field(f"{path}_error"):
        errors = read_fields(samples, ids, [f"{path}_error"])
    default = f"no vector in {path!r}; run compute_ffa on this sample first"
    return {
        sample_id: f"no vector in {path!r}: {error}" if (error := errors.get(sample_id, (None,))[0]) else default
        for sample_id in ids
    }


def _unequal(
    samples: foc.SampleCollection, path: str, homes: Sequence[str], vector: np.ndarray, matrix: np.ndarray
) -> str:
    """The message for two samples whose vectors differ in length: that of the one, and all before it."""
    files = {key: value[0] for key, value in read_fields(samples, homes, ["filepath"]).items()}
    one, other = homes
    return (
        f"embeddings={path!r}: sample {one} ({files.get(one)}) has {vector.size} numbers and sample {other} "
        f"({files.get(other)}) {matrix.shape[1]}, so they come from different models; recompute the field with one "
        "model and overwrite=True"
    )


def _allocate(rows: int, dim: int) -> np.ndarray:
    if rows * dim * 4 <= _MAX_BYTES_IN_MEMORY:
        return np.empty((rows, dim), np.float32)
    # The file has no name any more: it is gone when the matrix is.
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, dim))
