"""Evidence of many accounts together: of each group, and of everybody, on one route, for one UTC day at a time.

Pools hold what this replica sees. An account that comes back after it had left the hot set is taken to have contributed
what it has by then: counting it twice would break the bound on false alarms, counting it less only weakens the pool.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from guard.evidence.pool import Pool
from guard.evidence.values import Strength

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_GROUPS = 4096
_DAY_S = 86400

Shares = tuple[int, float | None, float | None]
"""The pools' number, and what `Pool.change` returned for the account: of all signals, and of the structure tier."""


class _Pair:
    """The pools of one group: over all signals, and over the structure tier; its number tells it from any before it."""

    __slots__ = ("any", "number", "structure")

    def __init__(self, nu: float, number: int) -> None:
        self.number = number
        self.any = Pool(nu)
        self.structure = Pool(nu)

    def change(self, shares: Shares | None, strength: Strength) -> Shares:
        before = (None, None) if shares is None or shares[0] != self.number else shares[1:]
        return (
            self.number,
            self.any.change(before[0], strength.any),
            self.structure.change(before[1], strength.structure),
        )

    @property
    def strength(self) -> Strength:
        return Strength(self.any.log_evidence, self.structure.log_evidence)


class Pools:
    """The pools of one route.

    Args:
        nu: see `guard.evidence.pool`.
    """

    def __init__(self, nu: float) -> None:
        self._nu = nu
        self._day = -1
        self._made = 0
        self._all = self._pair()
        self._groups: OrderedDict[str, _Pair] = OrderedDict()

    def change(
        self, group: str, shares: dict[str, Shares], strength: Strength, now_s: float, *, alone: bool
    ) -> dict[str, Strength]:
        """Replace an account's contributions by its evidence now.

        Args:
            group: the account's.
            shares: the account's contributions, by pool; changed here.
            strength: its evidence.
            now_s: wall clock.
            alone: the group is the account itself, so that its pool would say nothing new.

        Returns:
            The pools' evidence: `all`, and `group` unless alone.
        """
        day = int(now_s // _DAY_S)
        if day != self._day:
            self._day = day
            self._all = self._pair()
            self._groups.clear()
        shares["all"] = self._all.change(shares.get("all"), strength)
        found = {"all": self._all.strength}
        if not alone:
            pair = self._groups.get(group)
            if pair is None:
                if len(self._groups) >= MOST_GROUPS:
                    self._groups.popitem(last=False)
                pair = self._groups[group] = self._pair()
            self._groups.move_to_end(group)
            shares["group"] = pair.change(shares.get("group"), strength)
            found["group"] = pair.strength
        return found

    def _pair(self) -> _Pair:
        self._made += 1
        return _Pair(self._nu, self._made)

    def groups(self) -> Iterator[tuple[str, Strength]]:
        """Yield each group's evidence."""
        for group, pair in self._groups.items():
            yield group, pair.strength

    @property
    def strength(self) -> Strength:
        """The evidence of everybody together."""
        return self._all.strength
