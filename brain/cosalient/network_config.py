"""The options of a trained pair network, as they stand in the ``config.json`` of its folder."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..errors import ConfigError

Encoder = Literal["coder", "resnet50", "tokens"]
Head = Literal["image", "region", "matcher"]
Similarity = Literal["cosine", "l1", "l2"]

ENCODERS: tuple[Encoder, ...] = get_args(Encoder)
HEADS: tuple[Head, ...] = get_args(Head)
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)

# K of the paper, and its upper bound where K follows the regions.
PAPER_K = 64

_WIDTHS: dict[str, tuple[int, ...]] = {"coder": (64, 128, 256, 512), "resnet50": (256, 512, 1024, 2048)}
_BLOCKS = 4


@dataclass(frozen=True)
class NetworkConfig:
    """What a pair network is made of. The defaults are the recommended reading of SCOTT, made symmetric.

    Attributes:
        encoder: ``"coder"`` (the co-dependent encoder), ``"resnet50"`` (twins without mixing) or ``"tokens"`` (those
            of a frozen backbone).
        head: what decides: ``"image"`` or ``"region"`` embeddings, or ``"matcher"`` (the pooled pair tensor).
        similarity: weight of a token pair in the matcher: ``"cosine"``, ``"l1"`` or ``"l2"``.
        k: side of the pooled pair tensor, or ``"auto"`` for the size of the smaller region, at most 64.
        symmetric: one co-salient head that sees its own image first, and a decision averaged over both orders; False
            for the paper's two heads and one order.
        shared: whether both streams of the CODER have the same weights; the others always share theirs.
        cross_attention: whether the cells of each image look at the other image's before the heads. The heads
            themselves join equal positions only.
        widths: channels of the four blocks of the CODER, or of the four stages of the ResNet; None for the usual ones.
        d: channels of the features that the heads see.
        mask_width: channels inside a co-salient head.
        match_width: channels inside the head that decides.
        side: side in pixels of the square input; images are squashed to it.
        alpha: least probability of a cell of the co-salient region.
        backbone: ``"tokens"``: name of the frozen backbone; ``"resnet50"``: name or folder of the weights to begin
            with, None for random ones.

    Raises:
        ConfigError: an option has a value that cannot work, or does not fit another one.
    """

    encoder: Encoder = "coder"
    head: Head = "matcher"
    similarity: Similarity = "cosine"
    k: int | Literal["auto"] = PAPER_K
    symmetric: bool = True
    shared: bool = True
    cross_attention: bool = False
    widths: tuple[int, ...] | None = None
    d: int = 512
    mask_width: int = 256
    match_width: int = 128
    side: int = 512
    alpha: float = 0.5
    backbone: str | None = None

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_numbers(self)
        _check_encoder(self)

    @property
    def block_widths(self) -> tuple[int, ...]:
        """Channels of the blocks or stages of the encoder; empty for tokens."""
        return self.widths or _WIDTHS.get(self.encoder, ())

    def to_json(self) -> dict[str, Any]:
        """All options as JSON values."""
        return {**asdict(self), "widths": None if self.widths is None else list(self.widths)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "NetworkConfig":
        """The inverse of :meth:`to_json`.

        Raises:
            ConfigError: an option is unknown or cannot work.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"a pair network has no option {unknown[0]!r}; it takes {', '.join(sorted(known))}")
        widths = values.get("widths")
        return cls(**{**values, "widths": None if widths is None else tuple(widths)})


def _check_choices(config: NetworkConfig) -> None:
    for option, accepted in (("encoder", ENCODERS), ("head", HEADS), ("similarity", SIMILARITIES)):
        value = getattr(config, option)
        if value not in accepted:
            raise ConfigError(f"{option}={value!r} is unknown; use one of {', '.join(accepted)}")


def _check_numbers(config: NetworkConfig) -> None:
    for option in ("d", "mask_width", "match_width", "side"):
        if not _is_count(getattr(config, option)):
            raise ConfigError(f"{option}={getattr(config, option)!r} is not a whole number above 0")
    if config.k != "auto" and not _is_count(config.k):
        raise ConfigError(f"k={config.k!r} is neither a whole number above 0 nor 'auto'")
    if not (isinstance(config.alpha, int | float) and math.isfinite(config.alpha) and 0 < config.alpha < 1):
        raise ConfigError(f"alpha={config.alpha!r} is not a probability between 0 and 1")


def _check_encoder(config: NetworkConfig) -> None:
    if not config.shared and config.encoder != "coder":
        raise ConfigError(f"shared=False is for encoder='coder'; {config.encoder!r} has one set of weights for both")
    if config.symmetric and not config.shared:
        raise ConfigError("symmetric=True needs shared=True: streams of their own treat the two images differently")
    if config.encoder == "tokens":
        if config.widths is not None:
            raise ConfigError("widths is for encoder='coder' or 'resnet50'; tokens have those of their backbone")
        if not config.backbone:
            raise ConfigError("encoder='tokens' needs the name of a backbone, such as backbone='embedded-hybrid'")
        return
    if config.encoder == "coder" and config.backbone is not None:
        raise ConfigError(f"backbone={config.backbone!r} is for encoder='tokens' or 'resnet50'; the CODER has none")
    if len(config.block_widths) != _BLOCKS or not all(_is_count(width) for width in config.block_widths):
        raise ConfigError(f"widths={config.widths!r} must be {_BLOCKS} whole numbers above 0, one per block")
    if config.encoder == "resnet50" and any(width % 4 for width in config.block_widths):
        raise ConfigError(f"widths={config.widths!r}: those of a ResNet must be multiples of 4")
    if config.side % 32:
        below = max(32, config.side // 32 * 32)
        raise ConfigError(f"side={config.side} is not a multiple of the stride 32; use {below} or {below + 32}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


# "paper" has two streams of their own, two heads and one order, so its score depends on which image comes first.
PRESETS: dict[str, NetworkConfig] = {
    "default": NetworkConfig(),
    "paper": NetworkConfig(symmetric=False, shared=False),
    "better": NetworkConfig(cross_attention=True, k="auto"),
}
