"""The pair matchers that have a name: the training-free one, the shipped demo, and those that the user trained."""

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError, ModelError
from ..paths import home
from .matcher_folder import MatcherFolder, open_matcher_folder
from .names import DEMO, FREE_MATCHERS, TRAINING_FREE, TRAINING_FREE_PAPER

DEMO_FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "matcher"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,79}")


@dataclass(frozen=True)
class MatcherInfo:
    """One line of the list of matchers.

    Attributes:
        name: what a user types.
        label: what a form shows.
        folder: its opened folder; None for a training-free matcher.
    """

    name: str
    label: str
    folder: MatcherFolder | None


def list_matchers() -> list[MatcherInfo]:
    """All matchers to choose from by name, the training-free ones first; folders that are unfinished are left out."""
    found = [
        MatcherInfo(TRAINING_FREE, "Training-free (no labels needed)", None),
        MatcherInfo(TRAINING_FREE_PAPER, "Training-free, joint clusters as published", None),
    ]
    folders = [(DEMO, DEMO_FOLDER)]
    if matchers_dir().is_dir():
        folders += [(path.name, path) for path in sorted(matchers_dir().iterdir()) if _NAME.fullmatch(path.name)]
    for name, path in folders:
        try:
            folder = open_matcher_folder(path)
        except ModelError:
            continue
        found.append(MatcherInfo(name, _label(name, folder), folder))
    return found


def matchers_dir() -> Path:
    """Where matchers that the user trains are kept; it need not exist yet."""
    return home() / "matchers"


def new_matcher_folder(name: str) -> Path:
    """The folder of a matcher that is about to be trained; it need not exist yet.

    Raises:
        ConfigError: the name is no plain file name, or belongs to a matcher of the package.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"matcher name {name!r} cannot be used; give up to 80 letters, digits, '.', '_' or '-', beginning with a"
            " letter or digit"
        )
    if name in (*FREE_MATCHERS, DEMO):
        raise ConfigError(f"matcher name {name!r} belongs to a matcher of the package; choose another")
    return matchers_dir() / name


def find_matcher_folder(name: str | os.PathLike) -> MatcherFolder:
    """The folder of a trained matcher.

    Args:
        name: a name of :func:`list_matchers`, or the path of a folder.

    Raises:
        ConfigError: there is no such matcher.
        ModelError: its folder is broken or unfinished.
    """
    name = os.fspath(name)
    if name == DEMO:
        path = DEMO_FOLDER
    elif _NAME.fullmatch(name) and (matchers_dir() / name).is_dir():
        path = matchers_dir() / name
    else:
        path = Path(name).expanduser()
    if path.is_dir():
        return open_matcher_folder(path.absolute())
    if name == DEMO:
        raise ModelError("the demo matcher is not part of this copy of the package; use matcher='training_free'")
    known = [info.name for info in list_matchers()]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ConfigError(
        f"matcher={name!r} is unknown{hint} Use one of {', '.join(known)}, the folder of a trained matcher, or train"
        " one with train_matcher"
    )


def _label(name: str, folder: MatcherFolder) -> str:
    if folder.network is None:
        return f"{name} (calibrated training-free scores)"
    return f"{name} (trained: {folder.network.encoder}, {folder.network.head} head)"
