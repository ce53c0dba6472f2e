"""The options of a search for correspondences, what they load, and what a result depends on."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..brain.backbones.default import default_backbone_name, default_backbone_notice
from ..brain.backbones.device import Precision
from ..brain.backbones.loader import load_backbone
from ..brain.correspondence.alignment import AlignConfig, Visibility
from ..brain.correspondence.decoding import DECODINGS, DecodeConfig
from ..brain.correspondence.diffusion import DiffusionConfig, DiffusionFeatures
from ..brain.correspondence.features import FeatureConfig, FeatureExtractor
from ..brain.correspondence.joint_features import COMPONENTS
from ..brain.correspondence.matching import MatchConfig
from ..brain.correspondence.views import ALL_VIEWS, IDENTITY, MIRROR, MIRROR_VIEWS, View
from ..brain.errors import ConfigError
from ..brain.metrics.keypoint_errors import ErrorFlavour
from ..brain.metrics.pck import PckFlavour
from ..brain.token_cache import TokenCache
from .dataset_io import FIELD_PREFIX

# The most similar cell, and only where the way back leads to the cell that one came from.
MUTUAL = "mutual"
CORRESPONDENCE_DECODINGS = (*DECODINGS, MUTUAL)

ALIGNMENTS: dict[str, tuple[View, ...]] = {"off": (IDENTITY,), "mirror": MIRROR_VIEWS, "all": ALL_VIEWS}

NO_FOREGROUND = "none"

# How features of Stable Diffusion are taken: as published, without a prompt.
DIFFUSION = DiffusionConfig()


@dataclass(frozen=True)
class CorrespondenceOptions:
    """The options of the plain function that results depend on, or that say where they are computed.

    Attributes:
        model: backbone; None takes the best one at hand.
        size: side of the canvas in pixels; None takes the multiple of the patch nearest to 840.
        decoding: one of :data:`CORRESPONDENCE_DECODINGS`.
        alignment: one of :data:`ALIGNMENTS`.
        visibility: which keypoints change over to a mirrored source.
        label_free: whether the scores that need no annotations are computed.
        foreground: ``"none"``, or ``"field:<name>"`` for the masks or boxes of a field of the pairs.
        count: matches of a pair without keypoints.
        alpha: share of the box, or of the image, within which a keypoint is correct.
        device, precision: where and in which number format the encoder runs.
        cache_tokens: whether tokens are kept on disk.
        diffusion: model of Stable Diffusion whose features join those of the backbone; None does without.

    Raises:
        ConfigError: an option is unknown or cannot work.
    """

    model: str | None = None
    size: int | None = None
    decoding: str = "window"
    alignment: str = "off"
    visibility: Visibility = "source"
    label_free: bool = True
    foreground: str = NO_FOREGROUND
    count: int = 20
    alpha: float = 0.1
    device: str = "auto"
    precision: Precision = "auto"
    cache_tokens: bool = False
    diffusion: str | None = None

    def __post_init__(self) -> None:
        _one_of("decoding", self.decoding, CORRESPONDENCE_DECODINGS)
        _one_of("alignment", self.alignment, tuple(ALIGNMENTS))
        AlignConfig(visibility=self.visibility)
        if self.foreground != NO_FOREGROUND and not str(self.foreground).startswith(FIELD_PREFIX):
            raise ConfigError(f"foreground={self.foreground!r} is unknown; use 'none' or '{FIELD_PREFIX}<name>'")
        if not isinstance(self.count, int) or self.count < 1:
            raise ConfigError(f"count={self.count!r} must be a whole number of at least 1")
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha <= 1:
            raise ConfigError(f"alpha={self.alpha!r} must be a number above 0 and at most 1")
        if self.diffusion is not None and not (isinstance(self.diffusion, str) and self.diffusion.strip()):
            raise ConfigError(f"diffusion={self.diffusion!r} must name a model or its folder, or be None")

    @property
    def foreground_field(self) -> str | None:
        """The field whose masks or boxes mark the objects."""
        return None if self.foreground == NO_FOREGROUND else self.foreground.removeprefix(FIELD_PREFIX)

    @property
    def views(self) -> tuple[View, ...]:
        """The ways in which sources are turned."""
        return ALIGNMENTS[self.alignment]

    @property
    def target_views(self) -> tuple[View, ...]:
        """The ways in which targets are turned: label-free scores also ask the mirror image."""
        return (IDENTITY, MIRROR) if self.label_free else (IDENTITY,)

    @property
    def mutual_only(self) -> bool:
        """Whether matches that do not lead back are dropped."""
        return self.decoding == MUTUAL

    @property
    def keeps_tokens(self) -> bool:
        """Whether tokens are kept on disk: where the second network takes part always, for it is by far the slowest."""
        return self.cache_tokens or self.diffusion is not None

    @property
    def match_config(self) -> MatchConfig:
        """How keypoints are matched."""
        method: Any = "nearest" if self.mutual_only else self.decoding
        return MatchConfig(DecodeConfig(method), round_trip=True)

    @property
    def align_config(self) -> AlignConfig:
        """Foregrounds are compared where they are known; whole pictures by what is mutual in them."""
        criterion: Any = "mutual" if self.foreground_field is None else "imd"
        return AlignConfig(criterion=criterion, visibility=self.visibility)

    @property
    def error_flavour(self) -> ErrorFlavour:
        """The threshold of errors: a share of the object's box where that is known, else of the image."""
        return ErrorFlavour(float(self.alpha), "image" if self.foreground_field is None else "box")

    @property
    def pck_flavour(self) -> PckFlavour:
        """The PCK of a pair."""
        return PckFlavour(self.error_flavour.alpha, "image", self.error_flavour.threshold)

    def load(self) -> FeatureExtractor:
        """The extractor, with its backbone and the network beside it.

        Raises:
            ConfigError: the model does not exist, the size does not fit it, or the package that ``diffusion`` takes is
                not installed.
            ModelError: a model cannot be loaded.
        """
        second = None
        if self.diffusion is not None:
            second = DiffusionFeatures(self.diffusion, DIFFUSION, device=self.device, precision=self.precision)
        backbone = load_backbone(self.model or default_backbone_name(), device=self.device, precision=self.precision)
        config = FeatureConfig(self.size, components=None if second is None else COMPONENTS)
        cache = TokenCache() if self.keeps_tokens else None
        return FeatureExtractor(backbone, config, second=second, token_cache=cache)

    def settings(self, extractor: FeatureExtractor) -> dict[str, Any]:
        """All that results depend on besides images, keypoints and masks, JSON-able."""
        chosen = {name: value for name, value in asdict(self).items() if name not in _NOT_OF_RESULTS}
        if self.diffusion is None:
            # Results from before there was a choice stay valid.
            del chosen["diffusion"]
        return {**chosen, "features": extractor.settings()}

    def notices(self) -> list[str]:
        """What a user should know of the choice."""
        notice = default_backbone_notice() if self.model is None else None
        return [notice] if notice else []


# What the extractor says more exactly, and what changes no result.
_NOT_OF_RESULTS = ("model", "size", "device", "precision", "cache_tokens")


def _one_of(option: str, value: Any, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ConfigError(f"{option}={value!r} is unknown; use one of {', '.join(accepted)}")
