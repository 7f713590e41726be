"""Whether requests can be served now: the policy, the state and the model, for probes and for the console."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from guard.errors import GuardError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.responses import Response

    from guard.ports import State
    from guard.proxy.plans import Plans

CHECK_TIMEOUT_S = 2.0
_GLANCE_S = 0.3
"""How long a glance waits for a check of state and model that is running."""
_RECENT_S = 5.0
"""How old a check may be that a glance returns."""


class Readiness:
    """Answers `/readyz`. It is open to everybody, so that all who ask at the same time share one round of checks.

    Args:
        plans: the plan in force.
        state: the ledgers.
        upstream_ready: True when the model answers; otherwise False, or why not.
        timeout_s: how long a check may take.
    """

    def __init__(
        self, plans: Plans, state: State, upstream_ready: Callable[[], Awaitable[bool | str]], timeout_s: float
    ) -> None:
        self._plans = plans
        self._state = state
        self._upstream_ready = upstream_ready
        self._timeout_s = timeout_s
        self._running: asyncio.Task[dict[str, str]] | None = None
        self._latest: dict[str, str] = {"state": "not checked yet", "upstream": "not checked yet"}
        self._checked_s = float("-inf")

    async def readyz(self, request: Request) -> Response:
        """200 when requests can be served, otherwise 503; either way with each check."""
        del request
        # Shielded: one caller that leaves must not take the others' answer along.
        found = await asyncio.shield(self._round())
        ready = not any(found.values())
        checks = {name: {"ok": not why, **({"why": why} if why else {})} for name, why in found.items()}
        return JSONResponse({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def glance(self) -> dict[str, str]:
        """Return each check and what is wrong with it, a few seconds old at most unless a check hangs just now."""
        if asyncio.get_running_loop().time() - self._checked_s >= _RECENT_S:
            await asyncio.wait({self._round()}, timeout=_GLANCE_S)
        return self._latest

    def _round(self) -> asyncio.Task[dict[str, str]]:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._check())
        return self._running

    async def _check(self) -> dict[str, str]:
        """Return each check and what is wrong with it; empty when it is well."""
        state, upstream = await asyncio.gather(self._bounded(self._ping()), self._bounded(self._ask()))
        policy = "" if self._plans.current.plan.routes else "no route"
        self._latest = {"policy": policy, "state": state, "upstream": upstream}
        self._checked_s = asyncio.get_running_loop().time()
        return self._latest

    async def _bounded(self, check: Awaitable[str]) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await check
        except TimeoutError:
            return "no answer in time"
        except GuardError as error:
            return error.message
        except OSError as error:
            return error.strerror or "out of reach"

    async def _ping(self) -> str:
        await self._state.ping()
        return ""

    async def _ask(self) -> str:
        answer = await self._upstream_ready()
        if answer is True:
            return ""
        return answer or "the model is not ready"
