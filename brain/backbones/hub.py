"""From the name of a model to its folder on this machine, downloading it from the Hugging Face Hub if need be."""

import difflib
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import ConfigError, ModelError
from ..paths import models_dir
from .catalog import CATALOG, EMBEDDED, HUB_IDS, HYBRID, OFFLINE_DEFAULT
from .folder import (
    CONFIG_FILE,
    PREPROCESSOR_FILE,
    TOKENIZER_CONFIG_FILE,
    VOCABULARY_FILES,
    WEIGHT_FILES,
    shard_names,
)

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_BACKBONES = (EMBEDDED, HYBRID, *CATALOG)
_PROBE_SECONDS = 3.0
_DOWNLOAD_PROBE_SECONDS = 15.0


def find_model_folder(name: str, known: Sequence[str] = _BACKBONES) -> Path:
    """The folder of a model, from the first place that has it.

    Looked at in this order: the path itself, ``$SELFSAME_MODELS_DIR``, the cache of the Hugging Face Hub, the Hub.
    A model that is on the machine is used as it is, without asking the network for a newer one.

    Args:
        name: a name of the catalogue, a Hugging Face id or the path of a folder.
        known: the names to speak of where this one is unknown.

    Raises:
        ConfigError: the name is unknown, or the path does not exist.
        ModelError: the model must be downloaded and cannot be.
    """
    folder = local_model_folder(name)
    if folder is not None:
        return folder
    if name not in HUB_IDS:
        _check_name(name, known)
    return _download(name, hub_id_of(name))


def local_model_folder(name: str) -> Path | None:
    """The folder of a model that is on this machine; None where it would have to be downloaded."""
    if name not in HUB_IDS:
        if name and Path(name).expanduser().is_dir():
            return Path(name).expanduser().absolute()
        if not _NAME.fullmatch(name):
            return None
    hub_id = hub_id_of(name)
    kept = models_dir()
    if kept is not None:
        for candidate in (name, hub_id.replace("/", "--"), hub_id):
            if (kept / candidate).is_dir():
                return kept / candidate
    return _cached_snapshot(hub_id) if _HUB_ID.fullmatch(hub_id) else None


def hub_id_of(name: str) -> str:
    """The Hugging Face id of a catalogue name; any other name is its own id."""
    return HUB_IDS.get(name, name)


def is_offline() -> bool:
    """Whether the user forbade the network (``HF_HUB_OFFLINE`` or ``TRANSFORMERS_OFFLINE``)."""
    values = (os.environ.get(variable, "") for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.strip().upper() in ("1", "ON", "YES", "TRUE") for value in values)


def hub_has(hub_id: str) -> bool:
    """Whether the Hub is within reach and has a model; answers within three seconds, name resolution included."""
    return _ask_hub(hub_id, _PROBE_SECONDS) is None


def complete_with_tokenizer(name: str, folder: Path) -> None:
    """Downloads the tokenizer of a model whose folder lies in the Hub's cache, if it has none there.

    Args:
        name: what :func:`find_model_folder` was asked for.
        folder: what it returned; a folder of the user's own is left as it is.

    Raises:
        ModelError: the tokenizer must be downloaded and cannot be.
    """
    hub_id = hub_id_of(name)
    if any((folder / file).is_file() for file in VOCABULARY_FILES) or not _HUB_ID.fullmatch(hub_id):
        return
    if folder != _cached_snapshot(hub_id):
        return
    if is_offline():
        raise ModelError(
            f"model {name!r} is on this machine without its tokenizer and HF_HUB_OFFLINE=1 forbids the download; unset"
            f" it, or put {' or '.join(VOCABULARY_FILES)} and {TOKENIZER_CONFIG_FILE} into {folder}"
        )
    try:
        # Of the same commit as the weights, or else it would land in another folder of the cache.
        _fetch(hub_id, TOKENIZER_CONFIG_FILE, folder.name)
        for file in VOCABULARY_FILES:
            if _fetch(hub_id, file, folder.name) is not None:
                return
    # As for the weights: every HTTP library has its own errors.
    except Exception as error:
        raise _explained(name, hub_id, error) from error


def where_to_put(name: str) -> str:
    """One clause that tells the user where the folder of a model would be found."""
    target = name if name in HUB_IDS else name.replace("/", "--")
    kept = models_dir()
    place = f"{kept / target}" if kept else f"$SELFSAME_MODELS_DIR/{target} (a folder of your choice)"
    return f"put the model's folder (config.json, model.safetensors) at {place}"


def _check_name(name: str, known: Sequence[str]) -> None:
    """Raises unless the name may be an id on the Hub."""
    if Path(name).expanduser().is_file():
        raise ConfigError(f"model={name!r} is a file; give the folder that holds config.json and the weights")
    if _HUB_ID.fullmatch(name):
        return
    if "/" in name or "\\" in name or name.startswith(("~", ".")):
        raise ConfigError(f"model={name!r}: no such folder; give an existing folder in transformers format")
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ConfigError(
        f"model={name!r} is unknown{hint} Use one of {', '.join(known)}, a Hugging Face id such as"
        f" 'facebook/dinov2-small', or a local folder; or {where_to_put(name)}"
    )


def _endpoint() -> str | None:
    return os.environ.get("HF_ENDPOINT") or None


def _cached_snapshot(hub_id: str) -> Path | None:
    """The model's folder in the Hub's cache, if configuration and all weights are there."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, CONFIG_FILE)
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            shards = shard_names(folder / name) if name.endswith(".json") else [name]
            if all((folder / shard).is_file() for shard in shards):
                return folder
    return None


def _download(name: str, hub_id: str) -> Path:
    if is_offline():
        raise ModelError(
            f"model {name!r} is not on this machine and HF_HUB_OFFLINE=1 forbids the download; unset it, or"
            f" {where_to_put(name)}, or use model='{OFFLINE_DEFAULT}'"
        )
    fault = _ask_hub(hub_id, _DOWNLOAD_PROBE_SECONDS)
    if fault is not None:
        raise _explained(name, hub_id, fault) from fault
    try:
        folder = Path(_fetch(hub_id, CONFIG_FILE) or "").parent
        _fetch(hub_id, PREPROCESSOR_FILE)
        _fetch_weights(hub_id)
    # Proxies, full disks, broken connections: every HTTP library has its own errors, and the advice is the same.
    except Exception as error:
        raise _explained(name, hub_id, error) from error
    return folder


def _ask_hub(hub_id: str, seconds: float) -> Exception | None:
    """Asks for a model's ``config.json`` without fetching it; returns what went wrong.

    The Hub's own client tries a dead network again and again for half a minute, and no client bounds the time of name
    resolution; so one question is asked, in a thread that may be left behind.
    """
    answers: list[Exception | None] = []

    def ask() -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        try:
            get_hf_file_metadata(hf_hub_url(hub_id, CONFIG_FILE, endpoint=_endpoint()), timeout=seconds)
            answers.append(None)
        # Three generations of HTTP libraries lie under huggingface_hub, each with its own errors.
        except Exception as error:
            answers.append(error)

    thread = threading.Thread(target=ask, name="selfsame-hub-probe", daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else TimeoutError(f"no answer within {seconds:g} seconds")


def _explained(name: str, hub_id: str, fault: Exception) -> ModelError:
    """What a failed download means to the user."""
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    model = f"model {name!r}" if name == hub_id else f"model {name!r} ({hub_id})"
    if isinstance(fault, GatedRepoError):
        return ModelError(
            f"{model}: its licence must be accepted on huggingface.co first; do so and run `hf auth login`, or"
            f" {where_to_put(name)}"
        )
    if isinstance(fault, RepositoryNotFoundError):
        return ModelError(
            f"{model}: the Hugging Face Hub has no such model that you may read; check the name, or"
            f" {where_to_put(name)}"
        )
    if isinstance(fault, EntryNotFoundError) and isinstance(fault, HfHubHTTPError):
        return ModelError(
            f"{model}: it has no {CONFIG_FILE} on the Hub, so it is not in transformers format; use another"
        )
    reason = " ".join(str(fault).split())[:200]
    return ModelError(
        f"{model} is not on this machine and cannot be downloaded from {_endpoint() or 'huggingface.co'} ({reason});"
        f" connect to the network, or {where_to_put(name)}, or use model='{OFFLINE_DEFAULT}'"
    )


def _fetch(hub_id: str, filename: str, revision: str | None = None) -> str | None:
    """Downloads one file; None where the model (at that commit) has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return hf_hub_download(hub_id, filename, revision=revision, endpoint=_endpoint())
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return None


def _fetch_weights(hub_id: str) -> None:
    for name in WEIGHT_FILES:
        path = _fetch(hub_id, name)
        if path is not None:
            for shard in shard_names(Path(path)) if name.endswith(".json") else []:
                _fetch(hub_id, shard)
            return
