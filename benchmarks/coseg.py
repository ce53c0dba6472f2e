"""``quality coseg``: which region do two pictures have in common, and do they show the same object?"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..brain.backbones import default_backbone_name, load_backbone
from ..brain.cosalient.comparison import PairMatcher
from ..brain.cosalient.loader import load_pair_matcher
from ..brain.cosalient.names import DEMO
from ..brain.cosalient.registry import DEMO_FOLDER
from ..brain.errors import ConfigError
from ..brain.metrics.decisions import average_precision, best_f1_threshold, decision_figures
from .coseg_data import MATCH, LabelledPair, halves_of, pair_halves, read_pairs, resamples, units_of
from .coseg_methods import (
    FFA,
    FREE,
    GRABCUT,
    ORB,
    Answers,
    always_answers,
    foreground_answers,
    matcher_answers,
    orb_answers,
)
from .manifest import Manifest, load_manifest
from .report import emit, format_markdown, format_table

# What the training-free matcher must beat: figure, part of the set, rival.
REQUIRED = (
    ("iou", "composite", GRABCUT),
    ("iou", "same_instance", GRABCUT),
    ("ap", "same_instance", FFA),
    ("ap", "same_instance", ORB),
)

Figure = Callable[[Answers, np.ndarray], float]


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command and its options."""
    parser = subparsers.add_parser("coseg", help=__doc__, description=__doc__)
    parser.add_argument("--data", required=True, help="folder with a manifest.json of masks and labelled pairs")
    parser.add_argument(
        "--matcher", help=f"name or folder of a trained matcher (default: {DEMO!r}, where there is one)"
    )
    parser.add_argument("--model", help="backbone of all but the trained matcher (default: the best at hand)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples of the objects (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--markdown", action="store_true", help="print tables for a page of the documentation")
    parser.add_argument("--json", help="file to write the rows to")
    parser.set_defaults(func=run)


def run(options: argparse.Namespace) -> None:
    """Measures all methods; prints masks, decisions, differences and what is required."""
    if options.bootstrap < 1:
        raise ConfigError(f"--bootstrap {options.bootstrap} must be at least 1")
    manifest = load_manifest(options.data, require=("mask_path",))
    pairs = read_pairs(manifest)
    study = Study(manifest, pairs, options.bootstrap, options.seed)
    model = options.model or default_backbone_name()
    answers = list(_answers(options, model, manifest, pairs))
    masks = [row for found in answers if found.ious is not None for row in study.mask_rows(found)]
    decisions = [row for found in answers for row in study.decision_rows(found)]
    differences = study.difference_rows({found.name: found for found in answers})
    settings = {name: getattr(options, name) for name in ("matcher", "device", "bootstrap", "seed")}
    tables = {"decisions": decisions, "differences": differences}
    emit(
        masks,
        data=manifest.folder,
        settings={**settings, "model": model, **study.described, **tables},
        json_path=options.json,
        title=f"masks on {manifest.name}: mean IoU of both images of a pair, {model}",
        markdown=options.markdown,
    )
    as_table = format_markdown if options.markdown else format_table
    print(f"\ndecisions: {study.protocol}\n\n{as_table(decisions)}")
    if differences:
        print(f"\nwhat {FREE} must beat, and by how much it does\n\n{as_table(differences)}")


class Study:
    """The pairs of a set, their halves and the resamples that all methods share.

    Args:
        manifest: the set.
        pairs: its pairs.
        rounds: resamples of the objects.
        seed: of the resamples.
    """

    def __init__(self, manifest: Manifest, pairs: Sequence[LabelledPair], rounds: int, seed: int) -> None:
        units = units_of(manifest.items)
        self._parts = np.array([pair.part for pair in pairs])
        self._match = np.array([pair.label == MATCH for pair in pairs])
        self._hard = np.array([pair.hard for pair in pairs])
        self._masked = np.array([pair.has_masks for pair in pairs])
        self._other = ~self._masked
        # Where all pairs match there is nothing to decide.
        self._deciding = np.isin(self._parts, np.unique(self._parts[self._other])) & (self._match | self._other)
        self._halves = self._split(manifest, pairs, units)
        self._weights = list(resamples(pairs, units, rounds, seed))

    @property
    def protocol(self) -> str:
        """How decisions are made and which pairs take part, in a sentence."""
        judged = self._halves >= 0
        counts = [int((judged & kind).sum()) for kind in (self._match, self._other)]
        return (
            "threshold of the best F1 chosen on one half of the objects, answers for the other, both directions pooled"
            f" ({counts[0]} matching and {counts[1]} other pairs; {int((self._deciding & ~judged).sum())} pairs across"
            " the halves count for ap, which needs no threshold, alone); default: at the threshold of the matcher."
            " Intervals: 95 %, bootstrap over objects"
        )

    @property
    def described(self) -> dict[str, Any]:
        """The protocol, for the report."""
        return {"protocol": self.protocol}

    def mask_rows(self, answers: Answers) -> Iterator[dict[str, Any]]:
        """Mean IoU of each part."""
        for part in dict.fromkeys(self._parts[self._masked]):
            value, low, high = self._interval(self._iou(part), answers)
            n = int((self._masked & (self._parts == part)).sum())
            yield {"method": answers.name, "group": str(part), "iou": value, "low": low, "high": high, "pairs": n}

    def decision_rows(self, answers: Answers) -> Iterator[dict[str, Any]]:
        """Figures at the threshold chosen on the other half, and at that of the method where it has one."""
        if not (self._halves >= 0).any():
            return
        ap, ap_low, ap_high = self._interval(self._ap, answers)
        shares: dict[str, Any] = {f"{name}_{kind}": None for name in ("rejected", "empty") for kind in ("hard", "easy")}
        for scope, decided in self._decided(answers):
            f1, low, high = self._interval(self._f1(decided), answers)
            judged = self._halves >= 0
            figures = decision_figures(decided[judged], self._match[judged])
            row = {"method": answers.name, "scope": scope, "precision": figures.precision, "recall": figures.recall}
            row |= {"f1": f1, "f1_low": low, "f1_high": high, "ap": ap, "ap_low": ap_low, "ap_high": ap_high}
            yield {**row, **shares, **dict(self._shares(answers, decided))}

    def difference_rows(self, answers: Mapping[str, Answers]) -> list[dict[str, Any]]:
        """The training-free matcher beside each method that it must beat; figures that cannot be had are left out."""
        rows = []
        for figure, part, rival in REQUIRED:
            measure = self._ap if figure == "ap" else self._iou(part)
            if part not in self._parts or (figure == "ap" and not (self._halves >= 0).any()):
                continue
            own, other = (measure(answers[name], np.ones(len(self._parts), int)) for name in (FREE, rival))
            low, high = self._difference_interval(measure, answers[FREE], answers[rival])
            row = {"required": f"{figure} above {rival}", "group": part, FREE: own, "rival": other}
            rows.append({**row, "more": own - other, "low": low, "high": high, "verdict": _verdict(own, other)})
        return rows

    def _split(self, manifest: Manifest, pairs: Sequence[LabelledPair], units: Sequence[str]) -> np.ndarray:
        """Half of each pair that takes part in decisions; -1 for all others."""
        rows = sorted(
            {row for pair, used in zip(pairs, self._deciding, strict=True) if used for row in (pair.a, pair.b)}
        )
        halves = halves_of([manifest.items[row] for row in rows], [units[row] for row in rows])
        found = pair_halves(pairs, units, {**dict.fromkeys(units, -1), **halves})
        found[~self._deciding] = -1
        if rows and not all((self._match & (found == half)).any() for half in (0, 1)):
            raise ConfigError(
                f"{manifest.folder}: all matching pairs lie in one half of the objects, which are split by category;"
                " a threshold cannot be chosen on the other"
            )
        return found

    def _decided(self, answers: Answers) -> Iterator[tuple[str, np.ndarray]]:
        decided = np.zeros(len(self._halves), bool)
        for half in (0, 1):
            chosen_on = self._halves == 1 - half
            threshold = best_f1_threshold(answers.scores[chosen_on], self._match[chosen_on])
            decided |= (self._halves == half) & (answers.scores >= threshold)
        yield "chosen", decided
        if answers.threshold is not None:
            yield "default", (self._halves >= 0) & (answers.scores >= answers.threshold)

    def _shares(self, answers: Answers, decided: np.ndarray) -> Iterator[tuple[str, float]]:
        """Of hard and easy pairs of different objects: share that was rejected, and share with an empty mask."""
        for kind, chosen in (("hard", self._hard), ("easy", ~self._hard)):
            judged = self._other & chosen & (self._halves >= 0)
            if judged.any():
                yield f"rejected_{kind}", float(1 - decided[judged].mean())
            everywhere = self._other & chosen
            if answers.empty is not None and everywhere.any():
                yield f"empty_{kind}", float(answers.empty[everywhere].mean())

    def _iou(self, part: str) -> Figure:
        members = self._masked & (self._parts == part)

        def mean(answers: Answers, weights: np.ndarray) -> float:
            assert answers.ious is not None
            total = weights[members].sum()
            return float(answers.ious[members] @ weights[members] / total) if total else float("nan")

        return mean

    def _ap(self, answers: Answers, weights: np.ndarray) -> float:
        repeated = np.repeat(np.flatnonzero(self._deciding), weights[self._deciding])
        return average_precision(answers.scores[repeated], self._match[repeated])

    def _f1(self, decided: np.ndarray) -> Figure:
        judged = np.flatnonzero(self._halves >= 0)

        def f1(answers: Answers, weights: np.ndarray) -> float:
            repeated = np.repeat(judged, weights[judged])
            return decision_figures(decided[repeated], self._match[repeated]).f1

        return f1

    def _interval(self, figure: Figure, answers: Answers) -> tuple[float, float, float]:
        values = [figure(answers, weights) for weights in self._weights]
        return (figure(answers, np.ones(len(self._parts), int)), *_central(values))

    def _difference_interval(self, figure: Figure, own: Answers, other: Answers) -> tuple[float, float]:
        return _central([figure(own, weights) - figure(other, weights) for weights in self._weights])


def _central(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 % of those values that are there: a resample may lack a part, or all matches."""
    finite = np.array(values)[np.isfinite(values)]
    if not len(finite):
        return float("nan"), float("nan")
    low, high = np.percentile(finite, (2.5, 97.5))
    return float(low), float(high)


def _verdict(own: float, other: float) -> str:
    return "pass" if own > other else "FAIL"


def _answers(
    options: argparse.Namespace, model: str, manifest: Manifest, pairs: Sequence[LabelledPair]
) -> Iterator[Answers]:
    """Method by method, since only one model is in memory at a time."""
    items = manifest.items

    def free(refine: bool) -> PairMatcher:
        return load_pair_matcher(FREE, model=model, refine=refine, device=options.device)

    def trained(refine: bool) -> PairMatcher:
        return load_pair_matcher(options.matcher or DEMO, refine=refine, device=options.device)

    yield matcher_answers(FREE, free, items, pairs)
    if options.matcher or DEMO_FOLDER.is_dir():
        yield matcher_answers("trained", trained, items, pairs)
    else:
        print("no trained row: this copy of the package has no demo matcher; give one with --matcher")
    print("methods that look at one image at a time ...", file=sys.stderr, flush=True)
    yield from foreground_answers(items, pairs, load_backbone(model, device=options.device))
    yield orb_answers(items, pairs)
    yield always_answers(pairs)
