"""The settings of a duplicate search: checked when they are made, kept in the run record."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any, Literal

import numpy as np

from ..brain.errors import ConfigError
from ..brain.keeper import KEEPER_RULES, KeeperPolicy
from ..brain.neighbors import Pairs
from .item_fields import Place

SearchMethod = Literal["threshold", "mutual_knn"]
LinkKind = Literal["same_object", "near"]
Engine = Literal["auto", "exact", "faiss"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("threshold", "mutual_knn"),
    "kind": ("same_object", "near"),
    "engine": ("auto", "exact", "faiss"),
    "keeper_rule": KEEPER_RULES,
}


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
        patches_field: the Detections that are compared; None compares images.
        kind: ``"same_object"``: every link counts; ``"near"``: only those between pictures of the same shot.
        engine: what found the pairs, ``"exact"`` or ``"faiss"``; ``"auto"`` until it is chosen.
        keeper_rule: by what members are ranked.
        keep: members to keep in each group.
        shots: whether shots are told apart within groups.

    Raises:
        ConfigError: a value that cannot work.
    """

    embeddings: str = "ffa"
    threshold: float | None = None
    method: SearchMethod = "threshold"
    k: int = 10
    max_diameter: float | None = None
    keeper: KeeperPolicy = field(default_factory=KeeperPolicy)
    patches_field: str | None = None
    kind: LinkKind = "same_object"
    engine: Engine = "auto"
    keeper_rule: str = "quality"
    keep: int = 1
    shots: bool = True

    def __post_init__(self) -> None:
        for option in ("threshold", "max_diameter"):
            # NumPy's numbers would not survive the way into the run record.
            if _is_number(value := getattr(self, option)):
                object.__setattr__(self, option, float(value))
        if self.threshold is not None and not (_is_number(self.threshold) and -1.0 <= self.threshold <= 1.0):
            raise ConfigError(
                f"threshold={self.threshold!r} must be a cosine from -1 to 1, or None to choose it from the data"
            )
        for option, known in _CHOICES.items():
            if getattr(self, option) not in known:
                raise ConfigError(f"{option}={getattr(self, option)!r} is unknown; use one of {', '.join(known)}")
        for option in ("k", "keep"):
            value = getattr(self, option)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{option}={value!r} must be a whole number of at least 1")
        if self.method == "mutual_knn" and self.engine == "faiss":
            raise ConfigError("method='mutual_knn' needs exact neighbours; use engine='exact'")
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
        incomplete = self.method == "mutual_knn" or self.engine == "faiss"
        return limit is not None and (incomplete or 1.0 - limit < pairs.threshold)

    @property
    def place(self) -> Place:
        """Whether images or objects are compared."""
        return Place(self.patches_field)

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


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))
