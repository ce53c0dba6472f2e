"""What every pair matcher takes and gives: pictures that are described once, and what two of them have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..geometry import Geometry

# Strongest token pairs that an outcome keeps, to be drawn as lines.
MAX_LINES = 24


@dataclass(frozen=True)
class Picture:
    """What a matcher keeps of one image: made once, used in all pairs of that image.

    Attributes:
        image_hw: height and width of the upright image in pixels.
        geometry: where the image lies on the patch grid.
        tokens: ``(h, w, C)`` float32 patch tokens of unit length, 0 on padding.
        saliency: ``(h, w)`` float32 in [0, 1]: how far each patch stands out, 0 on padding.
        valid: ``(h, w)`` bool, False where a patch is padding.
        small: ``(H', W', 3)`` uint8 reduced copy of the image, for methods that look at its pixels.
    """

    image_hw: tuple[int, int]
    geometry: Geometry
    tokens: np.ndarray
    saliency: np.ndarray
    valid: np.ndarray
    small: np.ndarray


@dataclass(frozen=True)
class PairOutcome:
    """What two images have in common.

    Attributes:
        mask_a: ``(h, w)`` bool co-salient mask of the whole first image, in a resolution of the method's choice;
            :func:`full_size` gives it the size of the image. All False where ``no_common_region``.
        mask_b: likewise of the second image.
        score: how sure it is that both show the same object, in [0, 1].
        match: whether ``score`` reaches the matcher's threshold.
        no_common_region: True where nothing in common was found.
        scores: the figures behind ``score`` by name, see the matcher.
        lines: ``(n, 5)`` float32 strongest token pairs, the strongest first: ``x, y`` in the first image, ``x, y`` in
            the second, both relative to the image's size, and their cosine.
    """

    mask_a: np.ndarray
    mask_b: np.ndarray
    score: float
    match: bool
    no_common_region: bool
    scores: Mapping[str, float] = field(default_factory=dict)
    lines: np.ndarray = field(default_factory=lambda: np.empty((0, 5), np.float32))


@dataclass(frozen=True)
class SetOutcome:
    """What a set of images has in common.

    Attributes:
        masks: one ``(h, w)`` bool mask per image, as in :class:`PairOutcome`; empty for an image that lacks the object.
        no_common_region: True where the set has nothing in common; then all masks are empty.
    """

    masks: list[np.ndarray]
    no_common_region: bool


class PairMatcher(Protocol):
    """Compares images pair by pair; :func:`.loader.load_pair_matcher` makes one.

    Attributes:
        name: what the user asked for: ``"training_free"``, or the name of a trained matcher.
        threshold: least ``score`` of a match.
    """

    name: str
    threshold: float

    def settings(self) -> dict[str, Any]:
        """Everything that outcomes depend on besides the images, JSON-able, for provenance."""
        ...

    def prepare(self, image: np.ndarray, mask: np.ndarray | None = None) -> Any:
        """The part of the work that needs no device; safe in worker threads.

        Args:
            image: ``(H, W, 3)`` uint8 upright image.
            mask: ``(H, W)`` foreground in [0, 1] or bool that stands in for the matcher's own saliency.
        """
        ...

    def describe(self, prepared: Sequence[Any]) -> list[Picture]:
        """Runs the encoder on prepared images, in batches."""
        ...

    def compare(self, pairs: Sequence[tuple[Picture, Picture]]) -> list[PairOutcome]:
        """Compares pairs of described images."""
        ...

    def compare_set(self, pictures: Sequence[Picture]) -> SetOutcome:
        """Finds what at least two described images have in common."""
        ...


def full_size(mask: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """``(H, W)`` bool: a co-salient mask in the pixels of its image, smoothly enlarged.

    Args:
        mask: ``(h, w)`` bool mask of the whole image in any resolution.
        image_hw: height and width of the image.
    """
    if mask.shape == tuple(image_hw):
        return mask
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize(image_hw[::-1], Image.Resampling.BILINEAR)) >= 128
