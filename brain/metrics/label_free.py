"""All label-free scores of matches and pairs at once: which of them are suspicious, without any annotation.

Each score is one idea of how a wrong match betrays itself; none sees every error. Higher is more suspicious. NaN means
*cannot be scored* (a keypoint on the plane of symmetry, alone in its group, hidden; no mask, no sphere, no mirrored
picture) and must not be shown, stored or averaged as 0.

================================ ======================================== =======================================
score of a match                 catches                                  blind to
================================ ======================================== =======================================
``peak_ratio``                   repeated parts, any second candidate     candidates on the same side
``mirror_peak_ratio``            left-right ambiguity                     partners that are hidden
``mirror_insensitivity``         features that ignore the side            (only keypoints with a partner)
``flip_inconsistency``           sides that are not stable                sides that are wrong throughout
``cycle_error``                  occluded parts, background               symmetric swaps, which often cycle
``sphere_angle``                 sides and repeated parts of rigid things articulated things, bad masks
``sphere_disagreement``          geometry that overrules appearance       both wrong in the same way
``collision``                    one of two matches in one place          which of them
``assignment_change``            permutations within a group              groups of one
``low_similarity``               phantoms                                 confident phantoms
``softmax_spread``               diffuse matches                          sharp wrong peaks
================================ ======================================== =======================================

Of a pair there are ``imd_gap``, ``reflection_gap`` and ``triplet_orientation``: each is high for truly opposite views
as well, so that they are read together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .label_free_pairs import imd_gap, reflection_gap, triplet_orientation
from .label_free_peaks import PeakForm, low_similarity, mirror_peak_ratio, peak_ratio, softmax_spread, value_at
from .label_free_points import (
    assignment_change,
    cells_of,
    collision,
    cycle_error,
    flip_inconsistency,
    mirror_insensitivity,
    mirrored_back,
    sphere_disagreement,
)
from .match_filters import sphere_angles

MATCH_SCORES = (
    "peak_ratio",
    "mirror_peak_ratio",
    "mirror_insensitivity",
    "flip_inconsistency",
    "cycle_error",
    "sphere_angle",
    "sphere_disagreement",
    "collision",
    "assignment_change",
    "low_similarity",
    "softmax_spread",
)
PAIR_SCORES = ("imd_gap", "reflection_gap", "triplet_orientation")

# A match's own peak reaches this far, as a share of the box.
PEAK_SHARE = 0.1


@dataclass(frozen=True, eq=False)
class MatchEvidence:
    """What is known of n matches of p pairs. Points are ``(x, y)`` in pixels of the canvas of their picture.

    Attributes:
        similarity: ``(n, h, w)`` of each keypoint to the cells of its target, larger is more alike; ``-inf`` where
            nothing may be found.
        cell: side of a cell in pixels.
        points: ``(n, 2)`` the keypoints in the source.
        matches: ``(n, 2)`` where they were found in the target; NaN where not.
        pairs: ``(n,)`` int number of the pair, 0 to p - 1.
        categories: p names.
        target_box: ``(p,)`` longer side of the target's object; NaN where it is not known.
        source_box: ``(p,)`` likewise of the source's.
        partners: ``(n,)`` int row of the mirror partner in the same pair; -1 where there is none or it is hidden there.
        paired: ``(n,)`` bool: the keypoint has a mirror partner, hidden or not.
        groups: ``(n,)`` int number of the part group within the pair's category.
        returned: ``(n, 2)`` in the source: the best match of each match.
        mirrored_matches: ``(n, 2)`` where the keypoints were found in the mirrored target, in its own pixels.
        canvas_width: ``(p,)`` or one for all, of the target's canvas.
        reflected: ``(n, 2)`` reflections of the matches in their object's axis, for keypoints without a named partner,
            see :func:`.label_free_points.reflected_points`; NaN elsewhere.
        sphere_source, sphere_target: ``(n, 3)`` points of the sphere at the keypoints and at the matches.
        sphere_free_matches: ``(n, 2)`` where the keypoints were found without the term of the sphere.
        imd_identity, imd_mirrored: ``(p,)`` instance matching distances.
    """

    similarity: np.ndarray
    cell: float
    points: np.ndarray
    matches: np.ndarray
    pairs: np.ndarray
    categories: Sequence[str]
    target_box: np.ndarray
    source_box: np.ndarray
    partners: np.ndarray
    paired: np.ndarray
    groups: np.ndarray
    returned: np.ndarray | None = None
    mirrored_matches: np.ndarray | None = None
    canvas_width: np.ndarray | float = np.nan
    reflected: np.ndarray | None = None
    sphere_source: np.ndarray | None = None
    sphere_target: np.ndarray | None = None
    sphere_free_matches: np.ndarray | None = None
    imd_identity: np.ndarray | None = None
    imd_mirrored: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.matches)
        shapes = {
            "points": (n, 2),
            "matches": (n, 2),
            "pairs": (n,),
            "partners": (n,),
            "paired": (n,),
            "groups": (n,),
            **dict.fromkeys(("returned", "mirrored_matches", "reflected", "sphere_free_matches"), (n, 2)),
            **dict.fromkeys(("sphere_source", "sphere_target"), (n, 3)),
            **dict.fromkeys(("target_box", "source_box", "imd_identity", "imd_mirrored"), (len(self.categories),)),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) != shape:
                raise ConfigError(f"{name} has shape {np.shape(value)}; for these matches and pairs it must be {shape}")
        if np.ndim(self.similarity) != 3 or len(self.similarity) != n:
            raise ConfigError(f"similarity has shape {np.shape(self.similarity)}; it must be ({n}, h, w)")


@dataclass(frozen=True, eq=False)
class LabelFreeScores:
    """Scores by name, NaN where there is none; to be stored or shown, take :meth:`of_match` and :meth:`of_pair`.

    Attributes:
        matches: the names of :data:`MATCH_SCORES`, ``(n,)`` float64 each.
        pairs: the names of :data:`PAIR_SCORES`, ``(p,)`` float64 each.
        similarity: ``(n,)`` float64 m, the similarity at the match: a match's confidence.
    """

    matches: dict[str, np.ndarray]
    pairs: dict[str, np.ndarray]
    similarity: np.ndarray

    def of_match(self, row: int) -> dict[str, float | None]:
        """The scores of one match by name; None where it cannot be scored."""
        return _row(self.matches, row)

    def of_pair(self, row: int) -> dict[str, float | None]:
        """The scores of one pair by name; None where it cannot be scored."""
        return _row(self.pairs, row)


def label_free_scores(
    evidence: MatchEvidence, *, form: PeakForm = "ratio", temperature: float = 0.02
) -> LabelFreeScores:
    """Every score for which the evidence suffices.

    Args:
        evidence: of any number of pairs; pairs do not influence each other but for ``low_similarity``, which ranks
            within a category.
        form: of the ratios of peaks: ``"gap"`` where similarities are not cosines.
        temperature: of the softmax.

    Raises:
        ConfigError: parts of the evidence do not fit each other.
    """
    pairs = np.asarray(evidence.pairs, int)
    box = np.asarray(evidence.target_box, np.float64)[pairs]
    count = len(evidence.categories)
    cells = cells_of(evidence.matches, evidence.cell)
    strengths = value_at(evidence.similarity, cells)
    matches = {
        "peak_ratio": _peak_ratio(evidence, cells, box, form),
        "mirror_peak_ratio": mirror_peak_ratio(evidence.similarity, cells, _rivals(evidence, cells), form),
        **_mirrored(evidence, box),
        "cycle_error": _cycle(evidence),
        **_sphere(evidence, box),
        "collision": collision(evidence.matches, pairs, evidence.groups, box),
        "assignment_change": assignment_change(
            evidence.similarity, evidence.matches, pairs, evidence.groups, evidence.cell
        ),
        "low_similarity": low_similarity(strengths, np.asarray(evidence.categories, object)[pairs].astype(str)),
        "softmax_spread": softmax_spread(evidence.similarity, temperature),
    }
    gap = _unknown(count)
    if evidence.imd_identity is not None and evidence.imd_mirrored is not None:
        gap = imd_gap(evidence.imd_identity, evidence.imd_mirrored)
    layout = (evidence.points, evidence.matches, pairs, count)
    of_pairs = {
        "imd_gap": gap,
        "reflection_gap": reflection_gap(*layout),
        "triplet_orientation": triplet_orientation(*layout),
    }
    found = np.isfinite(np.asarray(evidence.matches, np.float64)).all(1)
    return LabelFreeScores({name: np.where(found, matches[name], np.nan) for name in MATCH_SCORES}, of_pairs, strengths)


def _row(scores: dict[str, np.ndarray], row: int) -> dict[str, float | None]:
    values = {name: float(column[row]) for name, column in scores.items()}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def _unknown(count: int) -> np.ndarray:
    return np.full(count, np.nan)


def _peak_ratio(evidence: MatchEvidence, cells: np.ndarray, box: np.ndarray, form: PeakForm) -> np.ndarray:
    """The radius is a share of the box: without a box, which peak is the match's own is not known."""
    known = box > 0
    scores = _unknown(len(box))
    radius = PEAK_SHARE * box / evidence.cell
    scores[known] = peak_ratio(np.asarray(evidence.similarity)[known], cells[known], radius[known], form)
    return scores


def _rivals(evidence: MatchEvidence, cells: np.ndarray) -> np.ndarray:
    """Cells where the other side was found, or else would be."""
    partners = np.asarray(evidence.partners, int)
    rivals = np.where((partners >= 0)[:, None], cells[partners] if len(cells) else cells, -1)
    if evidence.reflected is None:
        return rivals
    return np.where((partners >= 0)[:, None], rivals, cells_of(evidence.reflected, evidence.cell))


def _mirrored(evidence: MatchEvidence, box: np.ndarray) -> dict[str, np.ndarray]:
    if evidence.mirrored_matches is None:
        return dict.fromkeys(("mirror_insensitivity", "flip_inconsistency"), _unknown(len(box)))
    width = np.broadcast_to(np.asarray(evidence.canvas_width, np.float64), (len(evidence.categories),))
    back = mirrored_back(evidence.mirrored_matches, width[np.asarray(evidence.pairs, int)])
    return {
        "mirror_insensitivity": mirror_insensitivity(evidence.matches, back, box, evidence.paired),
        "flip_inconsistency": flip_inconsistency(evidence.matches, back, evidence.partners, box),
    }


def _cycle(evidence: MatchEvidence) -> np.ndarray:
    if evidence.returned is None:
        return _unknown(len(evidence.matches))
    box = np.asarray(evidence.source_box, np.float64)[np.asarray(evidence.pairs, int)]
    return cycle_error(evidence.points, evidence.returned, box)


def _sphere(evidence: MatchEvidence, box: np.ndarray) -> dict[str, np.ndarray]:
    scores = dict.fromkeys(("sphere_angle", "sphere_disagreement"), _unknown(len(box)))
    if evidence.sphere_source is not None and evidence.sphere_target is not None:
        scores["sphere_angle"] = sphere_angles(evidence.sphere_source, evidence.sphere_target)
    if evidence.sphere_free_matches is not None:
        scores["sphere_disagreement"] = sphere_disagreement(evidence.matches, evidence.sphere_free_matches, box)
    return scores
