"""From pairs to written groups: settings, diameter, quality of the members, keepers and kinds."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Literal, TypeVar

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.errors import ConfigError
from ..brain.grouping import UNGROUPED, assign_roles, group_pairs
from ..brain.keeper import KeeperPolicy
from ..brain.neighbors import Pairs
from .duplicate_store import EXACT, MEASURING, SIMILAR, DuplicateFields, Outcome
from .engine.local import Job, Progress, stream
from .fingerprints import FingerprintMethod, quality_of, read_fields

SearchMethod = Literal["threshold", "mutual_knn"]
SEARCH_METHODS: tuple[SearchMethod, ...] = ("threshold", "mutual_knn")

T = TypeVar("T")


@dataclass(frozen=True)
class GroupingSettings:
    """How pairs become groups; checked when made.

    Attributes:
        embeddings: the vector field.
        threshold: least cosine of a link; None chooses it from the data.
        method: ``"threshold"`` or ``"mutual_knn"``.
        k: neighbours that must be mutual (``"mutual_knn"`` only).
        max_diameter: largest cosine distance within a group; None is twice that of the threshold, 2 sets no limit.
        keeper: weights of the keeper score.

    Raises:
        ConfigError: a value that cannot work.
    """

    embeddings: str = "ffa"
    threshold: float | None = None
    method: SearchMethod = "threshold"
    k: int = 10
    max_diameter: float | None = None
    keeper: KeeperPolicy = field(default_factory=KeeperPolicy)

    def __post_init__(self) -> None:
        for option in ("threshold", "max_diameter"):
            # NumPy's numbers would not survive the way into the run record.
            if _is_number(value := getattr(self, option)):
                object.__setattr__(self, option, float(value))
        if self.threshold is not None and not (_is_number(self.threshold) and -1.0 <= self.threshold <= 1.0):
            raise ConfigError(
                f"threshold={self.threshold!r} must be a cosine from -1 to 1, or None to choose it from the data"
            )
        if self.method not in SEARCH_METHODS:
            raise ConfigError(f"method={self.method!r} is unknown; use one of {', '.join(SEARCH_METHODS)}")
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise ConfigError(f"k={self.k!r} must be a whole number of at least 1")
        if self.max_diameter is not None and not (_is_number(self.max_diameter) and 0.0 <= self.max_diameter <= 2.0):
            raise ConfigError(
                f"max_diameter={self.max_diameter!r} must be a cosine distance from 0 to 2, or None for twice the "
                "distance of the threshold"
            )

    def diameter(self, threshold: float) -> float | None:
        """The limit that applies at a threshold; None where there is none."""
        limit = 2.0 * (1.0 - threshold) if self.max_diameter is None else self.max_diameter
        return None if limit >= 2.0 else limit

    def needs_vectors(self, pairs: Pairs, threshold: float) -> bool:
        """Whether the pairs are too few to tell if a group keeps to the limit."""
        limit = self.diameter(threshold)
        return limit is not None and (self.method == "mutual_knn" or 1.0 - limit < pairs.threshold)

    def config(self) -> dict[str, Any]:
        """JSON-able form for the run record."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "GroupingSettings":
        """The inverse of :meth:`config`."""
        return cls(**{**config, "keeper": KeeperPolicy(**config["keeper"])})


def keeper_policy(keeper: KeeperPolicy | Mapping[str, float] | None) -> KeeperPolicy:
    """The policy for what a user may pass: a policy, a dict of weights, or None for the default.

    Raises:
        ConfigError: something else, unknown measures or weights that are no numbers.
    """
    if keeper is None:
        return KeeperPolicy()
    if isinstance(keeper, KeeperPolicy):
        return keeper
    if isinstance(keeper, Mapping):
        return KeeperPolicy.from_dict(dict(keeper))
    raise ConfigError(f"keeper={keeper!r} must be a KeeperPolicy or a dict of weights, e.g. {{'sharpness': 1.0}}")


@dataclass(frozen=True)
class GroupingTask:
    """Pairs to be grouped; rows of ``vectors`` and of ``pairs`` belong to ``ids``."""

    samples: foc.SampleCollection
    key: str
    ids: Sequence[str]
    vectors: np.ndarray
    pairs: Pairs
    threshold: float
    settings: GroupingSettings
    num_workers: int


def group_and_measure(task: GroupingTask, total: int) -> Generator[Progress, None, Outcome]:
    """Groups, measures the members and chooses keepers."""
    settings, ids = task.settings, task.ids
    labels = group_pairs(
        len(ids),
        task.pairs,
        task.threshold,
        max_diameter=settings.diameter(task.threshold),
        vectors=task.vectors if settings.needs_vectors(task.pairs, task.threshold) else None,
    )
    members = np.flatnonzero(labels != UNGROUPED)
    member_ids = [ids[row] for row in members]
    failed = yield from _measure(task, member_ids, total)
    names = DuplicateFields(task.key)
    facts = read_fields(task.samples, member_ids, [names.measures, names.digest]) if member_ids else {}
    found = [facts.get(sample_id, (None, None)) for sample_id in member_ids]
    quality = np.full(len(ids), -np.inf)
    quality[members] = settings.keeper.score([quality_of(measures) for measures, _ in found])
    groups = assign_roles(labels, quality, vectors=task.vectors)
    return Outcome(ids, groups, _kinds(labels, members, [digest for _, digest in found]), quality, failed)


def _measure(task: GroupingTask, member_ids: list[str], total: int) -> Generator[Progress, None, dict[str, str]]:
    """Decodes the members of groups that were not measured yet; returns the reasons of failures."""
    if not member_ids:
        return {}
    view = fov.make_optimized_select_view(task.samples, member_ids)
    method = FingerprintMethod(MEASURING, task.key, "pixels", measure=True)
    job = Job(view, method, f"{task.key}_images", "Measuring duplicates", batch_size=64, num_workers=task.num_workers)
    summary = yield from in_stage(_shares(stream(job)), total, 0.7, 0.95, job.label)
    return summary.failed


def _kinds(labels: np.ndarray, members: np.ndarray, digests: Sequence[str | None]) -> list[str | None]:
    """``"exact"`` for the members of groups in which all pictures have the same pixels."""
    seen: dict[int, set[str | None]] = {}
    for row, digest in zip(members, digests, strict=True):
        seen.setdefault(int(labels[row]), set()).add(digest)
    kinds = {group: EXACT if len(found) == 1 and None not in found else SIMILAR for group, found in seen.items()}
    return [kinds.get(int(label)) for label in labels]


def in_stage(
    steps: Generator[float, None, T], total: int, start: float, end: float, label: str
) -> Generator[Progress, None, T]:
    """Shows the shares of one stage as the part from ``start`` to ``end`` of the whole job."""
    share = 0.0
    while True:
        done = start + (end - start) * min(share, 1.0)
        yield Progress(int(done * total), total, label=label)
        try:
            share = next(steps)
        except StopIteration as stop:
            return stop.value


def _shares(steps: Generator[Progress, None, T]) -> Generator[float, None, T]:
    while True:
        try:
            yield next(steps).fraction
        except StopIteration as stop:
            return stop.value


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
