"""The untrained stand-in for the embedded model: a small vision transformer with fixed, seeded weights."""

import hashlib
import json
import math

import numpy as np
import torch
from torch import nn

from .catalog import FAMILIES, UNTRAINED, BackboneInfo, default_input_size
from .encoder import ModelIdentity, Placement
from .pretrained import quiet_loading
from .vit import VitBackbone

_DIM = 192
_LAYERS = 6
_PATCH = 14
_IMAGE_SIZE = 336
_PARAMETERS = 3
_CONFIG = {
    "hidden_size": _DIM,
    "num_hidden_layers": _LAYERS,
    "num_attention_heads": 3,
    "mlp_ratio": 4,
    "patch_size": _PATCH,
    "image_size": _IMAGE_SIZE,
    "layerscale_value": 1.0,
}


def untrained_info(name: str = UNTRAINED) -> BackboneInfo:
    """The catalogue line of the stand-in, under its own name or that of the model for which it stands in."""
    label = "Embedded small ViT, untrained stand-in of demo grade (not DINOv2)"
    return BackboneInfo(name, label, "embedded", _PATCH, _DIM, default_input_size(_PATCH), None, _PARAMETERS)


def untrained_backbone(placement: Placement) -> VitBackbone:
    """The stand-in, ready for use; its name is always :data:`.catalog.UNTRAINED`."""
    model, digest = seeded_model()
    family = FAMILIES["dinov2"]
    return VitBackbone(model, family, placement, ModelIdentity(UNTRAINED, digest, family.mean, family.std))


def seeded_model() -> tuple[nn.Module, str]:
    """The untrained stand-in: a small DINOv2 architecture (2.9 M weights) with weights that are the same everywhere.

    Returns:
        the model on the CPU in eval mode and the hexadecimal hash of its configuration and weights.
    """
    from transformers import Dinov2Config, Dinov2Model

    arrays = {name: seeded_array(name, shape) for name, shape in _published_shapes().items()}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with quiet_loading():
        model = Dinov2Model.from_pretrained(None, config=Dinov2Config(**_CONFIG), state_dict=tensors)
    return model.eval(), _digest(arrays)


def _published_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors as in the released DINOv2 files.

    Versions of ``transformers`` rename modules and translate the released names when they load a file. Seeding by the
    released names keeps the weights the same in all versions.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, _DIM),
        "embeddings.mask_token": (1, _DIM),
        "embeddings.position_embeddings": (1, (_IMAGE_SIZE // _PATCH) ** 2 + 1, _DIM),
        "embeddings.patch_embeddings.projection.weight": (_DIM, 3, _PATCH, _PATCH),
        "embeddings.patch_embeddings.projection.bias": (_DIM,),
        "layernorm.weight": (_DIM,),
        "layernorm.bias": (_DIM,),
    }
    square = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
    matrices = {name: (_DIM, _DIM) for name in (*square, "attention.output.dense")}
    matrices |= {"mlp.fc1": (4 * _DIM, _DIM), "mlp.fc2": (_DIM, 4 * _DIM)}
    for layer in range(_LAYERS):
        prefix = f"encoder.layer.{layer}"
        for name, shape in matrices.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            shapes[f"{prefix}.{name}.bias"] = shape[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            shapes[f"{prefix}.{name}"] = (_DIM,)
        for name in ("layer_scale1.lambda1", "layer_scale2.lambda1"):
            shapes[f"{prefix}.{name}"] = (_DIM,)
    return shapes


def seeded_array(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Initial values of one tensor, a function of its name and shape alone.

    Untrained features are better the more an image's colours and textures spread over the channels. Two settings
    serve this: patch filters that mix all scales, as photographs do, and matrices with twice the usual gain, which
    make every block more non-linear.

    Args:
        name: name of the tensor in the state dictionary.
        shape: its shape.

    Returns:
        float32 array: ones for norm gains and layer scales, zeros for biases, small values for embeddings, and random
        matrices. Only sums, products and square roots are used, so that the bits are the same on every machine.
    """
    if name.endswith(("lambda1", "norm.weight", "norm1.weight", "norm2.weight")):
        return np.ones(shape, np.float32)
    if name.endswith("bias") or "mask_token" in name:
        return np.zeros(shape, np.float32)
    fan_in = 1 / math.sqrt(math.prod(shape[1:]))
    if name.endswith("projection.weight"):
        return (_multiscale(name, shape) * fan_in).astype(np.float32)
    scale = 0.02 if name.startswith("embeddings.") else 2 * fan_in
    return (_uniform(name, shape) * scale).astype(np.float32)


def _multiscale(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """``(out, in, P, P)`` unit-variance filters: equal parts of random blocks of every side that divides P."""
    side = shape[-1]
    counts = [count for count in range(1, side + 1) if side % count == 0]
    layers = [_uniform(f"{name}/{count}", (*shape[:2], count, count)) for count in counts]
    enlarged = [
        layer.repeat(side // count, 2).repeat(side // count, 3) for layer, count in zip(layers, counts, strict=True)
    ]
    return sum(enlarged[1:], enlarged[0]) / math.sqrt(len(counts))


def _uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Zero-mean, unit-variance uniform float64 values from the raw PCG64 stream.

    NumPy guarantees the raw stream of a bit generator for all time and all machines, but not what its distributions
    make of it.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    raw = np.random.PCG64(seed).random_raw(math.prod(shape))
    unit = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((unit - 0.5) * math.sqrt(12)).reshape(shape)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(_CONFIG, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode() + arrays[name].tobytes())
    return digest.hexdigest()
