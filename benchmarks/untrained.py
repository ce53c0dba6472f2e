"""The untrained twin of a model: the same architecture with random weights, to tell what training has brought."""

import shutil
from pathlib import Path

import torch

from ..brain.backbones.folder import PREPROCESSOR_FILE, open_model_folder
from ..brain.backbones.pretrained import quiet_loading

_SEED = 0


def write_untrained_twin(folder: Path, into: Path) -> Path:
    """Writes a model folder with the configuration of another and freshly initialised weights (fixed seed).

    The weights are drawn as ``transformers`` initialises the architecture before training.

    Args:
        folder: a model folder that :func:`..brain.backbones.load_backbone` takes.
        into: where to write; made if need be.

    Returns:
        ``into``.

    Raises:
        ModelError: ``folder`` is not a model folder.
    """
    from transformers import AutoConfig, AutoModel

    open_model_folder(folder)
    with quiet_loading():
        torch.default_generator.manual_seed(_SEED)
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_config(config).float()
        model.save_pretrained(into)
    if (folder / PREPROCESSOR_FILE).is_file():
        shutil.copy(folder / PREPROCESSOR_FILE, into)
    return into
