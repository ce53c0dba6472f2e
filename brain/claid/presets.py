"""Named pipelines of the regions: which detector, at which size, with which descriptor."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..backbones.base import Backbone
from ..backbones.catalog import EMBEDDED, HYBRID, UNTRAINED
from ..backbones.device import Precision
from ..backbones.feature_maps import TokenMaps
from ..errors import ConfigError
from .descriptor import Area, RegionDescriber, RegionPooling, load_describer
from .options import DetectorOptions, detector_preset
from .regions import RegionExtractor, WorkingSize


@dataclass(frozen=True)
class RegionPreset:
    """A pipeline and the models it was published with.

    Attributes:
        detector: options of the hierarchical decomposition.
        size: the size at which images are decomposed.
        backbone: encoder whose tokens are decomposed; None takes the best one at hand.
        descriptor: feature map that describes the regions; None takes the tokens of the detector.
        layer: layer of a convolutional descriptor; None takes the model's default.
        pooling: how the cells of a region become one vector; None goes by the feature map.
        area: which cells belong to a region.
    """

    detector: DetectorOptions
    size: WorkingSize = field(default_factory=WorkingSize)
    backbone: str | None = None
    descriptor: str | None = None
    layer: str | None = None
    pooling: RegionPooling | None = None
    area: Area = "box"


PRESETS: dict[str, RegionPreset] = {
    "default": RegionPreset(detector_preset("default")),
    "paper": RegionPreset(detector_preset("paper"), WorkingSize(), "dino-vitb8", "resnet50", "layer4.0", "gem", "box"),
    "code": RegionPreset(detector_preset("code"), WorkingSize(), "dino-vitb8", "resnet50", "layer4.1", "gem", "box"),
}


def region_preset(name: str) -> RegionPreset:
    """The pipeline of a name: ``"default"``, ``"paper"``, or ``"code"``, the published program's settings.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset={name!r} is unknown; use one of {', '.join(PRESETS)}")
    return PRESETS[name]


def fitted_preset(name: str, backbone_name: str) -> RegionPreset:
    """A preset with what a backbone needs to be different.

    The embedded models have coarse patches, which are all rather alike, and were trained on small pictures: with the
    published values nearly all patches would be linked, and fifteen of them be no small region.
    """
    preset = region_preset(name)
    return _EMBEDDED.get(backbone_name, preset) if name == "default" else preset


# Values found on rendered scenes of several objects, and looked at on photographs; see the benchmark `quality search`.
_EMBEDDED_DETECTOR = detector_preset("default", alpha=0.6, min_patches=6)
_EMBEDDED_SIZE = WorkingSize(400, 800, enlarge=True)
_EMBEDDED = {
    HYBRID: RegionPreset(_EMBEDDED_DETECTOR, _EMBEDDED_SIZE, pooling="gem"),
    EMBEDDED: RegionPreset(_EMBEDDED_DETECTOR, _EMBEDDED_SIZE),
    UNTRAINED: RegionPreset(_EMBEDDED_DETECTOR, _EMBEDDED_SIZE),
}

# The detector's own tokens as the descriptor.
TOKENS = "tokens"

_OWN_OPTIONS = ("descriptor", "layer", "pooling", "area")
_SIZE_OPTIONS = tuple(option.name for option in fields(WorkingSize))
_DETECTOR_OPTIONS = tuple(option.name for option in fields(DetectorOptions))

# All that overrides parts of a preset.
PIPELINE_OPTIONS = (*_OWN_OPTIONS, *_SIZE_OPTIONS, *_DETECTOR_OPTIONS)


def region_extractor(
    preset: str,
    backbone: Backbone,
    options: Mapping[str, Any],
    *,
    max_side: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> RegionExtractor:
    """The pipeline of a preset, parts of which are overridden.

    Args:
        preset: its name.
        backbone: encoder of the detector.
        options: any of :data:`PIPELINE_OPTIONS`: ``descriptor`` (:data:`TOKENS` for those of the detector), ``layer``,
            ``pooling``, ``area``, and those of :class:`.options.DetectorOptions` and :class:`.regions.WorkingSize`;
            None leaves the preset's.
        max_side, device, precision: of the descriptor, as for :func:`.descriptor.load_describer`.

    Raises:
        ConfigError: an option is unknown or cannot work.
        ModelError: the descriptor cannot be loaded.
    """
    given = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(options) - set(PIPELINE_OPTIONS))
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: the regions have no such option")

    def chosen(names: tuple[str, ...]) -> dict[str, Any]:
        return {name: given[name] for name in names if name in given}

    own = chosen(_OWN_OPTIONS)
    if "descriptor" in own:
        # What the preset says of its own descriptor does not fit another.
        own = {"layer": None, "pooling": None, **own}
    fitted = replace(fitted_preset(preset, backbone.name), **own)
    detector = replace(fitted.detector, **chosen(_DETECTOR_OPTIONS))
    size = chosen(_SIZE_OPTIONS)
    if "short_side" in size:
        # Who asks for larger pictures does not have to know of the bound.
        size.setdefault("long_side", max(fitted.size.long_side, size["short_side"]))
    working_size = replace(fitted.size, **size)
    describer = _describer(fitted, backbone, max_side, device, precision)
    return RegionExtractor(backbone, describer, detector, working_size)


def _describer(
    preset: RegionPreset, backbone: Backbone, max_side: int | None, device: str, precision: Precision
) -> RegionDescriber:
    if preset.descriptor not in (None, TOKENS):
        return load_describer(
            preset.descriptor or "",
            layer=preset.layer,
            pooling=preset.pooling,
            area=preset.area,
            max_side=max_side,
            device=device,
            precision=precision,
        )
    if preset.layer is not None:
        raise ConfigError(f"layer={preset.layer!r}: tokens have no layers; name a ResNet as the descriptor")
    return RegionDescriber(TokenMaps(backbone), pooling=preset.pooling, area=preset.area, max_side=max_side)
