"""What a stored result was made from: one short hash per sample, so that a re-run knows what is still valid."""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

_DIGEST_BYTES = 16


def config_hash(method: str, config: Mapping[str, Any]) -> str:
    """Hash of a method and its settings (weights hashes included); independent of the order of the keys."""
    text = json.dumps([method, config], sort_keys=True, ensure_ascii=True)
    return _digest(text.encode())


def file_stamp(path: str | os.PathLike) -> str:
    """Size and modification time of a file; empty if it cannot be read. Far cheaper than hashing the bytes."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def value_stamp(value: Any) -> str:
    """Hash of the labels that a result depends on: nested lists of numbers, strings, None and numpy arrays."""
    hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    _feed(hasher, value)
    return hasher.hexdigest()


def sample_provenance(config: str, *stamps: str) -> str:
    """The value of a ``<field>_provenance`` field: hash of the configuration and of every input of the sample."""
    return _digest("\n".join([config, *stamps]).encode())


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def _feed(hasher: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        hasher.update(f"{value.dtype.str}{value.shape}".encode())
        hasher.update(np.ascontiguousarray(value).data)
    elif isinstance(value, list | tuple):
        hasher.update(f"[{len(value)}".encode())
        for element in value:
            _feed(hasher, element)
    else:
        hasher.update(f"{type(value).__name__}:{value!r};".encode())
