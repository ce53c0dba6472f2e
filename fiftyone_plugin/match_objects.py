"""Matching the pairs of a pair dataset: masks of what they have in common, scores and verdicts."""

import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo
import fiftyone.core.collections as foc

from ..brain.backbones.device import Precision
from ..brain.cosalient.comparison import PairMatcher
from .engine.local import Progress, check_counts
from .mask_store import MaskStore
from .match_back import write_back_best
from .match_fields import MATCHED, UNMATCHED, Matched, MatchFields, mask_paths, write_matches
from .match_job import Source, compare_files
from .match_setup import MatcherChoice, mask_files, outcome_stamp, pair_provenance, recorded
from .pair_job import store_outcomes
from .pairs import PairRow, check_pairs, flat_pairs, read_pairs, set_pair_values
from .result_keys import check_result_key
from .runs import RunSummary, nothing_to_do
from .steps import plain_function

METHOD = "match_objects"

# A kill loses at most so many pairs.
_COMMIT = 32

# What is read of an earlier run.
_STORED = ("provenance", "score", "verdict", "no_common_region")


def match_objects_steps(
    samples: foc.SampleCollection,
    key: str = "match",
    *,
    matcher: str = "training_free",
    model: str | None = None,
    saliency: str = "auto",
    refine: bool | None = None,
    threshold: float | None = None,
    write_back: bool = True,
    device: str = "auto",
    precision: Precision = "auto",
    num_workers: int = 2,
    overwrite: bool = False,
    skip_failures: bool = True,
) -> Generator[Progress, None, RunSummary]:
    """Says of each pair whether both images show the same object, and where it is in them.

    Written to both slices: ``<key>``, a ``Segmentation`` with the mask of what they have in common (a PNG of the
    image's size); ``<key>_points``, the strongest pairs of points; ``<key>_score``, ``_verdict``,
    ``_no_common_region``, ``_similarity``, ``_consistency``, ``_ffa``, ``_error`` and ``_provenance``. A second run
    compares only pairs that are new or whose files or settings have changed; another threshold compares nothing.

    Args:
        samples: a pair dataset of :func:`create_pairs`, or a view of it.
        key: name of the run and of its fields.
        matcher: ``"training_free"``, ``"training_free_paper"``, or a trained one, by its name or folder.
        model: backbone of the training-free matcher; None takes the best one at hand.
        saliency: what stands out in an image: ``"foreground"``, ``"one_pass"`` or ``"attention"`` for the training-free
            matcher; ``"field:<name>"`` for the masks of a Segmentation of the pairs; ``"auto"`` leaves it to the
            matcher.
        refine: give masks the edges of the picture by GrabCut; None leaves it to the matcher.
        threshold: least score of a match, from 0 to 1; None takes the matcher's.
        write_back: also write ``<key>``, ``<key>_score``, ``_verdict``, ``_no_common_region``, ``_partner`` and
            ``_pairs`` to the original samples: what their best pair says.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the networks: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        num_workers: threads that decode.
        overwrite: compare again what is up to date.
        skip_failures: put the reason of a failure into ``<key>_error`` and go on; False raises at the first.

    Returns:
        What was done; ``counts`` has ``total``, ``done``, ``skipped``, ``failed``, ``matches`` and ``nothing`` (pairs
        without a common region), ``details`` the threshold.

    Raises:
        ConfigError: no pair dataset, or an option cannot work.
        ModelError: a model cannot be loaded.
        ImageError: an image cannot be read, with ``skip_failures=False``.
    """
    started = time.perf_counter()
    check_counts(None, num_workers)
    info = check_pairs(samples)
    fields = MatchFields(key)
    check_result_key(samples, key, METHOD, fields.specs)
    choice = MatcherChoice(matcher, model, saliency, refine, threshold, device, precision)
    rows = read_pairs(samples, [fields.name(short) for short in _STORED])
    if not rows:
        return nothing_to_do(METHOD)
    flat = flat_pairs(samples)
    masks = mask_files(flat, choice.mask_field, [m.id for row in rows for m in (row.source, row.target)])
    yield Progress(0, len(rows), label="Loading the model")
    found = choice.load()
    settings = {**found.settings(), "saliency": saliency}
    pairs = samples._dataset
    fields.declare(pairs, {"method": METHOD, "run": key, **settings})
    summary = RunSummary(key, METHOD, {"total": len(rows), "done": 0, "skipped": 0, "failed": 0})
    summary.notices = choice.notices(found)
    summary.details = {"matcher": found.name, "threshold": found.threshold}
    with recorded(pairs, summary, {**settings, "key": key, "write_back": write_back}, started):
        job = _Matching(pairs, fields, found, masks, summary)
        yield from job.run(rows, num_workers, overwrite, skip_failures)
        job.count(rows)
        if write_back:
            yield Progress(len(rows), len(rows), label="Writing to the original samples")
            summary.notices += write_back_best(pairs, info, fields, {"method": METHOD, "run": key, **settings})
    return summary


match_objects = plain_function(match_objects_steps)


@dataclass
class _Matching:
    """The comparison of the pairs that have no valid outcome."""

    pairs: fo.Dataset
    fields: MatchFields
    matcher: PairMatcher
    masks: Mapping[str, str | None]
    summary: RunSummary

    def run(
        self, rows: Sequence[PairRow], num_workers: int, overwrite: bool, skip_failures: bool
    ) -> Generator[Progress, None, None]:
        """Compares pairs and stores what comes out."""
        stamp, counts = outcome_stamp(METHOD, self.matcher), self.summary.counts
        todo = [(row, pair_provenance(stamp, *self._sources(row))) for row in rows]
        if not overwrite:
            valid = self._valid(todo)
            counts["skipped"] = len(valid)
            self._decide_again(valid.values())
            todo = [(row, provenance) for row, provenance in todo if row.pair_id not in valid]
        store, outcomes = MaskStore(self.pairs, self.fields.key), self._outcomes(todo, num_workers)
        yield from store_outcomes(
            outcomes,
            _COMMIT,
            lambda chunk: write_matches(self.pairs, self.fields, store, chunk),
            self.summary,
            total=len(rows),
            skip_failures=skip_failures,
        )

    def count(self, rows: Sequence[PairRow]) -> None:
        """How many of the pairs match, and how many have nothing in common."""
        verdict, nothing = self.fields.name("verdict"), self.fields.name("no_common_region")
        wanted = {row.pair_id for row in rows}
        now = [row.values for row in read_pairs(self.pairs, [verdict, nothing]) if row.pair_id in wanted]
        self.summary.counts |= {
            "matches": sum(values[verdict] == MATCHED for values in now),
            "nothing": sum(bool(values[nothing]) for values in now),
        }

    def _sources(self, row: PairRow) -> tuple[Source, Source]:
        source, target = (Source(member.filepath, self.masks.get(member.id)) for member in (row.source, row.target))
        return source, target

    def _valid(self, todo: Sequence[tuple[PairRow, str]]) -> dict[str, PairRow]:
        """Pairs whose outcome was made from what there is now, and whose mask files are still there."""
        kept = self.fields.name("provenance")
        same = [row for row, provenance in todo if row.values[kept] == provenance]
        paths = mask_paths(self.pairs, self.fields) if same else {}
        return {
            row.pair_id: row
            for row in same
            if all(Path(paths.get(member.id) or "").is_file() for member in (row.source, row.target))
        }

    def _decide_again(self, rows: Iterable[PairRow]) -> None:
        """Another threshold changes verdicts and nothing else."""
        score, verdict, nothing = (self.fields.name(short) for short in ("score", "verdict", "no_common_region"))
        changed = {}
        for row in rows:
            match = row.values[score] >= self.matcher.threshold and not row.values[nothing]
            if (now := MATCHED if match else UNMATCHED) != row.values[verdict]:
                changed[row.pair_id] = {verdict: now}
        set_pair_values(self.pairs, changed)

    def _outcomes(self, todo: Sequence[tuple[PairRow, str]], num_workers: int) -> Iterator[Matched]:
        files = [self._sources(row) for row, _ in todo]
        for number, outcome in compare_files(files, self.matcher, num_workers=num_workers):
            row, provenance = todo[number]
            yield Matched(row, outcome, None if isinstance(outcome, str) else provenance)
