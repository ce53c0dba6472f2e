"""`load_backbone`: from a name to a loaded model, kept in memory for the next call."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from .base import Backbone
from .catalog import EMBEDDED, FAMILIES
from .device import Precision, resolve_device, resolve_precision
from .embedded import EMBEDDED_FOLDER, UNTRAINED, seeded_model
from .folder import open_model_folder
from .hub import find_model_folder
from .vit import Placement, VitBackbone, backbone_from_folder

# Models stay loaded between requests of the App. Two allow comparing models without a reload each time; more would
# fill a device's memory with models that the user has left behind.
_MAX_LOADED = 2
_lock = threading.Lock()
_loaded: OrderedDict[tuple, Backbone] = OrderedDict()
_loading: dict[tuple, threading.Lock] = {}


def load_backbone(
    name: str = EMBEDDED, *, device: str = "auto", precision: Precision = "auto", compile: bool = False
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
    resolved = resolve_device(device)
    placement = Placement(resolved, resolve_precision(precision, resolved), compile)
    if name == EMBEDDED and not EMBEDDED_FOLDER.is_dir():
        return _remember((EMBEDDED, placement), lambda: _untrained(placement))
    folder = open_model_folder(EMBEDDED_FOLDER if name == EMBEDDED else find_model_folder(name))
    return _remember((name, folder.digest(), placement), lambda: backbone_from_folder(folder, placement, name=name))


def _untrained(placement: Placement) -> VitBackbone:
    model, digest = seeded_model()
    family = FAMILIES["dinov2"]
    return VitBackbone(model, family, placement, name=UNTRAINED, weights_hash=digest, mean=family.mean, std=family.std)


def _remember(key: tuple, load: Callable[[], Backbone]) -> Backbone:
    """Returns the loaded backbone of this key, loading it once even if several threads ask at the same time."""
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
        loading = _loading.setdefault(key, threading.Lock())
    with loading:
        with _lock:
            if key in _loaded:
                return _loaded[key]
        backbone = load()
        with _lock:
            _loaded[key] = backbone
            _loading.pop(key, None)
            while len(_loaded) > _MAX_LOADED:
                _loaded.popitem(last=False)
    return backbone
