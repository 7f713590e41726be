"""From a policy to a plan: builds codecs, resolves modes and ledgers, and finds contradictions.

Pure: reads no file and no clock.
"""

from __future__ import annotations

import hashlib
import json
import re

from guard.budgets.base import Budget
from guard.defences.base import Defence, Mode
from guard.errors import PolicyError, Problem
from guard.policy.plan import OpenEndpoint, Plan, RoutePlan, path_pattern
from guard.policy.schema import Match, Policy, Route
from guard.wire.base import Codec, Endpoint, Reader
from guard.wire.registry import API_NAMES, codec_class

_OWN_HEADERS = frozenset(
    (
        "host",
        "content-length",
        "content-type",
        "content-encoding",
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


def compile_policy(policy: Policy, *, api: str | None = None) -> Plan:
    """Compile a validated policy.

    Args:
        policy: what the file says, `extends` resolved.
        api: the API of routes that name none (`serve --api`).

    Returns:
        The plan, with warnings.

    Raises:
        PolicyError: every contradiction at once, with paths.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    routes: list[RoutePlan] = []
    names: set[str] = set()
    for index, route in enumerate(policy.routes):
        at = f"routes[{index}]"
        if route.name in names:
            problems.append(Problem(f"two routes are called {route.name}", f"{at}.name", hint="names are unique"))
        names.add(route.name)
        found = _check_route(route, at, policy.mode)
        codec = _codec(route, at, api, found)
        problems += found
        if codec is not None and not found:
            routes.append(_route(route, policy.mode, codec, route.api or api or ""))
        warnings += _warn_route(route, at)
    warnings += _warn_policy(policy)
    warnings += _warn_unreached(routes)
    problems += _check_ledgers(policy) + _check_headers(policy)
    if problems:
        raise PolicyError(problems)
    return Plan(policy.name, policy.mode, digest(policy), policy, tuple(routes), policy.limits, tuple(warnings))


def digest(policy: Policy) -> str:
    """Return the SHA-256 of the resolved policy; secrets are masked by their type."""
    canonical = json.dumps(policy.model_dump(mode="json", exclude={"extends"}), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _weaker(parent: Mode, child: Mode) -> bool:
    return parent == "enforce" or child == "shadow"


def _check_route(route: Route, at: str, parent: Mode) -> list[Problem]:
    problems: list[Problem] = []
    mode = route.mode or parent
    if not _weaker(parent, mode):
        hint = "mode: enforce on the policy, then shadow on the other routes"
        problems.append(Problem("a route cannot enforce under a policy in shadow", f"{at}.mode", hint=hint))
    coarse: Defence | None = None
    for i, defence in enumerate(route.defences):
        here = f"{at}.defences[{i}]"
        problems += [_below(here, p) for p in defence.check(route.outputs, route.inputs)]
        if defence.random and coarse is not None:
            hint = f"put {defence.kind} before {coarse.kind}"
            problems.append(
                Problem(f"{defence.kind} after {coarse.kind} would be seen for what it is", here, hint=hint)
            )
        if defence.coarsens and defence.mode == "enforce":
            coarse = coarse or defence
    return problems + _check_budgets(route, at, mode)


def _check_budgets(route: Route, at: str, mode: Mode) -> list[Problem]:
    """Refuse two budgets of one name, which would charge one counter twice; shadow has counters of its own."""
    problems: list[Problem] = []
    seen: dict[tuple[Mode, str], int] = {}
    for i, budget in enumerate(route.budgets):
        here = f"{at}.budgets[{i}]"
        problems += [_below(here, p) for p in budget.check(route.outputs)]
        first = seen.setdefault((_effective(mode, budget.mode), budget.name), i)
        if first != i:
            problems.append(Problem(f"budgets[{first}] already counts {budget.name}", here, hint="keep one"))
    return problems


def _effective(parent: Mode, child: Mode) -> Mode:
    return child if parent == "enforce" else "shadow"


def _below(at: str, problem: Problem) -> Problem:
    path = f"{at}.{problem.path}" if problem.path else at
    return Problem(problem.message, path, problem.line, problem.hint)


def _codec(route: Route, at: str, default: str | None, problems: list[Problem]) -> Codec | None:
    api = route.api or default
    if api is None:
        hint = f"write api: open_inference here, or start with --api; one of {', '.join(API_NAMES)}"
        problems.append(Problem("no API is named for this route", f"{at}.api", hint=hint))
        return None
    if api not in API_NAMES:
        problems.append(Problem(f"there is no API {api}", f"{at}.api", hint=f"one of {', '.join(API_NAMES)}"))
        return None
    before = len(problems)
    if api == "json" and route.match is None:
        problems.append(Problem("api: json opens no endpoint by itself", f"{at}.match", hint="match: {path: /predict}"))
    if api == "json" and (route.select is None or route.select.scores is None) and route.outputs.kind != "labels":
        problems.append(
            Problem("api: json must be told where scores are", f"{at}.select", hint='select: {scores: "$.y[*].p"}')
        )
    if api != "json" and route.select is not None:
        problems.append(
            Problem(f"select is for api: json; {api} knows where scores are", f"{at}.select", hint="drop select")
        )
    if len(problems) > before:
        return None
    select = {} if route.select is None else route.select.model_dump(exclude_none=True)
    try:
        codec = codec_class(api)(Reader(route.outputs, route.fields, select))
    except ValueError as error:
        problems.append(Problem(str(error), f"{at}.select", hint="paths follow RFC 9535, such as $.rows[*].p"))
        return None
    scoring = [endpoint for endpoint in codec.endpoints if endpoint.access == "scoring"]
    if scoring and route.match is not None and not any(_meets(route.match, endpoint) for endpoint in scoring):
        known = ", ".join(sorted({f"{endpoint.method} {endpoint.template}" for endpoint in scoring}))
        problems.append(
            Problem(f"match opens none of {api}'s scoring endpoints", f"{at}.match", hint=f"they are {known}")
        )
    return codec


def _meets(match: Match, endpoint: Endpoint) -> bool:
    """Say whether a request can be one of `match` and of `endpoint`: by segments; a `{name}` meets anything."""
    ours, theirs = match.path.split("/"), endpoint.template.split("/")
    if endpoint.method not in match.methods or len(ours) != len(theirs):
        return False
    return all(_same_segment(a, b) for a, b in zip(ours, theirs, strict=True))


def _same_segment(a: str, b: str) -> bool:
    if "{" in a and "{" in b:
        return True
    return bool(path_pattern(a).fullmatch(_PARAMETER.sub("x", b)) or path_pattern(b).fullmatch(_PARAMETER.sub("x", a)))


def _route(route: Route, parent: Mode, codec: Codec, api: str) -> RoutePlan:
    mode = route.mode or parent
    ledger = route.ledger or route.name
    enforced = [d for d in route.defences if d.mode == "enforce"]
    grades = route.outputs.kind != "labels" and not any(d.kind == "label_only" for d in enforced)
    budgets = tuple(b for b in route.budgets if grades or not b.distinct)
    return RoutePlan(
        name=route.name,
        api=api,
        mode=mode,
        codec=codec,
        inputs=route.inputs,
        fields=route.fields,
        outputs=route.outputs,
        defences=route.defences,
        budgets=budgets,
        ledger=f"shadow:{ledger}" if mode == "shadow" else ledger,
        endpoints=_endpoints(route, codec),
        grades=grades,
        needs_queries=any(d.random for d in route.defences) or any(b.distinct for b in budgets),
    )


def _endpoints(route: Route, codec: Codec) -> tuple[OpenEndpoint, ...]:
    match = route.match
    narrow = None if match is None else path_pattern(match.path)
    if not codec.endpoints and match is not None:
        return tuple(OpenEndpoint(Endpoint(m, match.path), path_pattern(match.path), None) for m in match.methods)
    found: list[OpenEndpoint] = []
    for endpoint in codec.endpoints:
        if endpoint.access == "closed":
            continue
        scoring = endpoint.access == "scoring"
        if scoring and match is not None and endpoint.method not in match.methods:
            continue
        found.append(OpenEndpoint(endpoint, path_pattern(endpoint.template), narrow if scoring else None))
    return tuple(found)


def _check_ledgers(policy: Policy) -> list[Problem]:
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


def _check_headers(policy: Policy) -> list[Problem]:
    """Headers that frame the message are Guard's own, and credentials go to the model only where identity says so."""
    named = [(f"upstream_headers[{i}].name", header.name.lower()) for i, header in enumerate(policy.upstream_headers)]
    passed = [(f"forward_headers[{i}]", name.lower()) for i, name in enumerate(policy.forward_headers)]
    hint = "drop it"
    problems = [
        Problem(f"{name} belongs to Guard's own connection to the model", at, hint=hint)
        for at, name in named + passed
        if name in _OWN_HEADERS
    ]
    credentials = {s.header.lower() for s in policy.identity if s.kind != "address" and not s.forward}
    hint = "write forward: true on the identity source that reads it, if the model must see it"
    problems += [Problem(f"{name} carries a credential", at, hint=hint) for at, name in passed if name in credentials]
    return problems


def _warn_route(route: Route, at: str) -> list[Problem]:
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
    for i, budget in enumerate(route.budgets):
        auto = getattr(budget, "graded_answers", None) == "auto"
        if auto and (route.inputs is None or route.inputs.size is None):
            hint = "declare inputs.size; until then the smallest query that the model has answered counts"
            warnings.append(
                Problem("the dimension of a query is not declared", f"{at}.budgets[{i}].graded_answers", hint=hint)
            )
            break
    return warnings


def _warn_policy(policy: Policy) -> list[Problem]:
    named = any(source.kind != "address" for source in policy.identity)
    if named or not any(b.per != "model" for route in policy.routes for b in route.budgets):
        return []
    hint = "add identity: [{kind: api_key, ...}]; behind an ingress every client has the ingress's address"
    return [Problem("budgets are per client, but clients are told apart by address only", "identity", hint=hint)]


def _warn_unreached(routes: list[RoutePlan]) -> list[Problem]:
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
