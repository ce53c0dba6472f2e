"""Which stored matches confuse left and right or other parts that look alike: risks, views and label suspects."""

import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import fiftyone.core.collections as foc
import pandas as pd

from ..brain.errors import ConfigError
from ..brain.metrics.keypoint_errors import ERROR_TYPES, ErrorFlavour
from ..brain.metrics.label_free import PAIR_SCORES
from .correspondence_fields import METHOD as MATCH_METHOD
from .correspondence_fields import SWAPS
from .correspondence_labels import PairLabels
from .correspondence_table import load_correspondences, write_table
from .engine.local import Progress
from .forms import counted
from .match_setup import recorded
from .pairs import check_pairs, flat_pairs, read_pairs
from .result_keys import check_result_key, find_result_record
from .runs import RunSummary, nothing_to_do
from .steps import plain_function
from .symmetry_fields import SymmetryFields, write_symmetry
from .symmetry_ranking import (
    COLUMNS,
    PHANTOMS,
    completed,
    pair_values,
    partners_of,
    ranked,
    ranked_by,
    score_quality,
    score_weights,
    suspects_of,
    usable_scores,
)
from .symmetry_views import METHOD, check_views, save_views


def find_symmetry_errors_steps(
    samples: foc.SampleCollection,
    key: str = "correspondence",
    *,
    ground_truth: bool | None = None,
    fit_weights: bool = False,
) -> Generator[Progress, None, RunSummary]:
    """Ranks the stored matches of a run of :func:`compute_correspondences` by the risk that parts were confused.

    With types of errors, matches that took another part's place come first, the most confident before all, and saved
    views show swaps, phantoms, inverted pairs, label suspects (the annotation itself seems to have left and right
    exchanged, see :func:`exchange_labels`) and what is ambiguous but correct. Without, the risk is the mean rank of the
    scores that need no annotations. Written to both slices of all pairs of the dataset: ``<key>_risk``,
    ``_swap_confidence``, ``_phantom_confidence``, ``_inversion``, ``_label_suspect``, ``_suspect_side`` and
    ``_ambiguity``; and ``risk`` and ``label_suspect`` to every match. The views are named ``<key>: ...``.

    Args:
        samples: a pair dataset, or a view of it, to which the table that is returned is confined.
        key: key of the run.
        ground_truth: go by the types of errors; None does where there are some.
        fit_weights: weigh the scores as finds the known confusions best, instead of all alike.

    Returns:
        A table with a row per match, the highest risk first: ``pair_id``, ``source_id``, ``target_id``, ``category``,
        ``keypoint``, ``partner``, ``risk``, ``pair_risk``, ``label_free_risk``, ``error_type``, ``similarity``,
        ``label_suspect``, ``suspect_side``, and the scores; what is not known is NaN or None.

    Raises:
        ConfigError: no such run, nothing to rank by, or fields or views that are somebody else's.
    """
    started = time.perf_counter()
    info = check_pairs(samples)
    record = find_result_record(samples, key, MATCH_METHOD, "correspondences")
    pairs, fields, run_key = samples._root_dataset, SymmetryFields(key), f"{key}_risk"
    check_result_key(pairs, run_key, METHOD, {**fields.specs, **fields.point_specs})
    check_views(pairs, key)
    table = load_correspondences(pairs, key)
    rows = read_pairs(pairs, [fields.name(name) for name in (*PAIR_SCORES, "inverted")])
    if not len(table):
        return nothing_to_do(METHOD)
    if ground_truth is not None and not isinstance(ground_truth, bool):
        raise ConfigError(f"ground_truth={ground_truth!r} must be True, False or None")
    keypoints, couples = (record["config"].get(name) for name in ("keypoints", "couples"))
    partners = partners_of(PairLabels(pairs, info, keypoints, couples, None).keypoints, table)
    table = completed(table, rows, fields, partners, ground_truth)
    judged = bool(table["error_type"].isin(ERROR_TYPES).any())
    scores = usable_scores(table, judged, ground_truth)
    weights = score_weights(table, scores, fit_weights)
    yield Progress(0, 2, label="Ranking matches")
    summary = RunSummary(run_key, METHOD, {"total": len(rows)})
    config = {"key": run_key, "run": key, "ground_truth": ground_truth, "fit_weights": fit_weights}
    with recorded(pairs, summary, config, started):
        table = ranked_by(table, rows, scores, weights)
        of_pairs = pair_values(table)
        fields.declare(pairs, {"method": METHOD, "run": run_key})
        yield Progress(1, 2, label="Writing to the pairs")
        write_symmetry(pairs, fields, rows, table, of_pairs)
        views = save_views(pairs, key, judged=judged)
        ranking = ranked(table, of_pairs)
        summary.counts |= _counts(ranking)
        summary.details = {
            "run": key,
            "table": str(write_table(pairs, run_key, ranking)),
            "types": _flavour(record["config"]).label if judged else None,
            "views": views,
            "weights": weights,
            "auroc": score_quality(table, scores) if judged else [],
            "suspects": suspects_of(ranking),
        }
        summary.notices = _notices(summary.counts, judged)
        yield Progress(2, 2, label="Done")
    return summary


def load_symmetry_errors(samples: foc.SampleCollection, key: str = "correspondence") -> pd.DataFrame:
    """The table of the latest :func:`find_symmetry_errors` of a key, of the pairs of a view.

    Raises:
        ConfigError: there is none, or its file is gone.
    """
    record = find_result_record(samples, f"{key}_risk", METHOD, "symmetry errors")
    path = Path(record["details"].get("table") or "")
    if not path.is_file():
        raise ConfigError(f"the table of key {key!r} is gone ({path}); run {METHOD} again")
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=_TEXTS)
    if samples is samples._dataset:
        return table
    return table[table["pair_id"].isin(flat_pairs(samples).distinct("pair_id"))].reset_index(drop=True)


def _outcome(samples: foc.SampleCollection, summary: RunSummary) -> pd.DataFrame:
    if summary.key is None:
        return pd.DataFrame(columns=list(COLUMNS))
    return load_symmetry_errors(samples, summary.details["run"])


find_symmetry_errors = plain_function(find_symmetry_errors_steps, _outcome)

_TEXTS = dict.fromkeys(
    ("pair_id", "source_id", "target_id", "category", "view", "keypoint", "partner", "error_type", "suspect_side"), str
)


def _flavour(config: Mapping[str, Any]) -> ErrorFlavour:
    """The threshold of the types that the run stored."""
    return ErrorFlavour(config["alpha"], "image" if config["foreground"] == "none" else "box")


def _counts(table: pd.DataFrame) -> dict[str, int]:
    types = table["error_type"]
    return {
        "matches": len(table),
        "swaps": int(types.isin(SWAPS).sum()),
        "phantoms": int(types.isin(PHANTOMS).sum()),
        "suspects": int(table["label_suspect"].notna().sum()),
    }


def _notices(counts: Mapping[str, int], judged: bool) -> list[str]:
    if not judged:
        return ["No match has a type of error: risks go by the scores that need no annotations"]
    return [
        f"{counted(counts['swaps'], 'swap')}, {counted(counts['phantoms'], 'phantom')},"
        f" {counted(counts['suspects'], 'match')} that {'speaks' if counts['suspects'] == 1 else 'speak'} against the"
        " annotation; the saved views show them"
    ]
