"""What a catalogue check says of each product: verdict, best pair, and how much was compared; as rows and as CSV."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..brain.errors import ConfigError
from .catalogue_sides import Product, Shown
from .comparison_store import Compared
from .match_fields import MATCHED, UNMATCHED
from .own_files import written_aside
from .pair_decisions import ACCEPT, REJECT

NO_DOCUMENT, NO_CATALOGUE, NOT_COMPARED = "no_document", "no_catalogue", "not_compared"

# The verdicts in the order of a table: what needs a look first.
VERDICTS = (UNMATCHED, NO_DOCUMENT, NO_CATALOGUE, NOT_COMPARED, MATCHED)
WITHOUT_EVIDENCE = VERDICTS[:-1]

COLUMNS = (
    "product",
    "verdict",
    "score",
    "threshold",
    "catalogue_file",
    "document_file",
    "catalogue_id",
    "document_id",
    "decision",
    "catalogue_images",
    "document_images",
    "comparisons",
    "matches",
    "left_out",
    "failed",
)


@dataclass(frozen=True)
class Comparison:
    """Two images of a product and what came of comparing them."""

    catalogue: Shown
    document: Shown
    found: Compared

    @property
    def pair_id(self) -> str:
        """What names the pair, as in a pair dataset."""
        return pair_id(self.catalogue, self.document)


def pair_id(catalogue: Shown, document: Shown) -> str:
    """What names a pair in a pair dataset."""
    return f"{catalogue.id}-{document.id}"


@dataclass
class Checked:
    """A product and all its comparisons.

    Attributes:
        product: its images.
        compared: those pairs that could be compared.
        failed: number of pairs that could not be compared.
        decisions: ``"accept"`` or ``"reject"`` by pair id, of pairs that somebody has decided on.
    """

    product: Product
    compared: list[Comparison] = field(default_factory=list)
    failed: int = 0
    decisions: Mapping[str, str] = field(default_factory=dict)

    @property
    def best(self) -> Comparison | None:
        """The evidence: an accepted pair before any other, a rejected one only where there is nothing else."""
        return self.best_of(self.compared) if self.compared else None

    def best_of(self, pairs: Sequence[Comparison]) -> Comparison:
        """The best of some of them."""
        return max(pairs, key=lambda one: (self._standing(one), *one.found.rank))

    def matches(self, one: Comparison, threshold: float) -> bool:
        """Whether a pair shows one object: what somebody decided, else by the score."""
        standing = self._standing(one)
        return standing > 0 or (standing == 0 and one.found.matches(threshold))

    def verdict(self, threshold: float) -> str:
        """One of :data:`VERDICTS`."""
        if not self.product.documents:
            return NO_DOCUMENT
        if not self.product.catalogue:
            return NO_CATALOGUE
        best = self.best
        if best is None:
            return NOT_COMPARED
        return MATCHED if self.matches(best, threshold) else UNMATCHED

    def row(self, threshold: float) -> dict[str, Any]:
        """A dict with :data:`COLUMNS`; None stands where there is nothing to say."""
        best, (first, second) = self.best, self.product.sides
        values: dict[str, Any] = dict.fromkeys(COLUMNS)
        if best is not None:
            values |= {
                "score": best.found.score,
                "threshold": threshold,
                "catalogue_file": best.catalogue.filepath,
                "document_file": best.document.filepath,
                "catalogue_id": best.catalogue.id,
                "document_id": best.document.id,
                "decision": self.decisions.get(best.pair_id),
            }
        return values | {
            "product": self.product.name,
            "verdict": self.verdict(threshold),
            "catalogue_images": first,
            "document_images": second,
            "comparisons": len(self.compared),
            "matches": sum(self.matches(one, threshold) for one in self.compared),
            "left_out": first * second - len(self.compared) - self.failed,
            "failed": self.failed,
        }

    def _standing(self, one: Comparison) -> int:
        return {ACCEPT: 1, REJECT: -1}.get(self.decisions.get(one.pair_id, ""), 0)


def product_rows(checked: Sequence[Checked], threshold: float) -> list[dict[str, Any]]:
    """A row per product, those without evidence first, then by rising score."""
    rows = [one.row(threshold) for one in checked]
    return sorted(rows, key=lambda row: (VERDICTS.index(row["verdict"]), row["score"] or 0.0, row["product"]))


def count_verdicts(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Number of products by verdict; verdicts that no product has are left out."""
    found = Counter(row["verdict"] for row in rows)
    return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}


def check_csv(path: str | Path) -> Path:
    """The file to be written, once it is clear that it can be.

    Raises:
        ConfigError: it is a folder, or its folder cannot be made.
    """
    target = Path(path).expanduser().absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"path={str(target)!r} cannot be written ({error}); choose another") from error
    if target.is_dir():
        raise ConfigError(f"path={str(target)!r} is a folder; name a file, e.g. {str(target / 'catalogue.csv')!r}")
    return target


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows of :func:`product_rows`; a file that exists is replaced.

    Raises:
        ConfigError: it cannot be written.
    """
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    try:
        with written_aside(path) as stream:
            stream.write(buffer.getvalue().encode())
    except OSError as error:
        raise ConfigError(f"path={str(path)!r} cannot be written ({error}); choose another") from error
