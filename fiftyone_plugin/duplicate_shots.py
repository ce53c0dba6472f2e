"""Telling shots apart: pictures of a duplicate run are decoded and compared, a bounded number of pairs for each."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import SelfsameError
from ..brain.images import decode_image
from ..brain.merging import linked_components
from ..brain.neighbors import Pairs
from ..brain.same_shot import ShotFeatures, match_shots, shot_features
from .fingerprints import crop_box
from .item_fields import Place, read_items

# Each picture is compared with so many of its most similar partners (and with those that count it among theirs).
COMPARISONS = 8

# Pictures whose features are held at a time: at 40 kB each, some 20 MB.
_BATCH = 512


@dataclass(frozen=True)
class ShotTask:
    """Whose pictures are compared.

    Attributes:
        samples: flat collection that has all of them.
        place: whether they are images or objects.
        ids: id by row.
        homes: sample by id of objects.
        num_workers: threads that decode and compare.
    """

    samples: foc.SampleCollection
    place: Place
    ids: Sequence[str]
    homes: Mapping[str, str]
    num_workers: int


def compare_shots(
    task: ShotTask, pairs: Pairs, scores: np.ndarray, chosen: np.ndarray, digests: Mapping[int, str | None]
) -> Generator[float, None, None]:
    """Compares the pictures of some pairs that were not compared yet; yields the share that is done.

    Args:
        scores: ``(p,)`` float32 score of each pair; filled in. A picture that cannot be decoded leaves NaN.
        chosen: ``(p,)`` bool: the pairs that matter.
        digests: by row; equal ones make pictures the same without a look at them.
    """
    wanted = nearest_pairs(pairs, chosen)
    open_pairs = wanted[np.isnan(scores[wanted])]
    for pair in open_pairs:
        a, b = (digests.get(int(row)) for row in (pairs.i[pair], pairs.j[pair]))
        if a is not None and a == b:
            scores[pair] = 1.0
    open_pairs = open_pairs[np.isnan(scores[open_pairs])]
    done = 0
    with ThreadPoolExecutor(task.num_workers, thread_name_prefix="selfsame-shots") as pool:
        for batch in _batches(pairs, open_pairs):
            ends = np.stack([pairs.i[batch], pairs.j[batch]], axis=1)
            features = _features(task, np.unique(ends), pool)
            scores[batch] = list(pool.map(lambda ab, known=features: _score(known, *ab), ends.tolist()))
            done += len(batch)
            yield done / len(open_pairs)


def nearest_pairs(pairs: Pairs, chosen: np.ndarray, limit: int = COMPARISONS) -> np.ndarray:
    """Of some pairs, those that are among the ``limit`` most similar of either end.

    Args:
        chosen: ``(p,)`` bool.

    Returns:
        Their numbers, ascending.
    """
    index = np.flatnonzero(chosen)
    owner = np.concatenate([pairs.i[index], pairs.j[index]])
    both = np.concatenate([index, index])
    order = np.lexsort((both, -pairs.similarity[both], owner))
    _, counts = np.unique(owner, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.unique(both[order][rank < limit])


def _batches(pairs: Pairs, chosen: np.ndarray) -> Iterator[np.ndarray]:
    """Pairs in portions that name at most ``_BATCH`` pictures, one group of linked pictures after the other."""
    ends = np.stack([pairs.i[chosen], pairs.j[chosen]], axis=1)
    components = linked_components(int(ends.max(initial=-1)) + 1, ends)
    chosen = chosen[np.argsort(components[ends[:, 0]], kind="stable")]
    start: int = 0
    rows: set[int] = set()
    for position, pair in enumerate(chosen.tolist()):
        new = {int(pairs.i[pair]), int(pairs.j[pair])} - rows
        if len(rows) + len(new) > _BATCH:
            yield chosen[start:position]
            start, rows = position, set()
        rows |= {int(pairs.i[pair]), int(pairs.j[pair])}
    if start < len(chosen):
        yield chosen[start:]


def _features(task: ShotTask, rows: np.ndarray, pool: ThreadPoolExecutor) -> dict[int, ShotFeatures | None]:
    ids = {task.ids[row]: int(row) for row in rows}
    view = fov.make_optimized_select_view(task.samples, list({task.homes.get(item_id, item_id) for item_id in ids}))
    names = ["filepath"] if task.place.patches_field is None else ["bounding_box"]
    items = [item for item in read_items(view, task.place, names) if item.id in ids]
    if task.place.patches_field is None:
        pictures = [(item.values[0], None) for item in items]
    else:
        paths = dict(zip(*view.values(["id", "filepath"]), strict=True))
        pictures = [(paths[item.sample_id], item.values[0] or ()) for item in items]
    found = pool.map(lambda picture: _features_of(*picture), pictures)
    return {ids[item.id]: features for item, features in zip(items, found, strict=True)}


def _features_of(path: str, box: Sequence[float] | None) -> ShotFeatures | None:
    try:
        image = decode_image(path)
    except SelfsameError:
        # The reason is told where the picture is measured.
        return None
    picture = image if box is None else crop_box(image, box)
    return None if picture is None else shot_features(picture)


def _score(features: Mapping[int, ShotFeatures | None], a: int, b: int) -> float:
    first, second = features.get(a), features.get(b)
    return float("nan") if first is None or second is None else match_shots(first, second).score
