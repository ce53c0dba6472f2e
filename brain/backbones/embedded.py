"""The project's own trained model, which the package carries, and what the catalogue says of it."""

import math
from pathlib import Path

from ..errors import ModelError
from .catalog import EMBEDDED, HYBRID, BackboneInfo, default_input_size
from .convnext import total_stride
from .folder import ModelFolder, open_model_folder
from .hybrid import HYBRID_CONFIG
from .untrained import untrained_info

EMBEDDED_FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "embedded"

_ARCHITECTURES = {"vit": "ViT", "convnext": "ConvNeXt V2"}


def embedded_folder() -> ModelFolder | None:
    """The trained model; None in a copy of the package that was made without it.

    Raises:
        ModelError: the folder is there, but broken.
    """
    return open_model_folder(EMBEDDED_FOLDER) if EMBEDDED_FOLDER.is_dir() else None


def embedded_info() -> BackboneInfo:
    """The catalogue line of the embedded model; it says so if the untrained stand-in takes its place.

    Raises:
        ModelError: the trained folder is broken.
    """
    folder = embedded_folder()
    if folder is None:
        return untrained_info(EMBEDDED)
    label = f"Embedded small {_ARCHITECTURES[folder.family.architecture]}, demo grade (not DINOv2)"
    patch, dim = _patch_and_dim(folder)
    return BackboneInfo(EMBEDDED, label, "embedded", patch, dim, default_input_size(patch), None, _millions(folder))


def hybrid_info() -> BackboneInfo:
    """The catalogue line of the embedded model beside colour statistics.

    Raises:
        ModelError: the trained folder is broken.
    """
    learned = embedded_info()
    return BackboneInfo(
        HYBRID,
        learned.label.replace(",", " with colour statistics,", 1),
        learned.family,
        learned.patch_size,
        learned.dim + HYBRID_CONFIG.dim,
        learned.default_size,
        None,
        learned.parameters,
    )


def _patch_and_dim(folder: ModelFolder) -> tuple[int, int]:
    """Patch size and channels of a token, from ``config.json`` alone."""
    config = folder.config
    try:
        if folder.family.architecture == "vit":
            return int(config["patch_size"]), int(config["hidden_size"])
        sizes = config["hidden_sizes"]
        return total_stride(int(config["patch_size"]), len(sizes)), int(sizes[-1])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"{folder.path}: config.json lacks the sizes of the model ({error!r}); install the package again"
        ) from error


def _millions(folder: ModelFolder) -> int:
    """Number of weights in millions, from the headers of the weight files, whatever their number format."""
    from safetensors import SafetensorError, safe_open

    count = 0
    try:
        for path in folder.weights:
            with safe_open(path, "numpy") as file:
                count += sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{folder.path}: broken weight file ({error}); install the package again") from error
    return round(count / 1e6)
