"""The files of a region index: logs that only grow, and a small manifest that says how much of them counts.

A writer appends behind the counted part and then replaces the manifest by renaming; whenever it is killed, the manifest
names the previous state or the new one. A later entry of an image takes the place of an earlier one. What is dead stays
in the logs until they are rewritten under new names.
"""

import contextlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import ConfigError

MANIFEST = "index.json"
FORMAT = "selfsame-regions-1"

# Labels of a database have ids of 24 hexadecimal digits.
LABEL_BYTES = 24
REGION = np.dtype([("label", f"S{LABEL_BYTES}"), ("box", "<f4", (4,))])
VECTOR = np.dtype("<f2")

# The logs: float16 rows, REGION records in the same order, and one line of JSON per change of an image.
LOGS = ("vectors", "regions", "images")

_LOCK = "writing.lock"
# A writer holds the lock for one update; waiting longer than this means that something hangs.
LOCK_SECONDS = 60.0

# Between reading the manifest and opening the logs a writer may rewrite them; it does not do so all the time.
_ATTEMPTS = 5

# Bytes copied at a time when logs are rewritten.
_COPY_BYTES = 1 << 24


@dataclass(frozen=True)
class Manifest:
    """What counts.

    Attributes:
        dim: dimensions D of a vector.
        info: JSON-able facts that the owner wants kept (model, options ...).
        generation: number in the names of the logs.
        rows: regions in the logs, dead ones included.
        images_bytes: length of the log of images.
        format: name of this layout.
    """

    dim: int
    info: dict[str, Any]
    generation: int = 0
    rows: int = 0
    images_bytes: int = 0
    format: str = FORMAT

    def size(self, log: str) -> int:
        """Bytes of a log that count."""
        per_row = {"vectors": self.dim * VECTOR.itemsize, "regions": REGION.itemsize}
        return self.images_bytes if log == "images" else self.rows * per_row[log]

    def path(self, folder: Path, log: str) -> Path:
        """The file of a log."""
        return folder / f"{log}.{self.generation:06d}"


@dataclass(frozen=True)
class Snapshot:
    """The state that one manifest names.

    Attributes:
        manifest: the manifest.
        vectors: ``(rows, D)`` float16, memory-mapped.
        regions: ``(rows,)`` :data:`REGION`, memory-mapped.
        ids: the I live images, in the order of insertion.
        stamps: their stamps.
        starts: ``(I,)`` int64 first row of each, ascending.
        counts: ``(I,)`` int64 regions of each.
        dead_share: the larger share, of rows or of entries, that is dead.
    """

    manifest: Manifest
    vectors: np.ndarray
    regions: np.ndarray
    ids: list[str]
    stamps: list[str]
    starts: np.ndarray
    counts: np.ndarray
    dead_share: float


def create_store(folder: Path, dim: int, info: dict[str, Any]) -> None:
    """Makes an empty index in a folder that does not exist or is empty.

    Raises:
        ConfigError: the folder holds something, ``dim`` is not positive, or ``info`` is no JSON.
    """
    if dim < 1:
        raise ConfigError(f"dim={dim} must be at least 1")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not an empty folder; open the index in it, or choose another one")
    manifest = Manifest(dim, info)
    try:
        json.dumps(info)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"info cannot be written as JSON ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    for log in LOGS:
        manifest.path(folder, log).touch()
    _replace_manifest(folder, manifest)


def read_store(folder: Path) -> Snapshot:
    """The present state.

    Raises:
        ConfigError: the folder holds no index, or a file of it is broken.
    """
    for _ in range(_ATTEMPTS):
        manifest = _read_manifest(folder)
        with contextlib.suppress(FileNotFoundError):
            return _open_logs(folder, manifest)
    raise ConfigError(f"{folder}: files of the index are missing; delete the folder and build it again")


class StoreWriter:
    """Appends to the logs; what it wrote counts from :meth:`commit` on. Made by :func:`writing`."""

    def __init__(self, folder: Path, snapshot: Snapshot, files: dict[str, BinaryIO]) -> None:
        self.snapshot = snapshot
        self._folder = folder
        self._files = files
        self._rows = snapshot.manifest.rows

    def append(self, image_id: str, stamp: str, regions: np.ndarray, vectors: np.ndarray) -> None:
        """Adds an image with ``(R,)`` :data:`REGION` and ``(R, D)`` vectors, in place of its earlier entry if any."""
        _write_entries(self._files["images"], [(image_id, stamp, self._rows, len(regions))])
        self._files["regions"].write(np.ascontiguousarray(regions, REGION).tobytes())
        self._files["vectors"].write(np.ascontiguousarray(vectors, VECTOR).tobytes())
        self._rows += len(regions)

    def remove(self, image_id: str) -> None:
        """Adds an entry that says that an image is gone."""
        _write_entries(self._files["images"], [(image_id, None, 0, 0)])

    def commit(self) -> None:
        """Makes all that was written count, in one step."""
        for file in self._files.values():
            _flush(file)
        end = self._files["images"].tell()
        _replace_manifest(self._folder, replace(self.snapshot.manifest, rows=self._rows, images_bytes=end))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[StoreWriter]:
    """The one writer of an index.

    Raises:
        ConfigError: another writer holds the lock for a minute, or the index is broken.
    """
    with _locked(folder), contextlib.ExitStack() as stack:
        snapshot = read_store(folder)
        _remove_other_logs(folder, snapshot.manifest)
        files: dict[str, BinaryIO] = {}
        for log in LOGS:
            files[log] = stack.enter_context(open(snapshot.manifest.path(folder, log), "r+b"))
            # Behind the counted part lies what a writer left that did not reach its commit.
            files[log].truncate(snapshot.manifest.size(log))
            files[log].seek(0, os.SEEK_END)
        yield StoreWriter(folder, snapshot, files)


def compact_store(folder: Path) -> None:
    """Rewrites the logs without what is dead, in constant memory; needs disk space for the live part.

    Raises:
        ConfigError: as :func:`writing`.
    """
    with _locked(folder):
        old = read_store(folder)
        fresh = replace(old.manifest, generation=old.manifest.generation + 1, rows=int(old.counts.sum()))
        starts = np.cumsum(old.counts) - old.counts
        with contextlib.ExitStack() as stack:
            files = {log: stack.enter_context(open(fresh.path(folder, log), "wb")) for log in LOGS}
            for first, stop in _runs(old.starts, old.counts):
                _copy(old.vectors[first:stop], files["vectors"])
                _copy(old.regions[first:stop], files["regions"])
            entries = zip(old.ids, old.stamps, starts.tolist(), old.counts.tolist(), strict=True)
            _write_entries(files["images"], entries)
            for file in files.values():
                _flush(file)
            fresh = replace(fresh, images_bytes=files["images"].tell())
        _replace_manifest(folder, fresh)
        _remove_other_logs(folder, fresh)


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        record = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"{folder} holds no region index ({MANIFEST} is missing); create one first") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); delete the folder and build the index again") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ConfigError(f"{path} is not a region index of the format {FORMAT}; choose another folder")
    try:
        manifest = Manifest(**record)
        if min(manifest.dim, manifest.generation, manifest.rows, manifest.images_bytes) < 0:
            raise ValueError("a negative number")
        return manifest
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path} is broken ({error}); delete the folder and build the index again") from error


def _replace_manifest(folder: Path, manifest: Manifest) -> None:
    aside = folder / f"{MANIFEST}.new"
    with open(aside, "wb") as file:
        file.write(json.dumps(asdict(manifest), indent=1).encode())
        _flush(file)
    os.replace(aside, folder / MANIFEST)


def _open_logs(folder: Path, manifest: Manifest) -> Snapshot:
    for log in LOGS:
        path = manifest.path(folder, log)
        if path.stat().st_size < manifest.size(log):
            raise ConfigError(f"{path} is shorter than it should be; delete the folder and build the index again")
    images = manifest.path(folder, "images")
    try:
        with open(images, "rb") as file:
            lines = file.read(manifest.images_bytes).splitlines()
        entries = json.loads(b"[" + b",".join(lines) + b"]")
        live = _live(entries)
        starts, counts = (np.array([one[i] for one in live.values()], np.int64) for i in (1, 2))
        if len(live) and (starts.min() < 0 or counts.min() < 0 or (starts + counts).max() > manifest.rows):
            raise ValueError("a region out of range")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{images} is broken ({error}); delete the folder and build the index again") from error
    totals = ((int(counts.sum()), manifest.rows), (len(live), len(entries)))
    return Snapshot(
        manifest,
        _mapped(manifest.path(folder, "vectors"), VECTOR, (manifest.rows, manifest.dim)),
        _mapped(manifest.path(folder, "regions"), REGION, (manifest.rows,)),
        list(live),
        [stamp for stamp, _, _ in live.values()],
        starts,
        counts,
        max(1 - left / total if total else 0.0 for left, total in totals),
    )


def _live(entries: Iterable[list]) -> dict[str, tuple[str, int, int]]:
    """Stamp, start and count of the live images; a replaced image counts as inserted anew."""
    live: dict[str, tuple[str, int, int]] = {}
    for image_id, stamp, start, count in entries:
        live.pop(image_id, None)
        if stamp is not None:
            live[image_id] = (stamp, start, count)
    return live


def _mapped(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    # An empty file cannot be mapped.
    return np.memmap(path, dtype, "r", shape=shape) if shape[0] else np.empty(shape, dtype)


def _runs(starts: np.ndarray, counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """``(first, stop)`` of the rows of successive images, joined where they touch."""
    stops = starts + counts
    breaks = np.flatnonzero(starts[1:] != stops[:-1])
    firsts, lasts = np.r_[0, breaks + 1], np.r_[breaks, len(starts) - 1]
    for first, last in zip(firsts, lasts, strict=True) if len(starts) else ():
        yield int(starts[first]), int(stops[last])


def _copy(array: np.ndarray, file: BinaryIO) -> None:
    step = max(1, _COPY_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        file.write(array[start : start + step].tobytes())


def _write_entries(file: BinaryIO, entries: Iterable[tuple[str, str | None, int, int]]) -> None:
    file.writelines(json.dumps(entry).encode() + b"\n" for entry in entries)


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _remove_other_logs(folder: Path, manifest: Manifest) -> None:
    """Deletes the logs of other generations; one that a reader holds open on Windows stays for the next writer."""
    keep = {manifest.path(folder, log) for log in LOGS}
    for log in LOGS:
        for path in folder.glob(f"{log}.*"):
            if path not in keep:
                with contextlib.suppress(OSError):
                    path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the writers' lock, which the system releases should this process be killed."""
    from filelock import FileLock, Timeout

    if not (folder / MANIFEST).is_file():
        raise ConfigError(f"{folder} holds no region index ({MANIFEST} is missing); create one first")
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout as error:
        raise ConfigError(f"{folder}: another process is writing to this index; try again when it has ended") from error
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error})") from error
    try:
        yield
    finally:
        lock.release()
