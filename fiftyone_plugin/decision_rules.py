"""What an action of a reviewer means for the members of groups: tags, decisions and new groups; writes nothing."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..brain.errors import ConfigError
from ..brain.same_shot import KINDS
from .decision_log import Change, Links
from .decision_members import TAGS, Member, ReviewedRun

ACTIONS = ("keep_best", "keep_all", "keep_chosen", "keep_shots", "reject", "split", "merge", "confirm", "name")

_DECISIONS = {tag: decision for decision, tag in TAGS.items()}

# Ids → vector by id, of those that have one.
Vectors = Callable[[Sequence[str]], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Request:
    """What a reviewer asked for."""

    action: str
    groups: tuple[int, ...]
    members: tuple[str, ...] = ()
    name: str | None = None


@dataclass
class Plan:
    """What a request comes to.

    Attributes:
        changes: what is to be written.
        links: what it says about who belongs together.
        by_hand: members whose contrary tag, given by hand, was respected.
        result: the groups afterwards.
    """

    changes: list[Change] = field(default_factory=list)
    links: Links = field(default_factory=Links)
    by_hand: int = 0
    result: tuple[int, ...] = ()


class Draft:
    """New values and tags of some members, collected until they become changes."""

    def __init__(self, run: ReviewedRun, members: Iterable[Member]) -> None:
        self.run = run
        self.members = {member.id: member for member in members}
        self.by_hand = 0
        self._values: dict[str, dict[str, Any]] = defaultdict(dict)
        self._tags: dict[str, tuple[set[str], set[str]]] = {}

    def set(self, member: Member, **values: Any) -> None:
        """Sets values by short name; fields that the run does not have are left out."""
        names = self.run.names
        self._values[member.id] |= {names[short]: value for short, value in values.items() if short in names}

    def get(self, member: Member, short: str) -> Any:
        """A value as it will be."""
        name = self.run.names.get(short)
        return self._values.get(member.id, {}).get(name, member[short])

    def decide(self, member: Member, decision: str | None, *, firm: bool = False) -> None:
        """Gives a decision and its tag, and takes off the tags of earlier decisions.

        A contrary tag that somebody gave by hand stands instead.

        Args:
            firm: the reviewer chose this very member, which also overrules a tag given by hand.
        """
        wanted = TAGS.get(decision or "")
        present = set(TAGS.values()).intersection(member.tags)
        by_hand = present - set(member.ours.values())
        contrary = sorted(by_hand - {wanted})
        if contrary and not firm and wanted is not None:
            self.by_hand += 1
            decision, wanted = _DECISIONS[contrary[0]], None
        removed = present - {wanted} - (set() if firm else by_hand)
        added = {wanted} - present if wanted else set()
        self._tags[member.id] = added, removed
        own = self.run.name("tagged")
        for name, tag in member.ours.items():
            if tag in removed:
                self._values[member.id][name] = None
        if added:
            self._values[member.id][own] = wanted
        self.set(member, decision=decision)

    def changes(self) -> list[Change]:
        """All that differs from what is there."""
        shorts = {name: short for short, name in self.run.names.items()}
        found = []
        for member_id, member in self.members.items():
            values = self._values.get(member_id, {})
            before = {name: member[shorts[name]] if name in shorts else member.ours.get(name) for name in values}
            after = {name: value for name, value in values.items() if value != before[name]}
            added, removed = self._tags.get(member_id, (set(), set()))
            if after or added or removed:
                old = {name: before[name] for name in after}
                tags = tuple(sorted(added)), tuple(sorted(removed))
                found.append(Change(member_id, member.sample_id, old, after, *tags))
        return found


def plan(run: ReviewedRun, request: Request, members: Sequence[Member], vectors: Vectors) -> Plan:
    """What a request comes to.

    Args:
        members: all members of the groups of the request.
        vectors: reads vectors, for the similarity to another keeper.

    Raises:
        ConfigError: the request cannot be met.
    """
    groups: dict[int, list[Member]] = {group: [] for group in request.groups}
    for member in members:
        groups[member["group"]].append(member)
    if gone := [group for group, found in groups.items() if not found]:
        raise ConfigError(f"run {run.key!r} has no group {', '.join(map(str, gone))}; look at its groups again")
    draft = Draft(run, members)
    links, result = _RULES[request.action](draft, request, groups, vectors)
    return Plan(draft.changes(), links, draft.by_hand, tuple(result))


# ------------------------------------------------------------------------------------------------ what to keep


def _keep_best(draft: Draft, request: Request, groups: Mapping[int, list[Member]], _: Vectors) -> Any:
    for members in groups.values():
        _keep(draft, members, best_of(members, all_keepers=True))
    return _together(groups), groups


def _keep_all(draft: Draft, request: Request, groups: Mapping[int, list[Member]], _: Vectors) -> Any:
    for members in groups.values():
        _keep(draft, members, {member.id for member in members})
    return _together(groups), groups


def _keep_chosen(draft: Draft, request: Request, groups: Mapping[int, list[Member]], _: Vectors) -> Any:
    chosen = set(request.members)
    for group, members in groups.items():
        if not chosen.intersection(member.id for member in members):
            raise ConfigError(f"group {group} would lose all its members; choose at least one of it to keep")
        _keep(draft, members, chosen, firm=True)
    return _together(groups), groups


def _keep_shots(draft: Draft, request: Request, groups: Mapping[int, list[Member]], _: Vectors) -> Any:
    run = draft.run
    known = run.has("shot") and any(member["shot"] is not None for member in draft.members.values())
    if not known:
        raise ConfigError(
            f"run {run.key!r} has not told shots apart, so none can be kept of each; run it again with shots=True"
        )
    for members in groups.values():
        shots: dict[Any, list[Member]] = defaultdict(list)
        for member in members:
            # One whose picture could not be compared is a shot of its own: it must not be lost.
            shots[member.id if member["shot"] is None else member["shot"]].append(member)
        _keep(draft, members, set().union(*(best_of(shot) for shot in shots.values())))
    return _together(groups), groups


def _keep(draft: Draft, members: Sequence[Member], kept: set[str], *, firm: bool = False) -> None:
    for member in members:
        draft.decide(member, "keep" if member.id in kept else "drop", firm=firm)


def best_of(members: Sequence[Member], *, all_keepers: bool = False) -> set[str]:
    """Ids of what is kept: the keeper, else the best by quality; none that a tag given by hand says to drop."""
    free = [member for member in members if not _dropped_by_hand(member)]
    if not free:
        return set()
    keepers = [member for member in free if member["role"] == "keeper"]
    if all_keepers and keepers:
        return {member.id for member in keepers}
    return {max(free, key=_merit).id}


def _dropped_by_hand(member: Member) -> bool:
    return any(tag in member.tags and tag not in member.ours.values() for tag in (TAGS["drop"], TAGS["reject"]))


def _merit(member: Member) -> tuple[Any, ...]:
    numbers = [-np.inf if member[name] is None else member[name] for name in ("quality", "confidence", "similarity")]
    return (member["role"] == "keeper", *numbers, [-ord(letter) for letter in member.id])


# ------------------------------------------------------------------------------------------- who belongs together


def _confirm(draft: Draft, request: Request, groups: Mapping[int, list[Member]], _: Vectors) -> Any:
    for member in draft.members.values():
        if member["decision"] is None:
            draft.set(member, decision="keep")
    return _together(groups), groups


def _name(draft: Draft, request: Request, groups: Mapping[int, list[Member]], _: Vectors) -> Any:
    for member in draft.members.values():
        draft.set(member, name=request.name or None)
    return Links(), groups


def _reject(draft: Draft, request: Request, groups: Mapping[int, list[Member]], vectors: Vectors) -> Any:
    """Without members: these are no group. With some: they do not belong to it, and leave it."""
    if not request.members:
        for member in draft.members.values():
            draft.decide(member, "reject")
        return Links(strangers=[_ids(members) for members in groups.values()]), groups
    apart, left = [], []
    for group, members in groups.items():
        out, rest = _parted(request, members)
        if out and not rest:
            raise ConfigError(f"all members of group {group} were chosen; to reject the whole group, choose none")
        for member in out:
            draft.decide(member, "reject", firm=True)
        if out:
            apart.append((_ids(out), _ids(rest)))
            left += form_group(draft, rest, group, vectors)
            _leave(draft, out)
    return Links(apart=apart), left


def _split(draft: Draft, request: Request, groups: Mapping[int, list[Member]], vectors: Vectors) -> Any:
    if len(groups) != 1:
        raise ConfigError("split takes one group at a time, and the members that form a group of their own")
    ((group, members),) = groups.items()
    out, rest = _parted(request, members)
    if not out or not rest:
        raise ConfigError(f"choose some members of group {group}, but not all, to split them off")
    # What was to be kept of the whole says nothing about the parts: one of them might be lost altogether.
    for member in members:
        draft.decide(member, None)
    left = form_group(draft, rest, group, vectors) + form_group(draft, out, draft.run.new_group(), vectors)
    return Links(apart=[(_ids(out), _ids(rest))]), left


def _merge(draft: Draft, request: Request, groups: Mapping[int, list[Member]], vectors: Vectors) -> Any:
    if len(groups) < 2:
        raise ConfigError("merge takes at least two groups")
    members, shots = [], 0
    for part in groups.values():
        numbers = [member["shot"] for member in part if member["shot"] is not None]
        for member in part:
            if member["shot"] is not None:
                draft.set(member, shot=member["shot"] + shots)
        shots += max(numbers, default=-1) + 1
        members += part
    names = [member["name"] for member in members if member["name"]]
    for member in members:
        draft.set(member, name=names[0] if names else None)
    left = form_group(draft, members, min(groups), vectors)
    return Links(together=[_ids(members)]), left


def _parted(request: Request, members: Sequence[Member]) -> tuple[list[Member], list[Member]]:
    chosen = set(request.members)
    return [one for one in members if one.id in chosen], [one for one in members if one.id not in chosen]


def _together(groups: Mapping[int, list[Member]]) -> Links:
    return Links(together=[_ids(members) for members in groups.values()])


def _ids(members: Sequence[Member]) -> list[str]:
    return [member.id for member in members]


_RULES: dict[str, Callable[..., Any]] = {
    "keep_best": _keep_best,
    "keep_all": _keep_all,
    "keep_chosen": _keep_chosen,
    "keep_shots": _keep_shots,
    "reject": _reject,
    "split": _split,
    "merge": _merge,
    "confirm": _confirm,
    "name": _name,
}

# ------------------------------------------------------------------------------------------------- groups formed anew


def form_group(draft: Draft, members: Sequence[Member], group: int, vectors: Vectors) -> list[int]:
    """Makes the members one group under a number; a single one is in no group. Returns the numbers of groups."""
    if len(members) < 2:
        _leave(draft, members)
        return []
    # A reviewer formed it, so nothing about it is doubtful.
    shared = {"group": group, "size": len(members), "kind": _kind(draft, members), "risk": 0.0}
    shared["category"] = _category(draft, members, group)
    for member in members:
        draft.set(member, **shared)
    if "role" in draft.run.names:
        _assign_roles(draft, members, vectors)
    return [group]


def _leave(draft: Draft, members: Sequence[Member]) -> None:
    nothing = dict.fromkeys(("group", "of", "similarity", "kind", "shot", "risk", "confidence", "name"))
    for member in members:
        draft.set(member, **nothing, size=1, role="unique", category="no cluster")


def _assign_roles(draft: Draft, members: Sequence[Member], vectors: Vectors) -> None:
    keepers = [member for member in members if member["role"] == "keeper"]
    if not keepers or draft.run.record["config"].get("keep", 1) == 1:
        keepers = [max(keepers or members, key=_merit)]
    ids = _ids(keepers)
    moved = [member for member in members if member.id not in ids and member["of"] not in ids]
    found = vectors([*ids, *_ids(moved)]) if moved else {}
    for keeper in keepers:
        draft.set(keeper, role="keeper", of=None, similarity=1.0)
    for member in moved:
        cosines = {keeper_id: _cosine(found.get(member.id), found.get(keeper_id)) for keeper_id in ids}
        nearest = max(ids, key=lambda keeper_id: -2.0 if cosines[keeper_id] is None else cosines[keeper_id])
        draft.set(member, role="duplicate", of=nearest, similarity=cosines[nearest])


def _kind(draft: Draft, members: Sequence[Member]) -> str | None:
    digests = {member["digest"] for member in members}
    if len(digests) == 1 and None not in digests:
        return "exact"
    shots = {draft.get(member, "shot") for member in members}
    if None not in shots:
        return "near" if len(shots) == 1 else "same_object"
    kinds = {member["kind"] for member in members if member["kind"] is not None}
    loosest = max(kinds, key=lambda kind: KINDS.index(kind) if kind in KINDS else len(KINDS), default=None)
    merged = len({member["group"] for member in members}) > 1
    return "same_object" if merged and loosest in KINDS else loosest


def _category(draft: Draft, members: Sequence[Member], group: int) -> str | None:
    """That of the members which have the number already; a new number is coloured like the small clusters."""
    return next((member["category"] for member in members if member["group"] == group), "smaller clusters")


def _cosine(a: np.ndarray | None, b: np.ndarray | None) -> float | None:
    if a is None or b is None:
        return None
    return float(np.dot(a, b) / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))
