"""What the names of keypoints say: side (left or right), place (front, back ...) and part.

Understood are words in English and German (``left_eye``, ``RightPaw``, ``Ohr links``, ``rechtes Auge``), single
letters (``L_Shoulder``, ``ear.r``, ``lEar``), codes of a side and a place (``paw_FL``, ``LH``, ``RR`` for rear right),
and sides that are joined to the part (``leftear``, ``lankle``). A side counts only if the name of the other side exists
as well, so that ``upright`` or a ``lip`` does no harm; everything is decided within one list of names.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["left", "right"]

_SIDES: dict[str, Side] = {
    "l": "left",
    "lt": "left",
    "left": "left",
    "li": "left",
    "links": "left",
    "r": "right",
    "rt": "right",
    "right": "right",
    "re": "right",
    "rechts": "right",
}
_SIDES |= {f"linke{ending}": "left" for ending in ("", "r", "s", "n", "m")}
_SIDES |= {f"rechte{ending}": "right" for ending in ("", "r", "s", "n", "m")}
# Joined to the part without a mark: the longer beginnings first, so that "linkesohr" does not leave "esohr".
_JOINED = sorted((word for word in _SIDES if len(word) > 3), key=len, reverse=True)

_PLACES = {"front", "fore", "f", "vorn", "vorne", "vorder", "vordere", "anterior"}
_PLACES |= {"back", "hind", "rear", "b", "h", "hinten", "hinter", "hintere", "posterior"}
_JOINED_PLACES = {
    **dict.fromkeys(("front", "fore", "vorder"), "front"),
    **dict.fromkeys(("hind", "back", "hinter"), "back"),
}
# A side and a place in one: FL, LF, RL (rear left), LR (left rear), HR, BL ...
_CODES: dict[str, tuple[Side, str]] = {}
for _letter, _place in (("f", "front"), ("b", "back"), ("h", "back"), ("t", "top")):
    for _mark, _side in (("l", "left"), ("r", "right")):
        _CODES[_letter + _mark] = _CODES[_mark + _letter] = (_side, _place)  # type: ignore[assignment]
_CODES |= {"rl": ("left", "back"), "lr": ("left", "back"), "rr": ("right", "back")}

_WORDS = re.compile(r"[A-ZÄÖÜ]+(?![a-zäöüß])|[A-ZÄÖÜ]?[a-zäöüß]+|\d+")


@dataclass(frozen=True)
class ReadNames:
    """What a list of names says.

    Attributes:
        couples: slots of mirror partners, the left one first.
        parts: slots of the same kind of part, two or more each.
        sides: side by slot, of those in a couple.
    """

    couples: tuple[tuple[int, int], ...]
    parts: tuple[tuple[int, ...], ...]
    sides: dict[int, Side]


@dataclass(frozen=True)
class _Reading:
    """One way to read a name: its side, and the words that are left, places and numbers among them."""

    side: Side | None
    words: tuple[str, ...]


def pair_names(names: Sequence[str]) -> ReadNames:
    """Finds mirror couples and part groups in the names of the keypoints of one category.

    Two names are a couple if they differ in nothing but the side; failing that, if they differ in the side and in their
    numbers (``paw1LH`` and ``paw4RH``), as long as there is no choice. A part group are names that differ in side,
    place and number only.
    """
    readings = [list(_readings(name)) for name in names]
    chosen: dict[int, _Reading] = {}
    couples: list[tuple[int, int]] = []
    for numbers in (True, False):
        for left, right in _couples(readings, chosen, numbers=numbers):
            chosen |= {left[0]: left[1], right[0]: right[1]}
            couples.append((left[0], right[0]))
    words = [chosen[slot].words if slot in chosen else readings[slot][-1].words for slot in range(len(names))]
    sides = {slot: side for couple in couples for slot, side in zip(couple, ("left", "right"), strict=True)}
    return ReadNames(tuple(sorted(couples)), _parts(words), sides)  # type: ignore[arg-type]


def _couples(
    readings: Sequence[Sequence[_Reading]], taken: dict[int, _Reading], *, numbers: bool
) -> Iterator[tuple[tuple[int, _Reading], tuple[int, _Reading]]]:
    """Left and right names of the same words, where there is exactly one of each; surer readings come first."""
    used = set(taken)
    for rank in range(max(map(len, readings), default=0)):
        found: dict[tuple[str, ...], dict[Side, list[tuple[int, _Reading]]]] = defaultdict(lambda: defaultdict(list))
        for slot, options in enumerate(readings):
            if slot not in used and rank < len(options) and options[rank].side:
                reading = options[rank]
                words = reading.words if numbers else tuple(word for word in reading.words if not word.isdigit())
                found[tuple(sorted(words))][reading.side].append((slot, reading))  # type: ignore[index]
        for sides in found.values():
            if len(sides["left"]) == len(sides["right"]) == 1:
                used |= {sides["left"][0][0], sides["right"][0][0]}
                yield sides["left"][0], sides["right"][0]


def _readings(name: str) -> Iterator[_Reading]:
    """Ways to read a name, the surest first; the last one has no side."""
    words = [word.lower() for word in _WORDS.findall(name)] or [name]
    for test in (lambda word: len(word) > 2, lambda word: True):
        marks = [index for index, word in enumerate(words) if word in _SIDES and test(word)]
        if len(marks) == 1:
            at = marks[0]
            rest = _placed(words[:at] + words[at + 1 :])
            yield _Reading(_SIDES[words[at]], rest)
    codes = [index for index, word in enumerate(words) if word in _CODES]
    if len(codes) == 1:
        at = codes[0]
        side, place = _CODES[words[at]]
        yield _Reading(side, _placed([*words[:at], *words[at + 1 :], f"<{place}>"]))
    yield from _joined(words)
    yield _Reading(None, _placed(words))


def _joined(words: list[str]) -> Iterator[_Reading]:
    """Readings of a side that is joined to the part, such as ``leftear``, ``earleft`` or, least sure, ``lankle``."""
    for at, word in enumerate(words):
        for mark in _JOINED:
            for rest in (word.removeprefix(mark), word.removesuffix(mark)):
                if rest and rest != word:
                    yield _Reading(_SIDES[mark], _placed([*words[:at], rest, *words[at + 1 :]]))
    for at, word in enumerate(words):
        if word[0] in "lr" and len(word) > 2:
            yield _Reading(_SIDES[word[0]], _placed([*words[:at], word[1:], *words[at + 1 :]]))


def _placed(words: Sequence[str]) -> tuple[str, ...]:
    """The words with those of a place marked, so that they are not taken for parts."""
    return tuple(f"<{word}>" if word in _PLACES and len(words) > 1 else word for word in words)


def _parts(words: Sequence[tuple[str, ...]]) -> tuple[tuple[int, ...], ...]:
    """Slots whose words are the same but for places and numbers."""
    split = [_without_joined_place(entry, words) for entry in words]
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for slot, entry in enumerate(split):
        key = tuple(sorted(word for word in entry if not word.isdigit() and not word.startswith("<")))
        found[key or words[slot]].append(slot)
    return tuple(tuple(slots) for slots in found.values() if len(slots) > 1)


def _without_joined_place(words: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """``forepaw`` as ``paw`` if there is a ``hindpaw``: a forehead stays one."""
    for at, word in enumerate(words):
        for mark, place in _JOINED_PLACES.items():
            rest = word.removeprefix(mark)
            if rest and rest != word:
                opposites = [other + rest for other, its in _JOINED_PLACES.items() if its != place]
                if any((*words[:at], opposite, *words[at + 1 :]) in others for opposite in opposites):
                    return (*words[:at], f"<{place}>", rest, *words[at + 1 :])
    return words
