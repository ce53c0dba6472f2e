"""Which image of a duplicate group to keep: one tunable score made of resolution, sharpness, exposure, file size."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .errors import ConfigError
from .image_quality import QualityScores

# A blank picture has no sharpness at all; a finite score keeps its other measures in play.
_LEAST_SHARPNESS = 2.0**-10


@dataclass(frozen=True)
class KeeperPolicy:
    """Weights of the keeper's score; the image with the highest score of its group is kept.

    Score = resolution · log2(pixels) + sharpness · log2(sharpness) + exposure · exposure + file_size · log2(bytes),
    with the measures of :class:`.image_quality.QualityScores`. So with weight 1, twice the pixels, twice the sharpness,
    a perfect exposure instead of a hopeless one or twice the bytes are worth one point each. A weight of 0 leaves a
    measure out; a negative one prefers less of it.
    """

    resolution: float = 1.0
    sharpness: float = 0.5
    exposure: float = 1.0
    file_size: float = 0.25

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

    def score(self, qualities: Sequence[QualityScores | None]) -> np.ndarray:
        """``(n,)`` float64 scores, more is better; images without measures (None) score minus infinity."""
        return np.array([-np.inf if quality is None else self._score_one(quality) for quality in qualities], np.float64)

    def _score_one(self, quality: QualityScores) -> float:
        return float(
            self.resolution * np.log2(max(quality.pixels, 1))
            + self.sharpness * np.log2(max(quality.sharpness, _LEAST_SHARPNESS))
            + self.exposure * quality.exposure
            + self.file_size * np.log2(max(quality.file_size, 1))
        )
