"""Scores of compared pairs in a file, so that a check that was interrupted, or is repeated, compares only what is new.

One JSON line per comparison, appended: a kill loses at most the line being written.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..brain.errors import ConfigError


@dataclass(frozen=True)
class Compared:
    """What is kept of a comparison.

    Attributes:
        provenance: hash of both files and all settings but the threshold.
        score: how sure it is that both images show the same object, in [0, 1].
        nothing: whether they have nothing in common.
    """

    provenance: str
    score: float
    nothing: bool

    @property
    def rank(self) -> tuple[bool, float]:
        """By which the best pair of a product is found, whatever the threshold."""
        return not self.nothing, self.score

    def matches(self, threshold: float) -> bool:
        """Whether the score reaches the threshold."""
        return self.score >= threshold and not self.nothing


class ComparisonStore:
    """The comparisons of one run, by pair and provenance.

    Args:
        path: the file; it need not exist yet.

    Raises:
        ConfigError: the file cannot be read, or its folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[tuple[str, str], Compared] = {}
        self._torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise ConfigError(f"comparisons are kept in {path}, which cannot be used ({error})") from error
        if not os.access(path.parent, os.W_OK):
            raise ConfigError(f"comparisons are kept in {path.parent}, which cannot be written to")
        self._torn = bool(text) and not text.endswith(b"\n")
        for line in text.splitlines():
            self._read(line)

    def get(self, pair_id: str, provenance: str) -> Compared | None:
        """The comparison of a pair from the files and with the settings of now; None where there is none."""
        return self._known.get((pair_id, provenance))

    def add(self, found: Mapping[str, Compared] | Iterable[tuple[str, Compared]]) -> None:
        """Appends comparisons, by ``pair_id``."""
        rows = list(found.items() if isinstance(found, Mapping) else found)
        if not rows:
            return
        lines = [json.dumps([pair_id, one.provenance, one.score, one.nothing]) for pair_id, one in rows]
        with self.path.open("ab") as stream:
            stream.write((b"\n" if self._torn else b"") + "".join(f"{line}\n" for line in lines).encode())
        self._torn = False
        self._known |= {(pair_id, one.provenance): one for pair_id, one in rows}

    def _read(self, line: bytes) -> None:
        try:
            pair_id, provenance, score, nothing = json.loads(line)
            self._known[pair_id, provenance] = Compared(provenance, float(score), bool(nothing))
        except (ValueError, TypeError):
            # The end of a line that a kill cut off.
            return
