"""Reading embedding vectors out of a field into one matrix, with a reason for every sample that has none."""

import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import fiftyone as fo
import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import ConfigError
from .fingerprints import read_fields

_CHUNK = 2000

# A larger matrix goes to a temporary file and is mapped, so that memory is left for the search.
_MAX_BYTES_IN_MEMORY = 2 << 30


@dataclass
class VectorTable:
    """The usable vectors of a view.

    Attributes:
        ids: sample id of each row.
        matrix: ``(n, d)`` float32, as stored: neither centred nor normalised; may be memory-mapped.
        missing: reason by id of the samples without a usable vector.
    """

    ids: list[str]
    matrix: np.ndarray
    missing: dict[str, str] = field(default_factory=dict)


def vector_fields(samples: foc.SampleCollection) -> list[str]:
    """Names of the sample fields that hold vectors."""
    return sorted(samples.get_field_schema(ftype=fo.VectorField))


def check_vector_field(samples: foc.SampleCollection, path: str) -> None:
    """Refuses fields that hold no vectors of whole samples.

    Raises:
        ConfigError: no such field, or one of another type; the message lists the vector fields there are.
    """
    existing = vector_fields(samples)
    hint = (
        f"vector fields: {', '.join(existing)}" if existing else "there is no vector field yet: run compute_ffa first"
    )
    kind = samples.get_field(path) if isinstance(path, str) else None
    if kind is None:
        raise ConfigError(f"embeddings={path!r}: dataset {samples._dataset.name!r} has no such field; {hint}")
    if "." in path:
        raise ConfigError(f"embeddings={path!r} belongs to objects, but duplicates are found among images; {hint}")
    if not isinstance(kind, fo.VectorField):
        raise ConfigError(f"embeddings={path!r} is a {type(kind).__name__}, not a VectorField; {hint}")


def read_vectors(
    samples: foc.SampleCollection, path: str, ids: list[str] | None = None
) -> Generator[float, None, VectorTable]:
    """Reads vectors in batches; yields the share that is done.

    Args:
        samples: a dataset or flat view.
        path: the vector field.
        ids: only these samples, in this order; those that were deleted have no row and no reason. None is all.

    Raises:
        ConfigError: the field is unfit (:func:`check_vector_field`), no sample has a vector, or lengths differ (both
            samples are named).
    """
    check_vector_field(samples, path)
    if ids is None:
        ids = samples.values("id")
    else:
        existing = set(samples.values("id"))
        ids = [sample_id for sample_id in ids if sample_id in existing]
    present = set(samples.exists(path).values("id"))
    if ids and not present:
        raise ConfigError(
            f"embeddings={path!r}: none of the {len(ids):,} samples has a vector; run compute_ffa(..., field={path!r}) "
            "on them first"
        )
    missing = _missing_reasons(samples, path, [sample_id for sample_id in ids if sample_id not in present])
    wanted = [sample_id for sample_id in ids if sample_id in present]
    matrix, kept = np.empty((0, 0), np.float32), []
    for start in range(0, len(wanted), _CHUNK):
        for sample_id, vector in _chunk(samples, wanted[start : start + _CHUNK], path):
            if not matrix.size:
                matrix = _allocate(len(wanted), vector.size)
            if vector.shape != matrix.shape[1:]:
                raise ConfigError(_unequal(samples, path, sample_id, vector, kept[0], matrix))
            if not np.isfinite(vector).all() or not vector.any():
                missing[sample_id] = f"the vector in {path!r} is zero or not finite; recompute it with overwrite=True"
                continue
            matrix[len(kept)] = vector
            kept.append(sample_id)
        yield (start + _CHUNK) / max(len(wanted), _CHUNK)
    return VectorTable(kept, matrix[: len(kept)], missing)


def _chunk(samples: foc.SampleCollection, ids: Sequence[str], path: str) -> list[tuple[str, np.ndarray]]:
    """Vectors in the order of ``ids``."""
    view = fov.make_optimized_select_view(samples, ids)
    found = dict(zip(*view.values(["id", path]), strict=True))
    return [(sample_id, np.asarray(found[sample_id]).ravel()) for sample_id in ids if found.get(sample_id) is not None]


def _missing_reasons(samples: foc.SampleCollection, path: str, ids: list[str]) -> dict[str, str]:
    errors = {}
    if ids and samples.has_field(f"{path}_error"):
        errors = read_fields(samples, ids, [f"{path}_error"])
    default = f"no vector in {path!r}; run compute_ffa on this sample first"
    return {
        sample_id: f"no vector in {path!r}: {error}" if (error := errors.get(sample_id, (None,))[0]) else default
        for sample_id in ids
    }


def _unequal(
    samples: foc.SampleCollection, path: str, sample_id: str, vector: np.ndarray, other_id: str, matrix: np.ndarray
) -> str:
    files = {key: value[0] for key, value in read_fields(samples, [sample_id, other_id], ["filepath"]).items()}
    return (
        f"embeddings={path!r}: sample {sample_id} ({files.get(sample_id)}) has {vector.size} numbers and sample "
        f"{other_id} ({files.get(other_id)}) {matrix.shape[1]}, so they come from different models; recompute the "
        "field with one model and overwrite=True"
    )


def _allocate(rows: int, dim: int) -> np.ndarray:
    if rows * dim * 4 <= _MAX_BYTES_IN_MEMORY:
        return np.empty((rows, dim), np.float32)
    # The file has no name any more: it is gone when the matrix is.
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, dim))
