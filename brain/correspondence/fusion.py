"""How features of several layers and networks become one descriptor per cell.

Sources: Zhang et al., "A Tale of Two Features: Stable Diffusion Complements DINO for Zero-Shot Semantic Correspondence"
(NeurIPS 2023), for the fusion and the principal components of a pair; Zhang et al., "Telling Left from Right" (CVPR
2024), for the fusion without them.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from ..errors import ConfigError

# Added to lengths before dividing by them, as published.
_EPSILON = 1e-10


def unit_features(features: torch.Tensor) -> torch.Tensor:
    """Descriptors ``(..., C)`` at unit length; a descriptor of zeros stays one."""
    return features / (features.norm(dim=-1, keepdim=True) + _EPSILON)


def gather_layers(layers: Sequence[torch.Tensor], size_hw: tuple[int, int] | None = None) -> torch.Tensor:
    """Enlarges maps of several layers to one grid, bilinearly, and joins their channels in the order given.

    Args:
        layers: ``(h_k, w_k, C_k)`` each.
        size_hw: the common grid; None takes the largest.

    Returns:
        ``(h, w, C_1 + C_2 + ...)``.

    Raises:
        ConfigError: there is no layer, or one has another number of axes.
    """
    if not layers or any(layer.ndim != 3 for layer in layers):
        raise ConfigError("features to be joined must be at least one map of shape (h, w, C)")
    height, width = size_hw or max((layer.shape[0], layer.shape[1]) for layer in layers)
    return torch.cat([_resized(layer, (height, width)) for layer in layers], dim=2)


def fuse(first: torch.Tensor, second: torch.Tensor, *, renormalise: bool = True) -> torch.Tensor:
    """Two families of features side by side with equal say.

    Args:
        first: ``(..., C_1)``, such as those of a diffusion network.
        second: ``(..., C_2)``, such as those of a vision transformer.
        renormalise: brings the result to unit length, so that cosines are the mean of both families' cosines. Without,
            Euclidean distances are as published by the authors of "A Tale of Two Features".

    Returns:
        ``(..., C_1 + C_2)``.
    """
    joined = torch.cat([unit_features(first), unit_features(second)], dim=-1)
    return unit_features(joined) if renormalise else joined


def joint_components(
    first: Sequence[torch.Tensor], second: Sequence[torch.Tensor], dims: int = 256
) -> tuple[torch.Tensor, torch.Tensor]:
    """Principal components of the features of two images together: :func:`shared_components` of two."""
    a, b = shared_components([first, second], dims)
    return a, b


def shared_components(images: Sequence[Sequence[torch.Tensor]], dims: int = 256) -> list[torch.Tensor]:
    """Principal components of the features of images together, layer by layer.

    Of each layer, the tokens of all images are stacked, centred and projected onto their first ``dims`` directions.
    Coarse layers are then enlarged to the next finer one, and so on, and joined, the finest first. The decomposition
    is exact where the release draws a random one; directions have no natural sign, so only products of descriptors
    of one and the same call mean anything.

    Args:
        images: of each its layers ``(h_k, w_k, C_k)``, from the coarsest to the finest.
        dims: directions per layer, lowered to the channels or to the number of tokens where those are fewer.

    Returns:
        the descriptors of each image, ``(h, w, C)`` on its finest grid.

    Raises:
        ConfigError: there is no image, their layers do not fit each other, or ``dims`` is less than 1.
    """
    if dims < 1:
        raise ConfigError(f"dims={dims} must be at least 1")
    channels = [[layer.shape[-1] for layer in layers] for layers in images]
    if not channels or not channels[0]:
        raise ConfigError("principal components need at least one image and one layer")
    for other in channels[1:]:
        if other != channels[0]:
            raise ConfigError(f"layers of {channels[0]} and {other} channels; all images must have the same layers")
    projected = [_project(layers, dims) for layers in zip(*images, strict=True)]
    return [_cascade(layers) for layers in zip(*projected, strict=True)]


def _project(layers: Sequence[torch.Tensor], dims: int) -> list[torch.Tensor]:
    """One layer of each image in the directions of all."""
    stacked = torch.cat([layer.flatten(0, 1) for layer in layers])
    # Apple's GPUs have no such numbers.
    tokens = (stacked.cpu() if stacked.device.type == "mps" else stacked).double()
    tokens = tokens - tokens.mean(dim=0)
    kept = min(dims, *tokens.shape)
    if tokens.shape[0] >= tokens.shape[1]:
        directions = torch.linalg.eigh(tokens.T @ tokens).eigenvectors[:, -kept:].flip(1)
        found = tokens @ directions
    else:
        values, vectors = torch.linalg.eigh(tokens @ tokens.T)
        found = vectors[:, -kept:].flip(1) * values[-kept:].flip(0).clamp(min=0).sqrt()
    parts = found.split([layer.shape[0] * layer.shape[1] for layer in layers])
    return [
        part.view(*layer.shape[:2], kept).to(layer.dtype).to(layer.device)
        for part, layer in zip(parts, layers, strict=True)
    ]


def _cascade(layers: Sequence[torch.Tensor]) -> torch.Tensor:
    joined = layers[0]
    for finer in layers[1:]:
        joined = torch.cat([finer, _resized(joined, (finer.shape[0], finer.shape[1]))], dim=2)
    return joined


def _resized(layer: torch.Tensor, size_hw: tuple[int, int]) -> torch.Tensor:
    if tuple(layer.shape[:2]) == size_hw:
        return layer
    planes = layer.permute(2, 0, 1)[None]
    return functional.interpolate(planes, size_hw, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
