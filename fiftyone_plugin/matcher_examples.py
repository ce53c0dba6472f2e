"""Labelled pairs to train a matcher on: labels, a reviewer's decisions, or product names with mined hard negatives."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import fiftyone.core.collections as foc

from ..brain.cosalient.pair_data import PairExample, mine_pairs, split_pairs
from ..brain.errors import ConfigError, ImageError
from ..brain.images import decode_image
from ..brain.pairs import exhaust
from .match_setup import mask_files
from .pair_decisions import ACCEPT, pair_verdicts
from .pairs import MATCH, flat_pairs, is_pair_dataset, read_pairs
from .vectors import read_vectors

# Where the answer of a pair is taken from.
BOTH, LABEL, DECISIONS = "both", "label", "decisions"
LABELS = (BOTH, LABEL, DECISIONS)

_TRAIN, _VALIDATION = ("train", "training"), ("validation", "val", "valid")


@dataclass
class Examples:
    """Pairs with an answer.

    Attributes:
        pairs: all of them.
        splits: of both images of each pair; empty without a split field.
        failed: reason by file of pictures that cannot be read; their pairs are left out.
    """

    pairs: list[PairExample]
    splits: list[tuple[str | None, str | None]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def halves(self, share: float, seed: int) -> tuple[list[PairExample], list[PairExample]]:
        """To train on and to validate on: as the split field says, else by lot.

        Raises:
            ConfigError: one of them has too few pairs.
        """
        if not self.splits:
            return split_pairs(self.pairs, share, seed)
        found = [
            [pair for pair, both in zip(self.pairs, self.splits, strict=True) if all(s in names for s in both)]
            for names in (_TRAIN, _VALIDATION)
        ]
        for half, pairs in zip(("train", "validation"), found, strict=True):
            if len({pair.match for pair in pairs}) < 2:
                raise ConfigError(f"split {half!r} has no matching or no other pairs; label more, or leave split out")
        return found[0], found[1]


def pair_examples(
    samples: foc.SampleCollection, *, labels: str = BOTH, masks: str | None = None, split: str | None = None
) -> Examples:
    """The labelled pairs of a pair dataset.

    Args:
        samples: a pair dataset or a view of it.
        labels: ``"label"`` (the field), ``"decisions"`` (tags ``match:accept`` and ``match:reject``) or ``"both"``,
            where decisions overrule labels.
        masks: Segmentation field with what both images show, kept in files; None leaves it open.
        split: field that says ``train`` or ``validation`` of each image.

    Raises:
        ConfigError: an option cannot work, or no pair has an answer.
    """
    rows = read_pairs(samples, ["label"])
    answers = pair_answers(samples, labels)
    if not answers:
        raise ConfigError(
            "no pair has an answer yet: accept and reject some in the Matching panel, or set their field label to"
            " match or non_match"
        )
    flat = flat_pairs(samples)
    chosen = [row for row in rows if row.pair_id in answers]
    files = mask_files(flat, masks, [member.id for row in chosen for member in (row.source, row.target)])
    split_of = _values(flat, split)
    pairs = [
        PairExample(
            row.source.filepath,
            row.target.filepath,
            answers[row.pair_id],
            files.get(row.source.id) if answers[row.pair_id] else None,
            files.get(row.target.id) if answers[row.pair_id] else None,
        )
        for row in chosen
    ]
    splits = [(split_of.get(row.source.id), split_of.get(row.target.id)) for row in chosen] if split else []
    return _readable(pairs, splits)


def pair_answers(samples: foc.SampleCollection, labels: str = BOTH) -> dict[str, bool]:
    """Whether both images show the same object, by ``pair_id`` of each pair that has an answer.

    Raises:
        ConfigError: ``labels`` is unknown, or the view holds no pairs.
    """
    if labels not in LABELS:
        raise ConfigError(f"labels={labels!r} is unknown; use one of {', '.join(LABELS)}")
    rows = read_pairs(samples, ["label"])
    verdicts = pair_verdicts(samples) if labels != LABEL else {}
    return {
        row.pair_id: verdicts[row.pair_id] == ACCEPT if row.pair_id in verdicts else row.values["label"] == MATCH
        for row in rows
        if row.pair_id in verdicts or (labels != DECISIONS and row.values["label"] is not None)
    }


def product_examples(
    samples: foc.SampleCollection, product: str, vectors: str, *, count: int, seed: int, split: str | None = None
) -> Examples:
    """Pairs of images of one product, and of look-alikes of different products.

    Args:
        samples: a flat dataset or view.
        product: field with the product of each image.
        vectors: field of vectors by which images look alike.
        count: most pairs.
        seed: of the lot.
        split: field that says ``train`` or ``validation`` of each image.

    Raises:
        ConfigError: a field cannot be used, or there is nothing to learn from.
    """
    if is_pair_dataset(samples):
        raise ConfigError(f"product={product!r} is for images; these are pairs, which have labels of their own")
    names = _values(samples, product)
    split_of = _values(samples, split)
    table = exhaust(read_vectors(samples, vectors))
    paths = dict(zip(*samples.values(["id", "filepath"]), strict=True))
    products = [None if names[one] is None else str(names[one]) for one in table.ids]
    mined = mine_pairs(table.matrix, products, count=count, seed=seed)
    ids = [(table.ids[i], table.ids[j], match) for i, j, match in mined]
    pairs = [
        PairExample(paths[a], paths[b], match, object_a=str(names[a]), object_b=str(names[b])) for a, b, match in ids
    ]
    return _readable(pairs, [(split_of.get(a), split_of.get(b)) for a, b, _ in ids] if split else [])


def _values(samples: foc.SampleCollection, name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    if samples.get_field(name) is None:
        raise ConfigError(f"dataset {samples._dataset.name!r} has no field {name!r}")
    return dict(zip(*samples.values(["id", name]), strict=True))


def _readable(pairs: Sequence[PairExample], splits: Sequence[tuple[str | None, str | None]]) -> Examples:
    failed = _failures(sorted({path for one in pairs for path in (one.path_a, one.path_b)}))
    kept = [row for row, one in enumerate(pairs) if one.path_a not in failed and one.path_b not in failed]
    return Examples([pairs[row] for row in kept], [splits[row] for row in kept] if splits else [], dict(failed))


def _failures(paths: Sequence[str]) -> Mapping[str, str]:
    def reason(path: str) -> str | None:
        try:
            decode_image(path)
        except ImageError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(2, thread_name_prefix="selfsame-examples") as pool:
        return {path: why for path, why in zip(paths, pool.map(reason, paths), strict=True) if why}
