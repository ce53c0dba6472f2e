"""Patch tokens on disk, shared by all methods: what one method encoded, the next one reads."""

import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
import threading
import time
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .backbones.base import Backbone, Tokens
from .errors import ConfigError
from .paths import home

DEFAULT_MAX_BYTES = 10 * 10**9

# Evicting a little more than needed makes the walk over all entries rare.
_KEEP_SHARE = 0.9
# After this share of the bound in own writes, the folder is measured again, because other processes write too.
_REMEASURE_SHARE = 0.05
# A temporary file this old belongs to a process that was killed while writing.
_ABANDONED_SECONDS = 3600
_SUFFIX = ".npz"
_TEMPORARY = ".writing-"

_log = logging.getLogger(__name__)


def token_key(content_hash: str, backbone: Backbone, preprocessing: str | Mapping[str, Any]) -> str:
    """The name of an image's tokens in the cache.

    Args:
        content_hash: hash of the image file's content (or of the decoded pixels).
        backbone: the encoder; its weights and precision enter the key, its device does not.
        preprocessing: all else that shapes the tokens: canvas, resize mode, final norm ... as a text or a
            JSON-able mapping.

    Returns:
        64 hexadecimal digits.
    """
    settings = preprocessing if isinstance(preprocessing, str) else dict(preprocessing)
    parts = [content_hash, backbone.weights_hash, backbone.precision, settings]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class TokenCache:
    """A folder of token files, bounded in size; the least recently used go first.

    Any number of threads and processes may share one folder: files appear by renaming, so that none is ever seen half
    written, and a damaged one counts as absent. Trouble with the disk costs speed, never a job: it is logged once.

    Tokens are kept as float16. To make results independent of what happened to be cached, go on with what
    :meth:`put` returns, not with what was given to it.

    Args:
        folder: where the files lie; default ``tokens`` in :func:`~.paths.home`. Made at the first write.
        max_bytes: bound of the folder's size. One process keeps to it; each further one that writes at the same time
            may exceed it by 5 %. 0 keeps nothing.

    Raises:
        ConfigError: ``max_bytes`` is negative.
    """

    def __init__(self, folder: str | os.PathLike | None = None, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if max_bytes < 0:
            raise ConfigError(f"max_bytes={max_bytes} is negative; give a size in bytes, or 0 to keep nothing")
        self.folder = home() / "tokens" if folder is None else Path(folder)
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._size: int | None = None
        self._written = 0
        self._warned = False

    def get(self, key: str) -> Tokens | None:
        """The float32 CPU tokens stored under a key, or None."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                patch, cls = arrays["patch"], arrays["cls"]
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"Cannot read cached tokens ({error}); computing them again.")
            return None
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            self._drop(path, error)
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read still serves
            os.utime(path)
        return Tokens(torch.from_numpy(patch.astype(np.float32)), torch.from_numpy(cls.astype(np.float32)))

    def put(self, key: str, tokens: Tokens) -> Tokens:
        """Stores tokens, usually of one image: ``patch (1, H, W, C)``, ``cls (1, C)``.

        Returns:
            the tokens as :meth:`get` would give them back, on the device of the given ones. Values that float16
            cannot hold are not stored; such tokens are returned as they are.
        """
        patch, cls = tokens.patch.to(torch.float16), tokens.cls.to(torch.float16)
        if not (patch.isfinite().all() and cls.isfinite().all()):
            return tokens
        self._write(self._path(key), patch.cpu().numpy(), cls.cpu().numpy())
        return Tokens(patch.float(), cls.float())

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}{_SUFFIX}"

    def _write(self, path: Path, patch: np.ndarray, cls: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, patch=patch, cls=cls)
        content = buffer.getbuffer()
        if len(content) > self.max_bytes * _KEEP_SHARE:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replaced = path.stat().st_size if path.exists() else 0
            _write_atomically(path, content)
            with self._lock:
                self._account(len(content) - replaced)
        except OSError as error:
            self._warn(f"Tokens cannot be cached in {self.folder} ({error}); going on without.")

    def _account(self, added: int) -> None:
        """Keeps the running size, and evicts when it exceeds the bound."""
        self._written += added
        if self._size is not None and self._written <= self.max_bytes * _REMEASURE_SHARE:
            self._size += added
            if self._size <= self.max_bytes:
                return
        entries = self._entries()
        self._size, self._written = sum(size for _, size, _ in entries), 0
        if self._size > self.max_bytes:
            self._size = _evict(entries, self._size, int(self.max_bytes * _KEEP_SHARE))

    def _entries(self) -> list[tuple[float, int, Path]]:
        """``(last use, bytes, path)`` of every entry; abandoned temporary files are removed on the way."""
        entries = []
        for path in self.folder.glob("??/*"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == _SUFFIX:
                entries.append((status.st_mtime, status.st_size, path))
            elif path.name.startswith(_TEMPORARY) and time.time() - status.st_mtime > _ABANDONED_SECONDS:
                path.unlink(missing_ok=True)
        return entries

    def _drop(self, path: Path, error: Exception) -> None:
        self._warn(f"Dropped a damaged cache entry ({path.name}: {error}); it will be computed again.")
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)

    def _warn(self, message: str) -> None:
        if not self._warned:
            _log.warning(message)
        self._warned = True


def _write_atomically(path: Path, content: memoryview) -> None:
    handle, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _evict(entries: list[tuple[float, int, Path]], size: int, target: int) -> int:
    """Removes the least recently used entries until at most ``target`` bytes are left; returns what is left."""
    for _, entry_size, path in sorted(entries):
        if size <= target:
            break
        path.unlink(missing_ok=True)
        size -= entry_size
    return size
