"""Files that belong to samples, written so that a reader, or a kill in between, never meets half of one."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import fiftyone.core.collections as foc

from ..brain.paths import home


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes the file when all of it is written."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def dataset_folder(samples: foc.SampleCollection, kind: str) -> Path:
    """``$SELFSAME_HOME/<kind>/<id of the dataset>``, so that a dataset may be renamed; it need not exist yet."""
    return home() / kind / str(samples._root_dataset._doc.id)
