"""Which split each image belongs to: by a field, by tags, or by the dataset it is in."""

from collections.abc import Sequence
from dataclasses import dataclass

import fiftyone as fo
import fiftyone.core.collections as foc
import numpy as np

from ..brain.errors import ConfigError
from ..brain.leakage import NONE

# What splits are usually called: the field, and the tags.
USUAL_FIELD = "split"
USUAL_TAGS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "holdout")

_FIELD_TYPES = (fo.StringField, fo.IntField, fo.BooleanField)

# A field with more values than this is no split, but a name or an id.
_MAX_SPLITS = 50


@dataclass(frozen=True)
class Splits:
    """The images of all splits, split after split.

    Attributes:
        names: name of each split.
        ids: sample ids.
        split: ``(n,)`` int64 number of the split of each.
        several: ids of samples that carry the tags of several splits; they count for the first.
        unassigned: number of samples in no split, which are left out.
    """

    names: tuple[str, ...]
    ids: list[str]
    split: np.ndarray
    several: list[str]
    unassigned: int = 0

    @property
    def sizes(self) -> list[int]:
        """Images per split."""
        return np.bincount(self.split, minlength=len(self.names)).tolist()

    def rows(self, number: int) -> slice:
        """The rows of one split."""
        start, stop = np.searchsorted(self.split, [number, number + 1])
        return slice(int(start), int(stop))


def split_fields(samples: foc.SampleCollection) -> list[str]:
    """Fields that could say which split a sample is in, ``"split"`` first."""
    names = [
        name
        for name, field in samples.get_field_schema().items()
        if isinstance(field, _FIELD_TYPES) and name not in ("id", "filepath")
    ]
    return sorted(names, key=lambda name: (name != USUAL_FIELD, name))


def split_tags(samples: foc.SampleCollection) -> list[str]:
    """The usual names of splits among the tags of a view."""
    there = set(samples.distinct("tags"))
    return [tag for tag in USUAL_TAGS if tag in there]


def read_splits(samples: foc.SampleCollection, by: str | Sequence[str] | None) -> Splits:
    """The splits of a view.

    Args:
        samples: a dataset or flat view.
        by: name of a field; or a list of tags; None looks for a field ``split``, then for the usual tags.

    Raises:
        ConfigError: no such field or tags, or fewer than two splits.
    """
    if by is None:
        by = USUAL_FIELD if samples.get_field(USUAL_FIELD) is not None else split_tags(samples)
    if isinstance(by, str):
        ids, values = _by_field(samples, by)
        names = sorted({value for value in values if value is not None})
        several: list[str] = []
    else:
        names = list(by)
        ids, values, several = _by_tags(samples, names)
        names = [name for name in names if name in set(values)]
    if len(names) < 2:
        raise ConfigError(f"split_field={by!r} tells {len(names)} splits apart, not two or more; {_hint(samples)}")
    if len(names) > _MAX_SPLITS:
        raise ConfigError(f"split_field={by!r} has {len(names):,} values, too many to be splits; {_hint(samples)}")
    number = {name: index for index, name in enumerate(names)}
    split = np.array([number.get(value, NONE) for value in values], np.int64)  # type: ignore[arg-type]
    order = np.argsort(split, kind="stable")[int((split == NONE).sum()) :]
    return Splits(tuple(names), [ids[row] for row in order], split[order], several, unassigned=len(ids) - len(order))


def dataset_splits(samples: foc.SampleCollection, other: foc.SampleCollection) -> Splits:
    """Two collections as two splits, ``samples`` first.

    Raises:
        ConfigError: they share samples.
    """
    own, foreign = samples.values("id"), other.values("id")
    if shared := set(own) & set(foreign):
        raise ConfigError(f"other: {len(shared):,} of its samples are among those to be searched, e.g. {min(shared)}")
    names = (samples._dataset.name, other._dataset.name)
    if names[0] == names[1]:
        names = (names[0], f"{names[0]} (other view)")
    return Splits(names, own + foreign, np.repeat([0, 1], [len(own), len(foreign)]), [])


def _by_field(samples: foc.SampleCollection, path: str) -> tuple[list[str], list[str | None]]:
    if not isinstance(samples.get_field(path), _FIELD_TYPES):
        raise ConfigError(f"split_field={path!r} is no field with text or whole numbers; {_hint(samples)}")
    ids, values = samples.values(["id", path])
    return ids, [None if value is None else str(value) for value in values]


def _by_tags(samples: foc.SampleCollection, tags: Sequence[str]) -> tuple[list[str], list[str | None], list[str]]:
    ids, present = samples.values(["id", "tags"])
    found = [[tag for tag in tags if tag in (own or ())] for own in present]
    several = [sample_id for sample_id, own in zip(ids, found, strict=True) if len(own) > 1]
    return ids, [own[0] if own else None for own in found], several


def _hint(samples: foc.SampleCollection) -> str:
    fields, tags = split_fields(samples), sorted(samples.distinct("tags"))
    texts = [f"{kind}: {', '.join(names[:20])}" for kind, names in (("fields", fields), ("tags", tags)) if names]
    return (
        f"pass a field, or a list of tags; there are {'; '.join(texts)}" if texts else "pass a field or a list of tags"
    )
