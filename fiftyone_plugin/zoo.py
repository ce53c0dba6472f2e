"""The repository as a source of zoo models: what FiftyOne's model zoo calls, through the package's entry file.

``manifest.json`` lists the models: ``selfsame/ffa-<backbone>`` for each backbone of the catalogue.
"""

import json
from pathlib import Path
from typing import Any

from fiftyone.operators import types

from ..brain.backbones import list_backbones
from ..brain.backbones.catalog import EMBEDDED, HYBRID
from ..brain.backbones.hub import find_model_folder
from ..brain.errors import ConfigError
from ..brain.ffa_config import PRESETS
from .forms import FOREGROUND_CHOICES, choose
from .model import FFAModel, FFAModelConfig

PREFIX = "selfsame/ffa-"


def backbone_of(model_name: str) -> str:
    """The backbone of a zoo model.

    Raises:
        ConfigError: it is not one of ours.
    """
    names = [info.name for info in list_backbones()]
    name = model_name.removeprefix(PREFIX)
    if not model_name.startswith(PREFIX) or name not in names:
        known = ", ".join(PREFIX + known for known in names)
        raise ConfigError(f"zoo model {model_name!r} is unknown; this source has {known}")
    return name


def download_model(model_name: str, model_path: str) -> None:
    """Brings the weights of a model onto this machine, into the cache of the Hugging Face Hub.

    Those of the embedded models came with the package, and nothing is downloaded.

    Args:
        model_name: e.g. ``"selfsame/ffa-dinov2-small"``.
        model_path: a small file that tells FiftyOne that the model is there; it records where the weights are.

    Raises:
        ConfigError: there is no such model.
        ModelError: the download failed; the message says what to do.
    """
    backbone = backbone_of(model_name)
    folder = None if backbone in (EMBEDDED, HYBRID) else str(find_model_folder(backbone))
    record = {"model": model_name, "backbone": backbone, "weights": folder}
    Path(model_path).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load_model(model_name: str, model_path: str, **options: Any) -> FFAModel:
    """The model, ready for ``compute_embeddings`` and its kin.

    Args:
        model_name: e.g. ``"selfsame/ffa-dinov2-small"``.
        model_path: not needed; the weights are found as for :func:`fiftyone_selfsame.compute_ffa`.
        **options: see :class:`.model.FFAModelConfig`.
    """
    return FFAModel(FFAModelConfig({**options, "model": backbone_of(model_name)}))


def resolve_input(model_name: str, ctx: Any) -> types.Property:
    """The options that FiftyOne's own operators offer for a model; what is left empty keeps its default."""
    inputs = types.Object()
    presets = [(name, name, None) for name in PRESETS]
    choose(inputs, "preset", presets, default="default", label="Pipeline")
    methods = [(name, label, text) for name, (label, text) in FOREGROUND_CHOICES.items()]
    methods.append(("none", "None", "Average the whole image, background included"))
    choose(inputs, "foreground", methods, label="Foreground", description="Empty: what the pipeline says")
    return types.Property(inputs)
