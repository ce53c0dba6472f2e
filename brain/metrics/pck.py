"""PCK with its flavour: what is averaged, what the threshold is a share of, which points are judged, and how.

Results that go by the one name PCK differ by ten points of a percent. Here a value never leaves without its
:class:`PckFlavour`. The definitions are those of SPair-71k (Min et al., arXiv:1908.10543) and of "Telling Left from
Right" (Zhang et al., arXiv:2311.17034), the latter also for the geometry-aware points and the split by azimuth; PCK†
is that of Aygün and Mac Aodha ("Demystifying Unsupervised Semantic Correspondence Estimation", ECCV 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..errors import ConfigError
from ..pair_sampling import AZIMUTH_BINS
from .keypoints import pck_scores, pck_threshold, point_distances, share_text

ThresholdKind = Literal["box", "image"]
THRESHOLD_KINDS: tuple[ThresholdKind, ...] = ("box", "image")


@dataclass(frozen=True)
class PckFlavour:
    """Which PCK a value is.

    Attributes:
        alpha: share of the reference length within which a point is correct.
        average: ``"image"``: mean over pairs of the share within each pair; ``"point"``: over all points together.
        threshold: the reference length is the longer side of the target's ``"box"``, or of the target ``"image"``.
        points: ``"all"`` that are visible in both images, or the ``"geometry_aware"`` ones among them.
        exclusive: PCK†: of all points annotated in the target, a correct prediction must lie nearest to its own. At
            exactly the threshold it is wrong, as in every PCK here; the published count lets it pass
            (:func:`.keypoint_taxonomies.eccv22_counts`).

    Raises:
        ConfigError: a value that is not named above.
    """

    alpha: float = 0.1
    average: Literal["image", "point"] = "image"
    threshold: ThresholdKind = "box"
    points: Literal["all", "geometry_aware"] = "all"
    exclusive: bool = False

    def __post_init__(self) -> None:
        check_threshold("PCK", self.alpha, self.threshold)
        for name, values in (("average", ("image", "point")), ("points", ("all", "geometry_aware"))):
            if getattr(self, name) not in values:
                raise ConfigError(f"PCK: {name}={getattr(self, name)!r}; there are {', '.join(values)}")

    @property
    def label(self) -> str:
        """In words: ``PCK@0.1 per image, box threshold, geometry-aware points``."""
        words = f"PCK{'†' * self.exclusive}@{share_text(self.alpha)} per {self.average}, {self.threshold} threshold"
        return words + ", geometry-aware points" * (self.points == "geometry_aware")

    @property
    def key(self) -> str:
        """As the name of a field or column: ``pck_0p1_per_image_box_geo``; never the same for two flavours."""
        name = "pck_exclusive" if self.exclusive else "pck"
        alpha = share_text(self.alpha).replace(".", "p")
        return f"{name}_{alpha}_per_{self.average}_{self.threshold}" + "_geo" * (self.points == "geometry_aware")


def check_threshold(metric: str, alpha: float, threshold: str) -> None:
    """What every verdict on keypoints needs: a positive share of a length that there is.

    Args:
        metric: named in the error.
        alpha: the share.
        threshold: of what.

    Raises:
        ConfigError: either cannot be.
    """
    if threshold not in THRESHOLD_KINDS:
        raise ConfigError(f"{metric}: threshold={threshold!r}; there are {', '.join(THRESHOLD_KINDS)}")
    if not 0 < alpha < np.inf:
        raise ConfigError(f"{metric}: alpha={alpha} must be positive and finite")


@dataclass(frozen=True)
class PckResult:
    """A PCK, and of which pairs.

    Attributes:
        flavour: which PCK it is.
        value: share in [0, 1]; NaN where there is no point.
        n_points: points that were judged.
        n_images: pairs with at least one such point.
        category: whose pairs; None for all.
        azimuth_difference: of the pairs, in eighths of a circle; None for all.
    """

    flavour: PckFlavour
    value: float
    n_points: int
    n_images: int
    category: str | None = None
    azimuth_difference: int | None = None

    def __str__(self) -> str:
        of = "".join(f", {part}" for part in (self.category, self._azimuth()) if part)
        return f"{self.flavour.label}{of}: {100 * self.value:.1f} % ({self.n_points} points of {self.n_images} pairs)"

    def as_row(self) -> dict[str, Any]:
        """For a table: the flavour in words and in its parts, the value, the counts and the part of the data."""
        return {
            "metric": self.flavour.label,
            "alpha": self.flavour.alpha,
            "average": self.flavour.average,
            "threshold": self.flavour.threshold,
            "points": self.flavour.points,
            "exclusive": self.flavour.exclusive,
            "category": self.category,
            "azimuth_difference": self.azimuth_difference,
            "value": self.value,
            "n_points": self.n_points,
            "n_images": self.n_images,
        }

    def _azimuth(self) -> str | None:
        return None if self.azimuth_difference is None else f"azimuth difference {self.azimuth_difference}"


@dataclass(frozen=True, eq=False)
class EvaluatedPair:
    """Predictions for the K keypoint slots of a pair, and what is annotated. All points are in pixels of one frame,
    that of the target image or of its canvas, and so are the lengths.

    Attributes:
        predictions: ``(K, 2)`` points ``(x, y)``; NaN where there is none, which counts as wrong.
        targets: ``(K, 2)`` true points; what stands in slots that are not visible is not read.
        source_visible, target_visible: ``(K,)`` bool, annotated in either image.
        groups: ``(K,)`` int numbers of part groups.
        box_wh: width and height of the target's box; None where there is none.
        image_wh: of the target image.
        category: of the objects.
        azimuth_difference: in eighths of a circle, 0 to 4; None where it is not known.

    Raises:
        ConfigError: shapes disagree, or a visible target is not finite.
    """

    predictions: np.ndarray
    targets: np.ndarray
    source_visible: np.ndarray
    target_visible: np.ndarray
    groups: np.ndarray
    box_wh: tuple[float, float] | None = None
    image_wh: tuple[float, float] | None = None
    category: str = ""
    azimuth_difference: int | None = None

    def __post_init__(self) -> None:
        size = len(self.targets)
        for name in ("predictions", "targets"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        for name in ("source_visible", "target_visible"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), bool))
        object.__setattr__(self, "groups", np.asarray(self.groups, int))
        shapes = [self.predictions.shape, self.targets.shape]
        flat = [self.source_visible.shape, self.target_visible.shape, self.groups.shape]
        if shapes != [(size, 2)] * 2 or flat != [(size,)] * 3:
            raise ConfigError(f"a pair's points must be (K, 2) and its flags and groups (K,), not {shapes} and {flat}")
        if not np.isfinite(self.targets[self.target_visible]).all():
            raise ConfigError("a keypoint that is visible in the target has no finite place there")

    @property
    def judged(self) -> np.ndarray:
        """``(K,)`` bool: visible in both images."""
        return self.source_visible & self.target_visible

    def reference_length(self, kind: ThresholdKind) -> float:
        """The longer side of the target's box or image, in pixels: the threshold for alpha = 1.

        Raises:
            ConfigError: the pair does not have it.
        """
        sides = self.box_wh if kind == "box" else self.image_wh
        if sides is None:
            raise ConfigError(
                f"a pair of {self.category or 'unnamed category'} has no target {kind} to take a share of"
            )
        return pck_threshold(sides, alpha=1)


def geometry_aware(groups: np.ndarray, source_visible: np.ndarray, target_visible: np.ndarray) -> np.ndarray:
    """Keypoints that only geometry tells from another: visible in both images, with a group mate in the target.

    Whether the mate is visible in the source does not matter (arXiv:2311.17034, section 3).

    Args:
        groups: ``(..., K)`` int numbers of part groups.
        source_visible, target_visible: ``(..., K)`` bool.

    Returns:
        ``(..., K)`` bool.
    """
    groups, target_visible = np.asarray(groups), np.asarray(target_visible, bool)
    mates = groups[..., :, None] == groups[..., None, :]
    mates &= ~np.eye(groups.shape[-1], dtype=bool)
    return np.asarray(source_visible, bool) & target_visible & (mates & target_visible[..., None, :]).any(-1)


def mirror_pair_in_source(partners: np.ndarray, source_visible: np.ndarray, target_visible: np.ndarray) -> np.ndarray:
    """Keypoints that are visible in both images and whose mirror partner is visible in the source.

    Args:
        partners: ``(K,)`` int slots of the mirror partners; the slot itself where there is none.
        source_visible, target_visible: ``(..., K)`` bool.

    Returns:
        ``(..., K)`` bool.
    """
    partners, source_visible = np.asarray(partners), np.asarray(source_visible, bool)
    paired = partners != np.arange(len(partners))
    return source_visible & np.asarray(target_visible, bool) & paired & source_visible[..., partners]


def opposite_half(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether exactly one of two azimuth bins lies in the first half of the numbers, 0 to 3."""
    return (np.asarray(a) < AZIMUTH_BINS // 2) != (np.asarray(b) < AZIMUTH_BINS // 2)


def pose_sensitivity(values: Sequence[float]) -> float:
    """``(max - min) / max`` of the PCK of the azimuth splits; NaN where fewer than two are known, or all are 0.

    The paper (arXiv:2311.17034) shows a normalised gap without saying by what; this is one reading.
    """
    known = [value for value in values if np.isfinite(value)]
    if len(known) < 2 or max(known) == 0:
        return float("nan")
    return (max(known) - min(known)) / max(known)


def pair_verdicts(pair: EvaluatedPair, flavour: PckFlavour) -> np.ndarray:
    """``(N,)`` bool, whether each judged point of the pair is correct; N is 0 where the flavour judges none.

    Raises:
        ConfigError: the pair lacks what the threshold is a share of.
    """
    chosen = pair.judged
    if flavour.points == "geometry_aware":
        chosen = geometry_aware(pair.groups, pair.source_visible, pair.target_visible)
    if not chosen.any():
        return np.zeros(0, bool)
    own = point_distances(pair.predictions[chosen], pair.targets[chosen])
    correct = own < flavour.alpha * pair.reference_length(flavour.threshold)
    if flavour.exclusive:
        all_seen = pair.targets[pair.target_visible]
        others = np.linalg.norm(pair.predictions[chosen][:, None] - all_seen, axis=-1)
        correct &= own <= others.min(1, initial=np.inf)
    return correct


def pck(pairs: Iterable[EvaluatedPair], flavour: PckFlavour) -> PckResult:
    """The PCK of pairs.

    Raises:
        ConfigError: a pair lacks what the threshold is a share of.
    """
    return _averaged([pair_verdicts(pair, flavour) for pair in pairs], flavour)


def pck_table(pairs: Iterable[EvaluatedPair], flavours: Sequence[PckFlavour]) -> list[PckResult]:
    """PCK of all pairs, of each category, and of each azimuth difference that occurs, in every flavour.

    Raises:
        ConfigError: a pair lacks what a threshold is a share of.
    """
    pairs = list(pairs)
    results = []
    categories = sorted({pair.category for pair in pairs if pair.category})
    turns = sorted({pair.azimuth_difference for pair in pairs if pair.azimuth_difference is not None})
    for flavour in flavours:
        verdicts = [pair_verdicts(pair, flavour) for pair in pairs]
        results.append(_averaged(verdicts, flavour))
        for category in categories:
            chosen = [one for pair, one in zip(pairs, verdicts, strict=True) if pair.category == category]
            results.append(_averaged(chosen, flavour, category=category))
        for turn in turns:
            chosen = [one for pair, one in zip(pairs, verdicts, strict=True) if pair.azimuth_difference == turn]
            results.append(_averaged(chosen, flavour, azimuth=turn))
    return results


def _averaged(
    verdicts: list[np.ndarray], flavour: PckFlavour, *, category: str | None = None, azimuth: int | None = None
) -> PckResult:
    scores = pck_scores(verdicts)
    value = scores.per_image if flavour.average == "image" else scores.per_point
    return PckResult(flavour, value, scores.n_points, scores.n_images, category, azimuth)
