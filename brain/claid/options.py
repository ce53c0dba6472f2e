"""The options of the CLAID region detector and its presets."""

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import isfinite
from typing import Any, Literal, get_args

from ..errors import ConfigError

Connectivity = Literal["program", "paper"]
Init = Literal["affinity", "nearest"]
Order = Literal["hash", "raster", "pyrandom"]
BoxMode = Literal["exact", "reference"]
Cut = Literal["ksums", "ncut"]


@dataclass(frozen=True)
class DetectorOptions:
    """How regions are found; the symbols are those of arXiv:2506.16745, "program" is the authors' released program.

    Shares and thresholds mean the decimal numbers that are written: 4 of 20 patches do not exceed 0.2.

    Attributes:
        alpha: two patches are linked if the cosine of their tokens exceeds it.
        tau1: a region is bisected if its connectivity is below it.
        tau2: a region is emitted if its share of high-energy patches exceeds it.
        theta: share of the patches of an image that count as high-energy ones (those with the largest L1 norms).
        min_patches: smaller components are dropped, from the output and from the recursion.
        connectivity: ``"paper"`` is the share of linked pairs in a region; ``"program"`` counts the links of patches
            with themselves, too, so that it is larger for small regions and can exceed 1.
        inertia: a patch changes clusters if that lowers the sum of squared distances by more than this many times its
            own squared length: 1 in the program, 0 in the paper.
        init: how a bisection starts from its two seeds, the patches of lowest and highest degree: ``"affinity"`` gives
            the second cluster the patches that are linked to the high seed and not to the low one, ``"nearest"``
            (paper) those that are more similar to the high seed.
        order: in which order patches are visited: ``"hash"`` (pseudo-random, yet the same for every engine, batch
            and node), ``"raster"``, or ``"pyrandom"`` (Python's generator, which depends on the order of the nodes).
        seed: of the order; ``"raster"`` ignores it.
        max_epochs: sweeps over the patches at most; the first one without a move ends a bisection.
        box_mode: ``"exact"`` boxes hold their region; ``"reference"`` ones have the far edges of the program.
        cut: ``"ksums"``, or ``"ncut"`` for normalised cuts, with which the paper compares; the latter ignores
            ``inertia``, ``init``, ``order``, ``seed`` and ``max_epochs``.

    Raises:
        ConfigError: an option has a value that cannot work.
    """

    alpha: float = 0.2
    tau1: float = 0.97
    tau2: float = 0.2
    theta: float = 0.3
    min_patches: int = 15
    connectivity: Connectivity = "program"
    inertia: float = 1.0
    init: Init = "affinity"
    order: Order = "hash"
    seed: int = 0
    max_epochs: int = 501
    box_mode: BoxMode = "exact"
    cut: Cut = "ksums"

    def __post_init__(self) -> None:
        for option, kind in _CHOICES.items():
            value = getattr(self, option)
            if value not in get_args(kind):
                raise ConfigError(f"{option}={value!r} is unknown; use one of {', '.join(get_args(kind))}")
        for option, (accepts, wanted) in _NUMBERS.items():
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
                raise ConfigError(f"{option}={value!r} is not a number; use {wanted}")
            if not accepts(value):
                raise ConfigError(f"{option}={value!r} cannot work; use {wanted}")

    def rank(self, n: int) -> int:
        """0-based rank, ascending, of the energy from which on the patches of an image count as high-energy ones."""
        return int((1 - _exact(self.theta)) * n)

    def emits(self, hits: int, size: int) -> bool:
        """Whether a region of ``size`` patches, ``hits`` of them high-energy ones, is emitted."""
        return int(hits) > _exact(self.tau2) * int(size)

    def expands(self, links: int, size: int) -> bool:
        """Whether a region of ``size`` patches is bisected; ``links`` are its ordered linked pairs of two patches."""
        size, links = int(size), int(links)
        pairs = size * (size - 1)
        if self.connectivity == "paper":
            return links < _exact(self.tau1) * pairs
        # All is multiplied by 100,000 to stay with integers.
        counted = (links + size) * UNLINKED_PER_LINK + pairs - links
        return counted < _exact(self.tau1) * pairs * UNLINKED_PER_LINK


# In the program, so many pairs without a link count as much as one with; it has no effect that could be seen.
UNLINKED_PER_LINK = 100_000

_CHOICES: dict[str, Any] = {
    "connectivity": Connectivity,
    "init": Init,
    "order": Order,
    "box_mode": BoxMode,
    "cut": Cut,
}
_NUMBERS: dict[str, Any] = {
    "alpha": (lambda value: -1 <= value < 1, "a cosine from -1 up to, but without, 1"),
    "tau1": (lambda value: value >= 0, "a number of at least 0"),
    "tau2": (lambda value: value >= 0, "a number of at least 0"),
    "theta": (lambda value: 0 < value <= 1, "a share above 0, up to 1"),
    "min_patches": (lambda value: value >= 1 and value == int(value), "a whole number of at least 1"),
    "inertia": (lambda value: value >= 0, "a number of at least 0"),
    "seed": (lambda value: value == int(value), "a whole number"),
    "max_epochs": (lambda value: value >= 1 and value == int(value), "a whole number of at least 1"),
}


# "code" is the released program and "paper" the paper, where the two differ from one another and from the default.
PRESETS: dict[str, DetectorOptions] = {
    "default": DetectorOptions(),
    "code": DetectorOptions(tau2=0.1, box_mode="reference"),
    "paper": DetectorOptions(init="nearest", inertia=0.0, connectivity="paper", tau2=0.2),
}


def detector_preset(name: str, **overrides: Any) -> DetectorOptions:
    """The options of a preset with some of them changed; those that are None stay as they are.

    Raises:
        ConfigError: there is no such preset, or an option cannot work.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset={name!r} is unknown; use one of {', '.join(PRESETS)}")
    return replace(PRESETS[name], **{option: value for option, value in overrides.items() if value is not None})


@lru_cache
def _exact(value: float) -> Fraction:
    """The decimal number that is written, not the binary fraction next to it."""
    return Fraction(str(value))
