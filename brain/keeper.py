"""Which images of a group to keep: rules, and one tunable score made of resolution, sharpness, exposure and more."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .errors import ConfigError
from .image_quality import QualityScores

# By what the members of a group are ranked. "diverse" starts with the best by quality and adds those least like it.
KEEPER_RULES = ("quality", "first", "largest", "newest", "most_labels", "diverse")

# A blank picture has no sharpness at all; a finite score keeps its other measures in play.
_LEAST_SHARPNESS = 2.0**-10


@dataclass(frozen=True)
class KeeperPolicy:
    """Weights of the keeper's score; the image with the highest score of its group is kept.

    Score = resolution · log2(pixels) + sharpness · log2(sharpness) + exposure · exposure + file_size · log2(bytes)
    + compression · log2(bits per pixel) + foreground · foreground share + labels · label completeness, with the
    measures of :class:`.image_quality.QualityScores`. So with weight 1, twice the pixels, twice the sharpness, a
    perfect exposure instead of a hopeless one, twice the bytes, twice the bits per pixel (milder compression), a
    picture full of foreground or one with all its labels are worth one point each. A weight of 0 leaves a measure out;
    a negative one prefers less of it.
    """

    resolution: float = 1.0
    sharpness: float = 0.5
    exposure: float = 1.0
    file_size: float = 0.25
    compression: float = 0.0
    foreground: float = 0.0
    labels: float = 0.0

    def __post_init__(self) -> None:
        for name, weight in ((field.name, getattr(self, field.name)) for field in fields(self)):
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not np.isfinite(weight):
                raise ConfigError(
                    f"keeper weight {name}={weight!r} is not a number; use e.g. {name}=1.0, or 0 to ignore it"
                )

    @classmethod
    def from_dict(cls, weights: dict[str, float]) -> "KeeperPolicy":
        """A policy from a form or a stored record; measures that are not named keep their default weight.

        Raises:
            ConfigError: an unknown measure, or a weight that is no number.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(weights) - set(names))
        if unknown:
            raise ConfigError(f"keeper measures {', '.join(unknown)} are unknown; use {', '.join(names)}")
        return cls(**weights)

    def score(
        self,
        qualities: Sequence[QualityScores | None],
        *,
        foreground: np.ndarray | None = None,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:
        """``(n,)`` float64 scores, more is better; images without measures (None) score minus infinity.

        Args:
            qualities: measures of n images.
            foreground: ``(n,)`` share of each image that its foreground covers; None is 0 for all.
            labels: ``(n,)`` share of the label fields that each image has filled; None is 0 for all.
        """
        scores = np.array([-np.inf if one is None else self._score_one(one) for one in qualities], np.float64)
        for weight, share in ((self.foreground, foreground), (self.labels, labels)):
            if share is not None:
                scores += weight * np.asarray(share, np.float64)
        return scores

    def _score_one(self, quality: QualityScores) -> float:
        pixels, size = max(quality.pixels, 1), max(quality.file_size, 1)
        return float(
            self.resolution * np.log2(pixels)
            + self.sharpness * np.log2(max(quality.sharpness, _LEAST_SHARPNESS))
            + self.exposure * quality.exposure
            + self.file_size * np.log2(size)
            + self.compression * np.log2(8.0 * size / pixels)
        )


def choose_keepers(
    labels: np.ndarray, scores: np.ndarray, *, rule_keep: int = 1, vectors: np.ndarray | None = None
) -> np.ndarray:
    """Which members of each group are kept.

    The first is always the one with the highest score (of equal ones, the first). Without vectors the next best follow;
    with vectors, each time the member that is least like all that were chosen (farthest-point sampling: Gonzalez 1985).
    Members at minus infinity, which could not be measured, come last either way.

    Args:
        labels: ``(n,)`` group of each image, -1 for none.
        scores: ``(n,)``, more is better.
        rule_keep: members to keep in each group; smaller groups are kept whole.
        vectors: ``(n, d)`` non-zero vectors, for keepers that differ; None takes the best.

    Returns:
        ``(n,)`` bool; False outside groups.
    """
    keepers = np.zeros(len(labels), bool)
    scores = np.asarray(scores, np.float64)
    order = np.lexsort((np.arange(len(labels)), -scores, labels))
    order = order[np.asarray(labels)[order] >= 0]
    starts = np.flatnonzero(np.diff(np.asarray(labels)[order], prepend=-1))
    for members in np.split(order, starts[1:]) if len(order) else []:
        chosen = members[:rule_keep] if vectors is None else _spread(vectors, members, scores, rule_keep)
        keepers[chosen] = True
    return keepers


def _spread(vectors: np.ndarray, members: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """Those of the members, sorted by score, that differ most, beginning with the first."""
    measured = int(np.count_nonzero(scores[members] > -np.inf))
    if count == 1 or measured <= count:
        return members[:count]
    unit = np.asarray(vectors[members[:measured]], np.float32)
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    chosen, nearest = [0], unit @ unit[0]
    while len(chosen) < count:
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit @ unit[chosen[-1]])
    return members[chosen]
