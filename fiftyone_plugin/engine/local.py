"""The local engine: decode threads → batches of one size → device → background writer; one process, one device."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..dataset_io import FieldSpec, SampleItem


@dataclass(frozen=True)
class Progress:
    """How far a job is; ``done + failed + skipped`` of ``total`` samples are settled.

    Attributes:
        label: what is happening, as a user would say it.
    """

    done: int
    total: int
    failed: int = 0
    skipped: int = 0
    label: str = ""

    @property
    def settled(self) -> int:
        """Samples that need no more work."""
        return self.done + self.failed + self.skipped

    @property
    def fraction(self) -> float:
        """Share of the samples that is settled, in [0, 1]."""
        return self.settled / self.total if self.total else 1.0


class Prepared(Protocol):
    """One decoded sample; only samples with equal group keys share a batch."""

    group_key: Hashable


class Method(Protocol):
    """What a computation offers to an engine.

    Attributes:
        name: the method's name in the run record.
        fields: the fields that it writes, by path; declared by the engine before anything is written.
        config: JSON-able settings with models and weights hashes; a change makes earlier results stale.
    """

    name: str
    fields: Mapping[str, FieldSpec]
    config: Mapping[str, Any]

    def prepare(self, item: SampleItem) -> Prepared:
        """Decodes one sample; runs in a worker thread; raises :class:`ImageError` where the sample is at fault."""
        ...

    def run(self, batch: Sequence[Any]) -> list[dict[str, Any]]:
        """Computes the field values of prepared samples with equal group keys, one dict (path → value) per sample."""
        ...
