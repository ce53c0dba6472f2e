"""Co-salient masks of two pictures without any training: what stands out in both and is found again in the other.

Two ways to the masks of a pair. ``"clusters"``: all patches of both pictures are clustered together, and clusters that
are present, salient and mutually consistent in both pictures are their common object. ``"mutual"``: each patch is
compared with the foreground of the other picture and the background of its own, and both foregrounds are refitted to
the outcome, as GrabCut refits its colour models; it keeps objects whole whose parts fall into different clusters. Both
demand that enough patches find their way to the other picture and back.

Clusters, votes and the choice of their number follow Amir et al., "Deep ViT Features as Dense Visual Descriptors"
(2021); best buddies are those of Dekel et al. (2015).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from ..errors import ConfigError
from .comparison import Picture
from .patches import Partners, Patches, find_partners, mean_of_nearest
from .spherical_kmeans import spherical_kmeans

PairMethod = Literal["mutual", "clusters"]
PAIR_METHODS: tuple[PairMethod, ...] = ("mutual", "clusters")


@dataclass(frozen=True)
class PairConfig:
    """Settings of :func:`cosalient_pair`; the defaults of ``"clusters"`` are :data:`PAPER`.

    Attributes:
        method: see the module.
        reach: largest cycle error of a consistent patch, in patches.
        min_consistent: least share of consistent patches, in both pictures, of a cluster or of the whole object.
        min_patches, min_share: a cluster, or an object, has at least so many patches, and so much of the grid.
        saliency_level: mean saliency above which a cluster stands out; None takes Otsu's threshold of each picture.
        fewest, most: bounds of the number of clusters.
        ratio: another cluster must lower the objective below this share.
        rounds: refits of ``"mutual"``.
        nearest: patches over whose similarity ``"mutual"`` averages.
        contrast: weight of the difference between the similarity to the other's foreground and to the own background.
        trust: weight of the saliency, from -1 (none) to 1 (full).
        min_part: parts of a mask below this share of the grid are dropped.

    Raises:
        ConfigError: a value is out of its range.
    """

    method: PairMethod = "mutual"
    reach: int = 1
    min_consistent: float = 0.1
    min_patches: int = 4
    min_share: float = 0.005
    saliency_level: float | None = None
    fewest: int = 4
    most: int = 16
    ratio: float = 0.975
    rounds: int = 3
    nearest: int = 3
    contrast: float = 8.0
    trust: float = 2.0
    min_part: float = 0.003

    def __post_init__(self) -> None:
        if self.method not in PAIR_METHODS:
            raise ConfigError(f"method={self.method!r} is unknown; use one of {', '.join(PAIR_METHODS)}")
        for name in ("reach", "min_patches", "fewest", "most", "rounds", "nearest"):
            if getattr(self, name) < (0 if name == "reach" else 1):
                raise ConfigError(f"{name}={getattr(self, name)} is too small")
        for name in ("min_consistent", "min_share", "ratio", "min_part"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}={getattr(self, name)} must lie between 0 and 1")


PAPER = PairConfig(method="clusters")


@dataclass(frozen=True)
class CosalientPair:
    """What two pictures have in common, on their patch grids.

    Attributes:
        map_a: ``(h, w)`` float32 evidence per patch, positive for the common object.
        map_b: likewise of the second picture.
        mask_a: ``(h, w)`` bool: where the map is positive, holes filled and crumbs dropped; empty where nothing is in
            common.
        mask_b: likewise.
        a, b: the patches that were compared.
        partners: who found whom.
        no_common_region: whether nothing is in common.
    """

    map_a: np.ndarray
    map_b: np.ndarray
    mask_a: np.ndarray
    mask_b: np.ndarray
    a: Patches
    b: Patches
    partners: Partners
    no_common_region: bool

    def inside(self) -> tuple[np.ndarray, np.ndarray]:
        """``(n_a,)`` and ``(n_b,)`` bool: which patches lie in the masks."""
        return self.a.from_grid(self.mask_a), self.b.from_grid(self.mask_b)

    def swapped(self) -> "CosalientPair":
        """The same pair with the pictures in the other order."""
        back = self.partners
        partners = Partners(back.of_b, back.of_a, back.cosine_b, back.cosine_a, back.error_b, back.error_a)
        return CosalientPair(
            self.map_b, self.map_a, self.mask_b, self.mask_a, self.b, self.a, partners, self.no_common_region
        )


def cosalient_pair(first: Picture, second: Picture, config: PairConfig | None = None) -> CosalientPair:
    """Finds what two pictures have in common.

    The order of the pictures does not matter, nor does the scale of their tokens.

    Args:
        first, second: described pictures, by one and the same backbone.
        config: None takes the defaults.
    """
    config = config or PairConfig()
    a, b = Patches.of(first), Patches.of(second)
    # Sums in another order round in another way: pairs are computed in an order of their own.
    if a.tokens.tobytes() > b.tokens.tobytes():
        return _ordered_pair(b, a, config).swapped()
    return _ordered_pair(a, b, config)


def _ordered_pair(a: Patches, b: Patches, config: PairConfig) -> CosalientPair:
    partners = find_partners(a, b)
    evidence = _clustered if config.method == "clusters" else _mutual
    found = evidence(a, b, partners, config)
    if found is not None:
        maps = (a.on_grid(found[0], -1.0), b.on_grid(found[1], -1.0))
        masks = (tidy(maps[0] > 0, config.min_part), tidy(maps[1] > 0, config.min_part))
        if _agree(a, b, partners, (a.from_grid(masks[0]), b.from_grid(masks[1])), config):
            return CosalientPair(*maps, *masks, a, b, partners, False)
    nothing = [np.full(patches.grid_hw, -1.0, np.float32) for patches in (a, b)]
    empty = [np.zeros(patches.grid_hw, bool) for patches in (a, b)]
    return CosalientPair(nothing[0], nothing[1], empty[0], empty[1], a, b, partners, True)


def _agree(
    a: Patches, b: Patches, partners: Partners, inside: tuple[np.ndarray, np.ndarray], config: PairConfig
) -> bool:
    """Whether both masks are large enough, and enough of their patches find the other mask and come back."""
    large = all(mask.sum() >= max(config.min_patches, config.min_share * len(mask)) for mask in inside)
    return large and min(consistent_shares(partners, inside, config.reach)) >= config.min_consistent


def consistent_shares(partners: Partners, inside: tuple[np.ndarray, np.ndarray], reach: int) -> tuple[float, float]:
    """Of the patches in each mask, the share that is consistent and has its partner in the other mask; 0 if empty."""
    in_a, in_b = inside
    kept_a = in_a & (partners.error_a <= reach) & in_b[partners.of_a]
    kept_b = in_b & (partners.error_b <= reach) & in_a[partners.of_b]
    return float(kept_a.sum() / max(1, in_a.sum())), float(kept_b.sum() / max(1, in_b.sum()))


def _clustered(a: Patches, b: Patches, partners: Partners, config: PairConfig) -> tuple[np.ndarray, np.ndarray] | None:
    """Evidence from joint clusters; None where no cluster is foreground in both pictures."""
    together = np.concatenate([a.tokens, b.tokens])
    clusters = spherical_kmeans(together, config.fewest, config.most, config.ratio)
    label_a, label_b = clusters.label[: len(a.tokens)], clusters.label[len(a.tokens) :]
    sides = (
        (a, label_a, label_b[partners.of_a], partners.error_a),
        (b, label_b, label_a[partners.of_b], partners.error_b),
    )
    count = len(clusters.centres)
    foreground = np.ones(count, bool)
    for patches, label, partner_label, error in sides:
        members = np.bincount(label, minlength=count)
        level = otsu_level(patches.saliency) if config.saliency_level is None else config.saliency_level
        kept = (error <= config.reach) & (partner_label == label)
        share = np.bincount(label, kept, count) / members.clip(1)
        foreground &= members >= max(config.min_patches, config.min_share * len(label))
        foreground &= np.bincount(label, patches.saliency, count) / members.clip(1) > level
        foreground &= share >= config.min_consistent
    if not foreground.any():
        return None
    return _nearer(a, clusters.centres, foreground), _nearer(b, clusters.centres, foreground)


def _nearer(patches: Patches, centres: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """By how much each patch is nearer to a foreground centre than to any other, only in or beside such clusters."""
    cosine = patches.tokens @ centres.T
    others = cosine[:, ~foreground].max(axis=1) if (~foreground).any() else np.float32(-1)
    evidence = cosine[:, foreground].max(axis=1) - others
    own = patches.on_grid(foreground[cosine.argmax(axis=1)], False)
    near = patches.from_grid(ndimage.binary_dilation(own, np.ones((3, 3), bool)))
    return np.where(near, evidence, np.minimum(evidence, -1e-6)).astype(np.float32)


def _mutual(a: Patches, b: Patches, partners: Partners, config: PairConfig) -> tuple[np.ndarray, np.ndarray] | None:
    """Evidence from the foreground of the other and the background of the own picture, refitted; as log-odds."""
    inside = (a.saliency > 0.5, b.saliency > 0.5)
    evidence = (a.saliency, b.saliency)
    for _ in range(config.rounds):
        evidence = (_contrast(a, b, inside, config), _contrast(b, a, inside[::-1], config))
        inside = (evidence[0] > 0, evidence[1] > 0)
    return evidence


def _contrast(own: Patches, other: Patches, inside: tuple[np.ndarray, np.ndarray], config: PairConfig) -> np.ndarray:
    like_object = mean_of_nearest(own.tokens, other.tokens[inside[1]], config.nearest)
    like_ground = mean_of_nearest(own.tokens, own.tokens[~inside[0]], config.nearest)
    return config.contrast * (like_object - like_ground) + config.trust * (2 * own.saliency - 1)


def tidy(mask: np.ndarray, min_part: float) -> np.ndarray:
    """A mask with its holes filled, without parts that take less than ``min_part`` of the grid."""
    filled = ndimage.binary_fill_holes(mask)
    parts, count = ndimage.label(filled, np.ones((3, 3), bool))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = sizes >= min_part * mask.size
    large[0] = False
    return large[parts]


def otsu_level(values: np.ndarray) -> float:
    """Otsu's threshold, exact: the middle of the gap whose two sides have the least variance; inf for equal values."""
    ordered = np.sort(values.astype(np.float64))
    count, below = len(ordered), np.arange(1, len(ordered))
    if count < 2 or ordered[0] == ordered[-1]:
        return float("inf")
    sums = np.cumsum(ordered)[:-1]
    gap = sums / below - (ordered.sum() - sums) / (count - below)
    between = below * (count - below) * gap**2
    best = int(between.argmax())
    return float((ordered[best] + ordered[best + 1]) / 2)
