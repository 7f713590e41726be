"""Whether a policy and a live ledger mean the same by a unit of privacy: asked before the first charge, and at reload.

A ledger keeps the terms that it was begun under. A policy with other terms is refused until an operator migrates the
ledger, and so is, under `claim: dp`, a state that may lose what was charged, unless the policy accepts that in words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from guard.errors import PolicyError, Problem, StateError
from guard.policy.plan import Private, RoutePlan
from guard.ports import State
from guard.privacy.terms import Act, Terms, loads

_MIGRATE = "guard budget migrate --policy .. --state .. --reason .., after every guard on this ledger has stopped"


class Agreements:
    """What this process knows of the ledgers' terms.

    Args:
        state: the ledgers.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: dict[str, tuple[Private, Terms]] = {}
        self._asking: dict[tuple[str, int], asyncio.Task[Terms]] = {}

    async def terms(self, route: RoutePlan) -> Terms | None:
        """Return the live terms of a route's ledger; None for one without privacy budgets, or in shadow.

        Raises:
            PolicyError: the ledger has other terms, or the state may lose charges.
            StateError: the state is out of reach.
        """
        private = route.private
        if private is None or not private.charged or route.mode == "shadow":
            return None
        known = self._known.get(route.ledger)
        if known is not None and known[0] is private:
            return known[1]
        # All who come before the answer wait for the same one: a state that is back must not be stormed.
        name = (route.ledger, id(private))
        asking = self._asking.get(name)
        if asking is None:
            asking = self._asking[name] = asyncio.ensure_future(self._ask(route, private))
            asking.add_done_callback(lambda done: self._asked(name, done))
        return await asyncio.shield(asking)

    def _asked(self, name: tuple[str, int], done: asyncio.Task[Terms]) -> None:
        del self._asking[name]
        if not done.cancelled():
            done.exception()  # those who wait get it, if they have not all gone

    async def _ask(self, route: RoutePlan, private: Private) -> Terms:
        if private.claimed and not private.accept_lost_writes and (why := await self._state.durability()):
            hint = "guard doctor says what to set; or write privacy: {accept_lost_writes: why}, which is published"
            raise PolicyError([Problem(f"claim: dp, but this state may lose charges: {why}", "privacy", hint=hint)])
        live = _read(await self._state.agree(route.ledger, private.terms.dumps()))
        if changes := private.terms.differs(live):
            # Who has asked again is let through by the state, so the plan that still serves must not go on unasked.
            self.forget(route.ledger)
            message = f"the ledger {route.ledger} was begun under other terms: {'; '.join(changes)}"
            raise PolicyError([Problem(message, "budgets", hint=_MIGRATE)])
        self._known[route.ledger] = (private, live)
        return live

    async def floors(self, route: RoutePlan, now_s: float) -> Mapping[str, int]:
        """Return what a migration counts as spent for every scope at `now_s`, by the budget's name.

        Raises:
            StateError: the policy and the ledger do not agree, or the state is out of reach.
        """
        try:
            live = await self.terms(route)
        except PolicyError as error:
            raise StateError("the ledger was begun under other terms", code="ledger_terms") from error
        return {} if live is None else live.floors_at(now_s)

    async def check(self, routes: Iterable[RoutePlan]) -> None:
        """Look at every route before its plan is in force.

        Raises:
            PolicyError: with a problem for each ledger that does not agree.
            StateError: the state is out of reach.
        """
        problems: list[Problem] = []
        for route in routes:
            try:
                await self.terms(route)
                problems += await self._dropped(route)
            except PolicyError as error:
                problems += error.problems
        if problems:
            raise PolicyError(problems)

    async def _dropped(self, route: RoutePlan) -> list[Problem]:
        """Return that a policy has no privacy budget for a ledger that lives under terms."""
        if route.mode == "shadow" or (route.private is not None and route.private.charged):
            return []
        data = await self._state.terms(route.ledger)
        if data is None or not _read(data).deltas:
            return []
        message = f"the ledger {route.ledger} has privacy budgets, and this policy charges none"
        return [Problem(message, "budgets", hint=f"write them again, or {_MIGRATE}")]

    def forget(self, ledger: str) -> None:
        """Ask the state again before the next charge."""
        self._known.pop(ledger, None)

    def acts(self, ledger: str) -> tuple[Act, ...]:
        """Return what operators did to a ledger, as last seen."""
        found = self._known.get(ledger)
        return () if found is None else found[1].acts


def _read(data: bytes) -> Terms:
    try:
        return loads(data)
    except ValueError as error:
        raise StateError("the ledger's terms cannot be read", code="ledger_terms") from error
