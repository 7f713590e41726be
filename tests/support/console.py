"""Something to see in the console: a model, Guard before it, customers, and a thief who walks along one feature."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import threading
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from guard.calibrate.findings import Settings
from guard.calibrate.fit import make_profile
from guard.calibrate.read import ClientLog
from guard.detectors.profile import encode
from guard.detectors.sketch import Sketch, Sketcher
from guard.model.arrays import Floats
from guard.model.queries import Queries
from tests.support.model import Model, model, scores
from tests.support.processes import Guard, guard
from tests.support.simulated_profile import client

SIZE = 8
CUSTOMERS = tuple(f"customer{number}" for number in range(12))
THIEF, PROBER = "thief", "prober"
NASTY = "<img src=x onerror=document.title='owned'>"
"""What would be markup, were it not text."""

ROUTES = """
  - name: fraud-scoring
    api: open_inference
    match: {path: /v2/models/fraud/infer}
    inputs: {kind: vector, size: 8, low: -12, high: 12}
    profile: PROFILE
    detectors: default
    ladder:
      - {tier: structure, false_alarm: 1.0e-2, action: alert}
      - {tier: any, false_alarm: 1.0e-2, action: degrade, hold: 1h, defences: [{kind: label_only}]}
      - {tier: structure, false_alarm: 1.0e-4, action: deny, hold: 24h}
      - {tier: protocol, count: 40, action: throttle, hold: 1h, rows_per_minute: 30}
    defences: [{kind: round, decimals: 2}]
    budgets:
      - {kind: rows, per: client, limit: 20000, window: 24h, then: deny}
      - {kind: information, per: group, graded_answers: 20000, window: 24h, then: label_only}
      - {kind: rows, per: model, limit: 200000, window: 24h, then: deny}
    exceptions:
      - {client: customer0, skip: [repeats], until: 2099-01-31, reason: "NASTY"}
  - name: pricing
    api: open_inference
    match: {path: /v2/models/pricing/infer}
    mode: MODE
    inputs: {kind: vector, size: 8, low: -12, high: 12}
    detectors: default
    ladder:
      - {tier: structure, false_alarm: 1.0e-2, action: alert}
    budgets: [{kind: rows, per: client, limit: 5000, window: 24h, then: deny}]
  - name: patients
    api: open_inference
    match: {path: /v2/models/patients/infer}
    inputs: {kind: vector, size: 8, low: -12, high: 12}
    outputs: {kind: probabilities, classes: [a, b, c, d, e]}
    privacy: {claim: dp, unit: training_record, adjacency: replace_one, sensitivity: auto, accept_lost_writes: a laptop}
    defences: [{kind: dp_gaussian, noise_multiplier: 8.0}]
    budgets: [{kind: privacy, per: model, epsilon: 8, delta: 1.0e-5}]
"""

GATES = """
selftest:
  gates:
    - {attack: equation_solving_softmax, metric: surrogate_l1, min: 0.005}
    - {attack: membership_threshold, metric: auc, max: 0.75}
    - {utility: top1_changed, max: 0.0}
"""


def honest(seed: int, number: int, rows: int) -> Floats:
    """Return an honest client's rows."""
    return np.clip(client(np.random.default_rng([seed, number]), SIZE, rows), -12, 12)


@cache
def _stream(number: int) -> Floats:
    """Return everything that a customer will ask."""
    return honest(1000, number, 8192)


def profile_of_customers(clients: int = 48, rows: int = 640) -> bytes:
    """Return a profile of honest clients of the test's model."""
    sketch = Sketch(size=SIZE)
    sketcher = Sketcher(sketch, bytes(16))
    logs: list[ClientLog] = []
    for number in range(clients):
        asked = honest(1, number, rows)
        said = np.array([scores(row) for row in asked.tolist()])
        two = np.partition(said, -2, axis=1)[:, -2:]
        keys = sketcher.features(Queries(rows, asked.ravel().tolist(), width=SIZE)).keys
        times = np.arange(rows, dtype=np.float64)
        margins, top = two[:, 1] - two[:, 0], said.argmax(axis=1)
        raw = asked.astype(np.float32)
        logs.append(ClientLog(f"{number:016x}", times, keys, raw, margins, top, said[::16].astype(np.float32)))
    made = Settings(seed=0, poisoned="keep", made="2026-11-20T09:00:00Z")
    return encode(make_profile("customers", sketch, logs, made)[0])


def key_of(name: str) -> str:
    """Return a client's key."""
    return f"key-of-{name}"


def write_policy(folder: Path, *, name: str = "bank", mode: str = "enforce", pricing: str = "shadow") -> Path:
    """Write a policy with everything that the console shows, and what it needs."""
    names = (*CUSTOMERS, THIEF, PROBER)
    group = {name: f"@team{number // 4}" for number, name in enumerate(CUSTOMERS)}
    keys, known, file = folder / "keys", folder / "profile.json", folder / "policy.yaml"
    lines = [f"{n}{group.get(n, '')}:{hashlib.sha256(key_of(n).encode()).hexdigest()}" for n in names]
    keys.write_text("\n".join(lines) + "\n")
    keys.chmod(0o600)
    if not known.exists():
        known.write_bytes(profile_of_customers())
    # A guarantee cannot stand in shadow: the client gets the model's own answer.
    routes = (
        (ROUTES.partition("  - name: patients")[0] if mode == "shadow" else ROUTES)
        .replace("PROFILE", str(known))
        .replace("NASTY", NASTY)
        .replace("MODE", pricing)
    )
    identity = f"[{{kind: api_key, header: x-api-key, keys_file: {keys}}}]"
    file.write_text(f"version: 1\nname: {json.dumps(name)}\nmode: {mode}\nidentity: {identity}\nroutes:{routes}{GATES}")
    return file


@dataclass
class Traffic:
    """Asks Guard, and counts what it was answered.

    Args:
        port: of the data listener.
    """

    port: int
    statuses: list[int] = field(default_factory=list[int])
    _asked: Counter[str] = field(default_factory=Counter[str])

    def ask(self, name: str, rows: Floats, route: str = "fraud", key: str | None = None) -> int:
        """Send one request and return its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        tensor = {"name": "x", "shape": list(rows.shape), "datatype": "FP64", "data": rows.ravel().tolist()}
        headers = {"content-type": "application/json", "x-api-key": key_of(name) if key is None else key}
        try:
            body = json.dumps({"inputs": [tensor]})
            connection.request("POST", f"/v2/models/{route}/infer", body, headers)
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
        self.statuses.append(answer.status)
        return answer.status

    def customers(self, names: Sequence[str] = CUSTOMERS, requests: int = 4, rows: int = 8) -> None:
        """Let customers ask, each what it would ask next."""
        for number, name in enumerate(names):
            stream = _stream(number)
            for _ in range(requests):
                at = self._asked[name] % (len(stream) - rows)
                self._asked[name] += rows
                self.ask(name, stream[at : at + rows])

    def theft(self, name: str = THIEF, rows: int = 320) -> None:
        """Let a thief step along one feature after the other from one point, as an inversion does."""
        at = np.repeat(np.random.default_rng(3).normal(size=(1, SIZE)), rows, axis=0)
        at[np.arange(rows), np.arange(rows) % SIZE] += 0.01 * (1 + np.arange(rows) // SIZE)
        for part in np.split(at, rows // 16):
            self.ask(name, part)

    def mistakes(self, name: str = PROBER, requests: int = 6) -> None:
        """Ask outside the domain, and with a key that nobody has."""
        for _ in range(requests):
            self.ask(name, np.full((1, SIZE), 99.0))
        self.ask(name, np.zeros((1, SIZE)), key="no such key")

    def others(self, requests: int = 10) -> None:
        """Ask the other routes."""
        for number in range(requests):
            rows = honest(5, number, 2)
            self.ask(CUSTOMERS[number % 12], rows, "pricing")
            self.ask(CUSTOMERS[number % 12], rows, "patients")


@dataclass
class Stage:
    """A model, Guard before it, and its traffic.

    Args:
        model: asked by Guard.
        guard: the running one.
        traffic: asks it.
        policy: its file.
    """

    model: Model
    guard: Guard
    traffic: Traffic
    policy: Path


@contextlib.contextmanager
def stage(
    folder: Path, *options: str, name: str = "bank", mode: str = "enforce", pricing: str = "shadow"
) -> Generator[Stage]:
    """Run all of it."""
    policy = write_policy(folder, name=name, mode=mode, pricing=pricing)
    with model(folder / "model") as served, guard(policy, served.url, folder / "guard", *options) as running:
        yield Stage(served, running, Traffic(running.port), policy)


@contextlib.contextmanager
def steadily(traffic: Traffic) -> Generator[None]:
    """Let customers go on asking for as long as this lasts."""
    stop = threading.Event()

    def go_on() -> None:
        while not stop.is_set():
            traffic.customers(CUSTOMERS[:6], 1, 4)
            stop.wait(0.05)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
