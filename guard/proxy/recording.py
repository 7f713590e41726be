"""Recorded traffic: what `guard serve --record` takes of each answered request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.detectors.sketch import Sketch, Sketcher
from guard.evidence.bodies import REPLY_HEADERS, REQUEST_HEADERS, Asked, Said
from guard.evidence.recording import ADDRESS, ENFORCED, LONGER, RELEASED
from guard.proxy.secret import derived

if TYPE_CHECKING:
    from guard.model.client import Client
    from guard.model.exchange import Reply
    from guard.model.queries import Queries
    from guard.policy.plan import RoutePlan
    from guard.proxy.exchange import Exchange
    from guard.telemetry.bodies import BodyRecorder
    from guard.telemetry.metrics import Metrics
    from guard.telemetry.recorder import Recorder

_MOST_ROWS = 256
"""Rows of one request that are recorded: a batch of thousands must not hold the loop."""


class Recording:
    """Takes features and top scores of answered requests, and hands them to the recorder.

    Args:
        recorder: writes them.
        secret: what salts are derived from; the same for all replicas whose recordings are put together.
        metrics: counts rows that were lost.
        bodies: writes whole requests and answers; None unless the operator asks for it.
    """

    def __init__(self, recorder: Recorder, secret: bytes, metrics: Metrics, bodies: BodyRecorder | None = None) -> None:
        self.recorder = recorder
        self.bodies = bodies
        self._metrics = metrics
        self._lost = 0
        self._salt = derived(secret, b"guard record")
        self._sketchers: dict[str, tuple[Sketch, Sketcher]] = {}

    def note(self, x: Exchange, client: Client) -> None:
        """Record one request that the model has answered."""
        # A replay asks over HTTP: bodies of gRPC would say nothing to it.
        if self.bodies is not None and x.reply is not None and not x.remembered and x.upstream is None:
            self.bodies.note(self._asked(x, client, x.reply))
        self._sketch(x, client)
        lost = self.recorder.dropped + (0 if self.bodies is None else self.bodies.dropped)
        if lost > self._lost:
            self._metrics.recording_dropped(lost - self._lost)
            self._lost = lost

    async def aclose(self) -> None:
        """Write what waits, and let go of files."""
        await self.recorder.aclose()
        if self.bodies is not None:
            await self.bodies.aclose()

    def _asked(self, x: Exchange, client: Client, reply: Reply) -> Asked:
        """Return the request as it came and what each model said, without any other header than those named."""
        name = self.recorder.key.pseudonym
        return Asked(
            x.now_s,
            name(client.name),
            name(client.group),
            client.source,
            x.route.name,
            x.route.mode,
            x.method.decode("ascii", "replace"),
            x.call.path,
            [header for header in x.call.headers if header[0] in REQUEST_HEADERS],
            x.call.sent,
            tuple(map(_said, x.replies or (reply,))),
        )

    def _sketch(self, x: Exchange, client: Client) -> None:
        if x.reading is None or x.answer is None or not x.answer.predictions:
            return
        queries = x.reading.queries
        prediction = x.answer.predictions[0]
        said = prediction.scores
        if x.route.private is not None:  # there detection looks at releases alone, so that is what it is calibrated on
            released = None if x.report is None else x.report.released
            said = said[:0] if released is None else released.scores
        scores = said if prediction.rows is None and len(said) == queries.rows else None
        about = ADDRESS * (client.source == "address") | ENFORCED * (x.route.mode == "enforce")
        about |= RELEASED * (x.route.private is not None) | LONGER * (queries.rows > _MOST_ROWS)
        if queries.rows > _MOST_ROWS:
            queries = queries.part(0, _MOST_ROWS)
            scores = None if scores is None else scores[:_MOST_ROWS]
        sketch, sketcher = self._sketcher(x.route, queries)
        features, raw = sketcher.features(queries), sketcher.raw(queries)
        self.recorder.note(x.route.name, sketch, client.name, x.now_s, features, raw, scores, about)

    def _sketcher(self, route: RoutePlan, queries: Queries) -> tuple[Sketch, Sketcher]:
        """Return the route's sketch; its first query says what it is where the policy does not."""
        found = self._sketchers.get(route.name)
        if found is None:
            matrix = queries.matrix()
            salt = self._salt[:16].hex()
            if matrix is None:
                sketch = Sketch(kind="text", salt=salt)
            else:
                sketch = Sketch(kind="vector", size=matrix.shape[1], salt=salt)
            found = self._sketchers[route.name] = (sketch, Sketcher(sketch, self._salt))
        return found


def _said(reply: Reply | None) -> Said | None:
    if reply is None:
        return None
    return Said(reply.status, [header for header in reply.headers if header[0] in REPLY_HEADERS], reply.body)
