"""Which keypoints are the same kind of part, and which are mirror partners: from tables, from names, or as told.

A *part group* holds the keypoints that look alike because they are the same kind of part (four paws, two wing tips). A
*mirror couple* holds the two keypoints that change places when the picture is mirrored from left to right. They are
different things: in SPair-71k the two eyes of a cat are a couple but no group.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError
from .keypoint_names import Side, pair_names

_TABLES = Path(__file__).with_name("keypoint_tables.json")


@dataclass(frozen=True)
class KeypointGroups:
    """The keypoints of a category.

    Attributes:
        names: K names, by slot.
        groups: K numbers; slots of the same number are the same kind of part, and a number of its own means a part that
            the object has once.
        partners: K slots; the mirror partner, or the slot itself where there is none. Applied twice it leads back.
        sides: K times ``"left"``, ``"right"``, or None for a keypoint on the plane of symmetry or without a side.

    Raises:
        ConfigError: the lengths differ, or ``partners`` is not its own inverse.
    """

    names: tuple[str, ...]
    groups: tuple[int, ...]
    partners: tuple[int, ...]
    sides: tuple[Side | None, ...]

    def __post_init__(self) -> None:
        size = len(self.names)
        if not size == len(self.groups) == len(self.partners) == len(self.sides):
            raise ConfigError("names, groups, partners and sides of keypoints differ in length")
        for slot, partner in enumerate(self.partners):
            if not 0 <= partner < size or self.partners[partner] != slot:
                raise ConfigError(f"keypoint {self.names[slot]!r}: its mirror partner does not have it as partner")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def group_ids(self) -> np.ndarray:
        """``(K,)`` int numbers of the part groups."""
        return np.array(self.groups, int)

    @property
    def permutation(self) -> np.ndarray:
        """``(K,)`` int: slot i of a mirrored picture takes the mirrored place of slot ``permutation[i]``."""
        return np.array(self.partners, int)

    @property
    def couples(self) -> tuple[tuple[str, str], ...]:
        """The mirror couples by name, the lower slot first."""
        return tuple((self.names[a], self.names[b]) for a, b in enumerate(self.partners) if a < b)

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """The part groups of two or more keypoints, by name."""
        members: dict[int, list[str]] = {}
        for name, group in zip(self.names, self.groups, strict=True):
            members.setdefault(group, []).append(name)
        return tuple(tuple(names) for names in members.values() if len(names) > 1)

    def permutation_given(self, visible: np.ndarray) -> np.ndarray:
        """The permutation with only those couples exchanged of which both are visible.

        Args:
            visible: ``(..., K)`` bool.

        Returns:
            ``(..., K)`` int; as :attr:`permutation`, and the slot itself where either is hidden.
        """
        visible = np.asarray(visible, bool)
        both = visible & visible[..., self.permutation]
        return np.where(both, self.permutation, np.arange(len(self)))

    def resized(self, slots: int) -> KeypointGroups:
        """With more slots at the end, each alone: data sets store as many as their richest category has.

        Raises:
            ConfigError: there are more already.
        """
        if slots < len(self):
            raise ConfigError(f"{slots} keypoint slots cannot hold {len(self)} keypoints")
        extra = range(len(self), slots)
        first = max(self.groups, default=-1) + 1
        return KeypointGroups(
            self.names + tuple(str(slot) for slot in extra),
            self.groups + tuple(range(first, first + len(extra))),
            self.partners + tuple(extra),
            self.sides + (None,) * len(extra),
        )


def known_groups(data_set: str, category: str | None = None) -> KeypointGroups:
    """The keypoints of a public data set, from the table that comes with the package (sources stand in the file).

    Args:
        data_set: ``"spair71k"``, ``"ap10k"`` or ``"coco"``.
        category: of SPair-71k; the others have one list of keypoints for all.

    Raises:
        ConfigError: there is no table of that data set or category.
    """
    tables = _tables()
    if data_set not in tables:
        raise ConfigError(f"no keypoint table of {data_set!r}; there are {', '.join(sorted(tables))}")
    categories = tables[data_set]
    name = next(iter(categories)) if len(categories) == 1 else category
    if name not in categories:
        raise ConfigError(f"no keypoint table of category {name!r} in {data_set}; there are {', '.join(categories)}")
    table = categories[name]
    names = table["names"] or [str(slot) for slot in range(table["slots"])]
    sides = {slot: side for side in ("left", "right") for slot in table[side]}
    return _assembled(names, table["mirror_couples"], table["parts"].values(), sides)


def groups_from_names(names: Sequence[str]) -> KeypointGroups:
    """Couples and part groups by what the names say of sides and places (see :mod:`.keypoint_names`).

    Every couple is a group too: names cannot tell that two things of the same name look different.

    Args:
        names: of the keypoints by slot, such as the labels of a skeleton.

    Raises:
        ConfigError: a name occurs twice.
    """
    read = pair_names(_distinct(names))
    return _assembled(names, read.couples, read.parts, read.sides)


def groups_from_couples(
    names: Sequence[str],
    couples: Iterable[Sequence[str]],
    parts: Iterable[Sequence[str]] | None = None,
    *,
    first_is: Side | None = None,
) -> KeypointGroups:
    """Couples and part groups as the user tells them.

    Args:
        names: of the keypoints by slot.
        couples: two names each.
        parts: the names of each part group; None makes a group of every couple.
        first_is: the side of the first name of every couple; None where it is not known.

    Raises:
        ConfigError: a name is unknown or occurs twice in what must be distinct, or a couple does not have two names.
    """
    slots = {name: slot for slot, name in enumerate(_distinct(names))}
    pairs = [_slots_of(couple, slots, "couple") for couple in couples]
    if any(len(pair) != 2 for pair in pairs):
        raise ConfigError("a mirror couple has two keypoints; give such as `left ear` and `right ear`")
    _each_once(pairs, names, "mirror couple")
    groups = pairs if parts is None else [_slots_of(part, slots, "part group") for part in parts]
    _each_once(groups, names, "part group")
    sides: dict[int, Side] = {}
    if first_is is not None:
        other: Side = "right" if first_is == "left" else "left"
        sides = {slot: side for pair in pairs for slot, side in zip(pair, (first_is, other), strict=True)}
    return _assembled(names, pairs, groups, sides)


def groups_from_table(table: Mapping[str, Any]) -> KeypointGroups:
    """Couples and part groups from an entry of a ``keypoint_groups.json``.

    Args:
        table: has ``flip_permutation`` and ``geometry_groups`` (slots), and may have ``names`` (or
            ``keypoint_names``) and ``side`` (0 middle, 1 left, 2 right).

    Raises:
        ConfigError: an entry is missing or does not fit.
    """
    try:
        flip = [int(slot) for slot in table["flip_permutation"]]
        names = [str(name) for name in table.get("names") or table.get("keypoint_names") or range(len(flip))]
        parts = [[int(slot) for slot in part] for part in table["geometry_groups"]]
        numbers = [int(side) for side in table.get("side") or [0] * len(flip)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"not a table of keypoint groups ({error!r})") from error
    if not len(names) == len(numbers) == len(flip):
        raise ConfigError(f"{len(names)} names, {len(numbers)} sides and {len(flip)} slots in `flip_permutation`")
    if any(not 0 <= slot < len(flip) for slot in itertools.chain(flip, *parts)) or not set(numbers) <= {0, 1, 2}:
        raise ConfigError(f"slots must be 0 to {len(flip) - 1}, and sides 0, 1 or 2")
    if any(flip[other] != slot for slot, other in enumerate(flip)):
        raise ConfigError("`flip_permutation` is not its own inverse")
    _each_once(parts, names, "part group")
    sides = {slot: ("left", "right")[number - 1] for slot, number in enumerate(numbers) if number}
    return _assembled(names, [(slot, other) for slot, other in enumerate(flip) if slot < other], parts, sides)


def parse_couples(text: str) -> list[tuple[str, str]]:
    """Couples typed into a form: ``left ear = right ear; left eye = right eye``, or one on each line.

    Raises:
        ConfigError: a couple does not have two names.
    """
    couples = []
    for entry in filter(None, (part.strip() for part in text.replace("\n", ";").split(";"))):
        names = [name.strip() for name in entry.split("=")]
        if len(names) != 2 or not all(names):
            raise ConfigError(f"{entry!r} is no mirror couple; write `left ear = right ear`, couples parted by `;`")
        couples.append((names[0], names[1]))
    return couples


@functools.cache
def _tables() -> dict[str, dict[str, Any]]:
    content = json.loads(_TABLES.read_text("utf-8"))
    return {name: tables for name, tables in content.items() if name != "about"}


def _assembled(
    names: Sequence[str],
    couples: Iterable[Sequence[int]],
    parts: Iterable[Sequence[int]],
    sides: Mapping[int, Any],
) -> KeypointGroups:
    """Slots to arrays: groups are numbered by their lowest slot, those alone included."""
    size = len(names)
    partners, lowest = list(range(size)), list(range(size))
    for a, b in couples:
        partners[a], partners[b] = b, a
    for part in parts:
        for slot in part:
            lowest[slot] = min(part)
    number = {slot: index for index, slot in enumerate(sorted(set(lowest)))}
    groups = tuple(number[slot] for slot in lowest)
    return KeypointGroups(tuple(names), groups, tuple(partners), tuple(sides.get(slot) for slot in range(size)))


def _distinct(names: Sequence[str]) -> Sequence[str]:
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    if twice:
        raise ConfigError(f"keypoint {twice[0]!r} stands twice among the names; give each its own")
    return names


def _slots_of(entry: Sequence[str], slots: Mapping[str, int], kind: str) -> list[int]:
    unknown = [name for name in entry if name not in slots]
    if unknown:
        raise ConfigError(f"{kind}: no keypoint is called {unknown[0]!r}; there are {', '.join(slots)}")
    return [slots[name] for name in entry]


def _each_once(entries: Iterable[Sequence[int]], names: Sequence[str], kind: str) -> None:
    seen: set[int] = set()
    for slot in (slot for entry in entries for slot in entry):
        if slot in seen:
            raise ConfigError(f"keypoint {names[slot]!r} stands in more than one {kind}")
        seen.add(slot)
