"""The RPCs of the gRPC listener: each message goes the way that HTTP's requests go, and comes back as a status code.

A unary RPC is served as one that may have several messages: Guard reads the one itself, so that a client that sends it
too slowly is let go. The library's own way for unary RPCs waits for ever.

A stream's messages are guarded one by one, a few at once, and answered in order. The model is asked each by an RPC of
its own, so that one request never gets more than the one answer that it was charged for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar, cast

from guard.errors import ClientError, GuardError, InvariantError, StateError, UpstreamError
from guard.proxy.grpc_calls import Calls, closed, path_of
from guard.proxy.grpc_messages import NOT_FOUND, UNIMPLEMENTED, UNKNOWN, Rpc, Told, rpc_of, told, told_error
from guard.proxy.grpc_patience import Patience, Wait
from guard.proxy.protocol import STALLED_S
from guard.telemetry.logs import request_id
from guard.upstream.grpc import SERVICE
from guard.wire.open_inference_messages import (
    ModelInferRequest,
    health_message,
    health_service,
    infer_request,
    model_ready,
    model_ready_request,
    stream_answer,
    stream_error,
    truth_message,
)

if TYPE_CHECKING:
    from guard.ports import Clock, Upstreams
    from guard.proxy.exchange import Exchange
    from guard.proxy.handler import Handler
    from guard.proxy.plans import Active, Plans
    from guard.telemetry.metrics import Metrics

log = logging.getLogger("guard.grpc")
Context = Any  # the library's, which has no types
T = TypeVar("T")
Serve = Callable[[object, Context], Coroutine[Any, Any, T]]  # Any: as coroutines have them
Answer = Callable[["Active", Rpc, bytes], Awaitable[Told]]
Waiting = asyncio.Queue[asyncio.Task[Told] | None]
"""Answers to the messages of one stream, in order; None at the end."""

PIPELINED = 8
"""Messages of one stream that are under way at once."""
STREAM = f"{SERVICE}ModelStreamInfer"
_LONGEST_METHOD = 128
_HEALTH = "/grpc.health.v1.Health/Check"
_HEALTH_WITHIN_S = 2.0
_SERVICES = frozenset(("", "inference.GRPCInferenceService"))
_STRICT = (b"triton_grpc_error", b"true")
"""Asks Triton to end a stream with a status code at its first error."""


class GrpcService:
    """Serves RPCs.

    Args:
        plans: the plan in force.
        handler: takes exchanges through the phases.
        metrics: all metrics.
        clock: time.
        upstream: the models.
        certified: clients are asked for certificates.
        beside: requests in flight that other listeners serve.
    """

    def __init__(
        self,
        plans: Plans,
        handler: Handler,
        metrics: Metrics,
        clock: Clock,
        upstream: Upstreams,
        *,
        certified: bool,
        beside: Callable[[], int] = lambda: 0,
    ) -> None:
        self._plans = plans
        self._handler = handler
        self._metrics = metrics
        self._clock = clock
        self._upstream = upstream
        self._certified = certified
        self._calls = Calls(upstream, metrics, clock)
        self._answers: dict[str, Answer] = {
            f"{SERVICE}ModelInfer": self._infer,
            f"{SERVICE}ModelReady": self._model_ready,
            f"{SERVICE}ServerLive": self._server_live,
            f"{SERVICE}ServerReady": self._server_ready,
            _HEALTH: self._health,
        }
        self._readers: set[asyncio.Task[None]] = set()
        self._draining = False
        self._beside = beside
        self.patience = Patience()
        self.in_flight = 0

    def unary(self, method: str) -> Serve[bytes] | None:
        """Return what serves a method, given as its path, that has one answer; None for one that has not."""
        answer = self._answers.get(method)
        if answer is None and method != STREAM and self._plans.current.plan.mode == "shadow":
            if not method.startswith(SERVICE) or len(method) > _LONGEST_METHOD:
                return None
            answer = partial(self._untouched, method)
        return None if answer is None else partial(self._unary, answer)

    def stream(self, method: str) -> Serve[None]:
        """Return what serves any other method."""
        return self._stream if method == STREAM else self._closed

    @property
    def streams(self) -> int:
        """How many streams take messages."""
        return sum(not reader.done() for reader in self._readers)

    def drain(self) -> None:
        """Take no more messages of streams; those under way are answered."""
        self._draining = True
        for reader in list(self._readers):
            reader.cancel()

    # one message, one answer

    async def _unary(self, answer: Answer, requests: object, context: Context) -> bytes:
        del requests  # Guard reads from the context
        rpc, active, wait = self._begin(context), self._plans.current, self.patience.of()
        if self._full(active):
            return await self._last(context, wait, self._refused(active, rpc, overloaded()))
        self.in_flight += 1
        try:
            body = await self._receive(context, wait, active)
            found = await answer(active, rpc, body)
        except Exception as error:  # the library would tell the client what it says
            found = self._failed(active, rpc, error)
        finally:
            self.in_flight -= 1
        return await self._last(context, wait, found)

    def _full(self, active: Active) -> bool:
        return self.in_flight + self._beside() >= active.plan.limits.concurrency

    def _begin(self, context: Context) -> Rpc:
        rpc = rpc_of(context, self._clock.monotonic_s(), certified=self._certified)
        request_id.set(rpc.id)  # each RPC runs in a task of its own
        return rpc

    async def _receive(self, context: Context, wait: Wait, active: Active) -> bytes:
        wait.wait(active.plan.limits.read_timeout_s)
        try:
            body = cast("object", await context.read())
        except asyncio.CancelledError:
            if not self.patience.forgiven(wait):
                raise
            raise ClientError("the request took too long to arrive", code="read_timeout", status=408) from None
        wait.rest()
        if not isinstance(body, bytes):
            raise ClientError("the request has no message", code="bad_message")
        return body

    async def _last(self, context: Context, wait: Wait, found: Told) -> bytes:
        """Return the answer that ends an RPC, or end it with an error; a client that does not read it is let go."""
        wait.wait(STALLED_S)
        if found.initial:
            await context.send_initial_metadata(found.initial)
        if found.code:
            await context.abort(status(found.code), found.message, found.trailing)
        context.set_trailing_metadata(found.trailing)
        return found.body

    def _refused(self, active: Active, rpc: Rpc, error: GuardError, code: int | None = None) -> Told:
        """Return the answer to what never became an exchange, and count it."""
        self._metrics.route("none").request(error.code)
        return told_error(error, rpc.id if active.plan.mode == "enforce" else "", code)

    def _failed(self, active: Active, rpc: Rpc, error: Exception) -> Told:
        """Return the answer to what failed; of a bug the library would tell the client all that the exception says."""
        if not isinstance(error, GuardError):
            log.exception("bug in the gRPC listener")
            error = InvariantError("internal error")
        return self._refused(active, rpc, error)

    async def _closed(self, requests: object, context: Context) -> None:
        del requests
        rpc = self._begin(context)
        refusal = ClientError("this method is closed", code="closed", status=404)
        await self._last(context, self.patience.of(), self._refused(self._plans.current, rpc, refusal, UNIMPLEMENTED))

    # the methods

    async def _infer(self, active: Active, rpc: Rpc, body: bytes) -> Told:
        return await self._ask(self._calls.infer(active, rpc, body, infer_request(body)))

    async def _untouched(self, path: str, active: Active, rpc: Rpc, body: bytes) -> Told:
        return await self._ask(self._calls.untouched(active, rpc, path, body))

    async def _ask(self, x: Exchange) -> Told:
        return told(x, await self._handler.handle(x))

    async def _server_live(self, active: Active, rpc: Rpc, body: bytes) -> Told:
        del body
        return await self._whether(self._calls.status(active, rpc, "/v2/health/live", "ServerLive", b""))

    async def _server_ready(self, active: Active, rpc: Rpc, body: bytes) -> Told:
        del body
        return await self._whether(self._calls.status(active, rpc, "/v2/health/ready", "ServerReady", b""))

    async def _model_ready(self, active: Active, rpc: Rpc, body: bytes) -> Told:
        asked = model_ready(body)
        if asked is None:
            raise ClientError("the request is no ModelReadyRequest", code="bad_message")
        path = path_of(*asked, "ready")
        return await self._whether(self._calls.status(active, rpc, path, "ModelReady", model_ready_request(*asked)))

    async def _whether(self, x: Exchange) -> Told:
        """Ask whether something is ready; what is not is an answer, no error."""
        response = await self._handler.handle(x)
        if x.route.mode == "shadow" or (x.error is not None and x.error.code != "upstream_busy"):
            return told(x, response)
        return Told(truth_message(x.error is None), trailing=(("x-request-id", x.id),))

    async def _health(self, active: Active, rpc: Rpc, body: bytes) -> Told:
        """Answer the health check that orchestrators know: whether Guard serves, and its models are ready."""
        service = health_service(body)
        if service not in _SERVICES:
            return self._refused(active, rpc, closed(), NOT_FOUND)
        try:
            ready = await self._upstream.send(b"GET", b"/v2/health/ready", [], b"", _HEALTH_WITHIN_S)
        except UpstreamError:
            return Told(health_message(serving=False))
        return Told(health_message(serving=ready.status == 200 and not self._draining))

    # a stream

    async def _stream(self, requests: object, context: Context) -> None:
        del requests
        rpc, active, wait = self._begin(context), self._plans.current, self.patience.of()
        limits = active.plan.limits
        if len(self._readers) >= max(1, limits.concurrency // 2) or self._draining:
            await self._last(context, wait, self._refused(active, rpc, overloaded()))
            return
        waiting = Waiting(PIPELINED)
        under_way: set[asyncio.Task[Told]] = set()
        reader = asyncio.create_task(self._read(context, rpc, waiting, under_way))
        self._readers.add(reader)
        try:
            async with asyncio.timeout(limits.stream_s):
                end = await self._write(context, wait, waiting, strict=_STRICT in rpc.headers)
        except TimeoutError:
            message = "the stream has lasted as long as it may: open another"
            end = self._refused(active, rpc, StateError(message, code="stream_over"))
        finally:
            self._readers.discard(reader)
            for task in (reader, *under_way):
                task.cancel()
        if end is None and self._draining:
            end = told_error(StateError("the server is shutting down", code="shutting_down"), rpc.id)
        if end is not None:
            await self._last(context, wait, end)

    async def _write(self, context: Context, wait: Wait, waiting: Waiting, *, strict: bool) -> Told | None:
        """Answer messages in order; returns an error that ends the stream, None at its end."""
        while (task := await waiting.get()) is not None:
            found = await task
            if found.code and strict:
                return found
            wait.wait(STALLED_S)
            await context.write(found.body)
            wait.rest()
        return None

    async def _read(self, context: Context, rpc: Rpc, waiting: Waiting, under_way: set[asyncio.Task[Told]]) -> None:
        """Begin with each message as it comes, as far as there is room."""
        count = 0
        sequence: asyncio.Task[Told] | None = None
        try:
            while isinstance(body := cast("object", await context.read()), bytes):
                count += 1
                message = infer_request(body)
                ordered = message is not None and "sequence_id" in message.parameters
                one = replace(rpc, began_s=self._clock.monotonic_s(), id=f"{rpc.id}-{count}")
                task = asyncio.create_task(self._message(one, body, message, sequence if ordered else None))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                sequence = task if ordered else sequence
                await waiting.put(task)
        except asyncio.CancelledError:
            if not self._draining:
                raise
        await waiting.put(None)

    async def _message(
        self, rpc: Rpc, body: bytes, message: ModelInferRequest | None, before: asyncio.Task[Told] | None
    ) -> Told:
        """Return the answer to one message of a stream, errors included, wrapped as the stream has it.

        Args:
            rpc: the stream's, with an id of the message's own.
            body: the message.
            message: the same, read.
            before: the message before it of a sequence, whose state at the model this one may follow.
        """
        request_id.set(rpc.id)
        if before is not None:
            await asyncio.wait([before])
        active, id_ = self._plans.current, "" if message is None else message.id
        if self._full(active):
            found = self._refused(active, rpc, overloaded())
        else:
            self.in_flight += 1
            try:
                found = await self._ask(self._calls.infer(active, rpc, body, message))
            except Exception as error:  # same
                found = self._failed(active, rpc, error)
            finally:
                self.in_flight -= 1
        found.body = stream_error(found.message, id_) if found.code else stream_answer(found.body)
        return found


def overloaded() -> StateError:
    """Return the refusal of one RPC too many."""
    return StateError("too many requests in flight", code="overloaded", retry_after_s=1)


@cache
def _statuses() -> dict[int, Any]:  # Any: the library's enumeration
    return {one.value[0]: one for one in import_module("grpc").StatusCode}


def status(code: int) -> Any:  # Any: same
    """Return the library's status code."""
    return _statuses().get(code) or _statuses()[UNKNOWN]
