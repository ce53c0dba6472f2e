"""A trained pair network as a :class:`~.comparison.PairMatcher`."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional

from ..backbones.device import PRECISION_NAMES
from ..backbones.encoder import Placement
from ..errors import ConfigError
from ..ffa_weights import as_soft_mask
from ..geometry import Geometry, image_to_canvas, mask_to_patches, plan_geometry
from .comparison import PairOutcome, Picture, SetOutcome
from .lines import pair_lines
from .network import PairNetwork
from .patches import Patches, find_partners
from .refine import enlarged, refine_by_doubt
from .scores import pair_scores
from .training_free import CosalientPair

# Images, and pairs, that go through the network at once.
_BATCH = 8

# In a set each image meets so many that follow it, so that the cost grows with the images and not with their square.
_SET_REACH = 4

# Probabilities of a mask are kept this far from 0 and 1, where log-odds are infinite.
_LEAST_DOUBT = 1e-4

T = TypeVar("T")


@dataclass(frozen=True)
class TrainedPicture(Picture):
    """What a trained matcher keeps of one image; its ``small`` is the network's canvas.

    Attributes:
        described: ``(C, h', w')`` float32, what :meth:`.PairNetwork.describe` made of it.
    """

    described: torch.Tensor


@dataclass(frozen=True)
class PreparedCanvas:
    """An image on its way to the network.

    Attributes:
        geometry: where it lies on the canvas.
        canvas: ``(3, side, side)`` float32 in [0, 1].
        saliency: ``(h, w)`` float32 in [0, 1]: coverage by the given foreground; 1 without one.
    """

    geometry: Geometry
    canvas: torch.Tensor
    saliency: np.ndarray


@dataclass(frozen=True)
class _Found:
    """What the network says of one pair.

    Attributes:
        masks: ``(h, w)`` probabilities of the co-salient cells of both images.
        features: ``(d, h, w)`` of both images.
        logit: log-odds of a match.
        weak_region: whether a mask is empty.
    """

    masks: tuple[np.ndarray, np.ndarray]
    features: tuple[np.ndarray, np.ndarray]
    logit: float
    weak_region: bool

    @property
    def score(self) -> float:
        return float(1 / (1 + np.exp(-self.logit)))


class TrainedMatcher:
    """Co-salient masks and the decision of a pair network.

    The outcome does not depend on the order of the images: a network that is not symmetric is asked in both orders,
    and its log-odds and mask probabilities are averaged. ``scores`` are those of the training-free matcher, on the
    network's own features. What images of different objects have in common is not defined and not trained, so the
    masks of a pair that is no match are guesses.

    Args:
        network: the trained network; it is moved.
        name: what the user asked for.
        digest: hash of all that the network's answers depend on.
        threshold: least score of a match.
        placement: where and in which number format it runs.
        refine: whether GrabCut gives masks the edges of the picture.
    """

    def __init__(
        self,
        network: PairNetwork,
        *,
        name: str,
        digest: str,
        threshold: float,
        placement: Placement,
        refine: bool = True,
    ) -> None:
        self.name = name
        self.threshold = threshold
        self.config = network.config
        self._digest = digest
        self._placement = placement
        self._refine = refine
        self._network = network.eval().requires_grad_(False).to(placement.device)

    def settings(self) -> dict[str, Any]:
        """Name, hash of options and weights, threshold, refinement and number format."""
        return {
            "matcher": self.name,
            "weights_hash": self._digest,
            "threshold": self.threshold,
            "refine": self._refine,
            "precision": PRECISION_NAMES[self._placement.dtype],
        }

    def prepare(self, image: np.ndarray, mask: np.ndarray | None = None) -> PreparedCanvas:
        """Places an image on the canvas; safe in worker threads.

        Args:
            image: ``(H, W, 3)`` uint8 upright image.
            mask: ``(H', W')`` foreground at any scale; co-salient masks stay inside it.
        """
        side = self.config.side
        geometry = plan_geometry((image.shape[0], image.shape[1]), side, side // self._network.grid_side)
        saliency = (
            np.ones(geometry.grid_hw, np.float32) if mask is None else mask_to_patches(as_soft_mask(mask), geometry)
        )
        return PreparedCanvas(geometry, image_to_canvas(image, geometry), saliency)

    def describe(self, prepared: Sequence[PreparedCanvas]) -> list[Picture]:
        """What needs one image only: the whole encoder of twins, nothing of CODER.

        ``tokens`` are the features of each image in the light of itself.
        """
        pictures: list[Picture] = []
        for batch in _batches(prepared):
            with self._running():
                canvases = torch.stack([one.canvas for one in batch]).to(self._placement.device)
                described = self._network.describe(self._network.inputs(canvases))
                features = self._network.encoder.pair(described, described)[0]
            parts = zip(batch, described.float().cpu(), features.float().cpu(), strict=True)
            pictures += [_picture(*part) for part in parts]
        return pictures

    def compare(self, pairs: Sequence[tuple[Picture, Picture]]) -> list[PairOutcome]:
        """Compares pairs of images that this matcher described.

        Raises:
            ConfigError: a picture was described by another kind of matcher.
        """
        return [
            self._outcome(first, second, found)
            for batch in _batches(pairs)
            for (first, second), found in zip(batch, self._find(batch), strict=True)
        ]

    def compare_set(self, pictures: Sequence[Picture]) -> SetOutcome:
        """What images share with those of the others that match: the mean of the masks of those pairs.

        Each image meets at most eight others, the nearest in the order given, whose ends meet. An image without a
        match lacks the object.

        Raises:
            ConfigError: there are fewer than two pictures, or one was described by another kind of matcher.
        """
        if len(pictures) < 2:
            raise ConfigError(f"{len(pictures)} picture has nothing to share; give at least two")
        sums = [np.zeros(picture.valid.shape, np.float32) for picture in pictures]
        matches = np.zeros(len(pictures), int)
        for batch in _batches(_neighbours(len(pictures))):
            for members, found in zip(batch, self._find([(pictures[i], pictures[j]) for i, j in batch]), strict=True):
                if self._is_match(found):
                    for index, mask in zip(members, found.masks, strict=True):
                        sums[index] += mask
                        matches[index] += 1
        means = [total / max(count, 1) for total, count in zip(sums, matches, strict=True)]
        masks = [self._mask(mean, picture) for mean, picture in zip(means, pictures, strict=True)]
        return SetOutcome(masks, not any(mask.any() for mask in masks))

    def _outcome(self, first: Picture, second: Picture, found: _Found) -> PairOutcome:
        pair = _as_pair(first, second, found, self.config.alpha)
        masks = (pair.mask_a.astype(np.float32), pair.mask_b.astype(np.float32)) if found.weak_region else found.masks
        return PairOutcome(
            mask_a=self._mask(masks[0], first),
            mask_b=self._mask(masks[1], second),
            score=found.score,
            match=self._is_match(found),
            no_common_region=found.weak_region,
            scores=asdict(pair_scores(pair)),
            lines=pair_lines(pair, first, second),
        )

    def _is_match(self, found: _Found) -> bool:
        return found.score >= self.threshold and not found.weak_region

    def _mask(self, probability: np.ndarray, picture: Picture) -> np.ndarray:
        """The mask of ``(h, w)`` probabilities, in pixels of the canvas."""
        height, width = picture.small.shape[:2]
        if not (probability > self.config.alpha).any():
            return np.zeros((height, width), bool)
        evidence = enlarged(_log_odds(probability, self.config.alpha), picture.geometry, (height, width))
        return refine_by_doubt(picture.small, evidence) if self._refine else evidence > 0

    def _find(self, pairs: Sequence[tuple[Picture, Picture]]) -> list[_Found]:
        found = self._ask(pairs)
        if self.config.symmetric:
            return found
        turned = self._ask([(second, first) for first, second in pairs])
        return [_averaged(one, other, self.config.alpha) for one, other in zip(found, turned, strict=True)]

    def _ask(self, pairs: Sequence[tuple[Picture, Picture]]) -> list[_Found]:
        """The network's answer in the order given; the regions it compares stay inside the given foregrounds."""
        sides = [[pair[side] for pair in pairs] for side in (0, 1)]
        with self._running():
            found = self._network.find(self._described(sides[0]), self._described(sides[1]))
            masks = [
                logits.float().sigmoid() * self._saliency(side)
                for logits, side in zip((found.mask_logits_a, found.mask_logits_b), sides, strict=True)
            ]
            output = self._network.decide(found, *masks)
        mask_a, mask_b, features_a, features_b = (
            values.float().cpu().numpy() for values in (*masks, found.features_a, found.features_b)
        )
        return [
            _Found((mask_a[row], mask_b[row]), (features_a[row], features_b[row]), logit, weak)
            for row, (logit, weak) in enumerate(
                zip(output.logit.float().tolist(), output.weak_region.tolist(), strict=True)
            )
        ]

    def _described(self, pictures: Sequence[Picture]) -> torch.Tensor:
        described = [picture.described for picture in pictures if isinstance(picture, TrainedPicture)]
        if len(described) < len(pictures):
            raise ConfigError(f"matcher={self.name!r} compares only pictures that it described itself")
        return torch.stack(described).to(self._placement.device)

    def _saliency(self, pictures: Sequence[Picture]) -> torch.Tensor:
        return torch.from_numpy(np.stack([picture.saliency for picture in pictures])).to(self._placement.device)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        dtype = self._placement.dtype
        with (
            torch.inference_mode(),
            torch.autocast(self._placement.device.type, dtype, enabled=dtype != torch.float32),
        ):
            yield


def _picture(prepared: PreparedCanvas, described: torch.Tensor, features: torch.Tensor) -> TrainedPicture:
    tokens = functional.normalize(features, dim=0).permute(1, 2, 0).numpy()
    small = (prepared.canvas.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    valid = np.ones(prepared.geometry.grid_hw, bool)
    return TrainedPicture(
        prepared.geometry.image_hw, prepared.geometry, tokens, prepared.saliency, valid, small, described
    )


def _as_pair(first: Picture, second: Picture, found: _Found, alpha: float) -> CosalientPair:
    """The network's answer in the form from which scores and lines are made."""
    a, b = Patches.of(_with_tokens(first, found.features[0])), Patches.of(_with_tokens(second, found.features[1]))
    odds = [_log_odds(mask, alpha) for mask in found.masks]
    masks = [(mask > alpha) & (not found.weak_region) for mask in found.masks]
    return CosalientPair(odds[0], odds[1], masks[0], masks[1], a, b, find_partners(a, b), found.weak_region)


def _with_tokens(picture: Picture, features: np.ndarray) -> Picture:
    tokens = features.transpose(1, 2, 0)
    return Picture(picture.image_hw, picture.geometry, tokens, picture.saliency, picture.valid, picture.small)


def _log_odds(probability: np.ndarray, alpha: float) -> np.ndarray:
    """Log-odds that are positive exactly where the probability exceeds ``alpha``."""
    inside = probability > alpha
    clipped = probability.astype(np.float64).clip(_LEAST_DOUBT, 1 - _LEAST_DOUBT)
    odds = np.log(clipped / (1 - clipped)) - np.log(alpha / (1 - alpha))
    return np.where(inside, odds.clip(1e-6), odds.clip(max=-1e-6)).astype(np.float32)


def _averaged(one: _Found, other: _Found, alpha: float) -> _Found:
    """The mean of the answers in both orders, in the first one's order."""
    masks = ((one.masks[0] + other.masks[1]) / 2, (one.masks[1] + other.masks[0]) / 2)
    features = ((one.features[0] + other.features[1]) / 2, (one.features[1] + other.features[0]) / 2)
    weak = not all((mask > alpha).any() for mask in masks)
    return _Found(masks, features, (one.logit + other.logit) / 2, weak)


def _neighbours(count: int) -> list[tuple[int, int]]:
    """Pairs of each of ``count`` places on a circle with the few that follow it, each pair once."""
    steps = range(1, min(_SET_REACH, count - 1) + 1)
    met = ((i, (i + step) % count) for i in range(count) for step in steps)
    return sorted({(min(pair), max(pair)) for pair in met})


def _batches(items: Sequence[T]) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
