"""Who stands where on the ladder, and whose evidence is strongest, as the console shows it: pseudonyms only."""

from __future__ import annotations

import asyncio
import math
from heapq import nlargest
from typing import TYPE_CHECKING, Any, Final

from guard.engine.ladder import ACTIONS
from guard.proxy.metering import metered
from guard.proxy.watching import standing_of

if TYPE_CHECKING:
    from guard.policy.plan import Plan, RoutePlan
    from guard.proxy.watched_client import Watched
    from guard.proxy.watching import Watching
    from guard.telemetry.pseudonyms import Pseudonyms

SHOWN: Final = 20
_PIECE = 256
_LN10 = math.log(10.0)

Object = dict[str, Any]  # Any: JSON
Ranked = tuple[bool, float, str | None, "Watched"]
"""An action holds, log10 of the stronger e-value, the action, who."""


async def look(watching: Watching, plan: Plan, names: Pseudonyms, now_s: float) -> Object:
    """Return what the watched clients look like now, in pieces between which requests are served.

    Args:
        watching: detection.
        plan: the policy in force.
        names: clients' names as they are shown.
        now_s: wall clock.

    Returns:
        `watched` clients, how many each action holds for (`standing`, and `by_route`), and the `top` ones: those first
        for whom an action holds, and among them, and after them, the strongest evidence first.
    """
    routes: dict[tuple[str, str], list[RoutePlan]] = {}
    for route in plan.routes:
        if route.detection is not None:
            routes.setdefault((route.ledger, route.detection.setup.fingerprint), []).append(route)
    standing: dict[str, int] = dict.fromkeys(ACTIONS, 0)
    by_route: dict[str, dict[str, int]] = {}
    top: list[Ranked] = []
    watched, count = watching.hot.all(), 0
    for first in range(0, len(watched), _PIECE):
        ranked: list[Ranked] = []
        for one in watched[first : first + _PIECE]:
            of = routes.get((one.ledger, one.setup.fingerprint))
            if of is None:
                continue  # of a policy before this one
            count += 1
            action = standing_of(one.marks, now_s)
            strongest = max(one.strength) / _LN10
            if action is not None:
                standing[action] += 1
                for route in of:
                    held = by_route.setdefault(route.name, {})
                    held[action] = held.get(action, 0) + 1
            if action is not None or strongest > 0:
                ranked.append((action is not None, strongest, action, one))
        top = nlargest(SHOWN, top + ranked, key=lambda found: found[:2])
        await asyncio.sleep(0)
    shown: list[Object] = []
    for _, _, action, one in top:
        shown.append(_shown(watching, routes[one.ledger, one.setup.fingerprint], one, action, names, now_s))
        await asyncio.sleep(0)
    return {"watched": count, "standing": standing, "by_route": by_route, "top": shown}


def _shown(
    watching: Watching, routes: list[RoutePlan], one: Watched, action: str | None, names: Pseudonyms, now_s: float
) -> Object:
    client = one.client
    signals = one.setup.null.signals
    readings = [watching.meters.reading(one.ledger, scope) for route in routes for scope in metered(route, client)]
    meter = max((reading for reading in readings if reading is not None), default=None)
    return {
        "client": names.of(client.name),
        "group": None if client.group == client.name else names.of(client.group),
        "source": client.source,
        "routes": [route.name for route in routes],
        "log10_e": {
            "any": round(one.strength.any / _LN10, 2),
            "structure": round(one.strength.structure / _LN10, 2),
            **{over: round(strength.any / _LN10, 2) for over, strength in one.pooled.items()},
        },
        "spoke": [
            {"signal": signals[n].name, "tier": signals[n].tier, "log10_e": round(value / _LN10, 2)}
            for n, value in one.tracker.wealth.spoke()
        ],
        "action": action or "allow",
        "until_s": None if action is None else one.marks[ACTIONS.index(action) + 1],  # pyright: ignore[reportArgumentType] - `standing_of` returns one of them
        "offences": one.offences(now_s),
        "meter": None if meter is None else round(meter, 3),
    }
