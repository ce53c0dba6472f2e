"""The methods that `quality neardup` compares; each names the pairs of images that it would call duplicates."""

import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..brain.grouping import equal_groups, group_pairs
from ..brain.hashing import file_digest, pixel_digest
from ..brain.images import decode_image
from ..brain.neighbors import radius_pairs
from ..brain.same_shot import SHOT_THRESHOLD, ShotFeatures, match_shots, shot_features
from ..brain.thresholds import neighbour_profile
from ..fixtures.private_database import use_private_database

# The thresholds that a method is tried at, to find its best one.
MAX_LEVELS = 60

# Nearest neighbours of each image, by each kind of vector, that are looked at as candidates for the same shot.
SHOT_CANDIDATES = 10

# imagededup's default; imagehash names none and is given the same.
HASH_BITS = 10

# The default of FiftyOne Brain's `compute_near_duplicates`, a distance of centred vectors.
BRAIN_DISTANCE = 0.2


@dataclass(frozen=True)
class Finder:
    """One method on one set of n images.

    Attributes:
        name: the method's name in the results.
        find: threshold → ``(n, n)`` bool, symmetric: which pairs it calls duplicates.
        default: the threshold a user gets without naming one; None where the method has no threshold.
        levels: thresholds to try for the best one.
        note: what its threshold is and where the default comes from.
    """

    name: str
    find: Callable[[float | None], np.ndarray]
    default: float | None
    levels: Sequence[float]
    note: str


def digest_finders(paths: Sequence[Path]) -> Iterator[Finder]:
    """Exact duplicates: equal bytes, and equal decoded pixels."""
    for name, digest in (("file_digest", file_digest), ("pixel_digest", pixel_digest)):
        same = same_group(equal_groups([digest(path) for path in paths]))
        yield Finder(name, lambda _, same=same: same, None, (), "equal or not; no threshold")


def vector_finder(name: str, vectors: np.ndarray, positives: np.ndarray) -> Finder:
    """This plugin's search on ``(n, d)`` vectors: groups of raw cosine with a capped diameter, as it writes them.

    Args:
        positives: ``(p, 2)`` rows of the true pairs, whose similarities are the thresholds tried.
    """
    pairs = radius_pairs(vectors, -1.0)
    default, reason = neighbour_profile(vectors).suggest()

    def find(threshold: float | None) -> np.ndarray:
        assert threshold is not None
        return same_group(
            group_pairs(len(vectors), pairs, threshold, max_diameter=2.0 * (1.0 - threshold), vectors=vectors)
        )

    return Finder(name, find, default, _levels(_cosines(vectors, positives)), f"least cosine; default {reason}")


def shot_finder(paths: Sequence[Path], vectors: Sequence[np.ndarray], positives: np.ndarray) -> Finder:
    """This plugin's same shots: pairs that are neighbours by some vector, checked by laying one picture on the other.

    Args:
        vectors: ``(n, d)`` unit vectors of each encoder, whose neighbours are candidates; those of coarse grey copies,
            as they are and mirrored, are added.
        positives: ``(p, 2)`` rows of the true pairs, whose scores are the thresholds tried.
    """
    images = [decode_image(path) for path in paths]
    features = [shot_features(image) for image in images]
    score = np.zeros((len(paths), len(paths)))
    for i, j in np.argwhere(np.triu(_candidates(features, vectors), 1)):
        score[i, j] = score[j, i] = match_shots(features[i], features[j]).score
    score[same_group(equal_groups([pixel_digest(image) for image in images]))] = 1.0

    def find(threshold: float | None) -> np.ndarray:
        return score >= threshold

    levels = _levels(score[positives[:, 0], positives[:, 1]])
    note = f"least score of two aligned pictures; {SHOT_CANDIDATES} candidates by each of {len(vectors) + 2} vectors"
    return Finder("selfsame", find, SHOT_THRESHOLD, levels, note)


def brain_finder(vectors: np.ndarray, paths: Sequence[Path], positives: np.ndarray) -> Iterator[Finder]:
    """FiftyOne Brain's near-duplicates on the same vectors; a pair counts if both hang on one kept image."""
    if not importlib.util.find_spec("fiftyone.brain"):
        return
    use_private_database()
    import fiftyone as fo
    import fiftyone.brain as fob

    logging.getLogger("fiftyone.brain").setLevel(logging.WARNING)
    dataset = fo.Dataset()
    try:
        dataset.add_samples([fo.Sample(filepath=str(path)) for path in paths], progress=False)
        rows = {sample_id: row for row, sample_id in enumerate(dataset.values("id"))}
        # A copy, because the index centres its vectors in place.
        index = fob.compute_similarity(dataset, embeddings=vectors.copy(), backend="sklearn", progress=False)

        def find(threshold: float | None) -> np.ndarray:
            index.find_duplicates(thresh=threshold)
            labels = np.full(len(rows), -1)
            for kept, copies in index.neighbors_map.items():
                labels[[rows[kept], *(rows[copy] for copy, _ in copies)]] = rows[kept]
            return same_group(labels)

        distances = 1.0 - _cosines(vectors - vectors.mean(axis=0), positives)
        note = "largest distance of centred vectors; default of compute_near_duplicates; vectors of ffa"
        yield Finder("fiftyone_brain", find, BRAIN_DISTANCE, _levels(distances), note)
    finally:
        dataset.delete()


def imagehash_finders(paths: Sequence[Path]) -> Iterator[Finder]:
    """The package imagehash: 64-bit hashes of its DCT and gradient kinds."""
    if not importlib.util.find_spec("imagehash"):
        return
    import imagehash

    images = [Image.fromarray(decode_image(path)) for path in paths]
    for name in ("phash", "dhash"):
        bits = np.stack([getattr(imagehash, name)(image).hash.ravel() for image in images])
        yield _hash_finder(name, bits, "imagehash names no default; imagededup's is used")


def imagededup_finders(paths: Sequence[Path]) -> Iterator[Finder]:
    """The package imagededup: its four 64-bit hashes."""
    if not importlib.util.find_spec("imagededup"):
        return
    from imagededup.methods import AHash, DHash, PHash, WHash

    for kind in (PHash, DHash, AHash, WHash):
        hasher = kind(verbose=False)
        hashes = [int(hasher.encode_image(image_file=str(path)), 16) for path in paths]
        bits = np.unpackbits(np.array(hashes, ">u8").view(np.uint8).reshape(len(paths), 8), axis=1)
        yield _hash_finder(f"imagededup_{kind.__name__.lower()}", bits, "default of imagededup")


def same_group(labels: np.ndarray) -> np.ndarray:
    """``(n, n)`` bool: which images share a group; label -1 is no group."""
    return (labels[:, None] == labels[None, :]) & (labels >= 0)[:, None]


def _candidates(features: Sequence[ShotFeatures], vectors: Sequence[np.ndarray]) -> np.ndarray:
    """``(n, n)`` bool, symmetric: which pairs are neighbours by one of the vectors or by coarse grey copies."""
    coarse = np.stack([feature.coarse for feature in features])
    mirrored = np.stack([feature.mirrored().coarse for feature in features])
    found = np.zeros((len(features), len(features)), bool)
    for similarity in (*(matrix @ matrix.T for matrix in vectors), coarse @ coarse.T, coarse @ mirrored.T):
        np.fill_diagonal(similarity, -np.inf)
        nearest = np.argsort(-similarity, axis=1)[:, :SHOT_CANDIDATES]
        np.put_along_axis(found, nearest, True, axis=1)
    np.fill_diagonal(found, False)
    return found | found.T


def _hash_finder(name: str, bits: np.ndarray, note: str) -> Finder:
    signs = bits.astype(np.float32) * 2 - 1
    distance = ((bits.shape[1] - signs @ signs.T) / 2).round()

    def find(threshold: float | None) -> np.ndarray:
        return distance <= threshold

    return Finder(
        name, find, HASH_BITS, range(bits.shape[1] // 2 + 1), f"largest number of differing bits of 64; {note}"
    )


def _cosines(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]])


def _levels(values: np.ndarray) -> list[float]:
    quantiles = np.quantile(values, np.linspace(0, 1, MAX_LEVELS), method="nearest")
    return sorted({float(value) for value in np.clip(quantiles, -1.0, 1.0)})
