"""From a policy to a plan: builds codecs, resolves modes and ledgers, and finds contradictions.

Pure: reads no file and no clock.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import NamedTuple

from guard.defences.base import Mode
from guard.defences.secret_ngrams import Ngrams
from guard.detectors.profile import Profile
from guard.errors import PolicyError, Problem
from guard.policy.contradictions import (
    check_headers,
    check_ledgers,
    check_opened,
    check_route,
    meets,
    warn_policy,
    warn_route,
    warn_unreached,
)
from guard.policy.detecting import calibrate, detection_of
from guard.policy.detection import Detection
from guard.policy.detection_checks import check_detection, check_meters, warn_detection
from guard.policy.documents import documented
from guard.policy.dominated import warn_dominated
from guard.policy.plan import OpenEndpoint, Plan, RoutePlan, path_pattern
from guard.policy.private import Made, bind, check_orders, check_priced, check_shared, filters, make, steps, terms_of
from guard.policy.schema import Policy, Route
from guard.wire.base import Codec, Endpoint, Reader
from guard.wire.registry import API_NAMES, TEXT_APIS, codec_class

NO_SALT = bytes(16)
"""For plans that are looked at and serve nobody."""


def compile_policy(
    policy: Policy,
    *,
    api: str | None = None,
    profiles: Mapping[str, Profile] | None = None,
    documents: Mapping[str, Ngrams] | None = None,
    salt: bytes = NO_SALT,
    today: date | None = None,
) -> Plan:
    """Compile a validated policy.

    Args:
        policy: what the file says, `extends` resolved.
        api: the API of routes that name none (`serve --api`).
        profiles: what the routes' `profile` files hold, by path; None leaves out the detection of routes that name one,
            and whatever else they would learn from it: for a look at the rest.
        documents: what the defences' `document_files` hold, by path; None leaves them out, likewise.
        salt: secret of the deployment, for the keys that detectors make of queries.
        today: the day in UTC, to warn of exceptions that have ended; None warns of none.

    Returns:
        The plan, with warnings.

    Raises:
        PolicyError: every contradiction at once, with paths.
    """
    problems: list[Problem] = []
    warnings: list[Problem] = []
    sound: list[_Sound] = []
    names: set[str] = set()
    for index, given in enumerate(policy.routes):
        at = f"routes[{index}]"
        route, profile = _profiled(given, profiles)
        if route.name in names:
            problems.append(Problem(f"two routes are called {route.name}", f"{at}.name", hint="names are unique"))
        names.add(route.name)
        found = check_route(route, at, policy.mode) + check_detection(route, profile, at)
        if given is route:
            route, uncalibrated = calibrate(route, profile, at)
            found += uncalibrated + check_meters(route, profile, at)
        codec = _codec(route, at, api, found)
        problems += found
        if codec is not None and not found:
            sound.append(_Sound(at, documented(route, documents), codec, profile))
        warnings += warn_route(route, at)
    routes, unpriced = _routes(sound, policy.mode, api or "", salt)
    problems += unpriced
    warnings += warn_policy(policy)
    warnings += warn_unreached(routes)
    problems += check_ledgers(policy) + check_shared(policy) + check_headers(policy) + check_opened(routes)
    if problems:
        raise PolicyError(problems)
    for one, made in zip(sound, routes, strict=True):
        warnings += warn_detection(one.route, made, policy.identity, one.at, today)
        if profiles is not None or not any(d.calibrates for d in one.route.defences):  # for a look, none is calibrated
            warnings += warn_dominated(one.route, one.profile, one.at)
    name = digest(policy, {**(profiles or {}), **(documents or {})})
    return Plan(policy.name, policy.mode, name, policy, tuple(routes), policy.limits, tuple(warnings))


class _Sound(NamedTuple):
    """A route with nothing wrong with it by itself."""

    at: str
    route: Route
    codec: Codec
    profile: Profile | None


def _profiled(route: Route, profiles: Mapping[str, Profile] | None) -> tuple[Route, Profile | None]:
    if route.profile is None:
        return route, None
    if profiles is None:
        return route.model_copy(update={"profile": None, "detectors": None, "ladder": (), "exceptions": ()}), None
    return route, profiles[route.profile]


def _routes(sound: list[_Sound], parent: Mode, api: str, salt: bytes) -> tuple[list[RoutePlan], list[Problem]]:
    """Compile routes that have nothing wrong with them by themselves; those that share a ledger share its filter."""
    problems: list[Problem] = []
    bindable: list[tuple[str, Route]] = []
    for at, route, _, _ in sound:
        try:
            bind(route)
        except ValueError as error:
            problems.append(Problem(str(error), f"{at}.defences", hint="guard budget plan finds noise that does"))
        else:
            bindable.append((_ledger(route, parent), route))
    problems += check_orders([(at, _ledger(route, parent), route) for at, route, _, _ in sound])
    found = filters(bindable)
    terms = terms_of(bindable, found)
    routes: list[RoutePlan] = []
    for at, route, codec, profile in sound:
        ledger = _ledger(route, parent)
        if ledger in found:
            problems += check_priced(route, at, found[ledger])
        grades = _grades(route)
        try:
            detection = detection_of(route, profile, salt, grades=grades)
        except ValueError as error:
            detection = None
            hint = "guard calibrate makes a profile of what was recorded on this route"
            problems.append(Problem(f"the profile does not fit: {error}", f"{at}.profile", hint=hint))
        if not problems:
            learnt = "" if profile is None else profile.digest
            made = make(route, route.mode or parent, found.get(ledger), terms.get(ledger), learnt)
            routes.append(_route(route, parent, codec, route.api or api, made, detection, grades=grades))
    return routes, problems


def digest(policy: Policy, files: Mapping[str, Profile | Ngrams] = MappingProxyType({})) -> str:
    """Return the SHA-256 of the resolved policy, its profiles and documents; secrets are masked by their type."""
    canonical = json.dumps(policy.model_dump(mode="json", exclude={"extends"}), sort_keys=True, separators=(",", ":"))
    learnt = "".join(f"\n{path} {file.digest}" for path, file in sorted(files.items()))
    return hashlib.sha256((canonical + learnt).encode()).hexdigest()


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
    if route.parameters and api not in TEXT_APIS:
        hint = (
            f"drop parameters, or name another API (api: or --api): {', '.join(n for n in API_NAMES if n in TEXT_APIS)}"
        )
        problems.append(
            Problem(f"{api} is no language model's API: it has no parameters", f"{at}.parameters", hint=hint)
        )
    if route.ensemble is not None and api in TEXT_APIS and route.outputs.kind == "logprobs":
        hint = "drop ensemble, and name one model"
        problems.append(Problem("generated texts cannot be put together", f"{at}.ensemble", hint=hint))
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
        codec = codec_class(api)(Reader(route.outputs, route.fields, select, {p.name: p for p in route.parameters}))
    except ValueError as error:
        problems.append(Problem(str(error), f"{at}.select", hint="paths follow RFC 9535, such as $.rows[*].p"))
        return None
    scoring = [endpoint for endpoint in codec.endpoints if endpoint.access == "scoring"]
    if codec.endpoints and not scoring and route.api is not None:
        # A route that names no API may be one of several kinds, of which `--api` answers some.
        hint = "name another kind, or another API"
        problems.append(Problem(f"{api} answers no {route.outputs.kind}", f"{at}.outputs.kind", hint=hint))
    if scoring and route.match is not None and not any(meets(route.match, endpoint) for endpoint in scoring):
        known = ", ".join(sorted({f"{endpoint.method} {endpoint.template}" for endpoint in scoring}))
        problems.append(
            Problem(f"match opens none of {api}'s scoring endpoints", f"{at}.match", hint=f"they are {known}")
        )
    return codec


def _ledger(route: Route, parent: Mode) -> str:
    name = route.ledger or route.name
    return f"shadow:{name}" if (route.mode or parent) == "shadow" else name


def _grades(route: Route) -> bool:
    """Say whether answers carry more than a label."""
    return route.outputs.kind != "labels" and not any(d.leaves_labels and d.mode == "enforce" for d in steps(route))


def _route(
    route: Route, parent: Mode, codec: Codec, api: str, made: Made, detection: Detection | None, *, grades: bool
) -> RoutePlan:
    mode = route.mode or parent
    budgets = tuple(b.on(route.outputs) for b in made.budgets if grades or not b.distinct)
    more = [b for step in (detection.ladder if detection else ()) for b in step.budgets]
    return RoutePlan(
        name=route.name,
        api=api,
        mode=mode,
        codec=codec,
        inputs=route.inputs,
        fields=route.fields,
        outputs=route.outputs,
        defences=made.defences,
        budgets=budgets,
        ledger=_ledger(route, parent),
        endpoints=_endpoints(route, codec),
        binding=tuple(b for b in budgets if mode == "shadow" or b.mode == "enforce"),
        watched=tuple(b for b in budgets if mode == "enforce" and b.mode == "shadow"),
        scales=any(b.scales for b in (*budgets, *more)),
        ensemble=route.ensemble,
        private=made.private,
        statement=made.statement,
        detection=detection,
        parameters=route.parameters,
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
