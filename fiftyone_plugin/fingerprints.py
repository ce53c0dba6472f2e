"""The computation behind both duplicate searches: digest and technical quality of image files, resumable."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import fiftyone.core.collections as foc
import fiftyone.core.view as fov

from ..brain.hashing import file_digest, pixel_digest
from ..brain.image_quality import QualityScores, image_quality
from ..brain.images import decode_image
from .dataset_io import SampleItem
from .duplicate_store import DuplicateFields

DigestBy = Literal["pixels", "bytes"]
DIGESTS: tuple[DigestBy, ...] = ("pixels", "bytes")

# Rows of at most a few hundred bytes each.
_READ_CHUNK = 10_000


@dataclass(frozen=True)
class Fingerprint:
    """What is known of one image file; any file can share a batch with any other."""

    digest: str
    measures: dict[str, float] | None
    group_key: str = ""


class FingerprintMethod:
    """Digests of image files and, on request, what the choice of keepers needs; all work happens in decode threads.

    Args:
        name: method name for the run record.
        key: the duplicate key whose fields are written.
        by: ``"pixels"``: upright decoded RGB, so that the same picture in another format counts; ``"bytes"``: the file.
        measure: also measure resolution, sharpness, exposure and file size (``by="pixels"`` only, which decodes).
    """

    inputs: Sequence[str] = ()

    def __init__(self, name: str, key: str, by: DigestBy, *, measure: bool) -> None:
        names = DuplicateFields(key)
        results = ("digest", "measures") if measure else ("digest",)
        self.name = name
        self.config = {"by": by, "measure": measure}
        self.error_field = names.error
        self.provenance_field = names.provenance
        self.required = tuple(getattr(names, result) for result in results)
        self.fields: dict[str, Any] = {}
        for field in (*results, "error", "provenance"):
            self.fields |= names.spec(field)

    def prepare(self, item: SampleItem) -> Fingerprint:
        if self.config["by"] == "bytes":
            return Fingerprint(file_digest(item.filepath), None)
        image = decode_image(item.filepath)
        measures = asdict(image_quality(image, os.path.getsize(item.filepath))) if self.config["measure"] else None
        return Fingerprint(pixel_digest(image), measures)

    def run(self, batch: Sequence[Fingerprint]) -> list[dict[str, Any]]:
        values = [(fingerprint.digest, fingerprint.measures) for fingerprint in batch]
        return [dict(zip(self.required, value, strict=False)) for value in values]

    def blank(self, item: SampleItem) -> dict[str, Any]:
        return dict.fromkeys(self.required)

    def input_stamp(self, item: SampleItem) -> str:
        return ""

    def is_intact(self, item: SampleItem) -> bool:
        return True


def read_fields(samples: foc.SampleCollection, ids: Sequence[str], paths: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Values of some fields by sample id, in bounded chunks; samples deleted in the meantime are missing."""
    values: dict[str, tuple[Any, ...]] = {}
    for start in range(0, len(ids), _READ_CHUNK):
        view = fov.make_optimized_select_view(samples, ids[start : start + _READ_CHUNK])
        values |= {row[0]: row[1:] for row in zip(*view.values(["id", *paths]), strict=True)}
    return values


def quality_of(measures: dict[str, float] | None) -> QualityScores | None:
    """Stored measures as the keeper policy takes them; None where a file could not be measured."""
    return None if measures is None else QualityScores(**measures)
