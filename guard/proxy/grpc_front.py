"""gRPC beside HTTP: where it listens, which models it asks, and how it joins the rest of a running Guard."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from guard.errors import PolicyError, Problem
from guard.proxy.models import check_models, connections_each, quorum_of
from guard.upstream.ensemble import Upstreams
from guard.wire.open_inference import OpenInference

if TYPE_CHECKING:
    from guard.policy.plan import Plan
    from guard.proxy.app import DataApp
    from guard.proxy.grpc_listener import GrpcListener
    from guard.proxy.handler import Handler
    from guard.proxy.plans import Plans
    from guard.proxy.tls import Certificates

log = logging.getLogger("guard.grpc")


@dataclass(frozen=True, slots=True)
class Grpc:
    """Where gRPC is served, and to whom it is passed on; none of it is policy.

    Args:
        listen: (host, port) of the listener; port 0 takes a free one.
        upstreams: (name, URL) of every model server; one alone may have an empty name.
    """

    listen: tuple[str, int]
    upstreams: tuple[tuple[str, str], ...]


def check_grpc(plan: Plan, count: int) -> None:
    """Hold a policy against the number of models that gRPC asks: of its routes, those count that gRPC can serve.

    Raises:
        PolicyError: none can be served, or one needs another number of models.
    """
    served = tuple(route for route in plan.routes if isinstance(route.codec, OpenInference))
    if not served and plan.mode == "enforce":
        hint = "gRPC serves routes of api: open_inference"
        raise PolicyError([Problem("no route of the policy can be served over gRPC", "routes", hint=hint)])
    check_models(replace(plan, routes=served), count)


def open_models(grpc: Grpc, plan: Plan) -> Upstreams:
    """Return the way to the models, within the plan's bounds.

    Raises:
        PolicyError: a URL is not usable, or the policy does not fit the models.
    """
    # The extra, which only what serves gRPC has.
    from guard.upstream.grpc import GrpcUpstream  # noqa: PLC0415

    check_grpc(plan, len(grpc.upstreams))
    return Upstreams(
        grpc.upstreams,
        max_connections=connections_each(plan.limits.concurrency, 1),
        max_response_bytes=plan.limits.answer_bytes,
        quorum=quorum_of(plan),
        connect=GrpcUpstream,
    )


def open_listener(
    grpc: Grpc | None,
    upstream: Upstreams | None,
    plans: Plans,
    handler: Handler,
    app: DataApp,
    certificates: Certificates | None,
) -> GrpcListener | None:
    """Return the listener, which does not accept yet, or None where none is asked for.

    Requests of both listeners count together.

    Raises:
        OSError: the address cannot be bound.
    """
    if grpc is None or upstream is None:
        return None
    from guard.proxy.grpc_listener import GrpcListener  # noqa: PLC0415
    from guard.proxy.grpc_service import GrpcService  # noqa: PLC0415

    certified = certificates is not None and certificates.tls.client_ca is not None
    if certificates is not None and certified and not certificates.tls.client_required:
        log.warning(
            "over gRPC a client certificate cannot be optional: with --tls-client-ca every client must bring one"
        )
    service = GrpcService(
        plans, handler, handler.metrics, handler.clock, upstream, certified=certified, beside=lambda: app.in_flight
    )
    app.beside = lambda: service.in_flight
    return GrpcListener(service, grpc.listen, lambda: plans.current.plan.limits, certificates)
