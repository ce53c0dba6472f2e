"""What is object and what is background: `load_foreground(name)` gives a method that looks at pixels or at tokens."""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigError
from .base import PixelForeground, TokenForeground

__all__ = ["FOREGROUNDS", "PixelForeground", "TokenForeground", "load_foreground"]

FOREGROUNDS = (
    "one_pass",
    "grabcut",
    "carvekit",
    "carvekit-u2net",
    "carvekit-basnet",
    "carvekit-deeplab",
    "none",
)

_T = TypeVar("_T")


def load_foreground(
    name: str, *, device: str = "auto", model_dir: str | os.PathLike | None = None, **options: Any
) -> PixelForeground | TokenForeground | None:
    """A foreground method by its name.

    Args:
        name: ``"one_pass"`` (from the encoder's own tokens), ``"grabcut"`` (from colours, no weights), ``"carvekit"``
            (the paper's cut-outs, TRACER-B7), ``"carvekit-u2net"``, ``"carvekit-basnet"``, ``"carvekit-deeplab"``, or
            ``"none"``.
        device: where CarveKit's networks run: ``"auto"`` (CUDA, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
            GrabCut runs on the CPU, ``one_pass`` wherever the tokens are.
        model_dir: folder of CarveKit's weight files; None looks in ``$SELFSAME_MODELS_DIR/carvekit`` and CarveKit's
            own cache, and then downloads.
        options: settings of the method, see :class:`.grabcut.GrabCutConfig` and :class:`.carvekit.CarveKitConfig`.

    Returns:
        the method; None for ``"none"``.

    Raises:
        ConfigError: the name or an option is unknown, or an option cannot work.
        ModelError: weights are missing or broken, or CarveKit is not installed.
    """
    if name in ("one_pass", "none") and options:
        raise ConfigError(f"foreground {name!r} has no options, but got {', '.join(options)}")
    if name == "none":
        return None
    if name == "one_pass":
        from .one_pass import OnePassForeground

        return OnePassForeground()
    if name == "grabcut":
        from .grabcut import GrabCut, GrabCutConfig

        return GrabCut(_config(GrabCutConfig, name, options))
    if name in FOREGROUNDS:
        from .carvekit import CarveKit, CarveKitConfig

        segmenter = name.partition("-")[2] or "tracer_b7"
        # The name says which network it is.
        config = _config(CarveKitConfig, name, options, segmenter=segmenter)
        return CarveKit(config, device=device, model_dir=model_dir)
    hint = "; label fields are read by compute_ffa, not here" if name.startswith("field:") else ""
    raise ConfigError(f"foreground={name!r} is unknown; use one of {', '.join(FOREGROUNDS)}{hint}")


def _config(make: Callable[..., _T], name: str, options: dict[str, Any], **fixed: Any) -> _T:
    accepted = [field.name for field in dataclasses.fields(make) if field.name not in fixed]  # type: ignore[arg-type]
    unknown = [option for option in options if option not in accepted]
    if unknown:
        raise ConfigError(f"foreground {name!r} has no option {unknown[0]!r}; it takes {', '.join(accepted)}")
    return make(**options, **fixed)
