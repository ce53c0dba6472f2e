"""The end of a catalogue check: everything is written, and the summary says what came out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .catalogue_evidence import Evidence
from .catalogue_fields import CatalogueFields, write_products
from .catalogue_results import Checked, count_verdicts, product_rows, write_csv
from .catalogue_sides import Sides
from .forms import counted
from .match_fields import MATCHED
from .match_objects import METHOD as MATCH_METHOD
from .runs import RunSummary, register_run

# So many products are in the summary; all are in the CSV file.
_ROWS_SHOWN = 50


def report_check(
    summary: RunSummary, checked: Sequence[Checked], sides: Sides, evidence: Evidence, csv_path: Path
) -> None:
    """Writes all that a user sees: the samples, the views, the evidence and the CSV file.

    Args:
        summary: gets counts, details and notices.
        checked: all products.
        sides: where the samples are.
        evidence: has the best pairs.
        csv_path: the file to write.

    Raises:
        ConfigError: the file cannot be written.
    """
    matcher, fields = evidence.matcher, CatalogueFields(evidence.fields.key)
    rows = product_rows(checked, matcher.threshold)
    verdicts = count_verdicts(rows)
    best = [one.best.pair_id for one in checked if one.best is not None]
    evidence.keep({row["product"]: row["verdict"] for row in rows}, best)
    images = write_products(
        sides, fields, checked, matcher.threshold, evidence.masks(), summary.failed, evidence.settings
    )
    write_csv(csv_path, rows)
    matched = verdicts.get(MATCHED, 0)
    without = len(rows) - matched
    summary.counts = {"products": len(rows), "matched": matched, "without_evidence": without, **summary.counts}
    summary.details = {
        "matcher": matcher.name,
        "threshold": matcher.threshold,
        "products": len(rows),
        "verdicts": verdicts,
        "table": [_short(row) for row in rows[:_ROWS_SHOWN]],
        "dataset": evidence.name if best else None,
        "view": fields.view,
        "path": str(csv_path),
    }
    if best:
        _record_evidence(evidence, len(best), matched)
        summary.notices.append(
            f"The best pair of each of {counted(len(best), 'product')} is in dataset {evidence.name!r}, with masks"
        )
    if without:
        summary.notices.append(_without(verdicts, without, fields.view, images))
    summary.notices.append(f"All products are listed in {csv_path}")


def left_out(checked: Sequence[Checked], nameless: int, neither: int, product: str) -> list[str]:
    """Sentences on images and pairs that were not looked at."""
    sentences = []
    rows = [(one.product.sides, len(one.compared) + one.failed) for one in checked]
    left = [first * second - planned for (first, second), planned in rows]
    if more := sum(left):
        sentences.append(
            f"{counted(more, 'comparison')} of {counted(sum(n > 0 for n in left), 'product')} left out; raise"
            " max_per_product or max_pairs for more"
        )
    if nameless:
        sentences.append(f"{counted(nameless, 'image')} without a value in {product!r} left out")
    if neither:
        sentences.append(f"{counted(neither, 'image')} left out, neither catalogue nor document")
    return sentences


def _without(verdicts: Mapping[str, int], without: int, view: str, images: int) -> str:
    what = ", ".join(f"{number:,} {verdict}" for verdict, number in verdicts.items() if verdict != MATCHED)
    return (
        f"{counted(without, 'product')} without evidence ({what}): the saved view {view!r} shows"
        f" {counted(images, 'image')} of them"
    )


def _short(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table for a summary, which is read by people."""
    score, files = row["score"], ("catalogue_file", "document_file")
    names = {name: None if row[name] is None else os.path.basename(row[name]) for name in files}
    kept = {name: row[name] for name in ("product", "verdict", "comparisons")}
    return kept | {"score": None if score is None else round(score, 3)} | names


def _record_evidence(evidence: Evidence, pairs: int, matches: int) -> None:
    """The record of match_objects on the evidence, as which its fields stand there."""
    assert evidence.dataset is not None
    counts = {"total": pairs, "done": pairs, "skipped": 0, "failed": 0, "matches": matches}
    details = {"matcher": evidence.matcher.name, "threshold": evidence.matcher.threshold}
    summary = RunSummary(evidence.fields.key, MATCH_METHOD, counts, details=details)
    register_run(evidence.dataset, summary, {**evidence.settings, "key": evidence.fields.key, "write_back": False})
