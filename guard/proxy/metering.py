"""Information meters on the way of requests: one a scope of a budget that has one, in memory, bounded.

What a meter has read is kept in the state as a mark, in thousandths, and the greatest holds: a restart, a scope that
had left memory and another replica all begin where the reading stood. The sums behind it stay here, so a scope that is
spread over replicas is understated by each.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from guard.engine.ladder import METER
from guard.errors import StateError
from guard.evidence.meter import Meter, MeterBase
from guard.model.evidence import Delta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from guard.model.arrays import Floats
    from guard.model.client import Client
    from guard.policy.plan import RoutePlan
    from guard.ports import State
    from guard.telemetry.metrics import Metrics

MOST_SCOPES = 4096
_PIECE = 256
_UNIT = 1000


class _Held:
    """A scope's meter on one ledger; `reading` is the greatest that any replica has read."""

    __slots__ = ("changed", "meter", "reading")

    def __init__(self, meter: Meter, reading: float) -> None:
        self.meter = meter
        self.reading = reading
        self.changed = False


class Meters:
    """All meters of this process.

    Args:
        state: where readings are kept.
        metrics: counts a state that is out of reach.
        salt: chooses the meters' random features.
    """

    def __init__(self, state: State, metrics: Metrics, salt: bytes) -> None:
        self._state = state
        self._metrics = metrics
        self._salt = salt
        self.limit = MOST_SCOPES
        """Scopes in memory at once."""
        self._held: OrderedDict[tuple[str, str], _Held] = OrderedDict()
        self._bases: OrderedDict[str, MeterBase] = OrderedDict()
        self._left: dict[tuple[str, str], float] = {}

    async def readings(self, route: RoutePlan, client: Client, now_s: float) -> dict[str, float]:
        """Return the readings of the scopes that the request charges; reads those that are not in memory.

        Raises:
            StateError: a reading cannot be had.
        """
        found: dict[str, float] = {}
        for scope in metered(route, client):
            held = self._held.get((route.ledger, scope))
            if held is None:
                held = await self._bring(route, scope, now_s)
            self._held.move_to_end((route.ledger, scope))
            found[scope] = held.reading
        return found

    async def _bring(self, route: RoutePlan, scope: str, now_s: float) -> _Held:
        record = (await self._state.merge(_space(route.ledger), [Delta(scope)], now_s))[0]
        key = (route.ledger, scope)
        known = self._held.get(key)  # another request may have brought it meanwhile
        if known is not None:
            return known
        reading = max(record.marks.get(METER, 0) / _UNIT, self._left.get(key, 0.0))
        for _ in range(min(2, len(self._held) - self.limit + 1)):  # two, when the limit was lowered
            gone, oldest = self._held.popitem(last=False)
            if oldest.changed and len(self._left) < MOST_SCOPES:
                self._left[gone] = oldest.reading
        made = self._held[key] = _Held(Meter(self._base(route)), reading)
        return made

    def _base(self, route: RoutePlan) -> MeterBase:
        """Return what the route's meters share."""
        detection = route.detection
        if detection is None or detection.profile is None:
            raise ValueError("a meter needs a profile")
        profile = detection.profile
        base = self._bases.get(profile.digest)
        if base is None:
            declared = route.outputs.classes
            seen = profile.answers.shape[1] if profile.answers.size else int(profile.held_out_top.max()) + 1
            classes = seen if declared is None else len(declared)
            base = MeterBase(profile.held_out, profile.held_out_top, classes, self._salt)
            if len(self._bases) >= 64:
                self._bases.popitem(last=False)
            self._bases[profile.digest] = base
        return base

    def add(self, route: RoutePlan, scopes: Iterable[str], vectors: Floats, released: Floats) -> None:
        """Fold graded answers into the scopes' meters.

        Args:
            route: the route.
            scopes: those that the request was charged to.
            vectors: standardised queries, shape (n, m).
            released: what was let out, shape (n, k).
        """
        for scope in scopes:
            held = self._held.get((route.ledger, scope))
            if held is not None and held.meter.add(vectors, released) and held.meter.reading > held.reading:
                held.reading = held.meter.reading
                held.changed = True

    def seen(self, ledger: str) -> list[float]:
        """Return all readings on a ledger."""
        return [held.reading for (owner, _), held in self._held.items() if owner == ledger and held.reading]

    def reading(self, ledger: str, scope: str) -> float | None:
        """Return a scope's reading; None when it has none in memory."""
        held = self._held.get((ledger, scope))
        return None if held is None else held.reading

    async def sync(self, now_s: float) -> None:
        """Keep what has changed, and take what other replicas have read; one that fails is tried again."""
        due: dict[str, list[str]] = {}
        for (ledger, scope), held in self._held.items():
            if held.changed:
                due.setdefault(ledger, []).append(scope)
        for ledger, scope in self._left:
            due.setdefault(ledger, []).append(scope)
        for ledger, scopes in due.items():
            for first in range(0, len(scopes), _PIECE):
                await self._keep(ledger, scopes[first : first + _PIECE], now_s)

    async def _keep(self, ledger: str, scopes: list[str], now_s: float) -> None:
        told: dict[str, int] = {}
        for scope in scopes:
            held = self._held.get((ledger, scope))
            reading = max(0.0 if held is None else held.reading, self._left.get((ledger, scope), 0.0))
            told[scope] = int(reading * _UNIT)
        deltas = [Delta(scope, marks={METER: mark}) for scope, mark in told.items()]
        try:
            records = await self._state.merge(_space(ledger), deltas, now_s)
        except StateError:
            self._metrics.state_error()
            return
        for scope, record in zip(told, records, strict=True):
            self._left.pop((ledger, scope), None)
            held = self._held.get((ledger, scope))
            if held is not None:
                held.changed = int(held.reading * _UNIT) > told[scope]
                held.reading = max(held.reading, record.marks.get(METER, 0) / _UNIT)


def metered(route: RoutePlan, client: Client) -> set[str]:
    """Return the scopes whose answers are metered."""
    return {budget.scope(client) for budget in route.budgets if budget.needs_profile}


def _space(ledger: str) -> str:
    return f"meters/{ledger}"
