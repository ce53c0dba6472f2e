"""Tables on keypoints found with and without pose alignment: swaps, PCK, KAP, chosen views and label-free scores."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..brain.correspondence.alignment import AlignedMatches
from ..brain.correspondence.views import IDENTITY, MIRROR
from ..brain.geometry import points_to_canvas
from ..brain.metrics.kap import KapSamples, kap, kap_samples
from ..brain.metrics.keypoint_errors import ErrorFlavour, judge_pair
from ..brain.metrics.keypoints import swapped_points
from ..brain.metrics.label_free import MATCH_SCORES, PAIR_SCORES, MatchEvidence, label_free_scores
from ..brain.metrics.label_free_combine import auroc, confusions
from ..brain.metrics.label_free_pairs import imd_gap
from ..brain.metrics.pck import EvaluatedPair, PckFlavour, pair_verdicts
from .keypoints_data import Question
from .keypoints_matching import DECODINGS, INSTANCE, MUTUAL, NONE, TRUE_POSE, Answers, Features
from .keypoints_resampling import Estimate, counts, drawn_pictures

ALPHA = 0.1

# The alignment that a user has, beside none at all.
COMPARED = (NONE, INSTANCE)

# From this azimuth difference on, in eighths of a circle, alignment is required to help.
TURNED = 2

FLAVOURS = (
    *(
        PckFlavour(ALPHA, average, threshold, points)
        for threshold in ("box", "image")
        for points in ("all", "geometry_aware")
        for average in ("image", "point")
    ),
    *(PckFlavour(alpha, average, "box") for alpha in (0.05, 0.01) for average in ("image", "point")),
)

POSES = {-1: "as the source", 0: "neither", 1: "mirrored"}


class Study:
    """All that is asked of one set of pairs.

    Args:
        questions: the pairs.
        features: of their pictures.
        answers: to the questions, in every way.
        rounds: resamples of the pictures.
        seed: of the resamples.
    """

    def __init__(
        self, questions: Sequence[Question], features: Features, answers: Sequence[Answers], rounds: int, seed: int
    ) -> None:
        self._questions = questions
        self._features = features
        self._answers = {(one.decoding, one.alignment): one for one in answers}
        self._resamples = drawn_pictures([(one.source.id, one.target.id) for one in questions], rounds, seed)
        self._swaps = {key: self._swapped(one.outcomes) for key, one in self._answers.items()}

    def swap_rows(self) -> list[dict[str, Any]]:
        """Share of the points with a visible partner that lie nearer to it, and how much alignment changes it.

        ``swap_mirror`` is the share that lands within a tenth of the box (of the image without one) of the partner.
        """
        rows = []
        for group, members in self._groups().items():
            for (decoding, alignment), answers in self._answers.items():
                swaps, totals = self._within(self._swaps[decoding, alignment], members)
                before, _ = self._within(self._swaps[decoding, NONE], members)
                types, _ = self._within(self._mirror_swaps(answers), members)
                turned = [one.alignment.view != IDENTITY for one in answers.outcomes]
                row = {"group": group, "method": decoding, "alignment": alignment}
                row |= self._resamples.share(swaps, totals).named("swaps")
                if alignment != NONE:
                    row |= self._resamples.share_difference(swaps, before, totals).named("change")
                row |= {"swap_mirror": float(types.sum() / totals.sum()) if totals.sum() else None}
                row |= {"flipped": float(np.mean(np.array(turned)[members])), "n": int(totals.sum())}
                rows.append({**row, "pairs": int((totals > 0).sum())})
        return rows

    def requirement_rows(self) -> list[dict[str, Any]]:
        """Whether alignment lowers the share of swaps where the objects are turned against each other."""
        return [
            {
                "required": f"fewer swaps by {row['alignment']}, {row['group']}",
                "method": row["method"],
                **{name: row[name] for name in ("change", "change_low", "change_high")},
                "verdict": verdict(row["change"], row["change_high"]),
            }
            for row in self.swap_rows()
            if row["group"] == turned_name() and row["alignment"] in (INSTANCE, MUTUAL)
        ]

    def pck_rows(self) -> list[dict[str, Any]]:
        """Every flavour; the pairs without a box have no part in those that take a share of it."""
        rows = []
        for flavour in FLAVOURS:
            for decoding in DECODINGS:
                for alignment in COMPARED:
                    pairs = self._evaluated(self._answers[decoding, alignment].outcomes)
                    usable = [flavour.threshold == "image" or pair.box_wh is not None for pair in pairs]
                    verdicts = [
                        pair_verdicts(pair, flavour) if has else np.zeros(0, bool)
                        for pair, has in zip(pairs, usable, strict=True)
                    ]
                    hits, totals = counts(verdicts)
                    average = self._resamples.share if flavour.average == "point" else self._resamples.mean_share
                    row = {"metric": flavour.label, "method": decoding, "alignment": alignment}
                    row |= average(hits, totals).named("value")
                    rows.append({**row, "n": int(totals.sum()), "pairs": int((totals > 0).sum())})
        return rows

    def kap_rows(self) -> list[dict[str, Any]]:
        """KAP of the pairs whose target has a box; it looks at similarities, so that the decoding does not matter."""
        rows = []
        for alignment in COMPARED:
            evidence = self._answers["window", alignment].evidence
            assert evidence is not None
            samples = self._kap_samples(evidence)
            if samples:
                found = kap(samples, ALPHA)

                def value(chosen: np.ndarray, samples: Sequence[tuple[str, KapSamples]] = samples) -> float:
                    return kap([samples[row] for row in chosen], ALPHA).value

                numbers = np.array([row for row, one in enumerate(self._questions) if _box(one)], int)
                estimate = self._resamples.of_rows(value, numbers)
                row = {"metric": found.label, "alignment": alignment, **estimate.named("value")}
                rows.append({**row, "samples": found.n_samples, "positives": found.n_positives, "pairs": len(samples)})
        return rows

    def pose_rows(self) -> list[dict[str, Any]]:
        """Which view was chosen for which true pose, and the swaps of those pairs before and after."""
        rows = []
        for group, inside in self._groups().items():
            for criterion in (INSTANCE, MUTUAL):
                for pose, words in POSES.items():
                    for mirror in (False, True):
                        members = inside & (self._flipped(criterion) == mirror) & (self._poses() == pose)
                        if members.any():
                            named = {"group": group, "criterion": criterion, "target_faces": words}
                            named["chosen"] = "mirror" if mirror else "as is"
                            rows.append(named | self._consequences(criterion, members))
        return rows

    def _consequences(self, criterion: str, members: np.ndarray) -> dict[str, int]:
        handed = np.array([one.handed_over.sum() for one in self._answers["nearest", criterion].outcomes])
        keys = {"swaps": NONE, "swaps_aligned": criterion, "swaps_true_pose": TRUE_POSE}
        sums = {name: self._within(self._swaps["nearest", key], members) for name, key in keys.items()}
        found = {"pairs": int(members.sum()), "handed_over": int(handed[members].sum())}
        return found | {name: int(hits.sum()) for name, (hits, _) in sums.items()} | {"n": int(sums["swaps"][1].sum())}

    def _flipped(self, criterion: str) -> np.ndarray:
        return np.array([one.alignment.view == MIRROR for one in self._answers["nearest", criterion].outcomes])

    def decision_rows(self) -> list[dict[str, Any]]:
        """How well each criterion tells the poses apart: chance that a pair to be mirrored looks more like it."""
        rows = []
        for group, members in self._groups().items():
            known = np.flatnonzero(members & (self._poses() != 0))
            mirrored = self._poses()[known] > 0
            for criterion in (INSTANCE, MUTUAL):
                gaps = self._gaps(criterion)[known]

                def separation(chosen: np.ndarray, gaps: np.ndarray = gaps, mirrored: np.ndarray = mirrored) -> float:
                    return auroc(gaps[chosen], mirrored[chosen]).auroc

                row: dict[str, Any] = {"group": group, "criterion": criterion}
                row |= self._resamples.of_rows(separation, known).named("auroc")
                shares = {"right": (gaps > 0) == mirrored}
                shares |= {"flipped_when_mirrored": (gaps > 0)[mirrored], "flipped_when_not": (gaps > 0)[~mirrored]}
                row |= {name: float(one.mean()) if len(one) else None for name, one in shares.items()}
                rows.append({**row, "mirrored": int(mirrored.sum()), "not": int((~mirrored).sum())})
        return rows

    def label_free_rows(self) -> list[dict[str, Any]]:
        """AUROC of each score for mistaken parts (swaps and phantoms), against all other matches and correct ones."""
        answers = self._answers["window", NONE]
        assert answers.evidence is not None
        scores = label_free_scores(answers.evidence)
        pairs = np.asarray(answers.evidence.pairs)
        columns: dict[str, np.ndarray] = {name: scores.matches[name] for name in MATCH_SCORES}
        columns |= {f"{name} (pair)": scores.pairs[name][pairs] for name in PAIR_SCORES}
        types = np.concatenate([one.types for one in self._judged(answers.outcomes)])
        judged = np.array([one is not None for one in types])
        errors = confusions(types)
        correct = np.isin(types.astype(str), ("correct", "correct_ambiguous"))
        rows = []
        for name, values in columns.items():
            scored = judged & np.isfinite(values)
            row: dict[str, Any] = {"score": name}
            row |= self._separation(values, errors, scored, pairs).named("auroc")
            row |= self._separation(values, errors, scored & (errors | correct), pairs).named("vs_correct")
            rows.append({**row, "scorable": int(scored.sum()), "mistaken": int((errors & scored).sum())})
        return [{**row, "n": int(judged.sum())} for row in rows]

    def _separation(self, values: np.ndarray, errors: np.ndarray, chosen: np.ndarray, pairs: np.ndarray) -> Estimate:
        rows = np.flatnonzero(chosen)
        return self._resamples.of_rows(lambda some: auroc(values[rows[some]], errors[rows[some]]).auroc, pairs[rows])

    def _groups(self) -> dict[str, np.ndarray]:
        """All pairs, and those of each part or, where azimuths are known, of small and large turns."""
        turns = [one.azimuth_difference for one in self._questions]
        groups = {"all": np.ones(len(turns), bool)}
        if all(turn is not None for turn in turns):
            large = np.array(turns) >= TURNED
            split = {f"azimuth difference < {TURNED}": ~large, turned_name(): large}
            return groups | {name: members for name, members in split.items() if members.any()}
        parts = np.array([one.part for one in self._questions])
        names = sorted(set(parts))
        return groups if len(names) > 4 else {**groups, **{str(name): parts == name for name in names}}

    def _poses(self) -> np.ndarray:
        return np.array([one.pose for one in self._questions])

    def _gaps(self, criterion: str) -> np.ndarray:
        found = [one.alignment.distances for one in self._answers["nearest", criterion].outcomes]
        return imd_gap(np.array([one[IDENTITY] for one in found]), np.array([one[MIRROR] for one in found]))

    def _swapped(self, outcomes: Sequence[AlignedMatches]) -> list[np.ndarray]:
        verdicts = []
        for one, outcome in zip(self._questions, outcomes, strict=True):
            chosen, partners = one.can_swap, one.groups.permutation
            points, targets = outcome.matches.points[chosen], one.targets
            verdicts.append(swapped_points(points, targets[chosen], targets[partners][chosen]))
        return verdicts

    def _mirror_swaps(self, answers: Answers) -> list[np.ndarray]:
        judged = zip(self._questions, self._judged(answers.outcomes), strict=True)
        return [errors.types[one.can_swap] == "swap_mirror" for one, errors in judged]

    def _judged(self, outcomes: Sequence[AlignedMatches]) -> Iterator[Any]:
        for one, pair in zip(self._questions, self._evaluated(outcomes), strict=True):
            flavour = ErrorFlavour(ALPHA, "image" if pair.box_wh is None else "box")
            yield judge_pair(pair, one.groups.permutation, flavour)

    def _evaluated(self, outcomes: Sequence[AlignedMatches]) -> list[EvaluatedPair]:
        pairs = []
        for one, outcome in zip(self._questions, outcomes, strict=True):
            height, width = self._features[one.target.id, one.target_view].geometry.image_hw
            box = _box(one)
            pairs.append(
                EvaluatedPair(
                    outcome.matches.points,
                    one.targets,
                    one.shown,
                    one.found,
                    one.groups.group_ids,
                    None if box is None else (box[2], box[3]),
                    (width, height),
                    one.category,
                    one.azimuth_difference,
                )
            )
        return pairs

    def _kap_samples(self, evidence: MatchEvidence) -> list[tuple[str, KapSamples]]:
        """Category and detections of each pair whose target has a box."""
        samples = []
        for number, one in enumerate(self._questions):
            box = _box(one)
            if box is None:
                continue
            geometry = self._features[one.target.id, one.target_view].geometry
            scale = max(geometry.content[2:]) / max(geometry.image_hw)
            shown = one.shown
            found = kap_samples(
                evidence.similarity[np.asarray(evidence.pairs) == number][shown],
                points_to_canvas(one.targets, geometry)[shown],
                one.found[shown],
                ALPHA * max(box[2:]) * scale,
                evidence.cell,
            )
            samples.append((one.category, found))
        return samples

    def _within(self, verdicts: Sequence[np.ndarray], members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits, totals = counts(verdicts)
        return np.where(members, hits, 0), np.where(members, totals, 0)


def verdict(change: float, high: float) -> str:
    """Of a share that must fall: whether it does so clearly, perhaps by chance, or not at all."""
    if high < 0:
        return "pass"
    return "not shown" if change < 0 else "FAIL"


def turned_name() -> str:
    """What the pairs are called in which alignment must help."""
    return f"azimuth difference >= {TURNED}"


def _box(question: Question) -> Sequence[float] | None:
    return question.target.extra.get("bbox")


def tables(study: Study) -> Mapping[str, list[dict[str, Any]]]:
    """All tables of a study by their headings, those without rows left out."""
    found = {
        "swaps: points nearer to their left-right partner; change: against no alignment": study.swap_rows(),
        f"required where objects are turned by {TURNED} eighths or more": study.requirement_rows(),
        "does the criterion know which way the target faces? (auroc: chance .5)": study.decision_rows(),
        "true pose and chosen view, with numbers of swaps": study.pose_rows(),
        "PCK": study.pck_rows(),
        "KAP": study.kap_rows(),
        "label-free scores: AUROC for mistaken parts (swaps and phantoms), window, no alignment": (
            study.label_free_rows()
        ),
    }
    return {title: rows for title, rows in found.items() if rows}
