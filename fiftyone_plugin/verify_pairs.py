"""A second look at the doubtful links of a duplicate search, by a matcher that compares regions instead of vectors."""

import time
from collections.abc import Generator, Sequence
from hashlib import blake2b

import fiftyone.core.collections as foc
import fiftyone.core.view as fov
import numpy as np

from ..brain.backbones.device import Precision
from ..brain.errors import ConfigError
from .dataset_io import image_samples
from .duplicate_store import find_record, load_pairs, save_scores
from .duplicates import regroup_duplicates_steps
from .engine.local import Progress, check_counts
from .match_job import Source, compare_files
from .match_setup import MatcherChoice, outcome_stamp
from .provenance import file_stamp, sample_provenance
from .runs import RunSummary
from .steps import plain_function
from .stored_pairs import StoredPairs, Verified

METHOD = "verify_pairs"

# A kill loses at most so many comparisons.
_COMMIT = 100


def verify_pairs_steps(
    samples: foc.SampleCollection,
    key: str = "dup",
    *,
    matcher: str = "training_free",
    model: str | None = None,
    threshold: float | None = None,
    band: float = 0.5,
    max_pairs: int = 500,
    device: str = "auto",
    precision: Precision = "auto",
    num_workers: int = 2,
    overwrite: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Lets a matcher look at the weakest links of a duplicate search, and writes the risk of the groups anew.

    A link that it confirms makes its group less risky, one that it refutes more. Groups stay as they are: the reviewer
    decides, the riskiest first. What it said is kept with the run, also when the groups are formed anew; a second run
    compares only what is new or has changed.

    Args:
        samples: the dataset of the run, or a view of it; all of the run's links count.
        key: key of a run of ``find_duplicates`` on whole images.
        matcher: ``"training_free"``, ``"training_free_paper"``, or a trained one, by its name or folder.
        model: backbone of a training-free matcher; None takes the best one at hand.
        threshold: least score of a match, from 0 to 1; None takes the matcher's.
        band: which links are doubtful: those in the lowest part of the way from the run's threshold to 1, from 0 to 1.
        max_pairs: most links, the weakest first; the summary says how many were left out.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
        precision: number format of the networks: ``"auto"``, ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        num_workers: threads that decode.
        overwrite: compare again what is up to date.

    Returns:
        What was done; ``counts`` has ``total``, ``done``, ``skipped``, ``failed``, ``confirmed`` and ``refuted`` links.

    Raises:
        ConfigError: no such run, one of objects, or an option that cannot work.
        ModelError: a model cannot be loaded.
    """
    started = time.perf_counter()
    check_counts(None, num_workers)
    record = find_record(samples, key)
    if record["config"].get("patches_field") is not None:
        raise ConfigError(f"run {key!r} compared objects; verify_pairs looks at whole images, so use a run on images")
    if not (isinstance(band, int | float) and 0 <= band <= 1) or not isinstance(max_pairs, int) or max_pairs < 1:
        raise ConfigError(f"band={band!r} must lie between 0 and 1, and max_pairs={max_pairs!r} must be above 0")
    stored = load_pairs(samples, record)
    doubtful = _doubtful(stored, record["details"]["threshold"], band)
    chosen = doubtful[:max_pairs]
    summary = RunSummary(None, METHOD, {"total": len(chosen), "done": 0, "skipped": 0, "failed": 0})
    yield Progress(0, max(len(chosen), 1), label="Loading the model")
    choice = MatcherChoice(matcher, model, "auto", False, threshold, device, precision)
    found = choice.load()
    flat = image_samples(samples._dataset)
    verified = stored.verified or Verified.nothing(len(stored.pairs))
    paths = _paths(flat, stored, chosen)
    stamps = _stamps(stored, chosen, paths, outcome_stamp(METHOD, found) + f"{found.threshold:.6f}")
    todo = [n for n, pair in enumerate(chosen) if overwrite or verified.stamps[pair] != stamps[n]]
    todo = [n for n in todo if all(end in paths for end in _ends(stored, chosen[n]))]
    summary.counts["skipped"] = len(chosen) - len(todo)
    sure, kept = verified.sure.copy(), verified.stamps.copy()
    sources = [tuple(Source(paths[end]) for end in _ends(stored, chosen[n])) for n in todo]
    for done, (place, outcome) in enumerate(compare_files(sources, found, num_workers=num_workers), 1):  # type: ignore[arg-type]
        pair = chosen[todo[place]]
        if isinstance(outcome, str):
            sure[pair], kept[pair] = np.nan, 0
            summary.failed["-".join(_ends(stored, pair))] = outcome
        else:
            sure[pair], kept[pair] = certainty(outcome.score, found.threshold), stamps[todo[place]]
        if done % _COMMIT == 0 or done == len(todo):
            save_scores(samples, key, StoredPairs(stored.ids, stored.pairs, stored.scores, Verified(sure, kept)))
        yield Progress(done, len(todo), len(summary.failed), label="Comparing doubtful pairs")
    yield Progress(len(todo), max(len(todo), 1), label="Writing the risk of the groups")
    yield from regroup_duplicates_steps(samples, key, num_workers=num_workers)
    seen = sure[chosen]
    summary.counts |= {
        "done": len(todo) - len(summary.failed),
        "failed": len(summary.failed),
        "confirmed": int((seen >= 0.5).sum()),
        "refuted": int((seen < 0.5).sum()),
    }
    summary.notices = choice.notices(found)
    if len(doubtful) > len(chosen):
        left = len(doubtful) - len(chosen)
        summary.notices.append(f"{left:,} more doubtful links were left out; raise max_pairs={max_pairs:,} for them")
    summary.details = {"matcher": found.name, "threshold": found.threshold, "key": key}
    summary.seconds = time.perf_counter() - started
    return summary


verify_pairs = plain_function(verify_pairs_steps)


def certainty(score: float, threshold: float) -> float:
    """A score on the scale of :func:`.brain.grouping.group_risk`: 0.5 at the threshold, 0 and 1 where they were."""
    if score < threshold:
        return 0.5 * score / threshold
    return 1.0 if threshold >= 1 else 0.5 + 0.5 * (score - threshold) / (1 - threshold)


def _doubtful(stored: StoredPairs, threshold: float, band: float) -> np.ndarray:
    """Numbers of the links that are not far above the threshold, the weakest first."""
    similarity = stored.pairs.similarity
    linked = np.flatnonzero(
        (similarity >= np.float32(threshold)) & (similarity <= np.float32(threshold + band * (1 - threshold)))
    )
    return linked[np.argsort(similarity[linked], kind="stable")]


def _ends(stored: StoredPairs, pair: int) -> tuple[str, str]:
    return stored.ids[stored.pairs.i[pair]], stored.ids[stored.pairs.j[pair]]


def _paths(samples: foc.SampleCollection, stored: StoredPairs, chosen: Sequence[int]) -> dict[str, str]:
    """Files of the images that are still there."""
    ids = list(dict.fromkeys(end for pair in chosen for end in _ends(stored, pair)))
    view = fov.make_optimized_select_view(samples, ids)
    return dict(zip(*view.values(["id", "filepath"]), strict=True))


def _stamps(stored: StoredPairs, chosen: Sequence[int], paths: dict[str, str], settings: str) -> np.ndarray:
    """``(n,)`` uint64 hash of settings and files of each pair."""
    stamps = np.zeros(len(chosen), np.uint64)
    for place, pair in enumerate(chosen):
        files = [file_stamp(paths.get(end, "")) for end in _ends(stored, pair)]
        text = sample_provenance(settings, *files)
        stamps[place] = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") | 1
    return stamps
