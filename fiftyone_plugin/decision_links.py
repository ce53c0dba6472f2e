"""Who belongs together after a series of decisions, of which later ones overrule earlier ones."""

from collections.abc import Iterable, Sequence

from .decision_log import Links

Together = list[list[str]]
Apart = list[tuple[list[str], list[str]]]


def replay(decisions: Iterable[Links]) -> tuple[Together, Apart]:
    """Goes through decisions from the oldest to the latest.

    Returns:
        disjoint sets of at least two ids that belong together, and pairs of sets that do not; no pair has ids of both
        its sides in one set.
    """
    ledger = _Ledger()
    for links in decisions:
        for ids in links.together:
            ledger.join(ids)
        for one, other in links.apart:
            ledger.part(one, other)
        for ids in links.strangers:
            for position, member in enumerate(ids[:-1]):
                ledger.part([member], ids[position + 1 :])
    return ledger.result()


class _Ledger:
    """Disjoint sets, and the pairs of sets that are apart."""

    def __init__(self) -> None:
        self._set_of: dict[str, set[str]] = {}
        self._apart: list[tuple[set[str], set[str]]] = []
        # Id → the numbers of the pairs in ``_apart`` that name it.
        self._named: dict[str, set[int]] = {}

    def join(self, ids: Sequence[str]) -> None:
        joined = set(ids)
        for member in ids:
            joined |= self._set_of.get(member, set())
        for number in {number for member in joined for number in self._named.get(member, ())}:
            one, other = self._apart[number]
            if (inside := one & joined) and other & joined:
                # Only what now contradicts is withdrawn: those inside stay apart from the others outside.
                self._apart[number] = (one - joined, other)
                self._note(inside, other - joined)
        for member in joined:
            self._set_of[member] = joined

    def part(self, ids: Sequence[str], others: Sequence[str]) -> None:
        one, other = set(ids), set(others)
        for whole in {id(found): found for member in one if (found := self._set_of.get(member))}.values():
            if whole & other:
                for piece in (whole & one, whole & other, whole - one - other):
                    for member in piece:
                        self._set_of[member] = piece
        self._note(one, other)

    def result(self) -> tuple[Together, Apart]:
        sets = {id(found): found for found in self._set_of.values() if len(found) > 1}
        apart = [(sorted(one), sorted(other)) for one, other in self._apart if one and other]
        return sorted(sorted(found) for found in sets.values()), apart

    def _note(self, one: set[str], other: set[str]) -> None:
        if one and other:
            for member in one | other:
                self._named.setdefault(member, set()).add(len(self._apart))
            self._apart.append((one, other))
