"""A plan as a policy that `guard check` accepts, and that policy's route: what is planned is what would serve."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, cast

from guard.cli.budget_request import Unplannable
from guard.policy.suggest import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.cli.budget_request import Request
    from guard.policy.plan import RoutePlan


def policy_text(request: Request, epsilon: float, noise: float) -> str:
    """Return a whole policy of one route.

    Args:
        request: what was asked for.
        epsilon: of the budget.
        noise: the mechanism's parameter.
    """
    vote = request.mechanism == "noisy_vote"
    outputs = {"kind": request.outputs.kind, **request.outputs.model_dump(exclude_unset=True, exclude={"kind"})}
    claim: dict[str, object] = {
        "claim": "dp", "unit": "training_record", "adjacency": "replace_one", "sensitivity": "auto",
    }  # fmt: skip
    if request.records is not None:
        claim["records"] = request.records
    lines = ["version: 1", "name: planned", "routes:", "  - name: planned", f"    outputs: {_flow(outputs)}"]
    if request.teachers > 1 or vote:
        ensemble: dict[str, object] = {"aggregate": "noisy_vote" if vote else "mean", "quorum": request.quorum}
        if vote:
            ensemble["noise_multiplier"] = noise
        lines.append(f"    ensemble: {_flow(ensemble)}")
    lines.append(f"    privacy: {_flow(claim)}")
    if not vote:
        lines += ["    defences:", f"      - {_flow({'kind': request.mechanism, request.parameter: noise})}"]
    budget = {"kind": "privacy", "per": request.per, "epsilon": epsilon, "delta": request.delta}
    lines += ["    budgets:", f"      - {_flow(budget)}"]
    return "\n".join(lines) + "\n"


def _flow(value: object) -> str:
    """Return plain data as YAML on one line.

    >>> _flow({"kind": "value", "delta": 1e-06, "classes": [1, "no", "yes or no"]})
    '{kind: value, delta: 1.0e-06, classes: [1, "no", "yes or no"]}'
    """
    match value:
        case dict():
            items = cast("dict[str, object]", value)
            return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in items.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_flow, cast("Sequence[object]", value))) + "]"
        case float():
            mantissa, _, exponent = repr(value).partition("e")
            # YAML 1.1 takes 1e-06 for a text.
            return mantissa if not exponent else f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"
        case str() if _plain(value):
            return value
        case _:
            return json.dumps(value, ensure_ascii=False)


def _plain(text: str) -> bool:
    """Say whether a text needs no quotes in YAML: `no` is a truth value there."""
    import yaml

    return re.fullmatch("[a-z_]+", text) is not None and yaml.safe_load(text) == text


def compiled(text: str) -> RoutePlan:
    """Return the route of a planned policy, compiled as the server would.

    Raises:
        PolicyError: it cannot be served.
    """
    import yaml

    from guard.policy.compile import compile_policy
    from guard.policy.load import DEFAULT_API
    from guard.policy.schema import Policy

    policy = Policy.model_validate(yaml.safe_load(text))
    return compile_policy(policy, api=DEFAULT_API).routes[0]


def from_policy(source: str, name: str | None) -> RoutePlan:
    """Return a policy's route, which must have a mechanism and a privacy budget.

    Args:
        source: a file or a preset.
        name: the route's; None takes the first that has a mechanism.

    Raises:
        PolicyError: the policy cannot be used.
        Unplannable: it has no such route.
    """
    from guard.policy.load import DEFAULT_API, load_plan

    plan = load_plan(source, api=DEFAULT_API, env=os.environ)
    names = [route.name for route in plan.routes]
    if name is not None and name not in names:
        raise Unplannable(f"--route: there is no route {name}", did_you_mean(name, names))
    routes = [route for route in plan.routes if route.name == name or name is None]
    found = next((route for route in routes if route.private is not None and route.private.charged), None)
    if found is None:
        which = f"the route {name}" if name else "every route"
        hint = "add both: guard budget plan --epsilon 8 --answers 1000 prints a policy that has them"
        raise Unplannable(f"{which} lacks a mechanism of differential privacy with a privacy budget", hint)
    return found
