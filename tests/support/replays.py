"""Recordings made by Guard in process, for tests of replays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from guard.model.arrays import Floats
from guard.model.exchange import Reply
from guard.policy.load import load_plan
from guard.policy.plan import Plan
from guard.proxy.observers import Observers
from guard.proxy.recording import Recording
from guard.proxy.secret import derived
from guard.replay.engine import Engine
from guard.replay.run import Result, Secret, open_traffic, replay
from guard.replay.seen import Seen
from guard.replay.traffic import Kind, Wanted
from guard.telemetry.bodies import BodyRecorder
from guard.telemetry.metrics import Metrics
from guard.telemetry.recorder import Recorder
from tests.support.fakes import SECRET, Guarded
from tests.support.fakes import Seen as Asking
from tests.support.model import answer

PATH = "/v2/models/digits/infer"
REAL = Secret(SECRET, real=True)


class Sent(NamedTuple):
    """One request: an address's last number, and rows or a body."""

    peer: int
    rows: Floats | None = None
    body: bytes = b""


def body_of(rows: Floats) -> bytes:
    """Return an Open Inference request."""
    tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def some(requests: int, rows: int = 4, width: int = 6, clients: int = 3) -> list[Sent]:
    """Return plain requests of a few clients."""
    rng = np.random.default_rng(7)
    return [Sent(i % clients + 1, rng.normal(size=(rows, width)).round(3)) for i in range(requests)]


def model(seen: Asking) -> Reply:
    """Answer as `tests.support.model` does, and 400 what it cannot read."""
    try:
        said = json.dumps(answer(json.loads(seen.body), "digits")).encode()
    except (ValueError, KeyError, TypeError):
        return Reply(400, [(b"content-type", b"text/plain"), (b"set-cookie", b"session=secret")], b"bad request")
    return Reply(200, [(b"content-type", b"application/json"), (b"set-cookie", b"session=secret")], said)


def record(
    folder: Path,
    sent: Sequence[Sent],
    policy: str = "observe",
    *,
    bodies: bool = True,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    say: Callable[[Asking], Reply] = model,
) -> Path:
    """Record requests, one a second, as `guard serve --record` does; return the directory."""
    guarded = Guarded(policy, folder, api="open_inference")
    directory = folder / "traffic"
    recorder = Recorder(directory, derived(SECRET, b"guard pseudonyms"))
    whole = BodyRecorder(directory, recorder.key.id) if bodies else None
    metrics = Metrics()
    guarded.handler.audit, guarded.handler.tracer, guarded.handler.recording = Observers(
        recording=Recording(recorder, SECRET, metrics, whole)
    )
    guarded.upstream.answer = say

    async def run() -> None:
        for one in sent:
            guarded.clock.wall += 1
            body = one.body if one.rows is None else body_of(one.rows)
            given = [(b"content-type", b"application/json"), *headers]
            await guarded.ask("POST", PATH, body, given, peer=f"192.0.2.{one.peer}")
        assert guarded.handler.recording is not None
        await guarded.handler.recording.aclose()

    asyncio.run(run())
    assert not recorder.dropped
    return directory


def plan_of(policy: str | Path, secret: Secret = REAL) -> Plan:
    """Return a policy compiled for a replay."""
    return load_plan(policy, api="open_inference", env={}, salt=derived(secret.key, b"guard detectors"))


def policy_file(folder: Path, text: str, name: str = "new.yaml") -> Path:
    """Write a policy."""
    path = folder / name
    path.write_text(text)
    return path


def engine_sees(
    directory: Path,
    policy: str | Path,
    kind: Kind = "bodies",
    wanted: Wanted = Wanted(),  # noqa: B008 -- immutable
) -> tuple[list[Seen | None], Engine]:
    """Replay a directory; return what became of each request, and the engine."""
    engine = Engine(plan_of(policy), REAL.key, None)

    async def run() -> list[Seen | None]:
        return [await engine.ask(request) for request in open_traffic([directory], kind, wanted)]

    return asyncio.run(run()), engine


def compared(directory: Path, new: str | Path, old: str | Path | None = None, kind: Kind | None = None) -> Result:
    """Replay a directory under one or two policies."""
    plans = (None if old is None else plan_of(old), plan_of(new))
    names = ("recorded" if old is None else str(old), str(new))
    return asyncio.run(replay(open_traffic([directory], kind, Wanted()), plans, names, REAL))
