"""Where Selfsame keeps its own files and looks for model folders."""

import os
from pathlib import Path


def home() -> Path:
    """The folder for caches and state: ``$SELFSAME_HOME``, else ``~/.selfsame``. It need not exist yet."""
    return Path(os.environ.get("SELFSAME_HOME") or "~/.selfsame").expanduser().absolute()


def models_dir() -> Path | None:
    """The folder of model folders that the user keeps, ``$SELFSAME_MODELS_DIR``; None where the variable is not set."""
    value = os.environ.get("SELFSAME_MODELS_DIR")
    return Path(value).expanduser().absolute() if value else None
