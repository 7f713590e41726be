"""What a running Guard serves side by side, and the ways to the models behind it."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from guard.proxy.models import upstream_ready

if TYPE_CHECKING:
    from guard.policy.plan import Plan
    from guard.proxy.grpc_listener import GrpcListener
    from guard.proxy.listener import Listener
    from guard.upstream.ensemble import Upstreams

Address = tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways to the models; at least one.

    Args:
        http: over HTTP.
        grpc: over gRPC.
    """

    http: Upstreams | None
    grpc: Upstreams | None

    @property
    def every(self) -> list[Upstreams]:
        """All there are."""
        return [way for way in (self.http, self.grpc) if way is not None]

    async def ready(self, plan: Plan) -> bool | str:
        """Ask the models whether they are ready, on every way to them: True, or which are not and why."""
        for way in self.every:
            answer = await upstream_ready(way, plan)
            if answer is not True:
                return answer
        return True

    async def aclose(self) -> None:
        """Close all connections."""
        for way in self.every:
            await way.aclose()


class _Serving(Protocol):
    """What serves until it is told to exit."""

    should_exit: bool
    force_exit: bool

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve."""
        ...


class Fronts:
    """The listeners: data, admin, gRPC, as far as there are any.

    Args:
        data: the data listener, and its socket; None for the socket when nothing is served over HTTP.
        page: the admin listener, and its socket.
        grpc: the gRPC listener, which binds by itself.
    """

    def __init__(
        self,
        data: tuple[Listener, socket.socket | None],
        page: tuple[Listener, socket.socket] | None,
        grpc: GrpcListener | None,
    ) -> None:
        self._grpc = grpc
        self._http = [(one, sock) for one, sock in (data, page or (None, None)) if one is not None and sock is not None]
        self._every: list[_Serving] = [one for one, _ in self._http]
        if grpc is not None:
            self._every.append(grpc)
        self.addresses: tuple[Address, Address, Address] = (
            None if data[1] is None else data[1].getsockname()[:2],
            None if page is None else page[1].getsockname()[:2],
            None if grpc is None else grpc.address,
        )

    async def start(self) -> None:
        """Begin to accept where no socket that is bound already does.

        Raises:
            OSError: an address cannot be bound.
        """
        if self._grpc is not None:
            await self._grpc.start()

    async def serve(self) -> None:
        """Serve until told to stop."""
        serving = [one.serve(sockets=[sock]) for one, sock in self._http]
        await asyncio.gather(*serving, *([] if self._grpc is None else [self._grpc.serve()]))

    def stop(self) -> None:
        """Let requests under way end; called again, end them."""
        for one in self._every:
            if one.should_exit:
                one.force_exit = True
            one.should_exit = True
