"""A searchable folder of region vectors: memory-mapped, incremental, exact, for tens of millions of regions."""

import os
import warnings
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..backbones.device import resolve_device
from ..errors import ConfigError
from .region_store import LABEL_BYTES, REGION, Snapshot, compact_store, create_store, read_store, writing
from .search import Combine, ImageHit, Ranking, rank_images

# Bytes of float32 that are converted and multiplied at a time: on a CPU they stay in its second-level cache.
_BLOCK_BYTES = {"cpu": 1 << 20, "cuda": 1 << 28}

# Logs are rewritten when more than this share of them is dead.
_MAX_DEAD = 0.5

# Vectors shorter than this have no direction.
_MIN_NORM = 1e-12


@dataclass(frozen=True)
class ImageRegions:
    """The R regions of one image; R may be 0.

    Attributes:
        image_id: the image.
        stamp: what tells this version of the image and its regions from another, such as a hash.
        label_ids: R ids, at most 24 ASCII characters each.
        boxes: ``(R, 4)`` boxes ``(x, y, width, height)``, relative to the image, in [0, 1].
        vectors: ``(R, D)`` of any length.
    """

    image_id: str
    stamp: str
    label_ids: Sequence[str]
    boxes: np.ndarray
    vectors: np.ndarray


class RegionIndex:
    """Region vectors in a folder, searched by brute force.

    An object shows the index as it was when it was opened or last written through it. Any number of processes may
    read while one writes; writers wait for each other. A process killed while writing leaves the state before or
    after.

    On disk a region takes 2 D + 40 bytes: cosines are those of unit vectors rounded to float16, within about 1e-4 of
    the given ones. In memory a search needs about 20 + 5 Q bytes per region for Q query vectors.
    """

    def __init__(self, folder: Path, snapshot: Snapshot) -> None:
        self.folder = folder
        self._snapshot = snapshot

    @classmethod
    def create(cls, folder: str | os.PathLike, dim: int, info: dict[str, Any] | None = None) -> "RegionIndex":
        """Makes an empty index in a folder that does not exist or is empty.

        Args:
            folder: where.
            dim: dimensions D of a vector.
            info: JSON-able facts to keep with it: model, options ...

        Raises:
            ConfigError: the folder holds something, ``dim`` is not positive, or ``info`` is no JSON.
        """
        create_store(Path(folder), dim, dict(info or {}))
        return cls.open(folder)

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "RegionIndex":
        """Opens an index.

        Raises:
            ConfigError: the folder holds no index, or a file of it is broken.
        """
        return cls(Path(folder), read_store(Path(folder)))

    @property
    def info(self) -> dict[str, Any]:
        """What :meth:`create` was given to keep."""
        return dict(self._snapshot.manifest.info)

    @property
    def dim(self) -> int:
        """Dimensions D of a vector."""
        return self._snapshot.manifest.dim

    @property
    def n_regions(self) -> int:
        """Regions that can be found."""
        return int(self._snapshot.counts.sum())

    @property
    def image_ids(self) -> list[str]:
        """All images, those without a region too, in the order of insertion."""
        return list(self._snapshot.ids)

    def stamps(self) -> dict[str, str]:
        """The stamp of each image."""
        return dict(zip(self._snapshot.ids, self._snapshot.stamps, strict=True))

    def regions_of(self, image_id: str) -> ImageRegions:
        """What the index holds of one image; its vectors have unit length.

        Raises:
            ConfigError: the image is not in the index.
        """
        state = self._snapshot
        try:
            image = state.ids.index(image_id)
        except ValueError:
            raise ConfigError(f"image {image_id!r} is not in the index; add it first") from None
        rows = slice(state.starts[image], state.starts[image] + state.counts[image])
        labels = tuple(label.decode() for label in state.regions["label"][rows].tolist())
        vectors = state.vectors[rows].astype(np.float32)
        return ImageRegions(image_id, state.stamps[image], labels, np.array(state.regions["box"][rows]), vectors)

    def update(self, images: Iterable[ImageRegions]) -> int:
        """Adds images, and replaces those whose stamp differs from the one stored; all in one step.

        Images are written as they come, so that the iterable may be a generator over any number of them. Regions whose
        vector is zero have no direction and are left out.

        Returns:
            the number of images added or replaced.

        Raises:
            ConfigError: what an image brings does not fit together or into the index (then nothing is changed), or
                another process keeps writing to it.
        """
        written = 0
        with writing(self.folder) as writer:
            stamps = dict(zip(writer.snapshot.ids, writer.snapshot.stamps, strict=True))
            for image in images:
                if stamps.get(image.image_id) == image.stamp:
                    continue
                writer.append(image.image_id, image.stamp, *_records(image, self.dim))
                stamps[image.image_id] = image.stamp
                written += 1
            if written:
                writer.commit()
        self._settle()
        return written

    def remove(self, image_ids: Iterable[str]) -> int:
        """Takes images out; ids that the index does not hold are ignored.

        Returns:
            the number of images taken out.

        Raises:
            ConfigError: another process keeps writing to the index.
        """
        with writing(self.folder) as writer:
            gone = dict.fromkeys(image_ids).keys() & set(writer.snapshot.ids)
            for image_id in sorted(gone):
                writer.remove(image_id)
            if gone:
                writer.commit()
        self._settle()
        return len(gone)

    def _settle(self) -> None:
        """Reads the new state, after rewriting the logs where much of them is dead."""
        self._snapshot = read_store(self.folder)
        if self._snapshot.dead_share > _MAX_DEAD:
            compact_store(self.folder)
            self._snapshot = read_store(self.folder)

    def search(
        self,
        queries: np.ndarray,
        *,
        combine: Combine = "all",
        limit: int | None = None,
        image_ids: Collection[str] | None = None,
        exclude: Collection[str] = (),
        device: str = "cpu",
    ) -> list[ImageHit]:
        """Ranks images by their best regions; exact, and the same whatever the device.

        Of equal images the one inserted first comes first. Images without a region are never found.

        Args:
            queries: ``(Q, D)`` vectors of any length, or ``(D,)`` for one.
            combine: ``"all"`` scores an image by the mean over the queries of its best cosine, ``"any"`` by the
                largest.
            limit: most images to return; None returns all.
            image_ids: images to search in; None searches all. Ids that the index does not hold are ignored.
            exclude: images to leave out, such as the query's own.
            device: where blocks of vectors are multiplied. Reading them takes as long as multiplying them on a CPU, so
                that another device pays for many queries at once only.

        Raises:
            ConfigError: queries of another dimension or without a direction, or options out of range.
        """
        unit = self._unit_queries(queries)
        if limit is not None and limit < 1:
            raise ConfigError(f"limit={limit} must be at least 1, or None for all images")
        state = self._snapshot
        chosen = self._chosen(image_ids, exclude)
        counts = state.counts[chosen]
        codes = np.repeat(chosen.astype(np.int32), counts)
        rows = np.arange(len(codes)) + np.repeat(state.starts[chosen] - np.cumsum(counts) + counts, counts)
        similarity = _products(state.vectors, rows, unit, resolve_device(device))
        # Float32 sums depend on how the work is cut into blocks; what may matter is decided again in float64.
        tolerance = self.dim * 2.0**-23 + 1e-6
        near = _near(similarity, codes, rank_images(similarity, codes, combine), limit, tolerance)
        exact = _exact_products(state.vectors, rows[near], unit)
        return self._hits(rank_images(exact, codes[near], combine), rows[near], limit)

    def _unit_queries(self, queries: np.ndarray) -> np.ndarray:
        queries = np.atleast_2d(np.asarray(queries, np.float64))
        if queries.ndim != 2 or len(queries) == 0 or queries.shape[1] != self.dim:
            raise ConfigError(
                f"queries have shape {queries.shape}, but the vectors of this index have {self.dim} dimensions;"
                " describe queries with the model that the index was built with"
            )
        norms = np.linalg.norm(queries, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > _MIN_NORM).all()):
            raise ConfigError("a query vector is zero or not finite; choose another query region")
        return (queries / norms).astype(np.float32)

    def _chosen(self, image_ids: Collection[str] | None, exclude: Collection[str]) -> np.ndarray:
        """Positions of the images to search in, ascending."""
        ids = self._snapshot.ids
        if image_ids is None and not exclude:
            return np.arange(len(ids))
        wanted = None if image_ids is None else set(image_ids)
        unwanted = set(exclude)
        keep = [(wanted is None or one in wanted) and one not in unwanted for one in ids]
        return np.flatnonzero(np.array(keep, bool))

    def _hits(self, ranking: Ranking, rows: np.ndarray, limit: int | None) -> list[ImageHit]:
        state, hits = self._snapshot, []
        for image, score, best, similarities in zip(
            ranking.images[:limit].tolist(),
            ranking.scores[:limit].tolist(),
            rows[ranking.rows.T[:limit]],
            ranking.similarities.T[:limit].astype(np.float64),
            strict=True,
        ):
            found = state.regions[best]
            labels = tuple(label.decode() for label in found["label"].tolist())
            hits.append(ImageHit(state.ids[image], score, labels, np.array(found["box"]), similarities))
        return hits


def _records(image: ImageRegions, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """``(R,)`` records and ``(R, D)`` unit vectors of an image's regions that have a direction."""
    n, name = len(image.label_ids), f"image {image.image_id!r}"
    vectors, boxes = (np.asarray(values, np.float64) for values in (image.vectors, image.boxes))
    if n == 0:
        return np.empty(0, REGION), np.empty((0, dim))
    if vectors.shape != (n, dim):
        raise ConfigError(f"{name}: vectors have shape {vectors.shape}; its labels and the index ask for ({n}, {dim})")
    if boxes.shape != (n, 4):
        raise ConfigError(f"{name}: boxes have shape {boxes.shape}, not ({n}, 4)")
    if not (np.isfinite(vectors).all() and np.isfinite(boxes).all()):
        raise ConfigError(f"{name}: a vector or box is not finite; compute its regions again")
    if any(len(label) > LABEL_BYTES or not label.isascii() for label in image.label_ids):
        raise ConfigError(f"{name}: a label id has more than {LABEL_BYTES} characters or is not ASCII")
    records = np.empty(n, REGION)
    records["label"], records["box"] = [label.encode() for label in image.label_ids], boxes
    norms = np.linalg.norm(vectors, axis=1)
    keep = norms > _MIN_NORM
    return records[keep], vectors[keep] / norms[keep, None]


def _products(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray, device: torch.device) -> np.ndarray:
    """``(Q, N)`` float32 cosines of the queries with some rows."""
    similarity = np.empty((len(queries), len(rows)), np.float32)
    block = max(1, _BLOCK_BYTES.get(device.type, _BLOCK_BYTES["cpu"]) // (4 * vectors.shape[1]))
    stored, right = _as_tensor(vectors), torch.from_numpy(queries.T.copy()).to(device)
    converted = torch.empty(min(block, len(rows)), vectors.shape[1], device=device)
    for start in range(0, len(rows), block):
        index = rows[start : start + block]
        whole = index[-1] - index[0] == len(index) - 1
        part = stored[index[0] : index[-1] + 1] if whole else stored[torch.from_numpy(index)]
        left = converted[: len(index)].copy_(part)
        similarity[:, start : start + block] = (left @ right).T.cpu().numpy()
    return similarity


def _near(
    similarity: np.ndarray, codes: np.ndarray, ranking: Ranking, limit: int | None, tolerance: float
) -> np.ndarray:
    """Positions of the regions that can be the best of an image which can be among the first ``limit``, ascending."""
    scores = ranking.scores
    kept = (
        len(scores) if limit is None or limit >= len(scores) else int((scores >= scores[limit - 1] - tolerance).sum())
    )
    peaks = np.full((len(similarity), codes.max(initial=0) + 1), np.inf, np.float32)
    peaks[:, ranking.images[:kept]] = ranking.similarities[:, :kept]
    near = np.zeros(len(codes), bool)
    for line, peak in zip(similarity, peaks, strict=True):
        near |= line >= peak[codes] - np.float32(tolerance)
    return np.flatnonzero(near)


def _exact_products(vectors: np.ndarray, rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """The same decided in float64 and rounded once, so that equal vectors have equal cosines wherever they lie."""
    similarity = np.empty((len(queries), len(rows)), np.float32)
    right = queries.T.astype(np.float64)
    block = max(1, _BLOCK_BYTES["cpu"] // (8 * vectors.shape[1]))
    for start in range(0, len(rows), block):
        left = vectors[rows[start : start + block]].astype(np.float64)
        similarity[:, start : start + block] = (left @ right).T
    return similarity


def _as_tensor(vectors: np.ndarray) -> torch.Tensor:
    with warnings.catch_warnings():
        # It may not be written to, of which PyTorch warns; nobody does.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(vectors)
