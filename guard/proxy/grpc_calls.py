"""From one message over gRPC to an exchange on the same way that HTTP requests go.

What a policy says of `POST /v2/models/{model}/infer` holds for `ModelInfer`: the path is made of the model that the
message names, and matched as HTTP's is. The route is the policy's own but for its codec.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import quote

from guard.errors import ClientError, Denied, UpstreamError
from guard.model.exchange import Call
from guard.proxy.exchange import Exchange
from guard.upstream.grpc import SERVICE, TELL
from guard.wire.base import Endpoint, Reader
from guard.wire.open_inference import OpenInference
from guard.wire.open_inference_grpc import GrpcCall, OpenInferenceGrpc
from guard.wire.open_inference_messages import ModelInferRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from guard.model.exchange import Reply
    from guard.policy.plan import Matched, RoutePlan
    from guard.ports import Clock, Headers, Heard, Stream, Upstreams
    from guard.proxy.grpc_messages import Rpc
    from guard.proxy.plans import Active
    from guard.telemetry.metrics import Metrics

MODEL_INFER = f"{SERVICE}ModelInfer"
_CONTENT_TYPE = "application/grpc"
_LONGEST_KEPT, _MOST_KEPT = 128, 256
_ANYTHING = Endpoint("*", "/", "status")
"""What a policy in shadow does not open goes through untouched, like a status endpoint."""


def closed() -> Denied:
    """Return the refusal of what no route opens."""
    return Denied("this endpoint is closed", code="closed", status=404)


def path_of(model: str, version: str, end: str) -> str:
    """Return HTTP's path of a model: two models never have the same."""
    short = len(model) + len(version) <= _LONGEST_KEPT
    return _kept_path(model, version, end) if short else _path(model, version, end)


def _path(model: str, version: str, end: str) -> str:
    """Return the path.

    >>> _path("a/b", "", "infer"), _path("m", "1", "ready")
    ('/v2/models/a%2Fb/infer', '/v2/models/m/versions/1/ready')
    """
    middle = f"/versions/{quote(version, safe='')}" if version else ""
    return f"/v2/models/{quote(model, safe='')}{middle}/{end}"


_kept_path = lru_cache(_MOST_KEPT)(_path)


@dataclass(slots=True)
class OneRpc:
    """The models as one exchange sees them: asked by one RPC, for no longer than the client waits. An `Upstreams`.

    Args:
        upstream: the models.
        path: the RPC's.
        left_s: how long the client still waits; None for ever.
        asked: what to send in place of the exchange's body; None for that.
        tell: ask for the metadata of answers too.
    """

    upstream: Upstreams
    path: str
    left_s: Callable[[], float | None]
    asked: bytes | None = None
    tell: bool = False

    def _within(self, timeout_s: float) -> float:
        left_s = self.left_s()
        if left_s is None:
            return timeout_s
        if left_s <= 0:
            raise UpstreamError("there is no time left", code="upstream_timeout", status=504, reached=False)
        return min(left_s, timeout_s)

    def _body(self, body: bytes) -> bytes:
        return body if self.asked is None else self.asked

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        """Ask as `Upstreams.send` does; the target is this RPC's."""
        del target
        headers = [*headers, TELL] if self.tell else headers
        return await self.upstream.send(method, self.path.encode(), headers, self._body(body), self._within(timeout_s))

    async def open(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Stream:
        """Ask as `Upstreams.open` does."""
        del target
        return await self.upstream.open(method, self.path.encode(), headers, self._body(body), self._within(timeout_s))

    async def send_all(
        self,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: bytes,
        timeout_s: float,
        *,
        quorum: int,
        wait_s: float,
        read: Callable[[Reply], Heard],
    ) -> list[Heard | None]:
        """Ask all models as `Upstreams.send_all` does; the target is this RPC's."""
        del target
        return await self.upstream.send_all(
            method,
            self.path.encode(),
            headers,
            self._body(body),
            self._within(timeout_s),
            quorum=quorum,
            wait_s=wait_s,
            read=read,
        )

    async def aclose(self) -> None:
        """Do nothing: the models stay for others."""


class Calls:
    """Makes exchanges of messages.

    Args:
        upstream: the models.
        metrics: all metrics.
        clock: time.
    """

    def __init__(self, upstream: Upstreams, metrics: Metrics, clock: Clock) -> None:
        self._upstream = upstream
        self._metrics = metrics
        self._clock = clock
        self._active: Active | None = None
        self._routes: dict[int, RoutePlan] = {}

    def infer(self, active: Active, rpc: Rpc, body: bytes, message: ModelInferRequest | None) -> Exchange:
        """Return the exchange of a `ModelInferRequest`.

        Args:
            active: the plan.
            rpc: what it came with.
            body: the message as it came.
            message: the same, read; None for bytes that are no such message.

        Raises:
            ClientError: it is none.
            Denied: 404, no route opens the model.
        """
        path = "" if message is None else path_of(message.model_name, message.model_version, "infer")
        found = None if message is None else active.plan.match("POST", path)
        if found is not None and (
            found.endpoint.access != "scoring" or not isinstance(found.route.codec, OpenInference)
        ):
            found = None
        if found is None and active.plan.mode == "enforce":
            raise (
                ClientError("the request is no ModelInferRequest", code="bad_message") if message is None else closed()
            )
        params = {} if found is None else found.params
        call = GrpcCall(path, params, _CONTENT_TYPE, body, rpc.headers, body, path.encode("ascii"), message=message)
        return self._exchange(active, rpc, found, call, OneRpc(self._upstream, MODEL_INFER, rpc.left_s))

    def status(self, active: Active, rpc: Rpc, path: str, name: str, asked: bytes) -> Exchange:
        """Return the exchange of a question whether something is ready.

        Args:
            active: the plan.
            rpc: what it came with.
            path: HTTP's path of the same question.
            name: the RPC's name.
            asked: the serialised request.

        Raises:
            Denied: 404, no route opens it.
        """
        found = active.plan.match("GET", path)
        if found is not None and not isinstance(found.route.codec, OpenInference):
            found = None
        if found is None and active.plan.mode == "enforce":
            raise closed()
        call = Call(path, {}, _CONTENT_TYPE, asked, rpc.headers, asked, path.encode("ascii"))
        return self._exchange(
            active, rpc, found, call, OneRpc(self._upstream, SERVICE + name, rpc.left_s, asked), b"GET"
        )

    def untouched(self, active: Active, rpc: Rpc, path: str, body: bytes) -> Exchange:
        """Return the exchange of an RPC that a policy in shadow lets through as it is.

        Args:
            active: the plan.
            rpc: what it came with.
            path: the RPC's.
            body: the message.
        """
        call = Call(path, {}, _CONTENT_TYPE, body, rpc.headers, body, path.encode("ascii"))
        return self._exchange(active, rpc, None, call, OneRpc(self._upstream, path, rpc.left_s))

    def _exchange(
        self, active: Active, rpc: Rpc, found: Matched | None, call: Call, upstream: OneRpc, method: bytes = b"POST"
    ) -> Exchange:
        route = self._route(active, active.transparent if found is None else found.route)
        upstream.tell = route.mode == "shadow"
        return Exchange(
            active=active,
            route=route,
            endpoint=_ANYTHING if found is None else found.endpoint,
            metrics=self._metrics.route(route.name),
            call=call,
            method=method,
            peer=rpc.peer,
            began_s=rpc.began_s,
            now_s=self._clock.wall_s(),
            id=rpc.id,
            certificate=rpc.certificate,
            upstream=upstream,
        )

    def _route(self, active: Active, route: RoutePlan) -> RoutePlan:
        """Return a route with the codec for gRPC; one for each of a plan's routes."""
        if active is not self._active:
            self._active, self._routes = active, {}
        made = self._routes.get(id(route))
        if made is None:
            # What no route opens is read by no codec.
            reader = route.codec.reader if isinstance(route.codec, OpenInference) else Reader(route.outputs)
            made = self._routes[id(route)] = replace(route, codec=OpenInferenceGrpc(reader))
        return made
