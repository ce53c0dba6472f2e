"""Named pipelines of the regions: which detector, at which size, with which descriptor."""

from dataclasses import dataclass, field

from ..backbones.catalog import EMBEDDED
from ..errors import ConfigError
from .descriptor import Area, RegionPooling
from .options import DetectorOptions, detector_preset
from .regions import WorkingSize


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
    area: Area = "mask"


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

    The embedded models have coarse patches and were trained on small pictures; the published values would leave them
    a few hundred patches, of which fifteen are no small region.
    """
    preset = region_preset(name)
    return _EMBEDDED if name == "default" and backbone_name.startswith(EMBEDDED) else preset


_EMBEDDED = RegionPreset(detector_preset("default", min_patches=6), WorkingSize(400, 800))
