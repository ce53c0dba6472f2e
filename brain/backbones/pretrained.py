"""From a model folder to a loaded backbone: the weights into the class of `transformers`, that into ours."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from ..errors import ModelError
from .convnext import ConvNextBackbone
from .encoder import Encoder, ModelIdentity, Placement
from .folder import ModelFolder
from .vit import VitBackbone

_BACKBONES: dict[str, type[VitBackbone] | type[ConvNextBackbone]] = {"vit": VitBackbone, "convnext": ConvNextBackbone}


def backbone_from_folder(folder: ModelFolder, placement: Placement, *, name: str) -> Encoder:
    """Loads the weights of a model folder.

    Raises:
        ModelError: the weights are broken, incomplete, or of another shape than ``config.json`` says.
    """
    model = load_model(folder)
    identity = ModelIdentity(name, folder.digest(), folder.mean, folder.std)
    return _BACKBONES[folder.family.architecture](model, folder.family, placement, identity)


def load_model(folder: ModelFolder) -> nn.Module:
    """The model of a folder as the class of ``transformers`` that its family names.

    Raises:
        ModelError: as :func:`backbone_from_folder`.
    """
    import transformers

    model_class = getattr(transformers, folder.family.model_class)
    options = {"add_pooling_layer": False} if folder.family.model_class == "ViTModel" else {}
    try:
        with quiet_loading():
            model, report = model_class.from_pretrained(
                folder.path,
                local_files_only=True,
                use_safetensors=folder.weights[0].suffix == ".safetensors",
                weights_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except MemoryError:
        raise
    # The readers of weight files raise whatever they please (pickle, struct, zip, safetensors, key errors ...).
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"{folder.path}: the model cannot be loaded ({reason[:300]}); the files are broken or do not belong"
            " together: download the model again"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if not key.endswith("mask_token"))
    if missing:
        raise ModelError(
            f"{folder.path}: the weights lack {len(missing)} tensors of the model ({', '.join(missing[:3])} ...), so"
            " they are incomplete, belong to another architecture or come from a newer transformers: download the"
            " model again, or update transformers"
        )
    return model


@contextlib.contextmanager
def quiet_loading() -> Iterator[None]:
    """Keeps the loader from printing tables about text towers and from using up the caller's random numbers.

    Nothing is hidden by this: weights that are really missing are raised as errors.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
