"""`load_backbone`: from a name to a loaded model, kept in memory for the next call."""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigError
from .base import Backbone
from .catalog import EMBEDDED, FEATURE_MAPS, HYBRID, UNTRAINED
from .device import Precision, resolve_device, resolve_precision
from .embedded import embedded_folder
from .encoder import Placement
from .folder import open_model_folder
from .hub import find_model_folder
from .hybrid import HybridBackbone
from .pretrained import backbone_from_folder
from .untrained import untrained_backbone

# Models stay loaded between requests of the App. Two allow comparing models without a reload each time; more would
# fill a device's memory with models that the user has left behind.
_MAX_LOADED = 2
_loaded: OrderedDict[tuple, Any] = OrderedDict()
_lock = threading.Lock()
# One load at a time, because loading changes settings of `transformers` for its duration.
_loading = threading.Lock()

Loaded = TypeVar("Loaded")


def load_backbone(
    name: str | os.PathLike = EMBEDDED, *, device: str = "auto", precision: Precision = "auto", compile: bool = False
) -> Backbone:
    """Loads a backbone; a second call with the same arguments returns the same object.

    Args:
        name: a name of the catalogue (:func:`list_backbones`), a Hugging Face id such as
            ``"facebook/dinov2-small"``, or the path of a local folder in ``transformers`` format.
        device: ``"auto"`` (CUDA, else MPS, else CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``: number format of matrix products.
        compile: translate the encoder with ``torch.compile``; the first batch of every size takes long.

    Raises:
        ConfigError: an argument names something that does not exist or that this machine lacks.
        ModelError: the model cannot be found, downloaded or read; the message says what to do.
    """
    name = os.fspath(name)
    resolved = resolve_device(device)
    placement = Placement(resolved, resolve_precision(precision, resolved), compile)
    if name in (EMBEDDED, HYBRID, UNTRAINED):
        key, load = _own(name, placement)
        return remember(key, load)
    if name in FEATURE_MAPS:
        raise ConfigError(
            f"model={name!r} has no tokens: it describes regions, as a network of feature maps; for tokens use a"
            " vision transformer such as 'dinov2-small'"
        )
    folder = open_model_folder(find_model_folder(name))
    return remember((name, folder.digest(), placement), lambda: backbone_from_folder(folder, placement, name=name))


def _own(name: str, placement: Placement) -> tuple[tuple, Callable[[], Backbone]]:
    """What tells a model of the package apart in memory, and how to load it."""
    folder = None if name == UNTRAINED else embedded_folder()
    digest = UNTRAINED if folder is None else folder.digest()

    def learned() -> Backbone:
        if folder is None:
            return untrained_backbone(placement)
        return backbone_from_folder(folder, placement, name=EMBEDDED)

    if name == HYBRID:
        return (HYBRID, digest, placement), lambda: HybridBackbone(learned())
    return (EMBEDDED, digest, placement), learned


def remember(key: tuple, load: Callable[[], Loaded]) -> Loaded:
    """Returns the loaded model of this key, loading it once even if several threads ask at the same time."""
    found = _recall(key)
    if found is not None:
        return found
    with _loading:
        found = _recall(key)
        if found is None:
            found = load()
            with _lock:
                _loaded[key] = found
                while len(_loaded) > _MAX_LOADED:
                    _loaded.popitem(last=False)
    return found


def _recall(key: tuple) -> Any:
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
        return _loaded.get(key)
