"""ResNet of `transformers`, up to a block of its last stage, as a network of feature maps."""

from typing import Any

from torch import nn

from ..errors import ConfigError
from .conv_maps import ConvMaps
from .encoder import ModelIdentity, Placement
from .folder import ModelFolder
from .pretrained import load_model

LAYERS = ("layer4.0", "layer4.1", "layer4.2")

_STRIDE = 32
_STAGES = 4


def resnet_maps(folder: ModelFolder, placement: Placement, *, name: str, layer: str | None) -> ConvMaps:
    """A frozen ResNet up to a block of stage 4, after its ReLU: 2048 channels as released, 32 pixels per cell.

    Args:
        folder: model folder in ``transformers`` format.
        placement: where and how it runs.
        name: what the user asked for.
        layer: ``"layer4.0"`` (None; the paper's Block4.0), ``"layer4.1"`` or ``"layer4.2"``: the block of stage 4.

    Raises:
        ConfigError: the layer is unknown, or the network has no such block.
        ModelError: the weights are broken or incomplete.
    """
    layer = LAYERS[0] if layer is None else layer
    if layer not in LAYERS:
        raise ConfigError(f"layer={layer!r} is unknown to {name!r}; use one of {', '.join(LAYERS)}")
    model: Any = load_model(folder)
    stages = model.encoder.stages
    block = int(layer.removeprefix("layer4."))
    if len(stages) != _STAGES or block >= len(stages[-1].layers):
        raise ConfigError(f"layer={layer!r}: the network of {name!r} has no such block; use layer='layer4.0'")
    layers = nn.Sequential(model.embedder, *stages[:-1], *stages[-1].layers[: block + 1])
    stride = _STRIDE * (2 if model.config.downsample_in_first_stage else 1)
    identity = ModelIdentity(name, folder.digest(), folder.mean, folder.std)
    return ConvMaps(layers, layer, placement, identity, stride=stride, dim=int(model.config.hidden_sizes[-1]))
