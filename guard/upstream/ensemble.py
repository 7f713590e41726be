"""One model server, or several that are asked at once and whose answers a route puts together.

Theory of operation. `send_all` starts one task a model and waits for one future that ends the round: when all models
have answered or failed, when `wait_s` has passed since the quorum was full, or when so many have failed that it cannot
be full any more. What is late is cancelled, which closes its connection. A model's failure is its own: it shows as
None, and only a missing quorum fails the request.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol

from guard.errors import UpstreamError
from guard.ports import Heard, Upstream
from guard.upstream.http import HttpUpstream

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, Task, TimerHandle
    from collections.abc import Callable, Sequence

    from guard.model.exchange import Reply
    from guard.ports import Headers, Stream

log = logging.getLogger("guard.upstream")


class Model(Upstream, Protocol):
    """The way to one model server."""

    def bound(self, max_connections: int, max_response_bytes: int) -> None:
        """Put other bounds in force: for every exchange that begins from now on."""
        ...


class Connect(Protocol):
    """Makes the way to one model server."""

    def __call__(self, url: str, *, max_connections: int, max_response_bytes: int) -> Model:
        """Return it."""
        ...


_LEAST_SHARE_BYTES = 256 * 1024
_TOLD_EVERY_S = 60.0
_TOLD_MODELS = 10
_REJECTIONS = frozenset((400, 404, 405, 409, 413, 415, 422))
"""Statuses that speak of the request; when they alone prevent a quorum, the client is told one of them."""


class Upstreams:
    """All model servers behind one Guard. Implements `guard.ports.Upstreams`.

    Args:
        models: (name, URL) pairs; a single model's name may be empty.
        max_connections: bound of open connections to each model.
        max_response_bytes: bound of the replies' bodies to one request, all models together; each may take its share,
            and 256 KiB in any case.
        quorum: how many must answer for the whole to be ready: what `send` asks for.
        connect: makes the way to one model.

    Raises:
        PolicyError: a URL is not usable.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, str]],
        *,
        max_connections: int = 256,
        max_response_bytes: int = 32 * 1024 * 1024,
        quorum: int = 1,
        connect: Connect = HttpUpstream,
    ) -> None:
        self.names = tuple(name for name, _ in models)
        self.quorum = quorum
        self._told_at = -_TOLD_EVERY_S
        size = self._share(max_response_bytes)
        self._models = [connect(url, max_connections=max_connections, max_response_bytes=size) for _, url in models]

    async def send(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Reply:
        """Send one request to the only model and return its reply; of several, the first good one once `quorum` are in.

        Raises:
            UpstreamError: as `HttpUpstream.send` and `send_all` do; several models are asked for their status only.
            ClientError: method, target or a header holds what would change the request's framing.
        """
        if len(self._models) == 1:
            return await self._models[0].send(method, target, headers, body, timeout_s)
        if method not in (b"GET", b"HEAD"):
            raise UpstreamError("no route puts the models' answers together", code="no_single_model", reached=False)
        heard = await self.send_all(
            method, target, headers, body, timeout_s, quorum=self.quorum, wait_s=0, read=lambda reply: reply
        )
        return next(reply for reply in heard if reply is not None)

    async def open(self, method: bytes, target: bytes, headers: Headers, body: bytes, timeout_s: float) -> Stream:
        """Send one request to the only model and return its reply as soon as its head is there.

        Raises:
            UpstreamError: as `HttpUpstream.open` does; `no_single_model` when there are several.
            ClientError: same.
        """
        if len(self._models) > 1:
            raise UpstreamError("no route streams several models' answers", code="no_single_model", reached=False)
        return await self._models[0].open(method, target, headers, body, timeout_s)

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
        """Ask all models at once; return what `read` made of each one's reply, in their order.

        Args:
            method: `b"POST"` and the like.
            target: origin form; each model's own base path goes before it.
            headers: end-to-end headers.
            body: the whole body.
            timeout_s: for everything.
            quorum: least number of models that must be heard.
            wait_s: how long to wait for the others once `quorum` are.
            read: called with every reply of status 200 as soon as it is there, while others are still on their way. A
                model whose reply it cannot read (`UpstreamError`, or anything else) has failed.

        Returns:
            None for a model that failed, answered with another status than 200, or was late.

        Raises:
            UpstreamError: code `no_quorum`, 502, or 504 when there was no time; `upstream_rejected` when so many refuse
                the request itself; `reached` is False only if certainly no model saw it.
            ClientError: as for `send`.
        """
        loop = asyncio.get_running_loop()
        round_ = _Round(loop, len(self._models), quorum, wait_s, read)
        tasks = [loop.create_task(model.send(method, target, headers, body, timeout_s)) for model in self._models]
        for place, task in enumerate(tasks):
            task.add_done_callback(partial(round_.ended, place))
        try:
            await round_.over
        finally:
            round_.close()
            for task in tasks:
                task.cancel()
        if round_.failures:
            self._tell(loop.time(), round_.failures)
        return round_.result()

    async def each(self, target: bytes, timeout_s: float) -> list[Reply | UpstreamError]:
        """Ask every model with GET; return its reply, or what went wrong."""
        sent = [model.send(b"GET", target, [], b"", timeout_s) for model in self._models]
        found: list[Reply | UpstreamError] = []
        for outcome in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, UpstreamError):
                raise outcome
            found.append(outcome)
        return found

    def bound(self, max_connections: int, max_response_bytes: int) -> None:
        """Put other bounds in force: for every exchange that begins from now on."""
        for model in self._models:
            model.bound(max_connections, self._share(max_response_bytes))

    async def aclose(self) -> None:
        """Close all connections; requests under way fail."""
        await asyncio.gather(*[model.aclose() for model in self._models])

    def _share(self, size: int) -> int:
        return max(size // len(self.names), min(size, _LEAST_SHARE_BYTES))

    def _tell(self, now: float, failures: dict[int, str]) -> None:
        """Log which models fail: one line a minute at most, for clients must not fill the log."""
        if now - self._told_at < _TOLD_EVERY_S:
            return
        self._told_at = now
        log.warning("%s", some(len(self.names), {self.names[place]: why for place, why in sorted(failures.items())}))


def some(count: int, failing: dict[str, str]) -> str:
    """Say how many models answer, and name the first that do not.

    >>> some(3, {"b": "upstream cannot be reached"})
    '2 of 3 models answer; not b (upstream cannot be reached)'
    """
    named = [f"{name} ({why})" for name, why in list(failing.items())[:_TOLD_MODELS]]
    more = len(failing) - len(named)
    rest = f" and {more} more" if more else ""
    return f"{count - len(failing)} of {count} models answer; not {', '.join(named)}{rest}"


class _Round(Generic[Heard]):
    """One request on its way to all models.

    `over` ends the wait; `failures` tells for each model that failed why it did.
    """

    __slots__ = (
        "_bug",
        "_closed",
        "_good",
        "_loop",
        "_quorum",
        "_read",
        "_refusals",
        "_seen",
        "_timed_out",
        "_timer",
        "_wait_s",
        "failures",
        "heard",
        "over",
    )

    def __init__(
        self, loop: AbstractEventLoop, count: int, quorum: int, wait_s: float, read: Callable[[Reply], Heard]
    ) -> None:
        self._loop = loop
        self._read = read
        self._quorum = quorum
        self._wait_s = wait_s
        self._good = 0
        self._timed_out = 0
        self._seen = False
        self._closed = False
        self._refusals: Counter[int] = Counter()
        self._timer: TimerHandle | None = None
        self._bug: BaseException | None = None
        self.failures: dict[int, str] = {}
        self.heard: list[Heard | None] = [None] * count
        self.over: Future[None] = loop.create_future()

    def ended(self, place: int, task: Task[Reply]) -> None:
        """Take one model's reply or failure."""
        if task.cancelled():
            return
        error = task.exception()  # retrieved even when it is too late: nobody else will look
        if self._closed:
            return
        if error is None:
            self._replied(place, task.result())
        elif isinstance(error, UpstreamError):
            self._seen = self._seen or error.reached
            self._timed_out += error.status == 504
            self.failures[place] = error.message
        else:
            self._bug = error
            self._end()
        self._judge()

    def _replied(self, place: int, reply: Reply) -> None:
        self._seen = True
        if reply.status != 200:
            self._refusals[reply.status] += 1
            self.failures[place] = f"answered {reply.status}"
            return
        try:
            self.heard[place] = self._read(reply)
            self._good += 1
        except UpstreamError as error:
            self.failures[place] = error.message
        except Exception as error:  # Whatever one model says, only its own answer may be lost by it.
            self.failures[place] = f"cannot be read: {type(error).__name__}"

    def _judge(self) -> None:
        count = len(self.heard)
        pending = count - self._good - len(self.failures)
        if not pending:
            self._end()
        elif len(self.failures) > count - self._quorum:
            # While nobody has seen the request, the others decide whether it can be refunded.
            if self._seen:
                self._end()
        elif self._good == self._quorum and self._timer is None:
            self._timer = self._loop.call_later(self._wait_s, self._end)

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def close(self) -> None:
        """Take nothing more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def result(self) -> list[Heard | None]:
        """Return what was heard.

        Raises:
            UpstreamError: they are fewer than the quorum.
        """
        if self._bug is not None:
            raise self._bug
        if self._good >= self._quorum:
            return self.heard
        status, most = next(iter(self._refusals.most_common(1)), (0, 0))
        if status in _REJECTIONS and most > len(self.heard) - self._quorum:
            raise UpstreamError("the models refused this request", code="upstream_rejected", status=status)
        raise UpstreamError(
            "too few models answered",
            code="no_quorum",
            status=504 if self._good + self._timed_out >= self._quorum else 502,
            reached=self._seen,
        )
