"""`guard doctor` on what a state may lose, which a claim of differential privacy cannot bear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.cli.findings import Finding
from guard.errors import GuardError

if TYPE_CHECKING:
    from guard.policy.plan import Plan


async def durability_findings(url: str, plan: Plan) -> list[Finding]:
    """What was charged is not lost, as far as the state can tell; matters most where privacy is claimed."""
    from guard.state.open import open_state

    claims = [(route.name, route.private) for route in plan.routes if route.private is not None]
    claiming = [(name, private) for name, private in claims if private.claimed and private.charged]
    try:
        state = open_state(url)
        try:
            why = await state.durability()
        finally:
            await state.aclose()
    except GuardError:
        return []  # the look at the state itself says so
    if url.startswith("memory:") and not claiming:
        return []  # likewise
    if not why:
        return [Finding("ok", "durability", "what was charged survives a crash and a power cut")]
    found = f"charges may be lost: {why}{advice(why)}"
    unaccepted = [name for name, private in claiming if not private.accept_lost_writes]
    if unaccepted:
        message = f"{found}; {', '.join(unaccepted)} claim(s) differential privacy and does not accept that in words"
        return [Finding("fail", "durability", f"{message} (privacy: {{accept_lost_writes: why}}, which is published)")]
    accepted = [f"; {name} accepts it: {private.accept_lost_writes}" for name, private in claiming]
    return [Finding("warn", "durability", found + "".join(accepted))]


def advice(why: str) -> str:
    """Return what to set in Redis against what it may lose.

    >>> advice("redis: appendfsync is not always: a crash loses the last two seconds")
    '; set appendfsync always'
    """
    settings = {
        "appendonly is": "appendonly yes and appendfsync always",
        "appendfsync is": "appendfsync always",
        "no-appendfsync-on-rewrite is": "no-appendfsync-on-rewrite no",
        "maxmemory-policy is": "maxmemory-policy noeviction",
        "CONFIG GET is refused": "its user free to CONFIG GET, or look yourself: appendonly yes, appendfsync always, "
        "maxmemory-policy noeviction",
    }
    to_set = [setting for words, setting in settings.items() if f" {words}" in why]
    return f"; set {', '.join(to_set)}" if to_set else ""
