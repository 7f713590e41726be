"""Putting it together: loads the policy, opens the state, listens on two sockets, reloads, drains."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from guard.errors import StateError
from guard.policy.plan import Plan
from guard.policy.schema import Limits
from guard.ports import Clock, State
from guard.proxy.app import DataApp
from guard.proxy.audit import open_audit
from guard.proxy.clients import RecentClients
from guard.proxy.decisions import policy_of
from guard.proxy.fronts import Address, Fronts, Ways
from guard.proxy.grpc_front import Grpc, check_grpc, open_listener, open_models
from guard.proxy.handler import Handler
from guard.proxy.listener import COMMON, Listener, bind
from guard.proxy.models import adjust, check_models, open_upstreams
from guard.proxy.observers import Observers
from guard.proxy.plans import Active, Plans
from guard.proxy.protocol import bounded, sweep_forever
from guard.proxy.recording import Recording
from guard.proxy.secret import derived, load_secret
from guard.proxy.tls import Certificates, Tls, unasked
from guard.state.open import open_state
from guard.telemetry.bodies import BodyRecorder
from guard.telemetry.metrics import Metrics
from guard.telemetry.recorder import Recorder
from guard.telemetry.tls_metrics import TlsMetrics
from guard.telemetry.tracing import TraceOptions, open_tracer

log = logging.getLogger("guard")


class SystemClock:
    """The machine's clocks."""

    wall_s = staticmethod(time.time)
    monotonic_s = staticmethod(time.perf_counter)


class MovedClock:
    """The machine's clock, moved by the number of seconds in a file: lets the self-test's days go by.

    Args:
        path: the file; read at every request, missing is 0.
    """

    monotonic_s = staticmethod(time.perf_counter)

    def __init__(self, path: Path) -> None:
        log.warning("the clock of budgets follows %s: for tests only", path)
        self.path = path

    def wall_s(self) -> float:
        """Return the moved time."""
        try:
            return time.time() + float(self.path.read_text())
        except (OSError, ValueError):
            return time.time()


@dataclass(frozen=True, slots=True)
class Settings:
    """Where things listen and live; none of it is policy.

    Args:
        upstreams: (name, URL) of every model server; one alone may have an empty name. None: nothing is served over
            HTTP.
        listen: (host, port) of the data listener; port 0 takes a free one.
        admin: (host, port) of the admin listener, or None for none.
        state: `memory:`, `sqlite:PATH` or `redis://...`.
        secret_file: file that holds the noise secret; None for `GUARD_SECRET` or a generated one.
        load: loads and compiles the policy; is given the salt of what detectors hash.
        ready: called with the bound addresses (data, admin, gRPC) once all listeners accept.
        test_clock: file that moves the wall clock, for the self-test; None in production.
        audit: `file:PATH`, `stdout` or `syslog:ADDRESS` that decisions and events are put down in; None for the log
            alone.
        record: directory that calibration traffic is written to; None for nothing.
        bodies: record whole requests and answers too, for `guard replay`.
        tls: certificate and key of the data listener; None for plain HTTP.
        admin_tls: the admin listener serves HTTPS with the same certificate.
        admin_token: secret that callers of the admin listener must bring; None for none.
        tracing: send OpenTelemetry traces; None for none.
        report: the last self-test's JSON report, for the console.
        grpc: serve gRPC too, or alone; None for not.
    """

    upstreams: tuple[tuple[str, str], ...]
    listen: tuple[str, int]
    admin: tuple[str, int] | None
    state: str
    secret_file: Path | None
    load: Callable[[bytes], Active]
    ready: Callable[[Address, Address, Address], None]
    test_clock: Path | None = None
    audit: str | None = None
    record: Path | None = None
    bodies: bool = False
    tls: Tls | None = None
    admin_tls: bool = False
    admin_token: str | None = None
    tracing: TraceOptions | None = None
    report: Path | None = None
    grpc: Grpc | None = None


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Raises:
        PolicyError: the policy cannot be used.
        StateError: the state cannot be opened, or the secret is missing where replicas share it.
        OSError: an address cannot be bound.
    """
    metrics = Metrics()
    secret = load_secret(settings.state, settings.secret_file)
    salt = derived(secret, b"guard detectors")
    active = settings.load(salt)
    _check(settings, active.plan)

    def reloaded(ok: bool, message: str) -> None:
        _reloaded(metrics, plans, ok, message)
        for way in ways.every:
            adjust(way, plans.current.plan)
        handler.watching.adopt(plans.current.plan)
        if ok and handler.audit is not None:
            handler.audit.add(policy_of(plans.current.plan, clock.wall_s()))
        config.timeout_graceful_shutdown = drain_s(plans.current.plan.limits)

    plans = Plans(lambda: settings.load(salt), reloaded, active, lambda plan: _accept(plan, settings, handler))
    _announce(active, metrics)
    listener = bind(*settings.listen) if settings.upstreams else None
    admin_listener = bind(*settings.admin) if settings.admin is not None else None
    state = open_state(settings.state)
    ways = _ways(settings, active.plan)
    clients = RecentClients()
    clock = SystemClock() if settings.test_clock is None else MovedClock(settings.test_clock)
    observers = Observers(
        audit=None if settings.audit is None else open_audit(settings.audit, secret, metrics, active.plan.digest),
        tracer=None if settings.tracing is None else open_tracer(settings.tracing),
        recording=_recording(settings, secret, metrics),
    )
    shared = settings.state.startswith("redis")
    handler = Handler(state, ways.every[0], clock, secret, metrics, clients, observers, shared=shared)
    handler.watching.adopt(active.plan)
    app = _data_app(plans, handler, metrics, clock)
    config = uvicorn.Config(app, http=bounded(lambda: plans.current.plan.limits), **COMMON)
    config.timeout_graceful_shutdown = drain_s(active.plan.limits)
    server = Listener(config)
    page = None
    if admin_listener is not None:
        page = _admin_page(plans, metrics, state, ways, handler, settings), admin_listener
    certificates = _certificates(settings, metrics, plans)
    grpc = open_listener(settings.grpc, ways.grpc, plans, handler, app, certificates)
    fronts = Fronts((server, listener), page, grpc)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, fronts.stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: _hang_up(plans))
    background = [
        asyncio.create_task(kept(plans.watch)),
        asyncio.create_task(kept(lambda: sweep_forever(server.server_state.connections))),
        asyncio.create_task(kept(handler.watching.run)),
        *_secured(certificates, plans, server, page[0] if page is not None and settings.admin_tls else None),
        asyncio.create_task(kept(metrics.watch_loop)),
    ]
    try:
        await _settle(state, handler, active.plan)
        # What start-up made stays; collections need not walk it again.
        gc.collect()
        gc.freeze()
        await fronts.start()
        settings.ready(*fronts.addresses)
        await fronts.serve()
    finally:
        for task in background:
            task.cancel()
        await _close(handler, ways, state)


async def kept(work: Callable[[], Awaitable[None]], rest_s: float = 1.0) -> None:
    """Do what runs for ever beside requests, until cancelled: a bug in it is logged, and it begins anew.

    Reloads, sweeps and merges that end in silence would be missed only when they are needed.

    Args:
        work: begins it.
        rest_s: pause before it begins anew.
    """
    while True:
        try:
            await work()
        except Exception:  # a bug: whatever it is, the rest goes on
            log.exception("a bug in what runs beside requests: it begins anew")
        await asyncio.sleep(rest_s)


def _certificates(settings: Settings, metrics: Metrics, plans: Plans) -> Certificates | None:
    """Return the certificates to serve with; None for plain text.

    Raises:
        GuardError: they cannot be used.
    """
    for text in unasked(plans.current.plan.policy.identity, settings.tls):
        log.warning("%s", text)
    return None if settings.tls is None else Certificates(settings.tls, TlsMetrics(metrics.registry))


def _secured(
    certificates: Certificates | None, plans: Plans, data: Listener, page: Listener | None
) -> list[asyncio.Task[None]]:
    """Serve HTTPS where that was asked for: on the data listener, and on the admin listener."""
    if certificates is None:
        return []
    for server in (data, page):
        if server is not None:
            server.secure(certificates, lambda: plans.current.plan.limits.read_timeout_s, clients=server is data)
    return [asyncio.create_task(kept(lambda: certificates.watch(data.part)))]


def _check(settings: Settings, plan: Plan) -> None:
    """Hold a policy against the models that there are.

    Raises:
        PolicyError: it does not fit them.
    """
    if settings.upstreams:
        check_models(plan, len(settings.upstreams))
    if settings.grpc is not None:
        check_grpc(plan, len(settings.grpc.upstreams))


def _ways(settings: Settings, plan: Plan) -> Ways:
    """Return the ways to the models.

    Raises:
        PolicyError: a URL is not usable.
    """
    return Ways(
        open_upstreams(settings.upstreams, plan) if settings.upstreams else None,
        None if settings.grpc is None else open_models(settings.grpc, plan),
    )


async def _close(handler: Handler, ways: Ways, state: State) -> None:
    """Merge and write what is pending, and let go of everything."""
    await handler.watching.aclose()
    await ways.aclose()
    await state.aclose()
    if handler.recording is not None:
        await handler.recording.aclose()
    if handler.tracer is not None:
        await asyncio.to_thread(handler.tracer.close)
    if handler.audit is not None:
        await asyncio.to_thread(handler.audit.close)


def _announce(active: Active, metrics: Metrics) -> None:
    """Show the first policy, and warn of what an operator would regret."""
    metrics.policy(active.plan.name, active.plan.digest, active.plan.mode)
    for warning in active.plan.warnings:
        log.warning("%s: %s; %s", warning.path, warning.message, warning.hint)
    for text in active.identity.warnings:
        log.warning("%s", text)


def _data_app(plans: Plans, handler: Handler, metrics: Metrics, clock: Clock) -> DataApp:
    app = DataApp(plans, handler, metrics, clock)
    metrics.load(lambda: app.in_flight + app.beside(), lambda: plans.current.plan.limits.concurrency)
    return app


def _admin_page(
    plans: Plans, metrics: Metrics, state: State, ways: Ways, handler: Handler, settings: Settings
) -> Listener:
    """Return the admin listener's server; only a process that shows a page pays for importing Starlette."""
    from guard.proxy.admin import admin_app  # noqa: PLC0415
    from guard.proxy.admin_live import Live  # noqa: PLC0415

    async def ready() -> bool | str:
        return await ways.ready(plans.current.plan)

    live = Live(plans, handler, settings.report)
    admin = admin_app(
        plans,
        metrics,
        state,
        ready,
        handler.clients,
        token=settings.admin_token,
        acts=handler.agreements.acts,
        evidence=handler.watching.of_client,
        pseudonym=handler.pseudonyms.of,
        live=live,
    )
    page = Listener(uvicorn.Config(admin, **COMMON), live.samples.run)
    page.config.timeout_graceful_shutdown = 1
    return page


def _recording(settings: Settings, secret: bytes, metrics: Metrics) -> Recording | None:
    """Begin to record where that is asked for, and say what is written.

    Raises:
        OSError: the directory cannot be had; the message names it.
    """
    directory = settings.record
    if directory is None:
        return None
    try:
        recorder = Recorder(directory, derived(secret, b"guard pseudonyms"))
        whole = BodyRecorder(directory, recorder.key.id) if settings.bodies else None
    except OSError as error:
        raise OSError(error.errno, f"cannot record to {directory}: {error.strerror or error}") from error
    log.warning("%s", recorder.describe())
    if whole is not None:
        log.warning("%s", whole.describe())
    return Recording(recorder, secret, metrics, whole)


async def _accept(plan: Plan, settings: Settings, handler: Handler) -> None:
    _check(settings, plan)
    await handler.agreements.check(plan.routes)


async def _settle(state: State, handler: Handler, plan: Plan) -> None:
    """Tell early when the state is out of reach, requests fail closed until it comes back; or when ledgers disagree.

    Raises:
        PolicyError: a ledger was begun under other terms.
    """
    try:
        await state.ping()
        await handler.agreements.check(plan.routes)
    except StateError as error:
        log.warning("state is out of reach: %s", error.message)


def drain_s(limits: Limits) -> int:
    """Return how long requests in flight may take to finish, as uvicorn counts: in whole seconds, at least one."""
    return max(1, int(limits.drain_s))


def _hang_up(plans: Plans) -> None:
    task = asyncio.ensure_future(plans.reload())
    task.add_done_callback(lambda done: done.exception())


def _reloaded(metrics: Metrics, plans: Plans, ok: bool, message: str) -> None:
    metrics.reload(ok)
    if ok:
        plan = plans.current.plan
        metrics.policy(plan.name, plan.digest, plan.mode)
        log.info("policy %s in force, digest %s", plan.name, plan.digest[:12])
    else:
        log.error("policy not reloaded, the old one stays in force: %s", message)
