"""Correspondences of the pairs of a pair dataset: keypoints found again, judged, and scored without annotations."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.backbones.device import Precision
from ..brain.correspondence.alignment import Visibility
from ..brain.correspondence.features import FeatureExtractor
from ..brain.errors import ConfigError
from .correspondence_back import write_back_summaries
from .correspondence_fields import METHOD, CorrespondenceFields, MatchedPair, write_correspondences
from .correspondence_job import DescribedShelf, PairTask, Picture, match_tasks
from .correspondence_labels import PairLabels, SampleLabels
from .correspondence_setup import CorrespondenceOptions
from .correspondence_table import rank_points, read_points, summed_up, write_ranks, write_table
from .engine.local import Progress, check_counts
from .match_setup import recorded
from .pair_job import store_outcomes
from .pairs import PairRow, check_pairs, read_pairs
from .provenance import config_hash
from .result_keys import check_result_key
from .runs import RunSummary, load_record, nothing_to_do
from .steps import plain_function
from .stored_matches import match_provenance

# A kill loses at most so many pairs; fewer where each takes minutes.
_COMMIT = 32
_SLOW_COMMIT = 4


def compute_correspondences_steps(
    samples: foc.SampleCollection,
    key: str = "correspondence",
    *,
    keypoints: str | None = None,
    couples: Sequence[Sequence[str]] | str | None = None,
    foreground: str = "none",
    model: str | None = None,
    size: int | None = None,
    decoding: str = "window",
    alignment: str = "off",
    visibility: Visibility = "source",
    label_free: bool = True,
    count: int = 20,
    alpha: float = 0.1,
    write_back: bool = True,
    device: str = "auto",
    precision: Precision = "auto",
    num_workers: int = 2,
    cache_tokens: bool = False,
    overwrite: bool = False,
    skip_failures: bool = True,
    diffusion: str | None = None,
) -> Generator[Progress, None, RunSummary]:
    """Finds the keypoints of the source of each pair again in its target.

    Written to both slices: ``<key>``, a ``Keypoints`` with one label per match, of the same instance on both sides,
    with its similarity as ``confidence`` and the attributes ``error_type`` and ``distance`` (where the target's
    keypoints are annotated), ``mutual``, ``handed_over`` and the label-free scores; ``<key>_matches``, ``_score``,
    ``_consistency``, ``_category``, ``_view``, ``_distance``, ``_swaps``, ``_worst``, ``_worst_type``, ``_inverted``,
    a PCK in a field that names its flavour (``<key>_pck_0p1_per_image_box``), the pair's label-free scores,
    ``_error`` and ``_provenance``. All matches with all scores are one table, see :func:`load_correspondences`. A
    second run matches only pairs that are new, or whose files, labels or settings have changed.

    Args:
        samples: a pair dataset of :func:`create_pairs`, or a view of it.
        key: name of the run and of its fields.
        keypoints: field with the keypoints of both slices, ``Keypoints`` or one ``Keypoint``, named by the skeleton of
            the pair dataset or of the original one; None finds well-spread matches without keypoints.
        couples: mirror partners, as pairs of names or as text (``left ear = right ear; left eye = right eye``); None
            reads them from the names.
        foreground: what the object is: ``"none"``, or ``"field:<name>"`` for the masks or boxes of a Segmentation or
            Detections field of the pairs. With it thresholds are shares of the object's box, without of the image.
        model: backbone; None takes the best one at hand.
        size: side of the square canvas in pixels; None takes the multiple of the patch nearest to 840.
        decoding: how a place is read from similarities: ``"nearest"`` cell, ``"soft"``-argmax over all cells, or within
            a ``"window"`` of 11 × 11, ``"gaussian"`` kernel, or ``"mutual"``: the nearest cell, and matches whose way
            back ends elsewhere are dropped (and count as wrong in a PCK).
        alignment: turn the source to face as the target does: ``"off"``, ``"mirror"``, or ``"all"`` for quarter turns
            as well.
        visibility: keypoints change over to a mirrored source where both of a couple are visible in the ``"source"``,
            or in both images (``"mutual"``, which peeks at the answer, as published evaluations do).
        label_free: also compute the scores that need no annotations; takes the mirrored targets as well.
        count: matches of a pair without keypoints, at most.
        alpha: share of the box, or of the image, within which a keypoint is correct.
        write_back: also write ``<key>_worst``, ``_worst_type``, ``_swaps``, ``_suspicion``, ``_partner`` and ``_pairs``
            to the original samples: what all their pairs say.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the networks: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        num_workers: threads that decode.
        cache_tokens: keep the encoder's tokens on disk, so that other settings need no encoder; 5 MB per image at 840.
        overwrite: match again what is up to date.
        skip_failures: put the reason of a failure into ``<key>_error`` and go on; False raises at the first.
        diffusion: a model of Stable Diffusion 1.5 whose features join those of the backbone with equal say, projected
            onto the principal components of each pair: a name on the Hugging Face Hub
            (``"stable-diffusion-v1-5/stable-diffusion-v1-5"``), in ``$SELFSAME_MODELS_DIR``, or a folder in the format
            of ``diffusers``; None does without. Takes the extra ``diffusion``, and a GPU unless there are few images.
            Its features are always kept on disk, as with ``cache_tokens``, 13 MB per view of an image; so each view
            passes through it once, as long as they fit into the 10 GB that are kept. As all views of a pair share their
            components, ``alignment`` and ``label_free`` change similarities a little.

    Returns:
        What was done; ``counts`` has ``total``, ``done``, ``skipped``, ``failed`` and ``matches``, ``details`` the
        ``table``, the number of each error type (``errors``) and the ``pck`` by flavour, each of all pairs of the key.

    Raises:
        ConfigError: no pair dataset, an option cannot work, or the extra that ``diffusion`` takes is not installed.
        ModelError: a model cannot be loaded.
        ImageError: a pair cannot be matched, with ``skip_failures=False``.
    """
    started = time.perf_counter()
    check_counts(None, num_workers)
    info = check_pairs(samples)
    options = CorrespondenceOptions(
        model,
        size,
        decoding,
        alignment,
        visibility,
        label_free,
        foreground,
        count,
        alpha,
        device,
        precision,
        cache_tokens,
        diffusion,
    )
    fields = CorrespondenceFields(key, options)
    check_result_key(samples, key, METHOD, fields.specs)
    rows = read_pairs(samples, [fields.name("provenance")])
    if not rows:
        return nothing_to_do(METHOD)
    labels = PairLabels(samples, info, keypoints, couples, options.foreground_field)
    yield Progress(0, len(rows), label="Loading the model")
    extractor = options.load()
    settings = {**options.settings(extractor), "keypoints": keypoints}
    pairs = samples._dataset
    earlier = _complete_run(pairs, key)
    fields.declare(pairs, {"method": METHOD, "run": key, **settings})
    summary = RunSummary(key, METHOD, {"total": len(rows), "done": 0, "skipped": 0, "failed": 0})
    summary.notices = options.notices()
    told = {"key": key, "couples": labels.couples, "write_back": write_back}
    with recorded(pairs, summary, {**settings, **told}, started):
        job = _Matching(pairs, fields, labels, extractor, config_hash(METHOD, settings), summary)
        yield from job.run(rows, num_workers, overwrite, skip_failures)
        if earlier is not None and summary.counts["skipped"] == len(rows):
            summary.counts["matches"], summary.details = earlier["counts"]["matches"], earlier["details"]
        else:
            yield Progress(len(rows), len(rows), label="Ranking and storing all matches")
            job.finish()
        if write_back:
            yield Progress(len(rows), len(rows), label="Writing to the original samples")
            summary.notices += write_back_summaries(pairs, info, fields, {"method": METHOD, "run": key, **settings})
    return summary


compute_correspondences = plain_function(compute_correspondences_steps)


@dataclass
class _Matching:
    """The matching of the pairs that have no valid result."""

    pairs: fo.Dataset
    fields: CorrespondenceFields
    labels: PairLabels
    extractor: FeatureExtractor
    stamp: str
    summary: RunSummary
    _provenance: dict[str, str] = field(default_factory=dict)

    def run(
        self, rows: Sequence[PairRow], num_workers: int, overwrite: bool, skip_failures: bool
    ) -> Generator[Progress, None, None]:
        """Matches pairs and stores what comes out."""
        counts = self.summary.counts
        labels = self.labels.read([member.id for row in rows for member in (row.source, row.target)])
        self._provenance = {
            row.pair_id: match_provenance(self.stamp, row, labels[row.source.id], labels[row.target.id]) for row in rows
        }
        kept = self.fields.name("provenance")
        todo = [row for row in rows if overwrite or row.values[kept] != self._provenance[row.pair_id]]
        counts["skipped"] = len(rows) - len(todo)
        outcomes = self._outcomes(todo, labels, num_workers)
        commit = _COMMIT if self.fields.options.diffusion is None else _SLOW_COMMIT
        yield from store_outcomes(
            outcomes,
            commit,
            lambda chunk: write_correspondences(self.pairs, self.fields, chunk),
            self.summary,
            total=len(rows),
            skip_failures=skip_failures,
        )

    def finish(self) -> None:
        """Ranks all matches of the key, stores them as a table and sums them up."""
        table = rank_points(read_points(self.pairs, self.fields), self.fields)
        write_ranks(self.pairs, self.fields, table)
        path = write_table(self.pairs, self.fields.key, table)
        self.summary.counts["matches"] = len(table)
        self.summary.details = {"table": str(path), "errors": dict(summed_up(table)), "pck": self._pck()}

    def _pck(self) -> dict[str, float]:
        """PCK over all pairs of the key, per image and per point."""
        flavour, sources = self.fields.options.pck_flavour, self.pairs.select_group_slices("source")
        values = zip(*sources.values([self.fields.pck, self.fields.name("judged")]), strict=True)
        known = np.array([(share, n) for share, n in values if share is not None], float).reshape(-1, 2)
        if not len(known):
            return {}
        per_point = float(np.average(known[:, 0], weights=known[:, 1]))
        return {flavour.label: float(known[:, 0].mean()), replace(flavour, average="point").label: per_point}

    def _outcomes(
        self, rows: Sequence[PairRow], labels: Mapping[str, SampleLabels], num_workers: int
    ) -> Iterator[MatchedPair]:
        ready, tasks = [], []
        for row in rows:
            task = self._task(row, labels[row.source.id], labels[row.target.id])
            if isinstance(task, str):
                yield MatchedPair(row, task, None)
            else:
                ready.append(row)
                tasks.append(task)
        options = self.fields.options
        read_mask = None if options.foreground_field is None else self.labels.read_mask
        with ThreadPoolExecutor(max(1, num_workers), thread_name_prefix="selfsame-match") as pool:
            shelf = DescribedShelf(self.extractor, pool, read_mask, cached=options.keeps_tokens)
            for number, outcome in match_tasks(tasks, options, shelf):
                provenance = None if isinstance(outcome, str) else self._provenance[ready[number].pair_id]
                yield MatchedPair(ready[number], outcome, provenance)

    def _task(self, row: PairRow, source: SampleLabels, target: SampleLabels) -> PairTask | str:
        """The pair as a task, or why its keypoints cannot be used."""
        sides = ((row.source, source), (row.target, target))
        pictures = [Picture(member.filepath, own.mask_stamp, member.id) for member, own in sides]
        if self.labels.keypoints is None:
            return PairTask(pictures[0], pictures[1], None)
        if reasons := [f"{member.filepath}: {own.reason}" for member, own in sides if own.reason]:
            return "; ".join(dict.fromkeys(reasons))
        if source.keypoints is None or not source.keypoints.places:
            return f"{row.source.filepath}: no keypoint in {self.labels.keypoints.field!r} that can be looked for"
        try:
            return PairTask(*pictures, self.labels.keypoints.pair(source.keypoints, target.keypoints))
        except ConfigError as error:
            return f"{row.source.filepath}: {error}"


def _complete_run(pairs: fo.Dataset, key: str) -> dict[str, Any] | None:
    """The record of an earlier run that came to its end and whose table is still there."""
    record = load_record(pairs, key)
    if record is None or record["status"] != "completed":
        return None
    return record if Path(record["details"].get("table") or "").is_file() else None
