"""Files of data sets, read with errors that name the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ConfigError


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Turns whatever a file's content breaks into an error that names the file.

    Args:
        path: the file whose content is being used.
        what: it should be, such as ``"an image annotation of SPair-71k"``.

    Raises:
        ConfigError: an entry is missing, or is of the wrong kind.
    """
    try:
        yield
    except ConfigError as error:
        if str(path) in str(error):
            raise
        raise ConfigError(f"{path}: {error}") from error
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        problem = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"{path}: not {what}: {problem}; download it anew or correct it") from error


def read_text(path: Path) -> str:
    """Content of a text file.

    Raises:
        ConfigError: the file is missing or is no text.
    """
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); is it the data set's folder?") from error


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        ConfigError: the file is missing or broken.
    """
    with reading(path, "a JSON file"):
        return json.loads(read_text(path))


def existing(path: Path) -> Path:
    """The path of a picture that is there.

    Raises:
        ConfigError: it is not.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: the picture is missing; unpack the data set's pictures there")
    return path


def chosen(option: str, value: str, accepted: tuple[str, ...]) -> str:
    """An option's value, if it is an accepted one.

    Raises:
        ConfigError: it is not.
    """
    if value not in accepted:
        raise ConfigError(f"{option}={value!r}; there are {', '.join(accepted)}")
    return value
