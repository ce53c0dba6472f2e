"""The options of FFA, its presets, and the names that the published release uses for its variants."""

from dataclasses import dataclass, replace
from typing import Any, Literal

from .errors import ConfigError
from .ffa_weights import WEIGHT_MODES, WeightMode
from .geometry import RESIZE_MODES, ResizeMode

Encode = Literal["original", "cutout"]
Pooling = Literal["patch", "cls"]
ENCODES: tuple[Encode, ...] = ("original", "cutout")
POOLINGS: tuple[Pooling, ...] = ("patch", "cls")

# The names read the other way round: both variants average foreground features, and only Crop-Feat crops the picture.
RELEASED_NAMES: dict[str, Encode] = {"Crop-Feat": "cutout", "Crop-Img": "original"}


@dataclass(frozen=True)
class FFAConfig:
    """How a vector is made.

    Attributes:
        encode: ``"original"`` shows the encoder the whole picture, so that tokens know their surroundings;
            ``"cutout"`` blackens the background first. Both average over the foreground's patches only.
        pooling: ``"patch"`` averages foreground patches; ``"cls"`` takes the class token (of the picture or cut-out).
        weights: ``"hard"`` averages the patches that are more than half foreground, ``"soft"`` weighs all by coverage.
        resize: how a picture meets the canvas: ``"squash"`` (published), ``"letterbox"`` or ``"aspect"``.
        size: side of the canvas in pixels, a multiple of the patch; None takes the backbone's own.
        final_norm: tokens after (True) or before the encoder's final layer norm.
        released_mask: parity with the published release, for tests: the mask is inferred from dark pixels of the
            cut-out, whose edge is mixed with grey.
        fast_decode: large JPEGs may be decoded at reduced scale, never below twice the canvas.

    Raises:
        ConfigError: an option has an unknown value, or ``released_mask`` meets what the release does not know.
    """

    encode: Encode = "original"
    pooling: Pooling = "patch"
    weights: WeightMode = "hard"
    resize: ResizeMode = "squash"
    size: int | None = None
    final_norm: bool = True
    released_mask: bool = False
    fast_decode: bool = True

    def __post_init__(self) -> None:
        choices = {"encode": ENCODES, "pooling": POOLINGS, "weights": WEIGHT_MODES, "resize": RESIZE_MODES}
        for option, accepted in choices.items():
            value = getattr(self, option)
            if value not in accepted:
                raise ConfigError(f"{option}={value!r} is unknown; use one of {', '.join(accepted)}")
        if self.released_mask and (self.resize, self.weights) != ("squash", "hard"):
            raise ConfigError(
                "released_mask=True reproduces the release: use resize='squash' and weights='hard' with it"
            )

    @classmethod
    def preset(cls, name: str) -> "FFAConfig":
        """The configuration of a named preset; see :data:`PRESETS`.

        Raises:
            ConfigError: there is no such preset.
        """
        return ffa_preset(name).config

    @classmethod
    def from_released_name(cls, name: str, **options: Any) -> "FFAConfig":
        """The published configuration under one of the release's variant names, ``"Crop-Feat"`` or ``"Crop-Img"``.

        Raises:
            ConfigError: the release has no such variant.
        """
        if name not in RELEASED_NAMES:
            raise ConfigError(f"variant {name!r} is unknown; the release has {' and '.join(RELEASED_NAMES)}")
        return replace(cls.preset("paper"), encode=RELEASED_NAMES[name], **options)


@dataclass(frozen=True)
class FFAPreset:
    """A whole pipeline by one name.

    Attributes:
        config: how vectors are made.
        backbone: name of the encoder; None takes the best one at hand.
        foreground: name of the foreground method.
    """

    config: FFAConfig
    backbone: str | None
    foreground: str

    def config_with(self, **options: Any) -> FFAConfig:
        """The configuration with some options changed; those that are None stay as they are.

        Raises:
            ConfigError: an option cannot work.
        """
        return replace(self.config, **{name: value for name, value in options.items() if value is not None})


# "paper" is the pipeline as published, in the variant that encodes the cut-out (the release's Crop-Feat).
PRESETS: dict[str, FFAPreset] = {
    "default": FFAPreset(FFAConfig(), None, "one_pass"),
    "paper": FFAPreset(FFAConfig(encode="cutout", size=336, fast_decode=False), "dinov2-base", "carvekit"),
}


def ffa_preset(name: str) -> FFAPreset:
    """The preset of this name.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset={name!r} is unknown; use one of {', '.join(PRESETS)}")
    return PRESETS[name]
