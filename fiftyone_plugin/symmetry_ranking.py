"""From the table of a run to its ranking: risks, label suspects, and what is said of pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..brain.correspondence.keypoint_groups import groups_from_names
from ..brain.errors import ConfigError
from ..brain.metrics.keypoint_errors import ERROR_TYPES
from ..brain.metrics.label_free import MATCH_SCORES, PAIR_SCORES
from ..brain.metrics.label_free_combine import auroc, combined_score, confusions, fitted_weights
from ..brain.metrics.swap_risk import SuspectEvidence, label_suspicion, swap_risk
from .correspondence_fields import METHOD as MATCH_METHOD
from .correspondence_fields import SWAPS
from .keypoint_inputs import KeypointsInput
from .pairs import SLICES, PairRow
from .symmetry_fields import SymmetryFields

PHANTOMS = ("phantom_mirror", "phantom_group")

# What a table begins with; the scores follow.
COLUMNS = (
    *("pair_id", "source_id", "target_id", "category", "keypoint", "partner", "risk", "pair_risk", "label_free_risk"),
    *("error_type", "similarity", "label_suspect", "suspect_side"),
)

# So many suspects are in the record; all are in the fields and in the table.
_SHOWN = 50

# From this share of its own similarity on, another place is a rival of a match.
_RIVAL = 0.95


def partners_of(keypoints: KeypointsInput | None, table: pd.DataFrame) -> dict[str, str]:
    """The mirror partner of each keypoint of a table, by name; none where the run looked for none by name."""
    if keypoints is None:
        return {}
    names = list(dict.fromkeys([*(keypoints.skeleton or ()), *table["keypoint"]]))
    if keypoints.couples is None:
        return _both_ways(groups_from_names(names).couples)
    return _both_ways([couple for couple in keypoints.couples if set(couple) <= set(names)])


def _both_ways(couples: Sequence[tuple[str, str]]) -> dict[str, str]:
    return {one: other for couple in couples for one, other in (couple, couple[::-1])}


def completed(
    table: pd.DataFrame,
    rows: Sequence[PairRow],
    fields: SymmetryFields,
    partners: Mapping[str, str],
    ground_truth: bool | None,
) -> pd.DataFrame:
    """The table of the pairs that are still there, with partners and with what is known of the pairs.

    Types of errors are left out where they are not to count.
    """
    of_pairs = pd.DataFrame(
        {
            "pair_id": [row.pair_id for row in rows],
            **{name: [row.values[fields.name(name)] for row in rows] for name in PAIR_SCORES},
            "inverted": [row.values[fields.name("inverted")] for row in rows],
        }
    ).astype(dict.fromkeys(PAIR_SCORES, float))
    table = table.merge(of_pairs, on="pair_id", how="inner", sort=False)
    table = table.assign(category=table["category"].fillna(""), partner=table["keypoint"].map(partners))
    if ground_truth is False:
        table = table.assign(error_type=None, inverted=None)
    return table


def usable_scores(table: pd.DataFrame, judged: bool, ground_truth: bool | None) -> dict[str, np.ndarray]:
    """The label-free scores that any match has.

    Raises:
        ConfigError: there is nothing to rank by.
    """
    columns = {name: table[name].to_numpy(float) for name in (*MATCH_SCORES, *PAIR_SCORES) if name in table}
    scores = {name: column for name, column in columns.items() if not np.isnan(column).all()}
    if ground_truth and not judged:
        raise ConfigError(f"ground_truth=True: no match has a type; run {MATCH_METHOD} on pairs that are annotated")
    if not scores and not judged:
        raise ConfigError(f"there is nothing to rank by; run {MATCH_METHOD} with label_free=True")
    return scores


def score_weights(table: pd.DataFrame, scores: Mapping[str, np.ndarray], fit: bool) -> dict[str, float] | None:
    """Weights of the scores; None where all weigh alike.

    Raises:
        ConfigError: they cannot be fitted.
    """
    if not fit:
        return None
    known = table["error_type"].isin(ERROR_TYPES).to_numpy()
    if not scores or not known.any():
        raise ConfigError("fit_weights=True takes matches with types of errors and with scores; leave it out")
    own = {name: column[known] for name, column in scores.items()}
    return fitted_weights(
        own, table["category"].to_numpy(str)[known], confusions(table["error_type"].to_numpy()[known])
    )


def ranked_by(
    table: pd.DataFrame, rows: Sequence[PairRow], scores: Mapping[str, np.ndarray], weights: Mapping[str, float] | None
) -> pd.DataFrame:
    """The table with ``label_free_risk``, ``risk``, ``label_suspect``, ``suspect_side`` and ``ambiguity``."""
    categories, types = table["category"].to_numpy(str), table["error_type"].to_numpy(object)
    label_free = combined_score(scores, categories, weights) if scores else np.full(len(table), np.nan)
    suspicion, side = label_suspicion(_evidence(table, rows, types, label_free))
    sides = np.array(SLICES, object)[side]
    return table.assign(
        label_free_risk=label_free,
        risk=swap_risk(types, table["similarity"].to_numpy(float), label_free, categories),
        label_suspect=suspicion,
        suspect_side=np.where(np.isnan(suspicion), None, sides),
        ambiguity=_ambiguity(table, types),
    )


def _evidence(
    table: pd.DataFrame, rows: Sequence[PairRow], types: np.ndarray, label_free: np.ndarray
) -> SuspectEvidence:
    ids, first, numbers = np.unique(table["pair_id"].to_numpy(str), return_index=True, return_inverse=True)
    members = {row.pair_id: (row.source.origin_id, row.target.origin_id) for row in rows}
    images = np.unique(np.array([members[pair_id] for pair_id in ids], str), return_inverse=True)[1].reshape(-1, 2)
    names = {name: slot for slot, name in enumerate(dict.fromkeys([*table["keypoint"], *table["partner"].dropna()]))}
    slots = table["keypoint"].map(names).to_numpy(int)
    partner_slots = table["partner"].map(names).fillna(pd.Series(slots, table.index)).to_numpy(int)
    return SuspectEvidence(
        types,
        label_free,
        numbers,
        images,
        slots,
        partner_slots,
        *(_column(table, name) for name in ("mirror_peak_ratio", "collision")),
        *(_column(table, name)[first] for name in ("triplet_orientation", "imd_gap")),
    )


def _column(table: pd.DataFrame, name: str) -> np.ndarray:
    return table[name].to_numpy(float) if name in table else np.full(len(table), np.nan)


def _ambiguity(table: pd.DataFrame, types: np.ndarray) -> np.ndarray:
    """The highest rival of a match that is right, over the match, where it is one; at least 1 where PCK† says no."""
    rivals = np.fmax(_column(table, "peak_ratio"), _column(table, "mirror_peak_ratio"))
    close = np.where(rivals >= _RIVAL, rivals, np.nan)
    found = np.where(types == "correct", close, np.nan)
    return np.where(types == "correct_ambiguous", np.fmax(rivals, 1.0), found)


def pair_values(table: pd.DataFrame) -> pd.DataFrame:
    """By ``pair_id``, the values of the pairs under their short names."""
    types = table["error_type"]
    table = table.assign(
        swap_confidence=table["similarity"].where(types.isin(SWAPS)),
        phantom_confidence=table["similarity"].where(types.isin(PHANTOMS)),
    )
    groups = table.groupby("pair_id", sort=False)
    highest = ["risk", "swap_confidence", "phantom_confidence", "label_suspect", "ambiguity"]
    found = groups[highest].max()
    suspects = table.dropna(subset=["label_suspect"]).sort_values("label_suspect", ascending=False, kind="stable")
    sides = suspects.drop_duplicates("pair_id").set_index("pair_id")["suspect_side"]
    found["suspect_side"] = sides.reindex(found.index)
    first = groups[["inverted", "imd_gap", "triplet_orientation"]].first()
    found["inversion"] = _inversion(groups.head(1).set_index("pair_id").loc[first.index])
    return found


def _inversion(pairs: pd.DataFrame) -> np.ndarray:
    """How much better the mirrored target fits, of inverted pairs: by their types of errors, else by their scores."""
    gap, turned = pairs["imd_gap"].to_numpy(float), pairs["triplet_orientation"].to_numpy(float)
    by_scores = (gap > 0) & ~(turned <= 0.5)
    known = pairs["inverted"].notna().to_numpy()
    inverted = np.where(known, pairs["inverted"].to_numpy(object) == True, by_scores)  # noqa: E712
    return np.where(inverted.astype(bool), np.nan_to_num(gap), np.nan)


def ranked(table: pd.DataFrame, of_pairs: pd.DataFrame) -> pd.DataFrame:
    """The table in its order for readers: the highest risk first, of equal ones that of the riskier pair."""
    table = table.assign(pair_risk=table["pair_id"].map(of_pairs["risk"]))
    table = table.sort_values(["risk", "pair_risk"], ascending=False, kind="stable", na_position="last")
    return table[[*COLUMNS, *(name for name in table if name not in COLUMNS)]].reset_index(drop=True)


def score_quality(table: pd.DataFrame, scores: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """How well each score, and all together, finds the known confusions."""
    known = table["error_type"].isin(ERROR_TYPES).to_numpy()
    errors = confusions(table["error_type"].to_numpy(object)[known])
    found = []
    for name, column in {"label_free_risk": table["label_free_risk"].to_numpy(float), **scores}.items():
        quality = auroc(column[known], errors)
        value = quality.auroc if np.isfinite(quality.auroc) else None
        counts = {"n_errors": quality.n_errors, "n_others": quality.n_others, "n_unscored": quality.n_unscored}
        found.append({"score": name, "auroc": value, **counts})
    return found


def suspects_of(ranked: pd.DataFrame) -> list[dict[str, Any]]:
    """The annotations that seem exchanged, the most suspicious first: what :func:`exchange_labels` takes."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    some = ranked.dropna(subset=["label_suspect"]).sort_values("label_suspect", ascending=False, kind="stable")
    for row in some.itertuples():
        one, other = sorted((row.keypoint, row.partner))
        suspect = {"pair_id": row.pair_id, "side": row.suspect_side, "partners": [one, other]}
        found.setdefault((row.pair_id, one, other), {**suspect, "label_suspect": float(row.label_suspect)})
    return list(found.values())[:_SHOWN]
