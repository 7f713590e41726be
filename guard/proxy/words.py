"""A plan in words, for the admin listener: what each route does, step by step, without secrets."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from guard.policy.detection_words import as_data, duration, in_words
from guard.privacy.terms import Act

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from guard.policy.detection import Detection
    from guard.policy.plan import Plan, RoutePlan
    from guard.policy.schema import AnyIdentity

_AT_ONCE = 8

Object = dict[str, Any]  # Any: JSON


async def plan_in_words(
    plan: Plan, acts: Callable[[str], tuple[Act, ...]] = lambda _: (), name: Callable[[str], str] = str
) -> Object:
    """Return the policy in force: name, digest, mode, who is known, what each route does, and the resolved policy.

    Requests are served between two pieces of it. Secrets stay out by their type; files are named and not read.

    Args:
        plan: the plan in force.
        acts: what operators did to a ledger: part of what may be said of its privacy.
        name: how clients that the policy excepts are called.
    """
    policy = plan.policy.model_dump(mode="json", exclude_none=True)
    for written in policy.get("routes", ()):
        for entry in written.get("exceptions", ()):
            entry["client"] = name(entry["client"])
    routes: list[Object] = []
    for number, route in enumerate(plan.routes):
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
        routes.append(_route(route, acts(route.ledger), name))
    identity = plan.policy.identity
    named = [spec_in_words(source) for source in identity]
    if not any(source.kind == "address" for source in identity):
        named.append("address")
    return {
        "name": plan.name,
        "digest": plan.digest,
        "mode": plan.mode,
        "identity": named,
        "routes": routes,
        "policy": policy,
    }


def spec_in_words(spec: BaseModel | AnyIdentity) -> str:
    """Return a spec as its kind and the parameters that differ from their defaults.

    >>> from guard.budgets import Rows
    >>> spec_in_words(Rows(limit=20000, window="24h", mode="shadow"))
    'rows: window 86400, limit 20000, only counted'
    """
    given = spec.model_dump(mode="json", exclude_defaults=True, exclude={"kind"})
    shadow = given.pop("mode", "enforce") == "shadow"
    words = [f"{key} {_word(value)}" for key, value in given.items()]
    if shadow:
        words.append("only counted")
    kind = str(getattr(spec, "kind", type(spec).__name__))
    return f"{kind}: {', '.join(words)}" if words else kind


def _word(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_word(item) for item in cast("list[object]", value)) or "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _route(route: RoutePlan, acts: tuple[Act, ...], name: Callable[[str], str]) -> Object:
    steps = [f"read {route.api}"]
    if route.inputs is not None:
        steps.append(f"inspect {spec_in_words(route.inputs)}")
    steps += [f"admit {spec_in_words(budget)}" for budget in route.budgets]
    steps.append(
        f"let out {'what the API defines' if route.fields == 'known' else 'every member'} and {route.outputs.kind}"
    )
    steps += [f"release {spec_in_words(defence)}" for defence in route.defences]
    said = [*route.statement, *(act_in_words(_renamed(act, name)) for act in acts)] if route.statement else []
    return {
        "name": route.name,
        "api": route.api,
        "mode": route.mode,
        "ledger": route.ledger,
        "endpoints": [f"{o.endpoint.method} {o.endpoint.template} ({o.endpoint.access})" for o in route.endpoints],
        "steps": steps,
        "privacy": said,
        "detection": None if route.detection is None else detection_in_words(route.detection, name),
    }


def _renamed(act: Act, name: Callable[[str], str]) -> Act:
    kind, colon, whose = act.scope.partition(":")
    return replace(act, scope=f"{kind}:{name(whose)}") if colon else act


def detection_in_words(detection: Detection, name: Callable[[str], str] = str) -> Object:
    """Return what clients are watched for, what it leads to at which level, and where the levels end."""
    words = in_words(detection)
    clients = [client for client, entries in detection.exempt.items() for _ in entries]
    said = zip(clients, words.exceptions, strict=True)
    words = replace(words, exceptions=tuple(name(client) + text.removeprefix(client) for client, text in said))
    ladder: list[Object] = []
    for rule in words.ladder:
        threshold = None if rule.threshold is None else round(rule.threshold, 3)
        does = [rule.action, *map(spec_in_words, rule.means)]
        if rule.rows_per_minute is not None:
            does.append(f"{rule.rows_per_minute} rows a minute")
        ladder.append(
            {
                "when": rule.when,
                "level": rule.level,
                "log_threshold": threshold,
                "does": does,
                "hold": duration(rule.hold_s),
            }
        )
    return as_data(words, ladder)


def act_in_words(act: Act) -> str:
    """Return what an operator did to a ledger, as the published statement must say it.

    >>> act_in_words(Act("reset", "2026-11-26T09:00:00+00:00", "retrained on new people"))
    'On 2026-11-26 the ledger was reset (retrained on new people): what was answered before is not counted.'
    """
    of = f" of {act.budget}" if act.budget else ""
    whose = f" for {act.scope}" if act.scope else ""
    day = act.at[:10]
    if act.what == "reset":
        return f"On {day} the ledger{of} was reset{whose} ({act.reason}): what was answered before is not counted."
    return f"On {day} the ledger{of} was migrated{whose} ({act.reason}); nothing that was spent was taken off."
