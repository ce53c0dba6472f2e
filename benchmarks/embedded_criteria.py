"""What the embedded models have to beat to be worth their place, read off the rows of ``quality embedded``."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The sets, and the methods and columns that the criteria speak of.
WILD, LIGHTING, PCK = "wild", "lighting", "pck"
FFA_ONE_PASS, FFA_GRABCUT, FULL_AVERAGE = "ffa (one_pass)", "ffa (grabcut)", "full_average"

Row = Mapping[str, Any]


def column(name: str, figure: str, grey: bool = False) -> str:
    """Name of the column that holds a figure of a set, in colour or without."""
    return f"{name}_grey_{figure}" if grey else f"{name}_{figure}"


@dataclass(frozen=True)
class Criterion:
    """One verdict.

    Attributes:
        subject: what is judged.
        claim: what it should do.
        failures: rivals that it does not beat, with the figures; empty if the claim holds.
    """

    subject: str
    claim: str
    failures: tuple[str, ...]

    def line(self) -> str:
        """The verdict in one line."""
        verdict = f"no: {'; '.join(self.failures)}" if self.failures else "yes"
        return f"{self.subject} {self.claim}: {verdict}"


def criteria(rows: Sequence[Row], untrained: Mapping[str, Collection[str]]) -> list[Criterion]:
    """The verdicts on the trained models; those whose data were not measured are left out.

    Args:
        rows: as :func:`.embedded.identity_rows` and :func:`.embedded.with_keypoints` give them.
        untrained: name of each model to be judged → names of the models that count as its floors, beside all methods
            that have no model.
    """
    return [
        criterion
        for model, rivals in untrained.items()
        for criterion in _of_model(model, rows, {None, *rivals} - {model})
    ]


def _of_model(model: str, rows: Sequence[Row], rivals: Collection[str | None]) -> Iterator[Criterion]:
    floors = [row for row in rows if row["model"] in rivals]
    own = {row["method"]: row for row in rows if row["model"] == model}
    histograms = [row for row in floors if row["method"] in ("histogram", "histogram_foreground")]
    for method in (FFA_ONE_PASS, FFA_GRABCUT):
        for claim, beaten, columns in (
            ("beats every floor in the wild", floors, _both(WILD)),
            ("beats both histograms under other lights", histograms, _both(LIGHTING)),
            ("beats every floor in the wild without colour", floors, _both(WILD, grey=True)),
            ("beats the full average of its own tokens in the wild", [own[FULL_AVERAGE]], _both(WILD)),
        ):
            yield from _verdict(f"{model} {method}", claim, own[method], beaten, columns)
    claim = "beats untrained tokens and raw colour on keypoints"
    yield from _verdict(model, claim, own[FFA_ONE_PASS], [row for row in floors if PCK in row], (PCK,))


def _both(name: str, grey: bool = False) -> tuple[str, ...]:
    return column(name, "top1", grey), column(name, "map", grey)


def _verdict(subject: str, claim: str, row: Row, rivals: Sequence[Row], columns: Sequence[str]) -> Iterator[Criterion]:
    """One criterion, or none where its figures were not measured: all columns must be above all rivals' ones."""
    if any(name not in row for name in columns):
        return
    failures = [
        f"{rival['model'] or ''} {rival['method']} {name} {rival[name]:.3f} against {row[name]:.3f}".strip()
        for rival in rivals
        for name in columns
        if name in rival and not row[name] > rival[name]
    ]
    yield Criterion(subject, claim, tuple(failures))
