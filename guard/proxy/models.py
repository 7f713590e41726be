"""The models behind this process: whether a policy fits their number, how they are reached, whether they are well."""

from __future__ import annotations

import resource

from guard.errors import GuardError, PolicyError, Problem
from guard.policy.plan import Plan
from guard.upstream.ensemble import Upstreams, some

_OTHER_FILES = 128
"""Open files beside connections of clients and to models: the state, listeners, logs."""
_READY_WITHIN_S = 2.0


def check_models(plan: Plan, count: int) -> None:
    """Hold a policy against the number of models that there are.

    Raises:
        PolicyError: a route's ensemble needs more, or a route without one cannot choose.
    """
    problems: list[Problem] = []
    for index, route in enumerate(plan.routes):
        at = f"routes[{index}].ensemble"
        if route.ensemble is None and count > 1:
            message = f"route {route.name} asks one model, and --upstream names {count}"
            problems.append(Problem(message, at, hint="ensemble: {aggregate: mean, quorum: ..}"))
        elif route.ensemble is not None and route.ensemble.quorum > count:
            message = f"route {route.name} needs the answers of {route.ensemble.quorum} models"
            hint = f"--upstream names {count}: name more (NAME=URL), or lower the quorum"
            problems.append(Problem(message, f"{at}.quorum", hint=hint))
    if problems:
        raise PolicyError(problems)


def open_upstreams(models: tuple[tuple[str, str], ...], plan: Plan) -> Upstreams:
    """Return the way to the models, within the plan's bounds.

    Args:
        models: (name, URL) of each.
        plan: the plan in force.

    Raises:
        PolicyError: a URL is not usable.
    """
    clients, size = plan.limits.concurrency, plan.limits.answer_bytes
    connections = connections_each(clients, len(models))
    return Upstreams(models, max_connections=connections, max_response_bytes=size, quorum=quorum_of(plan))


def adjust(upstream: Upstreams, plan: Plan) -> None:
    """Put the bounds of another plan in force."""
    upstream.bound(connections_each(plan.limits.concurrency, len(upstream.names)), plan.limits.answer_bytes)
    upstream.quorum = quorum_of(plan)


def quorum_of(plan: Plan) -> int:
    """Return how many models must answer for every route to be served."""
    return max((route.ensemble.quorum for route in plan.routes if route.ensemble is not None), default=1)


def connections_each(clients: int, models: int) -> int:
    """Return how many connections each model may get: one a request in flight, as far as open files allow.

    The process's bound of open files is raised, to what it may be, if that is needed.

    Args:
        clients: requests in flight at most.
        models: how many models there are.
    """
    if models == 1:
        return clients
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OTHER_FILES + clients * (models + 1)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft not in (resource.RLIM_INFINITY, allowed) and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(1, min(clients, (allowed - _OTHER_FILES - clients) // models))


async def upstream_ready(upstream: Upstreams, plan: Plan) -> bool | str:
    """Ask the models whether they are ready: True when enough are, or which are not and why."""
    endpoint = next(
        (
            o.endpoint
            for r in plan.routes
            for o in r.endpoints
            if o.endpoint.access == "status" and "{" not in o.endpoint.template
        ),
        None,
    )
    target = endpoint.template.encode() if endpoint is not None else b"/"
    failing: dict[str, str] = {}
    for name, reply in zip(upstream.names, await upstream.each(target, _READY_WITHIN_S), strict=True):
        if isinstance(reply, GuardError):
            failing[name] = reply.message
        # Any answer shows that a server is there; a health endpoint must also say that it is well.
        elif endpoint is not None and reply.status >= 500:
            failing[name] = f"the model answers {reply.status}"
    count = len(upstream.names)
    if count - len(failing) >= upstream.quorum:
        return True
    return f"{some(count, failing)}; quorum {upstream.quorum}" if count > 1 else next(iter(failing.values()))
