"""A model that speaks gRPC, Guard's gRPC listener before it, and a client, in one process on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from guard.proxy.grpc_listener import GrpcListener
from guard.proxy.grpc_service import STREAM, GrpcService
from guard.proxy.tls import Certificates
from guard.upstream.ensemble import Upstreams
from guard.upstream.grpc import SERVICE, GrpcUpstream
from tests.support.fakes import Guarded
from tests.support.grpc_messages import answer

grpc: Any = import_module("grpc")  # Any: the library has no types, here and below
import_module("grpc.aio")
INFER = f"{SERVICE}ModelInfer"
SCORES = answer(("p", "FP32", [[0.71, 0.21, 0.08]]))
POLICY = """version: 1
routes:
  - name: r
    api: open_inference
    defences: [{kind: round, decimals: 1}]
"""


@dataclass
class Asked:
    """One RPC as the model saw it."""

    method: str
    metadata: dict[str, str]
    body: bytes
    left_s: float


@dataclass
class Model:
    """Answers RPCs with what `answer` returns, or ends them as it does."""

    answer: Callable[[Asked, Any], Awaitable[bytes]]
    asked: list[Asked] = field(default_factory=list[Asked])
    cancelled: int = 0
    port: int = 0

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        async def handle(body: bytes, context: Any) -> bytes:
            left_s = context.time_remaining()
            metadata = dict(context.invocation_metadata())
            self.asked.append(Asked(method, metadata, body, float("inf") if left_s is None else left_s))
            try:
                return await self.answer(self.asked[-1], context)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        return grpc.unary_unary_rpc_method_handler(handle)


async def scores(asked: Asked, context: Any) -> bytes:
    """Answer as a model that is ready and has three classes."""
    del context
    return SCORES if asked.method == INFER else b"\x08\x01"


@contextlib.asynccontextmanager
async def model(
    answer: Callable[[Asked, Any], Awaitable[bytes]] = scores, credentials: object = None, port: int = 0
) -> AsyncGenerator[Model]:
    """Serve a model on a free port."""
    made = Model(answer)

    class Handlers(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> Any:
            return made.service(handler_call_details)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    where = f"127.0.0.1:{port}"
    made.port = server.add_insecure_port(where) if credentials is None else server.add_secure_port(where, credentials)
    await server.start()
    try:
        yield made
    finally:
        await server.stop(0)


class GrpcGuarded(Guarded):
    """Guard's gRPC listener on a free port, and beside it, without sockets, its data listener.

    Args:
        policy: the policy's YAML.
        folder: where it is written.
        ports: the models'.
        certificates: for TLS.
        env: environment, for `{env: NAME}`.
    """

    def __init__(
        self,
        folder: Path,
        *ports: int,
        policy: str = POLICY,
        certificates: Certificates | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        super().__init__(policy, folder, env=env)
        limits = self.plans.current.plan.limits
        models = [(f"m{i}" if len(ports) > 1 else "", f"grpc://127.0.0.1:{port}") for i, port in enumerate(ports)]
        self.models = Upstreams(models, max_response_bytes=limits.answer_bytes, connect=GrpcUpstream)
        certified = certificates is not None and certificates.tls.client_ca is not None
        self.service = GrpcService(
            self.plans, self.handler, self.metrics, self.clock, self.models, certified=certified,
            beside=lambda: self.app.in_flight,
        )  # fmt: skip
        self.app.beside = lambda: self.service.in_flight
        self.listener = GrpcListener(
            self.service, ("127.0.0.1", 0), lambda: self.plans.current.plan.limits, certificates, look_s=0.01
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listener.address[1]}"

    @property
    def counted(self) -> dict[str, float]:
        """Return how many requests had which outcome, over all routes."""
        found: dict[str, float] = {}
        for route in self.metrics.routes.values():
            for family in route.tallies["guard_requests_total"].collect():
                for sample in family.samples:
                    outcome = sample.labels["outcome"]
                    found[outcome] = found.get(outcome, 0) + sample.value
        return {outcome: count for outcome, count in found.items() if count}


@contextlib.asynccontextmanager
async def serving(guarded: GrpcGuarded) -> AsyncGenerator[GrpcGuarded]:
    """Serve until the end of this context, then drain."""
    await guarded.listener.start()
    task = asyncio.create_task(guarded.listener.serve())
    try:
        yield guarded
    finally:
        guarded.listener.should_exit = True
        await task
        await guarded.models.aclose()


@contextlib.asynccontextmanager
async def front(folder: Path, *ports: int, policy: str = POLICY, **options: Any) -> AsyncGenerator[GrpcGuarded]:
    """Serve Guard before models."""
    async with serving(GrpcGuarded(folder, *ports, policy=policy, **options)) as guarded:
        yield guarded


@dataclass
class Got:
    """What a client got."""

    code: str
    message: str
    body: bytes
    trailing: dict[str, str]


class Client:
    """Asks over one channel.

    Args:
        address: host and port.
        credentials: for TLS.
        options: of the channel.
    """

    def __init__(self, address: str, credentials: object = None, options: Any = None) -> None:
        self.channel = (
            grpc.aio.insecure_channel(address, options)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options)
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def ask(self, body: bytes, method: str = INFER, timeout_s: float = 10, **metadata: str) -> Got:
        """Ask once."""
        pairs = _pairs(metadata)
        call = self.channel.unary_unary(method)(body, timeout=timeout_s, metadata=pairs)
        try:
            found = await call
        except grpc.aio.AioRpcError as error:
            return Got(error.code().name, error.details(), b"", dict(error.trailing_metadata()))
        return Got("OK", "", found, dict(await call.trailing_metadata()))

    def stream(self, timeout_s: float = 10, **metadata: str) -> Any:
        """Open a stream of requests."""
        pairs = _pairs(metadata)
        return self.channel.stream_stream(STREAM)(timeout=timeout_s, metadata=pairs)


def _pairs(metadata: dict[str, str]) -> tuple[tuple[str, str], ...]:
    """Return keyword arguments as metadata: dashes for underscores where HTTP's headers have them."""
    return tuple((key.replace("_", "-") if key.startswith("x_") else key, value) for key, value in metadata.items())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)
