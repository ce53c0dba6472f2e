"""Reading a model folder in `transformers` format: configuration, weight files, image normalisation, hash."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .catalog import FAMILIES, Family

CONFIG_FILE = "config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"

# In order of preference; the second must be read by a package that is not among our requirements.
VOCABULARY_FILES = ("tokenizer.json", "spiece.model")

# In order of preference; an index lists the shards of a model that is split over several files.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# Notes of the library that wrote the file; they say nothing about what the model computes.
_INCIDENTAL_KEYS = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose parts are all there.

    Attributes:
        path: the folder.
        config: content of its ``config.json``.
        family: how its architecture is handled.
        weights: its weight files, all of one format.
        mean, std: normalisation of RGB values in [0, 1].
    """

    path: Path
    config: dict[str, Any]
    family: Family
    weights: tuple[Path, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def digest(self) -> str:
        """Hexadecimal hash of configuration, normalisation and the bytes of all weight files; cheap when repeated."""
        config = {key: value for key, value in self.config.items() if key not in _INCIDENTAL_KEYS}
        settings = json.dumps([config, self.mean, self.std], sort_keys=True)
        parts = [settings, *(weights_digest(path) for path in self.weights)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def open_model_folder(path: Path, families: Mapping[str, Family] = FAMILIES) -> ModelFolder:
    """Looks at a model folder without loading its weights.

    Args:
        path: the folder.
        families: the architectures to accept, by ``model_type`` of ``config.json`` (``architecture`` in that of timm).

    Raises:
        ModelError: it lacks ``config.json`` or weights, one of its files is broken, or its architecture is not one
            of those in ``families``.
    """
    config_path = path / CONFIG_FILE
    if not config_path.is_file():
        raise ModelError(
            f"{path}: no {CONFIG_FILE} in this folder; give a folder in transformers format ({CONFIG_FILE} and"
            " model.safetensors), as `model.save_pretrained(folder)` or `hf download` write it"
        )
    config = read_json(config_path)
    model_type: Any = config.get("model_type", config.get("architecture"))
    if model_type not in families:
        raise ModelError(
            f"{config_path}: architecture {model_type!r} is not supported; use a model whose model_type is one of"
            f" {', '.join(families)}"
        )
    family = families[model_type]
    mean, std = _normalisation(path, config, family)
    return ModelFolder(path, config, family, _weight_files(path), mean, std)


def shard_names(index_path: Path) -> list[str]:
    """File names of the shards that a weight index lists.

    Raises:
        ModelError: the index is broken.
    """
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index_path}: broken weight index (no weight_map); download the model again")
    return sorted({Path(str(name)).name for name in weight_map.values()})


def _weight_files(folder: Path) -> tuple[Path, ...]:
    for name in WEIGHT_FILES:
        path = folder / name
        if not path.is_file():
            continue
        files = [folder / shard for shard in shard_names(path)] if name.endswith(".json") else [path]
        for file in files:
            if not file.is_file():
                raise ModelError(f"{file}: weight file is missing; download the model again")
            if file.stat().st_size == 0:
                raise ModelError(f"{file}: weight file is empty (0 bytes); download the model again")
        return tuple(files)
    raise ModelError(f"{folder}: no weights in this folder; it needs model.safetensors (or pytorch_model.bin)")


def _normalisation(
    folder: Path, config: dict[str, Any], family: Family
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    path = folder / PREPROCESSOR_FILE
    if not path.is_file():
        # The format of timm has it in config.json.
        found = config.get("pretrained_cfg")
        settings, keys, path = found if isinstance(found, dict) else {}, ("mean", "std"), folder / CONFIG_FILE
    else:
        settings, keys = read_json(path), ("image_mean", "image_std")
    if settings.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean_key, std_key = keys
    return (
        _triple(settings.get(mean_key, family.mean), mean_key, path),
        _triple(settings.get(std_key, family.std), std_key, path),
    )


def _triple(values: Any, key: str, path: Path) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: {key} is {values!r}, not three numbers; correct or delete the file") from error
    if key.endswith("std") and 0.0 in (red, green, blue):
        raise ModelError(f"{path}: {key} is {values!r}, but must not be zero; correct or delete the file")
    return red, green, blue


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file of a model folder.

    Raises:
        ModelError: it cannot be read, or is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: broken file ({error}); download the model again") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: broken file (not a JSON object); download the model again")
    return content


def weights_digest(path: Path) -> str:
    """Hexadecimal hash of a file's bytes; cheap when repeated."""
    status = path.stat()
    return _digest_once(path, (status.st_size, status.st_mtime_ns, status.st_ino))


@lru_cache(maxsize=64)
def _digest_once(path: Path, identity: tuple[int, int, int]) -> str:
    """Hash of a file's bytes, computed once per file; the identity is there to notice that it was replaced."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
