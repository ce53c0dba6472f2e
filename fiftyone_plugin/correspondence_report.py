"""What an evaluation of correspondences found: as JSON for the panel, as CSV and as Markdown.

Every figure stands beside the words that say which one it is: a PCK without its flavour means nothing.
"""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..brain.errors import ConfigError
from ..brain.metrics.kap import KapResult
from ..brain.metrics.keypoint_errors import ERROR_TYPES
from ..brain.metrics.pck import PckResult, pose_sensitivity
from .own_files import written_aside

COLUMNS = (
    "metric",
    "category",
    "geometry_aware",
    "azimuth_difference",
    "error_type",
    "value",
    "count",
    "n_points",
    "n_pairs",
)

_UNKNOWN = "–"


@dataclass(frozen=True)
class Evaluation:
    """All figures of an evaluation.

    Attributes:
        pck: of all pairs, of each category and of each azimuth difference, in every flavour.
        kap: None where the run kept no detections.
        errors: rows of :func:`.keypoint_error_table.error_table`, of everything and split.
        inversions: rows of :func:`.keypoint_error_table.inversion_table`.
    """

    pck: Sequence[PckResult]
    kap: KapResult | None
    errors: Sequence[Mapping[str, Any]]
    inversions: Sequence[Mapping[str, Any]]

    @property
    def whole(self) -> list[PckResult]:
        """The PCK of all pairs, by flavour."""
        return [one for one in self.pck if one.category is None and one.azimuth_difference is None]

    def sensitivities(self) -> list[dict[str, Any]]:
        """Of each flavour, how much worse the worst azimuth difference is than the best."""
        rows = []
        for whole in self.whole:
            turns = [one for one in self.pck if one.flavour == whole.flavour and one.azimuth_difference is not None]
            value = pose_sensitivity([one.value for one in turns])
            if math.isfinite(value):
                rows.append(
                    {"metric": f"pose sensitivity, (max - min) / max, of {whole.flavour.label}", "value": value}
                )
        return rows

    def details(self) -> dict[str, Any]:
        """JSON-able: ``pck``, ``kap``, ``kap_per_category``, ``errors``, ``inversions`` and ``pose_sensitivity``, rows
        each; None stands for what is not known."""
        per_category = {} if self.kap is None else self.kap.per_category
        tables = {
            "pck": [one.as_row() for one in self.pck],
            "kap": [] if self.kap is None else [self.kap.as_row()],
            "kap_per_category": [
                {"metric": _kap_label(self.kap), "category": category, "value": value}
                for category, value in per_category.items()
            ],
            "errors": self.errors,
            "inversions": self.inversions,
            "pose_sensitivity": self.sensitivities(),
        }
        return {name: [_plain(row) for row in rows] for name, rows in tables.items()}


def report_paths(path: str | Path) -> tuple[Path, Path]:
    """The CSV and the Markdown file to be written, once it is clear that they can be.

    Args:
        path: with any ending or none; both files are named after it.

    Raises:
        ConfigError: it is a folder, or its folder cannot be made.
    """
    given = Path(path).expanduser().absolute()
    stem = given.with_suffix("") if given.suffix.lower() in (".csv", ".md") else given
    if given.is_dir():
        raise ConfigError(f"path={str(given)!r} is a folder; name a file, e.g. {str(given / 'report.csv')!r}")
    try:
        given.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"path={str(given)!r} cannot be written ({error}); choose another") from error
    targets = Path(f"{stem}.csv"), Path(f"{stem}.md")
    if folder := next((target for target in targets if target.is_dir()), None):
        raise ConfigError(f"path={str(given)!r}: {str(folder)!r} is a folder; choose another name")
    return targets


def write_report(paths: tuple[Path, Path], key: str, found: Evaluation, facts: Sequence[str]) -> None:
    """Writes both files; those that exist are replaced.

    Args:
        paths: of :func:`report_paths`.
        key: of the run that was evaluated.
        found: the figures.
        facts: sentences on what was evaluated and what was left out.

    Raises:
        ConfigError: they cannot be written.
    """
    for path, text in zip(paths, (as_csv(found), as_markdown(key, found, facts)), strict=True):
        try:
            with written_aside(path) as stream:
                stream.write(text.encode())
        except OSError as error:
            raise ConfigError(f"path={str(path)!r} cannot be written ({error}); choose another") from error


def as_csv(found: Evaluation) -> str:
    """All figures, one a line, with :data:`COLUMNS`."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS)
    writer.writeheader()
    for row in _rows(found):
        writer.writerow({name: row.get(name) for name in COLUMNS})
    return buffer.getvalue()


def as_markdown(key: str, found: Evaluation, facts: Sequence[str]) -> str:
    """A report for readers: PCK by category and azimuth difference, KAP, and the types of errors."""
    parts = [f"# Correspondences `{key}`", "\n".join(f"- {_cell(fact)}" for fact in facts)]
    parts += ["## PCK", "Percent of the keypoints; each column says which PCK it is.", _pck_table(found)]
    if rows := found.sensitivities():
        parts.append(_table(("pose sensitivity", "value"), [(row["metric"], f"{row['value']:.3f}") for row in rows]))
    parts.append("## KAP")
    parts.append("The run kept no detections to tell it from." if found.kap is None else _kap_table(found.kap))
    parts.append("## Types of errors")
    for metric in dict.fromkeys(row["metric"] for row in found.errors):
        parts += [f"Percent of the keypoints of each row; {metric}.", _error_table(found.errors, metric)]
    if found.inversions:
        heads = ("metric", "category", "pairs that can be judged", "inverted", "percent")
        rows = [
            (row["metric"], row["category"], row["n_pairs"], row["n_inverted"], _percent(row["share_inverted"]))
            for row in found.inversions
        ]
        parts += ["## Inverted pairs", _table(heads, rows)]
    return "\n\n".join(parts) + "\n"


def _rows(found: Evaluation) -> Iterable[Mapping[str, Any]]:
    """All figures in the columns of the CSV file."""
    for one in found.pck:
        yield {**one.as_row(), "value": _number(one.value), "n_pairs": one.n_images}
    for row in found.sensitivities():
        yield row
    if found.kap is not None:
        yield {"metric": found.kap.label, "value": _number(found.kap.value), "count": found.kap.n_samples}
        for category, value in found.kap.per_category.items():
            yield {"metric": found.kap.label, "category": category, "value": _number(value)}
    for row in found.errors:
        for kind in ERROR_TYPES:
            yield {**row, "error_type": kind, "value": row[f"share_{kind}"], "count": row[kind], "n_points": row["n"]}
    for row in found.inversions:
        yield {**row, "value": row["share_inverted"], "count": row["n_inverted"]}


def _pck_table(found: Evaluation) -> str:
    values: dict[tuple[str, str], dict[str, PckResult]] = {}
    for one in found.pck:
        values.setdefault(_part(one), {})[one.flavour.label] = one
    labels = [one.flavour.label for one in found.whole]
    rows = [(*part, *(_percent(own[label].value) for label in labels)) for part, own in values.items()]
    return _table(("category", "azimuth difference", *labels), rows)


def _part(one: PckResult) -> tuple[str, str]:
    turn = "all" if one.azimuth_difference is None else str(one.azimuth_difference)
    return one.category or "all", turn


def _kap_table(found: KapResult) -> str:
    rows = [("mean of the categories", _percent(found.value))]
    rows += [(category or _UNKNOWN, _percent(value)) for category, value in found.per_category.items()]
    return _table(("category", found.label), rows)


def _error_table(errors: Sequence[Mapping[str, Any]], metric: str) -> str:
    heads = ("category", "geometry-aware", "azimuth difference", "keypoints", *ERROR_TYPES)
    rows = []
    for row in errors:
        if row["metric"] == metric:
            parts = [_split(row, name) for name in ("category", "geometry_aware", "azimuth_difference")]
            rows.append((*parts, row["n"], *(_percent(row[f"share_{kind}"]) for kind in ERROR_TYPES)))
    return _table(heads, rows)


def _split(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        return "all"
    value = row[name]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _UNKNOWN if value in (None, "") else str(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Text that stays within its cell."""
    return " ".join(str(value).split()).replace("|", "\\|")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else _UNKNOWN


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _kap_label(found: KapResult | None) -> str:
    return "" if found is None else found.label


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in row.items()}
