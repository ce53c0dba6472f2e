"""Which device and which number format a model runs in."""

from typing import Literal

import torch

from ..errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16", "fp16")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISION_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device a user names; ``"auto"`` is the first of CUDA, MPS and CPU that this machine has.

    Raises:
        ConfigError: the device is unknown, or this machine or this build of PyTorch lacks it.
    """
    if device == "auto":
        return _best_device()
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device={device!r} is unknown; use 'auto', 'cuda', 'cuda:1', 'mps' or 'cpu'") from error
    if resolved.type == "cuda":
        return _cuda(resolved)
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device='mps' is not available: it needs an Apple GPU; use device='auto' or 'cpu'")
    if resolved.type not in ("cpu", "mps"):
        raise ConfigError(f"device={device!r} is not supported; use 'auto', 'cuda', 'mps' or 'cpu'")
    return resolved


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The number format of matrix products; weights and results stay float32.

    ``"auto"`` is bfloat16 (float16 on GPUs older than Ampere) on CUDA and float32 elsewhere: half precision is rarely
    faster on a CPU, and on MPS its gain is small and its rounding is not covered by our tests.

    Raises:
        ConfigError: the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision={precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    if precision != "auto":
        return _DTYPES[precision]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _cuda(device: torch.device) -> torch.device:
    if not torch.cuda.is_available():
        raise ConfigError(
            f"device='{device}' is not available: PyTorch sees no CUDA GPU here (no GPU, no driver, or a CPU-only build"
            " of PyTorch); use device='auto' or 'cpu'"
        )
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ConfigError(f"device='{device}' does not exist: this machine's GPUs are cuda:0 to cuda:{last}")
    return torch.device("cuda", index)
