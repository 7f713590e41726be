"""Remembered releases on their way to and from the state: a repeated query is answered with what was paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.engine.admit import digests
from guard.engine.memo import memo_of, no_consensus, pack_reply, unpack, unpack_reply
from guard.errors import StateError

if TYPE_CHECKING:
    from guard.model.client import Client
    from guard.ports import State
    from guard.proxy.exchange import Exchange, Response
    from guard.telemetry.metrics import Metrics


class Releases:
    """Looks releases up before a request is charged, and keeps those that it has drawn.

    Args:
        state: where they are kept.
        secret: keys the queries' digests.
        metrics: counts a state that is out of reach.
    """

    def __init__(self, state: State, secret: bytes, metrics: Metrics) -> None:
        self._state = state
        self._secret = secret
        self._metrics = metrics

    async def recall(self, x: Exchange, client: Client) -> None:
        """Look up what was released to the request's rows; when all of it is known, the model need not be asked."""
        private = x.route.private
        if private is None or x.reading is None or x.route.mode == "shadow":
            return
        form = b"" if x.upstream is None else b"grpc"  # rows are shared with HTTP, what is rendered of them is not
        x.memo = memo = memo_of(private, client, x.call.path, digests(self._secret, x.reading.queries), form)
        whole, *rows = await self._state.recall(x.route.ledger, [memo.whole, *memo.keys])
        memo.known = [unpack(row) for row in rows]
        if whole is not None and not memo.due():
            x.reply, x.remembered = unpack_reply(whole), True

    async def remember(self, x: Exchange) -> None:
        """Keep what the request has drawn.

        Raises:
            ClientError: 422, a row did not reach the mechanism's threshold; it was paid for, and is remembered so.
        """
        memo = x.memo
        if memo is None or x.remembered:
            return
        if memo.drawn:
            await self._keep(x, memo.drawn)
        if memo.withheld:
            raise no_consensus()

    async def remember_whole(self, x: Exchange, response: Response) -> None:
        """Keep the rendered answer, so that the same request needs no model."""
        if x.memo is None or x.remembered or x.labels_only:
            return
        headers = [header for header in response.headers if header[0] != b"content-length"]
        await self._keep(x, [(x.memo.whole, pack_reply(headers, response.body))])

    async def _keep(self, x: Exchange, releases: list[tuple[bytes, bytes]]) -> None:
        try:
            await self._state.remember(x.route.ledger, releases)
        except StateError:
            # What is not remembered is charged again, which is the safe side.
            self._metrics.state_error()
