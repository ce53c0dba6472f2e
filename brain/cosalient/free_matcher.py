"""The pair matcher that needs no training: a backbone, a saliency, and a logistic of three scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch

from ..backbones.base import Backbone
from ..errors import ConfigError
from ..ffa_weights import as_soft_mask, content_coverage
from ..foreground.grabcut import GrabCut
from ..geometry import Geometry, image_to_canvas, mask_to_patches, plan_geometry
from .calibration import Calibration
from .comparison import PairOutcome, Picture, SetOutcome
from .cosalient_set import cosalient_set
from .default_calibration import UNCALIBRATED, calibration_of
from .lines import pair_lines
from .names import TRAINING_FREE, TRAINING_FREE_PAPER
from .refine import enlarged, refine_by_doubt, refine_by_erosion
from .saliency import AttentionRecorder, SaliencyMethod, attention_saliency, check_saliency, one_pass_saliency
from .scores import PairScores, pair_scores
from .training_free import PAPER, PairConfig, cosalient_pair

# Longer side of the copy whose pixels refine the masks.
_SMALL_SIDE = 320

# A grid with fewer patches per side than this has too few on a small object to compare.
_LEAST_PATCHES = 20

# Level of the class token's attention, stretched to [0, 1], above which a cluster stands out (Amir et al. 2021).
_ATTENTION_LEVEL = 0.065

MatchPreset = Literal["default", "paper"]


@dataclass(frozen=True)
class FreeConfig:
    """Settings of :class:`TrainingFreeMatcher`.

    Attributes:
        pair: how the common region is found.
        saliency: ``"foreground"`` (what either the tokens or the colours take for foreground), ``"one_pass"`` (the
            tokens alone) or ``"attention"`` (of the class token).
        refine: whether GrabCut gives masks the edges of the picture.
        size: side in pixels of a square with the area of the encoder's input; None suits the backbone.
    """

    pair: PairConfig = field(default_factory=PairConfig)
    saliency: SaliencyMethod = "foreground"
    refine: bool = True
    size: int | None = None


def match_preset(name: MatchPreset, backbone: Backbone, saliency: SaliencyMethod | None = None) -> FreeConfig:
    """Settings by name: ``"default"``, or ``"paper"``, which is joint clusters over saliency by attention.

    Args:
        name: of the preset.
        backbone: which it is for; not every one has a class token whose attention can be seen.
        saliency: in place of the preset's.

    Raises:
        ConfigError: the name is unknown.
    """
    if name == "default":
        return FreeConfig() if saliency is None else FreeConfig(saliency=saliency)
    if name != "paper":
        raise ConfigError(f"preset={name!r} is unknown; use 'default' or 'paper'")
    chosen = saliency or _paper_saliency(backbone)
    level = _ATTENTION_LEVEL if chosen == "attention" else PAPER.saliency_level
    return FreeConfig(pair=replace(PAPER, saliency_level=level), saliency=chosen)


def _paper_saliency(backbone: Backbone) -> SaliencyMethod:
    try:
        check_saliency("attention", backbone)
    except ConfigError:
        return "one_pass"
    return "attention"


@dataclass(frozen=True)
class PreparedPicture:
    """An image on its way to the encoder.

    Attributes:
        image_hw: height and width of the image.
        geometry: its placement on the canvas.
        canvas: ``(3, H, W)`` float32.
        small: ``(H', W', 3)`` uint8 reduced copy.
        coverage: ``(h, w)`` share of foreground per patch that is known beforehand; None where tokens alone tell.
        given: whether ``coverage`` was given by the user, and stands in for any saliency.
    """

    image_hw: tuple[int, int]
    geometry: Geometry
    canvas: torch.Tensor
    small: np.ndarray
    coverage: np.ndarray | None
    given: bool


class TrainingFreeMatcher:
    """A :class:`.comparison.PairMatcher` on the patch tokens of any backbone.

    Args:
        backbone: the frozen encoder.
        config: None is the default preset.
        calibration: from scores to ``score``; None takes the one that comes with the package for this backbone at the
            default settings, or, where there is none, a mapping that rises with the scores and is fitted on nothing.
        threshold: least score of a match; None takes that of the calibration.
        batch_size: most images per forward pass.

    Raises:
        ConfigError: the saliency does not fit the backbone, or the calibration was fitted with another one.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: FreeConfig | None = None,
        calibration: Calibration | None = None,
        threshold: float | None = None,
        batch_size: int = 16,
    ) -> None:
        self.backbone = backbone
        self.config = config = config or FreeConfig()
        self.name = TRAINING_FREE if config.pair.method == "mutual" else TRAINING_FREE_PAPER
        check_saliency(config.saliency, backbone)
        if calibration is None:
            calibration = calibration_of(backbone) if _scored_as_calibrated(config) else UNCALIBRATED
        self.calibration = calibration
        if self.calibration.weights_hash not in ("", backbone.weights_hash):
            raise ConfigError(
                f"the calibration was fitted on scores of another model than {backbone.name!r}; use the model that it"
                " was fitted with, or fit it again"
            )
        self.threshold = self.calibration.threshold if threshold is None else threshold
        least = _LEAST_PATCHES * backbone.patch_size
        self.size = config.size if config.size is not None else max(backbone.default_size, least)
        plan_geometry((1, 1), self.size, backbone.patch_size, "aspect")
        self._batch_size = batch_size
        self._recorder = AttentionRecorder(backbone) if config.saliency == "attention" else None

    @property
    def calibrated(self) -> bool:
        """Whether ``score`` was fitted on pairs."""
        return self.calibration.fitted_on > 0

    def settings(self) -> dict[str, Any]:
        """Everything that outcomes depend on besides the images, JSON-able."""
        return {
            "matcher": self.name,
            "model": self.backbone.name,
            "weights_hash": self.backbone.weights_hash,
            "precision": self.backbone.precision,
            **asdict(self.config),
            "size": self.size,
            "calibration": asdict(self.calibration),
            "threshold": self.threshold,
        }

    def prepare(self, image: np.ndarray, mask: np.ndarray | None = None) -> PreparedPicture:
        """The part of the work that needs no device; safe in worker threads.

        Args:
            image: ``(H, W, 3)`` uint8 upright image.
            mask: ``(H', W')`` foreground at any scale, which stands in for the saliency.
        """
        height, width = image.shape[:2]
        geometry = plan_geometry((height, width), self.size, self.backbone.patch_size, "aspect")
        small = _reduced(image)
        coverage = None
        if mask is not None:
            coverage = mask_to_patches(as_soft_mask(mask), geometry)
        elif self.config.saliency == "foreground":
            coverage = mask_to_patches(GrabCut().masks([small])[0], geometry)
        canvas = image_to_canvas(image, geometry)
        return PreparedPicture((height, width), geometry, canvas, small, coverage, mask is not None)

    def describe(self, prepared: Sequence[PreparedPicture]) -> list[Picture]:
        """Runs the encoder, on images of one canvas size at a time."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, picture in enumerate(prepared):
            groups.setdefault(picture.geometry.canvas_hw, []).append(index)
        found: dict[int, Picture] = {}
        for members in groups.values():
            for start in range(0, len(members), self._batch_size):
                chunk = members[start : start + self._batch_size]
                found.update(zip(chunk, self._encode([prepared[index] for index in chunk]), strict=True))
        return [found[index] for index in range(len(prepared))]

    def compare(self, pairs: Sequence[tuple[Picture, Picture]]) -> list[PairOutcome]:
        """Compares pairs of described images."""
        return [self._compare(first, second) for first, second in pairs]

    def scores(self, first: Picture, second: Picture) -> PairScores:
        """The three scores of a pair, for a calibration."""
        return pair_scores(cosalient_pair(first, second, self.config.pair), self.config.pair.reach)

    def compare_set(self, pictures: Sequence[Picture]) -> SetOutcome:
        """Finds what at least two described images have in common."""
        maps = cosalient_set(pictures, self.config.pair)
        masks = [self._mask(found, picture) for found, picture in zip(maps, pictures, strict=True)]
        return SetOutcome(masks, not any(mask.any() for mask in masks))

    def _compare(self, first: Picture, second: Picture) -> PairOutcome:
        pair = cosalient_pair(first, second, self.config.pair)
        scores = pair_scores(pair, self.config.pair.reach)
        score = float(self.calibration.probability(scores.as_row()[None])[0])
        nothing = pair.no_common_region
        return PairOutcome(
            mask_a=self._mask(_tidied(pair.map_a, pair.mask_a), first),
            mask_b=self._mask(_tidied(pair.map_b, pair.mask_b), second),
            score=score,
            match=score >= self.threshold and not nothing,
            no_common_region=nothing,
            scores=asdict(scores),
            lines=pair_lines(pair, first, second),
        )

    def _mask(self, evidence: np.ndarray, picture: Picture) -> np.ndarray:
        height, width = picture.small.shape[:2]
        if not (evidence > 0).any():
            return np.zeros((height, width), bool)
        pixels = enlarged(evidence, picture.geometry, (height, width))
        if not self.config.refine:
            return pixels > 0
        refine = refine_by_doubt if self.config.pair.method == "mutual" else refine_by_erosion
        return refine(picture.small, pixels)

    def _encode(self, prepared: Sequence[PreparedPicture]) -> list[Picture]:
        canvases = torch.stack([picture.canvas for picture in prepared])
        valid = torch.from_numpy(np.stack([content_coverage(picture.geometry) > 0.5 for picture in prepared]))
        patch, saliency = self._tokens(canvases, valid)
        unit = torch.nn.functional.normalize(patch.float(), dim=3) * valid[..., None].to(patch.device)
        tokens, found = unit.cpu().numpy(), saliency.cpu().numpy()
        return [
            Picture(
                picture.image_hw,
                picture.geometry,
                tokens[row],
                _combined(picture, found[row]),
                valid[row].numpy(),
                picture.small,
            )
            for row, picture in enumerate(prepared)
        ]

    def _tokens(self, canvases: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self._recorder is None:
            patch = self.backbone.tokens(canvases).patch
            return patch, one_pass_saliency(patch, valid)
        with self._recorder.recording():
            patch = self.backbone.tokens(canvases).patch
            attention = self._recorder.of_grid(*patch.shape[1:3])
        return patch, attention_saliency(attention, valid.to(attention.device))


def _scored_as_calibrated(config: FreeConfig) -> bool:
    # Scores do not depend on the refinement.
    return replace(config, refine=True) == FreeConfig()


def _combined(picture: PreparedPicture, found: np.ndarray) -> np.ndarray:
    if picture.coverage is None:
        return found.astype(np.float32)
    if picture.given:
        return picture.coverage.astype(np.float32)
    # Either method misses objects that the other sees; what only one of them sees, the other picture has to confirm.
    return np.maximum(found, picture.coverage).astype(np.float32)


def _tidied(evidence: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Evidence that agrees with its tidied mask about where the object is."""
    return np.where(mask, evidence.clip(1e-3), evidence.clip(max=-1e-3)).astype(np.float32)


def _reduced(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = _SMALL_SIDE / max(height, width)
    if scale >= 1:
        return image
    return cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )
