"""The way of one request, a function per phase.

No logic lives here: phases call codecs, defences, budgets and the engine.

identify -> read -> inspect -> decide -> admit -> forward -> read_answer -> release -> observe -> render, then `record`,
last and always.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

from guard.engine.aggregate import check_sound, combine
from guard.engine.failures import Phase, outcome
from guard.engine.generation import Generation
from guard.engine.randomness import QueryNoise
from guard.engine.release import PrivateRun, release
from guard.errors import ClientError, Denied, GuardError, InvariantError, StateError, UpstreamError
from guard.model.client import Client
from guard.model.exchange import Reply
from guard.model.ledger import TERMS_CHANGED
from guard.model.prediction import Answer
from guard.model.text import Most
from guard.ports import Clock, State, Upstreams
from guard.proxy import streaming
from guard.proxy.admission import AUDIT_UNAVAILABLE, Admissions, check_audit
from guard.proxy.agreement import Agreements
from guard.proxy.clients import RecentClients
from guard.proxy.decisions import RecentDecisions, decision_of, outcome_of, verdict_of
from guard.proxy.exchange import Exchange, Response
from guard.proxy.marks import Marks
from guard.proxy.messages import (
    clean_reply,
    clean_status,
    decode_content,
    error_response,
    original_response,
    upstream_headers,
    upstream_refusal,
)
from guard.proxy.observers import NOBODY, Observers
from guard.proxy.releases import Releases
from guard.proxy.secret import derived
from guard.proxy.streaming import Flow
from guard.proxy.watching import Watching
from guard.telemetry.events import Events
from guard.telemetry.metrics import Metrics
from guard.telemetry.pseudonyms import Pseudonyms
from guard.wire.base import Reading
from guard.wire.body import too_many_rows

log = logging.getLogger("guard.proxy")

_LEAST_SHARE_BYTES = 2**18

Step = Callable[[Exchange], Awaitable[None] | None]


class Handler:
    """Takes exchanges through the phases.

    Args:
        state: ledgers.
        upstream: the model.
        clock: time.
        secret: keys noise and digests, 32 bytes.
        metrics: counters that do not belong to a route.
        clients: recently seen clients, for `/clients`.
        observers: who is told of what happens.
        shared: other replicas may use the same state.
    """

    def __init__(
        self,
        state: State,
        upstream: Upstreams,
        clock: Clock,
        secret: bytes,
        metrics: Metrics,
        clients: RecentClients,
        observers: Observers = NOBODY,
        *,
        shared: bool = True,
    ) -> None:
        self.state = state
        self.upstream = upstream
        self.clock = clock
        self.secret = secret
        self.metrics = metrics
        self.clients = clients
        self.agreements = Agreements(state)
        self.releases = Releases(state, secret, metrics)
        self.audit, self.tracer, self.recording = observers
        self.pseudonyms = Pseudonyms(derived(secret, b"guard pseudonyms"))
        self.marks = Marks(self.pseudonyms)
        self.watching = Watching(state, clock, secret, metrics, Events(self.audit), self.pseudonyms, shared=shared)
        self.admission = Admissions(state, secret, metrics, self.watching.meters, clock)
        self.recent = RecentDecisions()
        self.scoring: tuple[tuple[Phase, Step], ...] = (
            ("identify", self.identify),
            ("read", self.read),
            ("inspect", self.inspect),
            ("decide", self.decide),
            ("admit", self.admit),
            ("forward", self.forward),
            ("read_answer", self.read_answer),
            ("release", self.release),
            ("observe", self.observe),
            ("render", self.render),
        )
        self.status: tuple[tuple[Phase, Step], ...] = (("forward", self.forward), ("render", self.render_status))

    async def handle(self, x: Exchange) -> Response:
        """Run the phases; what fails takes the outcome that `engine.failures` names."""
        steps = self.scoring if x.endpoint.access == "scoring" else self.status
        if self.tracer is not None:
            template = x.endpoint.template if x.endpoint.method != "*" else ""
            x.trace = self.tracer.begin(x.call.headers, x.route.name, x.method.decode("ascii"), template)
        try:
            for phase, step in steps:
                if x.trace is not None:
                    x.trace.enter(phase)
                try:
                    pending = step(x)
                    if pending is not None:
                        await pending
                except Exception as error:
                    action, shown = outcome(phase, error, x.route.mode)
                    if not isinstance(error, GuardError):
                        log.exception("bug in phase %s of route %s", phase, x.route.name)
                    self.count_failure(x, phase, shown)
                    if x.trace is not None:
                        x.trace.fail(shown.code)
                    if action == "refuse":
                        await self.refuse(x, error, shown)
                        break
            if x.response is None:
                return error_response(GuardError("internal error"), x.route.codec)
            if x.route.mode == "enforce":
                x.response.headers.append((b"x-request-id", x.id.encode("ascii")))
            return x.response
        finally:
            if x.response is None or x.response.events is None:
                self.record(x)

    async def refuse(self, x: Exchange, error: Exception, shown: GuardError) -> None:
        """Answer an error in place of everything else."""
        await self.admission.refund(x, error)
        x.error = shown
        x.response = error_response(shown, x.route.codec)

    def identify(self, x: Exchange) -> None:
        """Who asks."""
        x.client = x.active.identity.identify(x.call.headers, x.peer, x.certificate)

    def client_of(self, x: Exchange) -> Client:
        """Return the client; in shadow, one whose credential is unknown goes by its address."""
        if x.client is None:
            x.client = x.active.identity.by_address(x.call.headers, x.peer)
        return x.client

    def read(self, x: Exchange) -> None:
        """Decode the body to queries; a body that shadow could not read is one opaque row."""
        x.call.max_rows = x.active.plan.limits.rows
        decode_content(x.call, x.active.plan.limits.body_bytes)
        x.reading = reading = x.route.codec.read(x.call)
        x.rows = reading.queries.rows
        x.body = reading.body
        if x.rows > x.active.plan.limits.rows:
            raise too_many_rows()

    def inspect(self, x: Exchange) -> None:
        """Check queries against the inputs' domain and snap them."""
        if x.route.inputs is None or x.reading is None:
            return
        snapped = x.route.inputs.admit(x.reading.queries)
        if snapped is not None:
            x.body = x.route.codec.rewrite(x.reading, snapped)

    def decide(self, x: Exchange) -> Awaitable[None] | None:
        """Fold the queries into the client's evidence, and place the client on the ladder."""
        return None if x.route.detection is None else self.watching.decide(x, self.client_of(x))

    async def admit(self, x: Exchange) -> None:
        """Charge every budget in one atomic step, before the model is asked; a release that is known costs nothing."""
        client = self.client_of(x)
        if self.audit is not None and not self.audit.room():
            check_audit(x)
        if x.route.private is not None:
            x.floors = await self.agreements.floors(x.route, x.now_s)
            await self.releases.recall(x, client)
        try:
            await self.admission.admit(x, client)
        except StateError as error:
            if error.code == TERMS_CHANGED:
                self.agreements.forget(x.route.ledger)  # the next request asks what they are now
            raise

    async def forward(self, x: Exchange) -> None:
        """Ask the model: what was read in enforce, what was sent in shadow; nothing when the answer is remembered."""
        if x.remembered:
            return
        shadow = x.route.mode == "shadow"
        target = x.call.target if shadow else x.call.path.encode("ascii")
        body = x.call.sent if shadow else x.body
        headers, timeout_s = upstream_headers(x), x.active.plan.limits.upstream_timeout_s
        began, upstream = self.clock.monotonic_s(), x.upstream or self.upstream
        try:
            if x.route.ensemble is None or x.endpoint.access != "scoring":
                if streaming.wanted(x):
                    x.reply = await streaming.opened(x, upstream, target, headers, body, timeout_s)
                else:
                    x.reply = await upstream.send(x.method, target, headers, body, timeout_s)
            else:
                quorum, wait_s = x.route.ensemble.quorum, x.route.ensemble.wait_s
                heard = await upstream.send_all(
                    x.method, target, headers, body, timeout_s, quorum=quorum, wait_s=wait_s, read=partial(self.hear, x)
                )
                x.reply = next(one[0] for one in heard if one is not None)
                x.replies = tuple(None if one is None else one[0] for one in heard)
                x.answers = [None if one is None else one[1] for one in heard]
        finally:
            x.upstream_s = self.clock.monotonic_s() - began
        if x.reply is not None and x.reply.status >= 300 and not shadow:
            raise upstream_refusal(x.reply)

    def read_answer(self, x: Exchange) -> None:
        """Decode the model's answer; one with more predictions than rows charged is withheld."""
        if x.reply is None or x.reading is None or x.reply.status != 200:
            return
        most = x.active.plan.limits.answer_bytes
        x.answer = self.combined(x, x.answers) if x.answers is not None else self.decoded(x, x.reply, x.reading, most)
        if x.answer.rows > x.rows:
            raise UpstreamError("the model answered more rows than were asked", code="too_many_predictions")
        if x.route.scales:
            self.admission.answered(x.route, x.reading.queries)

    def decoded(self, x: Exchange, reply: Reply, reading: Reading, most: int) -> Answer:
        """Decode one model's answer of at most `most` bytes, packed or not."""
        return x.route.codec.answer(clean_reply(reply, most), reading)

    def hear(self, x: Exchange, reply: Reply) -> tuple[Reply, Answer]:
        """Decode one model's answer of several; one that cannot be used is a model that failed."""
        if x.reading is None or x.route.ensemble is None:
            raise InvariantError("an answer to nothing that was read")
        # Each may unpack to its share of what all may answer together.
        share = max(_LEAST_SHARE_BYTES, x.active.plan.limits.answer_bytes // x.route.ensemble.quorum)
        answer = self.decoded(x, reply, x.reading, share)
        check_sound(answer, x.rows)
        return reply, answer

    def combined(self, x: Exchange, answers: list[Answer | None]) -> Answer:
        """Put the models' answers together."""
        ensemble, private = x.route.ensemble, x.route.private
        if ensemble is None:
            raise InvariantError("there is no ensemble")
        bounds = None if private is None else private.bounds
        return combine(answers, ensemble.aggregate, ensemble.quorum, bounds, x.rows)

    def release(self, x: Exchange) -> Awaitable[None] | None:
        """Run the defences over the predictions; what was drawn for a privacy budget is remembered."""
        if x.reading is not None and x.reading.most is not None:
            self.generate(x, x.reading, x.reading.most)
            return None
        if x.answer is None or x.reading is None:
            return None
        private = None
        if x.memo is not None and x.route.private is not None and not x.remembered:
            bounds = x.route.private.bounds if x.route.ensemble is None else None
            private = PrivateRun(bounds, x.route.private.columns, x.memo)
        defences = () if x.remembered else x.route.defences
        queries = x.reading.queries.answered_by(x.answer.rows)
        noise = QueryNoise(self.secret, x.route.ledger, self.client_of(x).name, queries, x.route.inputs)
        extra = () if x.step is None else x.step.defences
        idle = () if x.step is not None or x.route.detection is None else x.route.detection.degrading
        x.report = release(
            defences,
            x.route.outputs,
            x.answer,
            noise,
            labels_only=x.labels_only,
            trace=self.audit is not None,
            private=private,
            extra=extra,
            idle=idle,
        )
        return None if private is None else self.releases.remember(x)

    def generate(self, x: Exchange, reading: Reading, most: Most) -> None:
        """Release generated text: all of a whole answer; of one in events, each as it comes."""
        noise = QueryNoise(self.secret, x.route.ledger, self.client_of(x).name, reading.queries, x.route.inputs)
        defences = x.route.defences if x.step is None else (*x.route.defences, *x.step.defences)
        x.generation = Generation(defences, x.route.outputs, noise, most, trace=self.audit is not None)
        if x.answer is not None:
            x.generation.take(x.answer)
            x.report = x.generation.report()

    def observe(self, x: Exchange) -> Awaitable[None] | None:
        """Fold the answers into evidence and information meters: what they say binds the client's next request."""
        if self.recording is not None:
            self.recording.note(x, self.client_of(x))
        if x.generation is not None and x.stream is None:
            return self.admission.settle(x, x.generation.settled())
        return None if x.watched is None else self.watching.observe(x, self.client_of(x))

    def render(self, x: Exchange) -> Awaitable[None] | None:
        """Write the API's own shape again; in shadow, what the model said."""
        if x.stream is not None:
            x.response = self.flow(x)
            return None
        if x.reply is None:
            return None
        if x.route.mode == "shadow":
            x.response = original_response(x.reply, x.active.plan.limits.answer_bytes)
            return None
        if x.answer is None:
            raise UpstreamError("the model's answer was withheld", code="unreadable_answer")
        content_type, body = x.route.codec.render(x.answer)
        headers = [(b"content-type", content_type)] if content_type else []
        headers += x.answer.headers
        x.response = Response(200, [*headers, (b"content-length", b"%d" % len(body))], body)
        return None if x.memo is None else self.releases.remember_whole(x, x.response)

    def flow(self, x: Exchange) -> Response:
        """Return an answer in events, each of which is released when it comes."""
        x.added_s = self.clock.monotonic_s() - x.began_s - x.upstream_s
        return Flow(x, partial(self.count_failure, x), partial(self.finish, x)).response()

    async def finish(self, x: Exchange) -> None:
        """End an answer in events: settle what it was charged, and record it."""
        try:
            if x.generation is not None:
                x.report = x.generation.report()
                await self.admission.settle(x, x.generation.settled())
        finally:
            self.record(x)

    def render_status(self, x: Exchange) -> None:
        """Answer health and readiness with the model's status and little else."""
        if x.stream is not None:  # of an endpoint that shadow does not know
            x.response = self.flow(x)
        elif x.reply is not None:
            x.response = (
                original_response(x.reply, x.active.plan.limits.answer_bytes)
                if x.route.mode == "shadow"
                else clean_status(x.reply)
            )

    def count_failure(self, x: Exchange, phase: Phase, error: GuardError) -> None:
        """Count what failed, whether it was refused or passed over."""
        if isinstance(error, StateError) and error.code != AUDIT_UNAVAILABLE:
            self.metrics.state_error()
        if error.code in ("unreadable_answer", "too_many_predictions"):
            x.metrics.unreadable()
        if phase in ("read", "inspect") and isinstance(error, ClientError) and x.route.detection is not None:
            self.watching.offence(x, self.client_of(x))
        if isinstance(error, Denied) and error.code == "budget_spent" and x.receipt is not None:
            x.metrics.refusal(x.charges[x.receipt.binding or 0].budget)

    def record(self, x: Exchange) -> None:
        """Count what came of it: last and always."""
        if x.stream is not None:
            x.stream.close()
        metrics, mode = x.metrics, x.route.mode
        scoring = x.endpoint.access == "scoring"
        outcome = outcome_of(x)
        metrics.request(outcome)
        metrics.added(x.added_s or self.clock.monotonic_s() - x.began_s - x.upstream_s)
        if x.upstream_s:
            metrics.upstream(x.upstream_s)
        verdict = verdict_of(x) if scoring else "status"
        if x.trace is not None:
            said = {"guard.rows": x.rows, "guard.verdict": verdict, "guard.mode": mode}
            x.trace.end(outcome, said | ({"http.response.status_code": x.response.status} if x.response else {}))
        if not scoring:
            return
        metrics.verdict(verdict, mode)
        if x.report is not None:
            metrics.rows(x.rows)
            metrics.shift(x.report.score_shift_l1)
            if x.report.top1_changed:
                metrics.top1_changed(x.report.top1_changed)
            if x.report.redacted or x.report.shadow_redacted:
                # Of a route in shadow nothing left as a redaction.
                metrics.redacted(x.report.redacted, mode)
                metrics.redacted(x.report.shadow_redacted, "shadow")
        if x.receipt is not None:
            for charge, spend, charged in zip(x.charges, x.receipt.spends, x.receipt.charged, strict=True):
                metrics.charge(charge.budget, charged.spent if charge.event is None else charge.rows)
                # A limit of 0 is a budget that an information meter has closed.
                left = 1.0 - spend.spent / charge.limit if charge.limit > 0 else 0.0
                metrics.remaining(charge.budget, charge.window(x.now_s), left)
        if x.client is not None:
            self.clients.seen(x.client, x.route.name, x.rows, x.now_s)
        self.marks.note(x.call.headers, x.route.name, x.client)
        self.recent.note(x, verdict)
        if self.audit is not None:
            self.audit.add(decision_of(x, verdict, self.pseudonyms))
