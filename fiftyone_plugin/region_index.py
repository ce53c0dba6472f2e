"""The searchable index of a field of regions: where it lies, and how it is kept in step with the dataset."""

import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.claid.region_index import ImageRegions, RegionIndex
from .dataset_io import image_samples
from .engine.local import Progress
from .own_files import dataset_folder
from .region_fields import RegionFields, region_info
from .region_vectors import vectors_reader
from .runs import RunSummary, check_run_key, register_run, run_key_for
from .steps import plain_function

# Samples whose vectors are read at once: some ten megabytes of a large descriptor.
_CHUNK = 256


def build_region_index_steps(
    samples: foc.SampleCollection, field: str = "regions", *, rebuild: bool = False, run_key: str | None = None
) -> Generator[Progress, None, RunSummary]:
    """Makes the regions of a dataset searchable, or brings the index up to date.

    The index lies in ``$SELFSAME_HOME/indexes``: a memory-mapped float16 matrix with the ids of images and regions.
    Images that are new or were computed again are added, and images that left the dataset vanish.

    Args:
        samples: a dataset or view; only its images are added, but those that left the dataset vanish in any case.
        field: regions with vectors, of :func:`compute_claid_regions`.
        rebuild: make the index anew.
        run_key: key of the run record; None makes one of ``field``.

    Returns:
        a :class:`RunSummary`.

    Raises:
        ConfigError: there are no regions in the field, or an option cannot work.
    """
    samples = image_samples(samples)
    info = region_info(samples, field)
    key = run_key or run_key_for(f"{field}_index")
    check_run_key(samples, key, "build_region_index")
    summary = RunSummary(key, "build_region_index")
    started = time.perf_counter()
    index = _open_or_create(samples, field, info, rebuild)
    known = index.stamps()
    gone = set(known) - set(samples._dataset._root_dataset.values("id")) if known else set()
    index.remove(gone)
    todo, skipped = _stale(samples, field, known)
    total = len(todo) + skipped
    yield Progress(0, total, skipped=skipped, label=f"Indexing {field}")
    done = 0
    for start in range(0, len(todo), _CHUNK):
        chunk = todo[start : start + _CHUNK]
        done += index.update(_read_regions(samples, field, chunk, index.dim, summary.failed))
        yield Progress(done, total, len(summary.failed), skipped, f"Indexing {field}")
    summary.counts = {"total": total, "done": done, "skipped": skipped, "failed": len(summary.failed)}
    summary.counts |= {"removed": len(gone), "regions": index.n_regions}
    summary.seconds = time.perf_counter() - started
    summary.details["folder"] = str(index_folder(samples, field))
    register_run(samples, summary, {"field": field, "regions": info})
    return summary


build_region_index = plain_function(build_region_index_steps)


def index_folder(samples: foc.SampleCollection, field: str) -> Path:
    """Where the index of a field lies."""
    return dataset_folder(samples, "indexes") / field


def _open_or_create(samples: foc.SampleCollection, field: str, info: dict[str, Any], rebuild: bool) -> RegionIndex:
    folder = index_folder(samples, field)
    if folder.exists() and not rebuild:
        index = RegionIndex.open(folder)
        # Vectors made in another way cannot be compared with these: all of them are read again.
        if index.info == info:
            return index
    shutil.rmtree(folder, ignore_errors=True)
    return RegionIndex.create(folder, info["dim"], info)


def _stale(samples: foc.SampleCollection, field: str, known: dict[str, str]) -> tuple[list[str], int]:
    """Ids of the samples that the index lacks or has in an older form, and the number of the others."""
    with_regions = samples.exists(RegionFields(field).count)
    ids, stamps = with_regions.values(["id", RegionFields(field).provenance])
    todo = [one for one, stamp in zip(ids, stamps, strict=True) if known.get(one) != (stamp or "")]
    return todo, len(ids) - len(todo)


def _read_regions(
    samples: foc.SampleCollection, field: str, ids: Sequence[str], dim: int, failed: dict[str, str]
) -> Iterator[ImageRegions]:
    """The stored regions of some samples; those without usable vectors are explained in ``failed``."""
    names = RegionFields(field)
    stored, read = vectors_reader(samples, field)
    paths = ["id", names.provenance, f"{names.labels}.id", f"{names.labels}.bounding_box", stored]
    view = fov.make_optimized_select_view(samples, ids)
    for sample_id, stamp, label_ids, boxes, vectors in zip(*view.values(paths), strict=True):
        label_ids = list(label_ids or [])
        matrix = read(vectors, dim)
        if matrix is None or matrix.shape != (len(label_ids), dim) or not np.isfinite(matrix).all():
            failed[sample_id] = (
                f"its {len(label_ids)} regions in {field!r} have no vectors of {dim} numbers; run "
                "compute_claid_regions on it again with overwrite=True"
            )
            continue
        boxes = np.asarray(boxes or [], np.float64).reshape(-1, 4)
        yield ImageRegions(sample_id, stamp or "", label_ids, boxes, matrix)
