"""What became of each predicted keypoint, given the true ones: exactly one type of error or success.

With the threshold T, a share of the longer side of the target's box or image, the first rule that holds decides:

1. the target does not show the keypoint: ``phantom_mirror`` if the prediction lies within T of its mirror partner,
   ``phantom_group`` if within T of a group mate, else ``not_in_target``;
2. within T of its own place: ``correct`` if that is the nearest of all annotated ones, else ``correct_ambiguous``,
   which PCK counts and PCK† does not;
3. the nearest annotated keypoint is another one and within T: ``swap_mirror`` if it is the mirror partner,
   ``swap_group`` if a group mate, else ``swap_other``;
4. within 2 T of its own place: ``jitter``;
5. ``miss_object`` on the object, ``miss_background`` off it, or where there is no prediction at all.

"Swap" means another part of the same object here. The older taxonomies, which are neither exclusive nor alike, are in
:mod:`.keypoint_taxonomies`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from ..errors import ConfigError
from .keypoints import share_text
from .pck import EvaluatedPair, ThresholdKind, check_threshold, geometry_aware

ErrorType = Literal[
    "correct",
    "correct_ambiguous",
    "swap_mirror",
    "swap_group",
    "swap_other",
    "jitter",
    "miss_object",
    "miss_background",
    "not_in_target",
    "phantom_mirror",
    "phantom_group",
]
ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)
NOT_IN_TARGET: tuple[ErrorType, ...] = ("not_in_target", "phantom_mirror", "phantom_group")
# What mistaking one part for another that looks like it leads to: what label-free scores are asked to find.
CONFUSIONS: tuple[ErrorType, ...] = ("swap_mirror", "swap_group", "phantom_mirror", "phantom_group")

# Of a pair that is inverted, as defined below.
_LEAST_PAIRED = 2


@dataclass(frozen=True)
class ErrorFlavour:
    """How verdicts on keypoints are reached.

    Attributes:
        alpha: share of the reference length that makes the threshold T.
        threshold: the reference length is the longer side of the target's ``"box"``, or of the target ``"image"``.

    Raises:
        ConfigError: ``alpha`` is not positive, or the threshold is unknown.
    """

    alpha: float = 0.1
    threshold: ThresholdKind = "box"

    def __post_init__(self) -> None:
        check_threshold("error types", self.alpha, self.threshold)

    @property
    def label(self) -> str:
        """In words: ``error types at T = 0.1 of the box``."""
        return f"error types at T = {share_text(self.alpha)} of the {self.threshold}"


@dataclass(frozen=True, eq=False)
class KeypointErrors:
    """Verdicts on the K keypoint slots of a pair. All arrays are ``(K,)``.

    Attributes:
        flavour: threshold used.
        types: the type's name; None for a slot that the source does not show, which has no match to judge.
        d_norm: float64 distance from the true place over the reference length; NaN where the target does not show the
            keypoint, infinite where there is no prediction.
        d_mirror_norm: the same to the true place of the mirror partner; NaN where there is none in the target.
        nearest_slot: int slot of the nearest annotated keypoint; -1 where there is none or no prediction.
        groups: int numbers of part groups.
        geometry_aware: bool, see :func:`.pck.geometry_aware`.
        category: of the pair.
        azimuth_difference: of the pair, 0 to 4; None where it is not known.
        inverted: whether exchanging the predictions of mirror partners mends the pair, see :func:`judge_pair`.
        gain: by how much it raises the number of correct keypoints; negative where it does harm, None where the pair
            has fewer than two keypoints to judge it by.
    """

    flavour: ErrorFlavour
    types: np.ndarray
    d_norm: np.ndarray
    d_mirror_norm: np.ndarray
    nearest_slot: np.ndarray
    groups: np.ndarray
    geometry_aware: np.ndarray
    category: str
    azimuth_difference: int | None
    inverted: bool
    gain: int | None


def judge_pair(
    pair: EvaluatedPair,
    partners: np.ndarray,
    flavour: ErrorFlavour | None = None,
    *,
    mask: np.ndarray | None = None,
    box: tuple[float, float, float, float] | None = None,
) -> KeypointErrors:
    """Types of all keypoints of a pair that the source shows.

    A pair is *inverted* if at least two keypoints can be judged for it (shown by the source, and the target shows both
    them and their mirror partners), reading each of their predictions as the partner's makes more of them correct, and
    at least half of them are ``swap_mirror``. Such a pair can be mended by mirroring; single swaps cannot.

    Args:
        pair: predictions and true points.
        partners: ``(K,)`` int slots of the mirror partners; the slot itself where there is none.
        flavour: None takes the defaults.
        mask: ``(H, W)`` bool of the object in the target, in the frame of the points.
        box: ``(x1, y1, x2, y2)`` of the object in the target, used where there is no mask. With neither, there is no
            background: every prediction that misses is a ``miss_object``.

    Raises:
        ConfigError: shapes disagree, or the pair lacks what the threshold is a share of.
    """
    flavour = flavour or ErrorFlavour()
    partners = np.asarray(partners, int)
    _check_partners(partners, len(pair.groups))
    if mask is not None and np.ndim(mask) != 2:
        raise ConfigError(f"a mask of shape {np.shape(mask)} cannot be used; give (H, W)")
    length = pair.reference_length(flavour.threshold)
    distances = _distances(pair)
    paired = partners != np.arange(len(partners))
    to_partner = np.where(paired, distances[np.arange(len(partners)), partners], np.inf)
    nearest = _nearest(distances, partners, pair.groups)
    on_object = _on_object(pair.predictions, mask, box)
    codes = _codes(pair, partners, distances, to_partner, nearest, flavour.alpha * length, on_object)
    types = np.array(ERROR_TYPES, object)[codes]
    types[~pair.source_visible] = None
    own = np.diagonal(distances)
    predicted = np.isfinite(pair.predictions).all(1)
    gain, inverted = _inversion(pair, partners, own, to_partner, types, flavour.alpha * length)
    return KeypointErrors(
        flavour=flavour,
        types=types,
        d_norm=np.where(pair.target_visible, own / length, np.nan),
        d_mirror_norm=np.where(paired & pair.target_visible[partners], to_partner / length, np.nan),
        nearest_slot=np.where(predicted & pair.target_visible.any(), nearest, -1),
        groups=pair.groups,
        geometry_aware=geometry_aware(pair.groups, pair.source_visible, pair.target_visible),
        category=pair.category,
        azimuth_difference=pair.azimuth_difference,
        inverted=inverted,
        gain=gain,
    )


def _check_partners(partners: np.ndarray, size: int) -> None:
    slots = np.arange(size)
    inside = partners.shape == (size,) and np.isin(partners, slots).all()
    if not inside or not np.array_equal(partners[partners], slots):
        raise ConfigError(f"partners must be ({size},) slots, and partners of each other")


def _distances(pair: EvaluatedPair) -> np.ndarray:
    """``(K, K)`` from each prediction to each true place; infinite where either is missing."""
    targets = np.where(pair.target_visible[:, None], pair.targets, np.inf)
    with np.errstate(invalid="ignore"):
        distances = np.linalg.norm(pair.predictions[:, None] - targets, axis=-1)
    return np.where(np.isfinite(distances), distances, np.inf)


def _nearest(distances: np.ndarray, partners: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """``(K,)`` slot of the nearest place. Of equally near ones its own comes first, then the partner's, then that of a
    group mate, so that the order of the slots does not decide."""
    rows = np.arange(len(distances))
    if not len(rows):
        return rows
    rank = np.where(groups[:, None] == groups, 2, 3)
    rank[rows, partners] = 1
    rank[rows, rows] = 0
    tied = distances == distances.min(1, keepdims=True)
    return np.where(tied, rank, 4).argmin(1)


def _codes(
    pair: EvaluatedPair,
    partners: np.ndarray,
    distances: np.ndarray,
    to_partner: np.ndarray,
    nearest: np.ndarray,
    threshold: float,
    on_object: np.ndarray,
) -> np.ndarray:
    """``(K,)`` index into :data:`ERROR_TYPES` by the first rule that holds."""
    slots = np.arange(len(partners))
    own, least = np.diagonal(distances), distances[slots, nearest]
    mates = (pair.groups[:, None] == pair.groups) & ~np.eye(len(slots), dtype=bool)
    to_mate = np.where(mates, distances, np.inf).min(1, initial=np.inf)
    hidden, swapped = ~pair.target_visible, (nearest != slots) & (least < threshold)
    rules: list[tuple[ErrorType, np.ndarray]] = [
        ("phantom_mirror", hidden & (to_partner < threshold)),
        ("phantom_group", hidden & (to_mate < threshold)),
        ("not_in_target", hidden),
        ("correct", (own < threshold) & (nearest == slots)),
        ("correct_ambiguous", own < threshold),
        ("swap_mirror", swapped & (nearest == partners)),
        ("swap_group", swapped & mates[slots, nearest]),
        ("swap_other", swapped),
        ("jitter", own < 2 * threshold),
        ("miss_object", on_object),
    ]
    codes = [ERROR_TYPES.index(name) for name, _ in rules]
    return np.select([holds for _, holds in rules], codes, default=ERROR_TYPES.index("miss_background"))


def _on_object(
    points: np.ndarray, mask: np.ndarray | None, box: tuple[float, float, float, float] | None
) -> np.ndarray:
    """``(K,)`` bool; False where there is no prediction."""
    predicted = np.isfinite(points).all(1)
    if mask is not None:
        x, y = np.floor(np.where(predicted[:, None], points, -1)).astype(int).T
        height, width = mask.shape
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        return inside & np.asarray(mask, bool)[y.clip(0, height - 1), x.clip(0, width - 1)]
    if box is not None:
        low, high = np.asarray(box[:2], float), np.asarray(box[2:], float)
        return predicted & (points >= low).all(1) & (points <= high).all(1)
    return predicted


def _inversion(
    pair: EvaluatedPair,
    partners: np.ndarray,
    own: np.ndarray,
    to_partner: np.ndarray,
    types: np.ndarray,
    threshold: float,
) -> tuple[int | None, bool]:
    """Gain in correct keypoints by exchanging partners, and whether the pair is inverted."""
    paired = partners != np.arange(len(partners))
    judged = paired & pair.judged & pair.target_visible[partners]
    count = int(judged.sum())
    if count < _LEAST_PAIRED:
        return None, False
    gain = int((to_partner[judged] < threshold).sum()) - int((own[judged] < threshold).sum())
    swapped = int((types[judged] == "swap_mirror").sum())
    return gain, gain > 0 and 2 * swapped >= count
