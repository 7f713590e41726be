"""`Upstreams` against real servers on 127.0.0.1: who is waited for, who is left out, and when a round fails."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from guard.errors import ClientError, PolicyError, UpstreamError
from guard.upstream.ensemble import Upstreams, some
from tests.support.processes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from guard.model.exchange import Reply

LONG_S = 30.0
SHORT_S = 0.05


@dataclass
class Server:
    """A model server that answers with `status` and its own name, when it is told to.

    Args:
        name: what it answers.
        status: its status.
        ready: set to let it answer.
    """

    name: str
    status: int = 200
    size: int = 0
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    targets: list[bytes] = field(default_factory=list[bytes])
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/base"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(size)
                self.targets.append(head.split(b" ")[1])
                self.asked.set()
                if not await self.told(reader):
                    return
                body = self.name.encode().ljust(self.size)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (self.status, len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()
            writer.close()

    async def told(self, reader: asyncio.StreamReader) -> bool:
        """Wait for `ready`; False when the client left first."""
        ready = asyncio.ensure_future(self.ready.wait())
        gone = asyncio.ensure_future(reader.read(1))
        await asyncio.wait((ready, gone), return_when=asyncio.FIRST_COMPLETED)
        stays = not gone.done()
        for task in (ready, gone):
            task.cancel()
        await asyncio.gather(ready, gone, return_exceptions=True)
        return stays


@asynccontextmanager
async def running(*servers: Server | None, size: int = 2**20) -> AsyncGenerator[Upstreams]:
    """Yield the way to some servers; None is one that cannot be reached."""
    async with AsyncExitStack() as stack:
        models: list[tuple[str, str]] = []
        for place, server in enumerate(servers):
            if server is None:
                models.append((f"gone{place}", f"http://127.0.0.1:{free_port()}"))
                continue
            listener = await stack.enter_async_context(await asyncio.start_server(server.serve, "127.0.0.1", 0))
            server.port = listener.sockets[0].getsockname()[1]
            models.append((server.name, server.url))
        upstreams = Upstreams(models, max_response_bytes=size)
        stack.push_async_callback(upstreams.aclose)
        yield upstreams


def up(name: str, status: int = 200, *, size: int = 0) -> Server:
    """Return a server that answers at once."""
    server = Server(name, status, size)
    server.ready.set()
    return server


def said(reply: Reply) -> str:
    """Return what a server says; `garbage` cannot be read, and `bug` brings the reader down."""
    text = reply.body.decode()
    if text == "garbage":
        raise UpstreamError("it cannot be read", code="unreadable_answer")
    if text == "bug":
        raise ZeroDivisionError
    return text


async def ask(upstreams: Upstreams, quorum: int, wait_s: float = LONG_S, timeout_s: float = LONG_S) -> list[str | None]:
    return await upstreams.send_all(b"POST", b"/infer", [], b"{}", timeout_s, quorum=quorum, wait_s=wait_s, read=said)


async def refused(upstreams: Upstreams, quorum: int, timeout_s: float = LONG_S) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        await ask(upstreams, quorum, timeout_s=timeout_s)
    return caught.value


async def test_every_model_is_asked_and_answers_stand_in_the_order_given() -> None:
    servers = [Server(name) for name in "abc"]
    async with running(*servers) as upstreams:
        assert upstreams.names == ("a", "b", "c")
        asked = asyncio.create_task(ask(upstreams, 3))
        for server in reversed(servers):
            await server.asked.wait()  # all are asked before any has answered
            assert not asked.done()
        for server in reversed(servers):
            server.ready.set()
        assert await asked == ["a", "b", "c"]
        assert await ask(upstreams, 3) == ["a", "b", "c"]
    assert [server.targets for server in servers] == [[b"/base/infer"] * 2] * 3


async def test_models_that_fail_are_left_out_while_a_quorum_answers() -> None:
    async with running(up("a"), up("b", 500), None, up("d"), up("e", 204)) as upstreams:
        assert await ask(upstreams, 2) == ["a", None, None, "d", None]


async def test_the_others_are_waited_for_once_the_quorum_is_full() -> None:
    late = Server("late")
    async with running(up("a"), up("b"), late) as upstreams:
        asked = asyncio.create_task(ask(upstreams, 2))
        await late.asked.wait()
        late.ready.set()
        assert await asked == ["a", "b", "late"]


@pytest.mark.parametrize("wait_s", [0.0, SHORT_S])
async def test_what_is_late_is_left_out_and_its_connection_closed(wait_s: float) -> None:
    late = Server("late")
    async with running(up("a"), late, up("b")) as upstreams:
        assert await ask(upstreams, 2, wait_s) == ["a", None, "b"]
        async with asyncio.timeout(LONG_S):
            await late.left.wait() if late.asked.is_set() else None
        late.ready.set()
        assert await ask(upstreams, 3) == ["a", "late", "b"]


async def test_what_cannot_be_read_does_not_count_towards_the_quorum() -> None:
    late = Server("late")
    async with running(up("garbage"), up("bug"), up("a"), late) as upstreams:
        asked = asyncio.create_task(ask(upstreams, 2, wait_s=0))
        await late.asked.wait()
        late.ready.set()
        assert await asked == [None, None, "a", "late"]
        error = await refused(upstreams, 3)
        assert (error.code, error.reached) == ("no_quorum", True)


async def test_the_round_fails_as_soon_as_the_quorum_is_out_of_reach() -> None:
    never = Server("never")
    async with running(up("a", 500), up("b", 503), never) as upstreams:
        error = await refused(upstreams, 2)
        assert (error.code, error.status, error.reached) == ("no_quorum", 502, True)
        async with asyncio.timeout(LONG_S):
            await never.left.wait()
    assert not any(digit in error.message for digit in "0123456789")


async def test_a_round_that_certainly_no_model_saw_says_so() -> None:
    async with running(None, None, None) as upstreams:
        error = await refused(upstreams, 1)
        assert (error.code, error.status, error.reached) == ("no_quorum", 502, False)


async def test_while_nobody_has_seen_the_request_the_others_decide_whether_it_was_seen() -> None:
    slow = Server("slow")
    async with running(None, None, slow) as upstreams:
        asked = asyncio.create_task(refused(upstreams, 3))
        await slow.asked.wait()
        slow.ready.set()
        assert (await asked).reached is True


async def test_time_that_ran_out_is_504_only_if_it_cost_the_quorum() -> None:
    async with running(up("a"), Server("never"), None) as upstreams:
        assert (await refused(upstreams, 2, SHORT_S)).status == 504
    async with running(up("a"), Server("never"), None, None) as upstreams:
        assert (await refused(upstreams, 3, SHORT_S)).status == 502


async def test_models_that_refuse_the_request_itself_are_heard() -> None:
    async with running(up("a", 422), up("b", 422), up("c")) as upstreams:
        error = await refused(upstreams, 2)
        assert (error.code, error.status, error.reached) == ("upstream_rejected", 422, True)
    async with running(up("a", 422), up("b", 400), up("c")) as upstreams:
        assert (await refused(upstreams, 2)).code == "no_quorum"
    async with running(up("a", 500), up("b", 500), up("c")) as upstreams:
        assert (await refused(upstreams, 2)).code == "no_quorum"


async def test_a_caller_that_leaves_takes_all_requests_along() -> None:
    servers = [Server("a"), Server("b")]
    async with running(*servers) as upstreams:
        asked = asyncio.create_task(ask(upstreams, 2))
        for server in servers:
            await server.asked.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        async with asyncio.timeout(LONG_S):
            for server in servers:
                await server.left.wait()


async def test_a_request_that_cannot_be_written_is_the_clients_error() -> None:
    async with running(up("a"), up("b")) as upstreams:
        with pytest.raises(ClientError):
            await upstreams.send_all(b"POST", b"/", [(b"x", b"a\r\nb: c")], b"", 9.0, quorum=1, wait_s=0, read=said)


async def test_the_only_model_answers_with_what_it_said() -> None:
    async with running(up("a", 404)) as upstreams:
        reply = await upstreams.send(b"POST", b"/infer", [], b"{}", LONG_S)
        assert (reply.status, reply.body) == (404, b"a")


async def test_the_only_model_answers_in_a_stream_and_several_in_none() -> None:
    async with running(up("a")) as upstreams:
        stream = await upstreams.open(b"POST", b"/infer", [], b"{}", LONG_S)
        assert (stream.status, await stream.read(), await stream.read()) == (200, b"a", b"")
        stream.close()
    servers = up("a"), up("b")
    async with running(*servers) as upstreams:
        with pytest.raises(UpstreamError) as caught:
            await upstreams.open(b"POST", b"/infer", [], b"{}", LONG_S)
        assert (caught.value.code, caught.value.reached) == ("no_single_model", False)
        assert not any(server.asked.is_set() for server in servers)


async def test_of_several_models_the_status_alone_can_be_asked_without_an_ensemble() -> None:
    async with running(up("a", 500), up("b"), up("c")) as upstreams:
        upstreams.quorum = 2
        assert (await upstreams.send(b"GET", b"/health", [], b"", LONG_S)).status == 200
        upstreams.quorum = 3
        with pytest.raises(UpstreamError, match="too few"):
            await upstreams.send(b"GET", b"/health", [], b"", LONG_S)
        with pytest.raises(UpstreamError) as caught:
            await upstreams.send(b"POST", b"/infer", [], b"{}", LONG_S)
        assert (caught.value.code, caught.value.reached) == ("no_single_model", False)


async def test_each_model_tells_for_itself_how_it_is() -> None:
    async with running(up("a"), None, up("c", 503)) as upstreams:
        first, second, third = await upstreams.each(b"/health", LONG_S)
        assert isinstance(second, UpstreamError)
        assert [reply.status for reply in (first, third) if not isinstance(reply, UpstreamError)] == [200, 503]


async def test_replies_share_the_bound_of_one_answer() -> None:
    share = 512 * 1024
    async with running(up("a", size=share), up("b", size=share + 1), size=2 * share) as upstreams:
        assert [name is not None for name in await ask(upstreams, 1)] == [True, False]
        upstreams.bound(4, 4 * share)
        assert None not in await ask(upstreams, 2)
        upstreams.bound(4, 1024)
        with pytest.raises(UpstreamError):
            await ask(upstreams, 1)


async def test_failing_models_are_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "guard.upstream"):
        async with running(up("a"), up("b", 500), None) as upstreams:
            for _ in range(3):
                await ask(upstreams, 1)
    (record,) = caplog.records
    assert record.getMessage() == ("1 of 3 models answer; not b (answered 500), gone2 (upstream cannot be reached)")


def test_only_the_first_that_fail_are_named() -> None:
    told = some(100, {f"m{i}": "late" for i in range(27)})
    assert told.startswith("73 of 100 models answer; not m0 (late), ")
    assert told.endswith("m9 (late) and 17 more")


async def test_closing_ends_what_is_under_way() -> None:
    slow = Server("slow")
    async with running(slow, slow) as upstreams:
        asked = asyncio.create_task(refused(upstreams, 2))
        await slow.asked.wait()
        await upstreams.aclose()
        assert (await asked).code == "no_quorum"


def test_a_url_that_cannot_be_used_is_a_bad_policy() -> None:
    with pytest.raises(PolicyError):
        Upstreams([("a", "ftp://127.0.0.1")])


async def test_a_hundred_models_are_asked_at_once() -> None:
    servers = [up(f"m{i}") for i in range(100)]
    async with running(*servers) as upstreams:
        for _ in range(3):
            assert await ask(upstreams, 100) == [f"m{i}" for i in range(100)]
