"""VGG-16 of `torchvision` with weights in the format of timm, up to its last convolution, as feature maps."""

from pathlib import Path

import torch
from torch import nn

from ..errors import ConfigError, ModelError
from .conv_maps import ConvMaps
from .encoder import ModelIdentity, Placement
from .folder import ModelFolder

LAYER = "conv5_3"

_STRIDE = 16
_DIM = 512
_PREFIX = "features."


def vgg_maps(folder: ModelFolder, placement: Placement, *, name: str, layer: str | None) -> ConvMaps:
    """A frozen VGG-16 up to its last convolution: 512 channels, after the ReLU, before the last max-pooling.

    A cell is 16 pixels wide. Inputs are filled up to whole cells with the mean colour, so that the map covers all of
    an image.

    Args:
        folder: model folder in the format of timm: ``config.json`` with ``"architecture": "vgg16"``, and weights that
            are named ``features.N.weight`` and ``features.N.bias`` as in ``torchvision``.
        placement: where and how it runs.
        name: what the user asked for.
        layer: ``"conv5_3"`` or None.

    Raises:
        ConfigError: the layer is unknown.
        ModelError: the weights are broken or incomplete.
    """
    from torchvision.models import vgg16

    if layer not in (None, LAYER):
        raise ConfigError(f"layer={layer!r} is unknown to {name!r}; use layer={LAYER!r}")
    # Without memory for the classifier, which is nine tenths of the weights and is not used.
    with torch.device("meta"):
        features = vgg16(weights=None, init_weights=False).features[:-1]
    try:
        features.load_state_dict(_convolutions(folder.weights), assign=True)
    except MemoryError:
        raise
    # The readers of weight files raise whatever they please (pickle, zip, safetensors, shapes, missing keys ...).
    except Exception as error:
        raise ModelError(
            f"{folder.path}: VGG-16 cannot be loaded ({' '.join(str(error).split())[:300]}); the files are broken or"
            " hold another network: download the model again"
        ) from error
    identity = ModelIdentity(name, folder.digest(), folder.mean, folder.std)
    layers = nn.Sequential(_WholeCells(), features)
    return ConvMaps(layers, LAYER, placement, identity, stride=_STRIDE, dim=_DIM)


class _WholeCells(nn.Module):
    """Fills normalised pixels up, on the right and at the bottom, to multiples of a cell."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        height, width = pixels.shape[-2:]
        return nn.functional.pad(pixels, (0, -width % _STRIDE, 0, -height % _STRIDE))


def _convolutions(files: tuple[Path, ...]) -> dict[str, torch.Tensor]:
    """The float32 weights of the convolutions, by their names within `features`."""
    from safetensors import safe_open

    weights: dict[str, torch.Tensor] = {}
    for path in files:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                weights |= {key: file.get_tensor(key) for key in file.keys() if key.startswith(_PREFIX)}  # noqa: SIM118
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            weights |= {key: value for key, value in loaded.items() if key.startswith(_PREFIX)}
    return {key.removeprefix(_PREFIX): value.float() for key, value in weights.items()}
