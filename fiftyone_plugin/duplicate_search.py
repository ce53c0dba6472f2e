"""Searching for pairs: which engine, which threshold and why, and how little work is left after an earlier search."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import fiftyone.core.collections as foc
import numpy as np

from ..brain.backbones.device import resolve_device
from ..brain.constraints import Constraints
from ..brain.errors import ConfigError
from ..brain.neighbors import Pairs, cross_pairs_steps, mutual_knn_pairs_steps, radius_pairs_steps
from ..brain.thresholds import NeighbourProfile, nearest_similarity_histogram, neighbour_profile, suggest_threshold
from .dataset_io import image_samples
from .decisions import constraints_of
from .duplicate_settings import Engine, GroupingSettings
from .item_fields import Place
from .runs import load_record, load_results
from .stored_pairs import Compared, StoredPairs, no_scores, vector_stamps
from .vectors import VectorTable

# From so many images on, faiss is faster than the exact join on a CPU.
FAISS_FROM = 300_000

# Reviewed pairs that are looked at for a threshold.
_MOST_DECIDED = 20_000


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        pairs: all pairs down to ``pairs.threshold``.
        scores: ``(p,)`` float32 score of each as the same shot, NaN where they were not compared.
        settings: with the engine that was used.
        threshold: at which groups are formed.
        reason: why there.
        profile: how similar nearest neighbours are.
        compared: how many rows were compared with all others; the rest had been before.
        recall: measured share of the pairs above the threshold that was found; None where all were.
    """

    pairs: Pairs
    scores: np.ndarray
    settings: GroupingSettings
    threshold: float
    reason: str
    profile: NeighbourProfile
    compared: int
    recall: float | None = None

    def facts(self) -> dict[str, Any]:
        """What the run record says of the search."""
        facts = {"histogram": self.histogram(), "engine": self.settings.engine, "compared": self.compared}
        return facts if self.recall is None else {**facts, "recall": round(self.recall, 4)}

    def histogram(self) -> dict[str, list[float]]:
        """How many images have their nearest neighbour at which similarity.

        Exact for those that are in a pair; for the others an estimate from the sampled ones among them.
        """
        nearest = np.full(self.profile.n, -np.inf, np.float32)
        for ends in (self.pairs.i, self.pairs.j):
            np.maximum.at(nearest, ends, self.pairs.similarity)
        known = nearest[np.isfinite(nearest)]
        sampled = self.profile.similarity[:, 0] if self.profile.similarity.size else np.empty(0, np.float32)
        below = sampled[sampled < self.pairs.threshold]
        rest = self.profile.n - len(known)
        estimated = np.resize(below, rest) if len(below) else np.empty(0, np.float32)
        histogram = nearest_similarity_histogram(np.concatenate([known, estimated]))
        return {"edges": histogram.edges.tolist(), "counts": histogram.counts.tolist()}


@dataclass(frozen=True)
class Earlier:
    """An earlier search with the same key, on which an incremental one builds.

    Attributes:
        engine: what found its pairs.
        threshold: at which its groups were formed, and the ``reason``.
    """

    stored: StoredPairs
    compared: Compared
    engine: Engine
    threshold: float
    reason: str

    def known_rows(self, table: VectorTable) -> np.ndarray:
        """``(n,)`` bool: rows of the table that were compared then and have the same vector still."""
        stamp_of = dict(zip(self.compared.ids, self.compared.stamps.tolist(), strict=True))
        stamps = vector_stamps(table.matrix).tolist()
        known = [stamp_of.get(item_id) == stamp for item_id, stamp in zip(table.ids, stamps, strict=True)]
        return np.array(known, bool)


def earlier_search(samples: foc.SampleCollection, key: str, settings: GroupingSettings) -> tuple[Earlier | None, str]:
    """The search that an incremental one can build on; None, and why not, if all must be compared."""
    record = load_record(samples, key)
    if record is None:
        return None, "there was no earlier search"
    old: Mapping[str, Any] = record["config"]
    same = all(old.get(name) == getattr(settings, name) for name in ("embeddings", "patches_field", "method"))
    if record["status"] != "completed" or not same or settings.method != "threshold":
        return None, "the earlier search was not completed, or compared something else"
    results = load_results(samples, key)
    compared = None if results is None else Compared.from_results(results)
    if results is None or compared is None:
        return None, "the earlier search did not store what it compared"
    details = record["details"]
    stored, engine = StoredPairs.from_results(results), old.get("engine", "exact")
    found = Earlier(stored, compared, engine, details["threshold"], details["threshold_reason"])
    if settings.threshold is not None and settings.threshold < found.stored.pairs.threshold:
        return None, f"its pairs were kept down to {found.stored.pairs.threshold:.4f} only"
    return found, ""


def ids_to_cover(samples: foc.SampleCollection, place: Place, earlier: Earlier) -> list[str]:
    """What an incremental search covers: all that the earlier one did and that is still there, and what is new."""
    path = place.path("id")
    everything = image_samples(samples._dataset)
    wanted = set(earlier.compared.ids) | set(_flat(samples.values(path)))
    return [item_id for item_id in _flat(everything.values(path)) if item_id in wanted]


def reviewed(samples: foc.SampleCollection, key: str, row_of: Mapping[str, int]) -> Constraints:
    """What reviewers decided under a key about the rows that are compared."""
    together, apart = constraints_of(samples, key)

    def rows(ids: Sequence[str]) -> list[int]:
        return [row_of[item_id] for item_id in ids if item_id in row_of]

    return Constraints.from_sets([rows(ids) for ids in together], [(rows(one), rows(other)) for one, other in apart])


def search_steps(
    table: VectorTable, settings: GroupingSettings, device: str, constraints: Constraints, earlier: Earlier | None
) -> Generator[float, None, Found]:
    """Finds the pairs of a table; yields the share of the work that is done."""
    profile = neighbour_profile(table.matrix)
    if earlier is not None:
        known = earlier.known_rows(table)
        # Comparing most rows with all takes longer than comparing all with all once.
        if 2 * int(known.sum()) >= len(known):
            return (yield from _add_new(table, settings, device, earlier, profile, known))
    if settings.threshold is not None:
        threshold, reason = settings.threshold, "given"
    else:
        threshold, reason = suggest_threshold(profile, decided=decided_pairs(table.matrix, constraints))
    settings = replace(settings, engine=choose_engine(settings, len(table.ids), device))
    search = _engine(table.matrix, settings, device)
    floor = profile.floor(threshold)
    try:
        pairs = yield from search(threshold=floor)
    except ConfigError:
        if floor >= threshold:
            raise
        # Pairs below the threshold are a convenience; too many of them must not spoil the search itself.
        pairs = yield from search(threshold=threshold)
    recall = None
    if settings.engine == "faiss":
        from ..brain.approximate import pair_recall

        recall = pair_recall(table.matrix, pairs, threshold)
    scores = no_scores(len(pairs))
    return Found(pairs, scores, settings, float(threshold), reason, profile, len(table.ids), recall)


def choose_engine(settings: GroupingSettings, rows: int, device: str) -> Engine:
    """``"exact"`` or ``"faiss"``: what ``"auto"`` stands for."""
    if settings.engine != "auto":
        return settings.engine
    worth_it = rows >= FAISS_FROM and settings.method == "threshold" and find_spec("faiss") is not None
    return "faiss" if worth_it and resolve_device(device).type != "cuda" else "exact"


def decided_pairs(matrix: np.ndarray, constraints: Constraints) -> tuple[np.ndarray, np.ndarray] | None:
    """Cosines of the pairs that reviewers have decided on, and whether they confirmed them; None if there are none."""
    if constraints.empty:
        return None
    parts = [constraints.must[:_MOST_DECIDED], constraints.cannot[:_MOST_DECIDED]]
    same = np.repeat([True, False], [len(part) for part in parts])
    i, j = np.concatenate(parts).T
    return _cosines(matrix, i, j), same


def check_cosines(matrix: np.ndarray, pairs: Pairs, tolerance: float) -> bool:
    """Whether stored pairs have the similarity that their vectors have now."""
    for start in range(0, len(pairs), 4096):
        part = slice(start, start + 4096)
        now = _cosines(matrix, pairs.i[part], pairs.j[part])
        if np.abs(now - pairs.similarity[part]).max(initial=0.0) > tolerance:
            return False
    return True


def _engine(matrix: np.ndarray, settings: GroupingSettings, device: str) -> Any:
    if settings.method == "mutual_knn":
        return partial(mutual_knn_pairs_steps, matrix, settings.k, device=device)
    if settings.engine == "faiss":
        from ..brain.approximate import approximate_pairs_steps

        return partial(approximate_pairs_steps, matrix)
    return partial(radius_pairs_steps, matrix, device=device)


def _add_new(
    table: VectorTable,
    settings: GroupingSettings,
    device: str,
    earlier: Earlier,
    profile: NeighbourProfile,
    known: np.ndarray,
) -> Generator[float, None, Found]:
    """The pairs of the earlier search, and those of what is new with everything."""
    rows = {item_id: row for row, item_id in enumerate(table.ids) if known[row]}
    old, scores = earlier.stored.onto(rows)
    new = np.flatnonzero(~known)
    parts = [old]
    if len(new):
        fresh = yield from cross_pairs_steps(table.matrix[new], table.matrix, old.threshold, device=device)
        parts.append(_turned(new[fresh.i].astype(np.int32), fresh.j, fresh.similarity, old.threshold))
    pairs, source = _joined(parts)
    scores = np.concatenate([scores, no_scores(len(pairs) - len(scores))])[source]
    # If the earlier search was approximate, what it missed is missing still.
    settings = replace(settings, engine=earlier.engine)
    if settings.threshold is None:
        return Found(pairs, scores, settings, earlier.threshold, earlier.reason, profile, len(new))
    return Found(pairs, scores, settings, settings.threshold, "given", profile, len(new))


def _turned(i: np.ndarray, j: np.ndarray, similarity: np.ndarray, threshold: float) -> Pairs:
    """Pairs with ``i < j``, each once, none of a row with itself."""
    low, high = np.minimum(i, j), np.maximum(i, j)
    _, first = np.unique(low.astype(np.int64) << 32 | high, return_index=True)
    first = first[low[first] != high[first]]
    return Pairs(low[first], high[first], similarity[first], threshold)


def _joined(parts: list[Pairs]) -> tuple[Pairs, np.ndarray]:
    """Pairs of several searches, sorted, and which of all of them stands where."""
    i, j, similarity = (np.concatenate([getattr(part, name) for part in parts]) for name in ("i", "j", "similarity"))
    order = np.lexsort((j, i))
    return Pairs(i[order], j[order], similarity[order], parts[0].threshold), order


def _cosines(matrix: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    a, b = matrix[i], matrix[j]
    return np.einsum("nd,nd->n", a, b) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def _flat(values: list[Any]) -> list[str]:
    """Ids of samples, or of the labels of samples that have any."""
    return [item for value in values for item in (value if isinstance(value, list) else [value]) if item is not None]
