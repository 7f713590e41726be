"""Contradictions and regrets: what a valid policy must not say, and what `check` warns of. Pure."""

from __future__ import annotations

import re

from guard.budgets.base import Budget
from guard.defences.base import Defence, Mode
from guard.errors import Problem
from guard.model.domain import Inputs
from guard.model.outputs import Outputs
from guard.policy.plan import RoutePlan, path_pattern
from guard.policy.private import check_private, warn_private
from guard.policy.schema import ApiKeyIdentity, JwtIdentity, Match, Policy, Route
from guard.wire.base import Endpoint

_OWN_HEADERS = frozenset(
    (
        "host",
        "content-length",
        "content-type",
        "content-encoding",
        "inference-header-content-length",
        "accept-encoding",
        "transfer-encoding",
        "connection",
        "proxy-connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
        "expect",
    )
)
_PARAMETER = re.compile(r"\{\w+\}")


def _weaker(parent: Mode, child: Mode) -> bool:
    return parent == "enforce" or child == "shadow"


def check_route(route: Route, at: str, parent: Mode) -> list[Problem]:
    """Return what is wrong with a route by itself; `at` is its path, `parent` the policy's mode."""
    problems: list[Problem] = []
    mode = route.mode or parent
    if not _weaker(parent, mode):
        hint = "mode: enforce on the policy, then shadow on the other routes"
        problems.append(Problem("a route cannot enforce under a policy in shadow", f"{at}.mode", hint=hint))
    problems += check_steps(route.defences, route.outputs, route.inputs, f"{at}.defences", None)
    return problems + check_private(route, at, mode) + _check_budgets(route, at, mode) + _check_parameters(route, at)


def check_steps(
    defences: tuple[Defence, ...], outputs: Outputs, inputs: Inputs | None, at: str, coarse: Defence | None
) -> list[Problem]:
    """Return what is wrong with defences in a row.

    Args:
        defences: in order.
        outputs: the route's.
        inputs: the route's.
        at: their path.
        coarse: a step before them that leaves few values, or None.
    """
    problems: list[Problem] = []
    for i, defence in enumerate(defences):
        here = f"{at}[{i}]"
        problems += [below(here, p) for p in defence.check(outputs, inputs)]
        if defence.random and not defence.spends and coarse is not None:
            hint = f"put {defence.kind} before {coarse.kind}"
            problems.append(
                Problem(f"{defence.kind} after {coarse.kind} would be seen for what it is", here, hint=hint)
            )
        if defence.coarsens and defence.mode == "enforce":
            coarse = coarse or defence
    return problems


def _check_budgets(route: Route, at: str, mode: Mode) -> list[Problem]:
    """Refuse two budgets of one name, which would charge one counter twice; shadow has counters of its own."""
    problems: list[Problem] = []
    seen: dict[tuple[Mode, str], int] = {}
    for i, budget in enumerate(route.budgets):
        here = f"{at}.budgets[{i}]"
        problems += [below(here, p) for p in budget.check(route.outputs)]
        first = seen.setdefault((_effective(mode, budget.mode), budget.name), i)
        if first != i:
            problems.append(Problem(f"budgets[{first}] already counts {budget.name}", here, hint="keep one"))
    return problems


def _check_parameters(route: Route, at: str) -> list[Problem]:
    """Refuse a parameter that is named twice, and budgets of generated text that have no bound to charge."""
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for i, parameter in enumerate(route.parameters):
        if first.setdefault(parameter.name, i) != i:
            here = f"{at}.parameters[{i}]"
            message = f"parameters[{first[parameter.name]}] already says what happens to {parameter.name}"
            problems.append(Problem(message, here, hint="keep one"))
    capped = any(p.name == "max_tokens" and p.max is not None for p in route.parameters)
    for i, budget in enumerate(route.budgets):
        if budget.counts != "rows" and not capped:
            hint = "parameters: [{name: max_tokens, max: 1024}]"
            message = f"{budget.kind} cannot be charged before the model is asked: max_tokens has no max"
            problems.append(Problem(message, f"{at}.budgets[{i}]", hint=hint))
    return problems


def _effective(parent: Mode, child: Mode) -> Mode:
    return child if parent == "enforce" else "shadow"


def below(at: str, problem: Problem) -> Problem:
    """Return a problem of a spec with its path inside the policy."""
    path = f"{at}.{problem.path}" if problem.path else at
    return Problem(problem.message, path, problem.line, problem.hint)


def meets(match: Match, endpoint: Endpoint) -> bool:
    """Say whether a request can be one of `match` and of `endpoint`: by segments; a `{name}` meets anything."""
    ours, theirs = match.path.split("/"), endpoint.template.split("/")
    if endpoint.method not in match.methods or len(ours) != len(theirs):
        return False
    return all(_same_segment(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_segment(a: str, b: str) -> bool:
    if "{" in a and "{" in b:
        return True
    return bool(path_pattern(a).fullmatch(_PARAMETER.sub("x", b)) or path_pattern(b).fullmatch(_PARAMETER.sub("x", a)))


def check_ledgers(policy: Policy) -> list[Problem]:
    """Routes that share a ledger must agree on what a budget of the same name allows."""
    problems: list[Problem] = []
    first: dict[tuple[str, Mode, str], tuple[int, Budget]] = {}
    for index, route in enumerate(policy.routes):
        for i, budget in enumerate(route.budgets):
            mode = _effective(route.mode or policy.mode, budget.mode)
            owner, known = first.setdefault((route.ledger or route.name, mode, budget.name), (index, budget))
            if owner != index and known.model_copy(update={"mode": budget.mode}) != budget:
                at = f"routes[{index}].budgets[{i}]"
                problems.append(
                    Problem(
                        f"{budget.name} has other terms on another route of this ledger",
                        at,
                        hint="write the same budget on both",
                    )
                )
    return problems


def check_headers(policy: Policy) -> list[Problem]:
    """Headers that frame the message are Guard's own, and credentials go to the model only where identity says so."""
    named = [(f"upstream_headers[{i}].name", header.name.lower()) for i, header in enumerate(policy.upstream_headers)]
    passed = [(f"forward_headers[{i}]", name.lower()) for i, name in enumerate(policy.forward_headers)]
    hint = "drop it"
    problems = [
        Problem(f"{name} belongs to Guard's own connection to the model", at, hint=hint)
        for at, name in named + passed
        if name in _OWN_HEADERS
    ]
    credentials = {
        s.header.lower() for s in policy.identity if isinstance(s, ApiKeyIdentity | JwtIdentity) and not s.forward
    }
    hint = "write forward: true on the identity source that reads it, if the model must see it"
    problems += [Problem(f"{name} carries a credential", at, hint=hint) for at, name in passed if name in credentials]
    return problems


def warn_route(route: Route, at: str) -> list[Problem]:
    """Return what an operator would regret about a route."""
    warnings: list[Problem] = []
    for i, defence in enumerate(route.defences):
        snapped = route.inputs is not None and route.inputs.step is not None
        if defence.random and getattr(defence, "reuse", None) == "query" and not snapped:
            hint = "declare inputs with size, low, high and step"
            warnings.append(
                Problem(
                    "without inputs.step, tiny changes of a query average this noise away",
                    f"{at}.defences[{i}]",
                    hint=hint,
                )
            )
    if any(getattr(d, "reuse", None) == "none" for d in route.defences) and any(b.distinct for b in route.budgets):
        hint = "reuse: query, so that a repeat returns the same noise"
        warnings.append(
            Problem(
                "repeats cost no graded answer, and fresh noise is averaged away by them", f"{at}.budgets", hint=hint
            )
        )
    for i, budget in enumerate(route.budgets):
        if budget.scales and (route.inputs is None or route.inputs.size is None):
            hint = "declare inputs.size; until then the smallest query that the model has answered counts"
            warnings.append(
                Problem("the dimension of a query is not declared", f"{at}.budgets[{i}].graded_answers", hint=hint)
            )
            break
    return warnings + warn_private(route, at)


def warn_policy(policy: Policy) -> list[Problem]:
    """Return what an operator would regret about the policy as a whole."""
    return [*_warn_extended(policy), *_warn_unnamed(policy)]


def _warn_extended(policy: Policy) -> list[Problem]:
    """Name routes that took the place of a preset's and have nothing of it: lists replace, they do not merge."""
    if policy.extends is None:
        return []
    hint = f"copy what you want of {policy.extends}: a list of routes takes the place of its whole list"
    said = f"neither defences nor budgets: those of {policy.extends} are not taken over"
    return [
        Problem(said, f"routes[{i}]", hint=hint)
        for i, route in enumerate(policy.routes)
        if not route.defences and not route.budgets and route.ensemble is None
    ]


def _warn_unnamed(policy: Policy) -> list[Problem]:
    """Warn of budgets per client where clients are addresses."""
    if any(source.kind != "address" for source in policy.identity):
        return []
    for i, route in enumerate(policy.routes):
        if any(defence.kind == "rotate" for defence in route.defences):
            hint = "add identity: [{kind: api_key, ...}]: a client at another address gets vectors that fit none"
            said = "embeddings are rotated for each client, and clients are told apart by address only"
            return [Problem(said, f"routes[{i}].defences", hint=hint)]
    if not any(b.per != "model" for route in policy.routes for b in route.budgets):
        return []
    hint = "add identity: [{kind: api_key, ...}]; behind an ingress every client has the ingress's address"
    return [Problem("budgets are per client, but clients are told apart by address only", "identity", hint=hint)]


def check_opened(routes: list[RoutePlan]) -> list[Problem]:
    """Refuse a policy that opens nothing: its routes' APIs answer none of the kinds that they are for."""
    if not routes or any(open_.endpoint.access == "scoring" for route in routes for open_ in route.endpoints):
        return []
    kinds = " and no ".join(dict.fromkeys(route.outputs.kind for route in routes))
    hint = "another API (api: or --api), or outputs of a kind that it answers; --policy llm is for language models"
    return [Problem(f"{routes[0].api} answers no {kinds}, so no route opens anything", "routes", hint=hint)]


def warn_unreached(routes: list[RoutePlan]) -> list[Problem]:
    """Name routes whose every scoring endpoint an earlier route takes whole."""
    warnings: list[Problem] = []
    taken: dict[tuple[str, str], str] = {}
    for index, route in enumerate(routes):
        scoring = [open_ for open_ in route.endpoints if open_.endpoint.access == "scoring"]
        keys = [(open_.endpoint.method, open_.endpoint.template) for open_ in scoring]
        if keys and all(key in taken for key in keys):
            hint = "put the narrower route first, or give the earlier one a match"
            warnings.append(
                Problem(
                    f"no request reaches this route: {taken[keys[0]]} takes them all", f"routes[{index}]", hint=hint
                )
            )
        taken |= {
            key: route.name
            for key, open_ in zip(keys, scoring, strict=True)
            if open_.narrow is None and key not in taken
        }
    return warnings
