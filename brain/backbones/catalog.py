"""The models that have a name: what they are, where they are published, and how their families differ."""

from dataclasses import dataclass
from typing import Literal

# The project's own models: the trained encoder; the same beside colour statistics; seeded weights without training.
EMBEDDED = "embedded"
HYBRID = "embedded-hybrid"
UNTRAINED = "embedded-untrained"

# What stands in where no DINOv2 can be had.
OFFLINE_DEFAULT = HYBRID

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class BackboneInfo:
    """One line of the catalogue.

    Attributes:
        name: what a user types.
        label: what a form shows.
        family: ``dinov2``, ``dino``, ``siglip``, ``siglip2`` or ``embedded``.
        patch_size: side of a patch in pixels.
        dim: channels of a token.
        default_size: side in pixels of the square input used when the user names none.
        hub_id: id on the Hugging Face Hub; None for the embedded models.
        parameters: number of weights of the image encoder, in millions.
    """

    name: str
    label: str
    family: str
    patch_size: int
    dim: int
    default_size: int
    hub_id: str | None
    parameters: int


@dataclass(frozen=True)
class Family:
    """How one architecture of ``transformers`` is handled.

    Attributes:
        model_class: name of the class in ``transformers`` (VGG: in ``torchvision``) that holds the image encoder alone.
        final_norm: attribute of that class that is the last layer norm; "" where there is none.
        mean, std: normalisation of RGB values in [0, 1] when the model folder states none.
        architecture: which of our classes runs it. What follows is about ``"vit"``; ``"resnet"`` and ``"vgg"`` are not
            backbones, but give feature maps.
        class_token: whether the first token is a class token; otherwise an attention-pooling head stands in for it.
        interpolate_flag: whether ``forward`` must be asked to interpolate the position embedding.
        patches_as_input: whether ``forward`` takes flattened patches instead of pixels (SigLIP 2 NaFlex).
    """

    model_class: str
    final_norm: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    architecture: Literal["vit", "convnext", "resnet", "vgg"] = "vit"
    class_token: bool = True
    interpolate_flag: bool = False
    patches_as_input: bool = False


_SIGLIP = Family("SiglipVisionModel", "post_layernorm", *_HALF, class_token=False, interpolate_flag=True)
_SIGLIP2 = Family("Siglip2VisionModel", "post_layernorm", *_HALF, class_token=False, patches_as_input=True)

# By `model_type` of config.json. The fixed-resolution checkpoints of SigLIP 2 are published as `siglip`; only the
# variable-resolution ("NaFlex") ones are `siglip2`.
FAMILIES: dict[str, Family] = {
    "dinov2": Family("Dinov2Model", "layernorm", *_IMAGENET),
    "dinov2_with_registers": Family("Dinov2WithRegistersModel", "layernorm", *_IMAGENET),
    "vit": Family("ViTModel", "layernorm", *_IMAGENET, interpolate_flag=True),
    "convnextv2": Family("ConvNextV2Model", "layernorm", *_IMAGENET, architecture="convnext"),
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
}

# Networks without tokens, whose maps describe regions: by `model_type`, or `architecture` in the format of timm.
MAP_FAMILIES: dict[str, Family] = {
    "resnet": Family("ResNetModel", "", *_IMAGENET, architecture="resnet"),
    "vgg16": Family("vgg16", "", *_IMAGENET, architecture="vgg"),
}


@dataclass(frozen=True)
class FeatureMapInfo:
    """One line of the list of networks that describe regions by their maps, and are no backbones.

    Attributes:
        name: what a user types.
        label: what a form shows.
        stride: pixels of the image per cell of the map.
        dim: channels of the map.
        hub_id: id on the Hugging Face Hub.
        parameters: number of weights that are used, in millions.
    """

    name: str
    label: str
    stride: int
    dim: int
    hub_id: str
    parameters: int


FEATURE_MAPS: dict[str, FeatureMapInfo] = {
    info.name: info
    for info in (
        FeatureMapInfo("resnet50", "ResNet-50 (ImageNet)", 32, 2048, "microsoft/resnet-50", 24),
        FeatureMapInfo("resnet101", "ResNet-101 (ImageNet)", 32, 2048, "microsoft/resnet-101", 43),
        FeatureMapInfo("vgg16", "VGG-16 (ImageNet)", 16, 512, "timm/vgg16.tv_in1k", 15),
    )
}


def _dinov2(size: str, dim: int, parameters: int) -> list[BackboneInfo]:
    plain = BackboneInfo(
        f"dinov2-{size}", f"DINOv2 {size} (ViT/14)", "dinov2", 14, dim, 336, f"facebook/dinov2-{size}", parameters
    )
    registers = BackboneInfo(
        f"dinov2-{size}-registers",
        f"DINOv2 {size} with registers (ViT/14)",
        "dinov2",
        14,
        dim,
        336,
        f"facebook/dinov2-with-registers-{size}",
        parameters,
    )
    return [plain, registers]


def _dino(size: str, patch: int, dim: int, parameters: int) -> BackboneInfo:
    name = f"dino-vit{size.lower()}{patch}"
    default_size = default_input_size(patch)
    return BackboneInfo(
        name, f"DINO ViT-{size}/{patch}", "dino", patch, dim, default_size, f"facebook/{name}", parameters
    )


def default_input_size(patch_size: int) -> int:
    """Side in pixels of the default input of models that take any size.

    336 is the published FFA setting for 14-pixel patches (24×24 tokens) and is a multiple of 16 too; models with
    small patches would pay with the square of the token count, and stay at their training size of 224.
    """
    target = 336 if patch_size >= 14 else 224
    return max(1, round(target / patch_size)) * patch_size


def _siglip(generation: int, variant: str, patch: int, size: int, dim: int, parameters: int) -> BackboneInfo:
    family = "siglip" if generation == 1 else f"siglip{generation}"
    label = f"SigLIP{'' if generation == 1 else ' 2'} {variant} (patch {patch}, {size} px)"
    hub_id = f"google/{family}-{variant}-patch{patch}-{size}"
    return BackboneInfo(f"{family}-{variant}", label, family, patch, dim, size // patch * patch, hub_id, parameters)


def _siglip2_naflex(variant: str, dim: int, parameters: int) -> BackboneInfo:
    name = f"siglip2-{variant}-naflex"
    hub_id = f"google/siglip2-{variant}-patch16-naflex"
    label = f"SigLIP 2 {variant} NaFlex (patch 16, any shape)"
    return BackboneInfo(name, label, "siglip2", 16, dim, 256, hub_id, parameters)


CATALOG: dict[str, BackboneInfo] = {
    info.name: info
    for info in (
        *_dinov2("small", 384, 22),
        *_dinov2("base", 768, 86),
        *_dinov2("large", 1024, 304),
        *_dinov2("giant", 1536, 1136),
        _dino("S", 16, 384, 22),
        _dino("S", 8, 384, 22),
        _dino("B", 16, 768, 86),
        _dino("B", 8, 768, 86),
        _siglip(1, "base", 16, 224, 768, 93),
        _siglip(1, "large", 16, 256, 1024, 316),
        _siglip(1, "so400m", 14, 384, 1152, 428),
        _siglip(2, "base", 16, 224, 768, 93),
        _siglip(2, "large", 16, 256, 1024, 316),
        _siglip(2, "so400m", 14, 384, 1152, 428),
        _siglip2_naflex("base", 768, 93),
        _siglip2_naflex("so400m", 1152, 428),
    )
}

# Where every model that has a name is published.
HUB_IDS: dict[str, str] = {
    **{name: info.hub_id for name, info in CATALOG.items() if info.hub_id is not None},
    **{name: info.hub_id for name, info in FEATURE_MAPS.items()},
}
