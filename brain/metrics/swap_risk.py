"""How likely a match takes one part for another like it, and where the annotation rather than the match is wrong.

A prediction that lies on the mirror partner is counted as a swap; but where left and right were exchanged in the
annotation, it is the prediction that is right. Scores that need no annotations tell the two apart: a true swap leaves
traces in them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .keypoint_errors import CONFUSIONS, NOT_IN_TARGET
from .label_free_combine import rank_scores

# Types of a match that took one part of the object for another.
PART_ERRORS = (*CONFUSIONS, "swap_other")

# From this share of turned triplets on, the layout of a pair's matches is mirrored.
_TURNED = 0.5


def swap_risk(types: np.ndarray, similarity: np.ndarray, label_free: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """Risk of each match: known errors before all others, the most confident first; then by label-free scores.

    Args:
        types: ``(n,)`` error types; None where a match was not judged.
        similarity: ``(n,)`` at the matches.
        label_free: ``(n,)`` in [0, 1], such as :func:`.label_free_combine.combined_score`; NaN where unknown.
        categories: ``(n,)`` within which similarities are ranked.

    Returns:
        ``(n,)`` float64 in [0, 1]; NaN where nothing is known. Without any type it is ``label_free``. Otherwise errors
        (:data:`PART_ERRORS`) have 0.5 to 1 by the rank of their similarity among errors, and all else half of
        ``label_free``; what was judged and has no score has 0.
    """
    types, label_free = _as_types(types), np.asarray(label_free, np.float64)
    judged = types != ""
    if not judged.any():
        return label_free.copy()
    errors = np.isin(types, PART_ERRORS)
    ranks = rank_scores(np.where(errors, np.asarray(similarity, np.float64), np.nan), categories)
    rest = np.where(judged & np.isnan(label_free), 0.0, 0.5 * label_free)
    return np.where(errors, 0.5 + 0.5 * np.nan_to_num(ranks), rest)


@dataclass(frozen=True, eq=False)
class SuspectEvidence:
    """What is known of n matches of p pairs.

    Attributes:
        types: ``(n,)`` error types; None where a match was not judged.
        label_free: ``(n,)`` risk in [0, 1] without annotations; NaN where unknown.
        pairs: ``(n,)`` int number of the pair, 0 to p - 1.
        images: ``(p, 2)`` int numbers of the source and the target image.
        slots: ``(n,)`` int number of the keypoint, equal in all pairs.
        partner_slots: ``(n,)`` int number of its mirror partner; its own where there is none.
        mirror_peak_ratio: ``(n,)`` see :func:`.label_free_peaks.mirror_peak_ratio`; NaN where unknown.
        collision: ``(n,)`` see :func:`.label_free_points.collision`; NaN where unknown.
        triplet_orientation: ``(p,)`` see :func:`.label_free_pairs.triplet_orientation`; NaN where unknown.
        imd_gap: ``(p,)`` see :func:`.label_free_pairs.imd_gap`; NaN where unknown.
    """

    types: np.ndarray
    label_free: np.ndarray
    pairs: np.ndarray
    images: np.ndarray
    slots: np.ndarray
    partner_slots: np.ndarray
    mirror_peak_ratio: np.ndarray
    collision: np.ndarray
    triplet_orientation: np.ndarray
    imd_gap: np.ndarray


def label_suspicion(evidence: SuspectEvidence) -> tuple[np.ndarray, np.ndarray]:
    """How much speaks for an annotation with left and right exchanged, where a match lies on the mirror partner.

    A match is a suspect if it is a ``swap_mirror`` and nothing betrays it as a true one: its partner, if it was judged,
    is swapped as well, so that both disagree with the annotation by the exchange alone; the two were not found in one
    place; the partner's place is less similar to it than its own; and the layout of the pair's matches is not
    mirrored (by triplets, else by instance matching distances). An image that is wrong is so in all its pairs: the
    suspicion is ``1 - label_free`` times the share ``suspects / (judged + 1)`` of the couple's matches in the pairs of
    the image for which that is larger.

    Args:
        evidence: of all matches that are to be compared.

    Returns:
        ``(n,)`` float64 in [0, 1], NaN where a match is no suspect or has no label-free score; and ``(n,)`` int, 0 if
        it is rather the source whose annotation is wrong, 1 if it is the target, or both alike.
    """
    types = _as_types(evidence.types)
    judged = (types != "") & ~np.isin(types, NOT_IN_TARGET) & (evidence.partner_slots != evidence.slots)
    suspects = judged & (types == "swap_mirror") & ~_betrayed(evidence, types, judged) & ~np.isnan(evidence.label_free)
    support = np.stack([_support(evidence, side, judged, suspects) for side in (0, 1)], 1)
    value = (1 - evidence.label_free) * support.max(1, initial=0)
    return np.where(suspects, value, np.nan), (support[:, 1] >= support[:, 0]).astype(int)


def _betrayed(evidence: SuspectEvidence, types: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """``(n,)`` bool: something besides the annotation says that left and right were confused."""
    partners = _partner_rows(evidence)
    alone = (partners >= 0) & judged[partners] & (types[partners] != "swap_mirror")
    turned = np.where(
        np.isnan(evidence.triplet_orientation), evidence.imd_gap > 0, evidence.triplet_orientation > _TURNED
    )
    return alone | turned[evidence.pairs] | (evidence.mirror_peak_ratio >= 1) | (evidence.collision == 1)


def _partner_rows(evidence: SuspectEvidence) -> np.ndarray:
    """``(n,)`` int row of the partner's match in the same pair; -1 where there is none."""
    rows = {key: row for row, key in enumerate(zip(evidence.pairs.tolist(), evidence.slots.tolist(), strict=True))}
    wanted = zip(evidence.pairs.tolist(), evidence.partner_slots.tolist(), strict=True)
    return np.array([rows.get(key, -1) for key in wanted], int)


def _support(evidence: SuspectEvidence, side: int, judged: np.ndarray, suspects: np.ndarray) -> np.ndarray:
    """``(n,)`` share of suspects among the judged matches of the couple in all pairs of the image on one side."""
    couples = np.minimum(evidence.slots, evidence.partner_slots)
    counts: dict[tuple[int, int], list[int]] = {}
    keys = [list(zip(column, couples.tolist(), strict=True)) for column in evidence.images[evidence.pairs].T.tolist()]
    for own in keys:
        for key, is_judged, is_suspect in zip(own, judged.tolist(), suspects.tolist(), strict=True):
            found = counts.setdefault(key, [0, 0])
            found[0] += is_judged
            found[1] += is_suspect
    return np.array([counts[key][1] / (counts[key][0] + 1) for key in keys[side]], np.float64)


def _as_types(types: np.ndarray) -> np.ndarray:
    """``(n,)`` str; empty where a match was not judged."""
    return np.array([kind if isinstance(kind, str) else "" for kind in types], str)
