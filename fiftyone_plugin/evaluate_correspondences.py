"""How good stored correspondences are: PCK by flavour, KAP, and the types of errors. Nothing is matched again."""

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import fiftyone.core.collections as foc

from ..brain.errors import ConfigError
from ..brain.metrics.kap import KapResult
from ..brain.metrics.keypoint_error_table import SPLITS, error_table, inversion_table
from ..brain.metrics.keypoint_errors import ErrorFlavour, KeypointErrors, judge_pair
from ..brain.metrics.pck import EvaluatedPair, PckFlavour, ThresholdKind, pck_table
from .correspondence_report import Evaluation, report_paths, write_report
from .engine.local import Progress
from .forms import counted
from .match_setup import recorded
from .own_files import dataset_folder
from .pair_parts import pair_azimuths, pair_categories
from .runs import RunSummary, check_run_key, nothing_to_do
from .steps import plain_function
from .stored_kap import LABELS, SCORES, stored_kap
from .stored_matches import LeftOut, StoredMatches

METHOD = "evaluate_correspondences"

# Pairs between two reports of progress.
_STEP = 50


def evaluate_correspondences_steps(
    samples: foc.SampleCollection,
    key: str = "correspondence",
    run_key: str | None = None,
    *,
    alphas: Sequence[float] | None = None,
    threshold: ThresholdKind | None = None,
    category: str | None = None,
    azimuth: str | None = None,
    azimuth_difference: str | None = None,
    path: str | os.PathLike | None = None,
) -> Generator[Progress, None, RunSummary]:
    """Judges the stored matches of a run of :func:`compute_correspondences` by the keypoints that are annotated.

    PCK per image and per point, of all and of the geometry-aware points, and PCK† of all points: of all pairs, of each
    category and of each difference of viewpoints; KAP where the run kept what it takes; how often each type of error
    occurs, split by category, geometry-aware points and difference of viewpoints. Every figure says which one it is.
    Nothing is matched again: pairs whose files, keypoints or masks have changed since are left out, and counted.

    Args:
        samples: a pair dataset, or a view of it, whose pairs are judged.
        key: key of the run.
        run_key: under which the figures are stored; None is ``<key>_eval``.
        alphas: shares of the box, or of the image, within which a keypoint is correct; None takes that of the run.
        threshold: ``"box"`` or ``"image"``: what they are shares of; None does as the run did.
        category: field of the pairs, or of the originals and copied to them, with the category; None takes the labels
            of the keypoints.
        azimuth: field with the viewpoint of each image, copied from the originals: whole numbers from 0 to 7 are
            eighths of a turn, all others degrees.
        azimuth_difference: field of the pairs with the difference of their viewpoints in eighths of a turn; None takes
            ``azimuth_difference`` where there is one and ``azimuth`` is not given.
        path: names the report, a CSV and a Markdown file, which are replaced where they exist; None is a place of this
            dataset's own.

    Returns:
        What was done; ``counts`` has the pairs in ``total``, ``done``, ``stale``, ``unjudged`` and ``failed``;
        ``details`` the tables ``pck``, ``kap``, ``kap_per_category``, ``errors``, ``inversions`` and
        ``pose_sensitivity``, and the paths of the ``csv`` and ``markdown`` files.

    Raises:
        ConfigError: no such run or field, no keypoints to judge by, a name that is taken, or an option that cannot
            work.
    """
    started = time.perf_counter()
    stored = StoredMatches(samples, key, [f"{key}_{short}" for short in (LABELS, SCORES)])
    run_key = f"{key}_eval" if run_key is None else run_key
    check_run_key(samples, run_key, METHOD)
    flavours = _error_flavours(stored, alphas, threshold)
    categories = None if category is None else pair_categories(samples, stored.rows, category)
    azimuths = pair_azimuths(samples, stored.rows, azimuth, azimuth_difference)
    paths = report_paths(dataset_folder(samples, "exports") / run_key if path is None else path)
    if not stored.rows:
        return nothing_to_do(METHOD)
    total = len(stored.rows)
    summary = RunSummary(run_key, METHOD, {"total": total, "done": 0})
    config = {"key": run_key, "run": key, "alphas": [one.alpha for one in flavours]}
    config |= {"threshold": flavours[0].threshold, "category": category, "azimuth": azimuth}
    config |= {"azimuth_difference": azimuth_difference}
    with recorded(samples, summary, config, started):
        judged, left_out = _Judged(flavours), LeftOut()
        for number, pair in enumerate(stored.judge(flavours[0].threshold, left_out, categories, azimuths)):
            if pair is not None:
                judged.add(pair.evaluated, pair.partners, pair.mask, pair.row.values)
            if number % _STEP == 0:
                yield Progress(number, total, len(left_out.failed), label="Judging pairs")
        summary.failed = dict(left_out.failed)
        summary.counts |= {"done": len(judged.pairs), "stale": left_out.stale, "unjudged": left_out.unjudged}
        kap, reason = _kap(stored, judged, key, flavours)
        found = judged.evaluation(kap)
        facts = _facts(summary.counts, len(summary.failed), key)
        write_report(paths, key, found, facts)
        summary.details = {"run": key, **found.details(), "csv": str(paths[0]), "markdown": str(paths[1])}
        summary.notices = [*(str(one) for one in found.whole if one.n_points), *facts[1:], *reason]
        summary.notices.append(f"All figures are in {paths[0]} and {paths[1]}")
        yield Progress(total, total, len(left_out.failed), label="Done")
    return summary


evaluate_correspondences = plain_function(evaluate_correspondences_steps)


@dataclass
class _Judged:
    """The pairs that could be judged, and the verdicts on them at each threshold."""

    flavours: Sequence[ErrorFlavour]
    pairs: list[EvaluatedPair] = field(default_factory=list)
    values: list[Mapping[str, Any]] = field(default_factory=list)
    errors: list[list[KeypointErrors]] = field(default_factory=list)

    def add(self, pair: EvaluatedPair, partners: Any, mask: Any, values: Mapping[str, Any]) -> None:
        """Takes in a pair; its mask is not kept."""
        self.pairs.append(pair)
        self.values.append(values)
        self.errors.append([judge_pair(pair, partners, flavour, mask=mask) for flavour in self.flavours])

    def evaluation(self, kap: KapResult | None) -> Evaluation:
        """All figures."""
        by_flavour = [[own[number] for own in self.errors] for number in range(len(self.flavours))]
        errors = [row for one in by_flavour for by in ((), SPLITS) for row in error_table(one, by)]
        inversions = [row for one in by_flavour for row in inversion_table(one)]
        return Evaluation(pck_table(self.pairs, list(_pck_flavours(self.flavours))), kap, errors, inversions)


def _error_flavours(
    stored: StoredMatches, alphas: Sequence[float] | None, threshold: ThresholdKind | None
) -> list[ErrorFlavour]:
    """The thresholds that are asked for, those of the run where nothing is said.

    Raises:
        ConfigError: they cannot be.
    """
    own = stored.options.error_flavour
    given = [own.alpha] if alphas is None else alphas
    if isinstance(given, str) or not isinstance(given, Sequence) or not given:
        raise ConfigError(f"alphas={alphas!r} must be a list of shares, such as [0.1, 0.05]")
    wrong = [one for one in given if isinstance(one, bool) or not isinstance(one, int | float) or not 0 < one <= 1]
    if wrong:
        raise ConfigError(f"alphas: {wrong[0]!r} must be a number above 0 and at most 1")
    kind = own.threshold if threshold is None else threshold
    if kind == "box" and stored.options.foreground_field is None:
        raise ConfigError(
            "threshold='box': the run knew no objects; run compute_correspondences with foreground='field:<name>'"
        )
    return [ErrorFlavour(float(alpha), kind) for alpha in dict.fromkeys(given)]


def _pck_flavours(flavours: Sequence[ErrorFlavour]) -> Iterator[PckFlavour]:
    for one in flavours:
        for points in ("all", "geometry_aware"):
            for average in ("image", "point"):
                yield PckFlavour(one.alpha, average, one.threshold, points)  # type: ignore[arg-type]
        for average in ("image", "point"):
            yield PckFlavour(one.alpha, average, one.threshold, exclusive=True)  # type: ignore[arg-type]


def _kap(
    stored: StoredMatches, judged: _Judged, key: str, flavours: Sequence[ErrorFlavour]
) -> tuple[KapResult | None, list[str]]:
    """KAP at the threshold of the run, the only one that its detections are for, and else why there is none."""
    own = stored.options.error_flavour
    if own.threshold != "box" or own not in flavours:
        return None, [f"No KAP: it takes {key!r} to be of this threshold, and that to be a share of the box"]
    found = stored_kap(key, judged.values, [pair.category for pair in judged.pairs], own.alpha)
    return found, [str(found)] if found else [f"No KAP: the run {key!r} kept no detections to tell it from"]


def _facts(counts: Mapping[str, int], failed: int, key: str) -> list[str]:
    facts = [f"{counts['done']:,} of {counts['total']:,} pairs judged"]
    if stale := counts["stale"]:
        facts.append(
            f"{counted(stale, 'pair')} left out: files or labels have changed since they were matched; run"
            f" compute_correspondences with key={key!r} again"
        )
    if unjudged := counts["unjudged"]:
        facts.append(f"{counted(unjudged, 'pair')} left out: no keypoints, or no box, in the target")
    if failed:
        facts.append(f"{counted(failed, 'pair')} left out: not matched, or unreadable")
    return facts
