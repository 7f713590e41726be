"""A plan in words, for the admin listener: what each route does, step by step, without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from pydantic import BaseModel

    from guard.policy.plan import Plan, RoutePlan
    from guard.policy.schema import AnyIdentity

Object = dict[str, Any]  # Any: JSON


def plan_in_words(plan: Plan) -> Object:
    """Return the policy in force: name, digest, mode, who is known, what each route does, and the resolved policy.

    Secrets stay out by their type; files are named and not read.
    """
    identity = plan.policy.identity
    named = [spec_in_words(source) for source in identity]
    if not any(source.kind == "address" for source in identity):
        named.append("address")
    return {
        "name": plan.name,
        "digest": plan.digest,
        "mode": plan.mode,
        "identity": named,
        "routes": [_route(route) for route in plan.routes],
        "policy": plan.policy.model_dump(mode="json", exclude_none=True),
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


def _route(route: RoutePlan) -> Object:
    steps = [f"read {route.api}"]
    if route.inputs is not None:
        steps.append(f"inspect {spec_in_words(route.inputs)}")
    steps += [f"admit {spec_in_words(budget)}" for budget in route.budgets]
    steps.append(
        f"let out {'what the API defines' if route.fields == 'known' else 'every member'} and {route.outputs.kind}"
    )
    steps += [f"release {spec_in_words(defence)}" for defence in route.defences]
    return {
        "name": route.name,
        "api": route.api,
        "mode": route.mode,
        "ledger": route.ledger,
        "endpoints": [f"{o.endpoint.method} {o.endpoint.template} ({o.endpoint.access})" for o in route.endpoints],
        "steps": steps,
    }
