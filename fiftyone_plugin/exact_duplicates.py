"""Exact duplicates: the same file bytes, or the same picture in another format or EXIF orientation."""

from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.grouping import UNGROUPED, assign_roles, equal_groups
from ..brain.image_quality import QualityScores
from ..brain.keeper import KeeperPolicy
from .dataset_io import image_samples
from .duplicate_settings import keeper_policy
from .duplicate_store import (
    EXACT,
    DuplicateFields,
    Outcome,
    check_key,
    declare_groups,
    group_counts,
    nothing_to_compare,
    write_outcome,
)
from .engine.local import Job, Progress, stream
from .fingerprints import DIGESTS, DigestBy, FingerprintMethod
from .keeper_facts import keeper_scores
from .runs import RunSummary
from .steps import plain_function

METHOD = "find_exact_duplicates"


def find_exact_duplicates_steps(
    samples: foc.SampleCollection,
    key: str = "exact",
    *,
    by: DigestBy = "pixels",
    keeper: KeeperPolicy | Mapping[str, float] | None = None,
    num_workers: int = 2,
    overwrite: bool = False,
    skip_failures: bool = True,
) -> Generator[Progress, None, RunSummary]:
    """Finds groups of identical images among the samples of a view.

    Results are the fields ``<key>_group``, ``_size``, ``_role``, ``_of``, ``_similarity``, ``_kind``, ``_shot``,
    ``_risk``, ``_quality`` and ``_error``.
    Digests stay in ``<key>_digest`` and are reused as long as a file's size and modification time are the same, so
    that another run on a grown dataset reads only new files. Samples outside the view are left alone, except that
    results of an earlier run with this key are cleared, because its group numbers mean nothing any more.

    Args:
        samples: a dataset or view; of a grouped dataset all image slices.
        key: name of the run and prefix of its fields.
        by: ``"pixels"``: equal after decoding and EXIF rotation, whatever the file format; ``"bytes"``: equal files,
            which is faster.
        keeper: weights by which the image to keep is chosen. Identical pictures differ in file size alone; on a tie
            the first of the view is kept.
        num_workers: threads that read and decode.
        overwrite: compute digests anew even where they are valid.
        skip_failures: record unreadable files in ``<key>_error`` and go on; False raises at the first one.

    Returns:
        What was done; ``counts`` has ``groups``, ``duplicates`` and ``largest``.

    Raises:
        ConfigError: an option cannot work.
        SelfsameError: the first failure with ``skip_failures=False``.
    """
    policy = keeper_policy(keeper)
    if by not in DIGESTS:
        raise ConfigError(f"by={by!r} is unknown; use one of {', '.join(DIGESTS)}")
    samples = image_samples(samples)
    check_key(samples, key, METHOD)
    if not samples.count():
        return nothing_to_compare(METHOD)

    def finish(summary: RunSummary) -> Iterator[Progress]:
        yield Progress(samples.count(), samples.count(), label="Writing groups")
        _write_groups(samples, key, by, policy, summary)

    declare_groups(samples, key, {"method": METHOD, "run": key, "by": by, "keeper": asdict(policy)})
    method = FingerprintMethod(METHOD, key, by, measure=False)
    label = "Comparing pictures" if by == "pixels" else "Comparing files"
    job = Job(
        samples,
        method,
        key,
        label,
        batch_size=64,
        num_workers=num_workers,
        overwrite=overwrite,
        skip_failures=skip_failures,
        finish=finish,
    )
    return (yield from stream(job))


find_exact_duplicates = plain_function(find_exact_duplicates_steps)


def _write_groups(
    samples: foc.SampleCollection, key: str, by: DigestBy, policy: KeeperPolicy, summary: RunSummary
) -> None:
    names = DuplicateFields(key)
    rows = zip(*samples.values(["id", names.digest, "filepath"]), strict=True)
    # A file that could not be read is in no group, but it must not be called unique either.
    readable = [row for row in rows if row[1] is not None]
    ids, digests, paths = ([row[column] for row in readable] for column in range(3))
    labels = equal_groups(digests)
    members = np.flatnonzero(labels != UNGROUPED)
    quality = np.full(len(ids), -np.inf)
    measures = [asdict(_file_quality(paths[row])) for row in members]
    quality[members] = keeper_scores(samples, [ids[row] for row in members], measures, policy, "quality")
    groups = assign_roles(labels, quality)
    count = int(labels.max(initial=UNGROUPED)) + 1
    shots = np.where(labels == UNGROUPED, UNGROUPED, 0)
    outcome = Outcome(ids, groups, [EXACT] * count, shots, np.zeros(count), quality, summary.failed)
    write_outcome(samples, key, outcome)
    summary.counts |= group_counts(groups)
    summary.details |= {"by": by, "keeper": asdict(policy), "fields": list(names.shown)}
    if summary.failed:
        summary.notices.append(f"{len(summary.failed):,} samples could not be compared; {names.error} says why")


def _file_quality(path: str) -> QualityScores:
    """Identical pictures have equal resolution, sharpness and exposure: only the size of the file can differ."""
    return QualityScores(pixels=0, sharpness=0.0, exposure=0.0, file_size=Path(path).stat().st_size)
