"""Where the vectors of regions are kept: in one array per sample, on each region, or in files beside the database."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from .dataset_io import FieldSpec
from .own_files import dataset_folder, written_aside
from .region_fields import RegionFields

Storage = Literal["sample", "labels", "files"]
STORAGES: tuple[Storage, ...] = ("sample", "labels", "files")

_UNIT = "unit length, compare by cosine"


class VectorFiles:
    """One NumPy file per sample with the vectors of its regions, in ``$SELFSAME_HOME/region_vectors``.

    Args:
        samples: the dataset, or a view into it.
        field: the regions.
        num_workers: threads that write, so that the device does not wait for the disk.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, samples: foc.SampleCollection, field: str, num_workers: int) -> None:
        self._folder = dataset_folder(samples, "region_vectors") / field
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self._folder} cannot be created ({error}); set SELFSAME_HOME") from error
        self._writers = ThreadPoolExecutor(num_workers, thread_name_prefix="selfsame-vectors")

    def path(self, sample_id: str) -> Path:
        """The file of a sample; a thousand files or so share a folder when there are a million."""
        return self._folder / sample_id[-3:] / f"{sample_id}.npy"

    def store(self, sample_id: str, vectors: np.ndarray) -> "Future[str]":
        """Begins to store ``(R, D)`` vectors; the result is the path."""
        return self._writers.submit(self._write, sample_id, vectors)

    def _write(self, sample_id: str, vectors: np.ndarray) -> str:
        path = self.path(sample_id)
        path.parent.mkdir(exist_ok=True)
        with written_aside(path) as stream:
            np.save(stream, vectors, allow_pickle=False)
        return str(path)


def storage_fields(names: RegionFields, storage: Storage) -> dict[str, FieldSpec]:
    """The field that holds the vectors, or says where they are, by path."""
    if storage == "sample":
        text = f"Vectors of the regions, a row each: {_UNIT}"
        return {names.vectors: FieldSpec(fo.ArrayField, text, internal=True)}
    if storage == "files":
        text = f"NumPy file with the vectors of the regions, a row each: {_UNIT}"
        return {names.vectors_path: FieldSpec(fo.StringField, text, internal=True)}
    return {names.label_vectors: FieldSpec(fo.VectorField, f"Vector of the region: {_UNIT}")}


def vectors_reader(samples: foc.SampleCollection, field: str) -> tuple[str, Callable[[Any, int], np.ndarray | None]]:
    """The path at which the vectors of a field's regions are stored, and a function ``(value there, D)`` that returns
    ``(R, D)`` vectors, or None where one is missing."""
    names = RegionFields(field)
    storage = samples._dataset.get_field(field).info["storage"]
    (path,) = storage_fields(names, storage)
    return path, _from_file if storage == "files" else _stacked


def _stacked(vectors: Any, dim: int) -> np.ndarray | None:
    if vectors is None or any(vector is None for vector in vectors):
        return None
    if not len(vectors):
        return np.empty((0, dim), np.float16)
    shapes = {np.shape(vector) for vector in vectors}
    return np.stack(list(vectors)) if len(shapes) == 1 else None


def _from_file(path: str | None, dim: int) -> np.ndarray | None:
    try:
        return np.load(path or "", allow_pickle=False)
    except (OSError, ValueError):
        return None
