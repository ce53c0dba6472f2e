"""How correspondences are stored: a label per match on both slices, and what they say of the pair."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import numpy as np

from ..brain.metrics.keypoint_errors import ERROR_TYPES
from ..brain.metrics.label_free import PAIR_SCORES
from .correspondence_pairs import POINT_SCORES, PairMatches
from .correspondence_setup import CorrespondenceOptions
from .dataset_io import FieldSpec, declare_fields, readable_and_internal, show_in_sidebar
from .item_fields import Place, write_items
from .pairs import SLICES, PairRow
from .stored_kap import LABELS, SCORES, kap_values

METHOD = "compute_correspondences"

# From harmless to grave: what takes one part for another comes after what merely misses.
SEVERITY = (
    "correct",
    "correct_ambiguous",
    "jitter",
    "not_in_target",
    "miss_object",
    "miss_background",
    "swap_other",
    "phantom_group",
    "phantom_mirror",
    "swap_group",
    "swap_mirror",
)
SWAPS = ("swap_mirror", "swap_group", "swap_other")

# What is ranked over all pairs of a dataset, see :mod:`.correspondence_table`.
LOW_SIMILARITY, SUSPICION = "low_similarity", "suspicion"

_KEYPOINTS = {"embedded_doc_type": fo.Keypoints}

_POINT_TEXTS = {
    "peak_ratio": "Height of the highest other peak over that of the match",
    "mirror_peak_ratio": "Similarity at the match of the mirror partner over that at the match",
    "mirror_insensitivity": "How near the match in the mirrored target is, mirrored back: 1 is the same place",
    "flip_inconsistency": "Distance to the match of the partner in the mirrored target, over the box",
    "cycle_error": "How far from its start the way there and back ends, over the box",
    "collision": "1 where another keypoint of the part group was found in the same place",
    "assignment_change": "1 where giving out the places of the part group anew moves the keypoint",
    "softmax_spread": "How widely the similarities are spread, from 0 to 1",
    LOW_SIMILARITY: "Rank of a low similarity among all matches of the category, from 0 to 1",
    SUSPICION: "Mean rank of the scores that need no annotations, from 0 to 1; higher is more suspicious",
}
_PAIR_TEXTS = {
    "imd_gap": "Above 0, the mirrored target is nearer to the source than the target is",
    "reflection_gap": "How much better a mirrored layout explains the matches, from -1 to 1",
    "triplet_orientation": "Share of the triplets of keypoints that are turned round",
}


@dataclass(frozen=True)
class CorrespondenceFields:
    """The fields that belong to a key.

    Attributes:
        key: the Keypoints field; the others begin with it.
        options: of the run, which decide what there is to store.
    """

    key: str
    options: CorrespondenceOptions

    def name(self, short: str) -> str:
        """The name of a field of the pair."""
        return f"{self.key}_{short}"

    def point_path(self, attribute: str) -> str:
        """The path of an attribute of every match."""
        return f"{self.key}.keypoints.{attribute}"

    @property
    def pck(self) -> str:
        """The field with the PCK, whose name says which one it is."""
        return self.name(self.options.pck_flavour.key)

    @property
    def scores(self) -> tuple[str, ...]:
        """Label-free scores of the matches, without what is ranked over all pairs."""
        return POINT_SCORES if self.options.label_free else ()

    @property
    def ranks(self) -> tuple[str, ...]:
        """What is ranked over all pairs."""
        return (LOW_SIMILARITY, SUSPICION) if self.options.label_free else ()

    @property
    def pair_scores(self) -> tuple[str, ...]:
        """Label-free scores of the pairs."""
        return PAIR_SCORES if self.options.label_free else ()

    @property
    def point_specs(self) -> dict[str, FieldSpec]:
        """The attributes of every match by path."""
        length = self.options.error_flavour.threshold
        rows: dict[str, tuple[type, str]] = {
            "error_type": (fo.StringField, f"What became of the keypoint ({self.options.error_flavour.label})"),
            "distance": (fo.FloatField, f"Distance from the true place as a share of the {length}'s longer side"),
            "mutual": (fo.BooleanField, "Whether the way back leads to the cell of the keypoint"),
            "handed_over": (fo.BooleanField, "Whether the match is that of the turned source"),
            **{name: (fo.FloatField, _POINT_TEXTS[name]) for name in (*self.scores, *self.ranks)},
        }
        return {self.point_path(name): FieldSpec(kind, text) for name, (kind, text) in rows.items()}

    @property
    def specs(self) -> dict[str, FieldSpec]:
        """All fields of the samples by name, those for readers first."""
        of = self.options.error_flavour
        rows: dict[str, tuple[type, str]] = {
            "matches": (fo.IntField, "Number of matches"),
            "score": (fo.FloatField, "Mean similarity of the matches"),
            "consistency": (fo.FloatField, "Share of the matches whose way back leads to where they came from"),
            "category": (fo.StringField, "What the keypoints of the source are of"),
            "view": (fo.StringField, "How the source was turned to face as the target does"),
            "distance": (fo.FloatField, "Instance matching distance of both pictures as they are"),
            "distance_mirrored": (fo.FloatField, "Instance matching distance to the mirrored target"),
            "swaps": (fo.IntField, f"Keypoints that were found at another one's place ({of.label})"),
            "worst": (fo.FloatField, f"Largest distance from a true place, as a share of the {of.threshold}'s side"),
            "worst_type": (fo.StringField, f"The gravest of the error types of the pair ({of.label})"),
            "inverted": (fo.BooleanField, "Whether exchanging mirror partners mends the pair"),
            "judged": (fo.IntField, "Keypoints that are annotated in both images, which the PCK is of"),
            **{name: (fo.FloatField, _PAIR_TEXTS[name]) for name in self.pair_scores},
        }
        if self.options.label_free:
            rows[SUSPICION] = (fo.FloatField, "Highest suspicion of a match of the pair, from 0 to 1")
        specs = {
            self.key: FieldSpec(fo.EmbeddedDocumentField, "Matches, as one instance each on both sides", _KEYPOINTS)
        }
        specs |= {self.name(short): FieldSpec(kind, text) for short, (kind, text) in rows.items()}
        specs[self.pck] = FieldSpec(fo.FloatField, f"{self.options.pck_flavour.label}, of this pair alone")
        for short, kind, text in (
            (LABELS, fo.BooleanField, "Whether each detection of a keypoint is its true place, for KAP"),
            (SCORES, fo.FloatField, "Similarity of each detection within the pair, for KAP"),
        ):
            specs[self.name(short)] = FieldSpec(fo.ListField, text, {"subfield": kind}, internal=True)
        specs[self.name("error")] = FieldSpec(fo.StringField, "Why this pair could not be matched", internal=True)
        specs[self.name("provenance")] = FieldSpec(
            fo.StringField, "Hash of files, keypoints and all settings; lets a re-run skip the pair", internal=True
        )
        return specs

    def declare(self, pairs: fo.Dataset, info: Mapping[str, Any]) -> None:
        """Declares the fields and puts them in the sidebar; what this run with other settings left behind goes."""
        for name, existing in pairs.get_field_schema().items():
            made_by = existing.info or {}
            if name not in self.specs and (made_by.get("method"), made_by.get("run")) == (METHOD, self.key):
                pairs.delete_sample_field(name)
        declare_fields(pairs, {**self.specs, **self.point_specs}, dict(info))
        show_in_sidebar(pairs, *readable_and_internal(self.specs))


@dataclass(frozen=True)
class MatchedPair:
    """The matches of a pair, or why there are none, with the provenance to store."""

    row: PairRow
    outcome: PairMatches | str
    provenance: str | None


def write_correspondences(pairs: fo.Dataset, fields: CorrespondenceFields, found: Sequence[MatchedPair]) -> None:
    """Writes matches to both slices.

    Args:
        pairs: the pair dataset, whose fields are declared.
        fields: the fields of the key.
        found: the matches; a failure clears what an earlier run left.
    """
    rows = []
    for matched in found:
        for side, values in zip(SLICES, _sides(fields, matched), strict=True):
            member = getattr(matched.row, side)
            rows.append((member.id, member.id, values))
    write_items(pairs, Place(), rows)


def gravest(types: Iterable[str]) -> str | None:
    """The gravest of some error types; None where there is none."""
    return max(types, key=SEVERITY.index, default=None)


def number(value: Any) -> float | None:
    """A float as the database keeps it: None for what is not known."""
    return float(value) if value is not None and math.isfinite(value) else None


def _sides(fields: CorrespondenceFields, matched: MatchedPair) -> tuple[dict[str, Any], dict[str, Any]]:
    blank = dict.fromkeys(fields.specs)
    outcome = matched.outcome
    if isinstance(outcome, str):
        failed = {**blank, fields.name("error"): outcome}
        return failed, dict(failed)
    shared = {**blank, **_pair_values(fields, outcome), fields.name("provenance"): matched.provenance}
    attributes = [_attributes(outcome, index) for index in range(len(outcome.names))]
    instances = [fo.Instance() for _ in outcome.names]
    sides = []
    for points in (outcome.source, outcome.target):
        labels = [
            fo.Keypoint(
                label=name,
                points=[[float(x), float(y)]],
                confidence=[float(outcome.similarity[index])],
                instance=instances[index],
                **attributes[index],
            )
            for index, (name, (x, y)) in enumerate(zip(outcome.names, points, strict=True))
        ]
        sides.append({**shared, fields.key: fo.Keypoints(keypoints=labels).to_dict()})
    return sides[0], sides[1]


def _attributes(outcome: PairMatches, index: int) -> dict[str, Any]:
    """What is known of a match besides its places and its similarity."""
    return {
        "error_type": None if outcome.types is None else outcome.types[index],
        "distance": None if outcome.distances is None else number(outcome.distances[index]),
        "mutual": bool(outcome.mutual[index]),
        "handed_over": bool(outcome.handed_over[index]),
        **{name: number(values[index]) for name, values in outcome.scores.items()},
    }


def _pair_values(fields: CorrespondenceFields, outcome: PairMatches) -> dict[str, Any]:
    n = len(outcome.names)
    known = [] if outcome.types is None else [str(kind) for kind in outcome.types if kind in ERROR_TYPES]
    far = np.empty(0) if outcome.distances is None else outcome.distances[np.isfinite(outcome.distances)]
    short = {
        "matches": n,
        "score": number(outcome.similarity.mean()) if n else None,
        "consistency": number(outcome.mutual.mean()) if n else None,
        "category": outcome.category or None,
        "view": outcome.view,
        "distance": number(outcome.distance),
        "distance_mirrored": number(outcome.distance_mirrored),
        "swaps": None if outcome.types is None else sum(kind in SWAPS for kind in known),
        "worst": number(far.max()) if len(far) else None,
        "worst_type": gravest(known),
        "inverted": outcome.inverted,
        "judged": None if outcome.types is None else outcome.judged,
        **{name: number(value) for name, value in outcome.pair_scores.items()},
        **kap_values(outcome.kap),
    }
    return {**{fields.name(name): value for name, value in short.items()}, fields.pck: number(outcome.pck)}
